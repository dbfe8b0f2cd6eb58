//! The suite on J4: identity first by crosswalk, then by identifiers.

use std::sync::Arc;

use super::Bench;
use super::plans::{by_id, company, deleted, on, person, plan, row, sibling, text};
use super::world::{Writer, begin};
use crate::mapping::plan::{Cell, DestinationPlan};
use crate::model::policy::{OnEmptyIdentifier, OnExit};
use crate::model::stored::StoredType;
use crate::target::port::Outcome::{self, Associated, Deleted, Inserted, Updated};

fn at(email: &str) -> Cell {
    text(email)
}

pub async fn the_crosswalk_comes_first(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(person());
    writer
        .one(row(&plan, "a", 1).text("email", "a@x.example"))
        .await;
    writer
        .one(row(&plan, "b", 2).text("email", "b@x.example"))
        .await;
    let (a, b) = (
        writer.gsid_of("person", "a").await,
        writer.gsid_of("person", "b").await,
    );
    // Its identifier changes: the same row, even where another row has that value.
    let outcome = writer
        .one(row(&plan, "a", 3).text("email", "new@x.example"))
        .await;
    assert_eq!(outcome, Updated);
    let outcome = writer
        .one(row(&plan, "a", 4).text("email", "b@x.example"))
        .await;
    assert_eq!(outcome, Updated);
    // Or goes: the policy on empty identifiers is for records that are not known.
    let mut strict = person();
    strict.on_empty_identifier = OnEmptyIdentifier::Reject;
    assert_eq!(writer.one(row(&Arc::new(strict), "a", 5)).await, Updated);
    assert_eq!(writer.gsid_of("person", "a").await, a);
    assert_eq!(writer.gsid_of("person", "b").await, b);
    assert_eq!(writer.all("person").await.len(), 2);
    assert_eq!(writer.cell_of("person", "a", "email").await, Cell::Null);
}

pub async fn identifiers_are_trimmed_and_case_blind_where_planned(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (companies, persons) = (Arc::new(company()), Arc::new(person()));
    let outcomes = writer
        .send([
            row(&persons, "a", 1).text("email", " Ann@X.example\t"),
            row(&persons, "b", 1).text("email", "ann@x.EXAMPLE"),
            row(&companies, "a", 1).text("external_id", " Key\n"),
            row(&companies, "b", 1).text("external_id", "Key"),
            row(&companies, "c", 1).text("external_id", "key"),
        ])
        .await;
    assert_eq!(
        outcomes,
        [Inserted, Associated, Inserted, Associated, Inserted]
    );
    // And in a later batch, after a restart.
    bench.reopen().await;
    let mut writer = writer.again(bench).await;
    let outcomes = writer
        .send([
            row(&persons, "c", 1).text("email", "ANN@x.example "),
            row(&companies, "d", 1).text("external_id", "\r\nkey "),
            row(&companies, "e", 1).text("external_id", "KEY"),
        ])
        .await;
    assert_eq!(outcomes, [Associated, Associated, Inserted]);
    let one = writer.gsid_of("person", "a").await;
    assert_eq!(writer.gsid_of("person", "b").await, one);
    assert_eq!(writer.gsid_of("person", "c").await, one);
    // What is stored is what came last, untouched.
    assert_eq!(
        writer.cell_of("person", "a", "email").await,
        at("ANN@x.example ")
    );
}

pub async fn leading_zeros_and_inner_blanks_count(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    for (n, key) in ["7", "007", "7.0", "a b", "a  b", "%", "_"]
        .iter()
        .enumerate()
    {
        let outcome = writer
            .one(row(&plan, &n.to_string(), 1).text("external_id", key))
            .await;
        assert_eq!(outcome, Inserted, "{key}");
    }
}

pub async fn empty_identifiers_match_nothing(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let insert = Arc::new(person());
    let mut strict = person();
    strict.on_empty_identifier = OnEmptyIdentifier::Reject;
    let reject = Arc::new(strict);
    let empties = [Cell::Null, text(""), text(" \t")];
    for (n, empty) in empties.into_iter().enumerate() {
        let record = format!("insert {n}");
        let outcome = writer
            .one(row(&insert, &record, 1).cell("email", empty.clone()))
            .await;
        assert_eq!(outcome, Inserted, "{empty:?}");
        let record = format!("reject {n}");
        let reasons = writer
            .refused([row(&reject, &record, 1).cell("email", empty)])
            .await;
        assert_eq!(reasons.len(), 1);
        assert!(reasons[0].contains("email"), "{reasons:?}");
        assert!(writer.traced(&record).await.is_empty());
    }
    assert_eq!(writer.all("person").await.len(), 3);
}

