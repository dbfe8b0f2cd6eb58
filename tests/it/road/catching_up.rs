//! A daemon that was away: it goes on from its replay id, or opens a hole and repairs it.

use serde_json::{Value as Json, json};

use super::data::{id, tables};
use super::world::World;

async fn changes(world: &World, count: usize) {
    for number in (0..count).step_by(200) {
        let batch: Vec<Vec<Json>> = (number..(number + 200).min(count))
            .map(|number| {
                vec![
                    json!({ "op": "update", "object": "Account", "id": id("001", number % 500),
                             "fields": { "NumberOfEmployees": 100_000 + number } }),
                ]
            })
            .collect();
        world.commit(&batch).await;
    }
}

async fn rename(world: &World) {
    world
        .commit(&[vec![
            json!({ "op": "update", "object": "Account", "id": id("001", 1),
                               "fields": { "Name": "Renamed" } }),
        ]])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_changes_are_caught_up_from_the_replay_id() {
    let world = World::of(&tables(5, 500, 20)).await;
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    // One event, so that there is a replay id to go on from.
    rename(&world).await;
    world.settled(&daemon).await;
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
    changes(&world, 10_000).await;
    let daemon = world.daemon().await;
    world.settled(&daemon).await;
    let health = daemon.health().await;
    let connection = &health["connections"]["acme"];
    assert_eq!(connection["open_holes"], 0);
    assert_eq!(
        connection["objects"]["Account"]["published"], 10_000,
        "each event once, and no read"
    );
    let holes = world.command(&["holes", "--all", "--json"]);
    assert_eq!(holes, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn past_retention_a_hole_opens_and_a_read_closes_it() {
    let world = World::of(&tables(5, 500, 20)).await;
    let daemon = world.daemon().await;
    daemon.synced().await;
    rename(&world).await;
    world.settled(&daemon).await;
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
    changes(&world, 300).await;
    world
        .commit(&[
            vec![json!({ "op": "delete", "object": "Account", "id": id("001", 350) })],
            vec![json!({ "op": "create", "object": "Account", "fields": { "Name": "Missed" } })],
        ])
        .await;
    world
        .control("faults", json!({ "do": { "kind": "cut_retention" } }))
        .await;
    let daemon = world.daemon().await;
    world.holes_close(&daemon).await;
    world.settled(&daemon).await;
    let holes = world.command(&["holes", "--all", "--json"]);
    let holes = holes.as_array().unwrap();
    assert_eq!(holes.len(), 3, "one an object: {holes:?}");
    for hole in holes {
        assert_eq!(
            (&hole["cause"], &hole["state"]),
            (&json!("expired_position"), &json!("closed"))
        );
        assert!(!hole["evidence"].is_null());
    }
}
