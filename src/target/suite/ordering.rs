//! The suite on J2: older never overwrites newer, what would not change is not written.

use std::sync::Arc;

use super::Bench;
use super::plans::{company, deleted, person, row, text};
use super::world::{Writer, begin};
use crate::model::record_id::RecordId;
use crate::model::version::Version;
use crate::target::port::Outcome;

fn held(version: u64) -> Outcome {
    Outcome::Stale(Version::new(1, version))
}

pub async fn lower_versions_are_skipped(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    writer.one(row(&plan, "a", 5).text("name", "new")).await;
    let before = writer.all("company").await;
    let outcome = writer.one(row(&plan, "a", 4).text("name", "old")).await;
    assert_eq!(outcome, held(5));
    assert_eq!(writer.one(deleted(&plan, "a", 3)).await, held(5));
    assert_eq!(writer.all("company").await, before);
    // The term counts before the counter, and the caller sees which version is held (I7).
    let mut next_term = row(&plan, "a", 0).text("name", "term");
    next_term.row.version = Version::new(2, 0);
    assert_eq!(writer.one(next_term).await, Outcome::Updated);
    let outranked = row(&plan, "a", 999).text("name", "old");
    let mut batch = writer.batch([outranked]);
    batch.asked_again.insert(RecordId::stored("a"));
    let applied = writer.apply(batch).await.unwrap();
    assert_eq!(applied.outcomes, [[Outcome::Stale(Version::new(2, 0))]]);
    assert_eq!(writer.cell_of("company", "a", "name").await, text("term"));
}

pub async fn equal_versions_are_applied(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    writer.one(row(&plan, "a", 5).text("name", "one")).await;
    // A new mapping of the same change.
    let outcome = writer.one(row(&plan, "a", 5).text("name", "two")).await;
    assert_eq!(outcome, Outcome::Updated);
    assert_eq!(writer.cell_of("company", "a", "name").await, text("two"));
    let outcome = writer.one(row(&plan, "a", 5).text("name", "two")).await;
    assert_eq!(outcome, Outcome::Unchanged);
}

pub async fn stale_rows_stay_stale_after_a_restart(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    writer.one(row(&plan, "a", 5).text("name", "new")).await;
    bench.reopen().await;
    let mut writer = writer.again(bench).await;
    let outcome = writer.one(row(&plan, "a", 4).text("name", "old")).await;
    assert_eq!(outcome, held(5));
    let outcome = writer.one(row(&plan, "a", 5).text("name", "new")).await;
    assert_eq!(outcome, Outcome::Unchanged);
}

/// A second reader from the beginning, over live tables.
pub async fn a_replay_changes_nothing(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    let changes: Vec<_> = (0..30_u64)
        .map(|n| {
            let record = format!("r{}", n % 7);
            if n % 11 == 10 {
                deleted(&plan, &record, n)
            } else {
                let named = row(&plan, &record, n).text("external_id", &record);
                named.text("name", &n.to_string())
            }
        })
        .collect();
    for change in &changes {
        writer.one(change.clone()).await;
    }
    let rows = writer.all("company").await;
    let mut replay = writer.clone();
    replay.reader.reader = "replay-1".to_owned();
    let mut replay = replay.again(bench).await;
    for change in &changes {
        let outcome = replay.one(change.clone()).await;
        assert!(
            matches!(
                outcome,
                Outcome::Stale(_) | Outcome::Unchanged | Outcome::Ignored
            ),
            "{outcome:?}"
        );
    }
    assert_eq!(writer.all("company").await, rows);
}

pub async fn a_deleted_record_keeps_its_version(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    writer.one(row(&plan, "a", 5).text("name", "one")).await;
    assert_eq!(writer.one(deleted(&plan, "a", 7)).await, Outcome::Deleted);
    assert_eq!(writer.one(row(&plan, "a", 6)).await, held(7));
    assert!(writer.all("company").await.is_empty());
    // A record of which the delete comes first is not stored by what was before it.
    assert_eq!(writer.one(deleted(&plan, "b", 7)).await, Outcome::Ignored);
    bench.reopen().await;
    let mut writer = writer.again(bench).await;
    assert_eq!(writer.one(row(&plan, "b", 6)).await, held(7));
    assert_eq!(writer.one(row(&plan, "a", 6)).await, held(7));
    assert!(writer.all("company").await.is_empty());
    let traced = writer.traced("a").await;
    assert_eq!(traced.len(), 1);
    assert_eq!(
        (traced[0].version, &traced[0].row),
        (Version::new(1, 7), &None)
    );
}

pub async fn versions_are_per_table(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (companies, persons) = (Arc::new(company()), Arc::new(person()));
    writer.one(row(&companies, "a", 5)).await;
    let outcomes = writer
        .send([row(&companies, "a", 4), row(&persons, "a", 4)])
        .await;
    assert_eq!(outcomes, [held(5), Outcome::Inserted]);
    // And per connection.
    let mut other = Writer::open(bench.target(), "other", "sync").await;
    assert_eq!(other.one(row(&companies, "a", 1)).await, Outcome::Inserted);
}

pub async fn unchanged_rows_are_not_written(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    let full = |version, name: &str| {
        let named = row(&plan, "a", version).text("name", name);
        named.text("external_id", "a").number("employees", "12.50")
    };
    writer.one(full(1, "one")).await;
    let first = writer.row_of("company", "a").await.unwrap();
    let inserted_at = crate::mapping::plan::Cell::DateTime(writer.now);
    assert_eq!(first.cell("created_date"), inserted_at);
    assert_eq!(first.cell("modified_date"), inserted_at);
    assert_eq!(writer.one(full(2, "one")).await, Outcome::Unchanged);
    assert_eq!(writer.row_of("company", "a").await.unwrap(), first);
    // The version went on all the same.
    assert_eq!(writer.one(full(1, "old")).await, held(2));
    assert_eq!(writer.one(full(3, "two")).await, Outcome::Updated);
    let second = writer.row_of("company", "a").await.unwrap();
    let updated_at = crate::mapping::plan::Cell::DateTime(writer.now);
    assert_eq!(second.cell("created_date"), inserted_at);
    assert_eq!(second.cell("modified_date"), updated_at);
    assert_eq!(second.gsid, first.gsid);
}
