//! The stream: a session's life, and every way in which it is lost.

use std::time::Duration;

use chrono::TimeDelta;
use futures_util::FutureExt;
use serde_json::json;

use crate::http::tests::server::Reply;
use crate::model::event::{EventKind, GapCause};
use crate::model::position::Position;

use super::streaming::{Streaming, refusal};
use super::*;

fn after(replay: i64) -> Start {
    Start::After(Position::new(format!("cometd:{replay}")))
}

async fn listen(streaming: &Streaming, from: Start) -> Box<dyn Listener> {
    try_listen(streaming, from).await.unwrap()
}

async fn try_listen(streaming: &Streaming, from: Start) -> Result<Box<dyn Listener>, Fault> {
    let crm = streaming.org.connector();
    crm.listen(&["Account".into(), "Contact".into()], from)
        .await
}

/// The names that events told, until there are so many.
async fn names(listener: &mut Box<dyn Listener>, count: usize) -> (Vec<String>, Option<Position>) {
    let (mut found, mut position) = (Vec::new(), None);
    while found.len() < count {
        let heard = listener.next().await.unwrap();
        found.extend(heard.events.iter().map(name));
        position = heard.position.or(position);
    }
    (found, position)
}

fn name(event: &crate::model::event::Event) -> String {
    event
        .fields
        .get("Name")
        .map_or_else(|| format!("{:?}", event.kind), ToString::to_string)
}

fn position(replay: i64) -> Option<Position> {
    Some(Position::new(format!("cometd:{replay}")))
}

#[tokio::test]
async fn a_life_without_trouble() {
    let streaming = Streaming::start().await;
    streaming.commit(1, "before");
    let mut listener = listen(&streaming, Start::Now).await;
    assert_eq!(streaming.log(), ["handshake", "connect", "subscribe -1"]);
    streaming.commit(1, "a");
    streaming.commit(2, "b");
    let last = streaming.commit(3, "c");
    let (found, at) = names(&mut listener, 3).await;
    assert_eq!(found, ["a", "b", "c"]);
    assert_eq!(at, position(last));
    listener.stop().await;
    assert_eq!(streaming.logged("disconnect"), 1);
    assert_eq!(streaming.clients(), 0, "the session is left");
    assert_eq!(streaming.org.sign_ins(), 1);
}

#[tokio::test]
async fn a_stored_position_goes_on_after_it() {
    let streaming = Streaming::start().await;
    let first = streaming.commit(1, "a");
    streaming.commit(1, "b");
    let mut listener = listen(&streaming, after(first)).await;
    assert_eq!(names(&mut listener, 1).await.0, ["b"]);
    let mut listener = listen(&streaming, Start::Earliest).await;
    assert_eq!(names(&mut listener, 2).await.0, ["a", "b"]);
}

#[tokio::test]
async fn events_before_and_with_the_ack_are_told() {
    let streaming = Streaming::start().await;
    let first = streaming.commit(1, "a");
    streaming.commit(1, "b");
    let last = streaming.commit(1, "c");
    streaming.change(|state| state.early = true);
    let mut listener = listen(&streaming, after(first)).await;
    let (found, at) = names(&mut listener, 2).await;
    assert_eq!(found, ["b", "c"]);
    assert_eq!(at, position(last));
}

#[tokio::test]
async fn a_dropped_wait_loses_nothing_and_asks_nothing_twice() {
    let streaming = Streaming::start().await;
    let mut listener = listen(&streaming, Start::Now).await;
    let mut found = Vec::new();
    for number in 0..20 {
        streaming.commit(1, &number.to_string());
        // Waits of every length are dropped.
        for _ in 0..number {
            if let Some(heard) = listener.next().now_or_never() {
                found.extend(heard.unwrap().events.iter().map(name));
            }
            tokio::task::yield_now().await;
        }
    }
    found.extend(names(&mut listener, 20 - found.len()).await.0);
    let expected: Vec<_> = (0..20).map(|number: usize| number.to_string()).collect();
    assert_eq!(found, expected);
    assert_eq!(streaming.logged("handshake"), 1);
    let polls = streaming.logged("connect");
    assert!(polls <= 22, "{polls} polls for 20 events");
}

