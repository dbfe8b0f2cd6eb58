//! Flow control: credit, keepalives, and streams that starve.

use tonic::Code;

use crate::harness::{ACCOUNTS, ALL, fetch, sim, sim_with, told};
use tributary_sim::salesforce::pubsub::eventbus::ReplayPreset;

#[tokio::test]
async fn no_more_comes_than_was_asked_for() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let mut stream = client.latest(ALL, 3).await;
    sim.until(|streams| streams.len() == 1).await;
    sim.accounts(5).await;
    let mut left = 3;
    while left > 0 {
        let answer = stream.answer().await;
        left -= i32::try_from(answer.events.len()).unwrap();
        assert_eq!(answer.pending_num_requested, left);
        let last = answer.events.last().unwrap();
        assert_eq!(answer.latest_replay_id, last.replay_id);
    }
    sim.until(|streams| streams[0]["credit"] == 0).await;
    stream.more(1).await;
    assert_eq!(stream.events(1).await.len(), 1);
    stream.more(50).await;
    assert_eq!(stream.events(1).await.len(), 1);
}

#[tokio::test]
async fn a_hundred_are_outstanding_at_most() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let mut stream = client.latest(ALL, 5000).await;
    sim.until(|streams| streams.len() == 1 && streams[0]["credit"] == 100)
        .await;
    sim.accounts(1).await;
    assert_eq!(stream.answer().await.pending_num_requested, 99);
    stream.more(80).await;
    sim.until(|streams| streams[0]["credit"] == 100).await;
}

#[tokio::test]
async fn silence_ends_after_270_seconds_with_a_fresh_position() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let mut stream = client.latest(ACCOUNTS, 10).await;
    sim.until(|streams| streams.len() == 1).await;
    sim.advance(269);
    sim.create("Contact", serde_json::json!({"LastName": "x"}))
        .await;
    sim.advance(1);
    let first = stream.answer().await;
    assert!(first.events.is_empty());
    assert_eq!(first.pending_num_requested, 10);
    sim.advance(270);
    let second = stream.answer().await;
    assert!(second.events.is_empty());
    assert!(second.latest_replay_id > first.latest_replay_id);
    // Both are good to begin from, the second for longer than any event is.
    sim.accounts(1).await;
    for position in [&first.latest_replay_id, &second.latest_replay_id] {
        let mut resumed = client.after(ACCOUNTS, position, 10).await;
        assert_eq!(resumed.events(1).await.len(), 1);
    }
    sim.advance(72 * 3600 - 60);
    assert_eq!(stream.events(1).await.len(), 1);
    let status = client
        .refused(fetch(
            ACCOUNTS,
            ReplayPreset::Custom,
            &first.latest_replay_id,
            1,
        ))
        .await;
    assert_eq!(status.code(), Code::InvalidArgument);
    let mut resumed = client.after(ACCOUNTS, &second.latest_replay_id, 10).await;
    assert_eq!(resumed.events(1).await.len(), 1);
}

#[tokio::test]
async fn the_keepalives_time_can_be_chosen() {
    let sim = sim_with(|options| options.keepalive_seconds = Some(5)).await;
    let mut client = sim.client().await;
    let mut stream = client.latest(ALL, 1).await;
    sim.until(|streams| streams.len() == 1).await;
    sim.advance(5);
    assert!(stream.answer().await.events.is_empty());
}

#[tokio::test]
async fn a_stream_without_credit_ends_after_a_minute() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let mut stream = client.latest(ALL, 1).await;
    sim.until(|streams| streams.len() == 1).await;
    sim.accounts(2).await;
    stream.events(1).await;
    sim.until(|streams| streams[0]["credit"] == 0).await;
    sim.advance(59);
    stream.more(1).await;
    stream.events(1).await;
    sim.until(|streams| streams[0]["credit"] == 0).await;
    sim.advance(60);
    stream.end().await;
    sim.until(<[_]>::is_empty).await;
}

#[tokio::test]
async fn a_client_that_asks_no_more_gets_the_rest_of_its_credit() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let mut stream = client.latest(ALL, 2).await;
    sim.until(|streams| streams.len() == 1).await;
    let (gone, _) = tokio::sync::mpsc::channel(1);
    drop(std::mem::replace(&mut stream.requests, gone));
    sim.accounts(3).await;
    stream.events(2).await;
    stream.end().await;
}

#[tokio::test]
async fn later_requests_keep_topic_and_position() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let mut stream = client.latest(ALL, 1).await;
    sim.until(|streams| streams.len() == 1).await;
    sim.accounts(2).await;
    let first = stream.events(1).await;
    stream
        .requests
        .send(fetch(ALL, ReplayPreset::Earliest, b"nonsense", 1))
        .await
        .unwrap();
    assert!(stream.events(1).await[0].replay_id > first[0].replay_id);
    stream
        .requests
        .send(fetch(ACCOUNTS, ReplayPreset::Latest, &[], 1))
        .await
        .unwrap();
    let status = stream.error().await;
    assert_eq!(
        told(&status),
        (
            Code::InvalidArgument,
            "subscription.fetch.topic.mismatch".into()
        )
    );
}

#[tokio::test]
async fn a_request_for_nothing_is_an_error() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let refusal = (
        Code::InvalidArgument,
        "subscription.fetch.requested.events.invalid".to_owned(),
    );
    for count in [0, -1] {
        let first = fetch(ALL, ReplayPreset::Latest, &[], count);
        assert_eq!(told(&client.refused(first).await), refusal);
    }
    let mut stream = client.latest(ALL, 1).await;
    stream.more(0).await;
    assert_eq!(told(&stream.error().await), refusal);
}
