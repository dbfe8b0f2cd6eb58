//! The suite on J1: rows and offset in one transaction, owners fenced, batches whole or not there.

use std::sync::Arc;

use futures_util::FutureExt;

use super::Bench;
use super::plans::{company, person, row};
use super::world::{Writer, begin, every};
use crate::fault::{Fate, FaultKind};
use crate::mapping::plan::Cell;
use crate::target::port::{Outcome, RowsPage};

pub async fn rows_and_offset_are_committed_together(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    let mut batch = writer.batch([
        row(&plan, "a", 1).text("external_id", "a"),
        row(&plan, "b", 2).text("external_id", "b"),
    ]);
    batch.next = 17;
    let applied = writer.apply(batch).await.unwrap();
    assert!(applied.committed);
    assert_eq!(
        applied.outcomes,
        [[Outcome::Inserted, Outcome::Inserted].to_vec()]
    );
    assert_eq!(writer.all("company").await.len(), 2);
    let again = writer.again(bench).await;
    assert_eq!(again.owned.next, 17);
}

pub async fn a_new_reader_starts_at_zero(bench: &mut dyn Bench) {
    let writer = begin(bench).await;
    assert_eq!(writer.owned.next, 0);
    let again = writer.again(bench).await;
    assert_eq!(again.owned.next, 0);
    assert!(again.owned.epoch > writer.owned.epoch);
}

pub async fn readers_and_partitions_have_their_own_offsets(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    writer.one(row(&plan, "a", 1).text("name", "one")).await;
    let target = bench.target();
    let mut others = vec![(writer.reader.clone(), 1)];
    for other in 0..4 {
        let mut key = writer.reader.clone();
        match other {
            0 => key.reader = "replay-1".to_owned(),
            1 => key.generation = "g2".to_owned(),
            2 => key.job = "other".into(),
            _ => key.connection = "other".into(),
        }
        others.push((key, 0));
    }
    for (key, partition) in others {
        let assigned = target.assign(&key, partition).await.unwrap();
        assert_eq!(assigned.next, 0, "{key:?} {partition}");
    }
    // None of them took anything from the first.
    assert_eq!(
        writer.one(row(&plan, "a", 2).text("name", "two")).await,
        Outcome::Updated
    );
}

pub async fn a_zombie_writes_nothing(bench: &mut dyn Bench) {
    let mut zombie = begin(bench).await;
    let plan = Arc::new(company());
    zombie.one(row(&plan, "a", 1).text("name", "one")).await;
    let mut owner = zombie.again(bench).await;
    assert!(owner.owned.epoch > zombie.owned.epoch);
    let late = zombie.batch([
        row(&plan, "a", 9).text("name", "zombie"),
        row(&plan, "b", 9),
    ]);
    let fenced = zombie.apply(late).await.unwrap_err();
    assert_eq!(fenced.kind(), FaultKind::Fenced);
    let rows = owner.all("company").await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].cell("name"), Cell::Text("one".into()));
    assert!(owner.traced("b").await.is_empty());
    assert_eq!(
        owner.one(row(&plan, "a", 2).text("name", "owner")).await,
        Outcome::Updated
    );
}

pub async fn an_offset_that_was_passed_is_fenced(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    let first = writer.batch([row(&plan, "a", 1).text("name", "one")]);
    writer.apply(first.clone()).await.unwrap();
    // The reply was lost and the batch is sent again; or the owner is ahead of what is stored.
    for expect in [0, 2, 99] {
        let mut batch = first.clone();
        batch.expect = expect;
        batch.next = 100;
        let fenced = writer.target.apply(batch).await.unwrap_err();
        assert_eq!(fenced.kind(), FaultKind::Fenced, "{expect}");
    }
    assert_eq!(writer.all("company").await.len(), 1);
    assert_eq!(writer.again(bench).await.owned.next, 1);
}

pub async fn an_unassigned_partition_is_fenced(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    writer.partition = 7;
    let batch = writer.batch([row(&plan, "a", 1)]);
    let fenced = writer.apply(batch).await.unwrap_err();
    assert_eq!(fenced.kind(), FaultKind::Fenced);
    assert!(writer.all("company").await.is_empty());
}

pub async fn a_rejected_row_keeps_the_batch_out(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let mut strict = person();
    strict.on_empty_identifier = crate::model::policy::OnEmptyIdentifier::Reject;
    let (companies, persons) = (Arc::new(company()), Arc::new(strict));
    let rows = |with_bad: bool| {
        let mut rows = vec![
            row(&companies, "a", 1).text("external_id", "a"),
            row(&persons, "a", 1).text("email", "a@x.example"),
            row(&persons, "c", 3).text("email", "c@x.example"),
        ];
        if with_bad {
            rows.push(row(&companies, "b", 2).text("external_id", "b"));
            rows.push(row(&persons, "b", 2));
        }
        rows
    };
    let batch = writer.batch(rows(true));
    let applied = writer.apply(batch).await.unwrap();
    assert!(!applied.committed);
    assert_eq!(
        applied.outcomes[0],
        [Outcome::Inserted, Outcome::Inserted],
        "every row has an outcome"
    );
    assert_eq!(
        applied.outcomes[1][..2],
        [Outcome::Inserted, Outcome::Inserted]
    );
    assert!(matches!(applied.outcomes[1][2], Outcome::Rejected(_)));
    assert!(writer.all("company").await.is_empty());
    assert!(writer.all("person").await.is_empty());
    assert!(writer.traced("a").await.is_empty());
    assert_eq!(writer.again(bench).await.owned.next, 0);
    // Without it, under the same epoch and offset.
    writer = writer.again(bench).await;
    assert_eq!(writer.send(rows(false)).await, vec![Outcome::Inserted; 3]);
    assert_eq!(writer.again(bench).await.owned.next, 1);
}

