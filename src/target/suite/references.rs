//! The suite on J5: references that are empty, found, parked and released.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::Bench;
use super::plans::{by, by_id, company, deleted, filtered, on, person, plan, row, sibling, text};
use super::world::{Writer, begin};
use crate::mapping::plan::{Cell, DestinationPlan, MatchKey, Reference};
use crate::model::policy::{OnExit, OnMultiple, OnNone};
use crate::model::stored::StoredType;
use crate::target::port::Outcome::{Associated, Inserted, Skipped, Unchanged, Updated};
use crate::target::port::Released;

type Plan = Arc<DestinationPlan>;

/// Companies, and persons with a company and a manager by record id.
fn plans() -> (Plan, Plan) {
    let person = person()
        .derive(by_id("company", "company"))
        .derive(by_id("manager", "person"));
    (Arc::new(company()), Arc::new(person))
}

async fn reference(writer: &Writer, record: &str, column: &str) -> Option<Uuid> {
    match writer.cell_of("person", record, column).await {
        Cell::Gsid(gsid) => Some(gsid),
        Cell::Null => None,
        other => panic!("{column} holds {other:?}"),
    }
}

async fn waiting(writer: &Writer, record: &str) -> Vec<String> {
    let traced = writer.traced(record).await;
    let parked = traced.into_iter().flat_map(|traced| traced.parked);
    parked.collect()
}

pub async fn an_empty_reference_is_none(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (companies, _) = plans();
    writer.one(row(&companies, "c", 1)).await;
    for (n, on_none) in [
        OnNone::Null,
        OnNone::Reject,
        OnNone::Skip,
        OnNone::Default(Uuid::max()),
    ]
    .into_iter()
    .enumerate()
    {
        let derive = by_id("company", "company").on_none(on_none);
        let plan = Arc::new(person().derive(derive));
        let record = n.to_string();
        let outcome = writer.one(row(&plan, &record, 1).reference("company", Reference::Empty));
        assert_eq!(outcome.await, Inserted, "{on_none:?}");
        assert_eq!(reference(&writer, &record, "company").await, None);
        // And clears what was there.
        writer
            .one(row(&plan, &record, 2).to("company", &["c"]))
            .await;
        assert!(reference(&writer, &record, "company").await.is_some());
        let outcome = writer.one(row(&plan, &record, 3).reference("company", Reference::Empty));
        assert_eq!(outcome.await, Updated, "{on_none:?}");
        assert_eq!(reference(&writer, &record, "company").await, None);
    }
    assert_eq!(writer.parked().await, 0);
    assert_eq!(writer.release().await.filled, 0);
}

pub async fn a_reference_finds_its_row(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (companies, persons) = plans();
    writer
        .one(row(&companies, "c", 1).text("external_id", "k"))
        .await;
    let company = writer.gsid_of("company", "c").await;
    writer
        .one(row(&persons, "p", 1).to("company", &["c"]))
        .await;
    assert_eq!(reference(&writer, "p", "company").await, Some(company));
    // By columns, all of them, compared as identifiers are.
    let keys = vec![
        on("external_id", StoredType::String),
        on("name", StoredType::String),
    ];
    let by_columns = Arc::new(person().derive(by("company", "company", keys)));
    writer
        .one(
            row(&companies, "d", 1)
                .text("external_id", "k ")
                .text("name", "Acme"),
        )
        .await;
    // `d` joined `c`'s row.
    writer
        .one(row(&by_columns, "q", 1).to("company", &[" k", "Acme\t"]))
        .await;
    assert_eq!(reference(&writer, "q", "company").await, Some(company));
    writer
        .one(row(&by_columns, "r", 1).to("company", &["k", "acme"]))
        .await;
    assert_eq!(reference(&writer, "r", "company").await, None);
    // By record id and a column.
    let keys = vec![MatchKey::RecordId, on("name", StoredType::String)];
    let mixed = Arc::new(person().derive(by("company", "company", keys)));
    writer
        .one(row(&mixed, "s", 1).to("company", &["c", "Acme"]))
        .await;
    assert_eq!(reference(&writer, "s", "company").await, Some(company));
    writer
        .one(row(&mixed, "t", 1).to("company", &["c", "Other"]))
        .await;
    assert_eq!(reference(&writer, "t", "company").await, None);
    // Case-blind where planned.
    let keys = vec![on("email", StoredType::Email)];
    let by_mail = Arc::new(person().derive(by("manager", "person", keys)));
    writer
        .one(row(&by_mail, "boss", 1).text("email", "Boss@x.example"))
        .await;
    writer
        .one(row(&by_mail, "u", 1).to("manager", &["bOSS@X.example "]))
        .await;
    let boss = writer.gsid_of("person", "boss").await;
    assert_eq!(reference(&writer, "u", "manager").await, Some(boss));
}

