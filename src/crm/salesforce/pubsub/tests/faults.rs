//! The stream against a server that is cut, falls silent, refuses, and sends what it should not.

use std::time::Duration;

use tonic::{Code, Status};

use crate::crm::port::{Crm, Start};
use crate::crm::salesforce::settings::Channels;
use crate::fault::FaultKind;
use crate::http::tests::trust;
use crate::model::event::{EventKind, GapCause};
use crate::model::position::Position;

use super::super::eventbus::{ConsumerEvent, FetchResponse};
use super::server::{World, after, create, ends, hear, position, raw, refusal, replay_id, soon};

#[tokio::test]
async fn nothing_said_in_time_is_no_stream() {
    let world = World::start().await;
    let crm = world.with(|settings| settings.silence = Duration::from_millis(300));
    let objects = ["Account".into()];
    let fault = soon(crm.listen(&objects, Start::Now)).await.err().unwrap();
    assert_eq!(fault.kind(), FaultKind::Unavailable, "{fault:?}");
}

#[tokio::test]
async fn a_cut_connection_goes_on_where_it_stood() {
    let mut world = World::start().await;
    let crm = world.connector();
    let (mut listener, call) = world.listen(&crm, after(1), 3).await;
    hear(&mut listener).await;
    call.send(vec![create(4, "a")]);
    hear(&mut listener).await;
    for id in 5..8 {
        world.cut();
        let mut wait = Box::pin(listener.next());
        let call = tokio::select! {
            heard = &mut wait => panic!("{heard:?}"),
            call = world.call() => call,
        };
        assert_eq!(call.first.replay_id, replay_id(id - 1));
        call.send(vec![create(id, "b")]);
        let heard = soon(wait).await.unwrap();
        assert_eq!(heard.events[0].position, position(id));
    }
}

#[tokio::test]
async fn one_that_is_lost_before_it_says_anything_is_the_callers() {
    let mut world = World::start().await;
    let crm = world.connector();
    let (mut listener, call) = world.listen(&crm, after(1), 3).await;
    hear(&mut listener).await;
    drop(call);
    let mut wait = Box::pin(listener.next());
    let call = tokio::select! {
        heard = &mut wait => panic!("{heard:?}"),
        call = world.call() => call,
    };
    call.answer(Err(Status::unavailable("connection reset")));
    let fault = soon(wait).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Unavailable);
    assert!(fault.report().contains("connection reset"), "{fault:?}");
    let over = soon(listener.next()).await.unwrap_err();
    assert_eq!(over.kind(), FaultKind::Protocol);
}

#[tokio::test]
async fn a_silent_stream_is_left() {
    let mut world = World::start().await;
    let crm = world.with(|settings| settings.silence = Duration::from_millis(400));
    let (mut listener, call) = world.listen(&crm, after(1), 3).await;
    hear(&mut listener).await;
    let mut wait = Box::pin(listener.next());
    let second = tokio::select! {
        heard = &mut wait => panic!("{heard:?}"),
        call = world.call() => call,
    };
    assert_eq!(second.first.replay_id, replay_id(3));
    second.keep_alive(4);
    assert_eq!(soon(wait).await.unwrap().position, Some(position(4)));
    call.gone().await;
    // Silent twice: the caller waits before it tries again.
    let fault = ends(&mut listener).await;
    assert_eq!(fault.kind(), FaultKind::Unavailable);
    assert!(fault.report().contains("said nothing"), "{fault:?}");
}

#[tokio::test]
async fn a_refused_position_is_lost() {
    let mut world = World::start().await;
    let crm = world.connector();
    let objects = ["Account".into()];
    let refused = || {
        refusal(
            Code::InvalidArgument,
            "subscription.fetch.replayid.corrupted",
        )
    };
    let (opened, call) = tokio::join!(crm.listen(&objects, after(1)), async {
        let call = world.call().await;
        call.answer(Err(refused()));
        call
    });
    assert_eq!(opened.err().unwrap().kind(), FaultKind::PositionLost);
    call.gone().await;

    // Refused only after the stream was taken to be open: the next attempt knows.
    let mut listener = soon(crm.listen(&objects, after(2))).await.unwrap();
    let call = world.call().await;
    call.answer(Err(refused()));
    assert_eq!(ends(&mut listener).await.kind(), FaultKind::PositionLost);
    let again = soon(crm.listen(&objects, after(2))).await.err().unwrap();
    assert_eq!(again.kind(), FaultKind::PositionLost);
    assert_eq!(world.count("Subscribe"), 2, "it was not asked again");
}

#[tokio::test]
async fn positions_of_the_other_transport_are_lost_without_a_call() {
    let world = World::start().await;
    let objects = ["Account".into()];
    for text in [
        "cometd:4711",
        "4711",
        "pubsub:",
        "pubsub:/data/Other__chn=AAAA",
        "pubsub:.none",
    ] {
        let from = Start::After(Position::new(text));
        let fault = world
            .connector()
            .listen(&objects, from)
            .await
            .err()
            .unwrap();
        assert_eq!(fault.kind(), FaultKind::PositionLost, "{text}");
    }
    assert_eq!(world.count(""), 0);
}

