//! What an operator is told when something is wrong: the thing, the value, the remedy; and what the daemon keeps.

use serde_json::json;

use super::daemon::Daemon;
use super::data::{id, tables};
use super::world::{SECRET, World};

fn fault(health: &serde_json::Value) -> String {
    health["connections"]["acme"]["fault"]["text"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_revokes_and_keeps_everything() {
    let world = World::of(&tables(3, 5, 5)).await;
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    drop(daemon.stop());
    let mut daemon = Daemon::spawn(
        &world.config(),
        &world.http,
        &[("ACME_SECRET", "wrong-secret")],
    );
    daemon.serving().await;
    let health = daemon
        .wait_for("the refusal", |health| {
            health["connections"]["acme"]["state"] == "revoked"
        })
        .await;
    let text = fault(&health);
    assert!(text.contains("acme") || text.contains("client"), "{text}");
    assert!(text.contains("remedy"), "{text}");
    assert!(
        !daemon.lines().join("\n").contains("wrong-secret"),
        "a secret is never logged"
    );
    assert_eq!(
        daemon.get("/readyz").await.0,
        200,
        "one revoked org takes nothing out of service"
    );
    drop(daemon.stop());
    let daemon = world.daemon().await;
    world
        .commit(&[vec![json!({ "op": "update", "object": "Account", "id": id("001", 1), "fields": { "Name": "Back" } })]])
        .await;
    world.settled(&daemon).await;
    assert!(!daemon.lines().join("\n").contains(SECRET));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_org_is_retried_and_named() {
    let world = World::of(&tables(3, 5, 5)).await;
    // A port that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    world.write_config(&format!("http://{free}"));
    let daemon = world.daemon().await;
    let health = daemon
        .wait_for("the fault", |health| {
            health["connections"]["acme"]["state"] == "retrying"
        })
        .await;
    assert!(
        fault(&health).contains(&free.to_string()),
        "{}",
        fault(&health)
    );
    assert_eq!(daemon.get("/healthz").await.0, 200);
    drop(daemon.stop());
    world.write_config(&world.org.url);
    let daemon = world.daemon().await;
    world.settled(&daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_field_is_named_with_its_object() {
    let world = World::of(&tables(3, 5, 5)).await;
    let job = world.config().join("jobs/acme/company_sync.toml");
    let text = std::fs::read_to_string(&job)
        .unwrap()
        .replace("\"Industry\"", "\"Industri\"");
    std::fs::write(&job, text).unwrap();
    let daemon = world.daemon().await;
    let health = daemon
        .wait_for("the fault", |health| {
            !health["connections"]["acme"]["fault"].is_null()
        })
        .await;
    let text = fault(&health);
    assert!(
        text.contains("Industri") && text.contains("Account"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_config_is_told_whole_and_starts_nothing() {
    let world = World::of(&tables(3, 5, 5)).await;
    let job = world.config().join("jobs/acme/company_sync.toml");
    let text = std::fs::read_to_string(&job).unwrap();
    std::fs::write(
        &job,
        text.replace("employees =", "employes =")
            .replace("on_delete", "on_delite"),
    )
    .unwrap();
    std::fs::write(
        world.config().join("tributary.toml"),
        "[admin]\nlisten = 8080\n",
    )
    .unwrap();
    let daemon = Daemon::spawn(&world.config(), &world.http, &[("ACME_SECRET", SECRET)]);
    let (status, lines) = daemon.ended();
    assert_eq!(status.code(), Some(2), "{lines}");
    for part in [
        "employes",
        "on_delite",
        "listen",
        "company_sync.toml:",
        "tributary.toml:2",
    ] {
        assert!(lines.contains(part), "no `{part}` in\n{lines}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_retried_and_loses_nothing() {
    let world = World::of(&tables(20, 100, 6_000)).await;
    let mut daemon = Daemon::on_a_small_disk(&world.config(), &world.http, 900);
    daemon.serving().await;
    let health = daemon
        .wait_for("a fault of the disk", |health| {
            let mut faults = vec![fault(health)];
            let jobs = health["jobs"]["acme"].as_object().into_iter().flatten();
            faults.extend(
                jobs.map(|(_, job)| job["fault"]["text"].as_str().unwrap_or_default().to_owned()),
            );
            faults.iter().any(|text| text.contains(".db"))
        })
        .await;
    let told = health.to_string();
    assert!(told.contains("\"kind\":\"storage\""), "{told}");
    assert!(told.contains("disk"), "the remedy names the disk: {told}");
    assert_eq!(
        daemon.get("/healthz").await.0,
        200,
        "it lives and tries again"
    );
    drop(daemon.stop());
    let daemon = world.daemon().await;
    world.settled(&daemon).await;
}
