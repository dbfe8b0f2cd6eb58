//! The suite on a server, and what only a server has: two daemons in one transaction's way, and replies that get lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::PostgresState;
use crate::fault::{Fate, Fault, FaultKind};
use crate::model::name::ConnectionId;
use crate::model::position::Position;
use crate::model::record_id::RecordId;
use crate::postgres::trial::obstacle::{Obstacle, wait_until};
use crate::postgres::trial::proxy::Proxy;
use crate::postgres::trial::server::server;
use crate::postgres::{Settings, SslMode};
use crate::state::credentials::Credentials;
use crate::state::notices::Notices;
use crate::state::port::{Progress, State, StoredPosition};
use crate::state::suite::{Bench, LEASE, account, acme, at, conforms, has_kept, owed};

/// A schema of its own, and an engine on it.
struct Shared {
    schema: String,
    settings: Settings,
    state: Arc<PostgresState>,
    client: Client,
}

fn fresh() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("state_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Shared {
    async fn new() -> Self {
        Self::by(server().local()).await
    }

    async fn by(settings: Settings) -> Self {
        let schema = fresh();
        Self {
            state: Arc::new(PostgresState::new(&settings, &schema).unwrap()),
            client: server().client().await,
            schema,
            settings,
        }
    }

    fn engine(&self) -> Arc<PostgresState> {
        Arc::new(PostgresState::new(&self.settings, &self.schema).unwrap())
    }

    async fn run(&self, sql: &str) {
        let sql = sql.replace("{s}", &self.schema);
        self.client.batch_execute(&sql).await.unwrap();
    }

    async fn count(&self, sql: &str) -> i64 {
        let sql = sql.replace("{s}", &self.schema);
        self.client.query_one(&sql, &[]).await.unwrap().get(0)
    }

    async fn acquire(&self, state: &PostgresState, owner: &str) -> Option<u64> {
        // What a caller believes of the time is nothing to the server.
        let acquired = state.acquire(acme(), owner, DateTime::UNIX_EPOCH, LEASE);
        acquired.await.unwrap()
    }

    async fn obstacle(&self, sql: &str) -> Obstacle {
        Obstacle::new(&sql.replace("{s}", &self.schema)).await
    }

    /// From here on commits that change `table` wait for an advisory lock.
    async fn slow(&self, table: &str) {
        self.run(&format!(
            "CREATE FUNCTION {{s}}.slow() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN PERFORM pg_advisory_xact_lock(hashtext(TG_TABLE_SCHEMA)); RETURN NULL; END';
             CREATE CONSTRAINT TRIGGER slow AFTER INSERT OR UPDATE OR DELETE ON {{s}}.{table}
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {{s}}.slow()"
        ))
        .await;
    }
}

#[async_trait]
impl Bench for Shared {
    fn state(&self) -> Arc<dyn State> {
        Arc::clone(&self.state) as _
    }

    fn credentials(&self) -> Arc<dyn Credentials> {
        self.engine()
    }

    fn notices(&self) -> Arc<dyn Notices> {
        self.engine()
    }

    async fn another(&self) -> Arc<dyn State> {
        self.engine()
    }

    async fn now(&self) -> DateTime<Utc> {
        let row = self.client.query_one("SELECT clock_timestamp()", &[]);
        row.await.unwrap().get(0)
    }

    /// Leases grow older; the server's clock is everybody's.
    async fn pass(&self, seconds: i64) {
        self.run(&format!(
            "UPDATE {{s}}.lease SET until = until - interval '{seconds} seconds'"
        ))
        .await;
    }
}

fn step(place: &str) -> Progress {
    Progress {
        position: Some(StoredPosition {
            position: Some(Position::new(place)),
            confirmed_at: at(1),
        }),
        owe: vec![owed(place, 1)],
        ..Progress::default()
    }
}

fn commit(
    state: &Arc<PostgresState>,
    term: u64,
    progress: Progress,
) -> JoinHandle<Result<(), Fault>> {
    let state = Arc::clone(state);
    tokio::spawn(async move { state.commit(acme(), term, progress).await })
}

