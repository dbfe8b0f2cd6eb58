//! The control interface of a simulated org, `/_sim/…`.

use reqwest::Client;
use serde_json::Value as Json;

/// What the org at `org` tells of itself.
pub async fn told(http: &Client, org: &str, path: &str) -> Json {
    let url = format!("{org}/_sim/{path}");
    http.get(url).send().await.unwrap().json().await.unwrap()
}

/// Has the org do something; what it answers.
pub async fn order(http: &Client, org: &str, path: &str, body: &Json) -> String {
    let url = format!("{org}/_sim/{path}");
    let answer = http.post(url).json(body).send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert!(status.is_success(), "{path}: {status}: {text}");
    text
}
