//! What is refused, and in which words.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{ALL, ack, handshake, sim};

#[tokio::test]
async fn the_version_is_mandatory_and_supported_from_37() {
    let sim = sim().await;
    let mut client = sim.client();
    for (path, error) in [
        ("/cometd", "400::API version in the URI is mandatory"),
        ("/cometd/", "400::API version in the URI is mandatory"),
        ("/cometd/36.0/", "400::Unsupported API version"),
        ("/cometd/67.0/", "400::Unsupported API version"),
        ("/cometd/66/", "400::Unsupported API version"),
        ("/cometd/handshake", "400::Unsupported API version"),
    ] {
        client.url = sim.url(path);
        let response = client.request(&json!([handshake()])).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{path}");
        let answer: Value = response.json().await.unwrap();
        let text = answer[0]["error"].as_str().unwrap();
        assert!(text.starts_with(error), "{path}: {text}");
        assert_eq!(answer[0]["successful"], false);
    }
}

#[tokio::test]
async fn a_body_has_32768_bytes_at_most() {
    let sim = sim().await;
    let client = sim.client();
    let body = |size: usize| {
        let mut message = handshake();
        message["pad"] = json!("");
        let bare = json!([message]).to_string().len();
        message["pad"] = json!("x".repeat(size - bare));
        json!([message])
    };
    let fits = client.request(&body(32_768)).send().await.unwrap();
    assert_eq!(fits.status(), StatusCode::OK);
    let large = client.request(&body(32_769)).send().await.unwrap();
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(large.text().await.unwrap(), "Maximum Request Size Exceeded");
}

