//! The server side of a test: challenge, tokens, metadata of one table, and what a test adds.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value as Json, json};

use crate::http::tests::server::{Reply, Seen, Server, pairs};
use crate::runtime::clock::SystemClock;
use crate::secret::Secret;

use super::super::settings::Proof;
use super::*;

pub const TENANT: &str = "3f1c1c0e-0000-4000-8000-00000000aaaa";
pub const ORG: &str = "33333333-0000-4000-8000-000000000001";
pub const USER: &str = "44444444-0000-4000-8000-000000000001";

type Answer = Arc<dyn Fn(Seen) -> BoxFuture<'static, Reply> + Send + Sync>;

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
    /// Forms that asked for a token.
    pub forms: Mutex<Vec<std::collections::BTreeMap<String, String>>>,
    /// The org that WhoAmI names, if another.
    pub org: Mutex<Option<String>>,
    /// Whether the table tells its changes.
    pub untracked: std::sync::atomic::AtomicBool,
}

impl Inner {
    pub fn end_sessions(&self) {
        self.live.lock().unwrap().clear();
    }

    fn token(&self, seen: &Seen) -> Reply {
        let mut refusals = self.refusals.lock().unwrap();
        if !refusals.is_empty() {
            return refusals.remove(0);
        }
        self.forms.lock().unwrap().push(pairs(&seen.body));
        let number = self.tokens.fetch_add(1, Ordering::SeqCst) + 1;
        let token = format!("token{number}");
        self.live.lock().unwrap().insert(token.clone());
        Reply::json(&json!({"token_type": "Bearer", "expires_in": 3599, "access_token": token}))
    }

    fn is_live(&self, seen: &Seen) -> bool {
        let token = seen.header("authorization").trim_start_matches("Bearer ");
        self.live.lock().unwrap().contains(token)
    }

    fn metadata(&self, path: &str) -> Option<Reply> {
        if path == "/WhoAmI" {
            let org = self.org.lock().unwrap().clone();
            let org = org.unwrap_or_else(|| ORG.to_uppercase());
            return Some(Reply::json(&json!({
                "@odata.context": "x", "BusinessUnitId": USER, "UserId": USER, "OrganizationId": org
            })));
        }
        if path == "/organizations" {
            return Some(Reply::json(
                &json!({"value": [{"expirechangetrackingindays": 7}]}),
            ));
        }
        let rest = path.strip_prefix("/EntityDefinitions(LogicalName='account')")?;
        if rest.is_empty() {
            let tracked = !self.untracked.load(Ordering::SeqCst);
            return Some(account(tracked));
        }
        let targets = json!({"value": [
            {"LogicalName": "ownerid", "Targets": ["systemuser", "team"]},
            {"LogicalName": "parentaccountid", "Targets": ["account"]}]});
        Some(Reply::json(&targets))
    }
}

fn account(tracked: bool) -> Reply {
    let columns = [
        ("accountid", "Uniqueidentifier"),
        ("name", "String"),
        ("revenue", "Money"),
        ("ownerid", "Owner"),
        ("parentaccountid", "Lookup"),
        ("modifiedon", "DateTime"),
        ("versionnumber", "BigInt"),
    ];
    let columns: Vec<Json> = columns
        .iter()
        .map(|(name, kind)| json!({"LogicalName": name, "AttributeType": kind, "IsValidForRead": true}))
        .collect();
    Reply::json(&json!({
        "LogicalName": "account", "EntitySetName": "accounts", "PrimaryIdAttribute": "accountid",
        "ChangeTrackingEnabled": tracked, "Attributes": columns
    }))
}

impl Org {
    /// An org that answers calls by `answer`, given the path below the version.
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
                if seen.path == format!("/{TENANT}/oauth2/v2.0/token") {
                    return inner.token(&seen);
                }
                if !inner.is_live(&seen) {
                    let uri =
                        format!("https://login.microsoftonline.com/{TENANT}/oauth2/authorize");
                    let challenge =
                        format!("Bearer authorization_uri={uri}, resource_id=https://x/");
                    return Reply::new(401, "").with("www-authenticate", challenge);
                }
                match inner.metadata(below(&seen)) {
                    Some(reply) => reply,
                    None => answer(seen).await,
                }
            }
        })
        .await;
        Self { server, inner }
    }

    pub fn settings(&self) -> DynamicsSettings {
        let secret = Proof::Secret(Arc::new(|| Ok(Secret::new("sesame"))));
        let mut settings =
            DynamicsSettings::new("contoso".into(), &self.server.url, "app-1", secret);
        settings.authority_url = Some(self.server.url.clone());
        settings.plain_text = true;
        settings.poll_interval = Duration::from_millis(5);
        settings.call_timeout = Duration::from_secs(20);
        settings
    }

    pub fn connector(&self) -> Dynamics {
        self.with(|_| {})
    }

    pub fn with(&self, change: impl FnOnce(&mut DynamicsSettings)) -> Dynamics {
        let mut settings = self.settings();
        change(&mut settings);
        Dynamics::new(settings, Metrics::none(), Arc::new(SystemClock)).unwrap()
    }

    /// How many tokens were asked for.
    pub fn sign_ins(&self) -> usize {
        self.server.count("/oauth2/v2.0/token")
    }

    /// The calls for accounts that came.
    pub fn calls(&self) -> Vec<Seen> {
        let mut seen = self.server.seen();
        seen.retain(|seen| below(seen) == "/accounts" && !seen.header("authorization").is_empty());
        seen
    }
}

/// The path below `/api/data/v9.2`.
pub fn below(seen: &Seen) -> &str {
    seen.path
        .strip_prefix("/api/data/v9.2")
        .unwrap_or(&seen.path)
}

/// A refusal as the Web API words it.
pub fn refused(status: u16, code: &str, message: &str) -> Reply {
    let json = json!({"error": {"code": code, "message": message}});
    Reply::new(status, json.to_string())
}

/// An account's row.
pub fn row(number: usize, version: u64, name: &str) -> Json {
    json!({
        "@odata.etag": format!("W/\"{version}\""), "accountid": guid(number), "name": name,
        "modifiedon": "2026-01-05T10:11:12Z", "versionnumber": version
    })
}

/// A tombstone.
pub fn gone(number: usize) -> Json {
    json!({"@odata.context": "x/$metadata#accounts/$deletedEntity", "id": guid(number), "reason": "deleted"})
}

/// An answer with rows, and links below the address that was asked.
pub fn page(seen: &Seen, rows: &[Json], next: Option<&str>, delta: Option<&str>) -> Reply {
    let link = |rest: &str| {
        format!(
            "http://{}/api/data/v9.2/accounts?{rest}",
            seen.header("host")
        )
    };
    let mut json = json!({"@odata.context": "x", "value": rows});
    if let Some(next) = next {
        json["@odata.nextLink"] = link(next).into();
    }
    if let Some(delta) = delta {
        json["@odata.deltaLink"] = link(delta).into();
    }
    Reply::json(&json)
}
