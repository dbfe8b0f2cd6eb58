//! The web server flow, its refresh and its end, and the JWT bearer flow.

use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Client;
use serde_json::json;
use tributary::crm::port::Crm;
use tributary::crm::port::vault::Vault;
use tributary::crm::salesforce::Salesforce;
use tributary::crm::salesforce::settings::{Auth, SalesforceSettings, SecretSource};
use tributary::fault::FaultKind;
use tributary::runtime::clock::SystemClock;
use tributary::secret::Secret;
use tributary::state::memory::MemoryState;
use tributary::telemetry::metrics::Metrics;
use tributary_sim::salesforce::{Running, SimOptions, start};

use super::{agreed, dies_with_a_successor_kept, kept, sent_once_until_authorised_again, vault};
use crate::sim;

const USER: &str = "sync@acme.example";

async fn org(change: impl FnOnce(&mut SimOptions)) -> Running {
    let mut options = SimOptions {
        user_name: Some(USER.to_owned()),
        ..SimOptions::default()
    };
    change(&mut options);
    start(options).await.unwrap()
}

fn secret(text: impl Into<String>) -> SecretSource {
    let text = text.into();
    Arc::new(move || Ok(Secret::new(text.clone())))
}

fn crm(org: &Running, auth: Auth, vault: Arc<Vault>) -> Salesforce {
    let mut settings = SalesforceSettings::new("acme".into(), &org.url, "simulated-client", auth);
    settings.plain_text = true;
    settings.vault = vault;
    Salesforce::new(settings, Metrics::none(), Arc::new(SystemClock)).unwrap()
}

fn by_person(org: &Running, vault: Arc<Vault>) -> Salesforce {
    let auth = Auth::AuthorizationCode(Some(secret("simulated-secret")));
    crm(org, auth, vault)
}

/// A connector that a person has authorised.
async fn authorised(org: &Running, store: &Arc<MemoryState>) -> Salesforce {
    let crm = by_person(org, vault(Arc::clone(store) as _));
    let consent = crm.consent().unwrap();
    let (code, asked) = agreed(&*consent).await;
    let identity = consent.redeem(&code, &asked).await.unwrap();
    assert!(identity.org_id.starts_with("00D"));
    crm
}

async fn token_calls(org: &Running) -> u64 {
    let counts = sim::told(&Client::new(), &org.url, "counts").await;
    counts["calls"]["POST oauth2/token"].as_u64().unwrap_or(0)
}

async fn at_once(org: &Running, kind: &str) {
    let script = json!({"do": {"kind": kind}});
    sim::order(&Client::new(), &org.url, "faults", &script).await;
}

#[tokio::test]
async fn a_code_is_redeemed_once_and_the_token_refreshes() {
    let (org, store) = (org(|_| {}).await, Arc::default());
    let crm = by_person(&org, vault(Arc::clone(&store) as _));
    let fault = crm.identify().await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Credentials);
    assert!(fault.report().contains("`tributary auth acme`"));

    let consent = crm.consent().unwrap();
    let (code, asked) = agreed(&*consent).await;
    let other = agreed(&*consent).await.1;
    // Another question's proof is refused, and uses the code up.
    consent.redeem(&code, &other).await.unwrap_err();
    consent.redeem(&code, &asked).await.unwrap_err();
    let (code, asked) = agreed(&*consent).await;
    let authorised = consent.redeem(&code, &asked).await.unwrap();
    let first = kept(&store).await;
    assert_eq!(crm.identify().await.unwrap(), authorised);
    at_once(&org, "expire_tokens_now").await;
    assert_eq!(crm.identify().await.unwrap(), authorised);
    assert_eq!(kept(&store).await, first, "nothing was rotated");
}