async fn place(state: &PostgresState) -> Option<String> {
    let stored = state.position(acme()).await.unwrap();
    let position = stored.and_then(|stored| stored.position);
    position.map(|position| position.as_str().to_owned())
}

#[tokio::test]
async fn postgres_conforms_and_keeps() {
    let shared = Shared::new().await;
    conforms(&shared).await;
    shared.state.close().await.unwrap();
    has_kept(&*shared.engine()).await;
}

#[tokio::test]
async fn engines_that_open_at_once_make_the_tables_once() {
    let (settings, schema) = (server().local(), fresh());
    let open = async || {
        let state = PostgresState::new(&settings, &schema).unwrap();
        assert_eq!(state.holes(None, true).await.unwrap(), []);
        state.close().await.unwrap();
    };
    futures_util::future::join_all((0..6).map(|_| open())).await;
}

#[tokio::test]
async fn a_state_of_a_later_build_is_refused() {
    let shared = Shared::new().await;
    shared.acquire(&shared.state, "one").await.unwrap();
    shared
        .run("INSERT INTO {s}.step (number) VALUES (99)")
        .await;
    let earlier = shared.engine();
    for _ in 0..2 {
        let fault = earlier.holes(None, true).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Config);
    }
}

/// Two hosts whose dates are a year apart agree on who owns what.
#[tokio::test]
async fn leases_go_by_the_server_s_clock() {
    let shared = Shared::new().await;
    let other = shared.engine();
    let year = chrono::TimeDelta::days(365);
    let now = shared.now().await;
    let term = shared
        .state
        .acquire(acme(), "slow clock", now - year, LEASE)
        .await
        .unwrap()
        .unwrap();
    let early = other.acquire(acme(), "fast clock", now + year, LEASE);
    assert_eq!(early.await.unwrap(), None);
    shared
        .state
        .renew(acme(), term, now - year, LEASE)
        .await
        .unwrap();
    let early = other.acquire(acme(), "fast clock", now + year, LEASE);
    assert_eq!(early.await.unwrap(), None);
    shared.pass(31).await;
    let next = other.acquire(acme(), "fast clock", now + year, LEASE);
    let next = next.await.unwrap().unwrap();
    let after = shared.now().await.timestamp().cast_unsigned();
    assert!(term < next && next <= after.max(term + 1));
}

/// A write that is under way when its lease ends is either whole under the old term, or not there.
#[tokio::test]
async fn a_takeover_waits_for_a_write_that_was_let_in() {
    let shared = Shared::new().await;
    let other = shared.engine();
    let term = shared.acquire(&shared.state, "one").await.unwrap();
    shared
        .state
        .commit(acme(), term, step("first"))
        .await
        .unwrap();
    let row = shared
        .obstacle("SELECT 1 FROM {s}.position FOR UPDATE")
        .await;
    let writing = commit(&shared.state, term, step("second"));
    row.waited_for(1).await;
    // A write that waits costs nobody the lease.
    let now = shared.now().await;
    shared.state.renew(acme(), term, now, LEASE).await.unwrap();
    // Nor does one who only looks.
    assert_eq!(shared.acquire(&other, "other").await, None);
    shared.pass(31).await;
    let taking = {
        let other = Arc::clone(&other);
        tokio::spawn(async move {
            other
                .acquire(acme(), "other", DateTime::UNIX_EPOCH, LEASE)
                .await
        })
    };
    row.waited_for(2).await;
    row.end("COMMIT").await;
    writing.await.unwrap().unwrap();
    let next = taking.await.unwrap().unwrap().unwrap();
    assert!(next > term);
    assert_eq!(place(&other).await.as_deref(), Some("second"));
    let late = shared.state.commit(acme(), term, step("late")).await;
    assert_eq!(late.unwrap_err().kind(), FaultKind::Fenced);
    assert_eq!(place(&other).await.as_deref(), Some("second"));
}

