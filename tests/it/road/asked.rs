//! A full sync that somebody asks for finds what no event told.

use serde_json::{Value as Json, json};

use super::data::{id, tables};
use super::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_is_asked_for_finds_a_hard_delete() {
    let world = World::of(&tables(5, 20, 50)).await;
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    let gone = id("006", 7);
    let delete = json!({ "op": "hard_delete", "object": "Opportunity", "id": gone });
    world.commit(&[vec![delete]]).await;
    let ask = [
        "sync",
        "acme",
        "Opportunity",
        "--json",
        "--url",
        daemon.url(),
    ];
    let synced = world.command(&ask);
    let objects = synced["objects"].as_array().unwrap();
    let one = |object: &str| {
        let found = objects.iter().find(|sync| sync["object"] == object);
        found.unwrap().clone()
    };
    assert_eq!(one("Opportunity")["asked"], Json::Null, "{synced:#}");
    world.settled(&daemon).await;
    let (status, text) = daemon
        .post(
            "/api/v1/connections/acme/syncs",
            &json!({ "object": "Case" }),
        )
        .await;
    assert_eq!(status, 404, "{text}");
    assert!(text.contains("Account, Opportunity, User"), "{text}");
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}
