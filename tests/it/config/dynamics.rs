//! `kind = "dynamics"`: what it says, and every rule's refusal.

use std::time::Duration;

use tributary::config::dynamics::{DynamicsConfig, Proof};
use tributary::config::problem::Problems;
use tributary::config::secret::SecretRef;
use tributary::config::servicebus::BusTransport;
use tributary::config::webhook::WebhookAuth;

use super::load_single;

const CONNECTION: &str = r#"
[connection.contoso]
kind = "dynamics"
org = "https://Contoso.crm.dynamics.com/"
auth = { flow = "client_credentials", client_id = "0000", client_secret = { env = "CONTOSO" }, secret_expires = 2026-12-01 }
"#;

fn load(text: &str) -> Result<DynamicsConfig, Problems> {
    use tributary::config::connection::ConnectionConfig;
    let config = load_single(text, &[])?;
    match &config.connections["contoso"] {
        ConnectionConfig::Dynamics(connection) => Ok((**connection).clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn defaults_are_those_of_a_production_environment() {
    let contoso = load(CONNECTION).unwrap();
    assert_eq!(
        contoso.org.value.as_str(),
        "https://contoso.crm.dynamics.com"
    );
    assert_eq!(contoso.instance, "contoso");
    assert_eq!(contoso.language, 1033);
    assert_eq!(contoso.daily_requests, None);
    assert_eq!(contoso.webhook, None);
    assert_eq!(contoso.poll_interval, Duration::from_secs(15));
    assert_eq!(contoso.read_lag, Duration::from_secs(5));
    assert_eq!(contoso.auth.client_id, "0000");
    let secret = Proof::Secret(SecretRef::Env("CONTOSO".to_owned()));
    assert_eq!(contoso.auth.proof, secret);
    assert!(contoso.auth.secret_expires.is_some());
}

#[test]
fn every_key_has_its_say() {
    let text = CONNECTION.replace(
        "client_secret = { env = \"CONTOSO\" }, secret_expires = 2026-12-01",
        "certificate = { file = \"contoso.pem\" }",
    ) + "instance = \"europe\"\nlanguage = 1031\ndaily_requests = 20000\npoll_interval = \"1m\"\n\
           authority_url = \"https://login.microsoftonline.us/contoso.com\"\ninstance_url = \"https://proxy.example\"\n\
           webhook = { auth = \"header\", name = \"X-Hook\", secret = { env = \"HOOK\" }, url = \"https://hooks.example\" }\n\
           api_version = \"9.1\"\nca_file = \"ca.pem\"\nread_lag = \"10s\"\nbudget = { reserve = \"25%\", at_once = 4 }\n";
    let contoso = load(&text).unwrap();
    assert!(matches!(
        contoso.auth.proof,
        Proof::Certificate(SecretRef::File(_))
    ));
    assert_eq!((&*contoso.instance, contoso.language), ("europe", 1031));
    assert_eq!(contoso.daily_requests, Some(20_000));
    assert_eq!(contoso.poll_interval, Duration::from_mins(1));
    assert_eq!(
        contoso.authority_url.unwrap().as_str(),
        "https://login.microsoftonline.us/contoso.com"
    );
    assert_eq!(
        contoso.instance_url.unwrap().as_str(),
        "https://proxy.example"
    );
    assert_eq!(contoso.api_version.as_deref(), Some("9.1"));
    assert!(contoso.ca_file.unwrap().ends_with("ca.pem"));
    assert_eq!(contoso.read_lag, Duration::from_secs(10));
    let budget = contoso.budget;
    assert_eq!(budget.reserve, Some(25));
    assert_eq!(budget.at_once.map(std::num::NonZeroU32::get), Some(4));
    assert_eq!(budget.per_second, None);
    let webhook = contoso.webhook.unwrap();
    assert_eq!(webhook.auth, WebhookAuth::Header("x-hook".to_owned()));
    assert_eq!(webhook.secret, SecretRef::Env("HOOK".to_owned()));
    assert_eq!(webhook.url.unwrap().as_str(), "https://hooks.example");
}

#[test]
fn every_rule_refuses() {
    for (from, to, word) in [
        (
            "https://Contoso.crm.dynamics.com/",
            "contoso",
            "`connection.contoso.org`",
        ),
        ("https://Contoso", "http://contoso", "plain text"),
        (".com/\"", ".com/main.aspx\"", "up to the host"),
        ("\"client_credentials\"", "\"device_code\"", "not available"),
        ("\"client_credentials\"", "\"magic\"", "no way to sign in"),
        ("client_id = \"0000\", ", "", "client_id"),
        ("client_secret = { env = \"CONTOSO\" }, ", "", "exactly one"),
        (
            "client_secret =",
            "certificate = { file = \"x\" }, client_secret =",
            "exactly one",
        ),
        (
            "client_secret = { env = \"CONTOSO\" }",
            "client_secret = \"hunter2\"",
            "a secret may not stand",
        ),
        ("2026-12-01", "\"soon\"", "a date"),
        (
            "kind = \"dynamics\"",
            "kind = \"dynamics\"\nlogin_url = \"https://x.example\"",
            "unknown key",
        ),
        (
            "kind = \"dynamics\"",
            "kind = \"dynamics\"\npoll_interval = \"1s\"",
            "15s",
        ),
        (
            "kind = \"dynamics\"",
            "kind = \"dynamics\"\ndaily_requests = 10",
            "out of range",
        ),
        (
            "kind = \"dynamics\"",
            "kind = \"dynamics\"\nlanguage = \"English\"",
            "whole number",
        ),
        (
            "kind = \"dynamics\"",
            "kind = \"dynamics\"\napi_version = \"8.2\"",
            "9.2",
        ),
        (
            "kind = \"dynamics\"",
            "kind = \"dynamics\"\nservicebus_url = \"sb://x\"",
            "`connection.contoso.servicebus`",
        ),
        (
            "kind = \"dynamics\"",
            "kind = \"dynamics\"\nwebhook = { auth = \"key\" }",
            "`connection.contoso.webhook.secret`",
        ),
        (
            "kind = \"dynamics\"",
            "kind = \"dynamics\"\nwebhook = { secret = \"hunter2\" }",
            "a secret may not stand",
        ),
        (
            "kind = \"dynamics\"",
            "kind = \"dynamics\"\nwebhook = { auth = \"magic\", secret = { env = \"HOOK\" } }",
            "not one of its values",
        ),
        (
            "kind = \"dynamics\"",
            "kind = \"dynamics\"\nwebhook = { name = \"k\", secret = { env = \"HOOK\" } }",
            "whose query is `code`",
        ),
        (
            "kind = \"dynamics\"",
            "kind = \"dynamics\"\nwebhook = { auth = \"query\", name = \"a b\", secret = { env = \"HOOK\" } }",
            "no name of a header or query",
        ),
        (
            "kind = \"dynamics\"",
            "kind = \"dynamics\"\nwebhook = { secret = { env = \"HOOK\" }, url = \"http://hooks.example\" }",
            "plain text",
        ),
        ("auth = {", "oauth = {", "`connection.contoso.auth`"),
    ] {
        assert!(CONNECTION.contains(from), "{from}");
        let problems = load(&CONNECTION.replacen(from, to, 1))
            .unwrap_err()
            .to_string();
        assert!(problems.contains(word), "{from} → {to}: {problems}");
        assert!(!problems.contains("hunter2"), "{problems}");
    }
}

#[test]
fn tests_on_the_own_machine_may_be_quick_and_plain() {
    let text = CONNECTION.replace("https://Contoso.crm.dynamics.com/", "http://127.0.0.1:9")
        + "plain_text = true\npoll_interval = \"100ms\"\n";
    let contoso = load(&text).unwrap();
    assert_eq!(contoso.poll_interval, Duration::from_millis(100));
    assert_eq!(contoso.instance, "127");
}

const BUS: &str = "servicebus_url = \"sb://Contoso.servicebus.windows.net/\"\n\
    servicebus = { queue = \"changes\", key_name = \"listen\", key = { env = \"BUS_KEY\" } }\n";

#[test]
fn a_service_bus_has_an_address_a_queue_and_a_key() {
    let contoso = load(&format!("{CONNECTION}{BUS}")).unwrap();
    let bus = contoso.servicebus.unwrap();
    assert_eq!(bus.host, "contoso.servicebus.windows.net");
    assert_eq!((bus.port, bus.encrypted), (None, true));
    assert_eq!((&*bus.queue, &*bus.key_name), ("changes", "listen"));
    assert_eq!(bus.key, SecretRef::Env("BUS_KEY".to_owned()));
    assert_eq!(bus.transport, BusTransport::WebSocket);
    let text = BUS.replace(
        "sb://Contoso.servicebus.windows.net/",
        "amqps://10.0.0.1:5671",
    );
    let text = text.replace("\"changes\"", "\"t/Subscriptions/s\", transport = \"tcp\"");
    let bus = load(&format!("{CONNECTION}{text}"))
        .unwrap()
        .servicebus
        .unwrap();
    assert_eq!((&*bus.host, bus.port), ("10.0.0.1", Some(5671)));
    assert_eq!(
        (&*bus.queue, bus.transport),
        ("t/Subscriptions/s", BusTransport::Tcp)
    );
}

#[test]
fn every_rule_of_a_service_bus_refuses() {
    for (from, to, word) in [
        ("sb://Contoso", "amqp://contoso", "plain text"),
        ("sb://Contoso", "ftp://contoso", "no address of a namespace"),
        ("windows.net/\"", "windows.net/changes\"", "up to the host"),
        (
            "servicebus_url = \"sb://Contoso.servicebus.windows.net/\"\n",
            "",
            "`connection.contoso.servicebus_url`",
        ),
        (
            "queue = \"changes\", ",
            "",
            "`connection.contoso.servicebus.queue`",
        ),
        (
            "\"changes\"",
            "\"changes/$deadletterqueue\"",
            "no name of a queue",
        ),
        (
            "key_name = \"listen\", ",
            "",
            "`connection.contoso.servicebus.key_name`",
        ),
        (
            ", key = { env = \"BUS_KEY\" }",
            "",
            "`connection.contoso.servicebus.key`",
        ),
        (
            "{ env = \"BUS_KEY\" }",
            "\"hunter2\"",
            "a secret may not stand",
        ),
        ("key_name =", "transport = \"udp\", key_name =", "websocket"),
        ("key_name =", "keyname = \"x\", key_name =", "unknown key"),
    ] {
        assert!(BUS.contains(from), "{from}");
        let text = format!("{CONNECTION}{}", BUS.replacen(from, to, 1));
        let problems = load(&text).unwrap_err().to_string();
        assert!(problems.contains(word), "{from} → {to}: {problems}");
        assert!(!problems.contains("hunter2"), "{problems}");
    }
}
