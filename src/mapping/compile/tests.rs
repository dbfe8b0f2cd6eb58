//! Compiled jobs: what changes become, and what mistakes are told.

mod bench;
mod mistakes;
mod realtime;

use chrono::TimeZone;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::mapping::plan::{DeriveBy, MatchKey};
use crate::model::change::Op;
use crate::model::policy::{OnEmptyIdentifier, OnExit, OnMultiple, OnNone};
use crate::model::value::{Fields, Value};

use bench::{
    ACCOUNT_ID, CONTACT_ID, change, contact_job, derive, destination, job, map, objects, sibling,
};

fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 1, 15, 10, 0, 0).unwrap()
}

fn compiled(job: &JobConfig) -> Mapping {
    Mapping::compile(job, &objects()).unwrap_or_else(|problems| {
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        panic!("{}", told.join("\n"))
    })
}

fn mapped(job: &JobConfig, op: Op, fields: &[(&str, Value)]) -> Mapped {
    compiled(job).map(&change(op, fields), (3, 14), now())
}

fn rows(job: &JobConfig, op: Op, fields: &[(&str, Value)]) -> Vec<MappedRow> {
    match mapped(job, op, fields) {
        Mapped::Rows(rows) => rows,
        other => panic!("{other:?}"),
    }
}

fn text(text: &str) -> Option<Cell> {
    Some(Cell::Text(text.into()))
}

fn whole_contact() -> Vec<(&'static str, Value)> {
    vec![
        ("Email", Value::from(" Ann@Acme.example ")),
        ("FirstName", Value::from("Ann")),
        ("AccountId", Value::from(ACCOUNT_ID)),
        ("ReportsToId", Value::Null),
        ("Level__c", Value::from("Gold")),
        ("DoNotCall", Value::Bool(true)),
        ("Account.Name", Value::from("Acme")),
    ]
}

/// A copy without one field, or with another value of it.
fn with(field: &str, value: Option<Value>) -> Vec<(&'static str, Value)> {
    let mut fields = whole_contact();
    match value {
        Some(value) => fields
            .iter_mut()
            .filter(|(name, _)| *name == field)
            .for_each(|(_, old)| *old = value.clone()),
        None => fields.retain(|(name, _)| *name != field),
    }
    fields
}

#[test]
fn the_plan_says_what_the_target_needs() {
    let mapping = compiled(&contact_job());
    let plan = mapping.plan();
    let mut fields: Vec<_> = plan.fields.iter().map(FieldName::as_str).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "Account.Name",
            "AccountId",
            "DoNotCall",
            "Email",
            "FirstName",
            "Id",
            "Level__c",
            "ReportsToId"
        ]
    );
    let [person, company_person] = &plan.destinations[..] else {
        panic!()
    };
    assert_eq!(
        (person.table.as_str(), person.label.as_str()),
        ("person", "Person")
    );
    assert!(person.identifiers[0].case_blind, "an e-mail column");
    assert_eq!(person.on_delete, OnExit::Keep);
    assert_eq!(company_person.on_delete, OnExit::Delete, "its own");
    assert_eq!(company_person.on_filter_exit, OnExit::Mark, "the job's");
    assert_eq!(
        company_person.on_empty_identifier,
        OnEmptyIdentifier::Insert
    );
    let columns: Vec<_> = company_person
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    assert_eq!(
        columns,
        [
            "external_contact_id",
            "level",
            "opted_in",
            "origin",
            "company_name"
        ]
    );
    assert!(company_person.columns[3].insert_only && !company_person.columns[3].keep_on_null);
    assert!(company_person.columns[4].keep_on_null);
    assert_eq!(
        company_person.derives[0].by,
        DeriveBy::Sibling("person".to_owned())
    );
    assert_eq!(company_person.derives[1].table, "company");
    assert_eq!(
        company_person.derives[1].by,
        DeriveBy::Match(vec![MatchKey::RecordId])
    );
    assert_eq!(
        (
            company_person.derives[1].on_multiple,
            company_person.derives[1].on_none
        ),
        (OnMultiple::Error, OnNone::Reject)
    );
    assert_eq!(
        company_person.derives[2].table, "company_person",
        "a look-up in its own table"
    );
    assert!(
        company_person
            .identifiers
            .iter()
            .all(|identifier| !identifier.case_blind)
    );
}

