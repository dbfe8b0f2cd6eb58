//! The suite on J5, `on_none = reject`: whole changes that wait, run again and expire.

use std::sync::Arc;

use chrono::TimeDelta;

use super::Bench;
use super::plans::{
    Row, by, by_id, company, deleted, filtered, on, person, plan, row, sibling, text,
};
use super::world::{Writer, begin, image, start};
use crate::mapping::plan::{Cell, DestinationPlan};
use crate::model::policy::{OnMultiple, OnNone};
use crate::model::record_id::RecordId;
use crate::model::stored::StoredType;
use crate::model::version::Version;
use crate::target::port::Outcome::{Associated, Ignored, Inserted, Parked, Unchanged, Updated};
use crate::target::port::{Expired, Outcome, ParkedChange};

type Plan = Arc<DestinationPlan>;

/// Companies, and persons of which the company must be there.
fn plans() -> (Plan, Plan) {
    let person = person().derive(by_id("company", "company").on_none(OnNone::Reject));
    (Arc::new(company()), Arc::new(person))
}

fn parked_change(row: &Row) -> ParkedChange {
    let row = &row.row;
    ParkedChange {
        record: row.record.clone(),
        version: row.version,
        place: row.place,
        image: image(row.record.as_str(), row.version.counter()),
    }
}

/// What a job does with released changes: the same rows at the same offset, under its own version.
async fn run_again(writer: &mut Writer, rows: Vec<Row>) -> Vec<Outcome> {
    let mut batch = writer.batch(rows);
    batch.next = batch.expect;
    let applied = writer.apply(batch).await.unwrap();
    assert!(applied.committed);
    applied.outcomes.into_iter().flatten().collect()
}

pub async fn a_rejected_reference_parks_the_change(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (companies, persons) = plans();
    let child = row(&persons, "p", 1).to("company", &["c"]).at(0, 41);
    assert_eq!(writer.one(child.clone()).await, Parked);
    assert!(writer.all("person").await.is_empty());
    assert_eq!(writer.parked().await, 1);
    assert!(writer.release().await.changes.is_empty());
    bench.reopen().await;
    let mut writer = writer.again(bench).await;
    writer.one(row(&companies, "c", 1)).await;
    // It stays until it was applied again: a crash between loses nothing.
    for _ in 0..2 {
        let released = writer.release().await;
        assert_eq!(
            (released.filled, released.changes),
            (0, vec![parked_change(&child)])
        );
        assert_eq!(writer.parked().await, 1);
    }
    assert_eq!(run_again(&mut writer, vec![child]).await, [Inserted]);
    assert_eq!(writer.parked().await, 0);
    assert!(writer.release().await.changes.is_empty());
    let company = writer.gsid_of("company", "c").await;
    assert_eq!(
        writer.cell_of("person", "p", "company").await,
        Cell::Gsid(company)
    );
}

pub async fn a_stored_row_stays_while_its_change_waits(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (companies, persons) = plans();
    writer
        .one(row(&companies, "c", 1).text("external_id", "c"))
        .await;
    writer
        .one(
            row(&persons, "p", 1)
                .to("company", &["c"])
                .text("name", "one"),
        )
        .await;
    let before = writer.row_of("person", "p").await;
    let moved = row(&persons, "p", 2)
        .to("company", &["d"])
        .text("name", "two");
    assert_eq!(writer.one(moved.clone()).await, Parked);
    assert_eq!(writer.row_of("person", "p").await, before);
    writer
        .one(row(&companies, "d", 1).text("external_id", "d"))
        .await;
    assert_eq!(writer.release().await.changes, [parked_change(&moved)]);
    assert_eq!(run_again(&mut writer, vec![moved]).await, [Updated]);
    assert_eq!(writer.cell_of("person", "p", "name").await, text("two"));
}

