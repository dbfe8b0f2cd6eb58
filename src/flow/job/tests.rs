//! The job engine against a scripted target: order, letters, refusals, faults, fencing, parking, lost positions.

mod brakes;
mod fake;
mod orders;
mod positions;
mod replays;
mod runs;
mod stage;
mod waiting;

use std::collections::HashSet as Set;

use bytes::Bytes;

use super::*;
use crate::log::port::{Entry, MAX_ENTRY_BYTES};
use crate::mapping::plan::Cell;
use crate::model::change::Op;
use crate::model::record_id::RecordId;
use crate::model::value::Value;
use crate::model::version::Version;

use fake::{Commit, DEAD, Inner, Scripted, TOPIC};
use stage::{Stage, begin, change, ids, stage, stage_before_ingest};

/// Runs the job beside the test, and stops it at the end.
struct Running {
    stop: StopSignal,
    task: tokio::task::JoinHandle<()>,
}

fn start(stage: &Stage) -> Running {
    let stop = StopSignal::new();
    let task = tokio::spawn(keep(stage.road.clone(), stop.clone()));
    Running { stop, task }
}

impl Running {
    async fn end(self) {
        self.stop.stop();
        let ended = tokio::time::timeout(Duration::from_secs(5), self.task).await;
        ended.expect("the job stops").unwrap();
    }
}

fn name(inner: &Inner, id: &RecordId) -> Option<String> {
    match inner.names.get(id)? {
        (_, Some(Cell::Text(name))) => Some(name.to_string()),
        _ => None,
    }
}

/// Commits that moved the offset, and each begins where the one before ended.
fn moves(commits: &[Commit], partition: u32) -> Vec<(u64, u64)> {
    let moves: Vec<_> = commits
        .iter()
        .filter(|commit| commit.partition == partition && commit.next != commit.expect)
        .map(|commit| (commit.expect, commit.next))
        .collect();
    assert!(
        moves.windows(2).all(|pair| pair[0].1 == pair[1].0),
        "{moves:?}"
    );
    moves
}