#[test]
fn user_names_are_case_blind() {
    let mut job = job(vec![destination(
        "User",
        &["username"],
        vec![map("username", "Username")],
    )]);
    job.destinations[0].derive = vec![derive(
        "manager",
        "User",
        &[("username", "Manager.Username")],
        OnNone::Null,
    )];
    let mapping = compiled(&job);
    let plan = &mapping.plan().destinations[0];
    assert!(plan.identifiers[0].case_blind);
    let DeriveBy::Match(keys) = &plan.derives[0].by else {
        panic!()
    };
    assert!(matches!(
        &keys[0],
        MatchKey::Column {
            case_blind: true,
            ty: StoredType::String,
            ..
        }
    ));
}

#[test]
fn a_contact_becomes_a_person_and_a_company_person() {
    let rows = rows(&contact_job(), Op::Update, &whole_contact());
    let [person, company_person] = &rows[..] else {
        panic!()
    };
    assert_eq!(person.record.as_str(), CONTACT_ID);
    assert_eq!((person.place, person.life), ((3, 14), Life::Present));
    assert_eq!(person.version, change(Op::Update, &[]).version);
    assert_eq!(person.committed_at, change(Op::Update, &[]).committed_at);
    assert_eq!(person.cells, [text("Ann@Acme.example"), text("Ann")]);
    assert_eq!(
        company_person.cells,
        [
            text(CONTACT_ID),
            Some(Cell::Number("1".into())),
            Some(Cell::Boolean(false)),
            text("salesforce"),
            text("Acme")
        ]
    );
    assert_eq!(
        company_person.references,
        [
            Some(Reference::Sibling),
            Some(Reference::Values(vec![Cell::Text(ACCOUNT_ID.into())])),
            Some(Reference::Empty),
        ]
    );
}

#[test]
fn the_id_is_known_though_events_do_not_tell_it() {
    let mut job = contact_job();
    job.filter = Some(bench::at(format!("Id = '{CONTACT_ID}'"), "where"));
    assert!(
        matches!(&rows(&job, Op::Create, &whole_contact())[1].cells[0], Some(Cell::Text(id)) if **id == *CONTACT_ID)
    );
    let told = with("Level__c", Some(Value::from("Gold")));
    let told: Vec<_> = told
        .into_iter()
        .chain([("Id", Value::from("003000000000002AAA"))])
        .collect();
    assert_eq!(
        rows(&job, Op::Create, &told)[0].life,
        Life::Filtered,
        "what is told goes first"
    );
}

#[test]
fn a_missing_column_field_leaves_the_column_as_it_is() {
    let rows = rows(&contact_job(), Op::Update, &with("FirstName", None));
    assert_eq!(rows[0].cells, [text("Ann@Acme.example"), None]);
    let cleared = self::rows(
        &contact_job(),
        Op::Update,
        &with("FirstName", Some(Value::Null)),
    );
    assert_eq!(cleared[0].cells[1], Some(Cell::Null), "null clears");
}

#[test]
fn without_a_field_that_decides_nothing_is_said() {
    let mut job = contact_job();
    job.filter = Some(bench::at("DoNotCall = true OR FirstName = 'x'", "where"));
    job.destinations[1].filter = Some(bench::at("Level__c != null", "to.Company Person.where"));
    for field in [
        "DoNotCall",
        "FirstName",
        "Level__c",
        "Email",
        "AccountId",
        "ReportsToId",
    ] {
        assert_eq!(
            mapped(&job, Op::Update, &with(field, None)),
            Mapped::NotEvaluated(vec![FieldName::new(field)]),
            "{field}"
        );
    }
    let mut bad_and_missing = with("Email", None);
    bad_and_missing.retain(|(name, _)| *name != "AccountId");
    bad_and_missing[0].1 = Value::from("Ann");
    let Mapped::NotEvaluated(mut missing) = mapped(&job, Op::Update, &bad_and_missing) else {
        panic!()
    };
    missing.sort_unstable();
    assert_eq!(
        missing,
        [FieldName::new("AccountId"), FieldName::new("Email")]
    );
}

