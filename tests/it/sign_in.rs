//! Signing in by a person's consent or a signed assertion, against the simulated token hosts.

mod dynamics;
mod salesforce;

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::redirect::Policy;
use serde_json::Value as Json;
use tokio::sync::Notify;
use tributary::crm::port::consent::{Asked, Consent, Waiting};
use tributary::crm::port::vault::Vault;
use tributary::fault::Fault;
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

async fn told(url: &str) -> Json {
    let answer = reqwest::get(url).await.unwrap();
    answer.json().await.unwrap()
}

async fn control(url: &str, body: &Json) {
    let client = reqwest::Client::new();
    let answer = client.post(url).json(body).send().await.unwrap();
    let status = answer.status();
    assert!(status.is_success(), "{status}: {:?}", answer.text().await);
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
