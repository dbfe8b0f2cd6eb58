//! Clients that go away in the middle of a write.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::harness::EXAMPLE;
use crate::receiver::{Registered, registered, step};

#[tokio::test]
async fn a_client_that_goes_away_writes_nothing_and_frees_its_place() {
    let Registered {
        org,
        receiver,
        endpoint,
    } = registered((4, "k")).await;
    step(&org, &endpoint, "Update", "account", json!({"mode": 0})).await;
    org.control("limits", json!({"concurrency": 1})).await;
    // The synchronous step is called and never answers: the write is held open.
    receiver.answer(&[1]);
    let path = format!("accounts({EXAMPLE})");
    let write = org
        .request(Method::PATCH, &path)
        .json(&json!({"name": "Held"}));
    let held = tokio::spawn(write.send());
    receiver.wait(1).await;
    org.get("WhoAmI").await.refused(429, "0x80072326");
    held.abort();
    let free = async { while org.get("WhoAmI").await.status.as_u16() != 200 {} };
    tokio::time::timeout(Duration::from_secs(10), free)
        .await
        .unwrap();
    assert_eq!(org.get(&path).await.body["name"], "Example Ltd");
    let next = org.patch(&path, json!({"name": "Next"}));
    tokio::time::timeout(Duration::from_secs(10), next)
        .await
        .unwrap()
        .expect(204);
}
