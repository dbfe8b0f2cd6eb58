//! The streaming surface: Bayeux over HTTP long-polling, with the oddities of Salesforce's CometD.
//!
//! Sources: Streaming API Developer Guide (timers, error codes, replay options), Change Data Capture Developer Guide
//! (channels, events), the Bayeux protocol 1.0.
//!
//! - Events wait in the commit log, not in a session: a subscription is a position. An answer takes events off it, and
//!   there is no acknowledgement: what an answer carried into a broken connection comes again only to a new
//!   subscription with an earlier replay id. A poll that was held, with nothing sent, takes nothing.
//! - A session whose next events were removed from the log (a cut, a reset) is dropped as unknown, never served on
//!   with a hole.
//! - Choices that clients may not depend on (events before or after the acknowledgement, one or two spaces in an error,
//!   `clientId` in a data message) are drawn from the org's seed.

mod allocation;
mod channel;
mod client;
mod delivery;
mod event;
mod http;
mod message;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::post;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;

use super::commits::TooOld;
use super::lock::lock;
use super::org::Org;
use server::Server;

pub(crate) use channel::Channel;
pub use channel::Members;
pub use client::{ClientState, SubscriptionState};
pub(crate) use delivery::{Request, Subscription, take};
pub use event::Garble;
pub(crate) use event::{DataMessage, weight};
pub(crate) use message::Advice;

/// The streaming surface under `/cometd`.
pub(super) fn router(org: &Arc<Org>) -> Router {
    Router::new()
        .route("/cometd", post(http::without_version))
        .route("/cometd/", post(http::without_version))
        .route("/cometd/{version}", post(http::serve))
        .route("/cometd/{version}/", post(http::serve))
        .route("/cometd/{version}/{*suffix}", post(http::serve))
        .with_state(Arc::clone(org))
}

/// What counts against the org's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub clients: u64,
    pub max_clients: u64,
    /// Delivered in the rolling day.
    pub events: u64,
    pub max_events: u64,
}

/// All streaming sessions of an org, and its settings for them.
#[derive(Debug)]
pub struct Streaming {
    server: Mutex<Server>,
    /// Wakes held polls, and whoever waits for a state.
    changed: watch::Sender<u64>,
}

impl Streaming {
    /// `poll` is how long a poll is held, in seconds; 110 if it says nothing.
    pub(crate) fn new(seed: u64, event_limit: usize, poll: Option<u32>) -> Self {
        let hold = poll.map_or(client::HOLD, |seconds| TimeDelta::seconds(seconds.into()));
        Self {
            server: Mutex::new(Server::new(seed, event_limit, hold)),
            changed: watch::Sender::new(0),
        }
    }

    /// The sessions, those included whose time is over and whom nobody has asked for since.
    pub fn clients(&self) -> Vec<ClientState> {
        lock(&self.server)
            .clients
            .values()
            .map(client::Client::shown)
            .collect()
    }

    /// How much of the org's limits is used.
    pub fn usage(&self, now: DateTime<Utc>) -> Usage {
        let mut server = lock(&self.server);
        let (events, max_events) = server.allocation.usage(now);
        let clients = server
            .clients
            .values()
            .filter(|client| !client.is_gone(now));
        Usage {
            clients: clients.count() as u64,
            max_clients: server.max_clients as u64,
            events: events as u64,
            max_events: max_events as u64,
        }
    }

    /// Tells of every step of any session.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Makes held polls look again: at their tokens, or at what changed beside the log.
    pub fn wake(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Ends every session by the server's own `/meta/disconnect`, in the answer of its next poll or the held one.
    pub fn dismiss(&self) {
        self.change(|server| {
            for client in server.clients.values_mut() {
                client.dismissed = true;
            }
        });
    }

    /// Forgets every session: their next message, and held polls, get "unknown client".
    pub fn forget_clients(&self) {
        self.change(|server| server.clients.clear());
    }

    /// Forgets every session's cookie.
    pub fn forget_cookies(&self) {
        self.change(Server::forget_cookies);
    }

    /// Sends the last `count` events that each subscription was sent, or would have been, once more.
    pub fn repeat(&self, org: &Org, count: usize) -> Result<(), TooOld> {
        let events = org.log.after(org.log.beginning(), usize::MAX)?;
        self.change(|server| {
            for client in server.clients.values_mut() {
                for subscription in &mut client.subscriptions {
                    subscription.repeat(&events, count);
                }
            }
        });
        Ok(())
    }

    /// Puts every subscription back behind this replay id.
    pub fn rewind(&self, org: &Org, replay_id: u64) -> Result<(), TooOld> {
        org.log.check(replay_id)?;
        self.change(|server| {
            for client in server.clients.values_mut() {
                for subscription in &mut client.subscriptions {
                    subscription.cursor = replay_id;
                }
            }
        });
        Ok(())
    }

    /// Hides an entity from every user, as a lost permission does: its events are dropped without a word.
    pub fn forbid(&self, entity: &str) {
        self.change(|server| {
            server.forbidden.insert(entity.to_owned());
        });
    }

    /// How many sessions there may be.
    pub fn limit_clients(&self, clients: usize) {
        self.change(|server| server.max_clients = clients);
    }

    /// How many events may be delivered in a rolling day, those already delivered included.
    pub fn limit_events(&self, events: usize) {
        self.change(|server| server.allocation.limit(Some(events)));
    }

    /// Undoes [`forbid`](Self::forbid) and the limits.
    pub fn relax(&self) {
        self.change(Server::relax);
    }

    /// Defines a custom channel, `Name__chn`, or changes its members; open subscriptions keep what they had.
    pub fn define_channel(&self, name: &str, members: Members) {
        self.change(|server| {
            server.channels.insert(name.to_owned(), members);
        });
    }

    /// Takes a custom channel away; open subscriptions keep what they had.
    pub fn drop_channel(&self, name: &str) {
        self.change(|server| {
            server.channels.remove(name);
        });
    }

    /// The custom channels and their members.
    pub fn channels(&self) -> BTreeMap<String, Members> {
        lock(&self.server).channels.clone()
    }

    /// The channel of this name, if there is one.
    pub(crate) fn channel(&self, org: &Org, name: &str) -> Option<Channel> {
        Channel::find(name, org, &lock(&self.server).channels)
    }

    /// Entities that permissions hide from everybody.
    pub(crate) fn forbidden(&self) -> BTreeSet<String> {
        lock(&self.server).forbidden.clone()
    }

    /// Events that may still be delivered in the rolling day.
    pub(crate) fn allowance(&self, now: DateTime<Utc>) -> usize {
        lock(&self.server).allocation.left(now)
    }

    /// Counts events that another surface has delivered.
    pub(crate) fn use_up(&self, events: usize, now: DateTime<Utc>) {
        lock(&self.server).allocation.use_up(events, now);
    }

    fn change<T>(&self, change: impl FnOnce(&mut Server) -> T) -> T {
        let changed = change(&mut lock(&self.server));
        self.wake();
        changed
    }
}
