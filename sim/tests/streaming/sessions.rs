//! The life of a session: handshake, advice, held polls, deadlines, cookies, limits.

use serde_json::json;
use tributary_sim::salesforce::SimOptions;

use crate::harness::{ALL, ack, events, handshake, replay_ids, sim, sim_with};

#[tokio::test]
async fn a_handshake_has_replay_cookies_and_no_advice() {
    let sim = sim().await;
    let client = sim.client();
    let response = client.request(&json!([handshake()])).send().await.unwrap();
    let cookies: Vec<_> = response
        .headers()
        .get_all("set-cookie")
        .iter()
        .map(|value| value.to_str().unwrap().to_owned())
        .collect();
    assert_eq!(cookies.len(), 2, "{cookies:?}");
    assert!(cookies[0].starts_with("BAYEUX_BROWSER="));
    let answer: serde_json::Value = response.json().await.unwrap();
    let id = answer[0]["clientId"].as_str().unwrap();
    assert!(!id.is_empty());
    assert_eq!(
        answer,
        json!([{"id": "1", "channel": "/meta/handshake", "successful": true, "clientId": id, "version": "1.0",
                "minimumVersion": "1.0", "supportedConnectionTypes": ["long-polling"],
                "ext": {"replay": true, "payload.format": true}}])
    );
}

#[tokio::test]
async fn one_message_need_not_be_an_array_and_any_suffix_is_fine() {
    let sim = sim().await;
    let mut client = sim.client();
    for path in ["/cometd/66.0", "/cometd/37.0/handshake", "/cometd/58.0/a/b"] {
        client.url = sim.url(path);
        let answer = client.send(handshake()).await;
        assert_eq!(answer[0]["successful"], true, "{path}");
    }
}

#[tokio::test]
async fn the_first_poll_is_advised_and_the_next_held_for_110_seconds() {
    let sim = sim().await;
    let mut client = sim.client();
    client.handshake().await;
    let reply = client.first_connect().await;
    assert_eq!(
        reply,
        json!({"id": "9", "channel": "/meta/connect", "clientId": client.id, "successful": true,
               "advice": {"reconnect": "retry", "interval": 0, "timeout": 110_000}})
    );
    let poll = client.poll_aside();
    sim.held(1).await;
    sim.advance(109).await;
    sim.held(1).await;
    assert!(!poll.is_finished());
    sim.advance(1).await;
    assert_eq!(
        poll.await.unwrap(),
        [json!({"id": "9", "channel": "/meta/connect", "clientId": client.id, "successful": true})]
    );
}

#[tokio::test]
async fn an_org_may_hold_polls_for_another_time() {
    let sim = sim_with(SimOptions {
        poll_seconds: Some(5),
        ..SimOptions::default()
    })
    .await;
    let mut client = sim.client();
    client.handshake().await;
    let reply = client.first_connect().await;
    assert_eq!(reply["advice"]["timeout"], 5_000);
    let poll = client.poll_aside();
    sim.held(1).await;
    sim.advance(4).await;
    assert!(!poll.is_finished());
    sim.advance(1).await;
    assert_eq!(poll.await.unwrap()[0]["successful"], true);
}

#[tokio::test]
async fn a_held_poll_ends_with_the_next_event() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    let poll = client.poll_aside();
    sim.held(1).await;
    let (replay_id, _) = sim.account("Acme").await;
    let answer = poll.await.unwrap();
    assert_eq!(replay_ids(&answer), [replay_id]);
    assert_eq!(ack(&answer)["successful"], true);
    assert!(ack(&answer)["advice"].is_null());
}

#[tokio::test]
async fn a_poll_among_other_messages_is_not_held() {
    let sim = sim().await;
    let mut client = sim.client();
    client.handshake().await;
    client.first_connect().await;
    let subscribe = client.subscription(ALL, json!(-1));
    let answer = client.send(json!([subscribe, client.poll()])).await;
    let channels: Vec<_> = answer.iter().map(|item| &item["channel"]).collect();
    assert_eq!(channels, ["/meta/subscribe", "/meta/connect"]);
}

