//! The suite on J4: of several rows none is guessed; a person decides, and that holds until it is undone.

use std::sync::Arc;

use chrono::TimeDelta;
use uuid::Uuid;

use super::Bench;
use super::plans::{Row, by_id, company, deleted, filtered, person, plan, row, text};
use super::world::{Writer, begin, image, start};
use crate::fault::FaultKind;
use crate::mapping::plan::{Cell, DestinationPlan};
use crate::model::policy::OnNone;
use crate::model::record_id::RecordId;
use crate::model::stored::StoredType;
use crate::model::version::Version;
use crate::target::port::Outcome::{
    self, Associated, Ignored, Inserted, Parked, Review, Skipped, Stale, Unchanged, Updated,
};
use crate::target::port::ParkedChange;
use crate::target::port::review::{self, Binding, Bond, Decided, InReview, Which};

type Plan = Arc<DestinationPlan>;

/// Companies `a` and `b`, which come to have one external id; and their rows.
async fn twins(writer: &mut Writer, plan: &Plan) -> [Uuid; 2] {
    for (version, ids) in [(1, ["a", "b"]), (2, ["same", "same"])] {
        for (record, id) in ["a", "b"].into_iter().zip(ids) {
            let row = row(plan, record, version).text("external_id", id);
            writer.one(row.text("name", record)).await;
        }
    }
    [
        writer.gsid_of("company", "a").await,
        writer.gsid_of("company", "b").await,
    ]
}

fn third(plan: &Plan, version: u64) -> Row {
    let row = row(plan, "c", version).text("external_id", "same");
    row.text("name", "third").at(0, 40 + version)
}

async fn reviews(writer: &Writer) -> Vec<review::Review> {
    writer.target.reviews(&Which::default()).await.unwrap()
}

async fn in_review(writer: &Writer) -> (u64, u64) {
    let reader = &writer.reader;
    let counted = writer.target.in_review(&reader.connection, &reader.job);
    let InReview { waiting, decided } = counted.await.unwrap();
    (waiting, decided)
}

pub fn binding(writer: &Writer, record: &str, table: &str, bond: Bond) -> Binding {
    Binding {
        connection: writer.reader.connection.clone(),
        object: writer.object.clone(),
        record: RecordId::stored(record),
        table: table.to_owned(),
        bond,
        by: Some("anna".to_owned()),
        at: start(),
    }
}

async fn decide(writer: &Writer, record: &str, table: &str, bond: Bond) -> Decided {
    let binding = binding(writer, record, table, bond);
    writer.target.decide(&binding).await.unwrap()
}

/// What a job does with a change that is handed out: the same rows at the same offset.
async fn run_again(writer: &mut Writer, rows: impl IntoIterator<Item = Row>) -> Vec<Outcome> {
    let mut batch = writer.batch(rows);
    batch.next = batch.expect;
    let applied = writer.apply(batch).await.unwrap();
    assert!(applied.committed);
    applied.outcomes.into_iter().flatten().collect()
}

/// The change that a decision has handed out is that row's.
async fn handed_out(writer: &Writer, of: &Row) {
    assert_eq!(in_review(writer).await, (1, 1));
    let due = ParkedChange {
        record: of.row.record.clone(),
        version: of.row.version,
        place: of.row.place,
        image: image(of.row.record.as_str(), of.row.version.counter()),
    };
    // It stays until it was applied again: a crash between loses nothing.
    for _ in 0..2 {
        assert_eq!(writer.release().await.changes, std::slice::from_ref(&due));
    }
}