#[test]
fn a_filtered_record_needs_its_filter_alone() {
    let mut job = contact_job();
    job.filter = Some(bench::at("FirstName = 'Bob'", "where"));
    let filtered = rows(&job, Op::Update, &[("FirstName", Value::from("Ann"))]);
    assert!(filtered.iter().all(|row| row.life == Life::Filtered));
    assert_eq!(filtered[1].cells, vec![None; 5]);
    assert_eq!(filtered[1].references, vec![None; 3]);
    // A value that can't be cast is nobody's trouble then.
    let bad = rows(&job, Op::Update, &with("Email", Some(Value::from("n/a"))));
    assert_eq!(bad[0].life, Life::Filtered);
}

#[test]
fn a_destination_has_a_filter_of_its_own() {
    let mut job = contact_job();
    job.destinations[0].filter = Some(bench::at("Email != null", "to.Person.where"));
    let lives = |fields: &[(&str, Value)]| -> Vec<Life> {
        rows(&job, Op::Update, fields)
            .iter()
            .map(|row| row.life)
            .collect()
    };
    assert_eq!(lives(&whole_contact()), [Life::Present, Life::Present]);
    assert_eq!(
        lives(&with("Email", Some(Value::Null))),
        [Life::Filtered, Life::Present]
    );
}

#[test]
fn deletes_carry_what_is_left_and_are_never_refused() {
    let mut job = contact_job();
    job.filter = Some(bench::at("Gone__c = true", "where"));
    for fields in [
        vec![],
        with("Email", Some(Value::from("n/a"))),
        with("AccountId", None),
    ] {
        let rows = rows(&job, Op::Delete, &fields);
        assert!(
            rows.iter().all(|row| row.life == Life::Deleted),
            "{fields:?}"
        );
        assert_eq!((rows[0].cells.len(), rows[1].references.len()), (2, 3));
    }
    let last = rows(&job, Op::Delete, &whole_contact());
    assert_eq!(last[0].cells, [text("Ann@Acme.example"), text("Ann")]);
}

#[test]
fn refusals_name_field_value_column_and_type() {
    let mut fields = with("Email", Some(Value::from("n/a")));
    fields
        .iter_mut()
        .filter(|(name, _)| *name == "Level__c")
        .for_each(|(_, value)| *value = Value::from("Lead"));
    let Mapped::Rejected(reason) = mapped(&contact_job(), Op::Update, &fields) else {
        panic!()
    };
    assert_eq!(
        reason,
        "field `Email` = `n/a` is not an e-mail address, but column `email` of Person is of type email; \
         field `Level__c` = `Lead` is not among its `values`, but column `level` of Company Person is of type number"
    );
    let mut job = contact_job();
    job.destinations[1].derive[1] = derive(
        "company_id",
        "Company",
        &[("employees", "AccountId")],
        OnNone::Reject,
    );
    let Mapped::Rejected(reason) = mapped(&job, Op::Update, &whole_contact()) else {
        panic!()
    };
    assert_eq!(
        reason,
        format!(
            "field `AccountId` = `{ACCOUNT_ID}` is not a number, but the look-up `company_id` of Company Person compares it"
        )
    );
}

#[test]
fn values_and_defaults() {
    let level = |value: Value| {
        rows(&contact_job(), Op::Update, &with("Level__c", Some(value)))[1].cells[1].clone()
    };
    let number = |digits: &str| Some(Cell::Number(digits.into()));
    assert_eq!(level(Value::from("Gold")), number("1"));
    assert_eq!(level(Value::from(" Gold ")), number("1"));
    assert_eq!(level(Value::from(2)), number("20"));
    assert_eq!(level(Value::number("2.00").unwrap()), number("20"));
    assert_eq!(level(Value::number("2e0").unwrap()), number("20"));
    assert_eq!(level(Value::Null), number("99"), "the default");
    assert_eq!(level(Value::from(" ")), number("99"));
    assert!(matches!(
        mapped(
            &contact_job(),
            Op::Update,
            &with("Level__c", Some(Value::from("gold")))
        ),
        Mapped::Rejected(_)
    ));
}

#[test]
fn identifiers_are_trimmed_and_blank_ones_empty() {
    let job = job(vec![destination(
        "Company",
        &["name"],
        vec![map("name", "Name"), map("industry", "Industry")],
    )]);
    let cells = |name: &str| {
        rows(
            &job,
            Op::Update,
            &[
                ("Name", Value::from(name)),
                ("Industry", Value::from(" x ")),
            ],
        )[0]
        .cells
        .clone()
    };
    assert_eq!(cells("  Acme "), [text("Acme"), text(" x ")]);
    assert_eq!(cells("   ")[0], Some(Cell::Null));
}