#[tokio::test]
async fn a_newer_poll_lets_the_older_go() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    let older = client.poll_aside();
    sim.held(1).await;
    let newer = client.poll_aside();
    assert_eq!(ack(&older.await.unwrap())["successful"], true);
    sim.held(1).await;
    let (replay_id, _) = sim.account("Acme").await;
    assert_eq!(replay_ids(&newer.await.unwrap()), [replay_id]);
}

#[tokio::test]
async fn a_session_ends_forty_seconds_after_an_answer() {
    let sim = sim().await;
    let mut client = sim.subscribed(ALL, -1).await;
    sim.advance(39).await;
    assert_eq!(ack(&client.glance().await)["successful"], true);
    sim.advance(40).await;
    let unknown = json!({"id": "9", "channel": "/meta/connect", "clientId": client.id, "successful": false,
                         "error": "403::Unknown client", "advice": {"reconnect": "handshake", "interval": 0}});
    assert_eq!(client.connect().await, [unknown]);
    let reply = client.subscribe(ALL, -1).await;
    assert_eq!(reply["error"], "403::Unknown client");
    assert_eq!(reply["advice"]["reconnect"], "handshake");

    client.handshake().await;
    sim.advance(40).await;
    assert_eq!(
        ack(&client.connect().await)["error"],
        "403::Unknown client",
        "a handshake is an answer, too"
    );
}

#[tokio::test]
async fn the_time_to_come_back_begins_when_a_held_poll_is_answered() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    let poll = client.poll_aside();
    sim.held(1).await;
    sim.advance(110).await;
    poll.await.unwrap();
    sim.advance(39).await;
    assert_eq!(ack(&client.glance().await)["successful"], true);
}

#[tokio::test]
async fn a_client_that_hangs_up_loses_no_event_and_has_forty_seconds() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    let poll = client.poll_aside();
    sim.held(1).await;
    poll.abort();
    sim.held(0).await;
    let (replay_id, _) = sim.account("Acme").await;
    sim.advance(39).await;
    assert_eq!(replay_ids(&client.glance().await), [replay_id]);
    sim.advance(40).await;
    assert_eq!(ack(&client.glance().await)["error"], "403::Unknown client");
}

#[tokio::test]
async fn disconnecting_ends_the_session_and_frees_its_place() {
    let sim = sim().await;
    sim.script(json!({"do": {"kind": "limit_clients", "clients": 1}}))
        .await;
    let first = sim.subscribed(ALL, -1).await;
    let mut second = sim.client();
    let refused = second.handshake().await;
    assert_eq!(refused["error"], "403::Handshake denied");
    assert_eq!(
        refused["ext"]["sfdc"]["failureReason"],
        "403::Organization concurrent user limit exceeded"
    );
    assert_eq!(refused["advice"]["reconnect"], "none");

    let poll = first.poll_aside();
    sim.held(1).await;
    let gone = first.ask(first.message("/meta/disconnect")).await;
    assert_eq!(
        gone,
        json!({"id": "9", "channel": "/meta/disconnect", "clientId": first.id, "successful": true})
    );
    assert_eq!(ack(&poll.await.unwrap())["error"], "403::Unknown client");
    assert_eq!(second.handshake().await["successful"], true);
}

#[tokio::test]
async fn a_leaked_session_frees_its_place_by_time_alone() {
    let sim = sim().await;
    sim.script(json!({"do": {"kind": "limit_clients", "clients": 1}}))
        .await;
    sim.client().handshake().await;
    assert_eq!(sim.client().handshake().await["successful"], false);
    sim.advance(40).await;
    assert_eq!(sim.client().handshake().await["successful"], true);
}

#[tokio::test]
async fn cookies_are_demanded_after_the_handshake() {
    let sim = sim().await;
    let mut client = sim.client();
    client.handshake().await;
    let jar = client.http.clone();
    client.http = reqwest::Client::new();
    let text = format!(
        "400::Client {} has established a session, but no BAYEUX_BROWSER cookie present",
        client.id
    );
    assert_eq!(ack(&client.connect().await)["error"], text);
    let one = client.request(&json!([client.poll()]));
    let answer: Vec<serde_json::Value> = one
        .header("cookie", "BAYEUX_BROWSER=wrong; SIMLB=wrong")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(ack(&answer)["error"], text);
    client.http = jar;
    client.first_connect().await;
}

