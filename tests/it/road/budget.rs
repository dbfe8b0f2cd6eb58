//! The org's calls near their end: full syncs wait, repair goes on, and health says so.

use serde_json::{Value as Json, json};

use super::daemon::Daemon;
use super::data::{id, tables};
use super::world::World;

const RESERVE: &str = "budget = { reserve = \"90%\" }\n";

impl World {
    fn add_to_connection(&self, keys: &str) {
        let file = self.config().join("connections/acme.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(file, format!("{text}{keys}")).unwrap();
    }

    /// The org has so many calls left of its day.
    async fn leave(&self, calls: u64) {
        let used = self.counts().await["api_usage"].as_u64().unwrap();
        let script = json!({ "do": { "kind": "limit_calls", "calls": used + calls } });
        self.control("faults", script).await;
    }

    /// A change whose event tells nothing: the record has to be read by id.
    async fn change_unseen(&self, account: usize, name: &str) {
        let gap = json!({ "on": { "entity": "Account" }, "do": { "kind": "gap" } });
        self.control("faults", gap).await;
        let fields = json!({ "Name": name });
        let update = json!({ "op": "update", "object": "Account", "id": id("001", account), "fields": fields });
        self.commit(&[vec![update]]).await;
    }
}

fn budget(health: &Json) -> &Json {
    &health["connections"]["acme"]["budget"]
}

async fn asked(daemon: &Daemon, object: &str) -> Json {
    let (status, text) = daemon.get("/api/v1/connections/acme/syncs").await;
    assert_eq!(status, 200, "{text}");
    let told: Json = serde_json::from_str(&text).unwrap();
    let objects = told["objects"].as_array().unwrap();
    let one = objects.iter().find(|sync| sync["object"] == object);
    one.unwrap()["asked"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn full_syncs_wait_for_the_orgs_calls_and_repair_goes_on() {
    let world = World::of(&tables(5, 20, 50)).await;
    world.add_to_connection(RESERVE);
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    let told = daemon
        .wait_for("what the limits tell", |health| {
            !budget(health)["deliveries"]["left"].is_null()
        })
        .await;
    assert_eq!(budget(&told)["limit"], 100_000, "{told:#}");
    assert_eq!(budget(&told)["held"], json!([]), "{told:#}");

    // Others spend the day's calls; the next answer tells.
    world.leave(60).await;
    world.change_unseen(1, "read by id").await;
    let held = daemon
        .wait_for("the reserve", |health| {
            budget(health)["held"] == json!(["incremental", "full_sync", "verify"])
        })
        .await;
    assert!(budget(&held)["left"].as_u64().unwrap() <= 60, "{held:#}");
    let gone = id("006", 7);
    let delete = json!({ "op": "hard_delete", "object": "Opportunity", "id": gone });
    world.commit(&[vec![delete]]).await;
    let ask = json!({ "object": "Opportunity" });
    let (status, text) = daemon.post("/api/v1/connections/acme/syncs", &ask).await;
    assert!(status < 300, "{text}");
    for round in 0..3 {
        let name = format!("read by id in round {round}");
        world.change_unseen(2, &name).await;
        daemon.names(&world, 2, &name).await;
    }
    let rows = world.rows("opportunity", "external_id").await;
    assert!(rows.contains_key(&gone), "no full sync has looked");
    assert!(!asked(&daemon, "Opportunity").await.is_null());

    // The window moves on.
    world.leave(99_000).await;
    world.change_unseen(3, "tells of more").await;
    world.settled(&daemon).await;
    let until = std::time::Instant::now() + super::world::PATIENCE;
    while !asked(&daemon, "Opportunity").await.is_null() {
        assert!(std::time::Instant::now() < until, "{}", daemon.tail());
        tokio::time::sleep(super::world::LOOK).await;
    }
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}

impl Daemon {
    /// Waits until an account's row has this name.
    async fn names(&self, world: &World, account: usize, name: &str) {
        let until = std::time::Instant::now() + super::world::PATIENCE;
        loop {
            let rows = world.rows("company", "salesforce_account_id").await;
            let row = rows.get(&id("001", account));
            if row.is_some_and(|row| row["name"] == name) {
                return;
            }
            assert!(
                std::time::Instant::now() < until,
                "`{name}` is not stored\n{}",
                self.tail()
            );
            tokio::time::sleep(super::world::LOOK).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_is_throttled_is_no_success() {
    let world = World::of(&tables(5, 20, 50)).await;
    let busy = json!({ "kind": "status", "status": 429, "retry_after": 1 });
    let on = json!({ "surface": "rest", "path": "/services/data/v66.0/query" });
    let script = json!({ "on": on, "forever": true, "do": busy });
    world.control("faults", script).await;
    let daemon = world.daemon().await;
    let throttled = |health: &Json| health["connections"]["acme"]["fault"]["kind"] == "throttled";
    let health = daemon.wait_for("the refusal", throttled).await;
    let objects = &health["connections"]["acme"]["objects"];
    for object in ["Account", "Opportunity", "User"] {
        assert!(objects[object]["synced_at"].is_null(), "{objects:#}");
    }
    assert_eq!(world.rows("opportunity", "external_id").await.len(), 0);
    let url = format!("{}/_sim/faults", world.org.url);
    world.http.delete(url).send().await.unwrap();
    daemon.synced().await;
    world.settled(&daemon).await;
}