#[tokio::test]
async fn a_rotated_token_is_kept_before_it_is_used() {
    let org = org(|options| options.rotate_refresh_tokens = true).await;
    let store = Arc::default();
    authorised(&org, &store).await;
    dies_with_a_successor_kept(
        &store,
        |vault| by_person(&org, vault),
        async || {
            let counts = sim::told(&Client::new(), &org.url, "counts").await;
            let calls = counts["calls"].as_object().unwrap();
            assert!(
                calls.keys().all(|call| call.contains("oauth2")),
                "{calls:?}"
            );
        },
    )
    .await;
    let next = by_person(&org, vault(Arc::clone(&store) as _));
    next.identify().await.unwrap();
    at_once(&org, "expire_tokens_now").await;
    next.identify().await.unwrap();
}

#[tokio::test]
async fn another_orgs_token_is_refused_and_the_first_stays() {
    let (own, store) = (org(|_| {}).await, Arc::default());
    authorised(&own, &store).await;
    let first = kept(&store).await;
    let other = org(|options| options.seed = 2).await;
    let elsewhere = by_person(&other, vault(Arc::clone(&store) as _));
    let consent = elsewhere.consent().unwrap();
    let (code, asked) = agreed(&*consent).await;
    let fault = consent.redeem(&code, &asked).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Credentials);
    assert!(fault.report().contains("belongs to org 00D"));
    assert_eq!(kept(&store).await, first);
    let again = by_person(&own, vault(Arc::clone(&store) as _));
    again.identify().await.unwrap();
}

#[tokio::test]
async fn a_revoked_token_is_sent_once_until_a_person_authorises_again() {
    let (org, store) = (org(|_| {}).await, Arc::default());
    let crm = authorised(&org, &store).await;
    crm.identify().await.unwrap();
    at_once(&org, "expire_refresh_tokens").await;
    at_once(&org, "expire_tokens_now").await;
    sent_once_until_authorised_again(&crm, async || token_calls(&org).await).await;
}

#[tokio::test]
async fn disconnecting_ends_the_token_here_and_there() {
    let (org, store) = (org(|_| {}).await, Arc::default());
    let crm = authorised(&org, &store).await;
    let token = kept(&store).await;
    let consent = crm.consent().unwrap();
    let done = consent.disconnect().await.unwrap();
    assert!(done.had_token && done.revoked && done.remains.contains("OAuth Usage"));
    let fault = crm.identify().await.unwrap_err();
    assert!(fault.report().contains("is not authorised"));

    let thief = vault(Arc::new(MemoryState::default()));
    thief.authorise(&Secret::new(token)).await.unwrap();
    let fault = by_person(&org, thief).identify().await.unwrap_err();
    assert!(fault.report().contains("expired access/refresh token"));
    assert!(!consent.disconnect().await.unwrap().had_token);
}

fn pem(name: &str) -> PathBuf {
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/sim/tests/it/jwt");
    PathBuf::from(keys).join(name)
}

#[tokio::test]
async fn an_assertion_signs_in_by_the_apps_own_key_only() {
    let org = org(|options| options.jwt_public_key = Some(pem("public.pem"))).await;
    let good = std::fs::read_to_string(pem("private.pem")).unwrap();
    let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
    let encoded = STANDARD.encode(der.as_ref());
    let lines: Vec<&str> = (0..encoded.len())
        .step_by(64)
        .map(|at| &encoded[at..encoded.len().min(at + 64)])
        .collect();
    let text = lines.join("\n");
    let wrong = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
    let signing = |user: &str, key: &str| Auth::JwtBearer {
        user: user.to_owned(),
        key: secret(key),
        audience: "https://login.salesforce.com".to_owned(),
    };
    let known = crm(&org, signing(USER, &good), Vault::in_memory("acme".into()));
    known.identify().await.unwrap();
    at_once(&org, "expire_tokens_now").await;
    known.identify().await.unwrap();
    for (auth, word) in [
        (signing(USER, &wrong), "upload the certificate"),
        (signing(USER, "no key"), "can't sign"),
        (signing("eve@acme.example", &good), "pre-authorise"),
    ] {
        let refused = crm(&org, auth, Vault::in_memory("acme".into()));
        let fault = refused.identify().await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Credentials);
        assert!(fault.report().contains(word), "{}", fault.report());
        assert!(!fault.report().contains(&text[..40]));
    }
}
