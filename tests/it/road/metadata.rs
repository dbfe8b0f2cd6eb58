//! Descriptions outlive a restart, are read anew when asked for, and a field that is gone is told by name.

use serde_json::{Value as Json, json};

use super::data::{id, tables};
use super::world::World;

const DESCRIBE: &str = "GET sobjects/{object}/describe";

impl World {
    async fn describes(&self) -> u64 {
        self.counts().await["calls"][DESCRIBE]
            .as_u64()
            .unwrap_or_default()
    }

    fn in_company_job(&self, keys: &str) {
        let job = self.config().join("jobs/acme/company_sync.toml");
        let text = std::fs::read_to_string(&job).unwrap();
        std::fs::write(
            job,
            text.replacen("[to.Company]", &format!("{keys}[to.Company]"), 1),
        )
        .unwrap();
    }

    /// The connection's user may no longer see a field, or may again.
    async fn hide(&self, field: &str, hidden: bool) {
        let path = format!("fields/Account/{field}");
        self.control(&path, json!({ "visible": !hidden })).await;
    }
}

fn lost(health: &Json) -> &Json {
    &health["connections"]["acme"]["objects"]["Account"]["lost_fields"]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_asks_for_no_description_and_a_refresh_for_all() {
    let world = World::of(&tables(5, 20, 50)).await;
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    assert_eq!(world.describes().await, 3);
    drop(daemon.stop());
    let daemon = world.daemon().await;
    let streams = |health: &Json| health["connections"]["acme"]["state"] == "streaming";
    daemon.wait_for("the stream", streams).await;
    assert_eq!(world.describes().await, 3, "they were kept");
    let before = world.command(&["metadata", "list", "acme", "--json", "--url", daemon.url()]);
    let after = world.command(&[
        "metadata",
        "refresh",
        "acme",
        "--json",
        "--url",
        daemon.url(),
    ]);
    assert_eq!(world.describes().await, 6);
    for number in 0..3 {
        let at = |told: &Json| {
            told["objects"][number]["described_at"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        assert!(at(&after) > at(&before), "{before:#} {after:#}");
        assert_eq!(after["objects"][number]["lost_fields"], json!([]));
    }
    daemon.wait_for("the stream", streams).await;
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_is_gone_is_named_and_the_job_goes_on_without_it() {
    let world = World::of(&tables(5, 20, 50)).await;
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    world.hide("Industry", true).await;
    // A record that has to be read finds it out.
    let gap = json!({ "on": { "entity": "Account" }, "do": { "kind": "gap" } });
    world.control("faults", gap).await;
    let rename = |name: &str| json!({ "op": "update", "object": "Account", "id": id("001", 3), "fields": { "Name": name } });
    world.commit(&[vec![rename("without")]]).await;
    daemon
        .wait_for("the lost field", |health| {
            *lost(health) == json!(["Industry"])
        })
        .await;
    let named = |rows: &std::collections::BTreeMap<String, super::store::Row>, name: &str| {
        rows[&id("001", 3)]["name"] == name
    };
    let began = std::time::Instant::now();
    while !named(
        &world.rows("company", "salesforce_account_id").await,
        "without",
    ) {
        assert!(
            began.elapsed() < super::world::PATIENCE,
            "{}",
            daemon.tail()
        );
        tokio::time::sleep(super::world::LOOK).await;
    }
    let rows = world.rows("company", "salesforce_account_id").await;
    assert!(
        !rows[&id("001", 3)]["industry"].is_null(),
        "the column stays as it is"
    );
    assert_eq!(
        daemon.health().await["jobs"]["acme"]["company_sync"]["paused"],
        Json::Null
    );
    // A restart knows that it was there once.
    drop(daemon.stop());
    let daemon = world.daemon().await;
    daemon
        .wait_for("the lost field after a restart", |health| {
            *lost(health) == json!(["Industry"])
                && health["connections"]["acme"]["state"] == "streaming"
        })
        .await;
    // It comes back: all records are read for it.
    let change = json!({ "op": "update", "object": "Account", "id": id("001", 4), "fields": { "Industry": "unseen" } });
    world.commit(&[vec![change]]).await;
    world.hide("Industry", false).await;
    let refreshed = world.command(&[
        "metadata",
        "refresh",
        "acme",
        "--json",
        "--url",
        daemon.url(),
    ]);
    assert!(refreshed["objects"].is_array(), "{refreshed:#}");
    daemon
        .wait_for("the field", |health| *lost(health) == json!([]))
        .await;
    world.settled(&daemon).await;
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_says_so_pauses_when_a_field_is_gone() {
    let world = World::of(&tables(5, 20, 50)).await;
    world.in_company_job("on_lost_field = \"pause\"\n");
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    world.hide("Industry", true).await;
    world.command(&[
        "metadata",
        "refresh",
        "acme",
        "--no-wait",
        "--json",
        "--url",
        daemon.url(),
    ]);
    let health = daemon
        .wait_for("the pause", |health| {
            health["jobs"]["acme"]["company_sync"]["state"] == "paused"
        })
        .await;
    let paused = &health["jobs"]["acme"]["company_sync"]["paused"];
    assert_eq!(paused["by"], "tributary", "{paused:#}");
    assert!(
        paused["reason"].as_str().unwrap().contains("Industry"),
        "{paused:#}"
    );
    assert_eq!(health["jobs"]["acme"]["user_sync"]["paused"], Json::Null);
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}
