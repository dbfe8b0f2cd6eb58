//! An object that has no stamp of its changes, and that no event tells: it is polled by the org's log of updates.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tributary_sim::salesforce::SimOptions;

use super::daemon::Daemon;
use super::data::id;
use super::world::{PATIENCE, World, main_section};
use crate::sim;

const JOB: &str = "source = \"Rate__c\"\non_delete = \"delete\"\n[to.Company]\nidentifiers = [\"salesforce_account_id\"]\n\
                   [to.Company.map]\nsalesforce_account_id = \"Id\"\nname = \"Name\"\n";
const UPDATED: &str = "/services/data/v66.0/sobjects/Rate__c/updated";
const LOOK: Duration = Duration::from_millis(50);
/// Looks between which the org's clock moves on: its logs tell whole minutes.
const LOOKS: usize = 20;

/// An org with rates, which are not selected for change events, and its daemon after the first sync.
async fn rates() -> (World, Daemon) {
    let rows = (0..20).map(|number| format!("{},Rate {number}\n", id("a00", number)));
    let without = json!({ "without": ["SystemModstamp", "LastModifiedDate", "LastModifiedById"] });
    let files = [
        ("Account.csv", format!("Id,Name\n{},Acme\n", id("001", 1))),
        (
            "Rate__c.csv",
            format!("Id,Name\n{}", rows.collect::<String>()),
        ),
        ("Rate__c.json", without.to_string()),
    ];
    let files = files.map(|(name, text)| (name.to_owned(), text));
    let options = SimOptions {
        capture: Some(vec!["Account".to_owned()]),
        ..SimOptions::default()
    };
    let world = World::bare(files.to_vec(), options).await;
    world.put("tributary.toml", &main_section(&world.prefix, &world.store));
    let connection = world.connection(&world.org.url, "transport = \"cometd\"\n");
    let connection = format!("{connection}poll_interval = \"1s\"\n");
    world.put("connections/acme.toml", &connection);
    world.put("jobs/acme/rate_sync.toml", JOB);
    let daemon = world.daemon().await;
    daemon
        .wait_for("the first sync", |health| {
            let rates = &health["connections"]["acme"]["objects"]["Rate__c"];
            !rates["synced_at"].is_null() && rates["changes"] == "not_selected"
        })
        .await;
    equal(&world, &daemon, "the first rows").await;
    (world, daemon)
}

