//! Changes that no event told: the probe finds them, a hole has them read, and nothing else is taken for one.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value as Json, json};
use tributary_sim::salesforce::SimOptions;

use super::daemon::Daemon;
use super::data::id;
use super::world::{LOOK, PATIENCE, World, main_section};

const JOB: &str = "source = \"Account\"\non_delete = \"delete\"\n[to.Company]\nidentifiers = [\"salesforce_account_id\"]\n\
                   [to.Company.map]\nsalesforce_account_id = \"Id\"\nname = \"Name\"\nindustry = \"Industry\"\n";

/// An org of 20 accounts with a field that no job selects.
async fn accounts() -> World {
    let rows = (0..20).map(|number| format!("{},Acme {number},Energy,x\n", id("001", number)));
    let csv = format!(
        "Id,Name,Industry,Unselected__c\n{}",
        rows.collect::<String>()
    );
    let options = SimOptions {
        keepalive_seconds: Some(1),
        ..SimOptions::default()
    };
    let world = World::bare(vec![("Account.csv".to_owned(), csv)], options).await;
    world.put("tributary.toml", &main_section(&world.prefix, &world.store));
    world.put("jobs/acme/company_sync.toml", JOB);
    world
}

/// Has the connection probe so often, by a transport.
fn probe(world: &World, interval: &str, transport: &str) {
    let connection = world.connection(&world.org.url, transport);
    let text = format!("{connection}probe_interval = \"{interval}\"\n");
    world.put("connections/acme.toml", &text);
}

async fn change(world: &World, op: &str, number: usize, fields: Json) {
    let mut operation = json!({ "op": op, "object": "Account", "id": id("001", number) });
    if op == "update" || op == "create" {
        operation["fields"] = fields;
    }
    world.commit(&[vec![operation]]).await;
}

/// Names by id, in the org and in the store.
async fn names(world: &World) -> [BTreeMap<String, Json>; 2] {
    let there = world.truth("Account").await.into_iter();
    let here = world.rows("company", "salesforce_account_id").await;
    [
        there.map(|(id, row)| (id, row["Name"].clone())).collect(),
        here.into_iter()
            .map(|(id, row)| (id, row["name"].clone()))
            .collect(),
    ]
}

