//! What goes wrong: connections, credentials, locks, silence.

use std::time::{Duration, Instant};

use serde_json::json;

use super::super::settings::Transport;
use super::world::{KEY, World, guids};

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_drops_is_opened_again_and_what_was_not_settled_comes_again() {
    for transport in [Transport::Tcp, Transport::WebSocket] {
        let world = World::new().await;
        world
            .control("bus", json!({"lock_ms": 400, "lose_settlements": 3}))
            .await;
        let listening = world.listen(world.settings(transport));
        for number in 0..3 {
            world.post(number).await;
        }
        world.until(|counts| counts["delivered"] == 3).await;
        let said = listening.said().len();
        world.control("bus/orders", json!({"kind": "drop"})).await;
        world.control("bus", json!({"refuse_connections": 2})).await;
        listening.wait_after(said, "retrying").await;
        world.post(3).await;
        let counts = world.completed(4).await;
        assert!(counts["delivered"].as_u64() >= Some(7), "{counts:#}");
        assert_eq!(world.hints().await, guids(0..4));
        listening.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_was_lost_brings_the_message_again_and_no_harm() {
    let world = World::new().await;
    world
        .control("bus", json!({"lock_ms": 300, "lose_settlements": 1}))
        .await;
    let listening = world.connected().await;
    world.post(0).await;
    let counts = world.completed(1).await;
    assert_eq!(
        (
            counts["delivered"].as_u64(),
            counts["locks_expired"].as_u64()
        ),
        (Some(2), Some(1))
    );
    assert_eq!(world.hints().await, guids(0..1));
    assert_eq!(listening.count("connecting"), 1);
    listening.stop().await;
}

/// The bus refuses the settlement of a lock that is over; the message comes again.
#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_that_comes_too_late_is_refused_and_made_good() {
    let world = World::new().await;
    world.control("bus", json!({"lock_ms": 60_000})).await;
    let listening = world.connected().await;
    let held = world.hold_state();
    world.post(0).await;
    world.until(|counts| counts["locked"] == 1).await;
    // The bus's clock passes the lock's end before its renewal is due here.
    world.control("time", json!({"advance_seconds": 61})).await;
    world.until(|counts| counts["locks_expired"] == 1).await;
    drop(held);
    let counts = world.completed(1).await;
    assert!(counts["locks_lost"].as_u64() >= Some(1), "{counts:#}");
    assert_eq!(counts["delivered"], 2);
    listening.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_link_and_a_closed_connection_are_opened_again() {
    let world = World::new().await;
    let listening = world.connected().await;
    let orders = [
        json!({"kind": "detach", "condition": "amqp:unauthorized-access", "description": "ExpiredToken: The token is expired."}),
        json!({"kind": "detach", "condition": "amqp:link:detach-forced"}),
        json!({"kind": "close", "condition": "amqp:connection:forced", "description": "moved"}),
    ];
    for (number, order) in orders.into_iter().enumerate() {
        let said = listening.said().len();
        world.control("bus/orders", order).await;
        listening.wait_after(said, "retrying").await;
        world.post(number).await;
        world.completed(number as u64 + 1).await;
    }
    assert_eq!(listening.count("refused"), 0);
    listening.stop().await;
}

/// The bus's clock runs on: tokens end there, links are detached, and a new one is brought until it is taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ended_detaches_the_link_and_a_new_one_is_brought() {
    let world = World::new().await;
    let mut settings = world.settings(Transport::Tcp);
    settings.token_life = Duration::from_secs(600);
    let listening = world.listen(settings);
    listening.wait("connected").await;
    world.control("time", json!({"advance_seconds": 599})).await;
    let said = listening.said().len();
    listening.wait_after(said, "retrying").await;
    world.post(0).await;
    // The new token, too, was short of the moved clock's time, but not by much.
    world.completed(1).await;
    listening.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_refused_are_said_with_the_remedy_and_tried_seldom() {
    let world = World::new().await;
    let policy = |key: &str| json!({"name": "other", "key": key, "rights": ["Listen"]});
    world.control("bus/policies", policy("another key")).await;
    let mut settings = world.settings(Transport::Tcp);
    settings.key_name = "other".to_owned();
    settings.refused_wait = Duration::from_millis(1500);
    let listening = world.listen(settings);
    let fault = listening.wait("refused").await;
    assert!(
        fault.contains("policy `other`") && fault.contains("Listen"),
        "{fault}"
    );
    assert!(!fault.contains(KEY), "{fault}");
    let began = Instant::now();
    world.control("bus/policies", policy(KEY)).await;
    listening.wait("connected").await;
    assert!(
        began.elapsed() > Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(listening.count("connecting"), 2);
    listening.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_and_a_missing_queue_are_said() {
    let world = World::new().await;
    let mut settings = world.settings(Transport::Tcp);
    settings.key_name = "send".to_owned();
    let listening = world.listen(settings);
    let fault = listening.wait("refused").await;
    assert!(fault.contains("right Listen"), "{fault}");
    listening.stop().await;
    let mut settings = world.settings(Transport::Tcp);
    settings.queue = "chagnes".to_owned();
    let listening = world.listen(settings);
    let fault = listening.wait("refused").await;
    assert!(
        fault.contains("chagnes") && fault.contains("amqp:not-found"),
        "{fault}"
    );
    listening.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_falls_silent_is_left() {
    let world = World::new().await;
    let mut settings = world.settings(Transport::Tcp);
    settings.idle = Duration::from_millis(800);
    settings.call_timeout = Duration::from_secs(1);
    let listening = world.listen(settings);
    listening.wait("connected").await;
    // It lives on heartbeats for longer than its limit.
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(2500) {
        assert_eq!(listening.count("connecting"), 1, "{:?}", listening.said());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let said = listening.said().len();
    world.control("bus/orders", json!({"kind": "freeze"})).await;
    listening.wait_after(said, "retrying").await;
    world.post(0).await;
    world.completed(1).await;
    listening.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_there_is_tried_with_backoff() {
    let world = World::new().await;
    let mut settings = world.settings(Transport::WebSocket);
    settings.port = Some(1);
    let listening = world.listen(settings);
    let fault = listening.wait("retrying").await;
    assert!(fault.contains("127.0.0.1:1"), "{fault}");
    listening.stop().await;
    // A port where no bus is: the org's own.
    let mut settings = world.settings(Transport::WebSocket);
    settings.port = Some(world.sim.address.port());
    let listening = world.listen(settings);
    let fault = listening.wait("retrying").await;
    assert!(fault.contains("WebSocket"), "{fault}");
    listening.stop().await;
}
