//! A first look at an org: some records of each object, and the others once somebody asks for them.

use serde_json::{Value as Json, json};

use super::data::{id, tables};
use super::world::World;

fn one(synced: &Json, object: &str) -> Json {
    let objects = synced["objects"].as_array().unwrap();
    let found = objects.iter().find(|sync| sync["object"] == object);
    found.unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_sync_has_a_limit_until_all_are_asked_for() {
    let world = World::of(&tables(30, 40, 500)).await;
    // No daemon runs: the wish is kept.
    let kept = world.command(&["sync", "acme", "--limit", "7", "--json"]);
    assert_eq!(kept["kept"], true, "{kept:#}");
    let daemon = world.daemon().await;
    let ask = |object: &'static str, more: &[&'static str]| {
        let mut ask = vec!["sync", "acme", object, "--json", "--url", daemon.url()];
        ask.extend(more);
        world.command(&ask)
    };
    let seen = ask("Opportunity", &["--limit", "9"]);
    let standing = one(&seen, "Opportunity");
    assert_eq!(standing["sampled"], true, "{seen:#}");
    assert_eq!(standing["synced_at"], Json::Null, "{seen:#}");
    daemon
        .wait_for("the rows", |health| {
            let jobs = &health["jobs"]["acme"];
            jobs["opportunity_sync"]["rows"]["inserted"].as_u64() >= Some(9)
                && jobs["user_sync"]["rows"]["inserted"] == 7
                && jobs["company_sync"]["rows"]["inserted"] == 7
        })
        .await;
    let stored = world.rows("opportunity", "external_id").await.len();
    assert!((9..=16).contains(&stored), "{stored} rows");
    // A restart reads nothing more.
    drop(daemon.stop());
    let daemon = world.daemon().await;
    let streams = |health: &Json| health["connections"]["acme"]["state"] == "streaming";
    daemon.wait_for("the stream", streams).await;
    // What changes is stored all the same.
    let update = json!({ "op": "update", "object": "Account", "id": id("001", 33), "fields": { "Name": "Changed" } });
    world.commit(&[vec![update]]).await;
    daemon
        .wait_for("the change", |health| {
            health["jobs"]["acme"]["company_sync"]["rows"]["inserted"] == 1
        })
        .await;
    assert_eq!(world.rows("user", "salesforce_user_id").await.len(), 7);

    let all = ["sync", "acme", "--json", "--url", daemon.url()];
    let synced = world.command(&all);
    for object in ["Account", "Opportunity", "User"] {
        let standing = one(&synced, object);
        assert_eq!(standing["asked"], Json::Null, "{synced:#}");
        assert!(!standing["synced_at"].is_null(), "{synced:#}");
    }
    world.settled(&daemon).await;
    // Of a synced object some records are read again, and that is all.
    let again = [
        "sync",
        "acme",
        "User",
        "--limit",
        "3",
        "--json",
        "--url",
        daemon.url(),
    ];
    let again = world.command(&again);
    assert_eq!(one(&again, "User")["asked"], Json::Null, "{again:#}");
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}
