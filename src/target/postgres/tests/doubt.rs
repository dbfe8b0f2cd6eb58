//! The reply to a commit is lost: the target finds out what became of it, and the batch is there once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::writers::spawn;
use super::{PostgresSettings, Store, fresh};
use crate::fault::Fate;
use crate::postgres::SslMode;
use crate::postgres::trial::obstacle::Obstacle;
use crate::postgres::trial::proxy::Proxy;
use crate::postgres::trial::server::server;
use crate::target::port::Outcome;
use crate::target::suite::Bench;
use crate::target::suite::plans::{company, row, text};
use crate::target::suite::world::begin;

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
        ..fresh()
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
