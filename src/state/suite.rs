//! The conformance suite of the state, run on every engine.

mod credentials;
mod descriptions;
mod notices;
mod orders;
mod runs;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, TimeZone, Utc};

use crate::fault::FaultKind;
use crate::model::name::{ConnectionId, ObjectName};
use crate::model::position::Position;
use crate::model::record_id::RecordId;
use crate::state::credentials::Credentials;
use crate::state::memory::MemoryState;
use crate::state::notices::Notices;
use crate::state::port::{
    Evidence, Fence, Hinted, HoleCause, HoleScope, HoleState, NewHole, ObjectState, Owed, Progress,
    Settled, SnapshotProgress, State, StoredPosition,
};
use crate::state::runs::{RunCause, RunHead};
use crate::state::sqlite::SqliteState;

/// A store of state to be tried, and the clock that its leases are judged by.
#[async_trait]
pub trait Bench: Send + Sync {
    /// The engine.
    fn state(&self) -> Arc<dyn State>;

    /// Its port of credentials.
    fn credentials(&self) -> Arc<dyn Credentials>;

    /// Its port of notices.
    fn notices(&self) -> Arc<dyn Notices>;

    /// An engine on the same store, as another daemon has it; the same one, where only one process may.
    async fn another(&self) -> Arc<dyn State> {
        self.state()
    }

    /// What the clock shows.
    async fn now(&self) -> DateTime<Utc>;

    /// So many seconds go by.
    async fn pass(&self, seconds: i64);
}

/// An engine whose callers say what time it is.
struct Told<S> {
    state: Arc<S>,
    second: AtomicI64,
}

impl<S> Told<S> {
    fn new(state: S) -> Self {
        Self {
            state: Arc::new(state),
            second: AtomicI64::new(0),
        }
    }
}

#[async_trait]
impl<S: State + Credentials + Notices + 'static> Bench for Told<S> {
    fn state(&self) -> Arc<dyn State> {
        Arc::clone(&self.state) as _
    }

    fn credentials(&self) -> Arc<dyn Credentials> {
        Arc::clone(&self.state) as _
    }

    fn notices(&self) -> Arc<dyn Notices> {
        Arc::clone(&self.state) as _
    }

    async fn now(&self) -> DateTime<Utc> {
        at(self.second.load(Ordering::SeqCst))
    }

    async fn pass(&self, seconds: i64) {
        self.second.fetch_add(seconds, Ordering::SeqCst);
    }
}

pub fn at(second: i64) -> DateTime<Utc> {
    Utc.timestamp_opt(1_700_000_000 + second, 0).unwrap()
}

pub fn acme() -> &'static ConnectionId {
    static ACME: LazyLock<ConnectionId> = LazyLock::new(|| ConnectionId::new("acme"));
    &ACME
}

pub fn account() -> ObjectName {
    ObjectName::new("Account")
}

