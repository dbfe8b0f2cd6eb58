//! The suite on `on_delete` and `on_filter_exit`: kept, marked, deleted, and back again.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::Bench;
use super::plans::{Row, by_id, company, deleted, filtered, person, row, text};
use super::world::{Writer, begin, start};
use crate::mapping::plan::{Cell, DestinationPlan};
use crate::model::policy::{OnExit, OnNone};
use crate::model::version::Version;
use crate::target::port::Outcome::{
    self, Associated, Deleted, Ignored, Inserted, Marked, Parked, Skipped, Unchanged, Updated,
};
use crate::target::port::Strays;

/// What the policies do to one kind of exit.
type Exit = fn(&Arc<DestinationPlan>, &str, u64) -> Row;

const EXITS: [(Exit, &str); 2] = [(deleted, "deleted"), (filtered, "filtered")];

/// Companies with a policy for one exit and another one for the other.
fn leaving(exit: &str, policy: OnExit) -> Arc<DestinationPlan> {
    let other = if policy == OnExit::Delete {
        OnExit::Keep
    } else {
        OnExit::Delete
    };
    Arc::new(if exit == "deleted" {
        company().exits(policy, other)
    } else {
        company().exits(other, policy)
    })
}

fn acme(plan: &Arc<DestinationPlan>, version: u64) -> Row {
    row(plan, "a", version)
        .text("external_id", "a")
        .text("name", "Acme")
}

async fn state(writer: &Writer, table: &str, record: &str) -> (Cell, Cell) {
    (
        writer.cell_of(table, record, "crm_state").await,
        writer.cell_of(table, record, "crm_state_at").await,
    )
}

fn marked(state: &str, at: DateTime<Utc>) -> (Cell, Cell) {
    (text(state), Cell::DateTime(at))
}

const PRESENT: (Cell, Cell) = (Cell::Null, Cell::Null);

async fn keeps(bench: &mut dyn Bench, (exit, name): (Exit, &str)) {
    let mut writer = begin(bench).await;
    let plan = leaving(name, OnExit::Keep);
    writer.one(acme(&plan, 1)).await;
    let before = writer.row_of("company", "a").await;
    assert!(before.is_some());
    assert_eq!(
        writer.one(exit(&plan, "a", 3).text("name", "Last")).await,
        Ignored
    );
    assert_eq!(writer.row_of("company", "a").await, before);
    // It was seen all the same.
    let late = writer.one(acme(&plan, 2)).await;
    assert_eq!(late, Outcome::Stale(Version::new(1, 3)));
}

pub async fn keep_leaves_the_row(bench: &mut dyn Bench) {
    keeps(bench, EXITS[0]).await;
}

pub async fn keep_leaves_the_row_at_a_filter_exit(bench: &mut dyn Bench) {
    keeps(bench, EXITS[1]).await;
}

async fn marks(bench: &mut dyn Bench, (exit, name): (Exit, &str)) {
    let mut writer = begin(bench).await;
    let plan = leaving(name, OnExit::Mark);
    writer.one(acme(&plan, 1)).await;
    let before = writer.row_of("company", "a").await.unwrap();
    let source_time = start() - TimeDelta::hours(5);
    let left = exit(&plan, "a", 2)
        .text("name", "Last")
        .committed_at(source_time);
    assert_eq!(writer.one(left.clone()).await, Marked);
    assert_eq!(
        state(&writer, "company", "a").await,
        marked(name, source_time)
    );
    let after = writer.row_of("company", "a").await.unwrap();
    for column in ["gsid", "name", "external_id", "created_date"] {
        assert_eq!(after.cell(column), before.cell(column), "{column}");
    }
    assert_ne!(after.cell("modified_date"), before.cell("modified_date"));
    // Once more: nothing would change.
    writer.one(left).await;
    assert_eq!(writer.row_of("company", "a").await.unwrap(), after);
    bench.reopen().await;
    let mut writer = writer.again(bench).await;
    let late = writer.one(acme(&plan, 1)).await;
    assert_eq!(late, Outcome::Stale(Version::new(1, 2)));
    // Back again: the same row, whose columns did not have to change.
    assert_eq!(writer.one(acme(&plan, 3)).await, Outcome::Updated);
    assert_eq!(state(&writer, "company", "a").await, PRESENT);
    assert_eq!(writer.gsid_of("company", "a").await, before.gsid);
    assert_eq!(writer.all("company").await.len(), 1);
}