#[tokio::test]
async fn a_dead_token_is_renewed_once() {
    let mut world = World::start().await;
    let crm = world.connector();
    let (mut listener, call) = world.listen(&crm, after(1), 3).await;
    hear(&mut listener).await;
    world.end_tokens();
    call.answer(Err(refusal(Code::Unauthenticated, "service.auth.error")));
    let mut wait = Box::pin(listener.next());
    let call = tokio::select! {
        heard = &mut wait => panic!("{heard:?}"),
        call = world.call() => call,
    };
    assert!(call.token.ends_with("!token2"));
    assert_eq!(call.first.replay_id, replay_id(3));
    call.answer(Err(refusal(Code::Unauthenticated, "service.auth.error")));
    let fault = soon(wait).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Credentials);
    assert_eq!(world.org.sign_ins(), 2);
}

#[tokio::test]
async fn subscriptions_that_share_a_dead_token_share_the_new_one() {
    let mut world = World::start().await;
    let crm = world.with(|settings| settings.channels = Channels::PerObject);
    let objects = ["Account".into(), "Contact".into()];
    let place = Position::new("pubsub:/data/AccountChangeEvent=AAAB,/data/ContactChangeEvent=AAAC");
    let opened = crm.listen(&objects, Start::After(place));
    let (listener, calls) = tokio::join!(opened, async {
        let calls = [world.call().await, world.call().await];
        calls[0].keep_alive(1);
        calls[1].keep_alive(2);
        calls
    });
    let mut listener = listener.unwrap();
    let topics: Vec<_> = calls
        .iter()
        .map(|call| call.first.topic_name.as_str())
        .collect();
    assert_eq!(
        topics,
        ["/data/AccountChangeEvent", "/data/ContactChangeEvent"]
    );
    hear(&mut listener).await;
    let heard = hear(&mut listener).await;
    assert!(
        heard
            .position
            .unwrap()
            .as_str()
            .contains(",/data/ContactChangeEvent=")
    );
    world.end_tokens();
    for call in &calls {
        call.answer(Err(refusal(Code::Unauthenticated, "service.auth.error")));
    }
    let mut wait = Box::pin(listener.next());
    let second = tokio::select! {
        heard = &mut wait => panic!("{heard:?}"),
        calls = async { [world.call().await, world.call().await] } => calls,
    };
    assert!(second.iter().all(|call| call.token.ends_with("!token2")));
    second[0].send(vec![create(7, "a")]);
    assert_eq!(soon(wait).await.unwrap().events.len(), 1);
    assert_eq!(world.org.sign_ins(), 2);
}

#[tokio::test]
async fn a_dead_token_is_renewed_before_the_stream_begins() {
    let mut world = World::start().await;
    let crm = world.connector();
    let dead = refusal(Code::Unauthenticated, "service.auth.error");
    world
        .inner
        .refusals
        .lock()
        .unwrap()
        .push(("GetTopic", dead));
    let (_listener, call) = world.listen(&crm, after(1), 1).await;
    assert!(call.token.ends_with("!token2"));
}

#[tokio::test]
async fn topics_that_may_not_be_heard_are_told_before_the_stream_begins() {
    let world = World::start().await;
    let crm = world.connector();
    let objects = ["Account".into()];
    for (status, kind) in [
        (
            refusal(Code::NotFound, "topic.not.found"),
            FaultKind::Config,
        ),
        (
            refusal(Code::PermissionDenied, "topic.meta.permission"),
            FaultKind::Permission,
        ),
        (
            refusal(Code::Unavailable, "topic.api.unavailable"),
            FaultKind::Unavailable,
        ),
        (Status::unavailable("no route"), FaultKind::Unavailable),
    ] {
        world
            .inner
            .refusals
            .lock()
            .unwrap()
            .push(("GetTopic", status));
        let fault = crm.listen(&objects, Start::Now).await.err().unwrap();
        assert_eq!(fault.kind(), kind, "{fault:?}");
        assert!(fault.report().contains("/data/ChangeEvents"), "{fault:?}");
    }
    let closed = "/data/ChangeEvents".to_owned();
    world.inner.closed_topics.lock().unwrap().insert(closed);
    let fault = crm.listen(&objects, Start::Now).await.err().unwrap();
    assert_eq!(fault.kind(), FaultKind::Permission);
}

