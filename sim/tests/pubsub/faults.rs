//! Scripted faults of the event bus.

use serde_json::json;
use tonic::Code;
use tributary_sim::salesforce::pubsub::eventbus::ReplayPreset;

use crate::harness::{ACCOUNTS, ALL, fetch, sim, told};

#[tokio::test]
async fn a_call_or_an_answer_ends_by_any_status() {
    let sim = sim().await;
    let mut client = sim.client().await;
    sim.script(json!({"on": {"rpc": "Subscribe"}, "do": {
        "kind": "rpc_status", "status": "UNAVAILABLE", "code": "service.unavailable", "message": "Down."}}))
        .await;
    assert!(client.topic(ALL).await.is_ok());
    let first = || fetch(ALL, ReplayPreset::Latest, &[], 10);
    let status = client.refused(first()).await;
    assert_eq!(
        told(&status),
        (Code::Unavailable, "service.unavailable".into())
    );
    assert!(status.message().starts_with("Down. rpcId: "));

    let mut stream = client.latest(ALL, 10).await;
    sim.until(|streams| streams.len() == 1).await;
    sim.script(json!({"on": {"topic": ALL}, "after": 1, "do": {
        "kind": "rpc_status", "status": "INTERNAL", "at": "answer"}}))
        .await;
    sim.accounts(1).await;
    stream.events(1).await;
    sim.accounts(1).await;
    let status = stream.error().await;
    assert_eq!(told(&status), (Code::Internal, String::new()));
    assert!(status.metadata().get("rpc-id").is_none());
}

#[tokio::test]
async fn a_stalled_stream_is_silent_past_its_keepalive() {
    let sim = sim().await;
    let mut client = sim.client().await;
    sim.script(json!({"do": {"kind": "rpc_stall", "at": "answer"}}))
        .await;
    let mut stream = client.latest(ALL, 10).await;
    sim.until(|streams| streams.len() == 1).await;
    sim.accounts(1).await;
    // Another stream sees the event and the keepalive: the stalled one has had its chance.
    let mut other = client.earliest(ALL, 10).await;
    other.events(1).await;
    sim.until(|streams| streams[0]["sent"] == 1).await;
    sim.advance(600);
    assert!(other.answer().await.events.is_empty());
    let silence = std::time::Duration::from_millis(50);
    let stalled = tokio::time::timeout(silence, stream.answers.message()).await;
    assert!(stalled.is_err());
}

#[tokio::test]
async fn a_cut_connection_takes_all_streams_with_it() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let mut one = client.latest(ALL, 10).await;
    let mut two = client.latest(ACCOUNTS, 10).await;
    sim.until(|streams| streams.len() == 2).await;
    sim.script(json!({"on": {"topic": ACCOUNTS}, "do": {"kind": "rpc_cut", "at": "answer"}}))
        .await;
    sim.accounts(1).await;
    let status = two.error().await;
    assert!(status.metadata().get("error-code").is_none());
    one.error().await;
    sim.until(<[_]>::is_empty).await;
    // The client connects anew.
    let mut again = client.earliest(ALL, 10).await;
    again.events(1).await;
    sim.script(json!({"do": {"kind": "cut_connections"}})).await;
    again.error().await;
}

#[tokio::test]
async fn the_server_can_end_streams_and_repeat_events() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let mut stream = client.latest(ALL, 100).await;
    sim.until(|streams| streams.len() == 1).await;
    sim.accounts(3).await;
    let events = stream.events(3).await;
    sim.script(json!({"do": {"kind": "duplicate", "last": 2}}))
        .await;
    assert_eq!(stream.events(2).await, events[1..]);
    let first = u64::from_be_bytes(events[0].replay_id[..8].try_into().unwrap());
    sim.script(json!({"do": {"kind": "redeliver", "after": first}}))
        .await;
    assert_eq!(stream.events(2).await, events[1..]);
    sim.script(json!({"do": {"kind": "end_streams"}})).await;
    stream.end().await;
}

#[tokio::test]
async fn answers_can_be_small_and_transactions_split() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let create =
        |name: &str| json!({"op": "create", "object": "Account", "fields": {"Name": name}});
    sim.script(json!({"do": {"kind": "split_transaction"}}))
        .await;
    sim.commit(json!([create("a"), create("b"), create("c")]))
        .await;
    let mut stream = client.earliest(ALL, 100).await;
    assert_eq!(stream.answer().await.events.len(), 1);
    assert_eq!(stream.answer().await.events.len(), 2);
    sim.script(json!({"do": {"kind": "limit_batch", "events": 1}}))
        .await;
    let mut stream = client.earliest(ALL, 100).await;
    for _ in 0..3 {
        assert_eq!(stream.answer().await.events.len(), 1);
    }
    sim.script(json!({"do": {"kind": "keep_alive", "seconds": 3}}))
        .await;
    sim.advance(3);
    assert!(stream.answer().await.events.is_empty());
}

#[tokio::test]
async fn undecodable_payloads_stay_so_at_every_delivery() {
    let sim = sim().await;
    let mut client = sim.client().await;
    for garble in ["text_payload", "no_header"] {
        sim.script(json!({"do": {"kind": "undecodable", "garble": garble}}))
            .await;
        sim.accounts(1).await;
    }
    for _ in 0..2 {
        let mut stream = client.earliest(ALL, 100).await;
        for event in stream.events(2).await {
            let event = event.event.unwrap();
            let text = client.schema_json(&event.schema_id).await.unwrap();
            let schema = apache_avro::Schema::parse_str(&text).unwrap();
            let reader = apache_avro::reader::datum::GenericDatumReader::builder(&schema)
                .build()
                .unwrap();
            assert!(reader.read_value(&mut event.payload.as_slice()).is_err());
        }
    }
}

#[tokio::test]
async fn unknown_scripts_are_refused() {
    let sim = sim().await;
    for bad in [
        json!({"on": {"surface": "rest"}, "do": {"kind": "rpc_stall"}}),
        json!({"do": {"kind": "rpc_status", "status": "SAD"}}),
        json!({"do": {"kind": "rpc_status", "status": "INTERNAL", "code": "a b"}}),
        json!({"do": {"kind": "limit_batch", "events": 0}}),
        json!({"do": {"kind": "keep_alive", "seconds": 0}}),
    ] {
        let (status, text) = sim.post("/_sim/faults", bad.clone()).await;
        assert_eq!(status, 400, "{bad}: {text}");
    }
    sim.script(json!({"do": {"kind": "rpc_stall"}})).await;
    assert_eq!(
        sim.get("/_sim/faults").await["rpcs"][0]["do"]["kind"],
        "rpc_stall"
    );
    sim.http
        .delete(format!("{}/_sim/faults", sim.running.url))
        .send()
        .await
        .unwrap();
    assert_eq!(sim.get("/_sim/faults").await["rpcs"], json!([]));
}