#[tokio::test]
async fn a_forgotten_client_resubscribes_where_it_was() {
    let streaming = Streaming::start().await;
    let mut listener = listen(&streaming, Start::Now).await;
    let mut last = streaming.commit(1, "a");
    assert_eq!(names(&mut listener, 1).await.0, ["a"]);
    for round in ["b", "c", "d", "e"] {
        streaming.forget_clients();
        let before = last;
        last = streaming.commit(1, round);
        let (found, at) = names(&mut listener, 1).await;
        assert_eq!(found, [round]);
        assert_eq!(at, position(last));
        let log = streaming.log();
        assert!(log.contains(&format!("subscribe {before}")), "{log:?}");
    }
    assert_eq!(
        streaming.logged("handshake"),
        5,
        "old advice begins no sessions"
    );
    assert_eq!(streaming.org.sign_ins(), 1);
}

#[tokio::test]
async fn a_client_forgotten_before_its_first_event_asks_for_all() {
    let streaming = Streaming::start().await;
    let mut listener = listen(&streaming, Start::Now).await;
    streaming.forget_clients();
    streaming.commit(1, "missed");
    assert_eq!(names(&mut listener, 1).await.0, ["missed"]);
    assert_eq!(streaming.logged("subscribe -2"), 1);
}

#[tokio::test]
async fn a_lost_cookie_begins_anew() {
    let streaming = Streaming::start().await;
    let mut listener = listen(&streaming, Start::Now).await;
    streaming.commit(1, "a");
    names(&mut listener, 1).await;
    streaming.change(|state| state.cookie = 2);
    streaming.commit(1, "b");
    streaming.commit(1, "c");
    assert_eq!(names(&mut listener, 2).await.0, ["b", "c"]);
}

#[tokio::test]
async fn the_server_may_close_the_session() {
    let streaming = Streaming::start().await;
    let mut listener = listen(&streaming, Start::Now).await;
    streaming.commit(1, "a");
    names(&mut listener, 1).await;
    streaming.change(|state| state.closing = true);
    streaming.commit(1, "b");
    assert_eq!(names(&mut listener, 1).await.0, ["b"]);
    assert_eq!(streaming.logged("handshake"), 2);
}

#[tokio::test]
async fn a_dead_token_is_renewed_once() {
    let streaming = Streaming::start().await;
    let mut listener = listen(&streaming, Start::Now).await;
    streaming.commit(1, "a");
    names(&mut listener, 1).await;
    for round in 2..4 {
        streaming.org.inner.end_sessions();
        streaming.commit(1, "lost or not");
        names(&mut listener, 1).await;
        streaming.commit(1, "b");
        names(&mut listener, 1).await;
        assert_eq!(streaming.org.sign_ins(), round);
    }
}

#[tokio::test]
async fn a_token_that_is_never_taken_ends_the_stream() {
    let streaming = Streaming::start().await;
    streaming
        .org
        .inner
        .kills
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let crm = streaming.org.connector();
    // Without objects nothing is described: the stream itself meets the dead token.
    let fault = crm.listen(&[], Start::Now).await.err().unwrap();
    assert_eq!(fault.kind(), FaultKind::Credentials, "{}", fault.report());
    assert_eq!(streaming.org.sign_ins(), 2);
    assert_eq!(streaming.logged("handshake"), 2);
}

#[tokio::test]
async fn a_position_that_is_no_longer_held_is_lost_and_no_session_leaks() {
    let streaming = Streaming::start().await;
    streaming.change(|state| state.oldest = 500);
    let fault = try_listen(&streaming, after(100)).await.err().unwrap();
    assert_eq!(fault.kind(), FaultKind::PositionLost);
    assert!(fault.report().contains("acme"), "{}", fault.report());
    assert_eq!(streaming.clients(), 0);
    let log = streaming.log();
    assert_eq!(log, ["handshake", "connect", "subscribe 100", "disconnect"]);
}

