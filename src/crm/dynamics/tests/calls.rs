//! Calls: what is sent along, what refusals mean, descriptions, the CRM's clock, the day's budget.

use std::time::Duration;

use crate::http::tests::server::Reply;
use crate::runtime::clock::ManualClock;

use super::org::{Org, below, page, refused, row};
use super::*;

async fn refusing(reply: Reply) -> Fault {
    let org = Org::start(move |_| {
        let reply = reply.clone();
        async move { reply }
    })
    .await;
    let crm = org.connector();
    let mut pages = crm
        .read_all(&selection("account", &["name"]), None)
        .await
        .unwrap();
    pages.next().await.unwrap_err()
}

#[tokio::test]
async fn refusals_have_their_kinds() {
    for (reply, kind) in [
        (
            refused(429, "0x80072322", "Number of requests exceeded"),
            FaultKind::Throttled,
        ),
        (
            refused(429, "-2147015903", "Combined execution time"),
            FaultKind::Throttled,
        ),
        (Reply::new(429, ""), FaultKind::Throttled),
        (
            refused(403, "0x80040220", "missing prvReadAccount"),
            FaultKind::Permission,
        ),
        (
            refused(400, "0x80044352", "Version stamp"),
            FaultKind::PositionLost,
        ),
        (
            refused(400, "", "Could not find a property named 'nam' on type"),
            FaultKind::Missing,
        ),
        (refused(400, "0x80060888", "bad OData"), FaultKind::Protocol),
        (
            refused(404, "0x80060888", "Resource not found for the segment"),
            FaultKind::Missing,
        ),
        (refused(500, "", "oops"), FaultKind::Unavailable),
        (Reply::new(503, "<html>"), FaultKind::Unavailable),
        (Reply::new(200, "<html>"), FaultKind::Protocol),
        (
            Reply::new(200, "{\"value\":[").cut(),
            FaultKind::Unavailable,
        ),
    ] {
        let fault = refusing(reply.clone()).await;
        assert_eq!(fault.kind(), kind, "{reply:?}: {}", fault.report());
        assert!(fault.report().contains("account"), "{}", fault.report());
    }
}

#[tokio::test]
async fn a_throttled_call_says_how_long_to_wait() {
    let reply = refused(429, "0x80072322", "Number of requests exceeded").with("retry-after", "37");
    assert_eq!(
        refusing(reply).await.wait_hint(),
        Some(Duration::from_secs(37))
    );
}

#[tokio::test]
async fn calls_carry_what_odata_wants() {
    let org = Org::start(|seen| async move { page(&seen, &[row(1, 1, "a")], None, None) }).await;
    let crm = org.with(|settings| settings.page_size = 77);
    let mut pages = crm
        .read_all(&selection("account", &["name"]), None)
        .await
        .unwrap();
    pages.next().await.unwrap().unwrap();
    let call = org.calls().pop().unwrap();
    assert_eq!(call.header("accept"), "application/json");
    assert_eq!(call.header("odata-version"), "4.0");
    assert_eq!(call.header("odata-maxversion"), "4.0");
    assert_eq!(call.header("if-none-match"), "null");
    assert_eq!(
        call.header("prefer"),
        "odata.track-changes,odata.maxpagesize=77,\
         odata.include-annotations=\"Microsoft.Dynamics.CRM.lookuplogicalname\""
    );
    assert_eq!(call.header("cookie"), "");
}

#[tokio::test]
async fn tables_are_described_once_and_unknown_ones_named() {
    let org = Org::start(|seen| async move {
        assert!(below(&seen).contains("'acount'"), "{seen:?}");
        refused(
            404,
            "0x80060888",
            "Could not find an entity with name 'acount'",
        )
    })
    .await;
    let crm = org.connector();
    for _ in 0..3 {
        let schema = crm.describe(&"account".into()).await.unwrap();
        assert_eq!(schema.fields["ownerid"].references.len(), 2);
        assert!(schema.fields.contains_key("Id"));
    }
    assert_eq!(org.server.count("(LogicalName='account')"), 1);
    let fault = crm.describe(&"acount".into()).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Missing);
    assert!(fault.report().contains("`acount`"), "{}", fault.report());
    let calls = org.server.seen().len();
    let fault = crm.describe(&"a'b".into()).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Missing);
    assert_eq!(
        org.server.seen().len(),
        calls,
        "no call for what is no name"
    );
}

#[tokio::test]
async fn the_clock_is_the_crms_and_late_and_costs_no_session() {
    let org = Org::start(|seen| async move { page(&seen, &[], None, None) }).await;
    let crm = org.connector();
    let before = Utc::now();
    let clock = crm.clock().await.unwrap();
    assert!(clock <= Utc::now() - Duration::from_secs(5));
    assert!(clock > before - Duration::from_secs(10));
    assert_eq!(org.sign_ins(), 0);
}

#[tokio::test]
async fn a_days_calls_end_and_the_next_waits_for_midnight() {
    let org = Org::start(|seen| async move { page(&seen, &[], None, None) }).await;
    let clock = Arc::new(ManualClock::new("2026-01-05T23:59:00Z".parse().unwrap()));
    let mut settings = org.settings();
    settings.daily_requests = Some(3);
    let own = Arc::clone(&clock) as Arc<dyn Clock>;
    let crm = Arc::new(Dynamics::new(settings, Metrics::none(), own).unwrap());
    crm.identify().await.unwrap();
    crm.describe(&"account".into()).await.unwrap();
    let calls = org.server.seen().len();
    let waits = Arc::clone(&crm);
    let waits = tokio::spawn(async move { waits.identify().await });
    let budget = crm.budget().unwrap();
    while budget.show().waiting.is_empty() {
        tokio::task::yield_now().await;
    }
    let picture = budget.show();
    assert_eq!((picture.left, picture.spent), (Some(0), 3));
    assert!(picture.held.contains(&"repair"), "{picture:?}");
    assert_eq!(org.server.seen().len(), calls, "nothing is sent any more");
    clock.advance(Duration::from_secs(61));
    waits.await.unwrap().unwrap();
    assert_eq!(budget.spent(), (1, Some(3)));
}

#[tokio::test]
async fn a_call_that_is_throttled_holds_up_the_others_for_as_long() {
    let org = Org::start(|_| async {
        refused(429, "0x80072322", "Number of requests exceeded")
            .with("retry-after", "9")
            .with("x-ms-ratelimit-burst-remaining-xrm-requests", "0")
    })
    .await;
    let clock = Arc::new(ManualClock::new("2026-01-05T10:00:00Z".parse().unwrap()));
    let own = Arc::clone(&clock) as Arc<dyn Clock>;
    let crm = Dynamics::new(org.settings(), Metrics::none(), own).unwrap();
    let selection = selection("account", &["name"]);
    let mut pages = crm.read_all(&selection, None).await.unwrap();
    assert!(pages.next().await.is_err());
    let picture = crm.budget().unwrap().show();
    let until = clock.now() + chrono::TimeDelta::seconds(9);
    assert_eq!(picture.closed_until, Some(until));
    assert_eq!(picture.burst_left, Some(0));
    assert!(picture.held.is_empty(), "the short window is no day's");
    clock.advance(Duration::from_secs(9));
    assert!(pages.next().await.is_err(), "it is asked again");
}
