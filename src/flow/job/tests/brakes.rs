//! Brakes: the batch that crosses the line is not written, the job says why and waits, and a yes is for what was seen.

use super::runs::{begin, end, read, until};
use super::*;
use crate::config::job::Brakes;
use crate::mapping::plan::Cell;
use crate::model::change::Change;
use crate::model::name::{ConnectionId, JobId};
use crate::state::orders::{Orders, Seen};
use crate::state::runs::Run as Told;

/// A stage whose job stops at these; a tenth is the share of deletes.
async fn braked() -> Stage {
    let stage = stage().await;
    Stage {
        road: JobRoad {
            brakes: Brakes {
                max_delete_percent: 10,
                max_null_percent: 50,
                max_rejected_percent: 10,
                min_rows: 20,
            },
            ..stage.road
        },
        ..stage
    }
}

fn gone(id: &RecordId, counter: u64) -> Change {
    Change {
        op: Op::Delete,
        ..change(id, counter, "gone")
    }
}

async fn order(stage: &Stage) -> Order {
    let (acme, job) = (ConnectionId::new("acme"), JobId::new("company_sync"));
    stage.state.standing(&acme, &job).await.unwrap().order
}

/// What `job resume --accept` does, or `job resume`.
async fn resume(stage: &Stage, accept: bool) {
    let (acme, job) = (ConnectionId::new("acme"), JobId::new("company_sync"));
    let standing = stage.state.standing(&acme, &job).await.unwrap();
    let seen: Option<Seen> = standing.order.braked.filter(|_| accept);
    let order = Order {
        accepted: seen.or(standing.order.accepted),
        ..Order::default()
    };
    let given = stage.state.give(&acme, &job, standing.revision, order);
    assert!(given.await.unwrap());
}

