//! A job's runs: a full sync counts for itself, all else for its day; what was counted outlives a state that was away.

use super::*;
use crate::model::change::Origin;
use crate::model::name::{ConnectionId, ObjectName};
use crate::state::runs::{Run as Told, RunCause, RunHead, RunState, Runs, RunsWanted};

pub(super) fn read(id: &RecordId, counter: u64, name: &str) -> crate::model::change::Change {
    crate::model::change::Change {
        origin: Origin::Snapshot,
        op: Op::Snapshot,
        ..change(id, counter, name)
    }
}

/// Notes in the state which full sync began last, as the owner does.
async fn sync(stage: &Stage, run: &RunHead) {
    let (acme, account) = (ConnectionId::new("acme"), ObjectName::new("Account"));
    let term = stage.term().await;
    let mut known = stage.state.object(&acme, &account).await.unwrap();
    known.run = Some(run.clone());
    let put = stage.state.put_object(&acme, term, &account, known);
    put.await.unwrap();
}

async fn ends(stage: &Stage) -> BTreeMap<u32, u64> {
    let bounds = stage.log.bounds(TOPIC).await.unwrap().into_iter();
    bounds
        .map(|(partition, bounds)| (partition, bounds.end))
        .collect()
}

pub(super) async fn begin(stage: &Stage) -> RunHead {
    let run = RunHead::sync(
        RunCause::Asked,
        Some("anna".to_owned()),
        ends(stage).await,
        stage.road.clock.now(),
    );
    sync(stage, &run).await;
    run
}

pub(super) async fn end(stage: &Stage, run: RunHead) -> RunHead {
    let run = RunHead {
        ends: Some(ends(stage).await),
        ended: Some(stage.road.clock.now()),
        rows: 7,
        ..run
    };
    sync(stage, &run).await;
    run
}

async fn runs(stage: &Stage) -> Vec<Told> {
    let wanted = RunsWanted {
        limit: 10,
        ..RunsWanted::default()
    };
    stage.state.runs(wanted).await.unwrap()
}

