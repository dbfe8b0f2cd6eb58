//! One subscription: its credit, and what it says.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use crate::fault::{Fault, FaultKind};

use super::super::place::Replay;
use super::super::sign_in::Token;
use super::eventbus::{FetchRequest, FetchResponse, ReplayPreset};
use super::wire::Opening;

/// Events that may be outstanding (Pub/Sub API Developer Guide, "Pull Subscription and Flow Control").
pub const MOST_CREDIT: i32 = 100;
/// Requests that may wait for the connection; more would only add up.
const WAITING: usize = 4;

/// A subscription to one channel.
pub struct Subscription {
    /// The channel.
    pub channel: String,
    /// From where it is delivered if nothing of it came yet.
    pub start: Replay,
    /// Whether it ever said anything.
    pub heard: bool,
    /// Whether it was opened again and has not said anything since.
    pub reopened: bool,
    /// CRM time up to which everything on it was told.
    pub confirmed: Option<DateTime<Utc>>,
    session: Option<Session>,
}

struct Session {
    state: State,
    token: Arc<Token>,
    credit: mpsc::Sender<FetchRequest>,
    outstanding: i32,
    /// When it last said something, or was last due to.
    since: Instant,
}

enum State {
    Opening(Opening),
    Open(Box<Streaming<FetchResponse>>),
}

impl Subscription {
    /// A subscription that nobody has opened yet.
    #[must_use]
    pub const fn new(channel: String, start: Replay) -> Self {
        Self {
            channel,
            start,
            heard: false,
            reopened: false,
            confirmed: None,
            session: None,
        }
    }

    /// Whether it is open, or being opened.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.session.is_some()
    }

    /// Opens it where `replay` says, with `token`; `begin` makes the call of its requests.
    ///
    /// # Errors
    /// `PositionLost` for a replay id that is none; what `begin` says.
    pub fn open(
        &mut self,
        replay: &Replay,
        token: &Arc<Token>,
        begin: impl FnOnce(mpsc::Receiver<FetchRequest>) -> Result<Opening, Status>,
    ) -> Result<Result<(), Status>, Fault> {
        let (preset, id) = match replay {
            Replay::Now => (ReplayPreset::Latest, Vec::new()),
            Replay::Earliest => (ReplayPreset::Earliest, Vec::new()),
            Replay::After(id) => (ReplayPreset::Custom, bytes_of(id)?),
        };
        let (credit, requests) = mpsc::channel(WAITING);
        let first = FetchRequest {
            topic_name: self.channel.clone(),
            replay_preset: preset.into(),
            replay_id: id,
            num_requested: MOST_CREDIT,
            auth_refresh: String::new(),
        };
        // The channel is new: there is room.
        credit.try_send(first).ok();
        let opening = match begin(requests) {
            Ok(opening) => opening,
            Err(status) => return Ok(Err(status)),
        };
        self.session = Some(Session {
            state: State::Opening(opening),
            token: Arc::clone(token),
            credit,
            outstanding: MOST_CREDIT,
            since: Instant::now(),
        });
        Ok(Ok(()))
    }

    /// Ends it; the token that it was opened with.
    pub fn close(&mut self) -> Option<Arc<Token>> {
        self.session.take().map(|session| session.token)
    }

    /// Gives as much credit as events were taken.
    pub fn top_up(&mut self) {
        let Some(session) = &mut self.session else {
            return;
        };
        let taken = MOST_CREDIT - session.outstanding;
        if taken <= 0 {
            return;
        }
        let more = FetchRequest {
            num_requested: taken,
            ..FetchRequest::default()
        };
        // A queue that is full, or whose call has ended: the next wait says so, or tries again.
        if session.credit.try_send(more).is_ok() {
            if session.outstanding == 0 {
                // Without credit the server was not due to say anything.
                session.since = Instant::now();
            }
            session.outstanding = MOST_CREDIT;
        }
    }

    /// Since when it has said nothing.
    #[must_use]
    pub fn silent_since(&self) -> Option<Instant> {
        self.session.as_ref().map(|session| session.since)
    }

    /// What it says next; `Ok(None)` is its end. Nothing is lost if nobody asks again.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<FetchResponse>, Status>> {
        let Some(session) = &mut self.session else {
            return Poll::Pending;
        };
        if let State::Opening(opening) = &mut session.state {
            match opening.as_mut().poll(cx) {
                Poll::Ready(Ok(streaming)) => session.state = State::Open(Box::new(streaming)),
                Poll::Ready(Err(status)) => return Poll::Ready(Err(status)),
                Poll::Pending => return Poll::Pending,
            }
        }
        let State::Open(streaming) = &mut session.state else {
            return Poll::Pending;
        };
        let response = match Pin::new(&mut **streaming).poll_next(cx) {
            Poll::Ready(Some(Ok(response))) => response,
            Poll::Ready(Some(Err(status))) => return Poll::Ready(Err(status)),
            Poll::Ready(None) => return Poll::Ready(Ok(None)),
            Poll::Pending => return Poll::Pending,
        };
        let events = i32::try_from(response.events.len()).unwrap_or(i32::MAX);
        session.outstanding = session.outstanding.saturating_sub(events).max(0);
        session.since = Instant::now();
        self.heard = true;
        self.reopened = false;
        Poll::Ready(Ok(Some(response)))
    }
}

/// A replay id as positions spell it.
#[must_use]
pub fn text_of(id: &[u8]) -> Option<String> {
    (!id.is_empty()).then(|| URL_SAFE_NO_PAD.encode(id))
}

/// A replay id's bytes.
///
/// # Errors
/// `PositionLost`.
pub fn bytes_of(id: &str) -> Result<Vec<u8>, Fault> {
    URL_SAFE_NO_PAD.decode(id).map_err(|error| {
        let what = format!("replay id `{id}` is no Base64");
        Fault::new(FaultKind::PositionLost, what).source(error)
    })
}
