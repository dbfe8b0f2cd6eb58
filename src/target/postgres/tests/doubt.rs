//! The reply to a commit is lost: the target finds out what became of it, and the batch is there once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::server::server;
use super::writers::{Obstacle, spawn};
use super::{PostgresSettings, Store};
use crate::fault::Fate;
use crate::postgres::SslMode;
use crate::target::port::Outcome;
use crate::target::suite::Bench;
use crate::target::suite::plans::{company, row, text};
use crate::target::suite::world::begin;

/// Passes bytes on, until it is told to swallow what the server says, and then to hang up.
struct Proxy {
    port: u16,
    mute: Arc<AtomicBool>,
    swallowed: Arc<AtomicUsize>,
    told: Arc<Notify>,
}

impl Proxy {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            mute: Arc::default(),
            swallowed: Arc::default(),
            told: Arc::default(),
        };
        let (mute, swallowed, told) = (
            Arc::clone(&proxy.mute),
            Arc::clone(&proxy.swallowed),
            Arc::clone(&proxy.told),
        );
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(("127.0.0.1", server().port))
                    .await
                    .unwrap();
                let (mute, swallowed, told) =
                    (Arc::clone(&mute), Arc::clone(&swallowed), Arc::clone(&told));
                tokio::spawn(async move {
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    let up = tokio::spawn(async move {
                        tokio::io::copy(&mut from_client, &mut to_server).await.ok();
                    });
                    let mut buffer = vec![0; 64 * 1024];
                    while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
                        if mute.load(Ordering::SeqCst) {
                            swallowed.fetch_add(count, Ordering::SeqCst);
                            told.notify_one();
                            break;
                        }
                        if to_client.write_all(&buffer[..count]).await.is_err() {
                            break;
                        }
                    }
                    // Both halves go: the client sees the end.
                    up.abort();
                });
            }
        });
        proxy
    }
}

/// A store behind the proxy, whose commits wait for an advisory lock.
async fn store(proxy: &Proxy) -> Store {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let role = format!("doubtful_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let client = server().client().await;
    let sql = format!("CREATE ROLE {role} SUPERUSER LOGIN PASSWORD 'right'");
    client.batch_execute(&sql).await.unwrap();
    let mut settings = server().remote("127.0.0.1", &role, "right", SslMode::Disable);
    settings.url = format!("postgres://{role}@127.0.0.1:{}/postgres", proxy.port);
    let mut store = Store::with(PostgresSettings {
        server: settings,
        ..server().fresh()
    })
    .await;
    begin(&mut store).await;
    let table = store.table("company");
    let schema = crate::target::postgres::lookup::quote(&store.settings.store);
    client
        .batch_execute(&format!(
            "CREATE FUNCTION {schema}.slow() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN PERFORM pg_advisory_xact_lock(hashtext(TG_TABLE_SCHEMA)); RETURN NULL; END';
             CREATE CONSTRAINT TRIGGER slow AFTER INSERT OR UPDATE ON {table} DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION {schema}.slow()"
        ))
        .await
        .unwrap();
    store
}

async fn obstacle(store: &Store) -> Obstacle {
    let lock = format!(
        "SELECT pg_advisory_xact_lock(hashtext('{}'))",
        store.settings.store
    );
    Obstacle::new(&lock).await
}

#[tokio::test]
async fn a_commit_without_a_reply_is_found_out() {
    let proxy = Proxy::new().await;
    let mut store = store(&proxy).await;
    let mut writer = begin(&mut store).await;
    let plan = Arc::new(company());
    let waits = obstacle(&store).await;
    let batch = writer.batch([row(&plan, "a", 1).text("name", "one")]);
    let next = batch.next;
    let doubtful = spawn(store.target(), batch);
    waits.waited_for(1).await;
    proxy.mute.store(true, Ordering::SeqCst);
    waits.end("COMMIT").await;
    proxy.told.notified().await;
    proxy.mute.store(false, Ordering::SeqCst);
    let applied = doubtful.await.unwrap().unwrap();
    assert!(proxy.swallowed.load(Ordering::SeqCst) > 0);
    assert!(applied.committed);
    assert_eq!(applied.outcomes[0], [Outcome::Inserted]);
    writer.owned.next = next;
    let outcome = writer.one(row(&plan, "a", 2).text("name", "two")).await;
    assert_eq!(outcome, Outcome::Updated);
    assert_eq!(writer.cell_of("company", "a", "name").await, text("two"));
}

#[tokio::test]
async fn a_commit_that_broke_off_is_found_out() {
    let proxy = Proxy::new().await;
    let mut store = store(&proxy).await;
    let mut writer = begin(&mut store).await;
    let plan = Arc::new(company());
    let waits = obstacle(&store).await;
    let batch = writer.batch([row(&plan, "a", 1).text("name", "one")]);
    let doubtful = spawn(store.target(), batch.clone());
    let pid = waits.waited_for(1).await[0];
    let client = server().client().await;
    client
        .execute("SELECT pg_terminate_backend($1)", &[&pid])
        .await
        .unwrap();
    let fault = doubtful.await.unwrap().unwrap_err();
    assert_eq!(fault.fate(), Fate::Retry, "{fault:?}");
    waits.end("COMMIT").await;
    assert!(writer.all("company").await.is_empty());
    let applied = writer.apply(batch).await.unwrap();
    assert_eq!(applied.outcomes[0], [Outcome::Inserted]);
}
