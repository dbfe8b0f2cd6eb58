//! Scripted faults on requests.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::harness::{EXAMPLE, TestOrg};

#[tokio::test]
async fn answers_can_be_any_status_in_their_turn() {
    let org = TestOrg::start().await;
    org.control("faults", json!([
        {"on": {"surface": "web_api", "path": "/api/data/v9.2/accounts"}, "after": 1, "times": 2, "do": {"kind": "status", "status": 503}},
        {"on": {"surface": "web_api"}, "do": {"kind": "status", "status": 429, "retry_after": 7}},
    ])).await;
    let first = org.get("accounts").await.expect(429);
    assert_eq!(first.header("retry-after"), "7");
    org.get("accounts").await.expect(503);
    let html = org.get("accounts").await.expect(503);
    assert!(html.header("content-type").starts_with("text/html"));
    org.get("accounts").await.expect(200);
    assert_eq!(org.look("faults").await, json!([]));
}

#[tokio::test]
async fn connections_end_before_or_within_the_answer() {
    let org = TestOrg::start().await;
    org.control(
        "faults",
        json!({"on": {"method": "GET"}, "do": {"kind": "cut", "bytes": 10}}),
    )
    .await;
    let answer = org.request(Method::GET, "accounts").send().await.unwrap();
    assert!(answer.text().await.is_err());
    org.control(
        "faults",
        json!({"on": {"method": "POST"}, "do": {"kind": "lost_reply"}}),
    )
    .await;
    assert!(
        org.request(Method::POST, "accounts")
            .json(&json!({"name": "Written"}))
            .send()
            .await
            .is_err()
    );
    org.control(
        "faults",
        json!({"on": {"method": "POST"}, "do": {"kind": "lost_request"}}),
    )
    .await;
    assert!(
        org.request(Method::POST, "accounts")
            .json(&json!({"name": "Unwritten"}))
            .send()
            .await
            .is_err()
    );
    assert_eq!(
        org.get("accounts?$filter=name eq 'Written'")
            .await
            .rows()
            .len(),
        1
    );
    assert_eq!(
        org.get("accounts?$filter=name eq 'Unwritten'")
            .await
            .rows()
            .len(),
        0
    );
}

#[tokio::test]
async fn slow_answers_wait_for_the_organization_s_clock() {
    let org = TestOrg::start().await;
    org.control("time", json!({"freeze": true})).await;
    org.control(
        "faults",
        json!({"on": {"method": "GET"}, "do": {"kind": "slow", "seconds": 30}}),
    )
    .await;
    let request = org.request(Method::GET, "accounts").send();
    let (answer, ()) = tokio::join!(request, async {
        while org.look("faults").await != json!([]) {
            tokio::task::yield_now().await;
        }
        org.control("time", json!({"advance_seconds": 30})).await;
    });
    assert_eq!(answer.unwrap().status().as_u16(), 200);
    org.control("faults", json!({"do": {"kind": "stall"}}))
        .await;
    let stalled = org
        .request(Method::GET, "accounts")
        .timeout(Duration::from_millis(100))
        .send()
        .await;
    assert!(stalled.unwrap_err().is_timeout());
}

#[tokio::test]
async fn tokens_end_between_two_pages() {
    let org = TestOrg::start().await;
    org.control(
        "faults",
        json!({"on": {"method": "GET"}, "do": {"kind": "expire_tokens", "when": "after"}}),
    )
    .await;
    org.get(&format!("accounts({EXAMPLE})")).await.expect(200);
    org.get(&format!("accounts({EXAMPLE})")).await.expect(401);
}
