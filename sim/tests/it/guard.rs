//! What every call obeys: versions, sessions, quota, sizes, dates.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::org::TestOrg;

#[tokio::test]
async fn versions_need_no_session_and_count_for_nothing() {
    let org = TestOrg::start().await;
    for path in ["/services/data", "/services/data/"] {
        let response = org
            .client
            .get(format!("{}{path}", org.running.url))
            .send()
            .await
            .unwrap();
        assert!(response.headers().get("sforce-limit-info").is_none());
        let versions: serde_json::Value = response.json().await.unwrap();
        let newest = versions.as_array().unwrap().last().unwrap();
        assert_eq!(newest["version"], "66.0");
        assert_eq!(newest["url"], "/services/data/v66.0");
        assert_eq!(newest["label"], "Spring '26");
    }
    let resources = org.get("").await;
    assert_eq!(resources.body["query"], "/services/data/v66.0/query");
    assert_eq!(resources.headers["sforce-limit-info"], "api-usage=1/100000");
}

#[tokio::test]
async fn unknown_versions_paths_and_methods_are_refused() {
    let org = TestOrg::start().await;
    for path in [
        "/services/data/v67.0/limits",
        "/services/data/v66.1/limits",
        "/services/data/66.0/limits",
        "/services/data/v66.0/nothing",
        "/nothing",
    ] {
        let answer = org.get(path).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::NOT_FOUND, "NOT_FOUND"),
            "{path}"
        );
    }
    let put = org.send(org.request(Method::PUT, "query")).await;
    assert_eq!(
        (put.status, put.code()),
        (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED")
    );
}

#[tokio::test]
async fn a_missing_and_a_garbled_header_differ_from_a_dead_session() {
    let org = TestOrg::start().await;
    let url = format!("{}/services/data/v66.0/limits", org.running.url);
    for request in [
        org.client.get(&url),
        org.client.get(&url).header("authorization", "Bearer"),
        org.client.get(&url).basic_auth("a", Some("b")),
    ] {
        let answer = org.send(request).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::UNAUTHORIZED, "INVALID_AUTH_HEADER")
        );
    }
    let answer = org.send(org.client.get(&url).bearer_auth("00D!x")).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::UNAUTHORIZED, "INVALID_SESSION_ID")
    );
    let counts = org.get("/_sim/counts").await;
    assert_eq!(counts.body["api_usage"], 0, "refused calls are free");
}

#[tokio::test]
async fn the_quota_ends_and_comes_back_a_day_later() {
    let org = TestOrg::with(|options| options.api_limit = 2).await;
    assert_eq!(
        org.get("limits").await.headers["sforce-limit-info"],
        "api-usage=1/2"
    );
    let limits = org.get("limits").await;
    assert_eq!(limits.body["DailyApiRequests"]["Remaining"], 0);
    let over = org.get("limits").await;
    assert_eq!(
        (over.status, over.code()),
        (StatusCode::FORBIDDEN, "REQUEST_LIMIT_EXCEEDED")
    );
    assert_eq!(over.message(), "TotalRequests Limit exceeded.");
    assert_eq!(over.headers["sforce-limit-info"], "api-usage=2/2");

    let sessions = &org.running.org.sessions;
    sessions.set_lifetime(chrono::TimeDelta::days(2));
    org.running
        .org
        .clock
        .advance(std::time::Duration::from_secs(86_400));
    assert_eq!(org.get("limits").await.status, StatusCode::OK);
    let counts = org.get("/_sim/counts").await;
    assert_eq!(counts.body["calls"]["GET limits"], 3);
}

#[tokio::test]
async fn the_quota_is_what_the_control_says() {
    let org = TestOrg::start().await;
    let script = json!({"do": {"kind": "limit_calls", "calls": 1}});
    let set = org.client.post(format!("{}/_sim/faults", org.running.url));
    assert!(org.send(set.json(&script)).await.status.is_success());
    assert_eq!(
        org.get("limits").await.headers["sforce-limit-info"],
        "api-usage=1/1"
    );
    assert_eq!(org.get("limits").await.code(), "REQUEST_LIMIT_EXCEEDED");
    let clear = org
        .client
        .delete(format!("{}/_sim/faults", org.running.url));
    assert!(org.send(clear).await.status.is_success());
    assert_eq!(
        org.get("limits").await.headers["sforce-limit-info"],
        "api-usage=2/100000"
    );
}

#[tokio::test]
async fn heads_have_an_end() {
    let org = TestOrg::start().await;
    let long = "x".repeat(16_400);
    assert_eq!(org.query(&long).await.status, StatusCode::URI_TOO_LONG);
    let request = org
        .request(Method::GET, "limits")
        .header("x-long", &long[..16_300]);
    assert_eq!(
        org.send(request).await.status,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    );
}

#[tokio::test]
async fn answers_carry_the_orgs_date() {
    let org = TestOrg::start().await;
    org.running.org.clock.freeze();
    org.running
        .org
        .clock
        .set("2031-02-03T04:05:06Z".parse().unwrap());
    // The session was issued on another date: a new one.
    let user = org.running.org.profile.run_as.clone();
    let token = org.running.org.sessions.issue(user);
    let request = org
        .client
        .get(format!("{}/services/data/v66.0/limits", org.running.url))
        .bearer_auth(token);
    let answer = org.send(request).await;
    assert_eq!(answer.headers.get_all("date").iter().count(), 1);
    assert_eq!(answer.headers["date"], "Mon, 03 Feb 2031 04:05:06 GMT");
}