#[tokio::test]
async fn what_is_no_bayeux_is_refused() {
    let sim = sim().await;
    let client = sim.client();
    for body in ["", "[", "7", "[{}]", r#"[{"channel":7}]"#] {
        let request = client
            .http
            .post(&client.url)
            .bearer_auth(&client.token)
            .header("content-type", "application/json")
            .body(body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{body}");
    }
    let form = client
        .http
        .post(&client.url)
        .bearer_auth(&client.token)
        .body(json!([handshake()]).to_string());
    assert_eq!(
        form.send().await.unwrap().status(),
        StatusCode::BAD_REQUEST,
        "the content type is missing"
    );
    let get = client.http.get(&client.url).send().await.unwrap();
    assert_eq!(get.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_request_without_a_token_is_told_so() {
    let sim = sim().await;
    let client = sim.client();
    let answer: Value = client
        .http
        .post(&client.url)
        .json(&json!([handshake()]))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        answer,
        json!([{"id": "1", "channel": "/meta/handshake", "successful": false, "error": "403::Handshake denied",
                "ext": {"sfdc": {"failureReason": "401::Request requires authentication"}},
                "advice": {"reconnect": "none"}}])
    );
}

#[tokio::test]
async fn only_long_polling_is_a_connection_type() {
    let sim = sim().await;
    let mut client = sim.client();
    let mut message = handshake();
    message["supportedConnectionTypes"] = json!(["websocket"]);
    assert_eq!(
        client.ask(message).await["error"],
        "400::Invalid connection type websocket"
    );
    client.handshake().await;
    let mut poll = client.poll();
    poll["connectionType"] = json!("websocket");
    assert_eq!(
        client.ask(poll).await["error"],
        "400::Invalid connection type websocket"
    );
}

#[tokio::test]
async fn a_message_needs_a_session() {
    let sim = sim().await;
    let mut client = sim.client();
    for channel in [
        "/meta/connect",
        "/meta/subscribe",
        "/meta/unsubscribe",
        "/meta/disconnect",
    ] {
        let message = json!({"channel": channel, "connectionType": "long-polling"});
        assert_eq!(
            client.ask(message).await["error"],
            "403::Client has not completed handshake"
        );
    }
    client.id = "nobody".to_owned();
    assert_eq!(ack(&client.connect().await)["error"], "403::Unknown client");
}

#[tokio::test]
async fn publishing_and_unknown_meta_channels_are_refused() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    let mut message = client.message(ALL);
    message["data"] = json!({"x": 1});
    assert_eq!(
        client.ask(message).await["error"],
        "403:denied_by_security_policy:publish_denied"
    );
    assert_eq!(
        client.ask(client.message("/meta/other")).await["error"],
        "404::Unknown meta channel"
    );
}

#[tokio::test]
async fn channels_are_case_sensitive_and_must_exist() {
    let sim = sim().await;
    let mut client = sim.client();
    client.handshake().await;
    for channel in [
        "/data/changeevents",
        "/data/LeadChangeEvent",
        "/data/No__chn",
    ] {
        let reply = client.subscribe(channel, -1).await;
        assert_eq!(reply["successful"], false);
        assert_eq!(reply["subscription"], channel);
        assert_eq!(
            reply["error"],
            format!("400::The channel you requested to subscribe to doesn't exist {channel}")
        );
    }
    for (channel, error) in [
        ("/other/x", "403:denied_by_security_policy:create_denied"),
        ("nothing", "403::Cannot create channel"),
        ("/data/**", "403::Restricted channel"),
    ] {
        assert_eq!(client.subscribe(channel, -1).await["error"], error);
    }
    for channel in ["/data/AccountChangeEvent", "/data/Employee__ChangeEvent"] {
        assert_eq!(client.subscribe(channel, -1).await["successful"], true);
    }
}

#[tokio::test]
async fn a_user_without_view_all_data_is_refused_or_hears_nothing() {
    let sim = sim().await;
    let mut user = sim.running.org.profile.run_as.clone();
    user.view_all_data = false;
    let mut client = sim.client();
    client.token = sim.running.org.sessions.issue(user);
    client.handshake().await;
    assert_eq!(
        client.subscribe("/data/AccountChangeEvent", -1).await["error"],
        "403::User not allowed to subscribe CDC without View All Data permissions"
    );
    assert_eq!(client.subscribe(ALL, -1).await["successful"], true);
    sim.account("Acme").await;
    client.first_connect().await;
    assert_eq!(client.glance().await.len(), 1);
}

#[tokio::test]
async fn a_replay_id_must_be_in_the_stream() {
    let sim = sim().await;
    let (first, _) = sim.account("One").await;
    let (second, _) = sim.account("Two").await;
    assert!(second > first);
    let mut client = sim.client();
    client.handshake().await;
    for wrong in [
        json!(1),
        json!(-3),
        json!(second + 1),
        json!("x"),
        json!(null),
    ] {
        let answer = client
            .send(json!([client.subscription(ALL, wrong.clone())]))
            .await;
        let reply = ack(&answer);
        assert_eq!(reply["successful"], false);
        let text = reply["error"].as_str().unwrap();
        let shown = wrong.as_str().map_or(wrong.to_string(), str::to_owned);
        let prefix = format!("400::The replayId {{{shown}}} you provided was invalid.");
        assert!(text.starts_with(&prefix), "{text}");
        assert!(text.contains("-2") && text.contains("-1"));
    }
    let first = i64::try_from(first).unwrap();
    assert_eq!(client.subscribe(ALL, first).await["successful"], true);
}

#[tokio::test]
async fn a_replay_id_is_refused_after_72_hours() {
    let sim = sim().await;
    let (old, _) = sim.account("Old").await;
    sim.advance(72 * 3600 + 1).await;
    let (new, _) = sim.account("New").await;
    let mut client = sim.client();
    client.token = sim.login();
    client.handshake().await;
    let (old, new) = (i64::try_from(old).unwrap(), i64::try_from(new).unwrap());
    assert_eq!(client.subscribe(ALL, old).await["successful"], false);
    assert_eq!(client.subscribe(ALL, new).await["successful"], true);
}