pub async fn one_empty_identifier_of_several_is_enough(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let both = Arc::new(person().identified(&["email", "name"]));
    let full = |record: &str, name: &str| {
        row(&both, record, 1)
            .text("email", "a@x.example")
            .text("name", name)
    };
    assert_eq!(writer.one(full("a", "Ann")).await, Inserted);
    assert_eq!(
        writer.one(full("b", "Bob")).await,
        Inserted,
        "all must match"
    );
    assert_eq!(writer.one(full("c", "")).await, Inserted);
    assert_eq!(writer.one(full("d", "")).await, Inserted);
    assert_eq!(writer.one(full("e", "Bob")).await, Associated);
    let bob = writer.gsid_of("person", "b").await;
    assert_eq!(writer.gsid_of("person", "e").await, bob);
}

pub async fn without_identifiers_every_record_is_a_row(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(plan("company", &[("name", StoredType::String)]));
    let outcomes = writer
        .send([
            row(&plan, "a", 1).text("name", "one"),
            row(&plan, "b", 1).text("name", "one"),
        ])
        .await;
    assert_eq!(outcomes, [Inserted, Inserted]);
    assert_eq!(writer.all("company").await.len(), 2);
}

pub async fn a_batch_is_grouped_by_identifiers(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(person());
    let named = |record: &str, email: &str, name: &str| {
        row(&plan, record, 1)
            .text("email", email)
            .text("name", name)
    };
    let outcomes = writer
        .send([
            named("a", "x@x.example", "first"),
            named("b", "y@x.example", "other"),
            named("c", "X@x.example ", "second"),
            named("d", "x@X.example", "third"),
        ])
        .await;
    assert_eq!(outcomes, [Inserted, Inserted, Associated, Associated]);
    assert_eq!(writer.all("person").await.len(), 2);
    assert_eq!(writer.cell_of("person", "a", "name").await, text("third"));
    for record in ["c", "d"] {
        let gsid = writer.gsid_of("person", record).await;
        assert_eq!(gsid, writer.gsid_of("person", "a").await);
    }
}

/// Of two that write one row the later one's cells stay, whichever of them was known before.
pub async fn the_later_offset_writes_last(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(person());
    let named = |record: &str, version: u64, name: &str| {
        row(&plan, record, version)
            .text("email", "x@x.example")
            .text("name", name)
    };
    writer.one(named("a", 1, "one")).await;
    let outcomes = writer
        .send([named("a", 2, "two"), named("b", 3, "three")])
        .await;
    assert_eq!(outcomes, [Updated, Associated]);
    assert_eq!(writer.cell_of("person", "a", "name").await, text("three"));
    let outcomes = writer
        .send([named("c", 4, "four"), named("a", 5, "five")])
        .await;
    assert_eq!(outcomes, [Associated, Updated]);
    assert_eq!(writer.cell_of("person", "a", "name").await, text("five"));
}

/// What a batch changes about identifiers holds for those after it in the batch.
pub async fn identifiers_move_within_a_batch(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(person());
    let with =
        |record: &str, version: u64, email: &str| row(&plan, record, version).text("email", email);
    writer.one(with("a", 1, "old@x.example")).await;
    let outcomes = writer
        .send([
            with("a", 2, "new@x.example"),
            with("b", 3, "old@x.example"),
            with("c", 4, "new@x.example"),
        ])
        .await;
    assert_eq!(outcomes, [Updated, Inserted, Associated]);
    let a = writer.gsid_of("person", "a").await;
    assert_ne!(writer.gsid_of("person", "b").await, a);
    assert_eq!(writer.gsid_of("person", "c").await, a);
    assert_eq!(
        writer.cell_of("person", "a", "email").await,
        at("new@x.example")
    );
    assert_eq!(
        writer.cell_of("person", "b", "email").await,
        at("old@x.example")
    );
}

/// A record is deleted and another with its e-mail comes: its row lives, whatever the order in the batch.
pub async fn a_row_changes_hands_within_a_batch(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(person());
    let with = |record: &str, version: u64| {
        let row = row(&plan, record, version).text("email", "x@x.example");
        row.text("name", record)
    };
    writer.one(with("a", 1)).await;
    writer.send([deleted(&plan, "a", 2), with("b", 3)]).await;
    let rows = writer.all("person").await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].cell("name"), text("b"));
    assert_eq!(writer.row_of("person", "b").await.as_ref(), Some(&rows[0]));
    let outcomes = writer.send([with("c", 4), deleted(&plan, "b", 5)]).await;
    assert_eq!(outcomes, [Associated, Deleted]);
    let again = writer.all("person").await;
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].gsid, rows[0].gsid);
    assert_eq!(again[0].cell("name"), text("c"));
}

