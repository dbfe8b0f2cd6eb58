//! Orders to jobs, by command and over HTTP: a pause holds through `kill -9`, and the job goes on where it stopped.

use serde_json::{Value as Json, json};

use super::daemon::Daemon;
use super::data::{id, tables};
use super::world::World;

const PATH: &str = "/api/v1/jobs/acme/company_sync";

async fn paused(daemon: &Daemon) -> Json {
    let health = daemon
        .wait_for("the pause", |health| {
            health["jobs"]["acme"]["company_sync"]["state"] == "paused"
        })
        .await;
    health["jobs"]["acme"]["company_sync"]["paused"].clone()
}

/// Renames a company, and an opportunity of it; waits until the store holds the second and not the first.
async fn only_the_opportunity_moves(world: &World, daemon: &Daemon, name: &str) {
    let (company, opportunity) = (id("001", 3), id("006", 3));
    let update = |object: &str, id: &str| json!({ "op": "update", "object": object, "id": id, "fields": { "Name": name } });
    let step = vec![
        update("Account", &company),
        update("Opportunity", &opportunity),
    ];
    world.commit(&[step]).await;
    // The company's change lies in its topic.
    daemon
        .wait_for("the company's change", |health| {
            let published = &health["connections"]["acme"]["objects"]["Account"]["published"];
            published.as_u64().is_some_and(|published| published > 0)
        })
        .await;
    let until = std::time::Instant::now() + super::world::PATIENCE;
    loop {
        let differences = world.differences().await;
        if let [only] = &differences[..]
            && only.starts_with(&format!("company {company}"))
        {
            return;
        }
        assert!(
            std::time::Instant::now() < until,
            "{differences:?}\n{}",
            daemon.tail()
        );
        tokio::time::sleep(super::world::LOOK).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_job_stays_paused_through_a_kill_and_goes_on_where_it_stopped() {
    let world = World::of(&tables(5, 20, 50)).await;
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    let pause = [
        "job",
        "pause",
        "acme/company_sync",
        "--reason",
        "month's end",
        "--json",
        "--url",
        daemon.url(),
    ];
    assert_eq!(world.command(&pause)["changed"], true);
    assert_eq!(paused(&daemon).await["reason"], "month's end");
    let again = world.command(&pause);
    assert_eq!(again["changed"], false, "{again:#}");
    let metrics = daemon.get("/metrics").await.1;
    let gauge = "tributary_job_paused{connection=\"acme\",sync_job=\"company_sync\"} 1";
    assert!(metrics.contains(gauge), "{metrics}");
    only_the_opportunity_moves(&world, &daemon, "Once").await;
    daemon.kill();

    let daemon = world.daemon().await;
    assert_eq!(paused(&daemon).await["reason"], "month's end");
    only_the_opportunity_moves(&world, &daemon, "Twice").await;
    let jobs = world.command(&["jobs", "--json", "--url", daemon.url()]);
    let states: Vec<_> = jobs.as_array().unwrap().iter().collect();
    let told: Vec<_> = states
        .iter()
        .map(|job| (job["job"].as_str().unwrap(), job["paused"].is_null()))
        .collect();
    let expected = [
        ("company_sync", false),
        ("opportunity_sync", true),
        ("user_sync", true),
    ];
    assert_eq!(told, expected, "{jobs:#}");

    let (status, done) = daemon.post(&format!("{PATH}/resume"), &json!({})).await;
    assert_eq!(status, 200, "{done}");
    world.settled(&daemon).await;
    let health = daemon.health().await;
    let job = &health["jobs"]["acme"]["company_sync"];
    assert_eq!(
        (&job["paused"], &job["dead_letters"]),
        (&Json::Null, &json!(0))
    );
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_makes_no_sense_is_refused_with_its_remedy() {
    let world = World::of(&tables(5, 20, 50)).await;
    let daemon = world.daemon().await;
    let (status, text) = daemon
        .post("/api/v1/jobs/acme/nothing/pause", &json!({}))
        .await;
    assert_eq!(status, 404, "{text}");
    assert!(text.contains("acme/company_sync"), "{text}");
    let long = json!({ "reason": "x".repeat(501) });
    let pause = format!("{PATH}/pause");
    assert_eq!(daemon.post(&pause, &long).await.0, 400);
    // What a page of another site can send without being asked for leave.
    let plain = world.http.post(format!("{}{pause}", daemon.url()));
    let plain = plain.header("content-type", "text/plain").body("{}");
    assert_eq!(plain.send().await.unwrap().status().as_u16(), 415);
    let jobs = world.command(&["jobs", "--json", "--url", daemon.url()]);
    let mut jobs = jobs.as_array().unwrap().iter();
    assert!(jobs.all(|job| job["paused"].is_null()));
}
