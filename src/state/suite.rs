//! The conformance suite of the state, run on every engine.

use chrono::{DateTime, TimeDelta, TimeZone, Utc};

use crate::fault::FaultKind;
use crate::model::name::{ConnectionId, ObjectName};
use crate::model::position::Position;
use crate::model::record_id::RecordId;
use crate::state::memory::MemoryState;
use crate::state::port::{
    Evidence, Fence, HoleCause, HoleScope, HoleState, NewHole, ObjectState, Owed, Progress,
    Settled, SnapshotProgress, State, StoredPosition,
};
use crate::state::sqlite::SqliteState;

fn at(second: i64) -> DateTime<Utc> {
    Utc.timestamp_opt(1_700_000_000 + second, 0).unwrap()
}

fn acme() -> ConnectionId {
    ConnectionId::new("acme")
}

fn account() -> ObjectName {
    ObjectName::new("Account")
}

fn owed(record: &str, second: i64) -> Owed {
    Owed {
        object: account(),
        record: RecordId::stored(record),
        stamp: at(second),
    }
}

fn settled(record: &str, second: i64) -> Settled {
    Settled {
        object: account(),
        record: RecordId::stored(record),
        stamp: at(second),
    }
}

async fn take_over(state: &dyn State, owner: &str, second: i64) -> Option<u64> {
    state
        .acquire(&acme(), owner, at(second), at(second + 30))
        .await
        .unwrap()
}

async fn one_owner(state: &dyn State) -> u64 {
    let first = take_over(state, "one", 0).await.unwrap();
    assert_eq!(
        first,
        at(0).timestamp().cast_unsigned(),
        "a term is never below the clock"
    );
    assert_eq!(take_over(state, "two", 29).await, None);
    let again = take_over(state, "one", 1).await.unwrap();
    assert!(again > first);
    let second = take_over(state, "two", 31).await.unwrap();
    assert!(second > again);
    let zombie = state
        .commit(&acme(), again, Progress::default())
        .await
        .unwrap_err();
    assert_eq!(zombie.kind(), FaultKind::Fenced);
    assert_eq!(
        state
            .renew(&acme(), again, at(99))
            .await
            .unwrap_err()
            .kind(),
        FaultKind::Fenced
    );
    state.release(&acme(), second).await.unwrap();
    take_over(state, "three", 32).await.unwrap()
}

async fn positions_and_debts(state: &dyn State, term: u64) {
    assert_eq!(state.position(&acme()).await.unwrap(), None);
    let position = StoredPosition {
        position: Some(Position::new("p:1")),
        confirmed_at: at(5),
    };
    let progress = Progress {
        position: Some(position.clone()),
        owe: vec![owed("b", 7), owed("a", 5), owed("a", 6)],
        ..Progress::default()
    };
    state.commit(&acme(), term, progress).await.unwrap();
    assert_eq!(state.position(&acme()).await.unwrap(), Some(position));
    let debts = state.owed(&acme(), &account(), 10).await.unwrap();
    assert_eq!(debts, vec![owed("a", 6), owed("b", 7)]);
    assert_eq!(state.owed(&acme(), &account(), 1).await.unwrap().len(), 1);
    assert_eq!(
        state.owed_counts(&acme()).await.unwrap(),
        vec![(account(), 2)]
    );

    // A read settles what it answers; a newer debt stays, and one of the same step outlives it.
    let progress = Progress {
        settle: vec![settled("a", 6), settled("b", 6)],
        owe: vec![owed("c", 9)],
        ..Progress::default()
    };
    state.commit(&acme(), term, progress).await.unwrap();
    let debts = state.owed(&acme(), &account(), 10).await.unwrap();
    assert_eq!(debts, vec![owed("b", 7), owed("c", 9)]);

    // A refused commit leaves nothing.
    let progress = Progress {
        owe: vec![owed("d", 1)],
        ..Progress::default()
    };
    state.commit(&acme(), term - 1, progress).await.unwrap_err();
    assert_eq!(
        state.owed_counts(&acme()).await.unwrap(),
        vec![(account(), 2)]
    );
}