async fn until(
    world: &World,
    daemon: &Daemon,
    what: &str,
    holds: impl Fn(&[BTreeMap<String, Json>; 2]) -> bool,
) {
    let end = Instant::now() + PATIENCE;
    loop {
        let names = names(world).await;
        if holds(&names) {
            return;
        }
        assert!(Instant::now() < end, "{what}: {names:?}\n{}", daemon.tail());
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the store holds what the org does. Nobody looks into it before it is made.
async fn synced(world: &World, daemon: &Daemon) {
    daemon
        .wait_for("the first sync", |health| {
            !health["connections"]["acme"]["objects"]["Account"]["synced_at"].is_null()
        })
        .await;
    until(world, daemon, "the first rows", |[there, here]| {
        there == here
    })
    .await;
}

fn missed(health: &Json) -> u64 {
    let missed = &health["connections"]["acme"]["objects"]["Account"]["missed"];
    missed.as_u64().unwrap_or_default()
}

/// Goes on changing one record, which the stream tells, until the probe has found something.
async fn found(world: &World, daemon: &Daemon) -> u64 {
    let end = Instant::now() + PATIENCE;
    for round in 0.. {
        change(
            world,
            "update",
            19,
            json!({ "Name": format!("Told {round}") }),
        )
        .await;
        let missed = missed(&daemon.health().await);
        if missed > 0 {
            return missed;
        }
        assert!(Instant::now() < end, "nothing is found\n{}", daemon.tail());
        tokio::time::sleep(LOOK * 10).await;
    }
    0
}

/// The causes and states of all holes.
fn holes(world: &World) -> Vec<(String, String)> {
    let holes = world.command(&["holes", "--all", "--json"]);
    let holes = holes.as_array().unwrap().iter();
    let text = |hole: &Json, key: &str| hole[key].as_str().unwrap().to_owned();
    holes
        .map(|hole| (text(hole, "cause"), text(hole, "state")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_event_told_is_found_and_read() {
    let world = accounts().await;
    probe(&world, "24h", "transport = \"cometd\"\n");
    let daemon = world.daemon().await;
    synced(&world, &daemon).await;
    let lose = json!({ "on": { "entity": "Account" }, "times": 2, "do": { "kind": "lose" } });
    world.control("faults", lose).await;
    change(&world, "update", 1, json!({ "Name": "Untold" })).await;
    change(&world, "create", 50, json!({ "Name": "Unheard of" })).await;
    change(&world, "update", 2, json!({ "Name": "Told" })).await;
    // The stream is beyond the two, and tells them never.
    until(&world, &daemon, "what was told", |[_, here]| {
        here[&id("001", 2)] == "Told"
    })
    .await;
    let [there, here] = names(&world).await;
    assert_ne!(there, here);
    assert_eq!(here[&id("001", 1)], "Acme 1");
    assert!(daemon.stop().0.success());
    assert_eq!(holes(&world), []);

    probe(&world, "1s", "transport = \"cometd\"\n");
    let daemon = world.daemon().await;
    assert_eq!(found(&world, &daemon).await, 2);
    until(&world, &daemon, "the hole's end", |[there, here]| {
        there == here
    })
    .await;
    world.holes_close(&daemon).await;
    let (_, metrics) = daemon.get("/metrics").await;
    let line = "tributary_missed_changes_total{connection=\"acme\",object=\"Account\"} 2";
    assert!(metrics.lines().any(|each| each == line), "{metrics}");
    let told = daemon.lines().join("\n");
    assert!(told.contains("no event told it"), "{told}");
    assert!(daemon.stop().0.success());
    assert_eq!(
        holes(&world),
        [("missed_changes".to_owned(), "closed".to_owned())]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_stream_is_confirmed_by_its_keep_alives() {
    let world = accounts().await;
    let transport = format!("pubsub_address = \"{}\"\n", world.org.pubsub_url);
    probe(&world, "1s", &transport);
    let daemon = world.daemon().await;
    synced(&world, &daemon).await;
    let lose = json!({ "on": { "entity": "Account" }, "do": { "kind": "lose" } });
    world.control("faults", lose).await;
    change(&world, "update", 1, json!({ "Name": "Untold" })).await;
    let health = daemon
        .wait_for("the probe", |health| missed(health) > 0)
        .await;
    assert_eq!(missed(&health), 1);
    until(&world, &daemon, "the hole's end", |[there, here]| {
        there == here
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_is_not_taken_for_missed() {
    let world = accounts().await;
    probe(&world, "1s", "transport = \"cometd\"\n");
    let daemon = world.daemon().await;
    synced(&world, &daemon).await;
    let gap = json!({ "on": { "record_id": id("001", 9) }, "do": { "kind": "gap" } });
    world.control("faults", gap).await;
    for round in 0..20 {
        change(
            &world,
            "update",
            1,
            json!({ "Name": format!("Round {round}") }),
        )
        .await;
        change(
            &world,
            "update",
            2,
            json!({ "Unselected__c": format!("{round}") }),
        )
        .await;
        change(
            &world,
            "create",
            100 + round,
            json!({ "Name": "New", "Unselected__c": "y" }),
        )
        .await;
        change(&world, "update", 100 + round, json!({ "Industry": null })).await;
        change(&world, "delete", 3, json!({})).await;
        change(&world, "undelete", 3, json!({})).await;
        change(
            &world,
            "update",
            9,
            json!({ "Name": format!("Gap {round}") }),
        )
        .await;
        tokio::time::sleep(LOOK * 10).await;
    }
    // The last change is the only one that is lost, and the only one that is found.
    let lose = json!({ "on": { "record_id": id("001", 5) }, "do": { "kind": "lose" } });
    world.control("faults", lose).await;
    change(&world, "update", 5, json!({ "Name": "Untold" })).await;
    assert_eq!(found(&world, &daemon).await, 1);
    until(&world, &daemon, "the hole's end", |[there, here]| {
        there == here
    })
    .await;
    world.holes_close(&daemon).await;
    assert_eq!(
        holes(&world),
        [("missed_changes".to_owned(), "closed".to_owned())]
    );
}
