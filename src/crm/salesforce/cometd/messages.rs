//! Bayeux messages as Salesforce sends them (Streaming API Developer Guide; CometD, "The Bayeux Protocol").

use serde::Deserialize;
use serde_json::value::RawValue;

/// A message of an answer. Unknown fields are passed over; `clientId` may be missing on data.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message<'a> {
    /// Its channel.
    pub channel: String,
    /// The client, on a handshake's answer.
    pub client_id: Option<String>,
    /// Whether a request was granted; absent on data.
    pub successful: Option<bool>,
    /// The channel that was subscribed to.
    pub subscription: Option<String>,
    /// Why it was not granted: `code:args:text`.
    pub error: Option<String>,
    /// How to go on.
    pub advice: Option<Advice>,
    /// Extensions.
    #[serde(default)]
    pub ext: Ext,
    /// The body of a data message.
    #[serde(borrow)]
    pub data: Option<&'a RawValue>,
}

/// How the server wants the client to go on. Each answer may tell only a part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Advice {
    /// `retry`, `handshake` or `none`.
    pub reconnect: Option<String>,
    /// Milliseconds to wait before the next connect.
    pub interval: Option<u64>,
    /// Milliseconds that a connect is held.
    pub timeout: Option<u64>,
}

/// Extensions: replay, and the reason of a failure.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Ext {
    /// `true` on a handshake's answer if positions can be replayed.
    pub replay: Option<serde_json::Value>,
    /// Salesforce's own.
    pub sfdc: Option<Sfdc>,
}

/// Salesforce's own extension.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Sfdc {
    /// The reason of a failure, in the form of an error; it tells more than the error.
    pub failure_reason: Option<String>,
}

/// The body of a data message.
#[derive(Debug, Deserialize)]
pub struct Data<'a> {
    /// The change event.
    #[serde(borrow)]
    pub payload: Option<&'a RawValue>,
    /// Its place.
    #[serde(borrow)]
    pub event: Option<EventPlace<'a>>,
}

impl<'a> Data<'a> {
    /// Reads the body of a data message; `None` if it is none.
    #[must_use]
    pub fn read(json: &'a RawValue) -> Option<Self> {
        object(json)
    }
}

/// A data message's place in the stream.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventPlace<'a> {
    /// Opaque; a number on the wire, kept in its own digits.
    #[serde(borrow)]
    pub replay_id: Option<&'a RawValue>,
}

impl Message<'_> {
    /// The reason of a failure.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.ext.sfdc.as_ref()?.failure_reason.as_deref()
    }

    /// Whether it answers a request on `channel`.
    #[must_use]
    pub fn answers(&self, channel: &str) -> bool {
        self.channel == channel && self.successful.is_some()
    }

    /// Whether the server says that positions can be replayed.
    #[must_use]
    pub fn can_replay(&self) -> bool {
        self.ext.replay == Some(serde_json::Value::Bool(true))
    }
}

/// The messages of a body: an array, or one alone. `None` in place of one that can't be read.
///
/// # Errors
/// A JSON error if it is neither.
pub fn parse(body: &[u8]) -> Result<Vec<Option<Message<'_>>>, serde_json::Error> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'{') {
        return serde_json::from_slice(body).map(|message| vec![Some(message)]);
    }
    let raw: Vec<&RawValue> = serde_json::from_slice(body)?;
    Ok(raw.into_iter().map(object).collect())
}

/// A JSON object; an array of the same values in order is none.
fn object<'a, T: Deserialize<'a>>(json: &'a RawValue) -> Option<T> {
    let is_object = json.get().starts_with('{');
    is_object.then(|| serde_json::from_str(json.get()).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_guide_shows() {
        let body = br#"[{"id":"1","channel":"/meta/handshake","successful":true,"clientId":"3ll1","version":"1.0",
            "minimumVersion":"1.0","supportedConnectionTypes":["long-polling"],"ext":{"replay":true,"payload.format":true}},
            {"advice":{"reconnect":"none"},"channel":"/meta/handshake","ext":{"sfdc":{"failureReason":"401::Authentication invalid"}},
             "error":"403::Handshake denied","successful":false},
            {"channel":7},
            {"data":{"schema":"x","payload":{"A":1},"event":{"replayId":4711}},"channel":"/data/ChangeEvents"}]"#;
        let messages = parse(body).unwrap();
        assert_eq!(messages.len(), 4);
        let handshake = messages[0].as_ref().unwrap();
        assert!(handshake.can_replay() && handshake.answers("/meta/handshake"));
        assert_eq!(handshake.client_id.as_deref(), Some("3ll1"));
        let denied = messages[1].as_ref().unwrap();
        assert_eq!(denied.reason(), Some("401::Authentication invalid"));
        assert!(messages[2].is_none());
        let data: Data<'_> =
            serde_json::from_str(messages[3].as_ref().unwrap().data.unwrap().get()).unwrap();
        assert_eq!(data.payload.unwrap().get(), r#"{"A":1}"#);
        assert_eq!(data.event.unwrap().replay_id.unwrap().get(), "4711");
    }

    #[test]
    fn one_alone_and_none_at_all() {
        assert_eq!(parse(br#" {"channel":"/meta/connect"}"#).unwrap().len(), 1);
        assert_eq!(parse(b"[]").unwrap().len(), 0);
        assert!(parse(br#"[["/meta/connect"]]"#).unwrap()[0].is_none());
        assert!(parse(b"<html>").is_err());
        assert!(parse(br#"[{"channel":"/me"#).is_err());
    }
}
