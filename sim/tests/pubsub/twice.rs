//! Many streams at once, and a position that is resumed from over and over: nothing is lost, doubled or reordered.

use serde_json::json;

use crate::harness::{ACCOUNTS, ALL, sim};

#[tokio::test]
async fn a_client_that_reconnects_after_every_answer_sees_each_event_once() {
    let sim = sim().await;
    sim.script(json!({"do": {"kind": "limit_batch", "events": 3}}))
        .await;
    let mut created = Vec::new();
    for round in 0..10 {
        let ops: Vec<_> = (0..4)
            .map(|n| json!({"op": "create", "object": "Account", "fields": {"Name": format!("{round}.{n}")}}))
            .collect();
        created.extend(sim.commit(json!(ops)).await);
        sim.create("Contact", json!({"LastName": "noise"})).await;
    }
    let mut client = sim.client().await;
    let mut stream = client.earliest(ACCOUNTS, 100).await;
    let mut seen = Vec::new();
    while seen.len() < created.len() {
        let answer = stream.answer().await;
        for event in &answer.events {
            let event = client.decode(event).await;
            let id = event["ChangeEventHeader"]["recordIds"][0].clone();
            seen.push(id.as_str().unwrap().to_owned());
        }
        stream = client.after(ACCOUNTS, &answer.latest_replay_id, 100).await;
    }
    assert_eq!(seen, created);
}

#[tokio::test]
async fn streams_of_one_connection_do_not_disturb_each_other() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let mut all = client.latest(ALL, 100).await;
    let mut none = client.latest("/data/ContactChangeEvent", 1).await;
    let mut accounts = client.latest(ACCOUNTS, 100).await;
    sim.until(|streams| streams.len() == 3).await;
    let ids = sim.accounts(20).await;
    let (first, second) = (all.events(20).await, accounts.events(20).await);
    assert_eq!(first, second);
    let mut told = Vec::new();
    for event in &first {
        told.push(client.decode(event).await["ChangeEventHeader"]["recordIds"][0].clone());
    }
    assert_eq!(json!(told), json!(ids));
    sim.create("Contact", json!({"LastName": "x"})).await;
    assert_eq!(none.events(1).await, all.events(1).await);
    drop(all);
    sim.until(|streams| streams.len() == 2).await;
    let shown = sim.get("/_sim/counts").await;
    assert_eq!(shown["delivered"], 42);
}
