//! The event pipeline: which steps a write fires, and their delivery to webhooks and queues.

mod context;
mod deliver;
pub(crate) mod registration;
mod steps;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::error::ApiError;
use super::guid::Guid;
use super::org::Org;
use super::store::Store;
use super::transaction::{Author, Change};
use crate::salesforce::lock::lock;

/// The whole payload of a webhook beyond which members are left out.
const WEBHOOK_MOST: usize = 256 * 1024;
/// The payload of a queue's message beyond which members are left out.
const QUEUE_MOST: usize = 192 * 1024;

/// How dates are written in a context.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Dates {
    /// `/Date(ms)/`
    #[default]
    Milliseconds,
    /// `/Date(ms+0000)/`
    Offset,
    Iso,
}

/// Ways in which organizations differ.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// How long a receiver may take, on the wall's clock.
    pub timeout_ms: u64,
    /// Whether contexts repeat their parameters in `ParentContext`.
    pub parent_context: bool,
    pub dates: Dates,
    /// Whether newer members such as `InitiatingUserAgent` are there.
    pub newer_members: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout_ms: 60_000,
            parent_context: true,
            dates: Dates::Milliseconds,
            newer_members: true,
        }
    }
}

/// How the receiver knows the sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Auth {
    None,
    Code(String),
    Headers(Vec<(String, String)>),
    Query(Vec<(String, String)>),
}

/// A message to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub synchronous: bool,
    pub step: Guid,
    pub step_name: String,
    pub auto_delete: bool,
    pub endpoint: Guid,
    pub url: String,
    /// A queue's or a topic's name.
    pub path: String,
    pub contract: i64,
    pub message_format: i64,
    pub auth: Auth,
    pub table: String,
    pub message: &'static str,
    pub correlation: Guid,
    pub user: Guid,
    pub body: String,
    /// Members were left out.
    pub oversized: bool,
}

/// What became of a message.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Delivery {
    pub step: Guid,
    pub table: String,
    pub message: &'static str,
    pub correlation: Guid,
    pub attempts: u32,
    /// `delivered`, `failed`, `lost`, `queued`.
    pub outcome: &'static str,
    pub detail: String,
}

#[derive(Debug, Default)]
struct State {
    settings: Settings,
    log: Vec<Delivery>,
    /// Messages that wait for so many others to be sent.
    held: Vec<(usize, Post)>,
}

/// The sender.
#[derive(Debug)]
pub(crate) struct Webhooks {
    client: reqwest::Client,
    tasks: TaskTracker,
    stop: CancellationToken,
    state: Mutex<State>,
}

impl Webhooks {
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            client,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            state: Mutex::default(),
        })
    }

    pub fn settings(&self) -> Settings {
        lock(&self.state).settings
    }

    pub fn set(&self, settings: Settings) {
        lock(&self.state).settings = settings;
    }

    /// What was sent, and how it went, since the start.
    pub fn log(&self) -> Vec<Delivery> {
        lock(&self.state).log.clone()
    }

    /// How many messages are under way or held.
    pub fn waiting(&self) -> usize {
        self.tasks.len() + lock(&self.state).held.len()
    }

    /// Ends what is under way.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The messages that changes yield, in their order.
    pub fn posts(&self, org: &Org, store: &Store, changes: &[Change], author: Author) -> Vec<Post> {
        steps::posts(org, store, changes, author, self.settings())
    }

    /// Calls a synchronous step; its failure is the caller's.
    pub async fn call_now(&self, org: &Arc<Org>, post: &Post) -> Result<(), ApiError> {
        let (attempts, result) = deliver::attempt(self, post).await;
        self.note(
            post,
            attempts,
            if result.is_ok() {
                "delivered"
            } else {
                "failed"
            },
            result.as_ref().err().cloned(),
        );
        org.counters.count("webhooks", "synchronous");
        result.map_err(|problem| {
            ApiError::new(
                axum::http::StatusCode::BAD_REQUEST,
                "0x80040265",
                format!(
                    "The webhook of the step {} failed: {problem}",
                    post.step_name
                ),
            )
        })
    }

    /// Sends a message in its own time.
    pub fn send(&self, org: &Arc<Org>, post: Post) {
        deliver::send(self, org, post);
    }

    fn note(&self, post: &Post, attempts: u32, outcome: &'static str, detail: Option<String>) {
        lock(&self.state).log.push(Delivery {
            step: post.step,
            table: post.table.clone(),
            message: post.message,
            correlation: post.correlation,
            attempts,
            outcome,
            detail: detail.unwrap_or_default(),
        });
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.settings().timeout_ms)
    }
}
