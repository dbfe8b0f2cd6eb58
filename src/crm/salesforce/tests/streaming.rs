//! A small Bayeux server that behaves as Salesforce's: cookies, held polls, replay, and faults on demand.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::sync::Notify;

use crate::http::tests::server::{Reply, Seen};

use super::org::{Inner, Org, below, describe};
use super::*;

/// The server and the org around it.
pub struct Streaming {
    pub org: Org,
    pub bayeux: Arc<Bayeux>,
}

#[derive(Default)]
pub struct Bayeux {
    pub state: Mutex<State>,
    changed: Notify,
    inner: OnceLock<Arc<Inner>>,
}

pub struct State {
    clients: BTreeMap<String, Client>,
    handshakes: usize,
    /// Replay id and data of what was published.
    events: Vec<(i64, Json)>,
    /// Positions before this are refused.
    pub oldest: i64,
    /// What was asked: `handshake`, `connect`, `subscribe <replay>`, `disconnect`.
    pub log: Vec<String>,
    /// How long polls are held, and said to be.
    pub held: Duration,
    pub said: Duration,
    /// Whole answers in place of the next on a channel.
    pub instead: VecDeque<(&'static str, Reply)>,
    /// Every client is forgotten as soon as it subscribed.
    pub forgetful: bool,
    /// The handshake offers replay.
    pub replays: bool,
    /// Data of these channels comes in the answer to the subscription, before its ack.
    pub early: bool,
    /// The cookie's value; those who were given another are refused.
    pub cookie: usize,
    /// The server closes the session at the next poll.
    pub closing: bool,
}

#[derive(Default)]
struct Client {
    connects: usize,
    /// Delivered up to here, if subscribed.
    cursor: Option<i64>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            clients: BTreeMap::new(),
            handshakes: 0,
            events: Vec::new(),
            oldest: 0,
            log: Vec::new(),
            held: Duration::from_secs(10),
            said: Duration::from_secs(10),
            instead: VecDeque::new(),
            forgetful: false,
            replays: true,
            early: false,
            cookie: 1,
            closing: false,
        }
    }
}

impl Streaming {
    pub async fn start() -> Self {
        let bayeux = Arc::new(Bayeux::default());
        let shared = Arc::clone(&bayeux);
        let org = Org::start(move |seen: Seen| {
            let bayeux = Arc::clone(&shared);
            async move {
                if seen.path == "/cometd/66.0/" {
                    return bayeux.answer(seen).await;
                }
                let object = below(&seen)
                    .split('/')
                    .nth(2)
                    .unwrap_or_default()
                    .to_owned();
                describe(
                    &object,
                    &[
                        ("Id", "id"),
                        ("Name", "string"),
                        ("SystemModstamp", "datetime"),
                    ],
                )
            }
        })
        .await;
        bayeux.inner.set(Arc::clone(&org.inner)).ok();
        Self { org, bayeux }
    }

    /// Commits an update of an account; its replay id.
    pub fn commit(&self, number: usize, name: &str) -> i64 {
        self.publish(&json!({
            "ChangeEventHeader": {
                "entityName": "Account", "recordIds": [id(number)], "changeType": "UPDATE", "changedFields": ["Name"],
                "changeOrigin": "", "transactionKey": format!("t-{name}"), "sequenceNumber": 1,
                "commitTimestamp": 1_760_000_000_000_i64, "commitUser": USER
            },
            "Name": name
        }))
    }

    /// Publishes a payload; its replay id.
    pub fn publish(&self, payload: &Json) -> i64 {
        let mut state = self.bayeux.state.lock().unwrap();
        // Ids have gaps.
        let replay = state.events.last().map_or(100, |(last, _)| last + 3);
        let data = json!({"schema": "x", "payload": payload, "event": {"replayId": replay}});
        state.events.push((replay, data));
        drop(state);
        self.bayeux.changed.notify_waiters();
        replay
    }