pub async fn several_candidates_wait_for_a_person(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    let gsids = twins(&mut writer, &plan).await;
    let before = writer.all("company").await;
    let next = writer.owned.next;
    assert_eq!(writer.one(third(&plan, 1)).await, Review);
    assert_eq!(writer.owned.next, next + 1, "nobody is stopped");
    bench.reopen().await;
    let mut writer = writer.again(bench).await;
    assert_eq!(writer.all("company").await, before);
    assert!(writer.traced("c").await.is_empty());
    let reviews = reviews(&writer).await;
    let [review] = &reviews[..] else {
        panic!("one waits: {reviews:?}");
    };
    assert_eq!(
        (review.record.as_str(), review.table.as_str()),
        ("c", "company")
    );
    assert_eq!(
        (&review.connection, &review.job, &review.object),
        (
            &writer.reader.connection,
            &writer.reader.job,
            &writer.object
        )
    );
    let pair = ("external_id".to_owned(), "same".to_owned());
    assert_eq!(review.identifiers, [pair]);
    let named: Vec<Uuid> = review.candidates.iter().map(|one| one.gsid).collect();
    let mut due = gsids;
    due.sort_unstable();
    assert_eq!(named, due);
    for candidate in &review.candidates {
        let stored = before.iter().find(|row| row.gsid == candidate.gsid);
        assert_eq!(candidate.row.as_ref(), stored);
    }
    // Nothing releases it and no time ends it. It is no row that is waited for.
    assert_eq!(in_review(&writer).await, (1, 0));
    assert_eq!(writer.parked().await, 0);
    writer
        .one(row(&plan, "d", 1).text("external_id", "other"))
        .await;
    assert!(writer.release().await.changes.is_empty());
    let later = start() + TimeDelta::days(1000);
    assert!(writer.expired(later, 9).await.is_empty());
    // The known ones go on.
    let known = row(&plan, "a", 3).text("external_id", "same");
    assert_eq!(writer.one(known.text("name", "x")).await, Updated);
    let elsewhere = Which {
        connection: Some("contoso".into()),
        ..Which::default()
    };
    let none = writer.target.reviews(&elsewhere).await.unwrap();
    assert!(none.is_empty());
}

pub async fn a_later_write_asks_again(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    twins(&mut writer, &plan).await;
    assert_eq!(writer.one(third(&plan, 5)).await, Review);
    let since = reviews(&writer).await[0].since;
    // What waits counts as the version held; a repeat waits since the first time.
    let held = Stale(Version::new(1, 5));
    assert_eq!(writer.one(third(&plan, 4)).await, held);
    assert_eq!(writer.one(third(&plan, 5)).await, Review);
    let again = reviews(&writer).await;
    assert_eq!((again.len(), again[0].since), (1, since));
    assert_eq!(writer.one(third(&plan, 6)).await, Review);
    let again = reviews(&writer).await;
    assert_eq!(
        (again.len(), again[0].version),
        (1, Version::new(1, 6)),
        "replaced"
    );
    let own = row(&plan, "c", 7).text("external_id", "own");
    assert_eq!(writer.one(own).await, Inserted);
    assert!(reviews(&writer).await.is_empty());
    // Or the candidates have become fewer.
    assert_eq!(
        writer
            .one(row(&plan, "d", 1).text("external_id", "same"))
            .await,
        Review
    );
    writer.one(deleted(&plan, "b", 9)).await;
    let again = row(&plan, "d", 2).text("external_id", "same");
    assert_eq!(writer.one(again).await, Associated);
    let a = writer.gsid_of("company", "a").await;
    assert_eq!(writer.gsid_of("company", "d").await, a);
    assert_eq!(in_review(&writer).await, (0, 0));
}

pub async fn exits_end_the_wait_for_a_person(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    twins(&mut writer, &plan).await;
    for (version, exit) in [(2, deleted(&plan, "c", 2)), (4, filtered(&plan, "c", 4))] {
        assert_eq!(writer.one(third(&plan, version - 1)).await, Review);
        assert_eq!(writer.one(exit).await, Ignored);
        assert!(reviews(&writer).await.is_empty());
        let stale = writer.one(third(&plan, version - 1)).await;
        assert_eq!(stale, Stale(Version::new(1, version)));
    }
}

/// Destinations before the one stand, those after it wait with it.
pub async fn later_destinations_wait_for_the_decision(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let companies = Arc::new(company());
    let [a, _] = twins(&mut writer, &companies).await;
    let first = Arc::new(plan("company person", &[("role", StoredType::String)]));
    let last = Arc::new(person().derive(super::plans::sibling("company", "company")));
    let rows = || {
        vec![
            row(&first, "c", 1).text("role", "boss"),
            third(&companies, 1),
            row(&last, "c", 1)
                .text("email", "c@x.example")
                .sibling("company"),
        ]
    };
    assert_eq!(writer.send(rows()).await, [Inserted, Review, Review]);
    assert!(writer.all("person").await.is_empty());
    assert!(decide(&writer, "c", "company", Bond::Row(a)).await.waits);
    let done = run_again(&mut writer, rows()).await;
    assert_eq!(done, [Unchanged, Associated, Inserted]);
    let cell = writer.cell_of("person", "c", "company").await;
    assert_eq!(cell, Cell::Gsid(a));
    assert!(reviews(&writer).await.is_empty());
}