pub async fn a_shared_row_goes_with_its_last_record(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(person());
    for record in ["a", "b", "c"] {
        writer
            .one(row(&plan, record, 1).text("email", "x@x.example"))
            .await;
    }
    let gsid = writer.gsid_of("person", "a").await;
    assert_eq!(writer.one(deleted(&plan, "b", 2)).await, Deleted);
    assert_eq!(writer.all("person").await.len(), 1);
    assert_eq!(writer.row_of("person", "b").await, None);
    let outcomes = writer
        .send([deleted(&plan, "a", 2), deleted(&plan, "c", 2)])
        .await;
    assert_eq!(outcomes, [Deleted, Deleted]);
    assert!(writer.all("person").await.is_empty());
    // They come back to one row.
    let outcomes = writer
        .send([
            row(&plan, "c", 3).text("email", "x@x.example"),
            row(&plan, "a", 3).text("email", "moved@x.example"),
        ])
        .await;
    assert_eq!(outcomes, [Inserted, Associated]);
    assert_eq!(writer.gsid_of("person", "a").await, gsid);
    assert_eq!(writer.gsid_of("person", "c").await, gsid);
}

pub async fn two_connections_share_a_row(bench: &mut dyn Bench) {
    let mut acme = begin(bench).await;
    let mut contoso = Writer::open(bench.target(), "contoso", "sync").await;
    let ours = Arc::new(company());
    let theirs = Arc::new(
        plan(
            "company",
            &[
                ("external_id", StoredType::String),
                ("employees", StoredType::Number),
            ],
        )
        .identified(&["external_id"]),
    );
    acme.one(
        row(&ours, "1", 5)
            .text("external_id", "k")
            .text("name", "Acme"),
    )
    .await;
    // The same record id on another connection is another record.
    let shared = row(&theirs, "1", 1)
        .text("external_id", "k")
        .number("employees", "9");
    assert_eq!(contoso.one(shared).await, Associated);
    let gsid = acme.gsid_of("company", "1").await;
    assert_eq!(contoso.gsid_of("company", "1").await, gsid);
    assert_eq!(acme.cell_of("company", "1", "name").await, text("Acme"));
    assert_eq!(
        acme.cell_of("company", "1", "employees").await,
        Cell::Number("9".into())
    );
    // A look-up by record id stays on its connection.
    contoso
        .one(row(&theirs, "2", 1).text("external_id", "other"))
        .await;
    let persons = Arc::new(person().derive(by_id("company", "company")));
    acme.one(row(&persons, "p", 1).to("company", &["2"])).await;
    assert_eq!(acme.cell_of("person", "p", "company").await, Cell::Null);
    acme.one(row(&persons, "p", 2).to("company", &["1"])).await;
    assert_eq!(
        acme.cell_of("person", "p", "company").await,
        Cell::Gsid(gsid)
    );
    assert_eq!(acme.one(deleted(&ours, "1", 6)).await, Deleted);
    assert_eq!(contoso.gsid_of("company", "1").await, gsid);
    assert_eq!(contoso.one(deleted(&theirs, "1", 6)).await, Deleted);
    assert!(contoso.row_of("company", "1").await.is_none());
}

fn link() -> DestinationPlan {
    plan("company person", &[("role", StoredType::String)])
        .derive(sibling("person", "person"))
        .derive(by_id("company", "company"))
        .identified(&["person", "company"])
        .exits(OnExit::Delete, OnExit::Delete)
}

