//! An object that no event tells: its changes reach the store all the same, over restarts, and when it is told at last.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tributary::app::{Daemon, load};
use tributary::crm::port::survey::Changes;
use tributary_sim::salesforce::SimOptions;

use super::salesforce::World;
use crate::sim;

const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(50);

/// Companies by account id, as the store has them.
fn stored(store: &Path) -> BTreeMap<String, String> {
    let Ok(store) = rusqlite::Connection::open(store) else {
        return BTreeMap::new();
    };
    let Ok(mut rows) = store.prepare("SELECT salesforce_account_id, name FROM company") else {
        return BTreeMap::new();
    };
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

async fn org(world: &World) -> BTreeMap<String, String> {
    let told = sim::told(&world.http, &world.org.url, "records/Account").await;
    let records = told["records"].as_array().unwrap().iter();
    let live = records.filter(|record| record["IsDeleted"] == false);
    let text = |record: &Json, field: &str| record[field].as_str().unwrap().to_owned();
    live.map(|record| (text(record, "Id"), text(record, "Name")))
        .collect()
}

async fn agree(world: &World) {
    let store = world.config().join("data/store.db");
    let until = Instant::now() + PATIENCE;
    loop {
        let (there, here) = (org(world).await, stored(&store));
        if there == here {
            return;
        }
        let differs = there.iter().find(|(id, name)| here.get(*id) != Some(name));
        assert!(
            Instant::now() < until,
            "{} rows, {} records, {differs:?}",
            here.len(),
            there.len()
        );
        tokio::time::sleep(LOOK).await;
    }
}

async fn change(world: &World, ops: Json) {
    world
        .order("transactions", json!({"transactions": [{"ops": ops}]}))
        .await;
}

fn account(number: usize) -> String {
    tributary::model::record_id::RecordId::salesforce(&format!("001{number:012}"))
        .unwrap()
        .to_string()
}

async fn daemon(world: &World) -> Daemon {
    Daemon::start(load(&world.config()).unwrap()).await.unwrap()
}

/// Waits until health says how the object's changes come.
async fn shows(daemon: &Daemon, changes: Changes) {
    let until = Instant::now() + PATIENCE;
    loop {
        let picture = daemon.picture();
        let acme = picture.connections.get("acme");
        let shown = acme.and_then(|acme| acme.objects.get("Account")?.changes);
        if shown == Some(changes) {
            return;
        }
        assert!(Instant::now() < until, "{shown:?}");
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test]
async fn an_object_that_no_event_tells_is_polled_until_it_is_told() {
    let world = World::of(SimOptions {
        capture: Some(vec!["User".to_owned()]),
        ..SimOptions::default()
    })
    .await;
    world.configure(
        "transport = \"cometd\"\npoll_interval = \"1s\"\nread_lag = \"0s\"",
        "",
    );
    let file = world.config().join("tributary.toml");
    std::fs::write(file, "[admin]\nlisten = \"127.0.0.1:0\"\n").unwrap();
    let job = world.config().join("jobs/acme/company_sync.toml");
    let text = std::fs::read_to_string(&job).unwrap();
    std::fs::write(&job, format!("on_delete = \"delete\"\n{text}")).unwrap();

    let running = daemon(&world).await;
    agree(&world).await;
    shows(&running, Changes::NotSelected).await;
    change(
        &world,
        json!([
            {"op": "update", "object": "Account", "id": account(1), "fields": {"Name": "changed"}},
            {"op": "delete", "object": "Account", "id": account(2)},
            {"op": "create", "object": "Account", "fields": {"Name": "new"}},
        ]),
    )
    .await;
    agree(&world).await;
    running.stop().await.unwrap();

    // What happens while nobody asks is asked for at the next start.
    let update = |number, name: &str| json!([{"op": "update", "object": "Account", "id": account(number), "fields": {"Name": name}}]);
    change(&world, update(3, "while it was down")).await;
    let running = daemon(&world).await;
    agree(&world).await;
    running.stop().await.unwrap();

    // It is selected while the daemon is down, after a change that no event will tell.
    change(&world, update(4, "before it was selected")).await;
    world
        .order("capture", json!({"capture": ["Account"]}))
        .await;
    let running = daemon(&world).await;
    shows(&running, Changes::Told).await;
    agree(&world).await;
    change(&world, update(5, "told")).await;
    agree(&world).await;
    running.stop().await.unwrap();
}