#[tokio::test]
async fn two_sessions_of_one_browser_share_its_cookie() {
    let sim = sim().await;
    let mut one = sim.client();
    one.handshake().await;
    let mut two = one.clone();
    two.handshake().await;
    assert_ne!(one.id, two.id);
    one.first_connect().await;
    two.first_connect().await;
}

#[tokio::test]
async fn a_dead_token_ends_the_session_and_a_new_one_needs_a_handshake() {
    let sim = sim().await;
    let mut client = sim.subscribed(ALL, -1).await;
    sim.running.org.sessions.expire_all();
    let reply = ack(&client.connect().await).clone();
    assert_eq!(reply["error"], "401::Authentication invalid");
    assert_eq!(reply["advice"], json!({"reconnect": "none"}));
    let denied = client.ask(handshake()).await;
    assert_eq!(denied["error"], "403::Handshake denied");
    assert_eq!(
        denied["ext"]["sfdc"]["failureReason"],
        "401::Authentication invalid"
    );
    assert_eq!(denied["advice"]["reconnect"], "none");

    client.token = sim.login();
    assert_eq!(ack(&client.connect().await)["error"], "403::Unknown client");
    assert_eq!(client.handshake().await["successful"], true);
}

#[tokio::test]
async fn polling_keeps_the_token_alive() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    for _ in 0..80 {
        let poll = client.poll_aside();
        sim.held(1).await;
        sim.advance(110).await;
        poll.await.unwrap();
    }
    assert!(sim.running.org.sessions.check(&sim.token).is_some());
}

#[tokio::test]
async fn another_users_token_does_not_fit_the_session() {
    let sim = sim().await;
    let mut client = sim.subscribed(ALL, -1).await;
    let mut other = sim.running.org.profile.run_as.clone();
    other.id = "005000000000009AAA".to_owned();
    client.token = sim.running.org.sessions.issue(other);
    assert_eq!(ack(&client.connect().await)["error"], "403::Unknown client");
}

#[tokio::test]
async fn a_session_without_replay_only_hears_what_is_new() {
    let sim = sim().await;
    sim.account("Before").await;
    let mut client = sim.client();
    let mut message = handshake();
    message["ext"] = json!({});
    let reply = client.ask(message).await;
    assert_eq!(reply["ext"], json!({"payload.format": true}));
    client.id = reply["clientId"].as_str().unwrap().to_owned();
    assert_eq!(client.subscribe(ALL, -2).await["successful"], true);
    client.first_connect().await;
    let (replay_id, _) = sim.account("After").await;
    assert_eq!(replay_ids(&client.connect().await), [replay_id]);
}

#[tokio::test]
async fn unsubscribing_ends_one_channel_and_keeps_the_other() {
    let sim = sim().await;
    let client = sim.subscribed("/data/AccountChangeEvent", -1).await;
    client.subscribe("/data/ContactChangeEvent", -1).await;
    let mut message = client.message("/meta/unsubscribe");
    message["subscription"] = json!("/data/AccountChangeEvent");
    assert_eq!(
        client.ask(message).await,
        json!({"id": "9", "channel": "/meta/unsubscribe", "clientId": client.id, "successful": true,
               "subscription": "/data/AccountChangeEvent"})
    );
    sim.commit(json!([
        {"op": "create", "object": "Account", "fields": {"Name": "Acme"}},
        {"op": "create", "object": "Contact", "fields": {"LastName": "Roe"}},
    ]))
    .await;
    let answer = client.connect().await;
    let entities: Vec<_> = events(&answer)
        .map(|event| &event["payload"]["ChangeEventHeader"]["entityName"])
        .collect();
    assert_eq!(entities, ["Contact"]);
}

#[tokio::test]
async fn stopping_the_org_cuts_held_polls() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    let poll = tokio::spawn(client.request(&json!([client.poll()])).send());
    sim.held(1).await;
    sim.running.stop().await.unwrap();
    assert!(poll.await.unwrap().is_err());
}