pub async fn mark_says_so(bench: &mut dyn Bench) {
    marks(bench, EXITS[0]).await;
}

pub async fn mark_says_so_at_a_filter_exit(bench: &mut dyn Bench) {
    marks(bench, EXITS[1]).await;
}

/// Where the source tells no time, the batch's does, and a repeat does not move it.
pub async fn a_mark_without_a_source_time_has_the_batchs(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company().exits(OnExit::Mark, OnExit::Mark));
    writer.one(acme(&plan, 1)).await;
    writer.one(filtered(&plan, "a", 2)).await;
    let first = writer.now;
    assert_eq!(
        state(&writer, "company", "a").await,
        marked("filtered", first)
    );
    let before = writer.row_of("company", "a").await;
    writer.one(filtered(&plan, "a", 2)).await;
    writer.one(filtered(&plan, "a", 3)).await;
    assert_eq!(writer.row_of("company", "a").await, before);
    // From one state to the other.
    writer.one(deleted(&plan, "a", 4)).await;
    assert_eq!(
        state(&writer, "company", "a").await,
        marked("deleted", writer.now)
    );
}

async fn deletes(bench: &mut dyn Bench, (exit, name): (Exit, &str)) {
    let mut writer = begin(bench).await;
    let plan = leaving(name, OnExit::Delete);
    writer.one(acme(&plan, 1)).await;
    let gsid = writer.gsid_of("company", "a").await;
    assert_eq!(writer.one(exit(&plan, "a", 3)).await, Deleted);
    assert!(writer.all("company").await.is_empty());
    let traced = writer.traced("a").await;
    assert_eq!((traced.len(), &traced[0].row), (1, &None));
    assert_eq!(traced[0].version, Version::new(1, 3));
    // Once more, and later ones, which are to be known as well.
    writer.one(exit(&plan, "a", 3)).await;
    assert_eq!(writer.one(filtered(&plan, "a", 5)).await, Ignored);
    bench.reopen().await;
    let mut writer = writer.again(bench).await;
    let late = writer.one(acme(&plan, 4)).await;
    assert_eq!(late, Outcome::Stale(Version::new(1, 5)));
    assert!(writer.all("company").await.is_empty());
    // Back again under the same GSID.
    assert_eq!(writer.one(acme(&plan, 6)).await, Inserted);
    assert_eq!(writer.gsid_of("company", "a").await, gsid);
    assert_eq!(writer.cell_of("company", "a", "name").await, text("Acme"));
    assert_eq!(writer.all("company").await.len(), 1);
}

pub async fn delete_takes_the_row_and_undelete_brings_it_back(bench: &mut dyn Bench) {
    deletes(bench, EXITS[0]).await;
}

pub async fn a_filter_exit_takes_the_row_and_a_return_brings_it_back(bench: &mut dyn Bench) {
    deletes(bench, EXITS[1]).await;
}

/// A record that was deleted before it was stored has no row of its own: it is matched when it comes.
pub async fn a_delete_may_come_first(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    assert_eq!(writer.one(deleted(&plan, "a", 5)).await, Ignored);
    writer
        .one(row(&plan, "b", 1).text("external_id", "a"))
        .await;
    assert_eq!(
        writer.one(acme(&plan, 4)).await,
        Outcome::Stale(Version::new(1, 5))
    );
    assert_eq!(writer.one(acme(&plan, 6)).await, Associated);
    let gsid = writer.gsid_of("company", "b").await;
    assert_eq!(writer.gsid_of("company", "a").await, gsid);
    assert_eq!(writer.one(deleted(&plan, "c", 5)).await, Ignored);
    let fresh = row(&plan, "c", 6).text("external_id", "c");
    assert_eq!(writer.one(fresh).await, Inserted);
}

