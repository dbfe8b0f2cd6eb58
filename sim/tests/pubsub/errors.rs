//! Who may call, what a dead token does to a stream, and what is refused.

use std::collections::BTreeMap;

use serde_json::json;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tributary_sim::salesforce::SimOptions;
use tributary_sim::salesforce::pubsub::eventbus::pub_sub_client::PubSubClient;
use tributary_sim::salesforce::pubsub::eventbus::{PublishRequest, ReplayPreset, TopicRequest};

use crate::harness::{ACCOUNTS, ALL, fetch, sim, told};

#[tokio::test]
async fn every_header_is_needed_and_must_fit() {
    let sim = sim().await;
    let client = sim.client().await;
    let sound = client.headers.clone();
    let auth = (Code::Unauthenticated, "service.auth.error".to_owned());
    let headers = (
        Code::Unauthenticated,
        "service.auth.headers.invalid".to_owned(),
    );
    let without = |name: &str| {
        let mut headers = sound.clone();
        headers.remove(name);
        headers
    };
    let with = |name: &'static str, value: &str| {
        let mut headers = sound.clone();
        headers.insert(name, value.to_owned());
        headers
    };
    let cases: Vec<(BTreeMap<_, _>, _)> = vec![
        (without("accesstoken"), &headers),
        (without("instanceurl"), &headers),
        (without("tenantid"), &headers),
        (with("accesstoken", "00D!wrong"), &auth),
        (with("instanceurl", "https://other.example"), &auth),
        (with("tenantid", "00D000000000001EAA"), &auth),
    ];
    let mut client = client;
    for (sent, expected) in cases {
        client.headers = sent;
        let topic = client.topic(ALL).await.unwrap_err();
        assert_eq!(told(&topic), *expected);
        let stream = client
            .refused(fetch(ALL, ReplayPreset::Latest, &[], 1))
            .await;
        assert_eq!(told(&stream), *expected);
        let schema = client.schema_json("x").await.unwrap_err();
        assert_eq!(told(&schema), *expected);
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let mut stream = client.latest(ALL, 100).await;
    sim.until(|streams| streams.len() == 1).await;
    sim.script(json!({"do": {"kind": "expire_tokens_now"}}))
        .await;
    let status = stream.error().await;
    assert_eq!(
        told(&status),
        (Code::Unauthenticated, "service.auth.error".into())
    );
    assert!(
        status
            .message()
            .starts_with("An authentication exception occurred.")
    );
    assert!(!status.metadata().get("rpc-id").unwrap().is_empty());
    sim.until(<[_]>::is_empty).await;
}

#[tokio::test]
async fn permission_is_told_on_one_entity_and_silent_on_many() {
    let sim = sim().await;
    let mut client = sim.client().await;
    sim.script(json!({"do": {"kind": "forbid", "entity": "Account"}}))
        .await;
    assert!(!client.topic(ACCOUNTS).await.unwrap().can_subscribe);
    let status = client
        .refused(fetch(ACCOUNTS, ReplayPreset::Latest, &[], 1))
        .await;
    assert_eq!(
        told(&status),
        (
            Code::PermissionDenied,
            "subscription.topic.cannot.subscribe".into()
        )
    );
    let mut stream = client.latest(ALL, 10).await;
    sim.until(|streams| streams.len() == 1).await;
    sim.accounts(1).await;
    sim.create("Contact", json!({"LastName": "x"})).await;
    let event = stream.events(1).await.remove(0);
    let event = client.decode(&event).await;
    assert_eq!(event["ChangeEventHeader"]["entityName"], "Contact");
}

#[tokio::test]
async fn the_orgs_delivery_limit_ends_a_stream() {
    let sim = sim().await;
    let mut client = sim.client().await;
    sim.script(json!({"do": {"kind": "limit_events", "events": 2}}))
        .await;
    sim.accounts(3).await;
    let mut stream = client.earliest(ALL, 10).await;
    assert_eq!(stream.answer().await.events.len(), 2);
    assert_eq!(
        told(&stream.error().await),
        (
            Code::ResourceExhausted,
            "subscription.limit.exceeded".into()
        )
    );
    let limits = sim.get("/services/data/v66.0/limits").await;
    assert_eq!(
        limits["DailyDeliveredPlatformEvents"],
        json!({"Max": 2, "Remaining": 0})
    );
    sim.advance(24 * 3600);
    sim.accounts(1).await;
    let mut client = sim.client().await;
    client.headers.insert("accesstoken", {
        let org = &sim.running.org;
        org.sessions.issue(org.profile.run_as.clone())
    });
    let mut stream = client.earliest(ALL, 10).await;
    assert_eq!(stream.answer().await.events.len(), 2);
}

#[tokio::test]
async fn nothing_can_be_published_or_managed() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let publish = |topic: &str| PublishRequest {
        topic_name: topic.to_owned(),
        events: vec![],
        auth_refresh: String::new(),
    };
    for (topic, code) in [
        (ACCOUNTS, Code::PermissionDenied),
        ("/event/Alert__e", Code::NotFound),
        ("", Code::InvalidArgument),
    ] {
        let request = client.request(publish(topic));
        assert_eq!(
            client.client.publish(request).await.unwrap_err().code(),
            code
        );
        let request = client.request(futures_util::stream::iter([publish(topic)]));
        let status = client.client.publish_stream(request).await.unwrap_err();
        assert_eq!(status.code(), code);
    }
    let request = client.request(futures_util::stream::empty());
    let status = client.client.managed_subscribe(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn the_event_bus_speaks_tls_beside_a_plain_org() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/tls");
    let running = tributary_sim::salesforce::start(SimOptions {
        grpc_tls_cert: Some(dir.join("cert.pem")),
        grpc_tls_key: Some(dir.join("key.pem")),
        ..SimOptions::default()
    })
    .await
    .unwrap();
    assert!(running.url.starts_with("http://"));
    assert!(running.pubsub_url.starts_with("https://"));
    let pem = std::fs::read(dir.join("cert.pem")).unwrap();
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
    let channel = Channel::from_shared(running.pubsub_url.clone())
        .unwrap()
        .tls_config(tls)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let request = TopicRequest {
        topic_name: ALL.to_owned(),
    };
    let status = PubSubClient::new(channel)
        .get_topic(request)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    running.stop().await.unwrap();
}