/// A write that comes while another takes over waits, and is refused.
#[tokio::test]
async fn a_write_behind_a_takeover_is_refused() {
    let shared = Shared::new().await;
    let other = shared.engine();
    let term = shared.acquire(&shared.state, "one").await.unwrap();
    shared.slow("lease").await;
    let lock = format!(
        "SELECT pg_advisory_xact_lock(hashtext('{}'))",
        shared.schema
    );
    let waits = Obstacle::new(&lock).await;
    // The lease ends, without the trigger that makes its changes slow.
    let ends = "SET session_replication_role = replica; UPDATE {s}.lease SET until = '-infinity'; RESET session_replication_role";
    shared.run(ends).await;
    let taking = tokio::spawn(async move {
        other
            .acquire(acme(), "other", DateTime::UNIX_EPOCH, LEASE)
            .await
    });
    waits.waited_for(1).await;
    let writing = commit(&shared.state, term, step("late"));
    waits.waited_for(2).await;
    waits.end("COMMIT").await;
    assert!(taking.await.unwrap().unwrap().unwrap() > term);
    let refused = writing.await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), FaultKind::Fenced);
    assert_eq!(place(&shared.state).await, None);
}

/// A daemon that was stopped within a transaction holds no takeover up for longer than its lease.
#[tokio::test]
async fn a_transaction_that_its_daemon_left_open_ends() {
    let shared = Shared::new().await;
    let term = shared.acquire(&shared.state, "one").await.unwrap();
    let stopped = server().client().await;
    let sql = format!(
        "{}; SELECT term FROM {}.lease FOR KEY SHARE",
        super::lease::BEGIN,
        shared.schema
    );
    stopped.batch_execute(&sql).await.unwrap();
    shared.pass(31).await;
    let began = std::time::Instant::now();
    let next = shared.acquire(&shared.state, "other").await.unwrap();
    assert!(next > term);
    assert!(began.elapsed() < LEASE / 2, "{:?}", began.elapsed());
}

/// An engine behind a line whose replies can be swallowed.
async fn doubtful(proxy: &Proxy) -> Shared {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let role = format!("doubtful_state_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let sql = format!("CREATE ROLE {role} SUPERUSER LOGIN PASSWORD 'right'");
    server().client().await.batch_execute(&sql).await.unwrap();
    let mut settings = server().remote("127.0.0.1", &role, "right", SslMode::Disable);
    settings.url = format!("postgres://{role}@127.0.0.1:{}/postgres", proxy.port);
    Shared::by(settings).await
}

/// Runs a write whose commit is done and whose reply is swallowed.
async fn lose_reply<T: Send + std::fmt::Debug + 'static>(
    proxy: &Proxy,
    shared: &Shared,
    write: impl Future<Output = Result<T, Fault>> + Send + 'static,
) {
    let lock = format!(
        "SELECT pg_advisory_xact_lock(hashtext('{}'))",
        shared.schema
    );
    let waits = Obstacle::new(&lock).await;
    let writing = tokio::spawn(write);
    waits.waited_for(1).await;
    proxy.mute.store(true, Ordering::SeqCst);
    waits.end("COMMIT").await;
    proxy.told.notified().await;
    proxy.mute.store(false, Ordering::SeqCst);
    let fault = writing.await.unwrap().unwrap_err();
    assert_eq!(fault.fate(), Fate::Retry, "{fault:?}");
}

#[tokio::test]
async fn a_commit_without_a_reply_may_be_made_again() {
    let proxy = Proxy::new().await;
    let shared = doubtful(&proxy).await;
    let term = shared.acquire(&shared.state, "one").await.unwrap();
    shared.slow("position").await;
    let state = Arc::clone(&shared.state);
    let write = async move { state.commit(acme(), term, step("once")).await };
    lose_reply(&proxy, &shared, write).await;
    assert_eq!(place(&shared.state).await.as_deref(), Some("once"));
    let again = shared.state.commit(acme(), term, step("once"));
    again.await.unwrap();
    assert_eq!(shared.count("SELECT count(*) FROM {s}.owed").await, 1);
}

