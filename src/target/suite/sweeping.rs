//! The suite on sweeps: what is noted, what is met, and what a sweep spares.

use super::Bench;
use super::plans::{Row, company, deleted, person, row};
use super::world::{Writer, begin};
use crate::model::policy::OnExit;
use crate::model::record_id::RecordId;
use crate::model::version::Version;
use crate::target::port::sweep::{SweepKey, Unmet};
use crate::target::port::{Outcome, ReaderKey};

fn key(writer: &Writer) -> SweepKey {
    SweepKey {
        connection: writer.reader.connection.clone(),
        job: writer.reader.job.clone(),
        object: writer.object.clone(),
        replay: "20260105-replay".to_owned(),
        attempt: "one".to_owned(),
    }
}

fn tables(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn ids(names: &[&str]) -> Vec<RecordId> {
    names.iter().map(|name| RecordId::stored(*name)).collect()
}

fn unmet(record: &str, table: &str, version: u64) -> Unmet {
    Unmet {
        record: RecordId::stored(record),
        table: table.to_owned(),
        version: Version::new(1, version),
    }
}

fn named(row: Row, name: &str) -> Row {
    row.text("external_id", name).text("name", name)
}

/// Records that hold rows are noted with their versions: not those that left, are marked, or are another job's.
pub async fn who_holds_a_row_is_noted_until_it_is_met(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = std::sync::Arc::new(company().exits(OnExit::Mark, OnExit::Keep));
    let gone = std::sync::Arc::new(company().exits(OnExit::Delete, OnExit::Keep));
    for (number, record) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let version = number as u64 + 1;
        writer.one(named(row(&plan, record, version), record)).await;
    }
    writer.one(deleted(&plan, "c", 9)).await;
    writer.one(deleted(&gone, "d", 9)).await;
    let (target, of) = (writer.target.clone(), key(&writer));
    let noted = target
        .begin_replay(&of, &tables(&["company"]))
        .await
        .unwrap();
    assert_eq!(noted, 2);
    let all = [unmet("a", "company", 1), unmet("b", "company", 2)];
    assert_eq!(target.unmet(&of, 10).await.unwrap(), all);
    assert_eq!(target.unmet(&of, 1).await.unwrap(), all[..1]);
    // Who comes later is not noted, and no other job sees any of it.
    writer.one(named(row(&plan, "e", 1), "e")).await;
    let other = SweepKey {
        job: "other".into(),
        ..of.clone()
    };
    assert_eq!(target.unmet(&other, 10).await.unwrap(), []);
    target.met(&other, &ids(&["a"])).await.unwrap();
    assert_eq!(target.unmet(&of, 10).await.unwrap(), all);
    bench.reopen().await;
    let target = bench.target();
    for _ in 0..2 {
        target.met(&of, &ids(&["a", "x"])).await.unwrap();
        assert_eq!(target.unmet(&of, 10).await.unwrap(), all[1..]);
    }
    // Begun anew.
    let noted = target
        .begin_replay(&of, &tables(&["company"]))
        .await
        .unwrap();
    assert_eq!(noted, 3);
}

/// A record is met in every table, and swept out of one at a time.
pub async fn what_was_swept_is_struck_out_per_table(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (companies, people) = (
        std::sync::Arc::new(company()),
        std::sync::Arc::new(person()),
    );
    for record in ["a", "b"] {
        writer.one(named(row(&companies, record, 1), record)).await;
        let email = format!("{record}@x.example");
        writer
            .one(row(&people, record, 1).text("email", &email))
            .await;
    }
    let (target, of) = (&writer.target, key(&writer));
    let both = tables(&["company", "person"]);
    assert_eq!(target.begin_replay(&of, &both).await.unwrap(), 4);
    target.met(&of, &ids(&["a"])).await.unwrap();
    let left = [unmet("b", "company", 1), unmet("b", "person", 1)];
    assert_eq!(target.unmet(&of, 10).await.unwrap(), left);
    target.swept(&of, &left[..1]).await.unwrap();
    assert_eq!(target.unmet(&of, 10).await.unwrap(), left[1..]);
    let one = tables(&["person"]);
    assert_eq!(target.begin_replay(&of, &one).await.unwrap(), 2);
}

/// A delete at the version that was noted is applied, unless the record has moved on; what comes later comes back.
pub async fn a_sweep_spares_what_moved_on(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = std::sync::Arc::new(company().exits(OnExit::Delete, OnExit::Keep));
    for record in ["a", "b"] {
        writer.one(named(row(&plan, record, 1), record)).await;
    }
    let of = key(&writer);
    let target = writer.target.clone();
    target
        .begin_replay(&of, &tables(&["company"]))
        .await
        .unwrap();
    writer.one(named(row(&plan, "b", 2), "renamed")).await;
    let mut outcomes = Vec::new();
    for one in target.unmet(&of, 10).await.unwrap() {
        let version = one.version.counter();
        let leaves = deleted(&plan, one.record.as_str(), version);
        outcomes.push(writer.one(leaves).await);
    }
    assert_eq!(
        outcomes,
        [Outcome::Deleted, Outcome::Stale(Version::new(1, 2))]
    );
    assert!(writer.row_of("company", "a").await.is_none());
    assert!(writer.row_of("company", "b").await.is_some());
    let back = writer.one(named(row(&plan, "a", 2), "a")).await;
    assert_ne!(back, Outcome::Stale(Version::new(1, 1)));
    assert!(writer.row_of("company", "a").await.is_some());
}

/// What a replay has in the ledger goes with it or the next one, and nothing of the live reader's.
pub async fn a_replay_that_ended_leaves_nothing_in_the_ledger(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = std::sync::Arc::new(company());
    writer.one(named(row(&plan, "a", 1), "a")).await;
    let first = key(&writer);
    let second = SweepKey {
        replay: "20260106-replay".to_owned(),
        ..first.clone()
    };
    let target = writer.target.clone();
    let reader = |of: &SweepKey| ReaderKey {
        reader: of.reader(),
        ..writer.reader.clone()
    };
    for of in [&first, &second] {
        target
            .begin_replay(of, &tables(&["company"]))
            .await
            .unwrap();
        assert_eq!(target.unmet(of, 10).await.unwrap().len(), 1);
        let mut replay = Writer {
            owned: target.assign(&reader(of), 0).await.unwrap(),
            reader: reader(of),
            ..writer.clone()
        };
        replay.send([]).await;
        assert_eq!(target.assign(&reader(of), 0).await.unwrap().next, 1);
    }
    // Another attempt at it begins too late, and spoils nothing.
    let late = SweepKey {
        attempt: "a".to_owned(),
        ..second.clone()
    };
    target
        .begin_replay(&late, &tables(&["company"]))
        .await
        .unwrap();
    // The one before left what it had.
    assert_eq!(target.unmet(&first, 10).await.unwrap(), []);
    assert_eq!(target.assign(&reader(&first), 0).await.unwrap().next, 0);
    // Late, it ends nobody else's.
    for of in [&first, &late] {
        target.end_replay(of).await.unwrap();
    }
    assert_eq!(target.unmet(&second, 10).await.unwrap().len(), 1);
    assert_eq!(target.assign(&reader(&second), 0).await.unwrap().next, 1);
    for _ in 0..2 {
        target.end_replay(&second).await.unwrap();
    }
    assert_eq!(target.unmet(&second, 10).await.unwrap(), []);
    assert_eq!(target.assign(&reader(&second), 0).await.unwrap().next, 0);
    assert_eq!(target.assign(&writer.reader, 0).await.unwrap().next, 1);
}
