//! The event bus: open streams, their positions, and the settings that tests change.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::super::cometd::{Channel, DataMessage, Request, Subscription, take};
use super::super::commits::TooOld;
use super::super::lock::lock;
use super::super::org::Org;
use super::super::random::Random;
use super::position::Positions;

/// Within this time an answer comes, with or without events.
const KEEPALIVE: Duration = Duration::from_secs(270);
/// Events of one answer.
const BATCH: usize = 100;

/// The gRPC side of an org.
#[derive(Debug)]
pub struct Bus {
    state: Mutex<State>,
    pub(super) positions: Positions,
    keepalive: Duration,
    /// Ends every connection that is open.
    connections: Mutex<CancellationToken>,
}

#[derive(Debug)]
struct State {
    streams: BTreeMap<u64, OpenStream>,
    serial: u64,
    random: Random,
    batch: usize,
    keepalive: Option<Duration>,
}

#[derive(Debug)]
struct OpenStream {
    subscription: Subscription,
    shown: StreamState,
    /// The server ends it, without an error.
    dismissed: bool,
}

/// An open subscription as the control API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamState {
    pub topic: String,
    pub user: String,
    /// Everything up to here was taken off the log.
    pub replay_id: u64,
    /// Events the client asked for and was not sent.
    pub credit: usize,
    /// Events sent.
    pub sent: u64,
}

impl Bus {
    pub(crate) fn new(seed: u64, opaque: bool, keepalive: Option<Duration>) -> Self {
        Self {
            state: Mutex::new(State {
                streams: BTreeMap::new(),
                serial: 0,
                random: Random::new(seed, "event bus"),
                batch: BATCH,
                keepalive: None,
            }),
            positions: Positions::new(seed, opaque),
            keepalive: keepalive.unwrap_or(KEEPALIVE),
            connections: Mutex::new(CancellationToken::new()),
        }
    }

    /// The open subscriptions, oldest first.
    pub fn streams(&self) -> Vec<StreamState> {
        let state = lock(&self.state);
        let shown = |stream: &OpenStream| StreamState {
            replay_id: stream.subscription.cursor,
            ..stream.shown.clone()
        };
        state.streams.values().map(shown).collect()
    }

    /// Names a call.
    pub(super) fn rpc_id(&self) -> String {
        lock(&self.state).random.uuid()
    }

    pub(super) fn keepalive(&self) -> Duration {
        lock(&self.state).keepalive.unwrap_or(self.keepalive)
    }

    /// Events of one answer at most.
    pub(super) fn batch(&self) -> usize {
        lock(&self.state).batch
    }

    /// Enters a subscription that begins after a position.
    pub(super) fn open(&self, topic: &str, user: &str, channel: Channel, cursor: u64) -> u64 {
        let mut state = lock(&self.state);
        state.serial += 1;
        let number = state.serial;
        let stream = OpenStream {
            subscription: Subscription {
                name: Arc::from(topic),
                channel,
                cursor,
                again: VecDeque::new(),
            },
            shown: StreamState {
                topic: topic.to_owned(),
                user: user.to_owned(),
                replay_id: cursor,
                credit: 0,
                sent: 0,
            },
            dismissed: false,
        };
        state.streams.insert(number, stream);
        number
    }

    pub(super) fn close(&self, stream: u64) {
        lock(&self.state).streams.remove(&stream);
    }

    /// Takes the next events off a subscription, and tells the position it has reached.
    pub(super) fn take(
        &self,
        stream: u64,
        request: &Request<'_>,
    ) -> Result<(Vec<DataMessage>, u64), TooOld> {
        let mut state = lock(&self.state);
        let Some(open) = state.streams.get_mut(&stream) else {
            return Ok((Vec::new(), 0));
        };
        let messages = take(std::slice::from_mut(&mut open.subscription), request)?;
        Ok((messages, open.subscription.cursor))
    }

    /// A fresh position for a subscription that has been served all there is.
    pub(super) fn refresh(&self, org: &Org, stream: u64) -> u64 {
        let mut state = lock(&self.state);
        let Some(open) = state.streams.get_mut(&stream) else {
            return org.log.newest();
        };
        let cursor = open.subscription.cursor;
        open.subscription.cursor = org.log.refresh(cursor);
        open.subscription.cursor
    }

    /// Notes what the client may still be sent and how much it was.
    pub(super) fn note(&self, stream: u64, credit: usize, sent: u64) {
        if let Some(open) = lock(&self.state).streams.get_mut(&stream) {
            (open.shown.credit, open.shown.sent) = (credit, sent);
        }
    }

    /// Whether the server wants the stream to end.
    pub(super) fn is_dismissed(&self, stream: u64) -> bool {
        let state = lock(&self.state);
        state.streams.get(&stream).is_none_or(|open| open.dismissed)
    }

    /// Ends every stream without an error, as a server that is shut down does.
    pub(crate) fn dismiss(&self) {
        for open in lock(&self.state).streams.values_mut() {
            open.dismissed = true;
        }
    }

    /// Sends the last `count` events that each subscription was sent, or would have been, once more.
    pub(crate) fn repeat(&self, org: &Org, count: usize) -> Result<(), TooOld> {
        let events = org.log.after(org.log.beginning(), usize::MAX)?;
        for open in lock(&self.state).streams.values_mut() {
            open.subscription.repeat(&events, count);
        }
        Ok(())
    }

    /// Puts every subscription back behind this replay id.
    pub(crate) fn rewind(&self, org: &Org, replay_id: u64) -> Result<(), TooOld> {
        org.log.check(replay_id)?;
        for open in lock(&self.state).streams.values_mut() {
            open.subscription.cursor = replay_id;
        }
        Ok(())
    }

    /// How many events an answer has at most.
    pub(crate) fn limit_batch(&self, events: usize) {
        lock(&self.state).batch = events.clamp(1, BATCH);
    }

    /// How long a stream is silent at most.
    pub(crate) fn keep_alive_every(&self, time: Duration) {
        lock(&self.state).keepalive = Some(time);
    }

    /// Undoes [`limit_batch`](Self::limit_batch) and [`keep_alive_every`](Self::keep_alive_every).
    pub(crate) fn relax(&self) {
        let mut state = lock(&self.state);
        (state.batch, state.keepalive) = (BATCH, None);
    }

    /// What a new connection listens to for its end.
    pub(super) fn connection(&self) -> CancellationToken {
        lock(&self.connections).child_token()
    }

    /// Cuts every connection in the middle of whatever it carries.
    pub(crate) fn cut_connections(&self) {
        let mut connections = lock(&self.connections);
        connections.cancel();
        *connections = CancellationToken::new();
    }
}