pub async fn a_moved_child_refers_to_its_new_parent(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (companies, persons) = plans();
    for key in ["c", "d"] {
        writer
            .one(row(&companies, key, 1).text("external_id", key))
            .await;
    }
    let found = ["c", "d", "missing", "c"];
    for (version, key) in (1..).zip(found) {
        writer
            .one(row(&persons, "p", version).to("company", &[key]))
            .await;
        let due = if key == "missing" {
            None
        } else {
            Some(writer.gsid_of("company", key).await)
        };
        assert_eq!(reference(&writer, "p", "company").await, due);
    }
    assert_eq!(writer.parked().await, 0);
}

pub async fn a_missing_parent_is_parked_and_released(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (companies, persons) = plans();
    let child = row(&persons, "p", 1)
        .to("company", &["c"])
        .text("name", "Ann");
    assert_eq!(writer.one(child.clone()).await, Inserted);
    assert_eq!(reference(&writer, "p", "company").await, None);
    assert_eq!(waiting(&writer, "p").await, ["company"]);
    assert_eq!(writer.parked().await, 1);
    assert_eq!(writer.release().await.filled, 0);
    // Delivered again it waits as before.
    assert_eq!(writer.one(child).await, Unchanged);
    assert_eq!(writer.parked().await, 1);
    bench.reopen().await;
    let mut writer = writer.again(bench).await;
    assert_eq!(writer.parked().await, 1);
    let before = writer.row_of("person", "p").await.unwrap();
    writer.one(row(&companies, "c", 1)).await;
    let released = writer.release().await;
    assert_eq!((released.filled, released.changes.len()), (1, 0));
    let company = writer.gsid_of("company", "c").await;
    let after = writer.row_of("person", "p").await.unwrap();
    assert_eq!(after.cell("company"), Cell::Gsid(company));
    assert_eq!(after.cell("name"), text("Ann"));
    assert_ne!(after.cell("modified_date"), before.cell("modified_date"));
    assert_eq!(after.cell("created_date"), before.cell("created_date"));
    assert_eq!(writer.parked().await, 0);
    assert!(waiting(&writer, "p").await.is_empty());
    assert_eq!(writer.release().await.filled, 0);
}

pub async fn only_the_connection_asked_for_is_released(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let mut other = Writer::open(bench.target(), "other", "sync").await;
    let (companies, persons) = plans();
    for writer in [&mut writer, &mut other] {
        writer
            .one(row(&persons, "p", 1).to("company", &["c"]))
            .await;
        writer.one(row(&companies, "c", 1)).await;
    }
    assert_eq!(other.release().await.filled, 1);
    assert_eq!((writer.parked().await, other.parked().await), (1, 0));
    assert_eq!(reference(&writer, "p", "company").await, None);
    assert_eq!(writer.release().await.filled, 1);
}

pub async fn a_release_is_limited_and_goes_on(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (companies, persons) = plans();
    let children = (0..25).map(|n| row(&persons, &n.to_string(), 1).to("company", &["c"]));
    writer.send(children).await;
    // One that goes on waiting stands in nobody's way.
    writer
        .one(row(&persons, "x", 1).to("company", &["nowhere"]))
        .await;
    writer.one(row(&companies, "c", 1)).await;
    let mut filled = Vec::new();
    loop {
        let released = writer.release_some(10).await;
        assert!(released.filled <= 10);
        filled.push(released.filled);
        if !released.more {
            break;
        }
        assert!(released.filled > 0 && filled.len() < 10, "{filled:?}");
    }
    assert_eq!(filled.iter().sum::<u64>(), 25);
    assert_eq!(writer.parked().await, 1);
}