pub async fn a_decision_holds_ever_after(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    let [_, b] = twins(&mut writer, &plan).await;
    writer.one(third(&plan, 1)).await;
    let decided = decide(&writer, "c", "company", Bond::Row(b)).await;
    let due = Decided {
        before: None,
        waits: true,
    };
    assert_eq!(decided, due);
    bench.reopen().await;
    let mut writer = writer.again(bench).await;
    handed_out(&writer, &third(&plan, 1)).await;
    let done = run_again(&mut writer, [third(&plan, 1)]).await;
    assert_eq!(done, [Associated]);
    assert_eq!(in_review(&writer).await, (0, 0));
    assert!(writer.release().await.changes.is_empty());
    assert_eq!(writer.gsid_of("company", "c").await, b);
    assert_eq!(writer.cell_of("company", "b", "name").await, text("third"));
    let bindings = writer.target.bindings().await.unwrap();
    assert_eq!(bindings, [binding(&writer, "c", "company", Bond::Row(b))]);
    // Whatever its identifiers say, also when it comes back, and on another reader of the topic.
    assert_eq!(
        writer
            .one(row(&plan, "c", 2).text("external_id", "a"))
            .await,
        Updated
    );
    writer.one(deleted(&plan, "c", 3)).await;
    let mut replay = writer.clone();
    replay.reader.reader = "replay".to_owned();
    let mut replay = replay.again(bench).await;
    replay.one(third(&plan, 4)).await;
    assert_eq!(replay.gsid_of("company", "c").await, b);
    // Of that record alone.
    let other = row(&plan, "d", 1).text("external_id", "same");
    assert_eq!(writer.one(other).await, Review);
}

pub async fn a_record_gets_a_row_of_its_own(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    twins(&mut writer, &plan).await;
    writer.one(third(&plan, 1)).await;
    let own = Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_0001);
    assert!(decide(&writer, "c", "company", Bond::New(own)).await.waits);
    handed_out(&writer, &third(&plan, 1)).await;
    let done = run_again(&mut writer, [third(&plan, 1)]).await;
    assert_eq!(done, [Inserted]);
    assert_eq!(writer.gsid_of("company", "c").await, own);
    assert_eq!(writer.all("company").await.len(), 3);
    assert_eq!(writer.one(third(&plan, 2)).await, Unchanged);
    // What waits for a row by that record finds it.
    let persons = Arc::new(person().derive(by_id("company", "company").on_none(OnNone::Reject)));
    let child = row(&persons, "p", 1).to("company", &["c"]);
    assert_eq!(writer.one(child).await, Inserted);
    let cell = writer.cell_of("person", "p", "company").await;
    assert_eq!(cell, Cell::Gsid(own));
}

pub async fn an_ignored_record_gets_no_row(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    let rows = twins(&mut writer, &plan).await;
    let persons = Arc::new(person().derive(super::plans::sibling("company", "company")));
    let both = |version: u64| {
        let row = row(&persons, "c", version).text("email", "c@x.example");
        [third(&plan, version), row.sibling("company")]
    };
    assert_eq!(writer.send(both(1)).await, [Review, Review]);
    assert!(decide(&writer, "c", "company", Bond::Ignored).await.waits);
    assert_eq!(in_review(&writer).await, (1, 1));
    assert_eq!(writer.release().await.changes.len(), 1);
    let done = run_again(&mut writer, both(1)).await;
    assert_eq!(done, [Skipped, Inserted]);
    assert!(reviews(&writer).await.is_empty());
    assert_eq!(writer.send(both(2)).await, [Skipped, Unchanged]);
    let after: Vec<Uuid> = writer
        .all("company")
        .await
        .iter()
        .map(|row| row.gsid)
        .collect();
    let mut due = rows;
    due.sort_unstable();
    assert_eq!(after, due);
}