#[test]
fn one_empty_side_makes_no_reference() {
    let mut job = contact_job();
    let pairs = [
        ("external_contact_id", "ReportsToId"),
        ("company_id", "Company__c"),
    ];
    job.destinations[1].derive[2] = derive("manager", "Company Person", &pairs, OnNone::Null);
    let gsid = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b";
    let reference = |reports_to: Value, company: Value| {
        let mut fields = with("ReportsToId", Some(reports_to));
        fields.push(("Company__c", company));
        rows(&job, Op::Update, &fields)[1].references[2].clone()
    };
    let (id, company) = (Value::from(CONTACT_ID), Value::from(gsid));
    assert_eq!(
        reference(Value::Null, company.clone()),
        Some(Reference::Empty)
    );
    assert_eq!(
        reference(id.clone(), Value::from("")),
        Some(Reference::Empty)
    );
    assert_eq!(
        reference(id, company),
        Some(Reference::Values(vec![
            Cell::Text(CONTACT_ID.into()),
            Cell::Gsid(gsid.parse::<Uuid>().unwrap())
        ]))
    );
}

#[test]
fn looked_up_ids_have_one_spelling() {
    for (value, expected) in [
        (Value::from(&ACCOUNT_ID[..15]), ACCOUNT_ID),
        (
            Value::from("{A1B2C3D4-0000-1111-2222-333344445555}"),
            "a1b2c3d4-0000-1111-2222-333344445555",
        ),
        (
            Value::from("A1B2C3D4-0000-1111-2222-333344445555"),
            "a1b2c3d4-0000-1111-2222-333344445555",
        ),
        (Value::from(" x1 "), "x1"),
    ] {
        assert_eq!(record_id(&value), Cell::Text(expected.into()), "{value:?}");
    }
    assert_eq!(record_id(&Value::from(" ")), Cell::Null);
    assert_eq!(record_id(&Value::Null), Cell::Null);
}

#[test]
fn siblings_need_no_field() {
    let mut job = contact_job();
    job.destinations[1].derive = vec![sibling("person_id", "Person")];
    job.destinations[1].identifiers = vec![bench::at("person_id", "identifiers")];
    assert_eq!(
        rows(&job, Op::Update, &whole_contact())[1].references,
        [Some(Reference::Sibling)]
    );
}

proptest! {
    #[test]
    fn any_image_is_mapped_whole_or_not_at_all(
        alive in any::<bool>(),
        present in prop::collection::vec(any::<bool>(), 7),
        values in prop::collection::vec(prop_oneof![
            Just(Value::Null), any::<bool>().prop_map(Value::Bool), any::<i64>().prop_map(Value::from),
            "[ -~]{0,12}|Gold|a@b".prop_map(|text| Value::from(&*text)),
        ], 7),
    ) {
        let names = ["Email", "FirstName", "AccountId", "ReportsToId", "Level__c", "DoNotCall", "Account.Name"];
        let decides = |name: &str| matches!(name, "Email" | "AccountId" | "ReportsToId");
        let fields: Fields = names.iter().zip(&present).zip(values)
            .filter(|((_, present), _)| **present)
            .map(|((name, _), value)| (FieldName::new(name), value))
            .collect();
        let mut change = change(if alive { Op::Update } else { Op::Delete }, &[]);
        change.fields = fields;
        let lacks = names.iter().zip(&present).any(|(name, present)| decides(name) && !present);
        match compiled(&contact_job()).map(&change, (0, 0), now()) {
            Mapped::Rows(rows) => {
                prop_assert_eq!(rows.len(), 2);
                prop_assert_eq!((rows[0].cells.len(), rows[1].cells.len(), rows[1].references.len()), (2, 5, 3));
                let life = if alive { Life::Present } else { Life::Deleted };
                prop_assert!(rows.iter().all(|row| row.life == life));
                prop_assert!(!(alive && lacks));
            }
            Mapped::NotEvaluated(missing) => {
                prop_assert!(alive && lacks);
                prop_assert!(missing.iter().all(|field| !change.fields.contains_key(field)));
            }
            Mapped::Rejected(reason) => prop_assert!(alive && !lacks && !reason.is_empty()),
        }
    }
}