/// A manager on the same object: before, after, in the batch, in a ring, oneself.
pub async fn self_lookups_do_not_mind_the_order(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (_, persons) = plans();
    let managed = |record: &str, by: &str| {
        let row = row(&persons, record, 1).text("email", &format!("{record}@x.example"));
        row.to("manager", &[by])
    };
    let pairs = [
        ("a", "b"),
        ("b", "c"),
        ("c", "a"),
        ("d", "d"),
        ("e", "a"),
        ("f", "late"),
    ];
    let outcomes = writer
        .send(pairs.map(|(record, by)| managed(record, by)))
        .await;
    assert!(outcomes.iter().all(|outcome| *outcome == Inserted));
    for (record, by) in &pairs[..5] {
        let manager = writer.gsid_of("person", by).await;
        assert_eq!(
            reference(&writer, record, "manager").await,
            Some(manager),
            "{record}"
        );
    }
    assert_eq!(waiting(&writer, "f").await, ["manager"]);
    writer.send([managed("late", "f")]).await;
    assert_eq!(writer.release().await.filled, 1);
    for (record, by) in [("f", "late"), ("late", "f")] {
        let manager = writer.gsid_of("person", by).await;
        assert_eq!(reference(&writer, record, "manager").await, Some(manager));
    }
    // Nothing changes when all come again, in whatever order.
    let before = writer.all("person").await;
    let outcomes = writer.send(
        pairs
            .into_iter()
            .rev()
            .map(|(record, by)| managed(record, by)),
    );
    assert!(outcomes.await.iter().all(|outcome| *outcome == Unchanged));
    assert_eq!(writer.all("person").await, before);
}

pub async fn chains_are_released_from_any_end(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (_, persons) = plans();
    let order = [3, 0, 4, 1, 2, 5];
    for n in order {
        let record = format!("p{n}");
        let row = row(&persons, &record, 1).text("email", &format!("{n}@x.example"));
        writer
            .one(row.to("manager", &[&format!("p{}", n + 1)]))
            .await;
        writer.release().await;
    }
    for n in 0..5 {
        let manager = writer.gsid_of("person", &format!("p{}", n + 1)).await;
        let record = format!("p{n}");
        assert_eq!(reference(&writer, &record, "manager").await, Some(manager));
    }
    assert_eq!(waiting(&writer, "p5").await, ["manager"]);
    assert_eq!(writer.parked().await, 1);
}

pub async fn a_later_write_replaces_what_waits(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (companies, persons) = plans();
    writer
        .one(row(&persons, "p", 1).to("company", &["old"]))
        .await;
    writer
        .one(row(&persons, "p", 2).to("company", &["new"]))
        .await;
    assert_eq!(writer.parked().await, 1);
    writer
        .one(row(&companies, "old", 1).text("external_id", "old"))
        .await;
    assert_eq!(writer.release().await.filled, 0);
    assert_eq!(reference(&writer, "p", "company").await, None);
    writer
        .one(row(&companies, "new", 1).text("external_id", "new"))
        .await;
    assert_eq!(writer.release().await.filled, 1);
    let new = writer.gsid_of("company", "new").await;
    assert_eq!(reference(&writer, "p", "company").await, Some(new));
    // An empty reference and a delete clear it.
    for (record, clearing) in [
        ("q", row(&persons, "q", 2)),
        ("r", deleted(&persons, "r", 2)),
    ] {
        writer
            .one(row(&persons, record, 1).to("company", &["never"]))
            .await;
        assert_eq!(writer.parked().await, 1);
        writer.one(clearing).await;
        assert_eq!(writer.parked().await, 0);
    }
}

/// Another job wrote the record meanwhile: what the first one parked is no longer true.
pub async fn what_is_stale_is_not_filled(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let mut second = Writer::open(bench.target(), "acme", "second").await;
    let (companies, persons) = plans();
    writer
        .one(row(&persons, "p", 1).to("company", &["c"]))
        .await;
    let elsewhere = Arc::new(person());
    second
        .one(row(&elsewhere, "p", 2).text("name", "later"))
        .await;
    writer.one(row(&companies, "c", 1)).await;
    assert_eq!(writer.release().await.filled, 0);
    assert_eq!(reference(&writer, "p", "company").await, None);
}

