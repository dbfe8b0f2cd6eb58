//! A PostgreSQL store that is away, crashes under load, or refuses: the daemon lives, says so, and loses nothing.

use serde_json::{Value as Json, json};

use super::daemon::Daemon;
use super::data::{id, tables};
use super::store::STORE_PASSWORD_IN;
use super::world::{SECRET, World};
use crate::postgres::Server;

fn cause(health: &Json) -> &str {
    health["target"]["waiting"]["cause"]
        .as_str()
        .unwrap_or_default()
}

async fn waits(daemon: &Daemon) -> Json {
    daemon
        .wait_for("the wait for the target", |health| {
            !cause(health).is_empty()
        })
        .await
}

async fn answers(daemon: &Daemon) {
    daemon
        .wait_for("the target's answer", |health| {
            health["target"]["waiting"].is_null()
        })
        .await;
}

fn rename(number: usize) -> Vec<Json> {
    vec![
        json!({ "op": "update", "object": "Account", "id": id("001", number % 20),
                  "fields": { "Name": format!("Name {number}") } }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_starts_without_its_store_and_goes_on_when_it_comes() {
    let server = Server::start();
    let world = World::on_postgres(&tables(5, 20, 50), &server).await;
    server.kill();
    let daemon = world.daemon().await;
    let health = waits(&daemon).await;
    assert!(cause(&health).contains("localhost"), "{health:#}");
    assert!(health["target"]["waiting"]["since"].is_string());
    assert_eq!(daemon.get("/healthz").await.0, 200);
    assert_eq!(
        daemon.get("/readyz").await.0,
        200,
        "changes are kept for the store, so the daemon is in service"
    );
    assert!(
        daemon
            .get("/metrics")
            .await
            .1
            .contains("tributary_target_waiting 1")
    );
    // The CRM is read all the same.
    daemon.synced().await;
    server.start_again();
    world.settled(&daemon).await;
    answers(&daemon).await;
    assert!(
        daemon
            .get("/metrics")
            .await
            .1
            .contains("tributary_target_waiting 0")
    );
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_of_the_store_under_load_lose_nothing() {
    const CRASHES: usize = 3;
    const BETWEEN: usize = 200;
    let server = Server::start();
    let world = World::on_postgres(&tables(5, 20, 50), &server).await;
    let daemon = world.daemon().await;
    daemon.synced().await;
    let mut number = 0;
    for _ in 0..CRASHES {
        for _ in 0..BETWEEN {
            world.commit(&[rename(number)]).await;
            number += 1;
        }
        server.kill();
        for _ in 0..BETWEEN {
            world.commit(&[rename(number)]).await;
            number += 1;
        }
        waits(&daemon).await;
        server.start_again();
    }
    world.settled(&daemon).await;
    answers(&daemon).await;
    let health = daemon.health().await;
    assert_eq!(health["jobs"]["acme"]["company_sync"]["dead_letters"], 0);
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_stops_while_its_store_is_away() {
    let server = Server::start();
    let world = World::on_postgres(&tables(5, 20, 50), &server).await;
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    server.kill();
    world.commit(&[rename(1)]).await;
    waits(&daemon).await;
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
    server.start_again();
    let daemon = world.daemon().await;
    world.settled(&daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_password_and_a_missing_database_are_named_and_mended() {
    let server = Server::start();
    let world = World::on_postgres(&tables(5, 20, 50), &server).await;
    let mut daemon = Daemon::spawn(
        &world.config(),
        &world.http,
        &[("ACME_SECRET", SECRET), (STORE_PASSWORD_IN, "hunter2")],
    );
    daemon.serving().await;
    let health = waits(&daemon).await;
    assert!(cause(&health).contains("28P01"), "{health:#}");
    assert!(cause(&health).contains("remedy"), "{health:#}");
    let (_, lines) = daemon.stop();
    assert!(!lines.contains("hunter2"), "{lines}");

    let config = world.config().join("tributary.toml");
    let right = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, right.replace(&world.prefix, "nowhere")).unwrap();
    let daemon = world.daemon().await;
    let health = waits(&daemon).await;
    assert!(cause(&health).contains("nowhere"), "{health:#}");
    assert!(cause(&health).contains("create the database"), "{health:#}");
    drop(daemon.stop());
    std::fs::write(&config, right).unwrap();
    let daemon = world.daemon().await;
    world.settled(&daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_beside_the_daemon_read_the_same() {
    let server = Server::start();
    let on_postgres = World::on_postgres(&tables(3, 4, 5), &server).await;
    let in_a_file = World::on_sqlite(&tables(3, 4, 5)).await;
    let mut told = Vec::new();
    for world in [on_postgres, in_a_file] {
        let daemon = world.daemon().await;
        daemon.synced().await;
        world.settled(&daemon).await;
        let account = id("001", 1);
        let few = world.command(&["rows", "company", "--limit", "2", "--json"]);
        assert_eq!(few.as_array().unwrap().len(), 2, "{few:#}");
        // Rows of one batch are equally new, so their order is the store's own.
        let mut rows = world.command(&["rows", "company", "--limit", "10", "--json"]);
        let all = rows.as_array_mut().unwrap();
        assert_eq!(all.len(), 4);
        all.sort_by_key(|row| row["salesforce_account_id"].to_string());
        let explained = world.command(&["explain", "acme", "Account", &account, "--json"]);
        let row = &explained["rows"][0]["row"];
        assert_eq!(row["salesforce_account_id"], account, "{explained:#}");
        told.push((shape(&rows), shape(&explained)));
        let (status, lines) = daemon.stop();
        assert!(status.success(), "{lines}");
    }
    assert_eq!(told[0], told[1], "one form, whatever the store");
}

/// Keys and types, without what differs between two runs.
fn shape(json: &Json) -> Json {
    match json {
        Json::Array(items) => items.iter().map(shape).collect(),
        Json::Object(entries) => entries
            .iter()
            .map(|(key, value)| (key.clone(), shape(value)))
            .collect(),
        Json::Null => Json::Null,
        Json::Bool(_) => "truth".into(),
        Json::Number(_) => "number".into(),
        Json::String(_) => "text".into(),
    }
}
