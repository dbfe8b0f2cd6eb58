//! The first sync of an org whose rows all share one stamp.

use super::data::tables;
use super::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn the_store_becomes_the_org() {
    let world = World::of(&tables(41, 85, 8_800)).await;
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    let counts = [
        world.rows("user", "salesforce_user_id").await.len(),
        world.rows("company", "salesforce_account_id").await.len(),
        world.rows("opportunity", "external_id").await.len(),
    ];
    assert_eq!(counts, [41, 85, 8_800]);
    let managed = world
        .rows("user", "salesforce_user_id")
        .await
        .values()
        .filter(|row| !row["manager"].is_null())
        .count();
    assert_eq!(managed, 35);
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_metrics_and_probes_tell_the_truth() {
    let world = World::of(&tables(10, 20, 50)).await;
    let daemon = world.daemon().await;
    assert_eq!(daemon.get("/healthz").await.0, 200);
    assert_eq!(daemon.get("/readyz").await.0, 200);
    daemon.synced().await;
    world.settled(&daemon).await;
    let health = daemon
        .wait_for("the jobs' rows", |health| {
            health["jobs"]["acme"]["opportunity_sync"]["rows"]["inserted"] == 50
        })
        .await;
    assert_eq!(health["connections"]["acme"]["state"], "streaming");
    assert_eq!(health["connections"]["acme"]["open_holes"], 0);
    let due = [
        "tributary_rows_read_total{connection=\"acme\",object=\"Opportunity\"} 50",
        "tributary_changes_published_total{connection=\"acme\",object=\"Account\",origin=\"snapshot\"} 20",
        "tributary_rows_applied_total{connection=\"acme\",sync_job=\"user_sync\",outcome=\"inserted\"} 10",
        "tributary_state{connection=\"acme\",state=\"streaming\"} 1",
        "tributary_lag_records{connection=\"acme\",sync_job=\"company_sync\"} 0",
    ];
    let began = std::time::Instant::now();
    loop {
        // Gauges follow the state once a second.
        let (status, text) = daemon.get("/metrics").await;
        assert_eq!(status, 200);
        let missing: Vec<_> = due.iter().filter(|line| !text.contains(**line)).collect();
        if missing.is_empty() {
            break;
        }
        assert!(began.elapsed().as_secs() < 30, "no {missing:?} in\n{text}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let (_, text) = daemon.get("/metrics").await;
    let left = text
        .lines()
        .find_map(|line| line.strip_prefix("tributary_crm_calls_left{connection=\"acme\"} "))
        .and_then(|left| left.parse::<u64>().ok())
        .unwrap();
    let used = world.counts().await["api_usage"].as_u64().unwrap();
    // Of the simulator's 100,000; calls that came after the page was made are counted too.
    assert!(
        left < 100_000 && left + used >= 100_000,
        "{left} left, {used} used"
    );
    let (_, page) = daemon.get("/").await;
    assert!(page.contains("<title>Tributary</title>"));
}
