//! What the stream tells: events in order, positions, times, and credit for what was taken.

use std::time::Duration;

use serde_json::json;

use crate::crm::port::{Crm, Start};

use super::super::eventbus::ReplayPreset;
use super::events::{header, schema};
use super::server::{World, after, create, event, hear, position, replay_id, soon, update};

#[tokio::test]
async fn a_stream_that_begins_now_is_open_when_the_server_has_said_something() {
    let mut world = World::start().await;
    let crm = world.connector();
    let objects = ["Account".into()];
    let mut opened = Box::pin(crm.listen(&objects, Start::Now));
    let call = tokio::select! {
        _ = &mut opened => panic!("nothing was said yet"),
        call = world.call() => call,
    };
    assert_eq!(call.first.topic_name, "/data/ChangeEvents");
    assert_eq!(call.first.replay_preset(), ReplayPreset::Latest);
    assert_eq!(call.first.num_requested, 100);
    assert!(call.token.ends_with("!token1"));
    call.send(vec![create(1, "first"), create(2, "second")]);
    let mut listener = soon(opened).await.unwrap();
    let heard = hear(&mut listener).await;
    assert_eq!(heard.events.len(), 2, "what was said first is not lost");
    assert_eq!(heard.position, Some(position(2)));
}

#[tokio::test]
async fn keep_alives_move_the_position_and_events_are_told_in_order() {
    let mut world = World::start().await;
    let crm = world.connector();
    let (mut listener, call) = world.listen(&crm, after(1), 3).await;
    assert_eq!(call.first.replay_preset(), ReplayPreset::Custom);
    assert_eq!(call.first.replay_id, replay_id(1));
    let heard = hear(&mut listener).await;
    assert_eq!((heard.events.len(), heard.position), (0, Some(position(3))));
    call.send(vec![create(4, "a"), update(5, "b")]);
    let heard = hear(&mut listener).await;
    let told: Vec<_> = heard.events.iter().map(|event| &event.position).collect();
    assert_eq!(told, [&position(4), &position(5)]);
    // An update may share its id with what follows; a keep-alive says that nothing does.
    assert_eq!(heard.position, Some(position(4)));
    call.keep_alive(9);
    assert_eq!(hear(&mut listener).await.position, Some(position(9)));
    assert_eq!(world.count("GetSchema"), 1, "a schema is asked for once");
    drop(listener);
    call.gone().await;
}

#[tokio::test]
async fn keep_alives_tell_the_time_if_they_were_waited_for() {
    let mut world = World::start().await;
    let crm = world.with(|settings| settings.read_lag = Duration::ZERO);
    let began = crm.clock().await.unwrap();
    let (mut listener, call) = world.listen(&crm, after(1), 3).await;
    hear(&mut listener).await;
    let mut wait = Box::pin(listener.next());
    assert!(
        tokio::time::timeout(Duration::from_millis(50), &mut wait)
            .await
            .is_err()
    );
    call.keep_alive(4);
    let confirmed = soon(&mut wait).await.unwrap().confirmed_at.unwrap();
    let now = crm.clock().await.unwrap();
    let margin = chrono::TimeDelta::seconds(10);
    assert!(
        confirmed >= began - margin - chrono::TimeDelta::seconds(2),
        "{confirmed}"
    );
    assert!(
        confirmed <= now - margin + chrono::TimeDelta::seconds(1),
        "{confirmed}"
    );
}

#[tokio::test]
async fn a_wait_that_is_dropped_loses_nothing() {
    let mut world = World::start().await;
    let crm = world.connector();
    let (mut listener, call) = world.listen(&crm, after(1), 1).await;
    hear(&mut listener).await;
    for id in 2..20 {
        // Dropped at any await: the schema is asked for in the first.
        for _ in 0..3 {
            let waited = tokio::time::timeout(Duration::from_micros(50), listener.next()).await;
            assert!(waited.is_err(), "nothing was sent yet");
        }
        call.send(vec![create(id, "x")]);
        let mut heard = None;
        while heard.is_none() {
            heard = tokio::time::timeout(Duration::from_micros(200), listener.next())
                .await
                .ok();
        }
        let heard = heard.unwrap().unwrap();
        assert_eq!(heard.events[0].position, position(id));
    }
}