/// Destinations before the one that lacks a row stand; those after it write nothing.
pub async fn later_destinations_wait_with_it(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (companies, persons) = plans();
    let first = Arc::new(plan("company person", &[("role", StoredType::String)]));
    let last = Arc::new(company());
    let rows = vec![
        row(&first, "p", 1).text("role", "boss"),
        row(&first, "q", 1).text("role", "other"),
        row(&persons, "p", 1).to("company", &["c"]),
        row(&persons, "q", 1).text("email", "q@x.example"),
        row(&last, "p", 1).text("external_id", "p"),
        row(&last, "q", 1).text("external_id", "q"),
    ];
    let outcomes = writer.send(rows.clone()).await;
    assert_eq!(
        outcomes,
        [Inserted, Inserted, Parked, Inserted, Parked, Inserted]
    );
    assert!(writer.row_of("company", "p").await.is_none());
    assert_eq!(
        writer.cell_of("company person", "p", "role").await,
        text("boss")
    );
    assert_eq!(writer.parked().await, 1);
    writer
        .one(row(&companies, "c", 1).text("external_id", "c"))
        .await;
    assert_eq!(writer.release().await.changes.len(), 1);
    let own = rows.into_iter().step_by(2).collect();
    assert_eq!(
        run_again(&mut writer, own).await,
        [Unchanged, Inserted, Inserted]
    );
    assert_eq!(writer.parked().await, 0);
}

pub async fn a_later_change_replaces_the_one_that_waits(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (companies, persons) = plans();
    let old = row(&persons, "p", 1)
        .to("company", &["c"])
        .text("name", "old");
    let new = row(&persons, "p", 2)
        .to("company", &["d"])
        .text("name", "new");
    writer.one(old.clone()).await;
    assert_eq!(writer.one(new.clone()).await, Parked);
    assert_eq!(writer.parked().await, 1);
    writer
        .one(row(&companies, "c", 1).text("external_id", "c"))
        .await;
    assert!(writer.release().await.changes.is_empty());
    // A lower version than the one that waits is as stale as one that is stored.
    assert_eq!(writer.one(old).await, Outcome::Stale(Version::new(1, 2)));
    assert!(writer.all("person").await.is_empty());
    assert_eq!(writer.parked().await, 1);
    writer
        .one(row(&companies, "d", 1).text("external_id", "d"))
        .await;
    assert_eq!(writer.release().await.changes, [parked_change(&new)]);
    // And one that can be written clears it.
    let third = row(&persons, "p", 3)
        .to("company", &["c"])
        .text("name", "third");
    assert_eq!(writer.one(third).await, Inserted);
    assert_eq!(writer.parked().await, 0);
    assert_eq!(writer.one(new).await, Outcome::Stale(Version::new(1, 3)));
    assert_eq!(writer.cell_of("person", "p", "name").await, text("third"));
}

pub async fn exits_clear_a_change_that_waits(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (companies, persons) = plans();
    let exits = [
        ("p", deleted(&persons, "p", 2)),
        ("q", filtered(&persons, "q", 2)),
    ];
    for (record, exit) in exits {
        let child = row(&persons, record, 1).to("company", &["c"]);
        assert_eq!(writer.one(child).await, Parked);
        assert_eq!(writer.one(exit).await, Ignored);
        assert_eq!(writer.parked().await, 0);
    }
    writer.one(row(&companies, "c", 1)).await;
    assert!(writer.release().await.changes.is_empty());
    assert!(writer.all("person").await.is_empty());
}

/// Another job wrote the record meanwhile: the change that waits is no longer true.
pub async fn a_stale_change_is_not_released(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let mut second = Writer::open(bench.target(), "acme", "second").await;
    let (companies, persons) = plans();
    writer
        .one(row(&persons, "p", 1).to("company", &["c"]))
        .await;
    second.one(row(&Arc::new(person()), "p", 2)).await;
    writer.one(row(&companies, "c", 1)).await;
    assert!(writer.release().await.changes.is_empty());
}

