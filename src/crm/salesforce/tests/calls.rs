//! REST calls: what refusals mean, what is sent along, the CRM's clock, descriptions.

use std::time::Duration;

use serde_json::json;

use crate::http::tests::server::Reply;

use super::org::{Org, account, below, describe};
use super::*;

async fn refusing(reply: Reply) -> Fault {
    let org = Org::start(move |_| {
        let reply = reply.clone();
        async move { reply }
    })
    .await;
    org.connector()
        .describe(&"Account".into())
        .await
        .unwrap_err()
}

#[tokio::test]
async fn refusals_have_their_kinds() {
    for (reply, kind) in [
        (
            Reply::error(
                403,
                "REQUEST_LIMIT_EXCEEDED",
                "TotalRequests Limit exceeded.",
            ),
            FaultKind::Throttled,
        ),
        (
            Reply::error(403, "API_DISABLED_FOR_ORG", "no"),
            FaultKind::Permission,
        ),
        (
            Reply::error(403, "INSUFFICIENT_ACCESS_OR_READONLY", "no"),
            FaultKind::Permission,
        ),
        (
            Reply::error(403, "TXN_SECURITY_METERING_ERROR", "no"),
            FaultKind::Permission,
        ),
        (
            Reply::error(400, "MALFORMED_QUERY", "no"),
            FaultKind::Protocol,
        ),
        (
            Reply::error(400, "INVALID_FIELD", "No such column 'X'"),
            FaultKind::Missing,
        ),
        (
            Reply::error(400, "INVALID_TYPE", "sObject type 'X'"),
            FaultKind::Missing,
        ),
        (Reply::error(404, "NOT_FOUND", "no"), FaultKind::Missing),
        (
            Reply::error(500, "UNKNOWN_EXCEPTION", "oops"),
            FaultKind::Unavailable,
        ),
        (
            Reply::error(503, "SERVER_UNAVAILABLE", "busy"),
            FaultKind::Unavailable,
        ),
        (
            Reply::error(400, "QUERY_TIMEOUT", "slow"),
            FaultKind::Unavailable,
        ),
        (Reply::new(503, "<html>"), FaultKind::Unavailable),
        (Reply::new(502, ""), FaultKind::Unavailable),
        (Reply::new(406, ""), FaultKind::Unavailable),
        (Reply::new(420, ""), FaultKind::Throttled),
        (Reply::new(429, ""), FaultKind::Throttled),
        (Reply::new(200, "<html>"), FaultKind::Protocol),
        (Reply::new(200, "{\"name\":").cut(), FaultKind::Unavailable),
    ] {
        let fault = refusing(reply.clone()).await;
        assert_eq!(fault.kind(), kind, "{reply:?}: {}", fault.report());
        assert!(fault.report().contains("Account"), "{}", fault.report());
    }
}

#[tokio::test]
async fn waits_are_the_crms_or_our_own() {
    let wait = async |reply| refusing(reply).await.wait_hint();
    let busy = Reply::new(503, "").with("retry-after", "9");
    assert_eq!(wait(busy).await, Some(Duration::from_secs(9)));
    let daily = Reply::error(
        403,
        "REQUEST_LIMIT_EXCEEDED",
        "TotalRequests Limit exceeded.",
    );
    assert_eq!(wait(daily).await, Some(Duration::from_mins(15)));
    let many = Reply::error(
        403,
        "REQUEST_LIMIT_EXCEEDED",
        "ConcurrentPerOrgLongTxn Limit exceeded.",
    );
    assert_eq!(wait(many).await, Some(Duration::from_secs(30)));
}

#[tokio::test]
async fn calls_are_marked_as_ours() {
    let org = Org::start(|_| async { account() }).await;
    let crm = org.with(|settings| settings.page_size = 500);
    crm.describe(&"Account".into()).await.unwrap();
    let seen = org.server.seen();
    let call = seen.last().unwrap();
    assert_eq!(call.header("sforce-call-options"), "client=tributary");
    assert_eq!(call.header("sforce-query-options"), "batchSize=500");
    assert_eq!(call.path, "/services/data/v66.0/sobjects/Account/describe/");
    crm.clock().await.unwrap();
    for call in org.server.seen() {
        if call.path.starts_with("/services/data") {
            assert_eq!(call.header("sforce-call-options"), "client=tributary");
        }
    }
}

