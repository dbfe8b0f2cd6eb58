//! The journal: an org that stops and starts again is the same org.

use std::fs;

use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;
use tributary_sim::salesforce::commits::Cut;
use tributary_sim::salesforce::{SimOptions, start};

use crate::org::{ACME, BETA, TestOrg, id};

async fn open(dir: TempDir) -> TestOrg {
    let journal = dir.path().join("journal.jsonl");
    TestOrg::at(dir, |options| options.journal = Some(journal)).await
}

async fn close(org: TestOrg) -> TempDir {
    let dir = org.dir;
    org.running.stop().await.unwrap();
    dir
}

#[tokio::test]
async fn a_restarted_org_has_its_records_events_and_replay_ids() {
    let seed = TestOrg::start().await;
    let org = open(close(seed).await).await;
    org.transact(json!([
        {"ops": [{"op": "update", "object": "Account", "id": ACME, "fields": {"Name": "New", "BillingCity": null}}]},
        {"ops": [{"op": "create", "object": "Account", "fields": {"Name": "Made"}}]},
        {"ops": [{"op": "delete", "object": "Account", "id": BETA},
                 {"op": "hard_delete", "object": "Account", "id": id("001", 3)}]},
    ]))
    .await;
    let log = &org.running.org.log;
    let first = log.earliest().unwrap();
    log.cut(Cut::Before(first + 1)).unwrap();
    let org_id = org.running.org.profile.org_id.clone();
    let events = log.after(log.beginning(), 100).unwrap();
    assert_eq!(events.len(), 2);
    let truth = org.get("/_sim/records/Account").await.body;
    let users = org.get("/_sim/records/User").await.body;

    let again = open(close(org).await).await;
    assert_eq!(again.running.org.profile.org_id, org_id);
    assert_eq!(again.get("/_sim/records/Account").await.body, truth);
    assert_eq!(
        again.get("/_sim/records/User").await.body,
        users,
        "defaults are those of the first start"
    );
    let log = &again.running.org.log;
    assert_eq!(log.after(log.beginning(), 100).unwrap(), events);
    assert!(log.check(first).is_err(), "what was cut stays cut");
    assert!(log.check(events[1].replay_id).is_ok());

    let made = again
        .call(Method::POST, "sobjects/Account", json!({"Name": "After"}))
        .await;
    let newest = log.after(events[1].replay_id, 9).unwrap();
    assert_eq!(
        newest[0].event.record_ids,
        [made.body["id"].as_str().unwrap()]
    );
    assert!(newest[0].event.commit_number > events[1].event.commit_number);
    assert_ne!(
        newest[0].event.transaction_key,
        events[0].event.transaction_key
    );
}

#[tokio::test]
async fn a_reset_stream_refuses_the_old_ids_after_a_restart_too() {
    let seed = TestOrg::start().await;
    let org = open(close(seed).await).await;
    org.call(
        Method::PATCH,
        &format!("sobjects/Account/{ACME}"),
        json!({"Name": "x"}),
    )
    .await;
    let log = &org.running.org.log;
    let old = log.newest();
    log.reset().unwrap();
    assert!(log.newest() < old);
    let base = log.newest();
    let again = open(close(org).await).await;
    let log = &again.running.org.log;
    assert_eq!(log.newest(), base);
    assert!(log.check(old).is_err() && log.check(base).is_ok());
}

#[tokio::test]
async fn a_journal_that_does_not_fit_is_refused() {
    let seed = TestOrg::start().await;
    let org = open(close(seed).await).await;
    org.call(
        Method::PATCH,
        &format!("sobjects/Account/{ACME}"),
        json!({"Name": "x"}),
    )
    .await;
    let dir = close(org).await;
    let options = SimOptions {
        journal: Some(dir.path().join("journal.jsonl")),
        ..SimOptions::default()
    };
    assert!(
        start(options.clone()).await.is_err(),
        "the objects are gone"
    );
    fs::write(dir.path().join("journal.jsonl"), "{\"kind\":\"born\"").unwrap();
    let broken = start(options).await.unwrap_err();
    let source = std::error::Error::source(&broken).map(ToString::to_string);
    assert!(
        format!("{broken} {source:?}").contains("line 1"),
        "{broken} {source:?}"
    );
}