#[tokio::test]
async fn credit_is_given_as_events_are_taken() {
    let mut world = World::start().await;
    let crm = world.connector();
    let (mut listener, mut call) = world.listen(&crm, after(1), 1).await;
    hear(&mut listener).await;
    call.send((2..32).map(|id| create(id, "x")).collect());
    let heard = hear(&mut listener).await;
    assert_eq!(heard.events.len(), 30);
    // Nobody asked again: they are not taken yet.
    call.send((32..42).map(|id| create(id, "x")).collect());
    assert!(call.is_content());
    hear(&mut listener).await;
    let credit = call.credit().await;
    assert_eq!(credit.num_requested, 30);
    assert_eq!(credit.topic_name, "");
    call.keep_alive(50);
    hear(&mut listener).await;
    assert_eq!(call.credit().await.num_requested, 10);
    assert!(call.is_content(), "there is nothing more to take");
}

#[tokio::test]
async fn more_events_than_credit_are_taken_all_the_same() {
    let mut world = World::start().await;
    let crm = world.connector();
    let (mut listener, mut call) = world.listen(&crm, after(1), 1).await;
    hear(&mut listener).await;
    call.send((2..152).map(|id| create(id, "x")).collect());
    assert_eq!(hear(&mut listener).await.events.len(), 150);
    call.keep_alive(200);
    hear(&mut listener).await;
    assert_eq!(
        call.credit().await.num_requested,
        100,
        "never more than may be outstanding"
    );
}

#[tokio::test]
async fn a_stream_that_nobody_asked_for_long_is_not_silent() {
    let mut world = World::start().await;
    let crm = world.with(|settings| settings.silence = Duration::from_secs(3));
    let (mut listener, mut call) = world.listen(&crm, after(1), 1).await;
    hear(&mut listener).await;
    call.send((2..102).map(|id| create(id, "x")).collect());
    assert_eq!(hear(&mut listener).await.events.len(), 100);
    // No credit is left, so the server has nothing to say, however long the caller takes.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let mut wait = Box::pin(listener.next());
    let credit = tokio::select! {
        heard = &mut wait => panic!("{heard:?}"),
        credit = call.credit() => credit,
    };
    assert_eq!(credit.num_requested, 100);
    call.keep_alive(102);
    assert_eq!(soon(wait).await.unwrap().position, Some(position(102)));
}

#[tokio::test]
async fn a_schema_may_change_within_a_batch() {
    let mut world = World::start().await;
    let crm = world.connector();
    let wider = schema(
        "AccountChangeEvent",
        &[
            ("Name", "string"),
            ("Added__c", "string"),
            ("Industry", "string"),
        ],
    );
    world
        .inner
        .schemas
        .lock()
        .unwrap()
        .insert("schema-wider".to_owned(), wider.clone());
    let (mut listener, call) = world.listen(&crm, after(1), 1).await;
    hear(&mut listener).await;
    let mut head = header("Account", "UPDATE");
    head["changedFields"] = json!(["0x08"]);
    let fields = json!({"Industry": "new"});
    let describes = || world.org.server.count("/sobjects/Account/describe/");
    let before = describes();
    call.send(vec![
        update(2, "old"),
        event(3, "schema-wider", &wider, &head, &fields),
        update(4, "old again"),
    ]);
    let heard = hear(&mut listener).await;
    let told: Vec<_> = heard
        .events
        .iter()
        .map(|event| event.fields["Industry"].to_string())
        .collect();
    assert_eq!(told, ["old", "new", "old again"]);
    assert_eq!(describes(), before + 1, "the object is described again");
}

#[tokio::test]
async fn shared_ids_are_safe_once_something_follows() {
    let mut world = World::start().await;
    let crm = world.connector();
    let (mut listener, call) = world.listen(&crm, after(1), 1).await;
    hear(&mut listener).await;
    call.send(vec![update(2, "a"), update(2, "b")]);
    let heard = hear(&mut listener).await;
    assert_eq!(heard.events.len(), 2);
    assert_eq!(heard.position, Some(position(1)));
    world.cut();
    let mut wait = Box::pin(listener.next());
    let call = tokio::select! {
        heard = &mut wait => panic!("{heard:?}"),
        call = world.call() => call,
    };
    assert_eq!(
        call.first.replay_id,
        replay_id(1),
        "the second of the two may be missing"
    );
    call.send(vec![update(2, "a"), update(2, "b"), create(3, "c")]);
    assert_eq!(soon(wait).await.unwrap().position, Some(position(3)));
}
