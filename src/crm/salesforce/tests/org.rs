//! The server side of a test: tokens, describes, and what a test adds.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value as Json, json};

use crate::http::tests::server::{Reply, Seen, Server, pairs};
use crate::runtime::clock::SystemClock;
use crate::secret::Secret;

use super::*;

type Answer = Arc<dyn Fn(Seen) -> BoxFuture<'static, Reply> + Send + Sync>;

/// What every test's org knows.
pub struct Org {
    pub server: Server,
    pub inner: Arc<Inner>,
}

#[derive(Default)]
pub struct Inner {
    tokens: AtomicUsize,
    live: Mutex<HashSet<String>>,
    /// Answers in place of a token, first to last.
    pub refusals: Mutex<Vec<Reply>>,
    /// Every token is dead at once.
    pub kills: AtomicBool,
    url: Mutex<String>,
}

impl Inner {
    /// Ends every session.
    pub fn end_sessions(&self) {
        self.live.lock().unwrap().clear();
    }

    pub fn is_live(&self, seen: &Seen) -> bool {
        let token = seen.header("authorization").trim_start_matches("Bearer ");
        self.live.lock().unwrap().contains(token)
    }

    fn token(&self, seen: &Seen) -> Reply {
        let mut refusals = self.refusals.lock().unwrap();
        if !refusals.is_empty() {
            return refusals.remove(0);
        }
        let form = pairs(&seen.body);
        assert_eq!(form["grant_type"], "client_credentials");
        assert_eq!(form["client_id"], "3MVG9");
        assert_eq!(form["client_secret"], "sesame");
        let number = self.tokens.fetch_add(1, Ordering::SeqCst) + 1;
        let token = format!("{ORG}!token{number}");
        if !self.kills.load(Ordering::SeqCst) {
            self.live.lock().unwrap().insert(token.clone());
        }
        Reply::json(&json!({
            "access_token": token, "instance_url": *self.url.lock().unwrap(),
            "id": format!("https://login.salesforce.com/id/{ORG}/{USER}"), "token_type": "Bearer",
            "issued_at": "1760000000000", "signature": "x", "scope": "api"
        }))
    }
}

impl Org {
    /// An org that answers REST calls by `answer`, given the path below the version.
    pub async fn start<A, F>(answer: A) -> Self
    where
        A: Fn(Seen) -> F + Send + Sync + 'static,
        F: Future<Output = Reply> + Send + 'static,
    {
        let answer: Answer = Arc::new(move |seen| Box::pin(answer(seen)));
        let inner = Arc::new(Inner::default());
        let shared = Arc::clone(&inner);
        let server = Server::start(move |seen| {
            let (answer, inner) = (Arc::clone(&answer), Arc::clone(&shared));
            async move {
                if seen.path == "/services/oauth2/token" {
                    return inner.token(&seen);
                }
                if seen.path == "/services/data/" {
                    return Reply::json(&json!([{"version": "66.0"}]));
                }
                if !inner.is_live(&seen) && !seen.path.starts_with("/cometd/") {
                    let message = "Session expired or invalid";
                    return Reply::error(401, "INVALID_SESSION_ID", message);
                }
                answer(seen).await
            }
        })
        .await;
        inner.url.lock().unwrap().clone_from(&server.url);
        Self { server, inner }
    }

    pub fn settings(&self) -> SalesforceSettings {
        let mut settings = SalesforceSettings::new(
            "acme".into(),
            &self.server.url,
            "3MVG9",
            Arc::new(|| Ok(Secret::new("sesame"))),
        );
        settings.transport = Transport::Cometd;
        settings.bulk_from = None;
        settings.plain_text = true;
        settings.call_timeout = Duration::from_secs(20);
        settings.poll_timeout = Duration::from_secs(20);
        settings
    }

    pub fn connector(&self) -> Salesforce {
        self.with(|_| {})
    }

    pub fn with(&self, change: impl FnOnce(&mut SalesforceSettings)) -> Salesforce {
        let mut settings = self.settings();
        change(&mut settings);
        Salesforce::new(settings, Metrics::none(), Arc::new(SystemClock)).unwrap()
    }

    /// How many tokens were asked for.
    pub fn sign_ins(&self) -> usize {
        self.server.count("/oauth2/token")
    }
}

/// The path below `/services/data/v66.0`.
pub fn below(seen: &Seen) -> &str {
    seen.path
        .strip_prefix("/services/data/v66.0")
        .unwrap_or(&seen.path)
}

/// A describe of `object` with these fields: name and type.
pub fn describe(object: &str, fields: &[(&str, &str)]) -> Reply {
    let fields: Vec<Json> = fields
        .iter()
        .map(|(name, kind)| json!({"name": name, "label": name, "type": kind}))
        .collect();
    Reply::json(&json!({"name": object, "label": object, "replicateable": true, "fields": fields}))
}

/// The usual account: id, name, stamp.
pub fn account() -> Reply {
    describe(
        "Account",
        &[
            ("Id", "id"),
            ("Name", "string"),
            ("SystemModstamp", "datetime"),
        ],
    )
}