#[tokio::test]
async fn a_position_lost_within_a_session_ends_the_stream() {
    let streaming = Streaming::start().await;
    let mut listener = listen(&streaming, Start::Now).await;
    streaming.commit(1, "a");
    names(&mut listener, 1).await;
    streaming.change(|state| state.oldest = 500);
    streaming.forget_clients();
    let fault = listener.next().await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::PositionLost);
    assert!(listener.next().await.is_err(), "over is over");
    listener.stop().await;
    assert_eq!(streaming.clients(), 0);
}

#[tokio::test]
async fn a_position_of_another_transport_asks_nothing() {
    let streaming = Streaming::start().await;
    let from = Start::After(Position::new("pubsub:AAAAAAAB"));
    let fault = try_listen(&streaming, from).await.err().unwrap();
    assert_eq!(fault.kind(), FaultKind::PositionLost);
    assert!(streaming.org.server.seen().is_empty());
}

#[tokio::test]
async fn a_quiet_poll_confirms_the_time() {
    let streaming = Streaming::start().await;
    streaming.change(|state| {
        state.held = Duration::from_millis(150);
        state.said = Duration::from_millis(150);
    });
    let mut listener = listen(&streaming, Start::Now).await;
    let quiet = listener.next().await.unwrap();
    assert!(quiet.events.is_empty());
    assert_eq!(quiet.position, None, "no event told one yet");
    let confirmed = quiet.confirmed_at.unwrap();
    assert!(confirmed < Utc::now() - TimeDelta::seconds(14));
    assert!(confirmed > Utc::now() - TimeDelta::seconds(20));

    let last = streaming.commit(1, "a");
    let told = listener.next().await.unwrap();
    assert_eq!(told.events.len(), 1);
    assert_eq!(told.confirmed_at, None);
    let quiet = listener.next().await.unwrap();
    assert_eq!(quiet.position, position(last));
    assert!(quiet.confirmed_at.is_some());
}

#[tokio::test]
async fn polls_that_are_not_held_confirm_nothing_and_do_not_spin() {
    let streaming = Streaming::start().await;
    streaming.change(|state| {
        state.held = Duration::ZERO;
        state.said = Duration::from_secs(110);
    });
    let mut listener = listen(&streaming, Start::Now).await;
    let wait = tokio::time::timeout(Duration::from_secs(1), listener.next()).await;
    assert!(wait.is_err(), "{wait:?}");
    let polls = streaming.logged("connect");
    assert!(polls < 12, "{polls} polls in a second");
    streaming.commit(1, "a");
    assert_eq!(names(&mut listener, 1).await.0, ["a"]);
}

#[tokio::test]
async fn sessions_that_never_hold_end_in_a_fault() {
    let streaming = Streaming::start().await;
    let mut listener = listen(&streaming, Start::Now).await;
    streaming.change(|state| state.forgetful = true);
    streaming.forget_clients();
    let fault = listener.next().await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Unavailable);
    assert!(fault.wait_hint().is_some());
    assert!(streaming.logged("handshake") <= 4, "{:?}", streaming.log());
}

#[tokio::test]
async fn what_cant_be_read_is_a_gap_and_the_stream_goes_on() {
    let streaming = Streaming::start().await;
    let mut listener = listen(&streaming, Start::Now).await;
    streaming.publish(&json!({"ChangeEventHeader": {"entityName": "Account", "recordIds": 5}}));
    streaming.publish(&json!("nonsense"));
    streaming.publish(&json!({"ChangeEventHeader": {"entityName": "Lead", "recordIds": ["x"]}}));
    let last = streaming.commit(1, "after");
    let mut events = Vec::new();
    let mut at = None;
    while events.len() < 4 {
        let heard = listener.next().await.unwrap();
        events.extend(heard.events);
        at = heard.position;
    }
    let undecodable = EventKind::ObjectGap(GapCause::Undecodable);
    assert_eq!(events[0].kind, undecodable);
    assert_eq!(events[0].object.as_str(), "Account");
    assert_eq!(events[1].kind, undecodable);
    assert_eq!(events[2].kind, undecodable);
    assert_ne!(events[1].object, events[2].object, "both objects");
    assert_eq!(name(&events[3]), "after");
    assert_eq!(at, position(last));
}