/// Waits until the state tells of runs; on paused time, so that a wait for ever ends at once.
pub(super) async fn until(stage: &Stage, what: &str, holds: impl Fn(&[Told]) -> bool) -> Vec<Told> {
    let told = async {
        loop {
            let told = runs(stage).await;
            if holds(&told) {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_hours(4), told).await;
    waited.unwrap_or_else(|_| panic!("never: {what}"))
}

fn counts(run: &Told) -> Vec<(&str, u64)> {
    let counts = run.done.counts.iter();
    counts
        .map(|(outcome, count)| (outcome.as_str(), *count))
        .collect()
}

fn of<'a>(told: &'a [Told], id: &str) -> &'a Told {
    told.iter().find(|run| run.head.id == id).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_full_sync_counts_for_itself_and_all_else_for_its_day() {
    let stage = stage().await;
    let [a, b, c] = &ids(3, 3)[..] else { panic!() };
    let now = || stage.road.clock.now();
    let day = RunHead::stream(now()).id;
    stage
        .target
        .lock()
        .rejected
        .insert(b.clone(), "ambiguous".to_owned());
    let running = start(&stage);
    stage.publish(&[change(a, 1, "before")]).await;
    stage.settled().await;
    let begun = begin(&stage).await;
    stage
        .publish(&[read(a, 2, "read"), read(b, 3, "refused")])
        .await;
    stage.settled().await;
    let told = until(&stage, "the sync's counts", |told| {
        told.iter()
            .any(|run| run.head.id == begun.id && run.done.counts.len() > 1)
    });
    let told = told.await;
    assert_eq!(of(&told, &begun.id).state(now()), RunState::Running);
    let ended = end(&stage, begun).await;
    until(&stage, "an end", |told| {
        of(told, &ended.id).state(now()) != RunState::Running
    })
    .await;
    stage.publish(&[change(c, 4, "after")]).await;
    stage.settled().await;
    running.end().await;
    let told = runs(&stage).await;
    assert_eq!(told.len(), 2, "{told:?}");
    let synced = of(&told, &ended.id);
    assert_eq!(counts(synced), [("rejected", 1), ("updated", 1)]);
    assert_eq!(synced.state(now()), RunState::PartialSuccess);
    assert_eq!(
        (synced.head.rows, synced.head.by.as_deref()),
        (7, Some("anna"))
    );
    assert_eq!(counts(of(&told, &day)), [("inserted", 2)]);
    let letters = stage.letter_runs().await;
    assert_eq!(letters, [ended.id], "the letter names its run");
}

#[tokio::test(start_paused = true)]
async fn each_change_counts_for_the_run_that_it_says_it_is_of() {
    let stage = stage().await;
    let ids = ids(3, 8);
    let day = RunHead::stream(stage.road.clock.now()).id;
    // The job is away while all of this is published, and is given it at once.
    let first = begin(&stage).await;
    let told = [
        read(&ids[0], 1, "read"),
        change(&ids[1], 2, "told meanwhile"),
        read(&ids[2], 3, "read"),
        change(&ids[3], 4, "told meanwhile"),
    ];
    stage.publish(&told).await;
    let first = end(&stage, first).await;
    stage.publish(&[read(&ids[4], 5, "published again")]).await;
    let running = start(&stage);
    stage.settled().await;
    // Neither what the stream tells is a sync's nor what comes after its end, whose end nobody has looked for yet.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let second = begin(&stage).await;
    stage.publish(&[read(&ids[5], 6, "read")]).await;
    stage.settled().await;
    stage.publish(&[change(&ids[6], 7, "told")]).await;
    stage.settled().await;
    let second = end(&stage, second).await;
    stage.publish(&[read(&ids[7], 8, "published again")]).await;
    stage.settled().await;
    running.end().await;
    let told = runs(&stage).await;
    assert_eq!(counts(of(&told, &first.id)), [("inserted", 2)], "{told:?}");
    assert_eq!(counts(of(&told, &second.id)), [("inserted", 1)], "{told:?}");
    assert_eq!(counts(of(&told, &day)), [("inserted", 5)], "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_sync_that_finds_nothing_ends_and_one_applied_after_a_restart_too() {
    let stage = stage().await;
    let id = &ids(0, 1)[0];
    let now = || stage.road.clock.now();
    let running = start(&stage);
    let begun = begin(&stage).await;
    let nothing = end(&stage, begun).await;
    until(&stage, "the empty run", |told| {
        told.first()
            .is_some_and(|run| run.state(now()) == RunState::Success)
    })
    .await;
    running.end().await;
    // The job is away while all of the next one is published.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let begun = begin(&stage).await;
    stage.publish(&[read(id, 1, "one")]).await;
    let ended = end(&stage, begun).await;
    for _ in 0..2 {
        let running = start(&stage);
        stage.settled().await;
        until(&stage, "its end", |told| {
            told.iter()
                .any(|run| run.head.id == ended.id && run.state(now()) == RunState::Success)
        })
        .await;
        running.end().await;
    }
    let told = runs(&stage).await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(
        counts(of(&told, &ended.id)),
        [("inserted", 1)],
        "counted once"
    );
    assert!(counts(of(&told, &nothing.id)).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_sync_whose_end_nobody_heard_ended_before_the_next_one_began() {
    let stage = stage().await;
    let (a, b) = (&ids(3, 1)[0], &ids(4, 1)[0]);
    let now = || stage.road.clock.now();
    let running = start(&stage);
    let first = begin(&stage).await;
    until(&stage, "the first run", |told| !told.is_empty()).await;
    running.end().await;
    // The job is away while it ends, and while all of the next one is published.
    stage.publish(&[read(a, 1, "one")]).await;
    end(&stage, first.clone()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let second = begin(&stage).await;
    stage.publish(&[read(b, 2, "two")]).await;
    end(&stage, second.clone()).await;
    let running = start(&stage);
    stage.settled().await;
    let told = until(&stage, "both ends", |told| {
        let is_done = |run: &Told| run.state(now()) == RunState::Success;
        told.len() == 2 && told.iter().all(is_done)
    })
    .await;
    running.end().await;
    for run in [first, second] {
        assert_eq!(counts(of(&told, &run.id)), [("inserted", 1)], "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_day_of_many_syncs_goes_on_counting_its_stream() {
    let stage = stage().await;
    let ids = ids(3, 41);
    let running = start(&stage);
    for (number, id) in (1..).zip(&ids[..40]) {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let begun = begin(&stage).await;
        end(&stage, begun.clone()).await;
        until(&stage, "the sync", |told| {
            told.iter().any(|run| run.head.id == begun.id)
        })
        .await;
        stage.publish(&[change(id, number, "told")]).await;
        stage.settled().await;
    }
    stage.publish(&[change(&ids[40], 41, "told")]).await;
    stage.settled().await;
    running.end().await;
    let wanted = RunsWanted {
        limit: 100,
        ..RunsWanted::default()
    };
    let told = stage.state.runs(wanted).await.unwrap();
    assert_eq!(told.len(), 41);
    let day = RunHead::stream(stage.road.clock.now()).id;
    assert_eq!(counts(of(&told, &day)), [("inserted", 41)]);
}
