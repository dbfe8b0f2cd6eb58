//! The state machine under any order of messages.

use std::sync::Arc;

use chrono::TimeDelta;
use proptest::prelude::*;
use serde_json::Map;

use super::super::super::commits::{ChangeEvent, ChangeType};
use super::super::super::options::SimOptions;
use super::super::client::HOLD;
use super::*;

#[derive(Debug, Clone)]
enum Word {
    Message(&'static str, Option<usize>, &'static str),
    Later(i64),
    Event,
    Dismiss,
}

fn words() -> impl Strategy<Value = Vec<Word>> {
    let channel = prop::sample::select(vec![
        HANDSHAKE,
        CONNECT,
        CONNECT,
        SUBSCRIBE,
        UNSUBSCRIBE,
        DISCONNECT,
        "/meta/x",
        "/data/ChangeEvents",
    ]);
    let subscription = prop::sample::select(vec![
        "/data/ChangeEvents",
        "/data/AccountChangeEvent",
        "/no",
    ]);
    let message = (channel, prop::option::of(0_usize..4), subscription)
        .prop_map(|(channel, client, subscription)| Word::Message(channel, client, subscription));
    let word = prop_oneof![
        8 => message,
        1 => (0_i64..60).prop_map(Word::Later),
        2 => Just(Word::Event),
        1 => Just(Word::Dismiss),
    ];
    prop::collection::vec(word, 1..60)
}

fn event() -> ChangeEvent {
    ChangeEvent {
        entity: "Account".into(),
        record_ids: vec!["001000000000001AAA".into()],
        change_type: ChangeType::Delete,
        change_origin: String::new(),
        transaction_key: "k".into(),
        sequence: 1,
        commit_timestamp: DateTime::UNIX_EPOCH,
        commit_number: 1,
        commit_user: String::new(),
        changed: Vec::new(),
        body: Map::new(),
        schema: String::new(),
    }
}

struct Run {
    org: Arc<Org>,
    server: Server,
    now: DateTime<Utc>,
    ids: Vec<String>,
    cookies: Cookies,
    held: Vec<Held>,
}

impl Run {
    fn new() -> Self {
        let org = Org::open(&SimOptions::default()).unwrap();
        org.capture("Account");
        Self {
            now: org.clock.now(),
            org,
            server: Server::new(3, 50, HOLD),
            ids: Vec::new(),
            cookies: Cookies::default(),
            held: Vec::new(),
        }
    }

    fn message(channel: &str, id: Option<String>, subscription: &str) -> Message {
        Message {
            channel: channel.to_owned(),
            id: Some(json!("7")),
            client_id: id,
            version: Some("1.0".to_owned()),
            supported_connection_types: Some(vec![LONG_POLLING.to_owned()]),
            connection_type: Some(LONG_POLLING.to_owned()),
            subscription: Some(subscription.to_owned()),
            ..Message::default()
        }
    }

    fn say(&mut self, message: Message) -> Step {
        let caller = Caller {
            user: Ok(self.org.profile.run_as.clone()),
            cookies: self.cookies.clone(),
            alone: true,
            now: self.now,
        };
        self.server.take(&self.org, message, &caller)
    }

    /// What every answer must be.
    fn check(&mut self, channel: &str, items: &[Item]) -> Result<(), TestCaseError> {
        let replies: Vec<_> = items
            .iter()
            .filter_map(|item| match item {
                Item::Reply(reply) if reply.id.is_some() => Some(reply),
                _ => None,
            })
            .collect();
        prop_assert_eq!(replies.len(), 1, "one reply to one message");
        let reply = &replies[0];
        prop_assert_eq!(&reply.channel, channel);
        prop_assert_eq!(reply.successful, reply.error.is_none());
        if !reply.successful {
            prop_assert_eq!(items.len(), 1, "a failure carries no events");
        }
        if channel == HANDSHAKE && reply.successful {
            prop_assert!(reply.advice.is_none());
        }
        Ok(())
    }

    fn word(&mut self, word: Word) -> Result<(), TestCaseError> {
        match word {
            Word::Later(seconds) => self.now += TimeDelta::seconds(seconds),
            Word::Event => drop(self.org.log.append(vec![event()]).unwrap()),
            Word::Dismiss => {
                for client in self.server.clients.values_mut() {
                    client.dismissed = true;
                }
            }
            Word::Message(channel, client, subscription) => {
                let id = client.map(|place| match self.ids.get(place) {
                    Some(id) => id.clone(),
                    None => "nobody".to_owned(),
                });
                match self.say(Self::message(channel, id, subscription)) {
                    Step::Answer(items) => self.check(channel, &items)?,
                    Step::Welcome(items, cookies) => {
                        self.check(channel, &items)?;
                        self.cookies = cookies;
                        if let Some(Item::Reply(reply)) = items.first() {
                            self.ids.push(reply.client_id.clone().unwrap());
                        }
                    }
                    Step::Hold(held) => {
                        prop_assert_eq!(channel, CONNECT);
                        self.held.push(*held);
                    }
                }
            }
        }
        // As the transport does: whatever happened, the held polls look.
        let user = self.org.profile.run_as.clone();
        for held in std::mem::take(&mut self.held) {
            match self
                .server
                .poll(&self.org, &held, Ok(user.clone()), self.now)
            {
                Some(items) => self.check(CONNECT, &items)?,
                None => self.held.push(held),
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Each message has one reply of its own; at most one poll of a session is held, and only of a living one.
    #[test]
    fn every_message_is_answered_once(words in words()) {
        let mut run = Run::new();
        for word in words {
            run.word(word)?;
            let mut holders: Vec<_> = run.held.iter().map(|held| &held.client).collect();
            holders.sort();
            let count = holders.len();
            holders.dedup();
            prop_assert_eq!(holders.len(), count, "two polls of one session are held");
            for holder in holders {
                prop_assert!(run.server.clients.get(holder).is_some_and(|client| client.held));
            }
            let held = run.server.clients.values().filter(|client| client.held).count();
            prop_assert_eq!(held, count);
        }
        run.now += HOLD;
        run.word(Word::Later(0))?;
        prop_assert!(run.held.is_empty(), "no poll is held past its time");
    }

    #[test]
    fn no_body_is_too_strange(body in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(Message::read(&body));
    }
}
