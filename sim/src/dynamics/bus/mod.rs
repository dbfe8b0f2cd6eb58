//! The service bus: queues that the event pipeline posts to, served by AMQP 1.0 over TCP, TLS and WebSocket.
//!
//! Sources: <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-protocol-guide> and OASIS AMQP 1.0.

mod amqp;
mod connection;
mod control;
mod formats;
mod link;
mod listen;
mod message;
mod node;
mod queue;
mod request;
mod sas;
mod sasl;
mod session;
mod settings;
mod settlement;
mod socket;

use std::collections::BTreeMap;
use std::sync::Mutex;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{broadcast, watch};

use super::options::SimOptions;
use super::outbox::BusMessage;
use crate::salesforce::lock::lock;
use crate::salesforce::random::Random;
use message::Message;
use node::Node;
use queue::{LockLost, Outcome, Queue, Rules, Taken};
use sas::{Grant, Policy, Refused, Right};
use settings::{Order, Settings};

pub(super) use control::router;
pub(super) use listen::{Served, serve};

/// The namespace: entities, policies and who is connected.
#[derive(Debug)]
pub(crate) struct Bus {
    state: Mutex<State>,
    /// Moves when a message may be had.
    changed: watch::Sender<u64>,
    orders: broadcast::Sender<Order>,
    connected: watch::Sender<usize>,
}

#[derive(Debug)]
struct State {
    /// By the name in lower case.
    queues: BTreeMap<String, Queue>,
    policies: BTreeMap<String, Policy>,
    settings: Settings,
    draws: Random,
    posted: u64,
}

impl Bus {
    /// A namespace with the queues and the key that the options name.
    pub fn new(options: &SimOptions) -> Self {
        let settings = Settings::default();
        let queues = options.bus_queue.iter().map(|name| {
            let queue = Queue::new(name, settings.rules());
            (name.to_ascii_lowercase(), queue)
        });
        let policy = |rights: &[Right]| Policy {
            key: options.bus_key.clone(),
            rights: rights.to_vec(),
        };
        let policies = BTreeMap::from([
            (
                "RootManageSharedAccessKey".to_owned(),
                policy(&[Right::Manage, Right::Send, Right::Listen]),
            ),
            ("listen".to_owned(), policy(&[Right::Listen])),
            ("send".to_owned(), policy(&[Right::Send])),
        ]);
        Self {
            state: Mutex::new(State {
                queues: queues.collect(),
                policies,
                settings,
                draws: Random::new(options.seed, "bus"),
                posted: 0,
            }),
            changed: watch::Sender::new(0),
            orders: broadcast::Sender::new(64),
            connected: watch::Sender::new(0),
        }
    }

    fn settings(&self) -> Settings {
        lock(&self.state).settings
    }

    fn set(&self, settings: Settings) {
        let mut state = lock(&self.state);
        state.settings = settings;
        let rules: Rules = settings.rules();
        state.queues.values_mut().for_each(|queue| queue.set(rules));
    }

    /// Makes a queue; false if it is there.
    fn create(&self, name: &str) -> bool {
        let mut state = lock(&self.state);
        let rules = state.settings.rules();
        let key = name.to_ascii_lowercase();
        if state.queues.contains_key(&key) {
            return false;
        }
        state.queues.insert(key, Queue::new(name, rules));
        true
    }

    /// Puts a message into the queue or the topic's subscriptions that it is meant for. False if there are none.
    pub fn post(&self, posted: &BusMessage) -> bool {
        let body = formats::encode(posted.content_type, &posted.body);
        let entity = posted.entity.to_ascii_lowercase();
        let subscriptions = format!("{entity}/subscriptions/");
        let mut state = lock(&self.state);
        state.posted += 1;
        let id = Message::data(
            body,
            format!("{:032x}", u128::from(state.posted)),
            posted.content_type,
            &posted.properties,
        );
        let mut found = false;
        for (name, queue) in &mut state.queues {
            if *name == entity || name.starts_with(&subscriptions) {
                queue.push(id.clone(), posted.enqueued);
                found = true;
            }
        }
        drop(state);
        self.wake();
        found
    }

    /// Puts a message of a client into a queue.
    fn push(&self, node: &Node, message: Message, now: DateTime<Utc>) -> bool {
        let found = self
            .with(node, |queue, _| queue.push(message, now))
            .is_some();
        self.wake();
        found
    }

    fn wake(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Whether an entity is there.
    fn knows(&self, node: &Node) -> bool {
        self.with(node, |_, _| ()).is_some()
    }

    /// Looks at the queue of a node.
    fn with<T>(&self, node: &Node, look: impl FnOnce(&mut Queue, &mut Random) -> T) -> Option<T> {
        let mut state = lock(&self.state);
        let State { queues, draws, .. } = &mut *state;
        let queue = queues.get_mut(&node.entity().to_ascii_lowercase())?;
        match node.is_dead() {
            true => queue.dead_mut().map(|dead| look(dead, draws)),
            false => Some(look(queue, draws)),
        }
    }

    fn take(&self, node: &Node, settled: bool, now: DateTime<Utc>) -> Option<Taken> {
        self.with(node, |queue, draws| match settled {
            true => queue.remove(now),
            false => queue.take(draws, now),
        })
        .flatten()
    }

    fn settle(
        &self,
        node: &Node,
        token: u128,
        outcome: Outcome,
        now: DateTime<Utc>,
    ) -> Result<(), LockLost> {
        let settled = self.with(node, |queue, _| queue.settle(token, outcome, now));
        self.wake();
        settled.unwrap_or(Err(LockLost))
    }

    fn renew(
        &self,
        node: &Node,
        token: u128,
        now: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, LockLost> {
        self.with(node, |queue, _| queue.renew(token, now))
            .unwrap_or(Err(LockLost))
    }

    /// When a message of a node may be there again by a lock's end.
    fn next_expiry(&self, node: &Node) -> Option<DateTime<Utc>> {
        self.with(node, |queue, _| queue.next_expiry()).flatten()
    }

    /// What a token allows.
    fn verify(&self, token: &str, audience: &str, now: DateTime<Utc>) -> Result<Grant, Refused> {
        sas::verify(token, audience, &lock(&self.state).policies, now)
    }

    /// What a policy's name and key allow, everywhere and without end.
    fn sign_in(&self, name: &str, key: &str) -> Option<Grant> {
        let state = lock(&self.state);
        let policy = state
            .policies
            .get(name)
            .filter(|policy| policy.key == key)?;
        Some(Grant {
            path: String::new(),
            rights: policy.rights.clone(),
            expires: None,
        })
    }

    /// Whether a new connection is to be refused by a script.
    fn refuses_connection(&self) -> bool {
        spend(&mut lock(&self.state).settings.refuse_connections)
    }

    /// Whether a settlement is to be passed over by a script.
    fn loses_settlement(&self) -> bool {
        spend(&mut lock(&self.state).settings.lose_settlements)
    }
}

/// Uses one up, if there is any left.
fn spend(left: &mut u32) -> bool {
    let any = *left > 0;
    *left = left.saturating_sub(1);
    any
}

impl Settings {
    fn rules(self) -> Rules {
        Rules {
            lock: TimeDelta::milliseconds(i64::from(self.lock_ms)),
            most_deliveries: Some(self.most_deliveries),
        }
    }
}

#[cfg(test)]
mod tests;