#[tokio::test(start_paused = true)]
async fn changes_are_folded_and_applied_in_order() {
    let stage = stage().await;
    let [a, b] = &ids(3, 2)[..] else { panic!() };
    stage
        .publish(&[
            change(a, 1, "one"),
            change(b, 1, "b"),
            change(a, 3, "three"),
            change(a, 2, "late"),
        ])
        .await;
    let running = start(&stage);
    stage.settled().await;
    {
        let inner = stage.target.lock();
        assert_eq!(
            name(&inner, a).as_deref(),
            Some("three"),
            "the highest version, not the last"
        );
        assert_eq!(moves(&inner.commits, 3), [(0, 4)]);
        assert_eq!(
            inner.commits[0].records,
            [b.clone(), a.clone()],
            "lowest offset first"
        );
        assert_eq!(inner.prepared, 1, "prepared once");
    }
    stage.publish(&[change(a, 4, "four")]).await;
    stage.settled().await;
    running.end().await;
    {
        let inner = stage.target.lock();
        assert_eq!(moves(&inner.commits, 3), [(0, 4), (4, 5)]);
        assert_eq!(name(&inner, a).as_deref(), Some("four"));
    }
    let picture = stage.picture();
    assert_eq!(picture.state, Life::Stopped);
    assert_eq!(
        (
            stage.outcome("folded"),
            stage.outcome("inserted"),
            stage.outcome("updated")
        ),
        (2, 2, 1)
    );
    assert_eq!(picture.lag_records, 0);
    assert!(
        picture.lag_seconds.is_some_and(|lag| lag >= 10.0),
        "{picture:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn equal_versions_are_applied_lower_ones_not_tombstones_passed() {
    let stage = stage().await;
    let id = &ids(0, 1)[0];
    let running = start(&stage);
    stage.publish(&[change(id, 5, "five")]).await;
    stage.settled().await;
    stage.publish(&[change(id, 5, "five again")]).await;
    stage.settled().await;
    stage.publish(&[change(id, 4, "four")]).await;
    stage.settled().await;
    let tombstone = Entry {
        topic: TOPIC.into(),
        key: Bytes::copy_from_slice(id.as_str().as_bytes()),
        value: None,
        headers: Vec::new(),
    };
    stage.log.append(vec![tombstone]).await.unwrap();
    stage.settled().await;
    running.end().await;
    {
        let inner = stage.target.lock();
        assert_eq!(name(&inner, id).as_deref(), Some("five again"));
        assert_eq!(inner.commits.last().unwrap().records, []);
    }
    assert_eq!((stage.outcome("updated"), stage.outcome("stale")), (1, 1));
    assert!(
        stage
            .state
            .to_republish(&"acme".into(), 9)
            .await
            .unwrap()
            .is_empty(),
        "same term"
    );
}

#[tokio::test(start_paused = true)]
async fn an_outranked_change_is_asked_for_before_it_is_passed() {
    let stage = stage().await;
    let [outranked, other] = &ids(0, 2)[..] else {
        panic!()
    };
    {
        let mut inner = stage.target.lock();
        let held = (Version::new(8, 1), None);
        inner.names.insert(outranked.clone(), held);
        // The first commit comes to nothing, and its process ends there.
        inner.script.push_back(Scripted::Heard);
        inner.script.push_back(Scripted::Fault(FaultKind::Config));
    }
    let changes = [
        change(outranked, 5, "of a lower term"),
        change(other, 5, "x"),
    ];
    stage.publish(&changes).await;
    let running = start(&stage);
    stage
        .target
        .until("a second call", |inner| inner.calls == 2)
        .await;
    running.end().await;
    assert!(stage.target.lock().commits.is_empty());
    let asked = async || stage.state.to_republish(&"acme".into(), 9).await.unwrap();
    let due = [("Account".into(), outranked.clone())];
    assert_eq!(asked().await, due, "asked for though nothing was committed");
    let running = start(&stage);
    stage.settled().await;
    running.end().await;
    assert_eq!(asked().await, due);
    let inner = stage.target.lock();
    assert_eq!(moves(&inner.commits, 0), [(0, 2)]);
    assert_eq!(inner.commits[0].requests, 1);
    assert_eq!(name(&inner, other).as_deref(), Some("x"));
    assert!(stage.outcome("stale") == 1 && stage.outcome("rejected") == 0);
}

/// Halves that are applied on the way to a poisonous record ask for what is outranked among them.
#[tokio::test(start_paused = true)]
async fn what_is_outranked_beside_poison_is_asked_for() {
    let stage = stage().await;
    let all = ids(0, 8);
    {
        let mut inner = stage.target.lock();
        for id in [&all[1], &all[6]] {
            let held = (Version::new(8, 1), None);
            inner.names.insert(id.clone(), held);
        }
        inner.poison.push(Set::from([all[3].clone()]));
    }
    let changes: Vec<_> = all.iter().map(|id| change(id, 1, "x")).collect();
    stage.publish(&changes).await;
    let running = start(&stage);
    stage.settled().await;
    running.end().await;
    let asked = stage.state.to_republish(&"acme".into(), 9).await.unwrap();
    let asked: Set<_> = asked.into_iter().map(|(_, record)| record).collect();
    assert_eq!(asked, Set::from([all[1].clone(), all[6].clone()]));
    let inner = stage.target.lock();
    assert_eq!(moves(&inner.commits, 0), [(0, 8)]);
    assert_eq!(inner.commits.last().unwrap().requests, 2);
}

/// A batch that is offered again is the very same: nothing is copied per attempt.
#[tokio::test(start_paused = true)]
async fn attempts_share_their_rows() {
    let stage = stage().await;
    let changes: Vec<_> = ids(0, 9).iter().map(|id| change(id, 1, "x")).collect();
    stage.publish(&changes).await;
    {
        let mut inner = stage.target.lock();
        let fault = || Scripted::Fault(FaultKind::Unavailable);
        inner.script.extend([fault(), fault()]);
    }
    let running = start(&stage);
    stage.settled().await;
    running.end().await;
    let inner = stage.target.lock();
    let [first, others @ ..] = &inner.offered[..] else {
        panic!()
    };
    assert_eq!((first.len(), others.len()), (9, 2));
    assert!(others.iter().all(|other| Arc::ptr_eq(first, other)));
}

#[tokio::test(start_paused = true)]
async fn letters_are_durable_before_the_commit_that_passes_their_records() {
    let stage = stage().await;
    let [good, uncast, rejected] = &ids(5, 3)[..] else {
        panic!()
    };
    let mut bad = change(uncast, 1, "x");
    bad.fields.insert("Employees".into(), Value::from("many"));
    let garbage = Entry {
        topic: TOPIC.into(),
        key: Bytes::copy_from_slice(good.as_str().as_bytes()),
        value: Some(Bytes::from_static(b"{\"v\":2}")),
        headers: Vec::new(),
    };
    stage
        .target
        .lock()
        .rejected
        .insert(rejected.clone(), "matches two rows".to_owned());
    stage.log.append(vec![garbage]).await.unwrap();
    stage
        .publish(&[bad, change(rejected, 1, "r"), change(good, 1, "g")])
        .await;
    let running = start(&stage);
    stage.settled().await;
    running.end().await;
    {
        let inner = stage.target.lock();
        assert_eq!(moves(&inner.commits, 5), [(0, 4)]);
        assert_eq!(inner.commits[0].records, std::slice::from_ref(good));
        assert_eq!(inner.commits[0].letters, 3);
    }
    let letters = stage.letters().await;
    let offsets: Vec<u64> = letters.iter().map(|(_, offset)| *offset).collect();
    assert_eq!(offsets, [2, 0, 1]);
    assert_eq!(letters[0].0, "Company: matches two rows");
    assert!(letters[1].0.starts_with("decoding change"), "{letters:?}");
    assert!(
        letters[2].0.contains("field `Employees` = `many`"),
        "{letters:?}"
    );
    assert_eq!(
        (stage.picture().dead_letters, stage.outcome("rejected")),
        (3, 3)
    );
}

#[tokio::test(start_paused = true)]
async fn poison_is_isolated_and_the_others_applied() {
    let stage = stage().await;
    let all = ids(1, 60);
    // Alone, beside a rejected one, and a pair that only fails together.
    let (single, rejected, pair) = (&all[41], &all[40], [&all[7], &all[50]]);
    {
        let mut inner = stage.target.lock();
        inner.poison.push(Set::from([single.clone()]));
        inner.poison.push(pair.into_iter().cloned().collect());
        inner
            .rejected
            .insert(rejected.clone(), "refused".to_owned());
    }
    let changes: Vec<_> = all.iter().map(|id| change(id, 1, id.as_str())).collect();
    stage.publish(&changes).await;
    let running = start(&stage);
    stage.settled().await;
    running.end().await;
    {
        let inner = stage.target.lock();
        let lost: Vec<_> = all
            .iter()
            .filter(|id| !inner.names.contains_key(*id))
            .collect();
        assert_eq!(
            lost,
            [rejected, single],
            "the pair passes once its halves are apart"
        );
        assert_eq!(moves(&inner.commits, 1), [(0, 60)]);
        assert_eq!(inner.commits.last().unwrap().letters, 2);
        assert!(inner.calls < 40, "{} calls", inner.calls);
    }
    assert_eq!(stage.outcome("inserted"), 58, "each counted once");
    let reasons: Vec<_> = stage
        .letters()
        .await
        .into_iter()
        .map(|(reason, _)| reason)
        .collect();
    assert_eq!(reasons, ["Company: refused", "as scripted"]);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_refuses_nothing_at_all_does_not_loop() {
    let stage = stage().await;
    stage.publish(&[change(&ids(1, 1)[0], 1, "x")]).await;
    stage.target.lock().poison.push(Set::new());
    let running = start(&stage);
    stage
        .target
        .until("some calls", |inner| inner.calls >= 6)
        .await;
    let picture = stage.picture();
    assert_eq!(picture.state, Life::Failed);
    assert_eq!(
        picture.fault.as_ref().map(|fault| fault.kind),
        Some("corrupt")
    );
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_target_that_neither_commits_nor_says_why_is_a_fault() {
    let stage = stage().await;
    let id = &ids(1, 1)[0];
    stage.publish(&[change(id, 1, "x")]).await;
    stage.target.lock().script.push_back(Scripted::Silence);
    let running = start(&stage);
    stage
        .target
        .until("a first call", |inner| inner.calls == 1)
        .await;
    tokio::task::yield_now().await;
    let picture = stage.picture();
    assert_eq!(picture.state, Life::Retrying);
    assert_eq!(
        picture.fault.as_ref().map(|fault| fault.kind),
        Some("protocol")
    );
    stage.settled().await;
    running.end().await;
    assert!(stage.letters().await.is_empty());
    assert_eq!(stage.picture().fault.map(|fault| fault.kind), None);
}

#[tokio::test(start_paused = true)]
async fn a_passing_fault_is_retried_for_ever_and_shown() {
    let stage = stage().await;
    let id = &ids(2, 1)[0];
    stage.publish(&[change(id, 1, "x")]).await;
    for kind in [
        FaultKind::Unavailable,
        FaultKind::Throttled,
        FaultKind::Storage,
    ] {
        stage.target.lock().down = Some(kind);
        let running = start(&stage);
        let calls = stage.target.lock().calls;
        stage
            .target
            .until("many attempts", |inner| inner.calls > calls + 50)
            .await;
        let picture = stage.picture();
        assert_eq!(picture.state, Life::Retrying);
        assert_eq!(picture.fault.map(|fault| fault.kind), Some(kind.label()));
        assert!(picture.committed_at.is_none());
        // The stop ends the wait.
        running.end().await;
        assert_eq!(stage.picture().state, Life::Stopped);
    }
    stage.target.lock().down = None;
    let running = start(&stage);
    stage.settled().await;
    stage
        .target
        .until("a commit", |inner| !inner.commits.is_empty())
        .await;
    running.end().await;
    assert_eq!(stage.picture().fault.map(|fault| fault.kind), None);
    assert!(stage.letters().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_does_not_pass_is_shown_as_failed_and_looked_at_again() {
    let stage = stage().await;
    stage.publish(&[change(&ids(2, 1)[0], 1, "x")]).await;
    stage.target.lock().down = Some(FaultKind::Config);
    let running = start(&stage);
    stage
        .target
        .until("a second look", |inner| inner.calls == 2)
        .await;
    assert_eq!(stage.picture().state, Life::Failed);
    stage.target.lock().down = None;
    stage.settled().await;
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_and_a_fenced_batch_are_taken_up_where_the_ledger_stands() {
    let stage = stage().await;
    let all = ids(6, 3);
    {
        let mut inner = stage.target.lock();
        inner.script.push_back(Scripted::LostReply);
    }
    stage
        .publish(&[change(&all[0], 1, "a"), change(&all[1], 1, "b")])
        .await;
    let running = start(&stage);
    stage.settled().await;
    stage
        .target
        .lock()
        .script
        .push_back(Scripted::Fault(FaultKind::Fenced));
    stage.publish(&[change(&all[2], 1, "c")]).await;
    stage.settled().await;
    running.end().await;
    {
        let inner = stage.target.lock();
        assert_eq!(moves(&inner.commits, 6), [(0, 2), (2, 3)]);
        assert!(
            inner.commits[1].epoch > inner.commits[0].epoch,
            "taken over anew"
        );
        assert_eq!(
            all.iter()
                .filter(|id| inner.names.contains_key(*id))
                .count(),
            3
        );
    }
    assert!(stage.letters().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn partitions_go_over_to_a_second_member_and_back() {
    let stage = stage().await;
    let all: Vec<RecordId> = (0..8).flat_map(|partition| ids(partition, 3)).collect();
    let round = |counter| {
        all.iter()
            .map(move |id| change(id, counter, "x"))
            .collect::<Vec<_>>()
    };
    let first = start(&stage);
    stage.publish(&round(1)).await;
    stage.settled().await;
    let second = start(&stage);
    let taken_over = |inner: &Inner| {
        inner
            .offsets
            .values()
            .filter(|(_, epoch)| *epoch == 2)
            .count()
    };
    stage
        .target
        .until("half of the partitions taken over", |inner| {
            taken_over(inner) == 4
        })
        .await;
    stage.publish(&round(2)).await;
    stage.settled().await;
    second.end().await;
    stage.publish(&round(3)).await;
    stage.settled().await;
    first.end().await;
    {
        let inner = stage.target.lock();
        for partition in 0..8 {
            moves(&inner.commits, partition);
            let epochs: Vec<u64> = inner
                .commits
                .iter()
                .filter(|commit| commit.partition == partition)
                .map(|commit| commit.epoch)
                .collect();
            assert!(epochs.is_sorted(), "{partition}: {epochs:?}");
        }
        assert!(
            inner
                .names
                .values()
                .all(|(version, _)| version.counter() == 3)
        );
    }
    assert_eq!(stage.outcome("inserted"), 24);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_take_part_passes() {
    let stage = stage().await;
    let [hidden, partial, gone] = &ids(2, 3)[..] else {
        panic!()
    };
    let mut filtered = change(hidden, 1, "x");
    filtered
        .fields
        .insert("Hidden__c".into(), Value::Bool(true));
    let mut lacking = change(partial, 1, "x");
    lacking.fields.remove("Name");
    let mut deleted = change(gone, 1, "x");
    deleted.op = Op::Delete;
    stage.publish(&[filtered, lacking, deleted]).await;
    let running = start(&stage);
    stage.settled().await;
    running.end().await;
    {
        let inner = stage.target.lock();
        assert!(!inner.names.contains_key(partial));
        assert_eq!(inner.commits[0].records, [hidden.clone(), gone.clone()]);
    }
    assert_eq!(
        (
            stage.outcome("ignored"),
            stage.outcome("not_evaluated"),
            stage.outcome("deleted")
        ),
        (1, 1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_letter_too_large_leaves_its_value_behind() {
    let stage = stage().await;
    let key = Bytes::from_static(b"key");
    let value = Bytes::from(vec![b'x'; MAX_ENTRY_BYTES - key.len()]);
    let entry = Entry {
        topic: TOPIC.into(),
        key,
        value: Some(value),
        headers: Vec::new(),
    };
    stage.log.append(vec![entry]).await.unwrap();
    let running = start(&stage);
    stage.settled().await;
    running.end().await;
    let ends = stage.log.bounds(DEAD).await.unwrap();
    assert_eq!(ends.values().map(|ends| ends.end).sum::<u64>(), 1);
    assert!(stage.letters().await[0].0.starts_with("decoding change"));
}
