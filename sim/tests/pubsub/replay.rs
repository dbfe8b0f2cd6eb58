//! Where a subscription begins: presets, kept positions, and positions that are no good any more.

use serde_json::json;
use tonic::Code;
use tributary_sim::salesforce::pubsub::eventbus::ReplayPreset;

use crate::harness::{ACCOUNTS, ALL, fetch, sim, sim_with, told};

fn corrupted() -> (Code, String) {
    (
        Code::InvalidArgument,
        "subscription.fetch.replayid.corrupted".to_owned(),
    )
}

#[tokio::test]
async fn presets_begin_at_the_tip_at_the_start_or_after_an_event() {
    let sim = sim().await;
    let mut client = sim.client().await;
    sim.accounts(3).await;
    let mut earliest = client.earliest(ALL, 100).await;
    let events = earliest.events(3).await;
    for event in &events {
        assert_eq!(event.replay_id.len(), 10);
        assert_eq!(event.replay_id[8..], [0, 0]);
    }
    assert!(events.is_sorted_by(|a, b| a.replay_id < b.replay_id));
    let mut custom = client.after(ALL, &events[0].replay_id, 100).await;
    assert_eq!(custom.events(2).await, events[1..]);
    let mut latest = client.latest(ALL, 100).await;
    sim.until(|streams| streams.len() == 3).await;
    sim.accounts(1).await;
    let new = latest.events(1).await;
    assert_eq!(earliest.events(1).await, new);
    assert_eq!(custom.events(1).await, new);
}

#[tokio::test]
async fn an_events_number_is_that_of_the_other_surface() {
    let sim = sim().await;
    let mut client = sim.client().await;
    sim.accounts(1).await;
    let mut stream = client.earliest(ALL, 1).await;
    let event = stream.events(1).await.remove(0);
    let number = u64::from_be_bytes(event.replay_id[..8].try_into().unwrap());
    assert_eq!(sim.get("/_sim/stream").await["newest"], number);
}

#[tokio::test]
async fn a_bad_position_is_refused() {
    let sim = sim().await;
    let mut client = sim.client().await;
    sim.accounts(2).await;
    let mut stream = client.earliest(ALL, 2).await;
    let known = stream.events(2).await[0].replay_id.clone();
    let mut other = known.clone();
    other[7] = other[7].wrapping_sub(100);
    for bad in [
        &other[..],
        &known[..8],
        b"x",
        &[0xff; 10],
        &[0; 10],
        &known.repeat(2),
    ] {
        let status = client
            .refused(fetch(ALL, ReplayPreset::Custom, bad, 1))
            .await;
        assert_eq!(told(&status), corrupted(), "{bad:?}");
        assert!(
            status
                .message()
                .starts_with("The Replay ID validation failed.")
        );
    }
    let status = client
        .refused(fetch(ALL, ReplayPreset::Custom, &[], 1))
        .await;
    assert_eq!(
        told(&status),
        (
            Code::InvalidArgument,
            "subscription.fetch.replayid.validation.failed".into()
        )
    );
    let mut unknown = fetch(ALL, ReplayPreset::Latest, &[], 1);
    unknown.replay_preset = 7;
    let status = client.refused(unknown).await;
    assert_eq!(
        told(&status),
        (
            Code::InvalidArgument,
            "subscription.fetch.request.invalid".into()
        )
    );
}

#[tokio::test]
async fn retention_a_cut_and_a_reset_are_refused_alike() {
    let sim = sim().await;
    let mut client = sim.client().await;
    sim.accounts(1).await;
    let mut stream = client.earliest(ALL, 1).await;
    let old = stream.events(1).await[0].replay_id.clone();
    sim.advance(72 * 3600 + 1);
    let expired = client
        .refused(fetch(ALL, ReplayPreset::Custom, &old, 1))
        .await;
    assert_eq!(told(&expired), corrupted());

    sim.accounts(1).await;
    let mut stream = client.earliest(ALL, 1).await;
    let old = stream.events(1).await[0].replay_id.clone();
    sim.script(json!({"do": {"kind": "cut_retention"}})).await;
    let cut = client
        .refused(fetch(ALL, ReplayPreset::Custom, &old, 1))
        .await;
    assert_eq!(told(&cut), corrupted());

    sim.accounts(1).await;
    let mut stream = client.earliest(ALL, 1).await;
    let old = stream.events(1).await[0].replay_id.clone();
    sim.script(json!({"do": {"kind": "reset_stream"}})).await;
    let reset = client
        .refused(fetch(ALL, ReplayPreset::Custom, &old, 1))
        .await;
    assert_eq!(told(&reset), corrupted());
    sim.accounts(1).await;
    let mut stream = client.earliest(ALL, 1).await;
    assert!(stream.events(1).await[0].replay_id < old);
}

#[tokio::test]
async fn a_cut_before_a_keepalives_place_leaves_that_place() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let mut stream = client.latest(ALL, 100).await;
    sim.until(|streams| streams.len() == 1).await;
    sim.accounts(1).await;
    let old = stream.events(1).await[0].replay_id.clone();
    let number = u64::from_be_bytes(old[..8].try_into().unwrap());
    sim.advance(270);
    let mark = stream.answer().await.latest_replay_id;
    assert!(mark > old);
    sim.script(json!({"do": {"kind": "cut_retention", "before": number + 1}}))
        .await;
    let cut = client
        .refused(fetch(ALL, ReplayPreset::Custom, &old, 1))
        .await;
    assert_eq!(told(&cut), corrupted());
    let mut resumed = client.after(ALL, &mark, 1).await;
    sim.accounts(1).await;
    resumed.events(1).await;
}

#[tokio::test]
async fn a_stream_that_is_owed_removed_events_ends() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let mut stream = client.latest(ALL, 1).await;
    sim.until(|streams| streams.len() == 1).await;
    sim.accounts(2).await;
    stream.events(1).await;
    sim.until(|streams| streams[0]["credit"] == 0).await;
    sim.script(json!({"do": {"kind": "cut_retention"}})).await;
    stream.more(1).await;
    assert_eq!(told(&stream.error().await), corrupted());
}

#[tokio::test]
async fn opaque_positions_work_and_are_no_numbers() {
    let sim = sim_with(|options| options.opaque_replay_ids = true).await;
    let mut client = sim.client().await;
    sim.accounts(2).await;
    let mut stream = client.earliest(ACCOUNTS, 10).await;
    let events = stream.events(2).await;
    assert_ne!(events[0].replay_id[8..], [0, 0]);
    assert_ne!(events[0].replay_id[0], 0);
    let mut resumed = client.after(ACCOUNTS, &events[0].replay_id, 10).await;
    assert_eq!(resumed.events(1).await, events[1..]);
}

#[tokio::test]
async fn a_restarted_org_keeps_positions_and_schemas() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    let first = sim_with(|options| options.journal = Some(journal.clone())).await;
    let mut client = first.client().await;
    let mut stream = client.latest(ALL, 100).await;
    first.until(|streams| streams.len() == 1).await;
    first.advance(270);
    let mark = stream.answer().await.latest_replay_id;
    first.accounts(2).await;
    let events = stream.events(2).await;
    first.running.stop().await.unwrap();

    let second = sim_with(|options| options.journal = Some(journal)).await;
    let mut client = second.client().await;
    let mut stream = client.after(ALL, &mark, 100).await;
    assert_eq!(stream.events(2).await, events);
    assert_eq!(client.decode(&events[0]).await["Name"], "A0");
    second.accounts(1).await;
    assert!(stream.events(1).await[0].replay_id > events[1].replay_id);
}
