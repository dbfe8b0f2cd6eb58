//! `kill -9` within a bulk query: the next daemon goes on at the page where the last one stopped, with the same job.

use std::time::Instant;

use serde_json::json;

use super::daemon::Daemon;
use super::data::{id, tables};
use super::world::{LOOK, PATIENCE, World};
use crate::sim;

const PAGE: usize = 400;
const OPPORTUNITIES: usize = 4_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_goes_on_at_its_page_of_results() {
    let world = World::by_bulk(&tables(10, 20, OPPORTUNITIES), PAGE).await;
    // Users and accounts: a look at the job and a page each. Opportunities: a look, a page, and then no answer. After a
    // kill: a look, two pages, and then no answer.
    for answered in [6, 3, 3, 3] {
        let on = json!({ "surface": "bulk", "method": "GET" });
        let stall = json!({ "on": on, "after": answered, "do": { "kind": "stall" } });
        world.control("faults", stall).await;
        let daemon = world.daemon().await;
        stalled(&world, &daemon).await;
        if answered == 6 {
            // A stream that has told no place begins anew after a kill, and what was read before is not believed then.
            for title in ["first", "second"] {
                told(&world, title).await;
            }
        }
        daemon.kill();
    }
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    let calls = world.counts().await["calls"].clone();
    assert_eq!(calls["POST jobs/query"], 3, "a job an object: {calls}");
    assert_eq!(calls["DELETE jobs/query/{job}"], 3, "{calls}");
    let results = &calls["GET jobs/query/{job}/results"];
    assert_eq!(*results, 2 + OPPORTUNITIES / PAGE, "no page twice: {calls}");
    assert_eq!(
        calls["GET jobs/query/{job}"],
        3 + 4,
        "a look a life: {calls}"
    );
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}

/// Waits until the daemon has asked for what is never answered: all before it is durable then.
async fn stalled(world: &World, daemon: &Daemon) {
    let until = Instant::now() + PATIENCE;
    loop {
        let left = sim::told(&world.http, &world.org.url, "faults").await;
        if left["requests"] == json!([]) {
            return;
        }
        assert!(Instant::now() < until, "{left}\n{}", daemon.tail());
        tokio::time::sleep(LOOK).await;
    }
}

/// Has a change come by the stream, and waits until it is stored.
async fn told(world: &World, title: &str) {
    let user = id("005", 3);
    let change =
        json!({ "op": "update", "object": "User", "id": user, "fields": { "Title": title } });
    world.commit(&[vec![change]]).await;
    let until = Instant::now() + PATIENCE;
    loop {
        let users = world.rows("user", "salesforce_user_id").await;
        if users
            .get(&user)
            .is_some_and(|row| row["user_title"] == title)
        {
            return;
        }
        assert!(Instant::now() < until, "`{title}` is not stored");
        tokio::time::sleep(LOOK).await;
    }
}
