//! Several calls in one.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::org::{ACME, Answer, TestOrg};

async fn composite(org: &TestOrg, calls: Value) -> Answer {
    org.call(
        Method::POST,
        "composite",
        json!({"compositeRequest": calls}),
    )
    .await
}

#[tokio::test]
async fn calls_use_what_earlier_ones_answered_and_count_once() {
    let org = TestOrg::start().await;
    let used = org.get("limits").await.headers["sforce-limit-info"].clone();
    let used: usize = used.to_str().unwrap()[10..]
        .split('/')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let base = "/services/data/v66.0";
    let answer = composite(&org, json!([
        {"method": "POST", "url": format!("{base}/sobjects/Account"), "referenceId": "parent", "body": {"Name": "New"}},
        {"method": "POST", "url": format!("{base}/sobjects/Contact"), "referenceId": "child",
         "body": {"LastName": "Kid", "AccountId": "@{parent.id}"}},
        {"method": "GET", "url": format!("{base}/query?q=SELECT Id, Name FROM Account WHERE Id = '@{{parent.id}}'"),
         "referenceId": "read"},
        {"method": "PATCH", "url": format!("{base}/sobjects/Account/@{{read.records[0].Id}}"), "referenceId": "write",
         "body": {"Name": "@{read.records[0].Name}er"}},
        {"method": "GET", "url": format!("{base}/sobjects/Account/nothing"), "referenceId": "missing"},
        {"method": "GET", "url": format!("{base}/sobjects/Account/@{{missing.Id}}"), "referenceId": "lost"},
    ]))
    .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let answers = answer.body["compositeResponse"].as_array().unwrap();
    let told: Vec<_> = answers
        .iter()
        .map(|one| one["httpStatusCode"].as_u64().unwrap())
        .collect();
    assert_eq!(told, [201, 201, 200, 204, 404, 400], "{}", answer.body);
    assert_eq!(answers[5]["body"][0]["errorCode"], "PROCESSING_HALTED");
    assert_eq!(
        org.column(
            "SELECT Account.Name FROM Contact WHERE LastName = 'Kid'",
            "Account"
        )
        .await[0]["Name"],
        "Newer"
    );
    let after = &answer.headers["sforce-limit-info"];
    assert_eq!(after, &format!("api-usage={}/100000", used + 1));
}

#[tokio::test]
async fn what_a_composite_may_not_be_is_refused() {
    let org = TestOrg::start().await;
    let get = |name: &str, url: &str| json!({"method": "GET", "url": url, "referenceId": name});
    let sound = format!("/services/data/v66.0/sobjects/Account/{ACME}");
    let many: Vec<_> = (0..26).map(|n| get(&format!("r{n}"), &sound)).collect();
    for calls in [
        json!([]),
        json!(many),
        json!([get("a", &sound), get("a", &sound)]),
        json!([get("a", "/services/data/v65.0/limits")]),
        json!([get("a", "/_sim/time")]),
        json!([get("a", "/services/data/v66.0/composite")]),
    ] {
        assert_eq!(composite(&org, calls).await.status, StatusCode::BAD_REQUEST);
    }
    let body = json!({"allOrNone": true, "compositeRequest": [get("a", &sound)]});
    let answer = org.call(Method::POST, "composite", body).await;
    assert_eq!(answer.code(), "INVALID_INPUT");
}