/// A row is marked when all of its records are: an order of delivery does not decide it.
pub async fn a_shared_row_is_marked_with_its_last_record(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(person().exits(OnExit::Mark, OnExit::Delete));
    let with = |record: &str, version: u64| {
        let row = row(&plan, record, version).text("email", "x@x.example");
        row.text("name", "Ann")
    };
    writer.send([with("a", 1), with("b", 1)]).await;
    let before = writer.row_of("person", "a").await;
    let leaves = |record: &str, hours: i64| {
        deleted(&plan, record, 2).committed_at(start() + TimeDelta::hours(hours))
    };
    assert_eq!(writer.one(leaves("a", 2)).await, Marked);
    assert_eq!(writer.row_of("person", "b").await, before, "b is present");
    // The other one's change again: it is as it was.
    writer.send([with("b", 1), leaves("a", 2)]).await;
    assert_eq!(writer.row_of("person", "b").await, before);
    writer.one(leaves("b", 1)).await;
    let newest = start() + TimeDelta::hours(2);
    assert_eq!(
        state(&writer, "person", "b").await,
        marked("deleted", newest)
    );
    writer.one(with("a", 3)).await;
    assert_eq!(state(&writer, "person", "b").await, PRESENT);
    // One leaves for good: the other one's mark stays to be seen.
    writer.one(filtered(&plan, "a", 4)).await;
    let at = start() + TimeDelta::hours(1);
    assert_eq!(state(&writer, "person", "b").await, marked("deleted", at));
    assert!(writer.row_of("person", "a").await.is_none());
    // A marked row is held: it goes when the last one leaves for good.
    assert_eq!(writer.all("person").await.len(), 1);
    assert_eq!(writer.one(with("b", 5)).await, Outcome::Updated);
    assert_eq!(writer.one(filtered(&plan, "b", 6)).await, Deleted);
    assert!(writer.all("person").await.is_empty());
}

/// One connection keeps what the other one deletes.
pub async fn a_kept_record_holds_its_row(bench: &mut dyn Bench) {
    let mut keeper = begin(bench).await;
    let mut other = Writer::open(bench.target(), "other", "sync").await;
    let keeping = Arc::new(company().exits(OnExit::Keep, OnExit::Keep));
    let deleting = Arc::new(company());
    keeper.one(acme(&keeping, 1)).await;
    assert_eq!(other.one(acme(&deleting, 1)).await, Associated);
    keeper.one(deleted(&keeping, "a", 2)).await;
    assert_eq!(other.one(deleted(&deleting, "a", 2)).await, Deleted);
    assert_eq!(keeper.all("company").await.len(), 1);
    assert_eq!(state(&keeper, "company", "a").await, PRESENT);
}

/// A person whose company is looked up by record id.
fn child(on_none: OnNone, record: &str, version: u64, company: &str) -> Row {
    let derive = by_id("company", "company").on_none(on_none);
    let plan = Arc::new(person().derive(derive));
    let row = row(&plan, record, version).text("email", &format!("{record}@x.example"));
    row.to("company", &[company])
}

async fn strays(writer: &Writer) -> Strays {
    let strays = writer.target.strays(&writer.reader.connection);
    strays.await.unwrap()
}

/// The records that are told, once.
async fn told(writer: &Writer) -> Vec<String> {
    let strays = strays(writer).await;
    writer.target.forget_strays(&strays.marks).await.unwrap();
    let records = strays.records.iter();
    records.map(|(.., record)| record.to_string()).collect()
}

