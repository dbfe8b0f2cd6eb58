//! The Bayeux state machine: one message in, one reply out, or a poll to hold. It never waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::super::org::Org;
use super::super::random::{BASE62, Random};
use super::super::sessions::User;
use super::allocation::Allocation;
use super::channel::{Channel, Members};
use super::client::{Client, Cookies};
use super::delivery::{self, Request, Subscription};
use super::message::{
    AUTHENTICATION_INVALID, AUTHENTICATION_REQUIRED, Advice, CONNECT, DISCONNECT, HANDSHAKE,
    HANDSHAKE_DENIED, Item, LONG_POLLING, Message, NOT_HANDSHAKEN, Reply, SUBSCRIBE,
    TOO_MANY_CLIENTS, TOO_MANY_EVENTS, UNKNOWN_CLIENT, UNSUBSCRIBE,
};

/// Concurrent clients of an Enterprise Edition org.
const MAX_CLIENTS: usize = 1000;
const HEX: &[u8] = b"0123456789abcdef";

/// All sessions, and the org's settings that concern streaming.
#[derive(Debug)]
pub(super) struct Server {
    pub clients: BTreeMap<String, Client>,
    /// Custom channels and the entities they carry.
    pub channels: BTreeMap<String, Members>,
    /// Entities that permissions hide from everybody.
    pub forbidden: BTreeSet<String>,
    pub max_clients: usize,
    pub allocation: Allocation,
    /// How long a poll is held.
    hold: TimeDelta,
    random: Random,
}

/// What the transport knows of a request.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub user: Result<User, NoUser>,
    pub cookies: Cookies,
    /// Whether the message has the request for itself: only then is a poll held.
    pub alone: bool,
    pub now: DateTime<Utc>,
}

/// Why a request has no user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoUser {
    NoToken,
    DeadToken,
}

/// What follows from a message.
#[derive(Debug)]
pub(super) enum Step {
    Answer(Vec<Item>),
    /// A session began: its cookies go with the reply.
    Welcome(Vec<Item>, Cookies),
    Hold(Box<Held>),
}

/// A poll that waits.
#[derive(Debug)]
pub(super) struct Held {
    pub message: Message,
    pub client: String,
    number: u64,
    pub until: DateTime<Utc>,
}

impl Server {
    pub fn new(seed: u64, event_limit: usize, hold: TimeDelta) -> Self {
        Self {
            clients: BTreeMap::new(),
            channels: BTreeMap::new(),
            forbidden: BTreeSet::new(),
            max_clients: MAX_CLIENTS,
            allocation: Allocation::new(event_limit),
            hold,
            random: Random::new(seed, "streaming"),
        }
    }

    /// Default limits, nothing forbidden; sessions and channels stay.
    pub fn relax(&mut self) {
        self.max_clients = MAX_CLIENTS;
        self.allocation.limit(None);
        self.forbidden.clear();
    }

    /// Takes one message.
    pub fn take(&mut self, org: &Org, message: Message, caller: &Caller) -> Step {
        self.clients.retain(|_, client| !client.is_gone(caller.now));
        if message.channel == HANDSHAKE {
            return self.handshake(&message, caller);
        }
        let client = match self.known(&message, caller) {
            Ok(client) => client,
            Err(refusal) => return answer(*refusal),
        };
        match message.channel.as_str() {
            CONNECT => self.connect(org, message, &client, caller),
            SUBSCRIBE => self.subscribe(org, &message, &client, caller),
            UNSUBSCRIBE => answer(self.unsubscribe(&message, &client)),
            DISCONNECT => {
                self.clients.remove(&client);
                answer(Reply::ok(&message))
            }
            meta if meta.starts_with("/meta/") => {
                answer(Reply::refused(&message, "404::Unknown meta channel"))
            }
            // Streaming only listens: there is no publishing.
            _ => answer(Reply::refused(
                &message,
                "403:denied_by_security_policy:publish_denied",
            )),
        }
    }