pub fn owed(record: &str, second: i64) -> Owed {
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

pub const LEASE: Duration = Duration::from_secs(30);

async fn take_over(bench: &dyn Bench, state: &dyn State, owner: &str) -> Option<u64> {
    let now = bench.now().await;
    state.acquire(acme(), owner, now, LEASE).await.unwrap()
}

async fn one_owner(bench: &dyn Bench) -> u64 {
    let state = &*bench.state();
    let before = bench.now().await.timestamp().cast_unsigned();
    let first = take_over(bench, state, "one").await.unwrap();
    let after = bench.now().await.timestamp().cast_unsigned();
    assert!(
        (before..=after).contains(&first),
        "a term is never below the clock"
    );
    bench.pass(25).await;
    assert_eq!(take_over(bench, state, "two").await, None);
    let again = take_over(bench, state, "one").await.unwrap();
    assert!(again > first);
    bench.pass(25).await;
    let renewed = state.renew(acme(), again, bench.now().await, LEASE);
    renewed.await.unwrap();
    bench.pass(25).await;
    assert_eq!(take_over(bench, state, "two").await, None);
    bench.pass(6).await;
    let second = take_over(bench, state, "two").await.unwrap();
    assert!(second > again);
    let zombie = state
        .commit(acme(), again, Progress::default())
        .await
        .unwrap_err();
    assert_eq!(zombie.kind(), FaultKind::Fenced);
    state.release(acme(), second).await.unwrap();
    take_over(bench, state, "three").await.unwrap()
}

/// Two ask at the same moment: one of them owns it, and whoever does not writes nothing by any term.
async fn two_owners_at_once(bench: &dyn Bench) {
    let (one, other) = (bench.state(), bench.another().await);
    let now = bench.now().await;
    for round in 0..20 {
        let contested = ConnectionId::new(format!("contested{round}"));
        let (first, second) = tokio::join!(
            one.acquire(&contested, "one", now, LEASE),
            other.acquire(&contested, "other", now, LEASE)
        );
        let (first, second) = (first.unwrap(), second.unwrap());
        assert!(
            first.is_some() != second.is_some(),
            "{first:?} and {second:?}"
        );
        let (term, loser) = match first {
            Some(term) => (term, &other),
            None => (second.unwrap(), &one),
        };
        for guess in [term - 1, term + 1, 0] {
            writes_nothing(&**loser, &contested, guess).await;
        }
    }
}

/// A lease that ran out is taken over by another engine; the first one's writes change nothing from then on.
async fn a_takeover(bench: &dyn Bench) {
    let (one, other) = (bench.state(), bench.another().await);
    let connection = ConnectionId::new("handed");
    let acquire = async |state: &Arc<dyn State>, owner| {
        let now = bench.now().await;
        state.acquire(&connection, owner, now, LEASE).await.unwrap()
    };
    let term = acquire(&one, "one").await.unwrap();
    let progress = Progress {
        owe: vec![owed("a", 1)],
        ..Progress::default()
    };
    one.commit(&connection, term, progress).await.unwrap();
    assert_eq!(acquire(&other, "other").await, None);
    bench.pass(31).await;
    // It ran out, and nobody wanted it: it goes on.
    one.renew(&connection, term, bench.now().await, LEASE)
        .await
        .unwrap();
    assert_eq!(acquire(&other, "other").await, None);
    bench.pass(31).await;
    let next = acquire(&other, "other").await.unwrap();
    assert!(next > term);
    writes_nothing(&*one, &connection, term).await;
    assert_eq!(acquire(&one, "one").await, None);
    let debts = other.owed(&connection, &account(), 10).await.unwrap();
    assert_eq!(debts, vec![owed("a", 1)]);
    // Given up, it is free at once, and each owner's term is higher than the one before.
    other.release(&connection, next).await.unwrap();
    let back = acquire(&one, "one").await.unwrap();
    assert!(back > next);
    writes_nothing(&*other, &connection, next).await;
}

/// Every write of an owner under a term that is not stored is refused and leaves nothing.
async fn writes_nothing(state: &dyn State, connection: &ConnectionId, term: u64) {
    let before = picture(state, connection).await;
    let evidence = Evidence {
        as_of: at(1_000),
        rows: 0,
        deleted: 0,
    };
    let progress = Progress {
        position: Some(StoredPosition {
            position: Some(Position::new("zombie")),
            confirmed_at: at(7),
        }),
        owe: vec![owed("zombie", 1)],
        settle: vec![settled("a", 1_000)],
        open: vec![hole(3)],
        ..Progress::default()
    };
    let name = account();
    let outcomes = [
        state.renew(connection, term, at(0), LEASE).await,
        state.release(connection, term).await,
        state.commit(connection, term, progress).await,
        state.repairing(connection, term, 1).await,
        state
            .close_hole(connection, term, 1, evidence, at(1_000))
            .await,
        state
            .put_object(
                connection,
                term,
                &name,
                ObjectState {
                    topic_since: Some(1),
                    ..ObjectState::default()
                },
            )
            .await,
    ];
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let kind = outcome.unwrap_err().kind();
        assert_eq!(kind, FaultKind::Fenced, "write {number}");
    }
    assert_eq!(picture(state, connection).await, before);
}

async fn picture(state: &dyn State, connection: &ConnectionId) -> String {
    format!(
        "{:?} {:?} {:?} {:?}",
        state.position(connection).await.unwrap(),
        state.owed(connection, &account(), 100).await.unwrap(),
        state.holes(None, true).await.unwrap(),
        state.objects(connection).await.unwrap(),
    )
}

/// A write whose reply was lost is made again by its owner, and changes nothing.
async fn made_again(state: &dyn State, term: u64) {
    let step = Progress {
        position: Some(StoredPosition {
            position: Some(Position::new("p:9")),
            confirmed_at: at(9),
        }),
        owe: vec![owed("again", 5)],
        open: vec![hole(70)],
        ..Progress::default()
    };
    state.commit(acme(), term, step.clone()).await.unwrap();
    let once = picture(state, acme()).await;
    state.commit(acme(), term, step).await.unwrap();
    assert_eq!(picture(state, acme()).await, once);
    let id = state.holes(Some(acme()), false).await.unwrap()[0].id;
    let evidence = Evidence {
        as_of: at(71),
        rows: 1,
        deleted: 0,
    };
    for _ in 0..2 {
        let closed = state.close_hole(acme(), term, id, evidence.clone(), at(80));
        closed.await.unwrap();
    }
    let settle = Progress {
        settle: vec![settled("again", 5)],
        ..Progress::default()
    };
    for _ in 0..2 {
        state.commit(acme(), term, settle.clone()).await.unwrap();
    }
    let debts = state.owed(acme(), &account(), 10).await.unwrap();
    assert!(!debts.contains(&owed("again", 5)));
}

