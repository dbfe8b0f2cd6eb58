//! The authorization code flow of the Microsoft identity platform, its refresh and its end.

use std::sync::Arc;

use reqwest::Client;
use serde_json::json;
use tributary::crm::dynamics::Dynamics;
use tributary::crm::dynamics::settings::{DynamicsSettings, Flow, Proof};
use tributary::crm::port::Crm;
use tributary::crm::port::vault::Vault;
use tributary::fault::FaultKind;
use tributary::runtime::clock::SystemClock;
use tributary::secret::Secret;
use tributary::state::memory::MemoryState;
use tributary::telemetry::metrics::Metrics;
use tributary_sim::dynamics::{Running, SimOptions, start};

use super::{agreed, dies_with_a_successor_kept, kept, sent_once_until_authorised_again, vault};
use crate::sim;

async fn org() -> Running {
    start(SimOptions::default()).await.unwrap()
}

fn crm(org: &Running, vault: Arc<Vault>) -> Dynamics {
    let proof = Proof::Secret(Arc::new(|| Ok(Secret::new("simulated-secret"))));
    let client = SimOptions::default().client_id;
    let mut settings = DynamicsSettings::new("acme".into(), &org.url, client, proof);
    settings.flow = Flow::AuthorizationCode;
    settings.authority_url = Some(org.url.clone());
    settings.plain_text = true;
    settings.vault = vault;
    Dynamics::new(settings, Metrics::none(), Arc::new(SystemClock)).unwrap()
}

/// A connector that a person has authorised.
async fn authorised(org: &Running, store: &Arc<MemoryState>) -> Dynamics {
    let crm = crm(org, vault(Arc::clone(store) as _));
    let consent = crm.consent().unwrap();
    let (code, asked) = agreed(&*consent).await;
    consent.redeem(&code, &asked).await.unwrap();
    crm
}

async fn token_calls(org: &Running) -> u64 {
    let counts = sim::told(&Client::new(), &org.url, "calls").await;
    let Some(entra) = counts["entra"].as_object() else {
        return 0;
    };
    let tokens = entra
        .iter()
        .filter(|(call, _)| call.starts_with("POST token"));
    tokens.filter_map(|(_, times)| times.as_u64()).sum()
}

async fn entra(org: &Running, order: &str) {
    sim::order(&Client::new(), &org.url, "entra", &json!({order: true})).await;
}

#[tokio::test]
async fn a_code_is_redeemed_once_and_each_refresh_keeps_its_successor() {
    let (org, store) = (org().await, Arc::default());
    let crm = crm(&org, vault(Arc::clone(&store) as _));
    let fault = crm.identify().await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Credentials);
    assert!(fault.report().contains("`tributary auth acme`"));

    let consent = crm.consent().unwrap();
    let (code, asked) = agreed(&*consent).await;
    let authorised = consent.redeem(&code, &asked).await.unwrap();
    consent.redeem(&code, &asked).await.unwrap_err();
    let first = kept(&store).await;
    assert_eq!(crm.identify().await.unwrap(), authorised);
    entra(&org, "expire_access").await;
    assert_eq!(crm.identify().await.unwrap(), authorised);
    assert_ne!(kept(&store).await, first);
}

#[tokio::test]
async fn a_successor_is_kept_before_it_is_used() {
    let (org, store) = (org().await, Arc::default());
    authorised(&org, &store).await;
    dies_with_a_successor_kept(&store, |vault| crm(&org, vault), async || {}).await;
    let next = crm(&org, vault(Arc::clone(&store) as _));
    next.identify().await.unwrap();
}

#[tokio::test]
async fn another_environment_is_refused_before_anybody_agrees() {
    let (own, store) = (org().await, Arc::default());
    authorised(&own, &store).await;
    let other = org().await;
    let moved = crm(&other, vault(Arc::clone(&store) as _));
    let waiting = tributary::crm::port::consent::Waiting::default();
    let asked = waiting.ask(&"acme".into(), super::CALLBACK).unwrap();
    let fault = moved.consent().unwrap().link(&asked).await.unwrap_err();
    assert!(fault.report().contains(&own.url), "{}", fault.report());
    let fault = moved.identify().await.unwrap_err();
    assert!(fault.report().contains(&own.url), "{}", fault.report());
    assert_eq!(token_calls(&other).await, 0, "no token went there");
    let again = crm(&own, vault(Arc::clone(&store) as _));
    again.identify().await.unwrap();
}

#[tokio::test]
async fn a_revoked_token_is_sent_once_until_a_person_authorises_again() {
    let (org, store) = (org().await, Arc::default());
    let crm = authorised(&org, &store).await;
    crm.identify().await.unwrap();
    entra(&org, "revoke").await;
    entra(&org, "expire_access").await;
    sent_once_until_authorised_again(&crm, async || token_calls(&org).await).await;
}

#[tokio::test]
async fn disconnecting_deletes_the_token_and_says_what_remains() {
    let (org, store) = (org().await, Arc::default());
    let crm = authorised(&org, &store).await;
    let consent = crm.consent().unwrap();
    let done = consent.disconnect().await.unwrap();
    assert!(done.had_token && !done.revoked && !done.remains.is_empty());
    let fault = crm.identify().await.unwrap_err();
    assert!(fault.report().contains("is not authorised"));
    assert!(!consent.disconnect().await.unwrap().had_token);
}