/// A field that the image lacks says nothing: column and what waits stay.
pub async fn an_absent_reference_leaves_all_as_it_is(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (companies, persons) = plans();
    writer
        .one(row(&companies, "c", 1).text("external_id", "c"))
        .await;
    let first = row(&persons, "p", 1)
        .to("company", &["c"])
        .to("manager", &["q"]);
    writer.one(first).await;
    let second = row(&persons, "p", 2).text("name", "Ann");
    writer
        .one(second.reference("company", None).reference("manager", None))
        .await;
    let company = writer.gsid_of("company", "c").await;
    assert_eq!(reference(&writer, "p", "company").await, Some(company));
    assert_eq!(waiting(&writer, "p").await, ["manager"]);
    writer
        .one(row(&persons, "q", 1).text("email", "q@x.example"))
        .await;
    assert_eq!(writer.release().await.filled, 1);
    let manager = writer.gsid_of("person", "q").await;
    assert_eq!(reference(&writer, "p", "manager").await, Some(manager));
}

/// A parent that left is no row; its GSID is the same when it comes back.
pub async fn a_parent_that_left_is_missing_until_it_is_back(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (companies, persons) = plans();
    writer
        .one(row(&companies, "c", 1).text("external_id", "c"))
        .await;
    let company = writer.gsid_of("company", "c").await;
    writer
        .one(row(&persons, "early", 1).to("company", &["c"]))
        .await;
    writer.one(deleted(&companies, "c", 2)).await;
    writer
        .one(row(&persons, "late", 1).to("company", &["c"]))
        .await;
    assert_eq!(reference(&writer, "early", "company").await, Some(company));
    assert_eq!(reference(&writer, "late", "company").await, None);
    assert_eq!(writer.release().await.filled, 0);
    writer
        .one(row(&companies, "c", 3).text("external_id", "c"))
        .await;
    assert_eq!(writer.release().await.filled, 1);
    assert_eq!(writer.gsid_of("company", "c").await, company);
    for record in ["early", "late"] {
        assert_eq!(reference(&writer, record, "company").await, Some(company));
    }
}

pub async fn a_kept_or_marked_parent_is_found(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (_, persons) = plans();
    for exit in [OnExit::Keep, OnExit::Mark] {
        let companies = Arc::new(company().exits(exit, exit));
        let key = format!("{exit:?}");
        writer
            .one(row(&companies, &key, 1).text("external_id", &key))
            .await;
        writer.one(deleted(&companies, &key, 2)).await;
        writer
            .one(row(&persons, &key, 1).to("company", &[&key]))
            .await;
        let company = writer.gsid_of("company", &key).await;
        assert_eq!(reference(&writer, &key, "company").await, Some(company));
    }
}

/// A row that its record left, and that is still there, goes on waiting, also over several exits.
pub async fn a_kept_or_marked_row_goes_on_waiting(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let companies = Arc::new(company());
    for exit in [OnExit::Keep, OnExit::Mark] {
        let key = format!("{exit:?}");
        let persons = person().derive(by_id("company", "company"));
        let persons = Arc::new(persons.exits(exit, exit));
        let child = row(&persons, &key, 1).text("email", &key);
        writer.one(child.to("company", &[&key])).await;
        writer.one(filtered(&persons, &key, 2)).await;
        writer.one(deleted(&persons, &key, 3)).await;
        assert_eq!(waiting(&writer, &key).await, ["company"], "{exit:?}");
        writer
            .one(row(&companies, &key, 1).text("external_id", &key))
            .await;
        assert_eq!(writer.release().await.filled, 1, "{exit:?}");
        let company = writer.gsid_of("company", &key).await;
        assert_eq!(reference(&writer, &key, "company").await, Some(company));
    }
    assert_eq!(writer.parked().await, 0);
}

pub async fn of_several_the_lowest_or_none(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plain = Arc::new(plan("company", &[("name", StoredType::String)]));
    for record in ["a", "b", "c"] {
        writer
            .one(row(&plain, record, 1).text("name", "same"))
            .await;
    }
    let mut gsids = BTreeSet::new();
    for record in ["a", "b", "c"] {
        gsids.insert(writer.gsid_of("company", record).await);
    }
    assert_eq!(gsids.len(), 3);
    let keys = || vec![on("name", StoredType::String)];
    let any = Arc::new(person().derive(by("company", "company", keys())));
    writer.one(row(&any, "p", 1).to("company", &["same"])).await;
    assert_eq!(
        reference(&writer, "p", "company").await,
        gsids.first().copied()
    );
    let strict = by("company", "company", keys()).on_multiple(OnMultiple::Error);
    let strict = Arc::new(person().derive(strict));
    let reasons = writer
        .refused([row(&strict, "q", 1).to("company", &["same"])])
        .await;
    assert!(reasons[0].contains("same"), "{reasons:?}");
    for gsid in &gsids {
        assert!(reasons[0].contains(&gsid.to_string()), "{reasons:?}");
    }
    assert!(writer.traced("q").await.is_empty());
    // The one that came, not the many that came.
    writer
        .one(row(&strict, "r", 1).to("company", &["one"]))
        .await;
    writer.one(row(&plain, "d", 1).text("name", "one")).await;
    writer.one(row(&plain, "e", 1).text("name", "one")).await;
    assert_eq!(writer.release().await.filled, 0);
    writer.one(deleted(&plain, "e", 2)).await;
    assert_eq!(writer.release().await.filled, 1);
    let one = writer.gsid_of("company", "d").await;
    assert_eq!(reference(&writer, "r", "company").await, Some(one));
}

