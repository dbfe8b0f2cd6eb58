//! Replays into the live tables: a changed mapping reaches every row, and what the topic does not know leaves, without a
//! call to the CRM and beside the stream.

use serde_json::{Value as Json, json};

use super::daemon::Daemon;
use super::data::{id, tables};
use super::world::World;

/// A record that the org never had.
const GHOST: usize = 900_000;

async fn settled(world: &World) -> Daemon {
    let daemon = world.daemon().await;
    daemon.synced().await;
    daemon
        .wait_for("the stream", |health| {
            let jobs = health["jobs"]["acme"].as_object();
            health["connections"]["acme"]["state"] == "streaming"
                && jobs.is_some_and(|jobs| jobs.values().all(|job| job["lag_records"] == 0))
        })
        .await;
    daemon
}

fn replay(world: &World, daemon: &Daemon, more: &[&str]) -> (Option<i32>, Json) {
    let told = ["job", "replay", "acme/company_sync", "--json"];
    world.ran(&[&told[..], &["--url", daemon.url()], more].concat())
}

fn preview(world: &World) -> (Option<i32>, Json) {
    let (code, told) = world.ran(&["job", "preview", "acme/company_sync", "--json"]);
    (code, told["jobs"][0]["destinations"][0].clone())
}

async fn calls(world: &World) -> Json {
    world.counts().await["calls"].clone()
}

/// The industry of every company, by the account's id.
async fn industries(world: &World) -> Vec<(String, Json)> {
    let rows = world.rows("company", "salesforce_account_id").await;
    let rows = rows.into_iter();
    rows.map(|(id, row)| (id, row["industry"].clone()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_mapping_reaches_every_row_without_a_call() {
    let world = World::of(&tables(12, 40, 300)).await;
    world.store.let_schemas_be_made().await;
    let daemon = settled(&world).await;
    world.settled(&daemon).await;
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
    let ghost = id("001", GHOST);
    world
        .store
        .plant("company", "salesforce_account_id", &id("001", 2), &ghost)
        .await;
    world.edit(
        "jobs/acme/company_sync.toml",
        "= \"Industry\"",
        "= \"BillingCountry\"",
    );
    let daemon = settled(&world).await;
    // What the daemon itself asks for after a start is asked for.
    world.holes_close(&daemon).await;
    let before = industries(&world).await;
    assert!(before.iter().any(|(id, _)| *id == ghost));
    let counted = calls(&world).await;

    // What it would do is told first, here and by the scratch replay.
    let (code, told) = replay(&world, &daemon, &[]);
    assert_eq!((code, &told["asked"]), (Some(2), &json!(false)), "{told}");
    assert_eq!(told["sweeps"], true, "{told}");
    let (code, differs) = preview(&world);
    assert_eq!((code, &differs["live_only"]), (Some(3), &json!(1)));
    let changes = differs["columns"]["industry"].as_u64().unwrap();
    assert_eq!(industries(&world).await, before, "nothing is done yet");

    let (code, told) = replay(&world, &daemon, &["--yes"]);
    assert_eq!(code, Some(0), "{told}\n{}", daemon.tail());
    let job = &told["jobs"][0];
    assert_eq!(job["replay"]["state"], "done", "{told}");
    assert_eq!(job["rows"]["updated"], changes, "{told}");
    assert_eq!(job["rows"]["deleted"], 1, "{told}");
    let truth = world.truth("Account").await;
    let truth = truth.into_iter();
    let expected: Vec<(String, Json)> = truth
        .map(|(id, account)| (id, account["BillingCountry"].clone()))
        .collect();
    assert_eq!(industries(&world).await, expected);
    let (code, differs) = preview(&world);
    assert_eq!(code, Some(0), "as a scratch replay makes it: {differs}");
    assert_eq!(
        calls(&world).await,
        counted,
        "a replay asks the CRM for nothing"
    );

    // Again, while the org goes on changing: nothing is lost, and nothing older comes back.
    for round in 0..10 {
        let name = format!("Renamed {round}");
        let rename = |number| json!({ "op": "update", "object": "Account", "id": id("001", number), "fields": { "Name": name } });
        world.commit(&[(0..20).map(rename).collect()]).await;
        if round == 4 {
            let (code, told) = replay(&world, &daemon, &["--yes"]);
            assert_eq!(code, Some(0), "{told}");
            assert_eq!(told["jobs"][0]["rows"].get("deleted"), None, "{told}");
        }
    }
    let renamed = async || {
        let rows = world.rows("company", "salesforce_account_id").await;
        (0..20).all(|number| rows[&id("001", number)]["name"] == "Renamed 9")
    };
    world.until("the last names", renamed).await;
    assert_eq!(preview(&world).0, Some(0));
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}

/// Killed in the middle of it, the daemon goes on with the replay by itself; a brake stops the sweep, and a stop ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_goes_on_after_a_kill_and_stops_at_a_brake() {
    let world = World::of(&tables(12, 40, 1_200)).await;
    let daemon = settled(&world).await;
    world.settled(&daemon).await;
    daemon.kill();
    for number in 0..6 {
        let (from, ghost) = (id("001", number), id("001", GHOST + number));
        world
            .store
            .plant("company", "salesforce_account_id", &from, &ghost)
            .await;
    }
    world.edit(
        "jobs/acme/opportunity_sync.toml",
        "= \"StageName\"",
        "= \"Type\"",
    );
    // A tenth of the companies may go, and no fewer than these stop it.
    world.edit(
        "jobs/acme/company_sync.toml",
        "on_delete = \"delete\"",
        "on_delete = \"delete\"\nbrakes = { min_rows = 1 }",
    );
    let daemon = settled(&world).await;
    let path = "/api/v1/jobs/acme/opportunity_sync/replay";
    let (status, text) = daemon.post(path, &json!({})).await;
    assert_eq!(status, 200, "{text}");
    let (status, text) = daemon.post(path, &json!({})).await;
    assert_eq!(status, 400, "one at a time: {text}");
    daemon.kill();
    let daemon = settled(&world).await;
    let stages = async || {
        let rows = world.rows("opportunity", "external_id").await;
        rows.len() == 1_200 && rows.values().all(|row| row["stage"] == row["type"])
    };
    world.until("the new mapping in every row", stages).await;

    let (code, told) = replay(&world, &daemon, &["--yes"]);
    assert_eq!(code, Some(1), "{told}");
    let paused = told["jobs"][0]["paused"].as_str().unwrap();
    assert!(
        paused.contains("would delete or mark 6 of 46 rows"),
        "{paused}"
    );
    let rows = world.rows("company", "salesforce_account_id").await;
    assert_eq!(rows.len(), 46, "nobody left");
    let (code, told) = replay(&world, &daemon, &["--stop"]);
    assert_eq!((code, &told["jobs"][0]["changed"]), (Some(0), &json!(true)));
    let resumed = world.command(&[
        "job",
        "resume",
        "acme/company_sync",
        "--json",
        "--url",
        daemon.url(),
    ]);
    assert_eq!(resumed["changed"], true, "{resumed}");
    assert_eq!(resumed["job"]["replay"]["state"], "failed", "{resumed}");
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
    let rows = world.rows("company", "salesforce_account_id").await;
    assert_eq!(rows.len(), 46, "nobody left");
}