#[tokio::test]
async fn a_coded_end_is_the_callers_to_judge() {
    for (suffix, kind) in [
        ("subscription.limit.exceeded", FaultKind::Throttled),
        ("service.unavailable", FaultKind::Unavailable),
        (
            "subscription.fetch.requested.events.invalid",
            FaultKind::Protocol,
        ),
    ] {
        let mut world = World::start().await;
        let crm = world.connector();
        let (mut listener, call) = world.listen(&crm, after(1), 1).await;
        call.send(vec![create(2, "last")]);
        call.answer(Err(refusal(Code::ResourceExhausted, suffix)));
        hear(&mut listener).await;
        assert_eq!(
            hear(&mut listener).await.events.len(),
            1,
            "events before the end are told"
        );
        assert_eq!(ends(&mut listener).await.kind(), kind, "{suffix}");
    }
}

#[tokio::test]
async fn messages_have_a_bound_above_what_the_api_sends() {
    let mut world = World::start().await;
    let crm = world.connector();
    let (mut listener, call) = world.listen(&crm, after(1), 1).await;
    hear(&mut listener).await;
    // More than tonic reads by itself.
    let large = "x".repeat(1 << 20);
    call.send((2..8).map(|id| create(id, &large)).collect());
    assert_eq!(hear(&mut listener).await.events.len(), 6);
    let filler = vec![0_u8; 17 << 20];
    call.answer(Ok(FetchResponse {
        latest_replay_id: filler,
        ..FetchResponse::default()
    }));
    let fault = ends(&mut listener).await;
    assert_eq!(fault.kind(), FaultKind::Protocol, "{fault:?}");
    assert!(fault.report().contains("too large"), "{fault:?}");
}

#[tokio::test]
async fn what_can_t_be_decoded_pins_nothing() {
    let mut world = World::start().await;
    let crm = world.connector();
    world
        .inner
        .schemas
        .lock()
        .unwrap()
        .insert("schema-odd".to_owned(), "{}".to_owned());
    let (mut listener, call) = world.listen(&crm, after(1), 1).await;
    hear(&mut listener).await;
    let bare = ConsumerEvent {
        event: None,
        replay_id: replay_id(6).into(),
    };
    call.send(vec![
        raw(2, "schema-account", b"nonsense".to_vec()),
        raw(3, "schema-odd", Vec::new()),
        raw(4, "schema-unknown", Vec::new()),
        raw(5, "", Vec::new()),
        bare,
        create(7, "x"),
    ]);
    let heard = hear(&mut listener).await;
    let gap = EventKind::ObjectGap(GapCause::Undecodable);
    let gaps = heard
        .events
        .iter()
        .filter(|event| event.kind == gap)
        .count();
    // The first is of an object that its schema names; the others may be of either.
    assert_eq!((gaps, heard.events.len()), (1 + 4 * 2, 10));
    assert_eq!(heard.position, Some(position(7)));
}

#[tokio::test]
async fn a_schema_that_can_t_be_had_now_keeps_its_events() {
    let mut world = World::start().await;
    let crm = world.connector();
    let down = refusal(Code::Unavailable, "schema.api.unavailable");
    world
        .inner
        .refusals
        .lock()
        .unwrap()
        .push(("GetSchema", down));
    let (mut listener, call) = world.listen(&crm, after(1), 1).await;
    hear(&mut listener).await;
    call.send(vec![create(2, "x")]);
    assert_eq!(ends(&mut listener).await.kind(), FaultKind::Unavailable);
    let (mut listener, call) = world.listen(&crm, after(1), 1).await;
    hear(&mut listener).await;
    call.send(vec![create(2, "x")]);
    assert_eq!(hear(&mut listener).await.events[0].kind, EventKind::Create);
}

#[tokio::test]
async fn an_address_that_nobody_serves_is_unavailable() {
    let world = World::start().await;
    let crm = world.with(|settings| settings.pubsub_address = "http://127.0.0.1:1".to_owned());
    let fault = soon(crm.listen(&["Account".into()], Start::Now))
        .await
        .err()
        .unwrap();
    assert_eq!(fault.kind(), FaultKind::Unavailable, "{fault:?}");
    let fault = soon(world.connector().listen(&["Nothing".into()], Start::Now))
        .await
        .err()
        .unwrap();
    assert_eq!(fault.kind(), FaultKind::Missing);
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_once_it_is_named() {
    let mut world = World::start().await;
    let address = world.behind_tls().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), trust::AUTHORITY).unwrap();
    let objects = ["Account".into()];
    let stranger = world.with(|settings| settings.pubsub_address.clone_from(&address));
    let fault = soon(stranger.listen(&objects, after(1)))
        .await
        .err()
        .unwrap();
    assert_eq!(fault.kind(), FaultKind::Unavailable);
    assert!(fault.report().contains("certificate"), "{fault:?}");
    let crm = world.with(|settings| {
        settings.pubsub_address = address;
        settings.ca_file = Some(file.path().to_owned());
    });
    let (mut listener, _call) = world.listen(&crm, after(1), 2).await;
    assert_eq!(hear(&mut listener).await.position, Some(position(2)));
}