/// A change with two missing rows: each time it is released, it has come further.
pub async fn two_missing_rows_are_waited_for(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let companies = Arc::new(company());
    let links = plan("company person", &[])
        .derive(by_id("person", "person").on_none(OnNone::Reject))
        .derive(by_id("company", "company").on_none(OnNone::Reject));
    let links = Arc::new(links);
    let link = row(&links, "l", 1)
        .to("person", &["p"])
        .to("company", &["c"]);
    assert_eq!(writer.one(link.clone()).await, Parked);
    writer.one(row(&companies, "c", 1)).await;
    for _ in 0..2 {
        for _ in writer.release().await.changes {
            assert_eq!(run_again(&mut writer, vec![link.clone()]).await, [Parked]);
        }
    }
    assert!(
        writer.release().await.changes.is_empty(),
        "released for nothing"
    );
    assert_eq!(writer.parked().await, 1);
    writer.one(row(&Arc::new(person()), "p", 1)).await;
    assert_eq!(writer.release().await.changes.len(), 1);
    assert_eq!(run_again(&mut writer, vec![link]).await, [Inserted]);
    assert_eq!(writer.parked().await, 0);
}

/// Nobody refers to a row that was not written, and what a batch brings is there, whatever the order.
pub async fn self_lookups_that_must_be_there(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(person().derive(by_id("manager", "person").on_none(OnNone::Reject)));
    let managed = |record: &str, by: Option<&str>| {
        let row = row(&plan, record, 1).text("email", &format!("{record}@x.example"));
        match by {
            Some(by) => row.to("manager", &[by]),
            None => row,
        }
    };
    let rows = [
        managed("a", Some("b")),
        managed("b", Some("missing")),
        managed("c", Some("a")),
        managed("d", Some("e")),
        managed("e", Some("f")),
        managed("f", None),
        managed("g", Some("g")),
    ];
    let outcomes = writer.send(rows.clone()).await;
    assert_eq!(outcomes[..3], [Parked, Parked, Parked]);
    assert_eq!(outcomes[3..6], [Inserted, Inserted, Inserted]);
    assert_eq!(writer.row_of("person", "a").await, None);
    for (record, by) in [("d", "e"), ("e", "f")] {
        let manager = writer.gsid_of("person", by).await;
        assert_eq!(
            writer.cell_of("person", record, "manager").await,
            Cell::Gsid(manager)
        );
    }
    writer.one(managed("missing", None)).await;
    for _ in 0..3 {
        let released = writer.release().await.changes;
        let due = released.iter().filter_map(|change| {
            rows.iter()
                .find(|row| row.row.record == change.record)
                .cloned()
        });
        let due: Vec<_> = due.collect();
        run_again(&mut writer, due).await;
    }
    for (record, by) in [("a", "b"), ("b", "missing"), ("c", "a")] {
        let manager = writer.gsid_of("person", by).await;
        assert_eq!(
            writer.cell_of("person", record, "manager").await,
            Cell::Gsid(manager)
        );
    }
}

/// A row kept out by its own look-up is no match for the others of its batch.
pub async fn nobody_joins_a_row_that_was_kept_out(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(person().derive(by_id("manager", "person").on_none(OnNone::Reject)));
    let outcomes = writer
        .send([
            row(&plan, "a", 1)
                .text("email", "x@x.example")
                .to("manager", &["missing"]),
            row(&plan, "b", 1).text("email", "x@x.example"),
        ])
        .await;
    assert_eq!(outcomes, [Parked, Inserted]);
    let outcomes = writer
        .send([
            row(&plan, "missing", 1).text("email", "m@x.example"),
            row(&plan, "a", 1)
                .text("email", "x@x.example")
                .to("manager", &["missing"]),
        ])
        .await;
    assert_eq!(outcomes, [Inserted, Associated]);
    assert_eq!(writer.all("person").await.len(), 2);
}