fn hole(second: i64) -> NewHole {
    NewHole {
        object: account(),
        cause: HoleCause::Overflow,
        scope: HoleScope::Object { to: at(second) },
        opened_at: at(second),
    }
}

async fn positions_and_debts(state: &dyn State, term: u64) {
    assert_eq!(state.position(acme()).await.unwrap(), None);
    let position = StoredPosition {
        position: Some(Position::new("p:1")),
        confirmed_at: at(5),
    };
    let progress = Progress {
        position: Some(position.clone()),
        owe: vec![owed("b", 7), owed("a", 5), owed("a", 6)],
        ..Progress::default()
    };
    state.commit(acme(), term, progress).await.unwrap();
    assert_eq!(state.position(acme()).await.unwrap(), Some(position));
    let debts = state.owed(acme(), &account(), 10).await.unwrap();
    assert_eq!(debts, vec![owed("a", 6), owed("b", 7)]);
    assert_eq!(state.owed(acme(), &account(), 1).await.unwrap().len(), 1);
    assert_eq!(
        state.owed_counts(acme()).await.unwrap(),
        vec![(account(), 2)]
    );

    // A read settles what it answers; a newer debt stays, and one of the same step outlives it.
    let progress = Progress {
        settle: vec![settled("a", 6), settled("b", 6)],
        owe: vec![owed("c", 9)],
        ..Progress::default()
    };
    state.commit(acme(), term, progress).await.unwrap();
    let debts = state.owed(acme(), &account(), 10).await.unwrap();
    assert_eq!(debts, vec![owed("b", 7), owed("c", 9)]);

    // A refused commit leaves nothing.
    let progress = Progress {
        owe: vec![owed("d", 1)],
        ..Progress::default()
    };
    state.commit(acme(), term - 1, progress).await.unwrap_err();
    assert_eq!(
        state.owed_counts(acme()).await.unwrap(),
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
        state.commit(acme(), term, progress).await.unwrap();
    }
    let open = state.holes(Some(acme()), false).await.unwrap();
    assert_eq!(open.len(), 1, "an equal hole is not opened twice");
    assert_eq!(open[0].state, HoleState::Open);
    state.repairing(acme(), term, open[0].id).await.unwrap();
    let evidence = |second| Evidence {
        as_of: at(second),
        rows: 3,
        deleted: 1,
    };
    let early = state
        .close_hole(acme(), term, open[0].id, evidence(50), at(60))
        .await;
    assert_eq!(early.unwrap_err().kind(), FaultKind::Corrupt);
    state
        .close_hole(acme(), term, open[0].id, evidence(51), at(60))
        .await
        .unwrap();
    assert!(state.holes(None, false).await.unwrap().is_empty());
    let all = state.holes(None, true).await.unwrap();
    assert_eq!(
        (all[0].state, all[0].evidence.clone()),
        (HoleState::Closed, Some(evidence(51)))
    );
    assert_eq!(
        state.repairing(acme(), term, 999).await.unwrap_err().kind(),
        FaultKind::Missing
    );
}

async fn objects_and_requests(state: &dyn State, term: u64) {
    assert_eq!(
        state.object(acme(), &account()).await.unwrap(),
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
        run: Some(RunHead::sync(RunCause::First, None, [(1, 4)].into(), at(2))),
        fence: Some(Fence {
            term: 7,
            ends: [(0, 3), (5, 1)].into(),
        }),
        topic_since: Some(6),
        topic: Some("g".into()),
        sampled: Some(2),
        lost: vec!["Industry".into()],
        probed: Some(at(4)),
        editions: [("Rating@label".into(), "e1".into())].into(),
    };
    state
        .put_object(acme(), term, &account(), known.clone())
        .await
        .unwrap();
    assert_eq!(state.object(acme(), &account()).await.unwrap(), known);
    let other = ObjectName::new("Contact");
    assert_eq!(
        state.object(acme(), &other).await.unwrap(),
        ObjectState::default()
    );
    assert_eq!(
        state.objects(acme()).await.unwrap(),
        vec![(account(), known)]
    );

    let record = RecordId::stored("a");
    for _ in 0..2 {
        state
            .request_republish(acme(), &account(), &record)
            .await
            .unwrap();
    }
    // Asked again until a commit says that it was met.
    for _ in 0..2 {
        assert_eq!(
            state.to_republish(acme(), 10).await.unwrap(),
            vec![(account(), record.clone())]
        );
    }
    let met = Progress {
        republished: vec![(account(), record)],
        ..Progress::default()
    };
    state.commit(acme(), term, met).await.unwrap();
    assert!(state.to_republish(acme(), 10).await.unwrap().is_empty());
}