/// Waits until the store holds what the org does, and every script has fired.
async fn equal(world: &World, daemon: &Daemon, what: &str) {
    let until = Instant::now() + PATIENCE;
    for look in 1.. {
        let there = names(world.truth("Rate__c").await, "Name");
        let here = names(world.rows("company", "salesforce_account_id").await, "name");
        let scripts = sim::told(&world.http, &world.org.url, "faults").await;
        if there == here && scripts["requests"] == json!([]) {
            return;
        }
        let tail = daemon.tail();
        assert!(
            Instant::now() < until,
            "{what}: {there:?} {here:?}\n{scripts}\n{tail}"
        );
        if look % LOOKS == 0 {
            world
                .control("time", json!({ "advance_seconds": 75 }))
                .await;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn names<R: std::ops::Index<&'static str, Output = Json>>(
    rows: BTreeMap<String, R>,
    column: &'static str,
) -> BTreeMap<String, Json> {
    let name = |(id, row): (String, R)| (id, row[column].clone());
    rows.into_iter().map(name).collect()
}

fn change(op: &str, number: usize, name: Option<&str>) -> Vec<Json> {
    let mut operation = json!({ "op": op, "object": "Rate__c", "id": id("a00", number) });
    if let Some(name) = name {
        operation["fields"] = json!({ "Name": name });
    }
    vec![operation]
}

/// How often the org was asked for all rates, and for what its log has of them.
async fn asked(world: &World) -> (u64, u64) {
    let counts = world.counts().await;
    let count = |call: &str| counts["calls"][call].as_u64().unwrap_or_default();
    (count("GET query"), count("GET sobjects/{object}/updated"))
}

/// Every hole is a window of polling; all but the last are closed.
fn only_polled(world: &World, daemon: Daemon) {
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
    let holes = world.command(&["holes", "--all", "--json"]);
    let holes = holes.as_array().unwrap();
    assert!(
        holes.iter().all(|hole| hole["cause"] == "not_captured"),
        "{holes:?}"
    );
    let open = holes.iter().filter(|hole| hole["state"] != "closed");
    assert!(open.count() <= 1 && holes.len() > 1, "{holes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_changes_are_told_by_the_log_of_updates() {
    let (world, daemon) = rates().await;
    let (whole, logged) = asked(&world).await;
    world
        .commit(&[
            change("update", 1, Some("Changed")),
            change("create", 50, Some("New")),
            change("delete", 3, None),
        ])
        .await;
    equal(&world, &daemon, "changes").await;
    world
        .commit(&[
            change("update", 1, Some("Changed again")),
            change("undelete", 3, None),
            change("hard_delete", 5, None),
        ])
        .await;
    equal(&world, &daemon, "more changes").await;
    let (whole_then, logged_then) = asked(&world).await;
    assert_eq!(whole_then, whole, "nothing was read as a whole");
    assert!(logged_then > logged + 1, "{logged} {logged_then}");
    only_polled(&world, daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_the_log_refuses_is_halved_or_read_whole() {
    let (world, daemon) = rates().await;
    let refuse = |code: &str, keys: Json| {
        let deed = json!({ "kind": "status", "status": 400, "code": code, "message": "m" });
        let mut script = json!({ "on": { "path": UPDATED }, "do": deed });
        script
            .as_object_mut()
            .unwrap()
            .extend(keys.as_object().unwrap().clone());
        script
    };
    let (whole, _) = asked(&world).await;
    let script = refuse("EXCEEDED_ID_LIMIT", json!({ "times": 2 }));
    world.control("faults", script).await;
    world.commit(&[change("update", 1, Some("Of many"))]).await;
    equal(&world, &daemon, "too many ids").await;
    assert_eq!(asked(&world).await.0, whole, "halves tell it");

    // Down to a minute, which can't be halved.
    for (name, script) in [
        (
            "Of too many",
            refuse("EXCEEDED_ID_LIMIT", json!({ "times": 7 })),
        ),
        (
            "Too long ago",
            refuse("INVALID_REPLICATION_DATE", json!({})),
        ),
    ] {
        let (whole, _) = asked(&world).await;
        world.control("faults", script).await;
        world.commit(&[change("update", 2, Some(name))]).await;
        equal(&world, &daemon, name).await;
        assert!(asked(&world).await.0 > whole, "{name}: all is read");
    }
    only_polled(&world, daemon);
}

/// The org is open about what a running transaction keeps from its log.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_does_not_cover_yet_is_waited_for() {
    let (world, daemon) = rates().await;
    let (_, logged) = asked(&world).await;
    let late = json!({ "wait": false, "transactions": [
        { "hold_ms": 150_000, "ops": change("update", 1, Some("Committed late")) },
    ] });
    world.control("transactions", late).await;
    world
        .commit(&[change("update", 2, Some("Committed at once"))])
        .await;
    let advance = || world.control("time", json!({ "advance_seconds": 80 }));
    advance().await;
    let until = Instant::now() + PATIENCE;
    while asked(&world).await.1 == logged {
        assert!(
            Instant::now() < until,
            "nothing is asked\n{}",
            daemon.tail()
        );
        tokio::time::sleep(LOOK).await;
    }
    // Only now is it committed, under its early stamp.
    advance().await;
    while world.truth("Rate__c").await[&id("a00", 1)]["Name"] != "Committed late" {
        assert!(Instant::now() < until, "it is not committed");
        tokio::time::sleep(LOOK).await;
    }
    equal(&world, &daemon, "what was committed late").await;
    only_polled(&world, daemon);
}