    fn handshake(&mut self, message: &Message, caller: &Caller) -> Step {
        let denied = |reason| answer(Reply::denied(message, HANDSHAKE_DENIED, reason));
        let user = match &caller.user {
            Ok(user) => user,
            Err(NoUser::NoToken) => return denied(AUTHENTICATION_REQUIRED),
            Err(NoUser::DeadToken) => return denied(AUTHENTICATION_INVALID),
        };
        if message.version.as_deref() != Some("1.0") {
            return answer(
                Reply::refused(message, "400::Unsupported Bayeux version").advised(Advice::None),
            );
        }
        let offered = message
            .supported_connection_types
            .as_deref()
            .unwrap_or_default();
        if !offered.iter().any(|kind| kind == LONG_POLLING) {
            let kind = offered.join(",");
            let error = format!("400::Invalid connection type {kind}");
            return answer(Reply::refused(message, error).advised(Advice::None));
        }
        if self.clients.len() >= self.max_clients {
            return denied(TOO_MANY_CLIENTS);
        }
        let cookies = Cookies {
            // One browser may hold several sessions: its cookie stays.
            browser: Some(match &caller.cookies.browser {
                Some(browser) => browser.clone(),
                None => self.random.text(HEX, 32),
            }),
            balancer: Some(match &caller.cookies.balancer {
                Some(balancer) => balancer.clone(),
                None => self.random.text(HEX, 16),
            }),
        };
        let replay = message.wants_replay();
        let id = self.random.text(BASE62, 28);
        let client = Client::new(
            id.clone(),
            user.id.clone(),
            cookies.clone(),
            replay,
            caller.now,
        );
        let mut reply = Reply::ok(message);
        reply.client_id = Some(id.clone());
        reply.version = Some("1.0");
        reply.minimum_version = Some("1.0");
        reply.supported_connection_types = Some([LONG_POLLING]);
        reply.ext = Some(if replay {
            json!({"replay": true, "payload.format": true})
        } else {
            json!({"payload.format": true})
        });
        self.clients.insert(id, client);
        Step::Welcome(vec![Item::reply(reply)], cookies)
    }

    /// The message's session, if it has one and may use it.
    fn known(&mut self, message: &Message, caller: &Caller) -> Result<String, Box<Reply>> {
        let refused = |error: &str| Box::new(Reply::refused(message, error));
        let Some(id) = &message.client_id else {
            return Err(refused(NOT_HANDSHAKEN));
        };
        let Ok(user) = &caller.user else {
            self.clients.remove(id);
            return Err(Box::new(
                refused(AUTHENTICATION_INVALID).advised(Advice::None),
            ));
        };
        let client = self.clients.get(id).filter(|client| client.user == user.id);
        let Some(client) = client else {
            return Err(Box::new(refused(UNKNOWN_CLIENT).advised(Advice::Handshake)));
        };
        if let Some(cookie) = client.cookies.missing_from(&caller.cookies) {
            return Err(refused(&format!(
                "400::Client {id} has established a session, but no {cookie} cookie present"
            )));
        }
        Ok(id.clone())
    }

    fn connect(&mut self, org: &Org, message: Message, id: &str, caller: &Caller) -> Step {
        let kind = message.connection_type.as_deref().unwrap_or_default();
        if kind != LONG_POLLING {
            let error = format!("400::Invalid connection type {kind}");
            return answer(Reply::refused(&message, error));
        }
        let Some(client) = self.clients.get_mut(id) else {
            return answer(Reply::refused(&message, UNKNOWN_CLIENT).advised(Advice::Handshake));
        };
        client.poll += 1;
        client.held = true;
        let at_once = client.poll == 1 || !caller.alone || message.in_no_mood_to_wait();
        let first = client.poll == 1;
        let held = Held {
            number: client.poll,
            client: id.to_owned(),
            until: if at_once {
                caller.now
            } else {
                caller.now + self.hold
            },
            message,
        };
        match self.poll(org, &held, caller.user.clone(), caller.now) {
            None => Step::Hold(Box::new(held)),
            Some(mut items) => {
                if first {
                    advise(&mut items, self.hold);
                }
                Step::Answer(items)
            }
        }
    }

    /// What a held poll is answered at this moment; `None` lets it wait.
    pub fn poll(
        &mut self,
        org: &Org,
        held: &Held,
        user: Result<User, NoUser>,
        now: DateTime<Utc>,
    ) -> Option<Vec<Item>> {
        let message = &held.message;
        let Some(client) = self.clients.get_mut(&held.client) else {
            let reply = Reply::refused(message, UNKNOWN_CLIENT).advised(Advice::Handshake);
            return Some(vec![Item::reply(reply)]);
        };
        if client.poll != held.number {
            // A newer poll has taken the session's place.
            return Some(vec![Item::reply(Reply::ok(message))]);
        }
        let Ok(user) = user else {
            self.clients.remove(&held.client);
            let reply = Reply::refused(message, AUTHENTICATION_INVALID).advised(Advice::None);
            return Some(vec![Item::reply(reply)]);
        };
        if client.dismissed {
            self.clients.remove(&held.client);
            return Some(vec![
                Item::disconnect(&held.client),
                Item::reply(Reply::ok(message).advised(Advice::None)),
            ]);
        }
        if self.allocation.left(now) == 0 {
            client.answered(now);
            return Some(vec![Item::reply(Reply::refused(message, TOO_MANY_EVENTS))]);
        }
        let Some(data) = self.data(org, &held.client, &user, now) else {
            // Events are gone that were not sent yet: the client must ask for them by id, and be told.
            self.clients.remove(&held.client);
            let reply = Reply::refused(message, UNKNOWN_CLIENT).advised(Advice::Handshake);
            return Some(vec![Item::reply(reply)]);
        };
        if data.is_empty() && now < held.until {
            return None;
        }
        if let Some(client) = self.clients.get_mut(&held.client) {
            client.answered(now);
        }
        Some(self.beside(Reply::ok(message), data))
    }