#[tokio::test]
async fn an_acquisition_without_a_reply_is_the_owner_s() {
    let proxy = Proxy::new().await;
    let shared = doubtful(&proxy).await;
    shared.acquire(&shared.state, "one").await.unwrap();
    shared.slow("lease").await;
    let state = Arc::clone(&shared.state);
    let write = async move {
        state
            .acquire(acme(), "one", DateTime::UNIX_EPOCH, LEASE)
            .await
    };
    lose_reply(&proxy, &shared, write).await;
    let term = shared
        .count("SELECT term FROM {s}.lease")
        .await
        .cast_unsigned();
    assert_eq!(shared.acquire(&shared.state, "other").await, None);
    let again = shared.acquire(&shared.state, "one").await.unwrap();
    assert!(
        again > term,
        "a term that nobody heard of is used by nobody"
    );
}

#[tokio::test]
async fn requests_and_renewals_without_a_reply_may_be_made_again() {
    let proxy = Proxy::new().await;
    let shared = doubtful(&proxy).await;
    let term = shared.acquire(&shared.state, "one").await.unwrap();
    shared.slow("republish").await;
    let record = RecordId::stored("a");
    let (state, asked) = (Arc::clone(&shared.state), record.clone());
    let write = async move { state.request_republish(acme(), &account(), &asked).await };
    lose_reply(&proxy, &shared, write).await;
    let object = account();
    let again = shared.state.request_republish(acme(), &object, &record);
    again.await.unwrap();
    let asked = shared.state.to_republish(acme(), 10).await.unwrap();
    assert_eq!(asked, vec![(account(), record)]);

    shared.run("DROP FUNCTION {s}.slow() CASCADE").await;
    shared.slow("lease").await;
    let (state, now) = (Arc::clone(&shared.state), shared.now().await);
    let write = async move { state.renew(acme(), term, now, LEASE).await };
    lose_reply(&proxy, &shared, write).await;
    shared.state.renew(acme(), term, now, LEASE).await.unwrap();
}

/// A server that ends all connections is met by the next call.
#[tokio::test]
async fn a_server_that_hung_up_is_called_again() {
    let shared = Shared::new().await;
    let term = shared.acquire(&shared.state, "one").await.unwrap();
    shared
        .state
        .commit(acme(), term, step("before"))
        .await
        .unwrap();
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE $1 AND pid <> pg_backend_pid()";
    let like = format!("%{}.%", shared.schema);
    shared.client.execute(ended, &[&like]).await.unwrap();
    let left = wait_until(async || match shared.state.position(acme()).await {
        Ok(stored) => Some(stored),
        Err(fault) => {
            assert_eq!(fault.fate(), Fate::Retry, "{fault:?}");
            None
        }
    });
    assert!(left.await.is_some());
    wait_until(async || {
        let written = shared.state.commit(acme(), term, step("after")).await;
        written
            .map_err(|fault| assert_eq!(fault.fate(), Fate::Retry))
            .ok()
    })
    .await;
    assert_eq!(place(&shared.state).await.as_deref(), Some("after"));
}

/// The role that docs/postgresql.md makes: it owns its schema and may make no other.
#[tokio::test]
async fn a_role_that_owns_its_schema_alone_is_enough() {
    let (admin, schema) = (server().client().await, fresh());
    let sql = format!(
        "CREATE ROLE modest LOGIN PASSWORD 'right'; CREATE SCHEMA {schema} AUTHORIZATION modest"
    );
    admin.batch_execute(&sql).await.unwrap();
    let settings = server().remote("127.0.0.1", "modest", "right", SslMode::Disable);
    let state = PostgresState::new(&settings, &schema).unwrap();
    let owned = state.acquire(acme(), "one", DateTime::UNIX_EPOCH, LEASE);
    let term = owned.await.unwrap().unwrap();
    state.commit(acme(), term, step("a")).await.unwrap();
    let other = PostgresState::new(&settings, "elsewhere").unwrap();
    let refused = other.holes(None, true).await.unwrap_err();
    assert_eq!(refused.kind(), FaultKind::Permission);
    let nobody = ConnectionId::new("nobody");
    assert_eq!(state.position(&nobody).await.unwrap(), None);
}
