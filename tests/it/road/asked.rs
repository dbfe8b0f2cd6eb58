//! A full sync that somebody asks for finds what no event told.

use serde_json::{Value as Json, json};

use super::daemon::Daemon;
use super::data::{id, tables};
use super::world::{LOOK, PATIENCE, World};

/// The job's runs, beside the daemon and from it: the first full sync, the one that was asked for, and nothing else but
/// what came in real time.
async fn runs_tell(world: &World, daemon: &Daemon) {
    let until = std::time::Instant::now() + PATIENCE;
    let runs = loop {
        let runs = world.command(&["runs", "acme/opportunity_sync", "--json"]);
        let syncs: Vec<Json> = runs.as_array().unwrap().clone();
        let syncs: Vec<Json> = syncs
            .into_iter()
            .filter(|run| run["cause"] != "stream")
            .collect();
        if syncs.len() == 2 && syncs.iter().all(|run| run["state"] == "success") {
            break syncs;
        }
        assert!(
            std::time::Instant::now() < until,
            "{runs:#}\n{}",
            daemon.tail()
        );
        tokio::time::sleep(LOOK).await;
    };
    let asked = &runs[0];
    assert_eq!(
        (&asked["cause"], &asked["rows_read"]),
        (&json!("asked"), &json!(49))
    );
    assert_eq!(asked["rows"], json!({ "deleted": 1 }), "{asked:#}");
    assert!(asked["ended"].is_string());
    let first = &runs[1];
    assert_eq!(
        (&first["cause"], &first["rows_read"]),
        (&json!("first"), &json!(50))
    );
    let (status, text) = daemon
        .get("/api/v1/runs?connection=acme&job=opportunity_sync")
        .await;
    assert_eq!(status, 200, "{text}");
    let told: Json = serde_json::from_str(&text).unwrap();
    let id = |run: &Json| run["id"].as_str().unwrap().to_owned();
    let told: Vec<String> = told.as_array().unwrap().iter().map(id).collect();
    assert!(runs.iter().all(|run| told.contains(&id(run))), "{told:?}");
}

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
    runs_tell(&world, &daemon).await;
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