    /// Changes the server, and wakes the polls that it holds.
    pub fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.bayeux.state.lock().unwrap());
        self.bayeux.changed.notify_waiters();
    }

    pub fn forget_clients(&self) {
        self.change(|state| state.clients.clear());
    }

    pub fn log(&self) -> Vec<String> {
        self.bayeux.state.lock().unwrap().log.clone()
    }

    pub fn logged(&self, what: &str) -> usize {
        self.log()
            .iter()
            .filter(|entry| entry.starts_with(what))
            .count()
    }

    pub fn clients(&self) -> usize {
        self.bayeux.state.lock().unwrap().clients.len()
    }
}

/// A refusal on a channel.
pub fn refusal(channel: &str, error: &str, more: &Json) -> Json {
    let mut message = json!({"channel": channel, "id": "1", "successful": false, "error": error});
    for (name, value) in more.as_object().unwrap() {
        message[name] = value.clone();
    }
    message
}

impl Bayeux {
    async fn answer(&self, seen: Seen) -> Reply {
        let message = seen.json()[0].clone();
        let channel = message["channel"].as_str().unwrap().to_owned();
        {
            let mut state = self.state.lock().unwrap();
            let what = channel.trim_start_matches("/meta/");
            let replay = message["ext"]["replay"]
                .as_object()
                .and_then(|replay| replay.values().next());
            state.log.push(match replay {
                Some(replay) if what == "subscribe" => format!("{what} {replay}"),
                _ => what.to_owned(),
            });
            if let Some(at) = state
                .instead
                .iter()
                .position(|(on, _)| channel.ends_with(on))
            {
                return state.instead.remove(at).unwrap().1;
            }
        }
        assert_eq!(seen.header("content-type"), "application/json");
        if !self.inner.get().unwrap().is_live(&seen) {
            let none = json!({"advice": {"reconnect": "none", "interval": 0}});
            let denied = json!({
                "advice": {"reconnect": "none"}, "ext": {"sfdc": {"failureReason": "401::Authentication invalid"}}
            });
            return Reply::json(&json!([match channel.as_str() {
                "/meta/handshake" => refusal(&channel, "403::Handshake denied", &denied),
                _ => refusal(&channel, "401::Authentication invalid", &none),
            }]));
        }
        if channel == "/meta/handshake" {
            return self.handshake();
        }
        let client = message["clientId"].as_str().unwrap_or_default().to_owned();
        if let Some(refused) = self.stranger(&seen, &channel, &client) {
            return Reply::json(&json!([refused]));
        }
        match channel.as_str() {
            "/meta/connect" => self.connect(&client).await,
            "/meta/subscribe" => self.subscribe(&client, &message),
            "/meta/disconnect" => {
                self.state.lock().unwrap().clients.remove(&client);
                Reply::json(&json!([{"channel": channel, "successful": true}]))
            }
            other => panic!("nobody asks on {other}"),
        }
    }

    fn handshake(&self) -> Reply {
        let mut state = self.state.lock().unwrap();
        state.handshakes += 1;
        let id = format!("client{}", state.handshakes);
        state.clients.insert(id.clone(), Client::default());
        let ext = if state.replays {
            json!({"replay": true})
        } else {
            json!({})
        };
        let answer = json!([{
            "id": "1", "channel": "/meta/handshake", "successful": true, "clientId": id, "version": "1.0",
            "minimumVersion": "1.0", "supportedConnectionTypes": ["long-polling"], "ext": ext
        }]);
        Reply::json(&answer).with(
            "set-cookie",
            format!("BAYEUX={}; Path=/; HttpOnly", state.cookie),
        )
    }

    fn stranger(&self, seen: &Seen, channel: &str, client: &str) -> Option<Json> {
        let state = self.state.lock().unwrap();
        if !state.clients.contains_key(client) {
            let advice = json!({"advice": {"interval": 0, "reconnect": "handshake"}});
            return Some(refusal(channel, "403::Unknown client", &advice));
        }
        if seen.header("cookie") != format!("BAYEUX={}", state.cookie) {
            let text = format!(
                "400::Client {client} has established a session, but no BAYEUX cookie present"
            );
            return Some(refusal(channel, &text, &json!({})));
        }
        None
    }