pub async fn a_probe_does_not_move_the_offset(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    writer.one(row(&plan, "a", 1).text("name", "one")).await;
    for name in ["two", "three"] {
        let mut probe = writer.batch([row(&plan, "a", 2).text("name", name)]);
        probe.next = probe.expect;
        let applied = writer.apply(probe).await.unwrap();
        assert!(applied.committed);
        assert_eq!(applied.outcomes, [[Outcome::Updated].to_vec()]);
    }
    assert_eq!(writer.again(bench).await.owned.next, 1);
}

/// A topic was cut, and the job goes back.
pub async fn a_batch_may_move_its_offset_back(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    for version in 1..4 {
        writer.one(row(&plan, "a", version)).await;
    }
    let mut back = writer.batch([]);
    back.next = 1;
    assert!(writer.apply(back).await.unwrap().committed);
    assert_eq!(writer.again(bench).await.owned.next, 1);
}

pub async fn an_empty_batch_moves_the_offset(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let mut batch = writer.batch([]);
    batch.next = 5;
    let applied = writer.apply(batch).await.unwrap();
    assert!(applied.committed && applied.outcomes.is_empty());
    assert_eq!(writer.again(bench).await.owned.next, 5);
}

pub async fn a_dropped_apply_is_whole(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    let mut due = 0;
    for round in 0..20_u64 {
        let rows = (0..10).map(|n| {
            let record = format!("{round}-{n}");
            row(&plan, &record, 1).text("external_id", &record)
        });
        let batch = writer.batch(rows);
        // Polled once and dropped.
        drop(writer.target.apply(batch).now_or_never());
        let again = writer.again(bench).await;
        if again.owned.next > writer.owned.next {
            due += 10;
        }
        writer = again;
        assert_eq!(
            writer.all("company").await.len(),
            due,
            "torn in round {round}"
        );
    }
}

pub async fn a_restart_sees_everything(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    writer
        .send([
            row(&plan, "a", 1)
                .text("external_id", "a")
                .text("name", "one"),
            row(&plan, "b", 1).text("external_id", "b"),
        ])
        .await;
    let (rows, traced) = (writer.all("company").await, writer.traced("a").await);
    bench.reopen().await;
    assert_eq!(every(&*bench.target(), "company").await, rows);
    let mut writer = writer.again(bench).await;
    assert_eq!(writer.owned.next, 1);
    assert_eq!(writer.traced("a").await, traced);
    // The tables are there; to ensure them again changes nothing.
    let mut writer = Writer {
        now: writer.now,
        ..begin_again(bench, &mut writer).await
    };
    assert_eq!(writer.all("company").await, rows);
    let outcome = writer.one(
        row(&plan, "a", 2)
            .text("external_id", "a")
            .text("name", "one"),
    );
    assert_eq!(outcome.await, Outcome::Unchanged);
}

async fn begin_again(bench: &mut dyn Bench, writer: &mut Writer) -> Writer {
    bench
        .target()
        .ensure(&super::plans::objects())
        .await
        .unwrap();
    writer.again(bench).await
}

pub async fn a_refused_batch_leaves_nothing_behind(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    let nowhere = Arc::new(super::plans::plan("nowhere", &[]));
    let batch = writer.batch([row(&plan, "a", 1), row(&nowhere, "a", 1)]);
    let refused = writer.apply(batch).await.unwrap_err();
    assert_eq!(refused.fate(), Fate::Stop, "{refused:?}");
    assert!(refused.report().contains("nowhere"), "{refused}");
    assert!(writer.all("company").await.is_empty());
    assert!(writer.traced("a").await.is_empty());
    assert_eq!(writer.one(row(&plan, "a", 1)).await, Outcome::Inserted);
}

pub async fn a_closed_target_says_so(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    writer.one(row(&plan, "a", 1)).await;
    writer.target.close().await.unwrap();
    let batch = writer.batch([row(&plan, "b", 1)]);
    let refused = writer.apply(batch).await.unwrap_err();
    assert_eq!(refused.kind(), FaultKind::Stopping);
    let page = RowsPage::default();
    let refused = writer.target.rows("company", page).await.unwrap_err();
    assert_eq!(refused.kind(), FaultKind::Stopping);
    bench.reopen().await;
    assert_eq!(every(&*bench.target(), "company").await.len(), 1);
}
