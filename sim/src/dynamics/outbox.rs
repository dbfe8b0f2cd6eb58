//! Messages for the queues and topics of a service bus: the event pipeline puts them in, a broker takes them out.

use std::collections::VecDeque;
use std::sync::Mutex;

use chrono::{DateTime, Utc};
use tokio::sync::Notify;

use super::guid::Guid;
use crate::salesforce::lock::lock;

/// A posted `RemoteExecutionContext`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusMessage {
    /// The `serviceendpoint` row.
    pub endpoint: Guid,
    /// The queue's or topic's name (`path` of the row).
    pub entity: String,
    /// The row's `contract`: 2 queue, 5 topic, 6 persistent queue, 7 event hub.
    pub contract: i64,
    /// `application/msbin1`, `application/json` or `application/xml`, by the row's `messageformat`.
    pub content_type: &'static str,
    /// JSON text; for other formats the broker encodes it, or refuses to.
    pub body: String,
    /// Application properties: claims, and `MessageMaxSizeExceeded` if members were left out.
    pub properties: Vec<(String, String)>,
    pub enqueued: DateTime<Utc>,
}

/// The messages that no broker has taken yet, in the order of their posting.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Mutex<VecDeque<BusMessage>>,
    posted: Notify,
}

impl Outbox {
    pub fn post(&self, message: BusMessage) {
        lock(&self.waiting).push_back(message);
        self.posted.notify_one();
    }

    /// Takes the oldest, if there is one.
    pub fn take(&self) -> Option<BusMessage> {
        lock(&self.waiting).pop_front()
    }

    /// Waits for a message and takes it. Cancel-safe.
    pub async fn next(&self) -> BusMessage {
        loop {
            if let Some(message) = self.take() {
                return message;
            }
            self.posted.notified().await;
        }
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.waiting).len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
