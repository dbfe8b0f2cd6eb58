//! Time and transport: the read lag, the commit log's retention, TLS.

use std::time::Duration;

use chrono::TimeDelta;
use reqwest::Method;
use serde_json::json;
use tributary_sim::salesforce::commits::Cut;
use tributary_sim::salesforce::{SimOptions, start};

use crate::org::{ACME, BETA, TestOrg, id};

#[tokio::test]
async fn reads_see_the_org_as_it_was_a_lag_ago() {
    let org = TestOrg::with(|options| options.read_lag_ms = 5000).await;
    let clock = &org.running.org.clock;
    clock.freeze();
    let path = format!("sobjects/Account/{ACME}");
    org.call(Method::PATCH, &path, json!({"Name": "One"})).await;
    clock.advance(Duration::from_secs(3));
    org.call(Method::PATCH, &path, json!({"Name": "Two"})).await;
    org.transact(json!([{"ops": [
        {"op": "hard_delete", "object": "Account", "id": BETA},
        {"op": "create", "object": "Account", "fields": {"Name": "New"}},
    ]}]))
    .await;
    let seen = async || {
        let names = org
            .column(
                "SELECT Name FROM Account ORDER BY SystemModstamp, Id",
                "Name",
            )
            .await;
        let mut names: Vec<_> = names
            .iter()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect();
        names.sort();
        assert!(
            names.contains(
                &org.get(&path).await.body["Name"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            )
        );
        names
    };
    assert_eq!(seen().await, ["Acme", "Gamma", "beta"]);
    assert_eq!(
        org.running
            .org
            .log
            .after(org.running.org.log.beginning(), 9)
            .unwrap()
            .len(),
        3,
        "events don't lag"
    );
    clock.advance(Duration::from_secs(2));
    assert_eq!(seen().await, ["Gamma", "One", "beta"]);
    clock.advance(Duration::from_secs(3));
    assert_eq!(seen().await, ["Gamma", "New", "Two"]);
}

#[tokio::test]
async fn events_are_kept_72_hours() {
    let org = TestOrg::start().await;
    let path = format!("sobjects/Account/{ACME}");
    let (clock, log) = (&org.running.org.clock, &org.running.org.log);
    org.running.org.sessions.set_lifetime(TimeDelta::days(30));
    clock.freeze();
    let base = log.newest();
    assert!(
        log.check(base).is_ok(),
        "the position before the first event"
    );
    org.call(Method::PATCH, &path, json!({"Name": "One"})).await;
    let one = log.newest();
    clock.advance(Duration::from_secs(71 * 3600));
    org.call(Method::PATCH, &path, json!({"Name": "Two"})).await;
    let two = log.newest();
    assert!(log.check(one).is_ok() && log.check(base).is_ok());
    assert!(
        log.check(one + 1).is_err() || one + 1 == two,
        "never given out"
    );
    clock.advance(Duration::from_secs(3601));
    assert_eq!(log.earliest(), Some(two));
    assert!(log.check(one).is_err() && log.check(base).is_err());
    assert_eq!(
        log.after(one, 9).unwrap().len(),
        1,
        "nothing after it is lost"
    );
    assert!(log.after(base, 9).is_err());
    log.cut(Cut::All).unwrap();
    assert!(log.check(two).is_err());
    assert!(log.after(two + 1, 9).is_err());
}

#[tokio::test]
async fn the_same_seed_gives_the_same_org() {
    let run = async |seed| {
        let org = TestOrg::with(|options| options.seed = seed).await;
        org.call(
            Method::PATCH,
            &format!("sobjects/Account/{}", id("001", 1)),
            json!({"Name": "x"}),
        )
        .await;
        let log = &org.running.org.log;
        let event = log.after(log.beginning(), 1).unwrap().remove(0);
        (
            org.running.org.profile.org_id.clone(),
            event.replay_id,
            event.event.transaction_key.clone(),
        )
    };
    assert_eq!(run(7).await, run(7).await);
    assert_ne!(run(7).await, run(8).await);
}

#[tokio::test]
async fn the_org_speaks_tls() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/tls");
    let running = start(SimOptions {
        tls_cert: Some(dir.join("cert.pem")),
        tls_key: Some(dir.join("key.pem")),
        ..SimOptions::default()
    })
    .await
    .unwrap();
    assert!(running.url.starts_with("https://127.0.0.1:"));
    let cert = std::fs::read(dir.join("cert.pem")).unwrap();
    let client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&cert).unwrap()])
        .build()
        .unwrap();
    let answer = client
        .get(format!("{}/services/data", running.url))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    running.stop().await.unwrap();
}
