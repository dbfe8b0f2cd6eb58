//! A replay into the live tables: what is newer stays, what is not in the topic leaves under the brake, and a kill, a stop
//! or another daemon in the middle loses nothing.

use super::*;
use crate::config::job::Brakes;
use crate::flow::board::Board;
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::state::orders::{Orders, Replay, ReplayStage, Since};
use crate::state::port::{HoleCause, HoleScope, NewHole, ObjectState, Progress};

fn names() -> (ConnectionId, JobId) {
    (ConnectionId::new("acme"), JobId::new("company_sync"))
}

async fn order(stage: &Stage) -> Order {
    let (acme, job) = names();
    stage.state.standing(&acme, &job).await.unwrap().order
}

async fn give(stage: &Stage, change: impl Fn(Order) -> Order) {
    let (acme, job) = names();
    loop {
        let standing = stage.state.standing(&acme, &job).await.unwrap();
        let order = change(standing.order);
        let given = stage.state.give(&acme, &job, standing.revision, order);
        if given.await.unwrap() {
            return;
        }
    }
}

async fn ask(stage: &Stage, since: Since) {
    let at = stage.road.clock.now();
    give(stage, |order| Order {
        replay: Some(Replay::new(since, None, at)),
        ..order
    })
    .await;
}

/// The first full sync is done: the topic tells every record.
async fn synced(stage: &Stage) {
    let term = stage.term().await;
    let (acme, _) = names();
    let account = ObjectName::new("Account");
    let known = stage.state.object(&acme, &account).await.unwrap();
    let state = ObjectState {
        synced_at: Some(stage.road.clock.now()),
        ..known
    };
    let put = stage.state.put_object(&acme, term, &account, state);
    put.await.unwrap();
}