pub async fn an_undone_decision_asks_again(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    let [a, b] = twins(&mut writer, &plan).await;
    let own = Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_0002);
    writer.one(third(&plan, 1)).await;
    decide(&writer, "c", "company", Bond::New(own)).await;
    run_again(&mut writer, [third(&plan, 1)]).await;
    let undone = decide(&writer, "c", "company", Bond::Open).await;
    let due = Decided {
        before: Some(Bond::New(own)),
        waits: false,
    };
    assert_eq!(undone, due);
    assert!(writer.target.bindings().await.unwrap().is_empty());
    // Three rows fit now; until somebody decides, it stays what it is.
    assert_eq!(writer.one(third(&plan, 2)).await, Review);
    assert_eq!(in_review(&writer).await, (1, 0));
    assert!(writer.release().await.changes.is_empty());
    assert_eq!(reviews(&writer).await[0].candidates.len(), 3);
    assert_eq!(writer.gsid_of("company", "c").await, own);
    assert_eq!(writer.one(third(&plan, 3)).await, Review, "asked each time");
    // The row that was made for it goes: it was nobody else's.
    decide(&writer, "c", "company", Bond::Row(b)).await;
    let done = run_again(&mut writer, [third(&plan, 3)]).await;
    assert_eq!(done, [Associated]);
    assert_eq!(writer.gsid_of("company", "c").await, b);
    assert_eq!(writer.all("company").await.len(), 2);
    // Undone again, with identifiers that say which row it is: the question is answered once and for all.
    decide(&writer, "c", "company", Bond::Open).await;
    let clear = row(&plan, "c", 4).text("external_id", "clear");
    assert_eq!(writer.one(clear).await, Inserted);
    let now = writer.gsid_of("company", "c").await;
    assert!(now != a && now != b);
    let rows = writer.all("company").await;
    assert_eq!(rows.len(), 3, "others hold the row that it left");
    assert_eq!(writer.one(third(&plan, 5)).await, Updated);
    assert_eq!(writer.gsid_of("company", "c").await, now);
}

/// A record that has a row is told to be another one.
pub async fn a_decision_moves_a_record(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(person().derive(by_id("manager", "person")));
    let with = |record: &str, version: u64| {
        let row = row(&plan, record, version).text("email", &format!("{record}@x.example"));
        row.text("name", record)
    };
    writer.send(["a", "b"].map(|record| with(record, 1))).await;
    let (a, b) = (
        writer.gsid_of("person", "a").await,
        writer.gsid_of("person", "b").await,
    );
    let decided = decide(&writer, "b", "person", Bond::Row(a)).await;
    assert!(!decided.waits);
    // In one batch with others that look for it, before and after.
    let outcomes = writer
        .send([
            with("x", 2).to("manager", &["b"]),
            with("b", 2),
            with("y", 2).to("manager", &["b"]),
        ])
        .await;
    assert_eq!(outcomes, [Inserted, Associated, Inserted]);
    assert_eq!(writer.gsid_of("person", "b").await, a);
    for record in ["x", "y"] {
        let manager = writer.cell_of("person", record, "manager").await;
        assert_eq!(manager, Cell::Gsid(a), "{record}");
    }
    let rows = writer.all("person").await;
    assert!(rows.iter().all(|row| row.gsid != b), "nobody holds it");
    assert_eq!(rows.len(), 3);
    let z = with("z", 3).to("manager", &["b"]);
    writer.one(z).await;
    let manager = writer.cell_of("person", "z", "manager").await;
    assert_eq!(manager, Cell::Gsid(a));
    assert_eq!(writer.one(deleted(&plan, "a", 4)).await, Outcome::Deleted);
    assert_eq!(writer.gsid_of("person", "b").await, a);
}

/// A change that was decided may still lack another row, or be refused.
pub async fn what_is_decided_may_wait_for_a_row(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plain = Arc::new(company());
    let [a, _] = twins(&mut writer, &plain).await;
    let strict = Arc::new(company().derive(by_id("parent", "person").on_none(OnNone::Reject)));
    let persons = Arc::new(person());
    assert_eq!(writer.one(third(&plain, 1)).await, Review);
    decide(&writer, "c", "company", Bond::Row(a)).await;
    let change = || {
        let row = row(&strict, "c", 1).text("external_id", "same");
        row.to("parent", &["p"]).at(0, 41)
    };
    assert_eq!(run_again(&mut writer, [change()]).await, [Parked]);
    assert_eq!(
        (in_review(&writer).await, writer.parked().await),
        ((0, 0), 1)
    );
    writer
        .one(row(&persons, "p", 1).text("email", "p@x.example"))
        .await;
    assert_eq!(writer.release().await.changes.len(), 1);
    assert_eq!(run_again(&mut writer, [change()]).await, [Associated]);
    assert_eq!(writer.gsid_of("company", "c").await, a);
}

pub async fn nobody_is_bound_to_a_row_that_is_not_there(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    twins(&mut writer, &plan).await;
    writer.one(third(&plan, 1)).await;
    let nowhere = Bond::Row(Uuid::from_u128(9));
    for (table, bond) in [("company", nowhere), ("nowhere", Bond::Ignored)] {
        let binding = binding(&writer, "c", table, bond);
        let fault = writer.target.decide(&binding).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Missing, "{table}");
    }
    assert!(writer.target.bindings().await.unwrap().is_empty());
    assert_eq!(in_review(&writer).await, (1, 0));
}
