//! What an answer says to the requests it answers, and the session that they belong to.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};

use crate::fault::{Fault, FaultKind};

use super::super::sign_in::Token;
use super::errors::{Trouble, classify};
use super::messages::Message;

/// A session at the server.
#[derive(Clone)]
pub struct Client {
    /// The id that the handshake gave.
    pub id: String,
    /// The token it was begun with.
    pub token: Arc<Token>,
}

/// An answer to a request on one channel.
pub struct Reply {
    /// The channel that was subscribed to.
    pub subscription: Option<String>,
    /// The client that a handshake gave.
    pub client_id: Option<String>,
    /// Whether positions can be replayed.
    pub can_replay: bool,
    /// Why it was not granted.
    pub refused: Option<Trouble>,
}

/// What an answer came to, but for its events, which are pending.
pub struct Replies {
    /// To the requests.
    pub replies: Vec<Reply>,
    /// The server's clock.
    pub date: Option<DateTime<Utc>>,
    /// The server closed the session.
    pub closed: bool,
    /// Data messages in it.
    pub data: usize,
}

impl Reply {
    /// What `message` says to the request called `what`.
    #[must_use]
    pub fn of(message: &Message<'_>, what: &str) -> Self {
        let refused = (message.successful != Some(true)).then(|| {
            let reconnect = message
                .advice
                .as_ref()
                .and_then(|advice| advice.reconnect.as_deref());
            classify(what, message.error.as_deref(), message.reason(), reconnect)
        });
        Self {
            subscription: message.subscription.clone(),
            client_id: message.client_id.clone(),
            can_replay: message.can_replay(),
            refused,
        }
    }
}

/// The one reply.
///
/// # Errors
/// Why it was not granted.
pub fn only(replies: Replies, what: &str) -> Result<Reply, Trouble> {
    let Some(mut reply) = replies.replies.into_iter().next() else {
        return Err(protocol(&format!("nothing was said to the {what}")).into());
    };
    match reply.refused.take() {
        Some(trouble) => Err(trouble),
        None => Ok(reply),
    }
}

/// A fault of kind `Protocol`.
pub fn protocol(what: &str) -> Fault {
    Fault::new(FaultKind::Protocol, what)
}
/// The session at the server.
pub fn lock(client: &Mutex<Option<Client>>) -> std::sync::MutexGuard<'_, Option<Client>> {
    client.lock().unwrap_or_else(PoisonError::into_inner)
}
