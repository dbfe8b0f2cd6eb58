//! A job obeys orders: a pause ends what is in hand and holds over restarts, and the job goes on behind it.

use super::*;
use crate::model::name::{ConnectionId, JobId};
use crate::state::orders::Orders;

async fn tell(stage: &Stage, paused: bool) {
    let (acme, job) = (ConnectionId::new("acme"), JobId::new("company_sync"));
    let standing = stage.state.standing(&acme, &job).await.unwrap();
    let order = Order {
        paused,
        reason: Some("month's end".to_owned()),
        by: Some("anna".to_owned()),
        ..Order::default()
    };
    let given = stage.state.give(&acme, &job, standing.revision, order);
    assert!(given.await.unwrap());
}

fn life(road: &JobRoad) -> Option<Life> {
    let jobs = road.board.picture().jobs;
    let job = jobs.get("acme")?.get("company_sync")?;
    Some(job.state)
}

/// Waits until the board shows a life; on paused time, so that a wait for ever ends at once.
async fn shows(road: &JobRoad, wanted: Life) {
    let shown = async {
        while life(road) != Some(wanted) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_hours(4), shown).await;
    assert!(waited.is_ok(), "never {wanted:?}: {:?}", life(road));
}

/// A minute goes by on paused time: whatever was going to happen has.
async fn a_minute() {
    tokio::time::sleep(Duration::from_mins(1)).await;
}

/// Every reader's epoch: raised by whoever joins.
fn epochs(inner: &Inner) -> Vec<u64> {
    let mut epochs: Vec<u64> = inner.offsets.values().map(|(_, epoch)| *epoch).collect();
    epochs.sort_unstable();
    epochs
}

#[tokio::test(start_paused = true)]
async fn a_pause_lets_the_batch_in_hand_end_and_the_job_goes_on_behind_it() {
    let stage = stage().await;
    let [a, b] = &ids(3, 2)[..] else { panic!() };
    stage.target.lock().holds = true;
    stage.publish(&[change(a, 1, "one")]).await;
    let running = start(&stage);
    let in_hand = |inner: &Inner| inner.held == 1;
    stage.target.until("a batch in hand", in_hand).await;
    tell(&stage, true).await;
    stage.publish(&[change(b, 1, "two")]).await;
    a_minute().await;
    assert_ne!(life(&stage.road), Some(Life::Paused), "a batch is in hand");
    stage.target.let_go();
    shows(&stage.road, Life::Paused).await;
    let pause = stage.picture().paused.unwrap();
    assert_eq!(pause.reason.as_deref(), Some("month's end"));
    assert_eq!(pause.by.as_deref(), Some("anna"));
    assert_eq!(stage.outcome("inserted"), 1, "what came to its end counts");
    let before = epochs(&stage.target.lock());
    a_minute().await;
    {
        let inner = stage.target.lock();
        assert_eq!(moves(&inner.commits, 3), [(0, 1)]);
        assert_eq!(epochs(&inner), before, "nobody joins");
    }
    tell(&stage, false).await;
    stage.settled().await;
    assert_eq!(stage.picture().paused, None);
    running.end().await;
    let inner = stage.target.lock();
    assert_eq!(moves(&inner.commits, 3), [(0, 1), (1, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_pause_holds_over_restarts() {
    let stage = stage().await;
    let id = &ids(0, 1)[0];
    stage.publish(&[change(id, 1, "one")]).await;
    tell(&stage, true).await;
    for _ in 0..2 {
        let running = start(&stage);
        shows(&stage.road, Life::Paused).await;
        a_minute().await;
        running.end().await;
        assert_eq!(life(&stage.road), Some(Life::Stopped));
        let inner = stage.target.lock();
        assert_eq!(
            (inner.prepared, inner.calls, inner.offsets.len()),
            (0, 0, 0)
        );
    }
    let running = start(&stage);
    shows(&stage.road, Life::Paused).await;
    tell(&stage, false).await;
    stage.settled().await;
    running.end().await;
    assert_eq!(moves(&stage.target.lock().commits, 0), [(0, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_job_in_trouble_obeys_too() {
    for kind in [FaultKind::Unavailable, FaultKind::Config] {
        let stage = stage().await;
        let id = &ids(0, 1)[0];
        stage.target.lock().down = Some(kind);
        stage.publish(&[change(id, 1, "one")]).await;
        let running = start(&stage);
        stage.target.until("a call", |inner| inner.calls > 0).await;
        tell(&stage, true).await;
        shows(&stage.road, Life::Paused).await;
        stage.target.lock().down = None;
        a_minute().await;
        assert!(stage.target.lock().commits.is_empty(), "{kind:?}");
        tell(&stage, false).await;
        stage.settled().await;
        running.end().await;
        assert_eq!(moves(&stage.target.lock().commits, 0), [(0, 1)]);
    }
}

#[tokio::test(start_paused = true)]
async fn every_daemon_of_a_group_obeys() {
    let stage = stage().await;
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
    let all: Vec<RecordId> = (0..8).flat_map(|partition| ids(partition, 1)).collect();
    let publish = async |counter| {
        let changes: Vec<_> = all.iter().map(|id| change(id, counter, "x")).collect();
        stage.publish(&changes).await;
    };
    publish(1).await;
    stage.settled().await;
    tell(&stage, true).await;
    shows(&stage.road, Life::Paused).await;
    shows(&other.road, Life::Paused).await;
    let committed = stage.target.lock().commits.len();
    publish(2).await;
    a_minute().await;
    assert_eq!(stage.target.lock().commits.len(), committed);
    tell(&stage, false).await;
    stage.settled().await;
    first.end().await;
    second.end().await;
    let inner = stage.target.lock();
    for partition in 0..8 {
        assert_eq!(moves(&inner.commits, partition), [(0, 1), (1, 2)]);
    }
}