#[tokio::test]
async fn what_is_left_is_told_by_every_answer_and_by_the_limits() {
    let org = Org::start(|seen| async move {
        match below(&seen) {
            "/limits" => Reply::json(&json!({
                "DailyApiRequests": {"Max": 5000, "Remaining": 400},
                "DailyDeliveredPlatformEvents": {"Max": 10_000, "Remaining": -3},
                "DailyBulkV2QueryJobs": {"Max": 10_000, "Remaining": 10_000},
            })),
            _ => account().with("sforce-limit-info", "api-usage=4000/5000"),
        }
    })
    .await;
    let crm = org.connector();
    crm.describe(&"Account".into()).await.unwrap();
    let picture = crm.budget().unwrap().show();
    assert_eq!((picture.left, picture.limit), (Some(1000), Some(5000)));
    assert_eq!(picture.reserve, Some(500));
    assert!(picture.held.is_empty());
    crm.look_at_limits().await.unwrap();
    let picture = crm.budget().unwrap().show();
    assert_eq!(picture.left, Some(400));
    assert!(picture.held.contains(&"full_sync"), "{picture:?}");
    assert_eq!(picture.deliveries.left, Some(0));
    assert_eq!(picture.deliveries.limit, Some(10_000));
}

#[tokio::test]
async fn who_may_not_see_the_limits_learns_of_the_calls_all_the_same() {
    let org = Org::start(|_| async {
        Reply::error(403, "INSUFFICIENT_ACCESS", "View Setup")
            .with("sforce-limit-info", "api-usage=4900/5000")
    })
    .await;
    let crm = org.connector();
    crm.look_at_limits().await.unwrap();
    assert_eq!(crm.budget().unwrap().show().left, Some(100));
}

#[tokio::test]
async fn the_clock_is_the_crms_and_late() {
    let org = Org::start(|_| async { account() }).await;
    let crm = org.with(|settings| settings.read_lag = Duration::from_secs(5));
    let before = Utc::now();
    let clock = crm.clock().await.unwrap();
    assert!(clock <= Utc::now() - Duration::from_secs(5));
    assert!(clock > before - Duration::from_secs(10));
}

#[tokio::test]
async fn an_object_there_is_not_is_named() {
    let org = Org::start(|_| async {
        Reply::error(404, "NOT_FOUND", "The requested resource does not exist")
    })
    .await;
    let crm = org.connector();
    let fault = crm.describe(&"Acount".into()).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Missing);
    assert!(fault.report().contains("Acount"));
    let calls = org.server.seen().len();
    let fault = crm.describe(&"A B'".into()).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Missing);
    assert_eq!(
        org.server.seen().len(),
        calls,
        "no call for what is no name"
    );
}

#[tokio::test]
async fn descriptions_are_read_once_and_again_when_a_field_is_gone() {
    let org = Org::start(|seen| async move {
        match below(&seen) {
            "/query" => Reply::error(400, "INVALID_FIELD", "No such column 'Name'"),
            _ => describe("Account", &[("Id", "id"), ("Name", "string")]),
        }
    })
    .await;
    let crm = org.connector();
    for _ in 0..3 {
        crm.describe(&"Account".into()).await.unwrap();
    }
    assert_eq!(org.server.count("/describe/"), 1);
    let selection = selection("Account", &["Name"]);
    let mut pages = crm.read_all(&selection, None).await.unwrap();
    let fault = pages.next().await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Missing);
    assert!(
        fault.report().contains("reading Account"),
        "{}",
        fault.report()
    );
    crm.describe(&"Account".into()).await.unwrap();
    assert_eq!(org.server.count("/describe/"), 2);
}

#[tokio::test]
async fn a_version_that_the_org_does_not_serve_is_named() {
    let org = Org::start(|_| async { Reply::error(404, "NOT_FOUND", "no such version") }).await;
    let fault = org.connector().identify().await.unwrap_err();
    assert!(fault.report().contains("api_version"), "{}", fault.report());
}