async fn holes(state: &dyn State, term: u64) {
    let hole = NewHole {
        object: account(),
        cause: HoleCause::ExpiredPosition,
        scope: HoleScope::Window {
            from: at(1),
            to: at(50),
        },
        opened_at: at(51),
    };
    for _ in 0..2 {
        let progress = Progress {
            open: vec![hole.clone()],
            ..Progress::default()
        };
        state.commit(&acme(), term, progress).await.unwrap();
    }
    let open = state.holes(Some(&acme()), false).await.unwrap();
    assert_eq!(open.len(), 1, "an equal hole is not opened twice");
    assert_eq!(open[0].state, HoleState::Open);
    state.repairing(&acme(), term, open[0].id).await.unwrap();
    let evidence = |second| Evidence {
        as_of: at(second),
        rows: 3,
        deleted: 1,
    };
    let early = state
        .close_hole(&acme(), term, open[0].id, evidence(50), at(60))
        .await;
    assert_eq!(early.unwrap_err().kind(), FaultKind::Corrupt);
    state
        .close_hole(&acme(), term, open[0].id, evidence(51), at(60))
        .await
        .unwrap();
    assert!(state.holes(None, false).await.unwrap().is_empty());
    let all = state.holes(None, true).await.unwrap();
    assert_eq!(
        (all[0].state, all[0].evidence.clone()),
        (HoleState::Closed, Some(evidence(51)))
    );
    assert_eq!(
        state
            .repairing(&acme(), term, 999)
            .await
            .unwrap_err()
            .kind(),
        FaultKind::Missing
    );
}

async fn objects_and_requests(state: &dyn State, term: u64) {
    assert_eq!(
        state.object(&acme(), &account()).await.unwrap(),
        ObjectState::default()
    );
    let known = ObjectState {
        fields: vec!["Id".into(), "Name".into()],
        covered: Some(at(3)),
        snapshot: Some(SnapshotProgress {
            resume: Some("x".into()),
            fields: vec!["Id".into()],
            as_of: Some(at(1)),
            rows: 7,
            started_at: at(2),
        }),
        synced_at: None,
        fence: Some(Fence {
            term: 7,
            ends: [(0, 3), (5, 1)].into(),
        }),
        topic_since: Some(6),
    };
    state
        .put_object(&acme(), term, &account(), known.clone())
        .await
        .unwrap();
    assert_eq!(state.object(&acme(), &account()).await.unwrap(), known);
    let other = ObjectName::new("Contact");
    assert_eq!(
        state.object(&acme(), &other).await.unwrap(),
        ObjectState::default()
    );
    assert_eq!(
        state.objects(&acme()).await.unwrap(),
        vec![(account(), known)]
    );

    let record = RecordId::stored("a");
    for _ in 0..2 {
        state
            .request_republish(&acme(), &account(), &record)
            .await
            .unwrap();
    }
    // Asked again until a commit says that it was met.
    for _ in 0..2 {
        assert_eq!(
            state.to_republish(&acme(), 10).await.unwrap(),
            vec![(account(), record.clone())]
        );
    }
    let met = Progress {
        republished: vec![(account(), record)],
        ..Progress::default()
    };
    state.commit(&acme(), term, met).await.unwrap();
    assert!(state.to_republish(&acme(), 10).await.unwrap().is_empty());
}

async fn conforms(state: &dyn State) {
    let term = one_owner(state).await;
    positions_and_debts(state, term).await;
    holes(state, term).await;
    objects_and_requests(state, term).await;
}

#[tokio::test]
async fn memory_conforms() {
    conforms(&MemoryState::default()).await;
}

#[tokio::test]
async fn sqlite_conforms_and_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let state = SqliteState::open(dir.path()).await.unwrap();
    conforms(&state).await;
    state.close().await.unwrap();
    drop(state);
    let state = SqliteState::open(dir.path()).await.unwrap();
    let stored = state.position(&acme()).await.unwrap().unwrap();
    assert_eq!(stored.confirmed_at + TimeDelta::zero(), at(5));
    assert_eq!(
        state.owed_counts(&acme()).await.unwrap(),
        vec![(account(), 2)]
    );
}
