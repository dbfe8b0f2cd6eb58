//! What comes through: hints, once durable and only then settled.

use std::time::Duration;

use serde_json::json;

use crate::http::tests::trust;

use super::super::settings::Transport;
use super::world::{World, guid, guids};

#[tokio::test(flavor = "multi_thread")]
async fn a_change_in_the_org_is_a_hint_in_the_state_over_both_transports() {
    for transport in [Transport::Tcp, Transport::WebSocket] {
        let world = World::new().await;
        world.register(2).await;
        let listening = world.listen(world.settings(transport));
        for number in 0..20 {
            world.write(number, "born").await;
        }
        world.completed(20).await;
        assert_eq!(world.hints().await, guids(0..20));
        let counts = world.queue().await;
        assert_eq!(counts["dead"]["ready"], 0, "{counts:#}");
        listening.stop().await;
        assert_eq!(world.shown("bus").await["connections"], 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_with_an_authority_of_ones_own_and_with_no_unknown_one() {
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let cert = file("server.pem", trust::SERVER);
    let key = file("server.key", trust::SERVER_KEY);
    let world = World::with(Some((&cert, &key))).await;
    for transport in [Transport::Tcp, Transport::WebSocket] {
        let mut settings = world.settings(transport);
        settings.host = "localhost".to_owned();
        settings.encrypted = true;
        let stranger = world.listen(settings.clone());
        let fault = stranger.wait("retrying").await;
        assert!(fault.contains("ca_file"), "{fault}");
        stranger.stop().await;
        settings.ca_file = Some(file("ca.pem", trust::AUTHORITY));
        let listening = world.listen(settings);
        listening.wait("connected").await;
        listening.stop().await;
    }
    // Who does not speak TLS is not served.
    let plain = world.listen(world.settings(Transport::Tcp));
    plain.wait("retrying").await;
    assert_eq!(plain.count("connected"), 0);
    plain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_before_it_ends() {
    let world = World::new().await;
    let mut settings = world.settings(Transport::WebSocket);
    settings.token_life = Duration::from_secs(2);
    let listening = world.listen(settings);
    let began = std::time::Instant::now();
    let mut posted = 0;
    while began.elapsed() < Duration::from_secs(6) {
        world.post(posted).await;
        posted += 1;
        world.completed(posted as u64).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(listening.count("connecting"), 1, "{:?}", listening.said());
    listening.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doubled_and_reordered_messages_are_hints_all_the_same() {
    let world = World::new().await;
    world.register(2).await;
    let faults = json!([
        {"on": {"table": "account"}, "times": 5, "do": {"kind": "double"}},
        {"on": {"table": "account"}, "after": 1, "times": 3, "do": {"kind": "hold", "behind": 2}},
    ]);
    world.control("faults", faults).await;
    let listening = world.connected().await;
    for number in 0..20 {
        world.write(number, "born").await;
    }
    let counts = world.completed(25).await;
    assert_eq!(counts["delivered"], 25);
    assert_eq!(world.hints().await, guids(0..20));
    listening.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_hint_goes_to_the_dead_letters_with_its_reason() {
    let world = World::new().await;
    let listening = world.connected().await;
    world.put("hello", "application/json").await;
    world
        .put(
            "{\"MessageName\":\"WhoAmI\",\"PrimaryEntityName\":\"none\"}",
            "application/json",
        )
        .await;
    for format in [1, 3] {
        world.register(format).await;
    }
    world.write(0, "in two formats that are not JSON").await;
    let counts = world.until(|counts| counts["dead"]["ready"] == 4).await;
    assert_eq!(
        (counts["completed"].as_u64(), counts["ready"].as_u64()),
        (Some(0), Some(0))
    );
    let dead = world.shown("bus/dead?queue=changes").await;
    let mut reasons: Vec<_> = dead
        .as_array()
        .unwrap()
        .iter()
        .map(|letter| letter["reason"].as_str().unwrap().to_owned())
        .collect();
    reasons.sort();
    assert_eq!(reasons, ["binary", "no_record", "unreadable", "xml"]);
    let said = dead[0]["description"].as_str().unwrap();
    assert!(said.contains("RemoteExecutionContext"), "{said}");
    // Health says what to do about the format, until a good one comes.
    let fault = listening.wait_for("msbin1").await;
    assert!(fault.contains("JSON"), "{fault}");
    world.post(7).await;
    world.completed(1).await;
    assert_eq!(world.hints().await, [guid(7)]);
    listening.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_settled_before_it_is_durable_and_credit_bounds_what_waits() {
    let world = World::new().await;
    let mut settings = world.settings(Transport::Tcp);
    settings.credit = 5;
    let listening = world.listen(settings);
    listening.wait("connected").await;
    let held = world.hold_state();
    for number in 0..40 {
        world.post(number).await;
    }
    world.until(|counts| counts["locked"] == 5).await;
    let counts = world.queue().await;
    assert_eq!(
        (counts["completed"].as_u64(), counts["ready"].as_u64()),
        (Some(0), Some(35))
    );
    assert!(counts["locked"].as_u64().unwrap() <= 5);
    drop(held);
    world.completed(40).await;
    assert_eq!(world.hints().await, guids(0..40));
    listening.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_are_kept_while_the_inbox_is_slow() {
    let world = World::new().await;
    world.control("bus", json!({"lock_ms": 1500})).await;
    let listening = world.connected().await;
    let held = world.hold_state();
    for number in 0..8 {
        world.post(number).await;
    }
    // Each lock would have ended by now, more than once.
    world
        .until(|counts| counts["locks_renewed"].as_u64() >= Some(32))
        .await;
    drop(held);
    let counts = world.completed(8).await;
    assert_eq!(
        (
            counts["delivered"].as_u64(),
            counts["locks_expired"].as_u64()
        ),
        (Some(8), Some(0))
    );
    assert_eq!(world.hints().await, guids(0..8));
    listening.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_what_is_in_hand_be_stored_and_settled() {
    let world = World::new().await;
    let listening = world.connected().await;
    let held = world.hold_state();
    for number in 0..30 {
        world.post(number).await;
    }
    world.until(|counts| counts["locked"] == 30).await;
    let stopped = tokio::spawn(listening.stop());
    drop(held);
    stopped.await.unwrap();
    assert_eq!(world.shown("bus").await["connections"], 0);
    let counts = world.queue().await;
    let settled = counts["completed"].as_u64().unwrap();
    // What came after the batch in hand was not begun, and comes again.
    assert!(settled > 0, "{counts:#}");
    assert_eq!(
        settled + counts["locked"].as_u64().unwrap(),
        30,
        "{counts:#}"
    );
    assert_eq!(world.hints().await.len() as u64, settled);
}
