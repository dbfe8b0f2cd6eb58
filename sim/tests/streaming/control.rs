//! The control API itself: time, and its strictness.

use serde_json::{Value, json};

use crate::harness::{ALL, sim};

#[tokio::test]
async fn time_is_read_advanced_set_and_frozen() {
    let sim = sim().await;
    let (status, text) = sim
        .post("/_sim/time", json!({"set": "2026-01-05T10:11:12Z"}))
        .await;
    assert_eq!(status, 200);
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        shown,
        json!({"now": "2026-01-05T10:11:12Z", "frozen": true})
    );
    sim.advance(3600).await;
    assert_eq!(
        sim.get("/_sim/time").await,
        json!({"now": "2026-01-05T11:11:12Z", "frozen": true})
    );
    sim.post("/_sim/time", json!({"freeze": false})).await;
    assert_eq!(sim.get("/_sim/time").await["frozen"], false);
    sim.post("/_sim/time", json!({"freeze": true})).await;
    assert_eq!(sim.get("/_sim/time").await["frozen"], true);
}

#[tokio::test]
async fn a_wrong_order_is_refused_with_its_reason() {
    let sim = sim().await;
    let status = json!({"kind": "status", "status": 503});
    for (path, body, reason) in [
        (
            "/_sim/time",
            json!({"advance": 3}),
            "unknown field `advance`",
        ),
        ("/_sim/time", json!({}), "exactly one"),
        (
            "/_sim/time",
            json!({"freeze": true, "advance_seconds": 1}),
            "exactly one",
        ),
        (
            "/_sim/time",
            json!({"set": "yesterday"}),
            "reading the body",
        ),
        (
            "/_sim/faults",
            json!({"do": {"kind": "explode"}}),
            "unknown variant `explode`",
        ),
        (
            "/_sim/faults",
            json!({"do": {"status": 503}}),
            "missing field `kind`",
        ),
        (
            "/_sim/faults",
            json!({"when": 1, "do": status}),
            "unknown field `when`",
        ),
        (
            "/_sim/faults",
            json!({"on": {"host": "x"}, "do": status}),
            "unknown field `host`",
        ),
        (
            "/_sim/faults",
            json!({"times": 0, "do": status}),
            "`times` is 0",
        ),
        (
            "/_sim/faults",
            json!({"times": 1, "forever": true, "do": status}),
            "beside `forever`",
        ),
        (
            "/_sim/faults",
            json!({"do": {"kind": "status", "status": 200}}),
            "200",
        ),
        (
            "/_sim/faults",
            json!({"do": {"kind": "stall", "seconds": 1}}),
            "unknown field `seconds`",
        ),
        (
            "/_sim/faults",
            json!({"do": {"kind": "disconnect", "now": 1}}),
            "unknown field `now`",
        ),
        (
            "/_sim/faults",
            json!({"do": {"kind": "slow_body", "chunk": 0, "seconds": 1}}),
            "slow_body",
        ),
        (
            "/_sim/faults",
            json!({"on": {"surface": "cometd"}, "do": {"kind": "dismiss"}}),
            "only `message`",
        ),
        (
            "/_sim/faults",
            json!({"on": {}, "do": {"kind": "disconnect"}}),
            "at once",
        ),
        (
            "/_sim/faults",
            json!({"after": 1, "do": {"kind": "forget_clients"}}),
            "at once",
        ),
        (
            "/_sim/faults",
            json!({"on": {"record_id": "7"}, "do": {"kind": "gap"}}),
            "no record id",
        ),
        (
            "/_sim/faults",
            json!({"do": {"kind": "inject_overflow", "entity": "Lead"}}),
            "not captured",
        ),
        (
            "/_sim/faults",
            json!({"do": {"kind": "inject_gap", "entity": "Account", "change_type": "CREATE",
                          "record_ids": ["001000000000001"]}}),
            "no gap",
        ),
        (
            "/_sim/channels",
            json!({"name": "Sync", "entities": []}),
            "__chn",
        ),
        (
            "/_sim/channels",
            json!({"name": "S__chn", "entities": ["Lead"]}),
            "not captured",
        ),
        ("/_sim/capture", json!({"capture": ["Lead"]}), "no object"),
        (
            "/_sim/capture",
            json!({"capture": ["account"]}),
            "no object",
        ),
    ] {
        let (status, text) = sim.post(path, body.clone()).await;
        assert_eq!(status, 400, "{body}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(reason), "{body}: {error}");
    }
    let left = sim.get("/_sim/faults").await;
    assert_eq!(left, json!({"requests": [], "events": [], "rpcs": []}));
}

#[tokio::test]
async fn one_wrong_script_lets_none_of_its_list_in() {
    let sim = sim().await;
    let good = json!({"do": {"kind": "stall"}});
    let (status, text) = sim
        .post("/_sim/faults", json!([good, {"do": {"kind": "no"}}]))
        .await;
    assert_eq!(status, 400);
    assert!(text.contains("script 2"), "{text}");
    assert_eq!(sim.get("/_sim/faults").await["requests"], json!([]));
}

#[tokio::test]
async fn sessions_and_the_stream_can_be_looked_at() {
    let sim = sim().await;
    let (replay_id, _) = sim.account("Acme").await;
    let client = sim.subscribed(ALL, -1).await;
    let poll = client.poll_aside();
    sim.held(1).await;
    let seen = &sim.get("/_sim/cometd").await["clients"][0];
    assert_eq!(seen["client_id"], client.id);
    assert_eq!(seen["held"], true);
    assert_eq!(
        seen["subscriptions"],
        json!([{"channel": ALL, "replay_id": replay_id}])
    );
    let stream = sim.get("/_sim/stream").await;
    assert_eq!(stream["newest"], replay_id);
    assert_eq!(stream["earliest"], replay_id);
    assert_eq!(
        sim.get("/_sim/capture").await,
        json!(["Account", "Contact", "Employee__c"])
    );
    poll.abort();
}

#[tokio::test]
async fn clearing_lifts_limits_and_bans() {
    let sim = sim().await;
    sim.script(json!([
        {"do": {"kind": "limit_clients", "clients": 0}},
        {"do": {"kind": "limit_events", "events": 0}},
        {"do": {"kind": "forbid", "entity": "Account"}},
        {"do": {"kind": "gap"}},
    ]))
    .await;
    assert_eq!(sim.client().handshake().await["successful"], false);
    let http = reqwest::Client::new();
    http.delete(sim.url("/_sim/faults")).send().await.unwrap();
    let client = sim.subscribed("/data/AccountChangeEvent", -1).await;
    sim.account("Acme").await;
    let answer = client.connect().await;
    assert_eq!(answer.len(), 2);
}