    fn subscribe(&self, client: &str, message: &Json) -> Reply {
        let mut state = self.state.lock().unwrap();
        let channel = message["subscription"].as_str().unwrap().to_owned();
        let asked = message["ext"]["replay"][&channel].as_i64().unwrap();
        let newest = state.events.last().map_or(0, |(last, _)| *last);
        let cursor = match asked {
            -1 => newest,
            -2 => 0,
            id if id < state.oldest => {
                let text = format!(
                    "400::The replayId {{{id}}} you provided was invalid.  Please provide a valid ID, -2 to replay all \
                     events, or -1 to replay only new events."
                );
                let refused = json!({"subscription": channel});
                return Reply::json(&json!([refusal("/meta/subscribe", &text, &refused)]));
            }
            id => id,
        };
        let ack = json!({
            "channel": "/meta/subscribe", "id": message["id"], "clientId": client, "subscription": channel, "successful": true
        });
        state.clients.get_mut(client).unwrap().cursor = Some(cursor);
        let mut answer = if state.early {
            state.due(client)
        } else {
            Vec::new()
        };
        answer.push(ack);
        if state.forgetful {
            state.clients.remove(client);
        }
        Reply::json(&json!(answer))
    }

    async fn connect(&self, client: &str) -> Reply {
        let deadline = tokio::time::Instant::now() + self.state.lock().unwrap().held;
        let first = {
            let mut state = self.state.lock().unwrap();
            let connects = &mut state.clients.get_mut(client).unwrap().connects;
            *connects += 1;
            *connects == 1
        };
        loop {
            let mut woken = std::pin::pin!(self.changed.notified());
            woken.as_mut().enable();
            if let Some(answer) = self.poll(client, first) {
                return Reply::json(&answer);
            }
            if tokio::time::timeout_at(deadline, woken).await.is_err() {
                return Reply::json(&json!([{"channel": "/meta/connect", "successful": true}]));
            }
        }
    }

    fn poll(&self, client: &str, first: bool) -> Option<Json> {
        let mut state = self.state.lock().unwrap();
        if state.closing {
            state.closing = false;
            state.clients.remove(client);
            let bye = json!({"channel": "/meta/disconnect", "clientId": client});
            return Some(json!([bye, {"channel": "/meta/connect", "successful": true}]));
        }
        if !state.clients.contains_key(client) {
            let advice = json!({"advice": {"interval": 0, "reconnect": "handshake"}});
            return Some(json!([refusal(
                "/meta/connect",
                "403::Unknown client",
                &advice
            )]));
        }
        let mut messages = state.due(client);
        if messages.is_empty() && !first {
            return None;
        }
        let mut ack = json!({"channel": "/meta/connect", "clientId": client, "successful": true});
        if first {
            let said = u64::try_from(state.said.as_millis()).unwrap();
            ack["advice"] = json!({"reconnect": "retry", "interval": 0, "timeout": said});
        }
        // The ack comes first or last.
        if state.events.len().is_multiple_of(2) {
            messages.push(ack);
        } else {
            messages.insert(0, ack);
        }
        Some(json!(messages))
    }
}

impl State {
    /// What a client has not been told, at most two at a time; told from here on.
    fn due(&mut self, client: &str) -> Vec<Json> {
        let events = &self.events;
        let Some(Client {
            cursor: Some(cursor),
            ..
        }) = self.clients.get_mut(client)
        else {
            return Vec::new();
        };
        let due: Vec<_> = events
            .iter()
            .filter(|(replay, _)| replay > cursor)
            .take(2)
            .collect();
        if let Some((last, _)) = due.last() {
            *cursor = *last;
        }
        due.into_iter()
            .map(|(_, data)| json!({"channel": "/data/ChangeEvents", "data": data}))
            .collect()
    }
}
