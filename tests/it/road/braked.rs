//! Brakes: a run that would do too much stops the job, says why, and waits for a yes through `kill -9`.

use std::time::Instant;

use serde_json::{Value as Json, json};

use super::daemon::Daemon;
use super::data::{id, tables};
use super::world::{LOOK, PATIENCE, World};

/// What the job of that name is paused for, once a brake has stopped it.
async fn braked(daemon: &Daemon, job: &str) -> String {
    let health = daemon
        .wait_for("the brake", |health| {
            let job = &health["jobs"]["acme"][job];
            job["state"] == "paused" && job["paused"]["brake"] == true
        })
        .await;
    let paused = &health["jobs"]["acme"][job]["paused"];
    assert_eq!(paused["by"], "brake");
    let metrics = daemon.get("/metrics").await.1;
    let gauge = format!("tributary_job_braked{{connection=\"acme\",sync_job=\"{job}\"}} 1");
    assert!(metrics.contains(&gauge), "{metrics}");
    paused["reason"].as_str().unwrap().to_owned()
}

fn resume(world: &World, daemon: &Daemon, job: &str, accept: bool) {
    let job = format!("acme/{job}");
    let mut told = vec![
        "job",
        "resume",
        job.as_str(),
        "--json",
        "--url",
        daemon.url(),
    ];
    told.extend(accept.then_some("--accept"));
    let done = world.command(&told);
    assert_eq!(done["changed"], true, "{done:#}");
}

/// Says yes, and yes again to what was not in the topic yet when the job stopped, until all is applied.
async fn accept(world: &World, daemon: &Daemon, job: &str, done: impl AsyncFn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done().await {
        let path = format!("/api/v1/jobs/acme/{job}/resume");
        // Refused while no brake has stopped it.
        daemon.post(&path, &json!({ "accept": true })).await;
        assert!(Instant::now() < until, "{}", daemon.tail());
        tokio::time::sleep(LOOK).await;
    }
}

/// Opportunities that are not there any more in the org and are in the store.
async fn left(world: &World) -> usize {
    world.rows("opportunity", "external_id").await.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_beyond_the_line_wait_for_a_yes() {
    let world = World::of(&tables(5, 20, 50)).await;
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    let delete =
        |number| json!({ "op": "delete", "object": "Opportunity", "id": id("006", number) });
    world.commit(&[(0..30).map(delete).collect()]).await;
    let reason = braked(&daemon, "opportunity_sync").await;
    assert!(
        reason.contains("of 50 rows: max_delete_percent = 10 lets 20 pass"),
        "{reason}"
    );
    assert!(left(&world).await >= 30, "no more than 20 went");
    daemon.kill();

    let daemon = world.daemon().await;
    assert_eq!(braked(&daemon, "opportunity_sync").await, reason);
    // Judged again, it is too much still.
    resume(&world, &daemon, "opportunity_sync", false);
    braked(&daemon, "opportunity_sync").await;
    assert!(left(&world).await >= 30);
    accept(&world, &daemon, "opportunity_sync", async || {
        left(&world).await == 20
    })
    .await;
    world.settled(&daemon).await;
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_emptied_beyond_the_line_wait_for_a_yes() {
    let world = World::of(&tables(5, 20, 50)).await;
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    let amounts = async || {
        let rows = world.rows("opportunity", "external_id").await;
        rows.values().filter(|row| !row["amount"].is_null()).count()
    };
    let before = amounts().await;
    let empty = |number| {
        let fields = json!({ "Amount": null });
        json!({ "op": "update", "object": "Opportunity", "id": id("006", number), "fields": fields })
    };
    // Every fourth has no amount.
    let emptied: Vec<Json> = (0..40)
        .filter(|number| number % 4 != 3)
        .map(empty)
        .collect();
    assert_eq!(emptied.len(), 30);
    world.commit(&[emptied]).await;
    let reason = braked(&daemon, "opportunity_sync").await;
    assert!(reason.contains("would empty a column of"), "{reason}");
    assert!(
        reason.contains("max_null_percent = 50 lets 20 pass"),
        "{reason}"
    );
    assert!(amounts().await >= before - 20);
    resume(&world, &daemon, "opportunity_sync", true);
    let done = async || amounts().await == before - 30;
    accept(&world, &daemon, "opportunity_sync", done).await;
    world.settled(&daemon).await;
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}