async fn stops(stage: &Stage) -> String {
    let stopped = async {
        loop {
            let picture = stage
                .road
                .board
                .job_picture(&"acme".into(), &"company_sync".into());
            let paused = picture.filter(|job| job.state == Life::Paused);
            if let Some(pause) = paused.and_then(|job| job.paused) {
                assert!(pause.brake, "{pause:?}");
                return pause.reason.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_hours(4), stopped).await;
    waited.expect("a brake stops the job")
}

fn there(stage: &Stage) -> usize {
    let inner = stage.target.lock();
    let names = inner.names.values();
    names
        .filter(|(_, name)| matches!(name, Some(Cell::Text(_))))
        .count()
}

async fn fill(stage: &Stage, count: usize) -> Vec<RecordId> {
    let ids = ids(3, count);
    let rows: Vec<Change> = ids.iter().map(|id| change(id, 1, "x")).collect();
    stage.publish(&rows).await;
    stage.settled().await;
    ids
}

#[tokio::test(start_paused = true)]
async fn a_mass_delete_stops_before_it_is_written_and_goes_on_at_a_yes_for_what_was_seen() {
    let stage = braked().await;
    let running = start(&stage);
    let all = fill(&stage, 400).await;
    // A tenth of them may go.
    let few: Vec<Change> = all[..40].iter().map(|id| gone(id, 2)).collect();
    stage.publish(&few).await;
    stage.settled().await;
    assert_eq!(there(&stage), 360);
    stage
        .publish(&[gone(&all[40], 2), change(&all[50], 2, "y")])
        .await;
    let reason = stops(&stage).await;
    assert!(
        reason.contains("would delete or mark 41 of 400 rows"),
        "{reason}"
    );
    assert!(
        reason.contains("max_delete_percent = 10 lets 40 pass"),
        "{reason}"
    );
    assert!(
        reason.contains("resume acme/company_sync --accept"),
        "{reason}"
    );
    assert_eq!(there(&stage), 360, "nothing of the batch is written");
    running.end().await;

    // A restart keeps the pause; going on without a yes ends at the same line.
    let running = start(&stage);
    stops(&stage).await;
    resume(&stage, false).await;
    let again = async {
        while order(&stage).await.braked.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_hours(4), again)
        .await
        .unwrap();
    stops(&stage).await;
    assert_eq!(there(&stage), 360);
    resume(&stage, true).await;
    stage.settled().await;
    assert_eq!(there(&stage), 359);
    assert_eq!(stage.picture().dead_letters, 0);

    // The yes was for no more than that: what comes now counts anew, a restart or not.
    let few: Vec<Change> = all[60..90].iter().map(|id| gone(id, 2)).collect();
    stage.publish(&few).await;
    stage.settled().await;
    running.end().await;
    let running = start(&stage);
    let few: Vec<Change> = all[90..95].iter().map(|id| gone(id, 2)).collect();
    stage.publish(&few).await;
    stage.settled().await;
    assert_eq!(there(&stage), 324);
    stage.publish(&[gone(&all[95], 2)]).await;
    let reason = stops(&stage).await;
    assert!(
        reason.contains("would delete or mark 36 of 359 rows"),
        "{reason}"
    );
    assert_eq!(there(&stage), 324);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_small_day_stops_nobody_and_a_disaster_is_stopped_by_the_defaults() {
    let mut stage = stage().await;
    stage.road.brakes = Brakes::default();
    let running = start(&stage);
    let all = fill(&stage, 2_000).await;
    // All that the day does is to take away: 100 rows of 2,000, or of 100.
    let day: Vec<Change> = all[..100].iter().map(|id| gone(id, 2)).collect();
    stage.publish(&day).await;
    stage.settled().await;
    assert_eq!(there(&stage), 1_900);
    let night: Vec<Change> = all[100..].iter().map(|id| gone(id, 2)).collect();
    stage.publish(&night).await;
    let reason = stops(&stage).await;
    assert!(
        reason.contains("of 2000 rows: max_delete_percent = 10 lets 200 pass"),
        "{reason}"
    );
    assert!(there(&stage) >= 1_800);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn rows_that_came_since_they_were_counted_count() {
    let stage = braked().await;
    let running = start(&stage);
    let all = fill(&stage, 300).await;
    let few: Vec<Change> = all[..30].iter().map(|id| gone(id, 2)).collect();
    stage.publish(&few).await;
    stage.settled().await;
    let more: Vec<Change> = ids(3, 600)[300..]
        .iter()
        .map(|id| change(id, 1, "x"))
        .collect();
    stage.publish(&more).await;
    stage.settled().await;
    let few: Vec<Change> = all[30..60].iter().map(|id| gone(id, 2)).collect();
    stage.publish(&few).await;
    stage.settled().await;
    assert_eq!(there(&stage), 540);
    stage.publish(&[gone(&all[60], 2)]).await;
    let reason = stops(&stage).await;
    assert!(
        reason.contains("would delete or mark 61 of 600 rows"),
        "{reason}"
    );
    running.end().await;
}

/// A sync goes on finding what is gone after it was stopped; a stream never ends.
#[tokio::test(start_paused = true)]
async fn a_yes_to_a_full_sync_is_for_all_of_it() {
    let stage = braked().await;
    let running = start(&stage);
    let all = fill(&stage, 400).await;
    let run = begin(&stage).await;
    let found = |ids: &[RecordId]| {
        let found = ids.iter().map(|id| Change {
            op: Op::Delete,
            ..read(id, 2, "gone")
        });
        found.collect::<Vec<Change>>()
    };
    stage.publish(&found(&all[..50])).await;
    let reason = stops(&stage).await;
    assert!(
        reason.contains(&format!("run {} would delete or mark 50 of 400", run.id)),
        "{reason}"
    );
    stage.publish(&found(&all[50..100])).await;
    resume(&stage, true).await;
    stage.settled().await;
    stage.publish(&found(&all[100..200])).await;
    stage.settled().await;
    assert_eq!(there(&stage), 200);
    end(&stage, run).await;
    let ends = |runs: &[Told]| runs.iter().any(|run| run.head.is_closed());
    until(&stage, "the end of the sync", ends).await;
    let many: Vec<Change> = all[200..230].iter().map(|id| gone(id, 2)).collect();
    stage.publish(&many).await;
    let reason = stops(&stage).await;
    assert!(
        reason.contains("-stream would delete or mark 30 of 200 rows"),
        "{reason}"
    );
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_in_the_middle_of_a_run_does_not_begin_to_count_anew() {
    let stage = braked().await;
    let running = start(&stage);
    let all = fill(&stage, 400).await;
    let few: Vec<Change> = all[..30].iter().map(|id| gone(id, 2)).collect();
    stage.publish(&few).await;
    stage.settled().await;
    running.end().await;
    let running = start(&stage);
    let more: Vec<Change> = all[30..45].iter().map(|id| gone(id, 2)).collect();
    stage.publish(&more).await;
    let reason = stops(&stage).await;
    assert!(
        reason.contains("would delete or mark 45 of 400 rows"),
        "{reason}"
    );
    assert_eq!(there(&stage), 370);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn too_many_rejections_stop_before_they_are_set_aside() {
    let stage = braked().await;
    let running = start(&stage);
    let all = fill(&stage, 400).await;
    let refuse = |ids: &[RecordId]| {
        let reason = || "no such currency".to_owned();
        let refused = ids.iter().map(|id| (id.clone(), reason()));
        stage.target.lock().rejected.extend(refused);
    };
    refuse(&all[..60]);
    let some: Vec<Change> = all[..40].iter().map(|id| change(id, 2, "y")).collect();
    stage.publish(&some).await;
    stage.settled().await;
    assert_eq!(stage.letters().await.len(), 40);
    let more: Vec<Change> = all[40..60].iter().map(|id| change(id, 2, "y")).collect();
    stage.publish(&more).await;
    let reason = stops(&stage).await;
    assert!(
        reason.contains("would reject 60 of 460 records"),
        "{reason}"
    );
    assert!(reason.contains("no such currency"), "{reason}");
    assert_eq!(stage.letters().await.len(), 40, "none is passed");
    // Put right, it goes on without a yes.
    stage.target.lock().rejected.clear();
    resume(&stage, false).await;
    stage.settled().await;
    assert_eq!(stage.letters().await.len(), 40);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_rejection_counts_once_though_its_batch_was_stopped_and_then_fenced() {
    let stage = braked().await;
    let running = start(&stage);
    let all = fill(&stage, 400).await;
    let refused = all[..60].iter().map(|id| (id.clone(), "no".to_owned()));
    stage.target.lock().rejected.extend(refused);
    let some: Vec<Change> = all[..60].iter().map(|id| change(id, 2, "y")).collect();
    stage.publish(&some).await;
    stops(&stage).await;
    assert_eq!(stage.letters().await.len(), 0);
    // Its letters are durable when another owner is told to have its partition: they are written again, by the batch that
    // is committed.
    let script = [Scripted::Heard, Scripted::Fault(FaultKind::Fenced)];
    stage.target.lock().script.extend(script);
    resume(&stage, true).await;
    stage.settled().await;
    running.end().await;
    assert_eq!(stage.letters().await.len(), 120);
    let told = until(&stage, "runs", |_| true).await;
    let count = |outcome: &str| -> u64 {
        let counts = told.iter().filter_map(|run| run.done.counts.get(outcome));
        counts.sum()
    };
    assert_eq!((count("inserted"), count("rejected")), (400, 60));
    let records: u64 = told.iter().map(|run| run.done.records).sum();
    assert_eq!(records, 460);
}

#[tokio::test(start_paused = true)]
async fn columns_that_lose_their_values_stop_at_a_share_of_the_rows() {
    let stage = braked().await;
    let running = start(&stage);
    let all = fill(&stage, 100).await;
    let emptied = |id: &RecordId, counter| {
        let mut change = change(id, counter, "gone");
        change.fields.insert("Name".into(), Value::Null);
        change
    };
    // Half of the rows may lose a value, be there other updates or not.
    let half: Vec<Change> = all[..50].iter().map(|id| emptied(id, 2)).collect();
    stage.publish(&half).await;
    stage.settled().await;
    assert_eq!(there(&stage), 50);
    let others = all[60..90].iter().map(|id| change(id, 2, "y"));
    let more: Vec<Change> = others.chain([emptied(&all[50], 2)]).collect();
    stage.publish(&more).await;
    let reason = stops(&stage).await;
    assert!(
        reason.contains("would empty a column of 51 of 100 rows"),
        "{reason}"
    );
    assert!(
        reason.contains("max_null_percent = 50 lets 50 pass"),
        "{reason}"
    );
    assert_eq!(there(&stage), 50, "nothing of the batch is written");
    running.end().await;

    let running = start(&stage);
    stops(&stage).await;
    resume(&stage, true).await;
    stage.settled().await;
    assert_eq!(there(&stage), 49);
    // What comes now counts anew.
    let rest: Vec<Change> = all[51..].iter().map(|id| emptied(id, 3)).collect();
    stage.publish(&rest).await;
    stage.settled().await;
    assert_eq!(there(&stage), 0);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn every_daemon_stands_still_when_one_brakes() {
    let stage = braked().await;
    let first = start(&stage);
    let other = Stage {
        road: JobRoad {
            board: Arc::default(),
            ..stage.road.clone()
        },
        log: Arc::clone(&stage.log),
        target: Arc::clone(&stage.target),
        state: Arc::clone(&stage.state),
    };
    let second = start(&other);
    let all = fill(&stage, 100).await;
    let many: Vec<Change> = all.iter().map(|id| gone(id, 2)).collect();
    stage.publish(&many).await;
    stops(&stage).await;
    stops(&other).await;
    assert_eq!(there(&stage), 100);
    resume(&stage, true).await;
    stage.settled().await;
    assert_eq!(there(&stage), 0);
    first.end().await;
    second.end().await;
}