/// Waits until the replay has ended; on paused time, so that a wait for ever ends at once.
async fn ended(stage: &Stage) -> ReplayStage {
    let ended = async {
        loop {
            let replay = order(stage).await.replay.unwrap();
            if !replay.is_under_way() {
                return replay.stage;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_hours(4), ended).await;
    waited.expect("the replay ends")
}

async fn done(stage: &Stage) {
    let ended = ended(stage).await;
    assert!(matches!(ended, ReplayStage::Done { .. }), "{ended:?}");
}

async fn failed(stage: &Stage) -> String {
    match ended(stage).await {
        ReplayStage::Failed { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

/// What the store holds of a record, set behind the job's back.
fn holds(stage: &Stage, id: &RecordId, counter: u64, name: &str) {
    let held = (Version::new(7, counter), Some(Cell::Text(name.into())));
    stage.target.lock().names.insert(id.clone(), held);
}

fn named(stage: &Stage, id: &RecordId) -> Option<String> {
    name(&stage.target.lock(), id)
}

/// A stage whose topic tells of these records, all applied by a job that runs.
async fn filled(all: &[&[RecordId]]) -> (Stage, Running) {
    let stage = stage().await;
    synced(&stage).await;
    let running = start(&stage);
    for ids in all {
        let rows: Vec<_> = ids.iter().map(|id| change(id, 5, id.as_str())).collect();
        stage.publish(&rows).await;
        stage.settled().await;
    }
    (stage, running)
}

#[tokio::test(start_paused = true)]
async fn a_row_of_the_same_version_is_made_anew_a_newer_one_stays_and_the_unknown_leaves() {
    let [a, b, ghost] = &ids(3, 3)[..] else {
        panic!()
    };
    let (stage, running) = filled(&[&[a.clone(), b.clone()]]).await;
    // As a mapping before made it; as a change that the topic tells later will; and as nothing that is told.
    holds(&stage, a, 5, "old");
    holds(&stage, b, 6, "newer");
    holds(&stage, ghost, 2, "ghost");
    let live = stage.target.lock().commits.len();
    ask(&stage, Since::Start).await;
    done(&stage).await;
    assert_eq!(named(&stage, a).as_deref(), Some(a.as_str()));
    assert_eq!(named(&stage, b).as_deref(), Some("newer"));
    assert_eq!(named(&stage, ghost), None);
    let asked = stage.state.to_republish(&"acme".into(), 9).await.unwrap();
    assert!(asked.is_empty(), "what is read again asks for nothing");
    {
        let inner = stage.target.lock();
        let readers = inner.offsets.keys().map(|(reader, _)| &*reader.reader);
        let readers: Set<&str> = readers.collect();
        assert_eq!(readers, Set::from(["live"]), "its offsets go with it");
        assert!(inner.commits.len() > live && inner.unmet.is_empty());
    }
    let stands = order(&stage).await;
    assert!(!stands.paused);
    // The stream goes on where it was.
    stage.publish(&[change(a, 7, "on")]).await;
    stage.settled().await;
    assert_eq!(named(&stage, a).as_deref(), Some("on"));
    running.end().await;
    let wanted = crate::state::runs::RunsWanted {
        limit: 9,
        ..Default::default()
    };
    let runs = crate::state::runs::Runs::runs(&*stage.state, wanted).await;
    let runs = runs.unwrap();
    let id = stands.replay.unwrap().id;
    let run = runs.iter().find(|run| run.head.id == id).unwrap();
    let count = |outcome: &str| run.done.counts.get(outcome).copied();
    assert_eq!(
        (count("updated"), count("stale"), count("deleted")),
        (Some(1), Some(1), Some(1)),
        "a run of its own: {run:?}"
    );
    let state = run.state(stage.road.clock.now());
    assert_eq!(state.label(), "success");
}

#[tokio::test(start_paused = true)]
async fn a_sweep_spares_what_came_or_moved_since_the_replay_began() {
    let [a, moved, comes] = &ids(3, 3)[..] else {
        panic!()
    };
    let (stage, running) = filled(&[std::slice::from_ref(a)]).await;
    holds(&stage, moved, 2, "before");
    let live = {
        let mut inner = stage.target.lock();
        inner.holds = true;
        inner.held
    };
    ask(&stage, Since::Start).await;
    let read = |inner: &Inner| inner.held > live;
    stage.target.until("a batch read again", read).await;
    let events = [change(moved, 8, "after"), change(comes, 1, "new")];
    stage.publish(&events).await;
    stage.target.let_go();
    done(&stage).await;
    stage
        .target
        .until("what came meanwhile", |inner| {
            name(inner, moved).as_deref() == Some("after")
        })
        .await;
    assert_eq!(named(&stage, comes).as_deref(), Some("new"));
    assert_eq!(stage.outcome("deleted"), 0, "nobody left");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_kill_in_the_middle_goes_on_from_the_offsets_of_the_replay() {
    let (first, second) = (ids(0, 3), ids(5, 3));
    let ghost = &ids(3, 1)[0];
    let (stage, running) = filled(&[&first, &second]).await;
    for id in first.iter().chain(&second) {
        holds(&stage, id, 5, "old");
    }
    holds(&stage, ghost, 2, "ghost");
    {
        // The second partition waits, and its process ends there.
        let mut inner = stage.target.lock();
        inner.script.push_back(Scripted::Heard);
        inner.script.push_back(Scripted::Heard);
        let away = Scripted::Fault(FaultKind::Unavailable);
        inner.script.push_back(away);
    }
    ask(&stage, Since::Start).await;
    let passed = |inner: &Inner| {
        let mut replay = inner.offsets.iter();
        replay.any(|((reader, _), (next, _))| reader.reader != "live" && *next > 0)
    };
    stage.target.until("a partition read again", passed).await;
    running.task.abort();
    running.task.await.unwrap_err();
    let before = stage.target.lock().offered.len();
    assert!(order(&stage).await.replay.unwrap().is_under_way());
    assert_eq!(named(&stage, ghost).as_deref(), Some("ghost"));
    let running = start(&stage);
    done(&stage).await;
    for id in first.iter().chain(&second) {
        assert_eq!(named(&stage, id).as_deref(), Some(id.as_str()));
    }
    assert_eq!(named(&stage, ghost), None);
    let again: usize = {
        let inner = stage.target.lock();
        inner.offered[before..].iter().map(|rows| rows.len()).sum()
    };
    assert!(again <= 3 + 1, "what was read is not read again: {again}");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_brake_stops_a_sweep_and_a_yes_lets_all_of_it_pass() {
    let all = ids(3, 400);
    let ghosts = &ids(4, 100);
    let (stage, running) = filled(&[&all]).await;
    running.end().await;
    for ghost in ghosts {
        holds(&stage, ghost, 2, "ghost");
    }
    let stage = Stage {
        road: JobRoad {
            brakes: Brakes {
                max_delete_percent: 10,
                min_rows: 20,
                ..Brakes::OFF
            },
            ..stage.road
        },
        ..stage
    };
    // A yes to an earlier batch of the stream says nothing of what is read again.
    let generation = {
        let inner = stage.target.lock();
        let mut readers = inner.offsets.keys();
        readers.next().unwrap().0.generation.clone()
    };
    give(&stage, |order| {
        let seen = crate::state::orders::Seen {
            generation: generation.clone(),
            ends: (0..8).map(|partition| (partition, 400)).collect(),
            ..Default::default()
        };
        Order {
            accepted: Some(seen),
            ..order
        }
    })
    .await;
    ask(&stage, Since::Start).await;
    let running = start(&stage);
    let paused = async {
        while !order(&stage).await.paused {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_hours(4), paused).await;
    waited.expect("a brake stops the job");
    let stands = order(&stage).await;
    let reason = stands.reason.unwrap();
    assert!(
        reason.contains("would delete or mark 100 of 500 rows"),
        "{reason}"
    );
    assert!(stands.replay.unwrap().is_under_way());
    let there = || {
        let inner = stage.target.lock();
        ghosts
            .iter()
            .filter(|id| name(&inner, id).is_some())
            .count()
    };
    assert_eq!(there(), 100, "nothing of it is written");
    give(&stage, |order| Order {
        paused: false,
        accepted: order.braked,
        braked: None,
        ..order
    })
    .await;
    done(&stage).await;
    assert_eq!(there(), 0);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_does_not_tell_all_sweeps_nobody_and_the_stream_goes_on() {
    let [a, ghost] = &ids(3, 2)[..] else { panic!() };
    let stage = stage().await;
    let running = start(&stage);
    stage.publish(&[change(a, 5, "a")]).await;
    stage.settled().await;
    holds(&stage, ghost, 2, "ghost");
    ask(&stage, Since::Start).await;
    let reason = failed(&stage).await;
    assert!(reason.contains("first full sync is not done"), "{reason}");
    // Made again, and not read anew yet.
    synced(&stage).await;
    let now = stage.road.clock.now();
    let hole = NewHole {
        object: "Account".into(),
        cause: HoleCause::TopicRecreated,
        scope: HoleScope::Object { to: now },
        opened_at: now,
    };
    let progress = Progress {
        open: vec![hole],
        ..Progress::default()
    };
    let term = stage.term().await;
    let (acme, _) = names();
    let opened = stage.state.commit(&acme, term, progress);
    opened.await.unwrap();
    ask(&stage, Since::Start).await;
    let reason = failed(&stage).await;
    assert!(reason.contains("made again"), "{reason}");
    // What begins later needs no such thing.
    holds(&stage, a, 5, "old");
    ask(&stage, Since::Offset(0)).await;
    done(&stage).await;
    assert_eq!(named(&stage, a).as_deref(), Some("a"));
    assert_eq!(named(&stage, ghost).as_deref(), Some("ghost"));
    stage.publish(&[change(a, 6, "on")]).await;
    stage.settled().await;
    assert_eq!(named(&stage, a).as_deref(), Some("on"));
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_later_beginning_reads_what_lies_behind_it_and_sweeps_nobody() {
    let [a, b, ghost] = &ids(3, 3)[..] else {
        panic!()
    };
    let (stage, running) = filled(&[&[a.clone(), b.clone()]]).await;
    for id in [a, b] {
        holds(&stage, id, 5, "old");
    }
    holds(&stage, ghost, 2, "ghost");
    ask(&stage, Since::Offset(1)).await;
    done(&stage).await;
    assert_eq!(named(&stage, a).as_deref(), Some("old"));
    assert_eq!(named(&stage, b).as_deref(), Some(b.as_str()));
    assert_eq!(named(&stage, ghost).as_deref(), Some("ghost"));
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_is_stopped_sweeps_nobody() {
    let [a, ghost] = &ids(3, 2)[..] else { panic!() };
    let (stage, running) = filled(&[std::slice::from_ref(a)]).await;
    holds(&stage, ghost, 2, "ghost");
    let live = {
        let mut inner = stage.target.lock();
        inner.holds = true;
        inner.held
    };
    ask(&stage, Since::Start).await;
    let read = |inner: &Inner| inner.held > live;
    stage.target.until("a batch read again", read).await;
    let at = stage.road.clock.now();
    give(&stage, |mut order| {
        if let Some(replay) = &mut order.replay {
            let reason = "stopped".to_owned();
            replay.stage = ReplayStage::Failed { at, reason };
        }
        order
    })
    .await;
    stage.target.let_go();
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(named(&stage, ghost).as_deref(), Some("ghost"));
    assert_eq!(failed(&stage).await, "stopped");
    running.end().await;
}

/// Each daemon reads the partitions that it has, and one of them sweeps once all are read.
#[tokio::test(start_paused = true)]
async fn two_daemons_share_a_replay() {
    let all: Vec<Vec<RecordId>> = (0..8).map(|partition| ids(partition, 3)).collect();
    let ghost = &ids(3, 4)[3];
    let slices: Vec<&[RecordId]> = all.iter().map(Vec::as_slice).collect();
    let (stage, first) = filled(&slices).await;
    let road = JobRoad {
        board: Arc::new(Board::default()),
        ..stage.road.clone()
    };
    let stop = StopSignal::new();
    let task = tokio::spawn(keep(road.clone(), stop.clone()));
    let second = Running { stop, task };
    let shared = |inner: &Inner| inner.offsets.values().any(|(_, epoch)| *epoch > 1);
    stage.target.until("partitions that move", shared).await;
    for id in all.iter().flatten() {
        holds(&stage, id, 5, "old");
    }
    holds(&stage, ghost, 2, "ghost");
    ask(&stage, Since::Start).await;
    done(&stage).await;
    for id in all.iter().flatten() {
        assert_eq!(named(&stage, id).as_deref(), Some(id.as_str()));
    }
    assert_eq!(named(&stage, ghost), None);
    let rows = |road: &JobRoad| {
        let (acme, job) = names();
        let picture = road.board.job_picture(&acme, &job).unwrap();
        picture.rows.get("updated").copied().unwrap_or(0)
    };
    assert_eq!(rows(&stage.road) + rows(&road), 24, "each is read once");
    assert!(rows(&stage.road) > 0 && rows(&road) > 0);
    first.end().await;
    second.end().await;
}