    /// The next events for a client, counted; `None` if it has lost some.
    fn data(&mut self, org: &Org, id: &str, user: &User, now: DateTime<Utc>) -> Option<Vec<Item>> {
        let named = self.random.next().is_multiple_of(2);
        let client = self.clients.get_mut(id)?;
        let request = Request {
            org,
            client_id: named.then(|| client.id.clone()),
            view_all_data: user.view_all_data,
            forbidden: &self.forbidden,
            allowance: self.allocation.left(now),
        };
        let data = delivery::take(&mut client.subscriptions, &request).ok()?;
        self.allocation.use_up(data.len(), now);
        org.counters.deliver(data.len() as u64);
        Some(data.into_iter().map(Item::Data).collect())
    }

    /// Events before or after the reply, as it comes; their own order is kept.
    fn beside(&mut self, reply: Reply, mut data: Vec<Item>) -> Vec<Item> {
        let place = if self.random.next().is_multiple_of(2) {
            0
        } else {
            data.len()
        };
        data.insert(place, Item::reply(reply));
        data
    }

    fn subscribe(&mut self, org: &Org, message: &Message, id: &str, caller: &Caller) -> Step {
        match self.subscribed(org, message, id, caller) {
            Err(error) => answer(Reply::refused(message, error)),
            Ok(user) => {
                // Now and then what is there already rides in this answer.
                let now_and_then = self.random.next().is_multiple_of(8);
                let data = if now_and_then {
                    self.data(org, id, &user, caller.now)
                } else {
                    None
                };
                Step::Answer(self.beside(Reply::ok(message), data.unwrap_or_default()))
            }
        }
    }

    fn subscribed(
        &mut self,
        org: &Org,
        message: &Message,
        id: &str,
        caller: &Caller,
    ) -> Result<User, String> {
        let Some(name) = &message.subscription else {
            return Err("403::Subscription missing".to_owned());
        };
        let user = caller
            .user
            .clone()
            .map_err(|_| AUTHENTICATION_INVALID.to_owned())?;
        if self.allocation.left(caller.now) == 0 {
            return Err(TOO_MANY_EVENTS.to_owned());
        }
        let channel = Channel::open(name, org, &user, &self.channels, &self.forbidden)?;
        let two_spaces = self.random.next().is_multiple_of(2);
        let client = self
            .clients
            .get_mut(id)
            .ok_or_else(|| UNKNOWN_CLIENT.to_owned())?;
        let from = message.replay_from(name).filter(|_| client.replay);
        let cursor = position(org, from).ok_or_else(|| replay_refused(from, two_spaces))?;
        let subscription = Subscription {
            name: name.as_str().into(),
            channel,
            cursor,
            again: VecDeque::new(),
        };
        match client.subscription(name) {
            Some(old) => *old = subscription,
            None => client.subscriptions.push(subscription),
        }
        Ok(user)
    }

    fn unsubscribe(&mut self, message: &Message, id: &str) -> Reply {
        let Some(name) = &message.subscription else {
            return Reply::refused(message, "403::Subscription missing");
        };
        if let Some(client) = self.clients.get_mut(id) {
            client
                .subscriptions
                .retain(|subscription| *subscription.name != **name);
        }
        Reply::ok(message)
    }

    /// A held poll's connection is gone: nothing was taken for it.
    pub fn let_go(&mut self, held: &Held, now: DateTime<Utc>) {
        if let Some(client) = self.clients.get_mut(&held.client)
            && client.poll == held.number
            && client.held
        {
            client.answered(now);
        }
    }

    /// New cookies that nobody was told of.
    pub fn forget_cookies(&mut self) {
        for client in self.clients.values_mut() {
            client.cookies.browser = Some(self.random.text(HEX, 32));
        }
    }
}

fn answer(reply: Reply) -> Step {
    Step::Answer(vec![Item::reply(reply)])
}

/// The first poll of a session is told how to go on.
fn advise(items: &mut [Item], hold: TimeDelta) {
    for item in items {
        if let Item::Reply(reply) = item
            && reply.channel == CONNECT
            && reply.successful
            && reply.advice.is_none()
        {
            reply.advice = Some(Advice::retry(hold));
        }
    }
}

/// The place in the log that a subscription begins after.
fn position(org: &Org, from: Option<&Value>) -> Option<u64> {
    let Some(from) = from else {
        return Some(org.log.newest());
    };
    match from.as_i64()? {
        -1 => Some(org.log.newest()),
        -2 => Some(org.log.beginning()),
        id => {
            let id = u64::try_from(id).ok()?;
            org.log.check(id).ok().map(|()| id)
        }
    }
}

fn replay_refused(from: Option<&Value>, two_spaces: bool) -> String {
    let from = match from {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let gap = if two_spaces { "  " } else { " " };
    format!(
        "400::The replayId {{{from}}} you provided was invalid.{gap}Please provide a valid ID, -2 to replay all \
         events, or -1 to replay only new events."
    )
}

#[cfg(test)]
mod tests;