pub async fn a_default_stands_in_for_a_missing_row(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let fallback = Uuid::from_u128(7);
    let derive = by_id("company", "company").on_none(OnNone::Default(fallback));
    let plan = Arc::new(person().derive(derive));
    assert_eq!(
        writer.one(row(&plan, "p", 1).to("company", &["c"])).await,
        Inserted
    );
    assert_eq!(reference(&writer, "p", "company").await, Some(fallback));
    assert_eq!(writer.parked().await, 0);
    let companies = Arc::new(company());
    writer.one(row(&companies, "c", 1)).await;
    let company = writer.gsid_of("company", "c").await;
    assert_eq!(
        writer.one(row(&plan, "p", 2).to("company", &["c"])).await,
        Updated
    );
    assert_eq!(reference(&writer, "p", "company").await, Some(company));
}

pub async fn skip_leaves_the_destination_alone(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (companies, persons) = (Arc::new(company()), Arc::new(person()));
    let link = plan("company person", &[("role", StoredType::String)])
        .derive(sibling("person", "person"))
        .derive(by_id("company", "company").on_none(OnNone::Skip));
    let links = Arc::new(link);
    let contact = |version: u64, company: &str| {
        [
            row(&persons, "p", version).text("email", "p@x.example"),
            row(&links, "p", version)
                .sibling("person")
                .to("company", &[company]),
        ]
    };
    let outcomes = writer.send(contact(1, "c")).await;
    assert_eq!(outcomes, [Inserted, Skipped]);
    assert!(writer.row_of("company person", "p").await.is_none());
    assert_eq!(writer.parked().await, 0);
    writer.one(row(&companies, "c", 1)).await;
    assert_eq!(writer.release().await, Released::default());
    assert_eq!(writer.send(contact(2, "c")).await, [Unchanged, Inserted]);
    let before = writer.row_of("company person", "p").await;
    assert_eq!(writer.send(contact(3, "d")).await, [Unchanged, Skipped]);
    assert_eq!(writer.row_of("company person", "p").await, before);
}

pub async fn a_sibling_is_the_row_of_this_record(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let persons = Arc::new(person());
    let link = plan("company person", &[]).derive(sibling("person", "person"));
    let links = Arc::new(link);
    let contact = |record: &str, version: u64, email: &str| {
        [
            row(&persons, record, version).text("email", email),
            row(&links, record, version).sibling("person"),
        ]
    };
    let mut rows: Vec<_> = contact("a", 1, "x@x.example").into();
    rows.extend(contact("b", 1, "x@x.example"));
    rows.extend(contact("c", 1, "y@x.example"));
    let outcomes = writer.send(rows).await;
    assert_eq!(
        outcomes,
        [Inserted, Associated, Inserted, Inserted, Inserted, Inserted]
    );
    for record in ["a", "b", "c"] {
        let person = writer.gsid_of("person", record).await;
        let cell = writer.cell_of("company person", record, "person").await;
        assert_eq!(cell, Cell::Gsid(person), "{record}");
    }
    // Without one it waits for it, like for any other.
    let outcome = writer.one(row(&links, "d", 1).sibling("person")).await;
    assert_eq!(outcome, Inserted);
    assert_eq!(writer.parked().await, 1);
    let outcome = writer
        .one(row(&persons, "d", 1).text("email", "d@x.example"))
        .await;
    assert_eq!(outcome, Inserted);
    assert_eq!(writer.release().await.filled, 1);
    let person = writer.gsid_of("person", "d").await;
    let cell = writer.cell_of("company person", "d", "person").await;
    assert_eq!(cell, Cell::Gsid(person));
}
