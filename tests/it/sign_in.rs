//! Signing in by a person's consent or a signed assertion, against the simulated token hosts.

mod dynamics;
mod salesforce;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::redirect::Policy;
use tokio::sync::Notify;
use tributary::crm::port::Crm;
use tributary::crm::port::consent::{Asked, Consent, Waiting};
use tributary::crm::port::vault::Vault;
use tributary::fault::{Fault, FaultKind};
use tributary::model::name::ConnectionId;
use tributary::secret::Secret;
use tributary::state::credentials::{Credential, Credentials, PinnedOrg};
use tributary::state::memory::MemoryState;
use tributary::state::seal::{Keyring, Sealed};

const CALLBACK: &str = "http://127.0.0.1:8080/oauth/callback";

/// The vault of connection `acme` in `store`.
fn vault(store: Arc<dyn Credentials>) -> Arc<Vault> {
    let key = Secret::new(STANDARD.encode([7_u8; 32]));
    let keys = Keyring::new(&key, &[]).unwrap();
    Arc::new(Vault::new("acme".into(), store, Some(Arc::new(keys))))
}

/// What the vault holds.
async fn kept(store: &Arc<MemoryState>) -> String {
    let grant = vault(Arc::clone(store) as _).grant().await.unwrap();
    grant.refresh_token.expose().to_owned()
}

/// A person follows the link and agrees; the code, and the question that it answers.
async fn agreed(consent: &dyn Consent) -> (Secret, Asked) {
    let asked = Waiting::default().ask(&"acme".into(), CALLBACK).unwrap();
    let link = consent.link(&asked).await.unwrap();
    let browser = reqwest::Client::builder().redirect(Policy::none());
    let answer = browser.build().unwrap().get(link).send().await.unwrap();
    assert_eq!(answer.status(), 302);
    let back = answer.headers()["location"].to_str().unwrap();
    assert!(back.starts_with(CALLBACK), "{back}");
    let back = reqwest::Url::parse(back).unwrap();
    let field = |name: &str| {
        let mut pairs = back.query_pairs();
        let found = pairs.find(|(key, _)| key == name);
        found.unwrap_or_else(|| panic!("no {name} in {back}")).1
    };
    assert_eq!(field("state"), asked.state.expose());
    (Secret::new(field("code").into_owned()), asked)
}

/// Has a store die as soon as a token is kept, asks with the connector that `doomed` makes of it, and checks that the
/// successor of the first token was kept by then. What that connector had done is the org's to tell.
async fn dies_with_a_successor_kept<C: Crm + 'static>(
    store: &Arc<MemoryState>,
    doomed: impl FnOnce(Arc<Vault>) -> C,
    meanwhile: impl AsyncFnOnce(),
) {
    let first = kept(store).await;
    let dying = Arc::new(Dying {
        store: Arc::clone(store),
        kept: Notify::new(),
    });
    let doomed = doomed(vault(Arc::clone(&dying) as _));
    let asking = tokio::spawn(async move { doomed.identify().await });
    dying.kept.notified().await;
    assert!(!asking.is_finished(), "used before it was kept");
    meanwhile().await;
    asking.abort();
    assert_ne!(kept(store).await, first);
}

/// The connector's token is revoked: it is sent once, whoever asks, until a person authorises again.
async fn sent_once_until_authorised_again(crm: &dyn Crm, token_calls: impl AsyncFn() -> u64) {
    let before = token_calls().await;
    for _ in 0..5 {
        let fault = crm.identify().await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Credentials);
        assert!(
            fault.report().contains("tributary auth"),
            "{}",
            fault.report()
        );
    }
    assert_eq!(token_calls().await, before + 1);

    let consent = crm.consent().unwrap();
    let (code, asked) = agreed(&*consent).await;
    // The authorisation before this one was heard by nobody.
    crm.authorised().await;
    consent.redeem(&code, &asked).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), crm.authorised())
        .await
        .expect("who waits is woken");
    crm.identify().await.unwrap();
}

/// A store whose process dies as soon as a token is kept: who asked for that never hears of it.
struct Dying {
    store: Arc<MemoryState>,
    kept: Notify,
}

#[async_trait]
impl Credentials for Dying {
    async fn org(&self, connection: &ConnectionId) -> Result<Option<PinnedOrg>, Fault> {
        self.store.org(connection).await
    }

    async fn pin_org(
        &self,
        connection: &ConnectionId,
        org: &PinnedOrg,
    ) -> Result<PinnedOrg, Fault> {
        self.store.pin_org(connection, org).await
    }

    async fn credential(&self, connection: &ConnectionId) -> Result<Credential, Fault> {
        self.store.credential(connection).await
    }

    async fn replace(
        &self,
        connection: &ConnectionId,
        after: u64,
        sealed: Option<Sealed>,
    ) -> Result<bool, Fault> {
        self.store.replace(connection, after, sealed).await?;
        self.kept.notify_one();
        std::future::pending().await
    }
}
