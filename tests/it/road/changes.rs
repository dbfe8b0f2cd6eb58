//! Every kind of change, from a commit in the org to a row in the store, in well under a second and without a read.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::daemon::Daemon;
use super::data::{id, tables};
use super::store::Row;
use super::world::World;

const ROUNDS: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_change_reaches_its_row() {
    let world = World::of(&tables(5, 20, 10)).await;
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    let before = reads(&world).await;
    let mut waits = Vec::new();
    for round in 0..ROUNDS {
        let made = world
            .commit(&[vec![json!({
                "op": "create", "object": "Account",
                "fields": { "Name": format!("New {round}"), "Industry": "Energy", "NumberOfEmployees": 7 },
            })]])
            .await;
        let record = first_id(&made);
        waits.push(seen(&world, &daemon, &record, |row| row["industry"] == "Energy").await);
        let gsid = row(&world, &record).await.unwrap()["gsid"].clone();

        change(&world, "update", &record, json!({ "NumberOfEmployees": 8 })).await;
        waits.push(seen(&world, &daemon, &record, |row| row["employees"] == 8).await);
        assert_eq!(
            row(&world, &record).await.unwrap()["industry"],
            "Energy",
            "what did not change stays"
        );

        change(&world, "update", &record, json!({ "Industry": null })).await;
        waits.push(seen(&world, &daemon, &record, |row| row["industry"].is_null()).await);

        change(&world, "delete", &record, json!({})).await;
        waits.push(gone(&world, &daemon, &record).await);

        change(&world, "undelete", &record, json!({})).await;
        waits.push(seen(&world, &daemon, &record, |row| row["employees"] == 8).await);
        assert_eq!(
            row(&world, &record).await.unwrap()["gsid"],
            gsid,
            "the same row came back"
        );
    }
    assert_eq!(reads(&world).await, before, "no record was read");
    let health = daemon.health().await;
    let published = &health["connections"]["acme"]["objects"]["Account"]["published"];
    assert_eq!(published, &json!(20 + 5 * ROUNDS), "one change an event");
    waits.sort_unstable();
    let p99 = waits[waits.len() * 99 / 100];
    println!(
        "commit in the org to row in the store: median {:?}, p99 {p99:?}",
        waits[waits.len() / 2]
    );
    assert!(p99 < Duration::from_secs(1), "p99 {p99:?}");
    world.settled(&daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_comes_late_and_a_long_transaction() {
    let world = World::of(&tables(5, 10, 10)).await;
    let daemon = world.daemon().await;
    daemon.synced().await;
    // Both in one transaction, the child first.
    world
        .commit(&[vec![
            json!({ "op": "create", "object": "Opportunity", "id": id("006", 900), "fields": {
                "Name": "Early child", "StageName": "Won", "AccountId": id("001", 900), "OwnerId": id("005", 1) } }),
            json!({ "op": "create", "object": "Account", "id": id("001", 900), "fields": { "Name": "Late parent" } }),
        ]])
        .await;
    world.settled(&daemon).await;
    // A parent moves, a manager changes, an owner is cleared.
    world
        .commit(&[
            vec![json!({ "op": "update", "object": "Opportunity", "id": id("006", 900), "fields": { "AccountId": id("001", 2) } })],
            vec![json!({ "op": "update", "object": "User", "id": id("005", 0), "fields": { "ManagerId": id("005", 2) } })],
            vec![json!({ "op": "update", "object": "Account", "id": id("001", 1), "fields": { "ParentId": null } })],
            vec![json!({ "op": "delete", "object": "Opportunity", "id": id("006", 3) })],
        ])
        .await;
    world.settled(&daemon).await;
}

async fn change(world: &World, op: &str, record: &str, fields: Json) {
    let mut operation = json!({ "op": op, "object": "Account", "id": record });
    if op == "update" {
        operation["fields"] = fields;
    }
    world.commit(&[vec![operation]]).await;
}

async fn row(world: &World, record: &str) -> Option<Row> {
    world
        .rows("company", "salesforce_account_id")
        .await
        .remove(record)
}

async fn seen(
    world: &World,
    daemon: &Daemon,
    record: &str,
    holds: impl Fn(&Row) -> bool,
) -> Duration {
    wait(daemon, async || {
        row(world, record).await.is_some_and(|row| holds(&row))
    })
    .await
}

async fn gone(world: &World, daemon: &Daemon, record: &str) -> Duration {
    wait(daemon, async || row(world, record).await.is_none()).await
}

async fn wait(daemon: &Daemon, holds: impl AsyncFn() -> bool) -> Duration {
    let began = Instant::now();
    while !holds().await {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "it does not come:\n{}",
            daemon.tail()
        );
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    began.elapsed()
}

/// Calls that read records, as the org counted them.
async fn reads(world: &World) -> Vec<(String, Json)> {
    let counts = world.counts().await;
    let calls = counts["calls"]
        .as_object()
        .or(counts["api_calls"].as_object())
        .unwrap();
    calls
        .iter()
        .filter(|(resource, _)| resource.contains("query") || resource.contains("composite"))
        .map(|(resource, count)| (resource.clone(), count.clone()))
        .collect()
}

fn first_id(made: &Json) -> String {
    fn find(json: &Json) -> Option<&str> {
        match json {
            Json::Object(map) => map
                .get("id")
                .and_then(Json::as_str)
                .or_else(|| map.values().find_map(find)),
            Json::Array(list) => list.iter().find_map(|item| {
                item.as_str()
                    .filter(|text| text.len() == 18)
                    .or_else(|| find(item))
            }),
            _ => None,
        }
    }
    find(made)
        .unwrap_or_else(|| panic!("no id in {made}"))
        .to_owned()
}