fn hinted(record: &str, second: i64) -> Hinted {
    Hinted {
        object: account(),
        record: RecordId::stored(record),
        at: at(second),
    }
}

async fn hints(state: &dyn State, term: u64) {
    let told = vec![hinted("b", 5), hinted("a", 7), hinted("b", 4)];
    state.hint(acme(), told).await.unwrap();
    let seen = state.hints(acme(), 10).await.unwrap();
    let order: Vec<&str> = seen.iter().map(|hint| hint.record.as_str()).collect();
    assert_eq!(order, ["b", "a"], "one a record, oldest first");
    assert_eq!(seen[1], hinted("a", 7));
    assert_eq!(state.hints(acme(), 1).await.unwrap(), seen[..1]);
    let other = ConnectionId::new("other");
    assert!(state.hints(&other, 10).await.unwrap().is_empty());

    // Told again meanwhile, by a clock that was set back: what was taken before does not meet it.
    state.hint(acme(), vec![hinted("a", 1)]).await.unwrap();
    let met = Progress {
        met: seen,
        ..Progress::default()
    };
    state.commit(acme(), term, met).await.unwrap();
    let left = state.hints(acme(), 10).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].record.as_str(), "a");
    assert!(left[0].at > at(7));
    let met = Progress {
        met: left,
        ..Progress::default()
    };
    let late = state.commit(acme(), term - 1, met.clone()).await;
    assert_eq!(late.unwrap_err().kind(), FaultKind::Fenced);
    state.commit(acme(), term, met).await.unwrap();
    assert!(state.hints(acme(), 10).await.unwrap().is_empty());
    state.hint(acme(), vec![hinted("kept", 9)]).await.unwrap();
}

/// Everything that the port promises.
pub async fn conforms(bench: &dyn Bench) {
    let term = one_owner(bench).await;
    let state = &*bench.state();
    positions_and_debts(state, term).await;
    holes(state, term).await;
    objects_and_requests(state, term).await;
    hints(state, term).await;
    made_again(state, term).await;
    two_owners_at_once(bench).await;
    a_takeover(bench).await;
    orders::conforms(state, &*bench.another().await).await;
    descriptions::conforms(state, &*bench.another().await).await;
    runs::conforms(state, &*bench.another().await).await;
    let (one, other) = (bench.credentials(), bench.credentials());
    credentials::conforms(&*one, &*other).await;
    notices::conforms(&*bench.notices(), &*bench.notices()).await;
}

/// What [`conforms`] leaves is there when the store is opened again.
pub async fn has_kept<S: State + Credentials + Notices>(state: &S) {
    notices::has_kept(state).await;
    credentials::has_kept(state).await;
    orders::has_kept(state).await;
    let described = state.described(acme()).await.unwrap();
    assert_eq!(described.len(), 2);
    assert_eq!(state.refresh_asked(acme()).await.unwrap(), Some(at(7)));
    runs::has_kept(state).await;
    let stored = state.position(acme()).await.unwrap().unwrap();
    assert_eq!(stored.confirmed_at + TimeDelta::zero(), at(9));
    assert_eq!(
        state.owed_counts(acme()).await.unwrap(),
        vec![(account(), 2)]
    );
    assert_eq!(state.holes(Some(acme()), true).await.unwrap().len(), 2);
    assert_eq!(
        state.hints(acme(), 10).await.unwrap(),
        vec![hinted("kept", 9)]
    );
}

#[tokio::test]
async fn memory_conforms() {
    conforms(&Told::new(MemoryState::default())).await;
}

#[tokio::test]
async fn sqlite_conforms_and_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Told::new(SqliteState::open(dir.path()).await.unwrap());
    conforms(&bench).await;
    bench.state.close().await.unwrap();
    drop(bench);
    let state = SqliteState::open(dir.path()).await.unwrap();
    has_kept(&state).await;
}