/// Published again it is what its policy says, as if it came for the first time; and once more when the row is back.
pub async fn what_refers_to_a_row_that_went_is_told(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let fallback = Uuid::from_u128(7);
    for (exit, name) in EXITS {
        let companies = leaving(name, OnExit::Delete);
        let company = |version: u64| row(&companies, name, version).text("external_id", name);
        let policies = [
            ("default", OnNone::Default(fallback)),
            ("null", OnNone::Null),
            ("reject", OnNone::Reject),
            ("skip", OnNone::Skip),
        ];
        let key = |policy: &str| format!("{policy} {name}");
        let children =
            |version| policies.map(|(of, policy)| child(policy, &key(of), version, name));
        writer.one(company(1)).await;
        let gsid = Cell::Gsid(writer.gsid_of("company", name).await);
        for row in children(1) {
            assert_eq!(writer.one(row).await, Inserted);
        }
        assert_eq!(strays(&writer).await, Strays::default());
        assert_eq!(writer.one(exit(&companies, name, 2)).await, Deleted);
        bench.reopen().await;
        writer = writer.again(bench).await;
        assert_eq!(told(&writer).await, policies.map(|(of, _)| key(of)));
        // It went once.
        assert_eq!(writer.one(exit(&companies, name, 3)).await, Ignored);
        assert_eq!(strays(&writer).await, Strays::default());
        let mut outcomes = Vec::new();
        for row in children(2) {
            outcomes.push(writer.one(row).await);
        }
        assert_eq!(outcomes, [Updated, Updated, Parked, Skipped]);
        let cell =
            async |writer: &Writer, of: &str| writer.cell_of("person", &key(of), "company").await;
        assert_eq!(cell(&writer, "default").await, Cell::Gsid(fallback));
        assert_eq!(cell(&writer, "null").await, Cell::Null);
        assert_eq!(writer.parked().await, 2);
        // It is back, and so are they.
        assert_eq!(writer.one(company(4)).await, Inserted);
        let released = writer.release().await;
        assert_eq!((released.filled, released.changes.len()), (1, 1));
        let parked = child(OnNone::Reject, &key("reject"), 2, name);
        assert_eq!(writer.one(parked).await, Unchanged);
        for of in ["null", "reject", "skip"] {
            assert_eq!(cell(&writer, of).await, gsid, "{of}");
        }
        assert_eq!(writer.parked().await, 0);
        assert_eq!(strays(&writer).await, Strays::default());
    }
}

/// The row is still there, and is that record's no more.
pub async fn what_found_a_shared_row_by_a_record_that_went_is_told(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let companies = Arc::new(company());
    let with = |record: &str| row(&companies, record, 1).text("external_id", "x");
    writer.send([with("a"), with("b")]).await;
    for of in ["a", "b"] {
        writer.one(child(OnNone::Null, of, 1, of)).await;
    }
    let gsid = Cell::Gsid(writer.gsid_of("company", "b").await);
    assert_eq!(writer.one(deleted(&companies, "a", 2)).await, Deleted);
    assert_eq!(told(&writer).await, ["a", "b"]);
    let again = ["a", "b"].map(|of| child(OnNone::Null, of, 2, of));
    let [first, second] = again;
    assert_eq!(writer.one(first).await, Updated);
    assert_eq!(writer.one(second).await, Unchanged);
    assert_eq!(writer.cell_of("person", "a", "company").await, Cell::Null);
    assert_eq!(writer.cell_of("person", "b", "company").await, gsid);
    // Where nobody looks rows up, nothing is to be said.
    let mut alone = company();
    alone.is_looked_up = false;
    let alone = Arc::new(alone);
    assert_eq!(writer.one(deleted(&alone, "b", 2)).await, Deleted);
    assert_eq!(strays(&writer).await, Strays::default());
}

/// Such a row is found as before.
pub async fn what_refers_to_a_row_that_is_kept_or_marked_is_right(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    for exit in [OnExit::Keep, OnExit::Mark] {
        let companies = Arc::new(company().exits(exit, exit));
        let key = format!("{exit:?}");
        let parent = row(&companies, &key, 1).text("external_id", &key);
        writer.one(parent).await;
        writer.one(child(OnNone::Null, &key, 1, &key)).await;
        writer.one(filtered(&companies, &key, 2)).await;
        writer.one(deleted(&companies, &key, 3)).await;
        assert_eq!(strays(&writer).await, Strays::default());
        let again = child(OnNone::Null, &key, 2, &key);
        assert_eq!(writer.one(again).await, Unchanged, "{exit:?}");
    }
}
