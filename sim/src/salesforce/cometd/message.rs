//! Bayeux messages as they travel: what a client sends, what the server answers.
//!
//! Source: the Bayeux protocol 1.0, and the Streaming API Developer Guide for advice, `ext` and error texts.

use std::sync::Arc;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::client::HOLD;
use super::event::DataMessage;

pub(super) const HANDSHAKE: &str = "/meta/handshake";
pub(super) const CONNECT: &str = "/meta/connect";
pub(super) const SUBSCRIBE: &str = "/meta/subscribe";
pub(super) const UNSUBSCRIBE: &str = "/meta/unsubscribe";
pub(super) const DISCONNECT: &str = "/meta/disconnect";
pub(super) const LONG_POLLING: &str = "long-polling";

pub(super) const AUTHENTICATION_INVALID: &str = "401::Authentication invalid";
pub(super) const AUTHENTICATION_REQUIRED: &str = "401::Request requires authentication";
pub(super) const HANDSHAKE_DENIED: &str = "403::Handshake denied";
pub(super) const UNKNOWN_CLIENT: &str = "403::Unknown client";
pub(super) const NOT_HANDSHAKEN: &str = "403::Client has not completed handshake";
pub(super) const TOO_MANY_CLIENTS: &str = "403::Organization concurrent user limit exceeded";
pub(super) const TOO_MANY_EVENTS: &str = "403::Organization total events daily limit exceeded";
pub(super) const TOO_BUSY: &str = "503::Server is too busy. Please try your request again later.";

/// One message of a client. Unknown keys are allowed, as Bayeux lets extensions add them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Message {
    pub channel: String,
    pub id: Option<Value>,
    pub client_id: Option<String>,
    pub version: Option<String>,
    pub supported_connection_types: Option<Vec<String>>,
    pub connection_type: Option<String>,
    pub subscription: Option<String>,
    pub ext: Option<Map<String, Value>>,
    pub advice: Option<Map<String, Value>>,
}

impl Message {
    /// Reads a request body: an array of messages, or one message.
    pub fn read(body: &[u8]) -> Result<Vec<Self>, serde_json::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Body {
            Many(Vec<Message>),
            One(Box<Message>),
        }
        Ok(match serde_json::from_slice(body)? {
            Body::Many(messages) => messages,
            Body::One(message) => vec![*message],
        })
    }

    /// Whether `ext.replay` switches replay on for the session.
    pub fn wants_replay(&self) -> bool {
        self.ext.as_ref().and_then(|ext| ext.get("replay")) == Some(&Value::Bool(true))
    }

    /// The position asked for a channel in `ext.replay`, whatever its type.
    pub fn replay_from(&self, channel: &str) -> Option<&Value> {
        self.ext.as_ref()?.get("replay")?.get(channel)
    }

    /// Whether the client asks for an answer at once.
    pub fn in_no_mood_to_wait(&self) -> bool {
        self.advice
            .as_ref()
            .and_then(|advice| advice.get("timeout"))
            .and_then(Value::as_u64)
            == Some(0)
    }
}

/// The server's answer to one message, or (without `id`) its own word.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reply {
    pub channel: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    pub successful: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supported_connection_types: Option<[&'static str; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ext: Option<Value>,
}

impl Reply {
    /// A success on the message's channel.
    pub fn ok(message: &Message) -> Self {
        Self {
            channel: message.channel.clone(),
            id: message.id.clone(),
            client_id: message.client_id.clone(),
            subscription: message.subscription.clone(),
            successful: true,
            ..Self::default()
        }
    }

    /// A failure, in the form `code::text` or `code:args:text`.
    pub fn refused(message: &Message, error: impl Into<String>) -> Self {
        Self {
            successful: false,
            error: Some(error.into()),
            ..Self::ok(message)
        }
    }

    /// A refused handshake: why is in `ext.sfdc.failureReason`.
    pub fn denied(message: &Message, error: &str, reason: &str) -> Self {
        Self {
            ext: Some(json!({"sfdc": {"failureReason": reason}})),
            ..Self::refused(message, error).advised(Advice::None)
        }
    }

    pub fn advised(self, advice: Advice) -> Self {
        Self {
            advice: Some(advice.json()),
            ..self
        }
    }
}

/// What a client is told to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Advice {
    /// Poll on; given once in a session.
    Retry,
    Handshake,
    /// Give up until something has changed.
    None,
}

impl Advice {
    /// Poll on, and be held for so long.
    pub fn retry(hold: TimeDelta) -> Value {
        json!({"reconnect": "retry", "interval": 0, "timeout": hold.num_milliseconds()})
    }

    fn json(self) -> Value {
        match self {
            Self::Retry => Self::retry(HOLD),
            Self::Handshake => json!({"reconnect": "handshake", "interval": 0}),
            Self::None => json!({"reconnect": "none"}),
        }
    }
}

/// One element of an answer's array.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(super) enum Item {
    Reply(Box<Reply>),
    Data(DataMessage),
}

impl Item {
    pub fn reply(reply: Reply) -> Self {
        Self::Reply(Box::new(reply))
    }

    /// The server ends a session of its own accord (API 64 and later).
    pub fn disconnect(client: &str) -> Self {
        Self::reply(Reply {
            channel: DISCONNECT.to_owned(),
            client_id: Some(client.to_owned()),
            successful: true,
            ..Reply::default()
        })
    }
}

/// A name that many messages share.
pub(super) type Name = Arc<str>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_an_array_or_one_message() {
        let one = Message::read(br#"{"channel":"/meta/connect","id":7,"more":{}}"#).unwrap();
        assert_eq!(one.len(), 1);
        assert_eq!(one[0].id, Some(json!(7)));
        let two = Message::read(br#"[{"channel":"/a"},{"channel":"/b"}]"#).unwrap();
        assert_eq!(two[1].channel, "/b");
        assert!(Message::read(br#"[{"id":"1"}]"#).is_err(), "no channel");
        assert!(Message::read(b"[1]").is_err());
        assert!(Message::read(b"").is_err());
    }

    #[test]
    fn replay_is_on_only_by_true() {
        let read = |ext: Value| Message {
            ext: ext.as_object().cloned(),
            ..Message::default()
        };
        assert!(read(json!({"replay": true})).wants_replay());
        assert!(!read(json!({"replay": "true"})).wants_replay());
        assert!(!read(json!({"replay": {}})).wants_replay());
        assert!(!Message::default().wants_replay());
        let message = read(json!({"replay": {"/data/ChangeEvents": -2}}));
        assert_eq!(message.replay_from("/data/ChangeEvents"), Some(&json!(-2)));
        assert_eq!(message.replay_from("/data/changeevents"), None);
    }

    #[test]
    fn a_reply_leaves_out_what_it_has_not() {
        let message = Message {
            channel: CONNECT.to_owned(),
            client_id: Some("c".into()),
            ..Message::default()
        };
        assert_eq!(
            serde_json::to_value(Reply::ok(&message)).unwrap(),
            json!({"channel": "/meta/connect", "clientId": "c", "successful": true})
        );
        assert_eq!(
            serde_json::to_value(Reply::denied(
                &message,
                HANDSHAKE_DENIED,
                AUTHENTICATION_INVALID
            ))
            .unwrap(),
            json!({"channel": "/meta/connect", "clientId": "c", "successful": false,
                   "error": "403::Handshake denied", "advice": {"reconnect": "none"},
                   "ext": {"sfdc": {"failureReason": "401::Authentication invalid"}}})
        );
    }
}
