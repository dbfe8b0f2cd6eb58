//! Faults of requests, on every surface.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{ALL, Sim, ack, sim};

const LIMITS: &str = "/services/data/v66.0/limits";
/// An answer that is always the same.
const VERSIONS: &str = "/services/data";
const QUERY: &str = "/services/data/v66.0/query?q=SELECT+Id+FROM+Account";

async fn get(sim: &Sim, path: &str) -> reqwest::Result<reqwest::Response> {
    let client = reqwest::Client::new();
    client
        .get(sim.url(path))
        .bearer_auth(&sim.token)
        .send()
        .await
}

#[tokio::test]
async fn each_status_looks_as_the_org_or_its_gateway_makes_it() {
    let sim = sim().await;
    let error =
        |code: &str, message: &str| json!([{"message": message, "errorCode": code}]).to_string();
    for (status, kind, body) in [
        (
            401,
            "application/json",
            error("INVALID_SESSION_ID", "Session expired or invalid"),
        ),
        (
            403,
            "application/json",
            error("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."),
        ),
        (406, "", String::new()),
        (420, "", String::new()),
        (429, "", String::new()),
        (502, "text/html", "<html>".to_owned()),
        (503, "text/html", "<html>".to_owned()),
        (500, "application/json", "UNKNOWN_EXCEPTION".to_owned()),
    ] {
        sim.script(json!({"on": {"surface": "rest"}, "do": {"kind": "status", "status": status}}))
            .await;
        let response = get(&sim, LIMITS).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        let sent = response
            .headers()
            .get("content-type")
            .map_or("", |value| value.to_str().unwrap())
            .to_owned();
        assert!(sent.starts_with(kind), "{status}: {sent}");
        let text = response.text().await.unwrap();
        assert!(text.contains(&body), "{status}: {text}");
        assert_eq!(text.is_empty(), body.is_empty(), "{status}: {text}");
        assert_eq!(get(&sim, LIMITS).await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_status_has_the_words_it_is_given() {
    let sim = sim().await;
    sim.script(json!([
        {"on": {"path": QUERY.split('?').next()},
         "do": {"kind": "status", "status": 400, "code": "QUERY_TIMEOUT", "message": "Too long"}},
        {"on": {"surface": "oauth"},
         "do": {"kind": "status", "status": 400, "code": "invalid_grant", "message": "ip restricted"}},
        {"on": {"surface": "rest"}, "do": {"kind": "status", "status": 429, "retry_after": 7}},
    ]))
    .await;
    let oauth = get(&sim, "/services/oauth2/userinfo").await.unwrap();
    let body: Value = oauth.json().await.unwrap();
    assert_eq!(
        body,
        json!({"error": "invalid_grant", "error_description": "ip restricted"})
    );
    let busy = get(&sim, LIMITS).await.unwrap();
    assert_eq!(busy.headers()["retry-after"], "7");
    let query: Value = get(&sim, QUERY).await.unwrap().json().await.unwrap();
    assert_eq!(
        query,
        json!([{"message": "Too long", "errorCode": "QUERY_TIMEOUT"}])
    );
}

#[tokio::test]
async fn scripts_match_by_method_and_count() {
    let sim = sim().await;
    sim.script(
        json!({"on": {"surface": "rest", "method": "POST"}, "forever": true,
                      "do": {"kind": "status", "status": 503}}),
    )
    .await;
    sim.script(
        json!({"on": {"method": "get", "path": "/services/data/v66.0/"}, "after": 2, "times": 1,
                      "do": {"kind": "status", "status": 500}}),
    )
    .await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(get(&sim, LIMITS).await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 500, 200]);
    for _ in 0..3 {
        let (status, _) = sim
            .post("/services/data/v66.0/composite/sobjects/Account", json!({}))
            .await;
        assert_eq!(status, 503);
    }
    let left = sim.get("/_sim/faults").await;
    assert_eq!(
        left["requests"],
        json!([{"on": {"surface": "rest", "method": "POST"}, "after": 0, "times": null,
                "do": {"kind": "status", "status": 503}}])
    );
    let client = reqwest::Client::new();
    client.delete(sim.url("/_sim/faults")).send().await.unwrap();
    assert_eq!(sim.get("/_sim/faults").await["requests"], json!([]));
}

#[tokio::test]
async fn tokens_end_before_or_after_a_request() {
    let sim = sim().await;
    sim.script(
        json!({"on": {"surface": "rest"}, "do": {"kind": "expire_tokens", "when": "after"}}),
    )
    .await;
    assert_eq!(get(&sim, LIMITS).await.unwrap().status(), StatusCode::OK);
    assert_eq!(
        get(&sim, LIMITS).await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    let mut sim = sim;
    sim.token = sim.login();
    sim.script(json!({"do": {"kind": "expire_tokens"}})).await;
    let dead = get(&sim, LIMITS).await.unwrap();
    assert_eq!(dead.status(), StatusCode::UNAUTHORIZED);
    assert!(dead.text().await.unwrap().contains("INVALID_SESSION_ID"));
}

#[tokio::test]
async fn a_slow_answer_waits_for_the_orgs_clock() {
    let sim = sim().await;
    sim.script(json!({"on": {"surface": "rest"}, "do": {"kind": "slow", "seconds": 30}}))
        .await;
    let request = reqwest::Client::new()
        .get(sim.url(LIMITS))
        .bearer_auth(&sim.token)
        .send();
    let slow = tokio::spawn(request);
    taken(&sim).await;
    sim.advance(29).await;
    assert!(!slow.is_finished());
    sim.advance(1).await;
    assert_eq!(slow.await.unwrap().unwrap().status(), StatusCode::OK);
}

/// Waits until the script has been fired.
async fn taken(sim: &Sim) {
    while sim.get("/_sim/faults").await["requests"] != json!([]) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_slow_body_comes_in_pieces() {
    let sim = sim().await;
    sim.script(
        json!({"on": {"surface": "rest"}, "do": {"kind": "slow_body", "chunk": 50, "seconds": 5}}),
    )
    .await;
    let mut response = get(&sim, LIMITS).await.unwrap();
    let whole = response.content_length().unwrap();
    let mut read = 0;
    while read < whole {
        sim.advance(5).await;
        let piece = response.chunk().await.unwrap().unwrap();
        assert!(piece.len() <= 50);
        read += piece.len() as u64;
    }
    assert_eq!(response.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn a_cut_body_is_shorter_than_it_said() {
    let sim = sim().await;
    let whole = get(&sim, VERSIONS).await.unwrap().bytes().await.unwrap();
    for (bytes, expected) in [
        (json!(null), whole.len() / 2),
        (json!(0), 0),
        (json!(10), 10),
        (json!(1_000_000), whole.len() - 1),
    ] {
        let mut act = json!({"kind": "cut"});
        if !bytes.is_null() {
            act["bytes"] = bytes;
        }
        sim.script(json!({"on": {"surface": "rest"}, "do": act}))
            .await;
        let mut response = get(&sim, VERSIONS).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.content_length(), Some(whole.len() as u64));
        let mut read = Vec::new();
        let end = loop {
            match response.chunk().await {
                Ok(Some(piece)) => read.extend_from_slice(&piece),
                end => break end,
            }
        };
        assert!(end.is_err(), "the connection is cut");
        assert_eq!(read, whole[..expected]);
    }
}

#[tokio::test]
async fn a_lost_reply_was_executed_and_a_lost_request_was_not() {
    let sim = sim().await;
    let create = || {
        reqwest::Client::new()
            .post(sim.url("/services/data/v66.0/sobjects/Account"))
            .bearer_auth(&sim.token)
            .json(&json!({"Name": "Acme"}))
            .send()
    };
    let count = async || {
        let records = sim.get("/_sim/records/Account").await;
        records["records"].as_array().unwrap().len()
    };
    sim.script(json!({"on": {"method": "POST"}, "do": {"kind": "lost_request"}}))
        .await;
    assert!(create().await.is_err());
    assert_eq!(count().await, 0);
    sim.script(json!({"on": {"method": "POST"}, "do": {"kind": "lost_reply"}}))
        .await;
    assert!(create().await.is_err());
    assert_eq!(count().await, 1);
    assert_eq!(create().await.unwrap().status(), StatusCode::CREATED);
}

#[tokio::test]
async fn a_lost_reply_without_a_body_is_lost_as_well() {
    let sim = sim().await;
    let (_, account) = sim.account("Acme").await;
    sim.script(json!({"on": {"method": "DELETE"}, "do": {"kind": "lost_reply"}}))
        .await;
    let path = format!("/services/data/v66.0/sobjects/Account/{account}");
    let request = reqwest::Client::new().delete(sim.url(&path));
    assert!(request.bearer_auth(&sim.token).send().await.is_err());
    let record = &sim.get("/_sim/records/Account").await["records"][0];
    assert_eq!(record["IsDeleted"], true);
}

#[tokio::test]
async fn a_poll_stalls_without_an_answer() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    sim.script(json!({"on": {"message": "/meta/connect"}, "do": {"kind": "stall"}}))
        .await;
    let poll = client.poll_aside();
    taken(&sim).await;
    sim.account("Acme").await;
    sim.advance(39).await;
    sim.held(0).await;
    assert!(!poll.is_finished());
    poll.abort();
    let answer = client.glance().await;
    assert_eq!(answer.len(), 2, "the session had not seen the stalled poll");
    assert_eq!(ack(&answer)["successful"], true);
}

#[tokio::test]
async fn a_message_in_the_body_finds_its_script() {
    let sim = sim().await;
    let mut client = sim.client();
    sim.script(
        json!({"on": {"surface": "cometd", "message": "/meta/subscribe"},
                      "do": {"kind": "status", "status": 503}}),
    )
    .await;
    client.handshake().await;
    client.first_connect().await;
    let subscription = client.subscription(ALL, json!(-1));
    let response = client.request(&json!([subscription])).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(client.subscribe(ALL, -1).await["successful"], true);
}