#[tokio::test]
async fn a_message_that_is_none_may_have_been_an_event() {
    let streaming = Streaming::start().await;
    let mut listener = listen(&streaming, Start::Now).await;
    let odd = json!([{"channel": 7}, {"channel": "/meta/connect", "successful": true}]);
    streaming.change(|state| state.instead.push_back(("connect", Reply::json(&odd))));
    let heard = listener.next().await.unwrap();
    assert_eq!(heard.events.len(), 2);
    assert_eq!(heard.position, None);
    assert!(
        heard
            .events
            .iter()
            .all(|event| matches!(event.kind, EventKind::ObjectGap(_)))
    );
}

#[tokio::test]
async fn others_events_move_the_position() {
    let streaming = Streaming::start().await;
    let mut listener = listen(&streaming, Start::Now).await;
    let replay = streaming.publish(
        &json!({"ChangeEventHeader": {"entityName": "Lead", "changeType": "UPDATE",
        "recordIds": [id(1)], "changedFields": []}}),
    );
    let heard = listener.next().await.unwrap();
    assert!(heard.events.is_empty());
    assert_eq!(heard.position, position(replay));
    assert_eq!(heard.confirmed_at, None);
}

#[tokio::test]
async fn refusals_while_listening() {
    let busy = json!({
        "advice": {"reconnect": "none"}, "ext": {"sfdc": {"failureReason": "503::Server is too busy. Please try later."}}
    });
    let refused = |error: &str, more| Reply::json(&json!([refusal("/meta/connect", error, more)]));
    for (reply, kind) in [
        (
            refused("401::Authentication invalid", &busy),
            FaultKind::Unavailable,
        ),
        (
            refused(
                "403::Organization total events daily limit exceeded",
                &json!({}),
            ),
            FaultKind::Throttled,
        ),
        (Reply::new(503, "<html>"), FaultKind::Unavailable),
        (Reply::new(200, "<html>"), FaultKind::Protocol),
        (
            Reply::new(200, r#"[{"channel":"/meta/connect","successful":true}]"#).cut(),
            FaultKind::Unavailable,
        ),
        (
            Reply::new(413, "413::Maximum Request Size Exceeded"),
            FaultKind::Protocol,
        ),
        (
            Reply::new(429, "").with("retry-after", "60"),
            FaultKind::Throttled,
        ),
    ] {
        let streaming = Streaming::start().await;
        let mut listener = listen(&streaming, Start::Now).await;
        streaming.change(|state| state.instead.push_back(("connect", reply.clone())));
        let fault = listener.next().await.unwrap_err();
        assert_eq!(fault.kind(), kind, "{reply:?}: {}", fault.report());
        assert_eq!(streaming.org.sign_ins(), 1, "credentials are kept");
        listener.stop().await;
        assert_eq!(streaming.clients(), 0, "{reply:?}");
    }
}

#[tokio::test]
async fn events_that_come_with_a_refusal_are_told_first() {
    let streaming = Streaming::start().await;
    let mut listener = listen(&streaming, Start::Now).await;
    let data = json!({"payload": {"ChangeEventHeader": {"entityName": "Account", "recordIds": [id(1)],
        "changeType": "DELETE"}}, "event": {"replayId": 9}});
    let answer = json!([
        {"channel": "/data/ChangeEvents", "data": data},
        refusal("/meta/connect", "403::Organization total events daily limit exceeded", &json!({}))
    ]);
    streaming.change(|state| state.instead.push_back(("connect", Reply::json(&answer))));
    let heard = listener.next().await.unwrap();
    assert_eq!(heard.events.len(), 1);
    assert_eq!(heard.position, position(9));
    assert_eq!(
        listener.next().await.unwrap_err().kind(),
        FaultKind::Throttled
    );
}

#[tokio::test]
async fn refusals_at_the_beginning() {
    let limit = json!({"ext": {"sfdc": {"failureReason": "403::Organization concurrent user limit exceeded"}}});
    let reason = json!({"ext": {"sfdc": {"failureReason": "503::Server is too busy."}}});
    let handshake = |more| {
        Reply::json(&json!([refusal(
            "/meta/handshake",
            "403::Handshake denied",
            more
        )]))
    };
    let subscribe = |error| Reply::json(&json!([refusal("/meta/subscribe", error, &json!({}))]));
    for (on, reply, kind) in [
        ("handshake", handshake(&limit), FaultKind::Throttled),
        ("handshake", handshake(&reason), FaultKind::Unavailable),
        (
            "handshake",
            Reply::new(
                400,
                "400::API version in the URI is mandatory. URI format: '/cometd/43.0'",
            ),
            FaultKind::Config,
        ),
        ("handshake", Reply::new(200, "[]"), FaultKind::Protocol),
        (
            "subscribe",
            subscribe(
                "400::The channel you requested to subscribe to doesn't exist {/data/ChangeEvents}",
            ),
            FaultKind::Config,
        ),
        (
            "subscribe",
            subscribe("403:denied_by_security_policy:create_denied"),
            FaultKind::Config,
        ),
        (
            "subscribe",
            subscribe("403::User not allowed to subscribe CDC without View All Data permissions"),
            FaultKind::Permission,
        ),
        ("subscribe", Reply::new(200, "[]"), FaultKind::Protocol),
    ] {
        let streaming = Streaming::start().await;
        streaming.change(|state| state.instead.push_back((on, reply.clone())));
        let fault = try_listen(&streaming, Start::Now).await.err().unwrap();
        assert_eq!(fault.kind(), kind, "{reply:?}: {}", fault.report());
        assert_eq!(streaming.clients(), 0, "{reply:?}");
    }
}

#[tokio::test]
async fn a_server_without_replay_is_refused() {
    let streaming = Streaming::start().await;
    streaming.change(|state| state.replays = false);
    let fault = try_listen(&streaming, Start::Now).await.err().unwrap();
    assert_eq!(fault.kind(), FaultKind::Config);
    assert_eq!(streaming.clients(), 0);
}

#[tokio::test]
async fn a_cut_answer_comes_again_after_the_durable_position() {
    let streaming = Streaming::start().await;
    let mut listener = listen(&streaming, Start::Now).await;
    let durable = streaming.commit(1, "a");
    names(&mut listener, 1).await;
    let cut = Reply::new(
        200,
        r#"[{"channel":"/data/ChangeEvents","data":{"payload":{}}}]"#,
    )
    .cut();
    streaming.change(|state| state.instead.push_back(("connect", cut)));
    streaming.commit(1, "b");
    assert_eq!(
        listener.next().await.unwrap_err().kind(),
        FaultKind::Unavailable
    );
    listener.stop().await;
    let mut listener = listen(&streaming, after(durable)).await;
    assert_eq!(names(&mut listener, 1).await.0, ["b"]);
}

#[tokio::test]
async fn an_enriched_events_position_waits_for_what_follows() {
    let streaming = Streaming::start().await;
    let mut listener = listen(&streaming, Start::Now).await;
    let safe = streaming.commit(1, "plain");
    assert_eq!(names(&mut listener, 1).await.1, position(safe));
    streaming.publish(&json!({
        "ChangeEventHeader": {"entityName": "Account", "recordIds": [id(1)], "changeType": "UPDATE",
            "changedFields": ["SystemModstamp"]},
        "SystemModstamp": "2024-04-09T20:26:27.000Z", "Name": "as it is at the delivery"
    }));
    let heard = listener.next().await.unwrap();
    assert_eq!(heard.events.len(), 1);
    assert_eq!(heard.position, position(safe));
    let last = streaming.commit(1, "plain");
    assert_eq!(names(&mut listener, 1).await.1, position(last));
}

#[tokio::test]
async fn a_wildcard_describes_the_object_again() {
    let streaming = Streaming::start().await;
    let mut listener = listen(&streaming, Start::Now).await;
    let described = streaming.org.server.count("/Account/describe/");
    streaming.publish(
        &json!({"ChangeEventHeader": {"entityName": "Account", "recordIds": ["001*"],
        "changeType": "UPDATE"}}),
    );
    let heard = listener.next().await.unwrap();
    assert_eq!(
        heard.events[0].kind,
        EventKind::ObjectGap(GapCause::Wildcard)
    );
    streaming.commit(1, "a");
    names(&mut listener, 1).await;
    assert_eq!(
        streaming.org.server.count("/Account/describe/"),
        described + 1
    );
}