/// Two destinations of one job: the second one's identifiers are rows that the first one wrote.
pub async fn identifiers_may_be_derived(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let companies = Arc::new(company());
    let (persons, links) = (Arc::new(person()), Arc::new(link()));
    writer
        .send(["x", "y"].map(|key| row(&companies, key, 1).text("external_id", key)))
        .await;
    let contact = |record: &str, version: u64, email: &str, company: &str| {
        [
            row(&persons, record, version).text("email", email),
            row(&links, record, version)
                .sibling("person")
                .to("company", &[company]),
        ]
    };
    let mut rows: Vec<_> = contact("1", 1, "ann@x.example", "x").into();
    rows.extend(contact("2", 1, "ann@x.example", "x"));
    rows.extend(contact("3", 1, "ann@x.example", "y"));
    let outcomes = writer.send(rows).await;
    assert_eq!(
        outcomes,
        [
            Inserted, Associated, Associated, Inserted, Associated, Inserted
        ]
    );
    assert_eq!(writer.all("person").await.len(), 1);
    assert_eq!(writer.all("company person").await.len(), 2);
    let person = writer.gsid_of("person", "2").await;
    let company = writer.gsid_of("company", "x").await;
    let cell = |column: &'static str| writer.cell_of("company person", "2", column);
    assert_eq!(cell("person").await, Cell::Gsid(person));
    assert_eq!(cell("company").await, Cell::Gsid(company));
    // A missing row makes an empty identifier.
    let mut strict = link();
    strict.on_empty_identifier = OnEmptyIdentifier::Reject;
    let strict = Arc::new(strict);
    let orphan = row(&strict, "1", 9)
        .sibling("person")
        .to("company", &["nowhere"]);
    assert_eq!(
        writer.one(orphan).await,
        Updated,
        "a known record is not matched"
    );
    let orphan = row(&strict, "9", 1).sibling("person").to("company", &["x"]);
    let reasons = writer.refused([orphan]).await;
    assert!(reasons[0].contains("person"), "{reasons:?}");
}

/// Partitions have writers of their own, which meet in the tables.
pub async fn two_partitions_never_insert_twice(bench: &mut dyn Bench) {
    let writer = begin(bench).await;
    let plan = Arc::new(person());
    let mut tasks = tokio::task::JoinSet::new();
    for partition in 0..6_u32 {
        let mut writer = writer.clone();
        writer.partition = partition;
        let (mut writer, plan) = (writer.again(bench).await, Arc::clone(&plan));
        tasks.spawn(async move {
            let mut inserted = 0;
            for round in 0..5 {
                let rows = (0..20).map(|n| {
                    let key = round * 20 + n;
                    let row = row(&plan, &format!("{partition}-{key}"), 1);
                    row.text("email", &format!("{key}@x.example"))
                });
                let outcomes = writer.send(rows).await;
                inserted += outcomes
                    .iter()
                    .filter(|outcome| **outcome == Inserted)
                    .count();
                let others = outcomes.iter().filter(|outcome| **outcome != Inserted);
                assert!(others.into_iter().all(|outcome| *outcome == Associated));
            }
            inserted
        });
    }
    let mut inserted = 0;
    while let Some(done) = tasks.join_next().await {
        inserted += done.unwrap();
    }
    assert_eq!(inserted, 100);
    assert_eq!(writer.all("person").await.len(), 100);
}

pub async fn two_thousand_rows_are_one_batch(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let companies = Arc::new(company());
    let persons = Arc::new(
        person()
            .derive(by_id("manager", "person"))
            .derive(super::plans::by(
                "company",
                "company",
                vec![on("external_id", StoredType::String)],
            )),
    );
    let rows = |version: u64, name: &str| {
        let mut rows = Vec::new();
        for n in 0..2_000_u64 {
            let record = n.to_string();
            let company = row(&companies, &record, version);
            rows.push(company.text("external_id", &record).text("name", name));
            let person = row(&persons, &record, version).text("email", &format!("{n}@x.example"));
            // Every manager but the last comes after.
            let person = person.to("manager", &[&(n + 1).min(1_999).to_string()]);
            rows.push(
                person
                    .to("company", &[&(n / 2).to_string()])
                    .text("name", name),
            );
        }
        rows
    };
    let outcomes = writer.send(rows(1, "one")).await;
    assert_eq!(outcomes.len(), 4_000);
    assert!(outcomes.iter().all(|outcome| *outcome == Inserted));
    let outcomes = writer.send(rows(2, "one")).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| *outcome == Outcome::Unchanged)
    );
    let outcomes = writer.send(rows(3, "two")).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Updated));
    assert_eq!(writer.all("company").await.len(), 2_000);
    let persons = writer.all("person").await;
    assert_eq!(persons.len(), 2_000);
    assert!(persons.iter().all(|row| row.cell("manager") != Cell::Null));
    assert!(persons.iter().all(|row| row.cell("company") != Cell::Null));
    let manager = writer.gsid_of("person", "1000").await;
    assert_eq!(
        writer.cell_of("person", "999", "manager").await,
        Cell::Gsid(manager)
    );
    let company = writer.gsid_of("company", "499").await;
    assert_eq!(
        writer.cell_of("person", "999", "company").await,
        Cell::Gsid(company)
    );
    assert_eq!(writer.parked().await, 0);
}
