//! getUpdated and getDeleted.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::org::{ACME, Answer, BETA, TestOrg, id};

fn text(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

async fn ask(org: &TestOrg, what: &str, start: DateTime<Utc>, end: DateTime<Utc>) -> Answer {
    let request = org
        .request(Method::GET, &format!("sobjects/Account/{what}/"))
        .query(&[("start", text(start)), ("end", text(end))]);
    org.send(request).await
}

/// A frozen org at 20 seconds past a minute.
async fn frozen() -> (TestOrg, DateTime<Utc>) {
    let org = TestOrg::start().await;
    org.running.org.clock.freeze();
    let now = "2030-05-05T10:10:20Z".parse().unwrap();
    org.running.org.clock.set(now);
    org.running
        .org
        .sessions
        .set_lifetime(TimeDelta::days(365 * 20));
    (org, now)
}

#[tokio::test]
async fn updated_ids_are_those_of_whole_minutes() {
    let (org, now) = frozen().await;
    org.transact(json!([{"ops": [
        {"op": "update", "object": "Account", "id": ACME, "fields": {"Name": "x"}},
        {"op": "delete", "object": "Account", "id": BETA},
    ]}]))
    .await;
    org.running.org.clock.advance(Duration::from_secs(90));
    let minute = TimeDelta::minutes(1);
    let answer = ask(&org, "updated", now, now + minute).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.body["ids"], json!([ACME]));
    assert_eq!(
        answer.body["latestDateCovered"],
        "2030-05-05T10:11:00.000+0000"
    );
    let later = ask(&org, "updated", now + minute, now + minute * 60).await;
    assert_eq!(later.body["ids"], json!([]));
    assert_eq!(
        later.body["latestDateCovered"], "2030-05-05T10:11:00.000+0000",
        "not past now"
    );
}

#[tokio::test]
async fn an_open_transaction_ends_what_is_covered() {
    let (org, now) = frozen().await;
    let body = json!({"wait": false, "transactions": [{"hold_ms": 300_000, "ops": [
        {"op": "update", "object": "Account", "id": ACME, "fields": {"Name": "x"}},
    ]}]});
    org.call(Method::POST, "/_sim/transactions", body).await;
    org.running.org.clock.advance(Duration::from_secs(200));
    let end = now + TimeDelta::hours(1);
    let answer = ask(&org, "updated", now, end).await;
    assert_eq!(answer.body["ids"], json!([]));
    assert_eq!(
        answer.body["latestDateCovered"],
        "2030-05-05T10:10:00.000+0000"
    );
    let mut newest = org.running.org.log.watch();
    newest.borrow_and_update();
    org.running.org.clock.advance(Duration::from_secs(100));
    newest.changed().await.unwrap();
    let answer = ask(&org, "updated", now, end).await;
    assert_eq!(answer.body["ids"], json!([ACME]));
    assert_eq!(
        answer.body["latestDateCovered"],
        "2030-05-05T10:15:00.000+0000"
    );
}

#[tokio::test]
async fn deleted_ids_hold_the_bin_and_what_is_gone_for_good() {
    let (org, now) = frozen().await;
    org.transact(json!([{"ops": [
        {"op": "delete", "object": "Account", "id": BETA},
        {"op": "hard_delete", "object": "Account", "id": id("001", 3)},
        {"op": "delete", "object": "Account", "id": ACME},
    ]}]))
    .await;
    org.transact(json!([{"ops": [{"op": "undelete", "object": "Account", "id": ACME}]}]))
        .await;
    let answer = ask(&org, "deleted", now, now + TimeDelta::minutes(5)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let deleted = "2030-05-05T10:10:20.000+0000";
    assert_eq!(
        answer.body["deletedRecords"],
        json!([{"id": BETA, "deletedDate": deleted}, {"id": id("001", 3), "deletedDate": deleted}])
    );
    assert_eq!(
        answer.body["latestDateCovered"],
        "2030-05-05T10:10:00.000+0000"
    );
    assert!(answer.body["earliestDateAvailable"].is_string());
}

#[tokio::test]
async fn windows_have_their_bounds() {
    let (org, now) = frozen().await;
    let ago = |days| now - TimeDelta::days(days);
    let minute = TimeDelta::minutes(1);
    let cases = [
        ("updated", now, now, false),
        ("updated", now, now - minute, false),
        ("updated", now, now + minute, true),
        ("deleted", now, now + minute, false),
        ("deleted", now, now + minute * 2, true),
        ("updated", ago(30), now, true),
        ("updated", ago(31), now, false),
        ("deleted", ago(15), now, true),
        ("deleted", ago(16), now, false),
    ];
    for (what, start, end, good) in cases {
        let answer = ask(&org, what, start, end).await;
        if good {
            assert_eq!(
                answer.status,
                StatusCode::OK,
                "{what} {start} {end}: {}",
                answer.body
            );
        } else {
            assert_eq!(
                answer.status,
                StatusCode::BAD_REQUEST,
                "{what} {start} {end}"
            );
            assert_eq!(answer.code(), "INVALID_REPLICATION_DATE");
        }
    }
    let missing = org
        .get("sobjects/Account/updated?start=2030-01-01T00:00:00Z")
        .await;
    assert_eq!(missing.code(), "MISSING_ARGUMENT");
    // A plus that is not encoded is a blank.
    let blank = org
        .get("sobjects/Account/updated?start=2030-05-05T00:00:00+00:00&end=2030-05-05T01:00:00Z")
        .await;
    assert_eq!(blank.code(), "INVALID_REPLICATION_DATE");
    let nope = org
        .get("sobjects/Nope/updated?start=2030-05-05T00:00:00Z&end=2030-05-05T01:00:00Z")
        .await;
    assert_eq!(
        (nope.status, nope.body[0]["errorCode"].clone()),
        (StatusCode::NOT_FOUND, Value::from("NOT_FOUND"))
    );
}