/// Several rows come where one is due: it goes on waiting, and is not returned again and again.
pub async fn an_ambiguous_row_releases_nothing(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let keys = vec![on("name", StoredType::String)];
    let derive = by("company", "company", keys)
        .on_none(OnNone::Reject)
        .on_multiple(OnMultiple::Error);
    let persons = Arc::new(person().derive(derive));
    let companies = Arc::new(plan("company", &[("name", StoredType::String)]));
    writer
        .one(row(&persons, "p", 1).to("company", &["same"]))
        .await;
    for record in ["c", "d"] {
        writer
            .one(row(&companies, record, 1).text("name", "same"))
            .await;
    }
    assert!(writer.release().await.changes.is_empty());
    assert_eq!(writer.parked().await, 1);
}

pub async fn what_waits_too_long_expires(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (companies, strict) = plans();
    let lax = Arc::new(person().derive(by_id("manager", "person")));
    let mut second = Writer::open(bench.target(), "acme", "second").await;
    writer
        .one(row(&lax, "a", 1).to("manager", &["boss"]).at(0, 3))
        .await;
    writer
        .one(row(&strict, "b", 1).to("company", &["corp"]).at(0, 4))
        .await;
    second.one(row(&lax, "c", 1).to("manager", &["boss"])).await;
    writer.now = start() + TimeDelta::days(10);
    writer.one(row(&lax, "d", 1).to("manager", &["boss"])).await;
    // The first was parked a second after the start: then, not before.
    assert_eq!(writer.expired(start() + TimeDelta::seconds(1), 9).await, []);
    bench.reopen().await;
    let writer = writer.again(bench).await;
    let expired = writer.expired(start() + TimeDelta::days(1), 9).await;
    let [reference, change] = &expired[..] else {
        panic!("two were due: {expired:?}");
    };
    assert!(reference.waited_for.contains("boss"), "{reference:?}");
    assert!(change.waited_for.contains("corp"), "{change:?}");
    let told = |expired: &Expired| {
        (
            expired.key.record.clone(),
            expired.key.place,
            expired.image.clone(),
        )
    };
    assert_eq!(told(reference), (RecordId::stored("a"), (0, 3), None));
    assert_eq!(
        told(change),
        (RecordId::stored("b"), (0, 4), Some(image("b", 1)))
    );
    // They are there until their letters are written. Then they are gone, the young one and the other job's are not.
    assert_eq!(writer.parked().await, 3);
    assert_eq!(writer.forget(expired.iter().map(|told| &told.key)).await, 2);
    assert_eq!(
        (
            writer.parked().await,
            second.again(bench).await.parked().await
        ),
        (1, 1)
    );
    let mut writer = writer.clone();
    writer.one(row(&companies, "corp", 1)).await;
    writer
        .one(row(&lax, "boss", 1).text("email", "boss@x.example"))
        .await;
    let released = writer.release().await;
    assert_eq!((released.filled, released.changes.len()), (2, 0));
    assert_eq!(writer.cell_of("person", "a", "manager").await, Cell::Null);
}

/// What is delivered again, or runs again for nothing, still waits since the first time.
pub async fn a_repeat_does_not_renew_the_time_to_live(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (_, strict) = plans();
    let lax = Arc::new(person().derive(by_id("manager", "person")));
    let links = plan("company person", &[]).derive(sibling("person", "person"));
    let links = Arc::new(links);
    let rows = || {
        vec![
            row(&lax, "a", 1).to("manager", &["boss"]),
            row(&links, "b", 1),
            row(&strict, "b", 1).to("company", &["c"]),
        ]
    };
    writer.send(rows()).await;
    writer.now = start() + TimeDelta::days(10);
    writer.send(rows()).await;
    // A later version begins anew.
    writer.one(row(&lax, "c", 1).to("manager", &["boss"])).await;
    let expired = writer.expired(start() + TimeDelta::days(1), 9).await;
    assert_eq!(expired.len(), 2);
}
