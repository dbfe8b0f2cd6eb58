//! A message: its sections as AMQP carries them, and what the broker adds on delivery.

use super::amqp::decode::{Malformed, decode};
use super::amqp::encode::encode;
use super::amqp::value::{Value, field};

const HEADER: u64 = 0x70;
const DELIVERY_ANNOTATIONS: u64 = 0x71;
const MESSAGE_ANNOTATIONS: u64 = 0x72;
const PROPERTIES: u64 = 0x73;
const APPLICATION_PROPERTIES: u64 = 0x74;
const DATA: u64 = 0x75;
const SEQUENCE: u64 = 0x76;
const VALUE: u64 = 0x77;
const FOOTER: u64 = 0x78;

/// A message without what belongs to one delivery.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    /// A list, as AMQP orders its fields: message-id, user-id, to, subject, reply-to, correlation-id, content-type, …
    pub properties: Vec<Value>,
    pub application: Vec<(Value, Value)>,
    /// The body's sections, described.
    pub body: Vec<Value>,
}

/// What the broker says of one delivery.
#[derive(Debug, Clone)]
pub(super) struct Stamps {
    /// Failed deliveries before this one.
    pub failures: u32,
    pub sequence: u64,
    pub enqueued_ms: i64,
    /// The lock's token and end; none if the delivery settles it.
    pub lock: Option<(u128, i64)>,
    /// The queue that it was a dead letter of.
    pub dead_letter_source: Option<String>,
}

impl Message {
    /// A message with one data section.
    pub fn data(
        bytes: Vec<u8>,
        id: String,
        content_type: &str,
        application: &[(String, String)],
    ) -> Self {
        let mut properties = vec![Value::Null; 7];
        properties[0] = Value::Text(id);
        properties[6] = Value::symbol(content_type);
        Self {
            properties,
            application: application
                .iter()
                .map(|(name, value)| (Value::text(name), Value::text(value)))
                .collect(),
            body: vec![described(DATA, Value::Binary(bytes))],
        }
    }

    /// A message with one value.
    pub fn value(body: Value, properties: Vec<Value>, application: Vec<(Value, Value)>) -> Self {
        Self {
            properties,
            application,
            body: vec![described(VALUE, body)],
        }
    }

    /// Reads what a client sent.
    pub fn parse(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let mut message = Self {
            properties: Vec::new(),
            application: Vec::new(),
            body: Vec::new(),
        };
        let mut last = 0;
        while !bytes.is_empty() {
            let section = decode(&mut bytes)?;
            let Some((code, inner)) = section.parts() else {
                return Err(Malformed("a message with a section that has no descriptor"));
            };
            // Several data or sequence sections may follow each other.
            if code < last || code == last && !matches!(code, DATA | SEQUENCE) {
                return Err(Malformed("a message whose sections are out of order"));
            }
            last = code;
            match (code, inner) {
                (HEADER | DELIVERY_ANNOTATIONS | MESSAGE_ANNOTATIONS | FOOTER, _) => {}
                (PROPERTIES, Value::List(fields)) => message.properties.clone_from(fields),
                (APPLICATION_PROPERTIES, Value::Map(entries)) => {
                    message.application.clone_from(entries)
                }
                (DATA | SEQUENCE | VALUE, _) => message.body.push(section.clone()),
                _ => return Err(Malformed("a message with an unknown section")),
            }
        }
        if message.body.is_empty() {
            return Err(Malformed("a message without a body"));
        }
        Ok(message)
    }

    /// The bytes of one delivery.
    pub fn delivery(&self, stamps: &Stamps) -> Vec<u8> {
        let mut out = Vec::new();
        let header = [
            Value::Bool(true),
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Uint(stamps.failures),
        ];
        encode(&described(HEADER, Value::List(header.to_vec())), &mut out);
        if let Some((token, _)) = stamps.lock {
            let annotations = Value::Map(vec![(
                Value::symbol("x-opt-lock-token"),
                Value::Uuid(token),
            )]);
            encode(&described(DELIVERY_ANNOTATIONS, annotations), &mut out);
        }
        let mut annotations = vec![
            (
                Value::symbol("x-opt-sequence-number"),
                Value::Long(stamps.sequence.cast_signed()),
            ),
            (
                Value::symbol("x-opt-enqueued-time"),
                Value::Timestamp(stamps.enqueued_ms),
            ),
        ];
        if let Some((_, until)) = stamps.lock {
            annotations.push((Value::symbol("x-opt-locked-until"), Value::Timestamp(until)));
        }
        if let Some(queue) = &stamps.dead_letter_source {
            annotations.push((Value::symbol("x-opt-deadletter-source"), Value::text(queue)));
        }
        encode(
            &described(MESSAGE_ANNOTATIONS, Value::Map(annotations)),
            &mut out,
        );
        self.bare(&mut out);
        out
    }

    /// The bytes without a header and annotations.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.bare(&mut out);
        out
    }

    fn bare(&self, out: &mut Vec<u8>) {
        if !self.properties.is_empty() {
            encode(
                &described(PROPERTIES, Value::List(self.properties.clone())),
                out,
            );
        }
        if !self.application.is_empty() {
            encode(
                &described(APPLICATION_PROPERTIES, Value::Map(self.application.clone())),
                out,
            );
        }
        self.body.iter().for_each(|section| encode(section, out));
    }

    pub fn message_id(&self) -> &Value {
        field(&self.properties, 0)
    }

    pub fn reply_to(&self) -> Option<&str> {
        field(&self.properties, 4).word()
    }

    pub fn content_type(&self) -> &str {
        field(&self.properties, 6).word().unwrap_or_default()
    }

    /// An application property.
    pub fn property(&self, name: &str) -> Option<&Value> {
        let mut all = self.application.iter();
        all.find(|(key, _)| key.word() == Some(name))
            .map(|(_, value)| value)
    }

    /// Sets an application property.
    pub fn set_property(&mut self, name: &str, value: &str) {
        self.application.retain(|(key, _)| key.word() != Some(name));
        self.application
            .push((Value::text(name), Value::text(value)));
    }

    /// The body's value, if it is one.
    pub fn body_value(&self) -> Option<&Value> {
        match self.body.first()?.parts()? {
            (VALUE, inner) => Some(inner),
            _ => None,
        }
    }

    /// The body's bytes as a text, for showing.
    pub fn shown(&self) -> String {
        let data = self
            .body
            .iter()
            .filter_map(|section| match section.parts() {
                Some((DATA, Value::Binary(bytes))) => Some(bytes.as_slice()),
                _ => None,
            });
        String::from_utf8_lossy(&data.collect::<Vec<_>>().concat()).into_owned()
    }
}

fn described(code: u64, inner: Value) -> Value {
    Value::Described(Box::new(Value::Ulong(code)), Box::new(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_a_message_with_stamps() {
        let claims = [("a".to_owned(), "b".to_owned())];
        let message = Message::data(b"{}".to_vec(), "m1".to_owned(), "application/json", &claims);
        let stamps = Stamps {
            failures: 2,
            sequence: 7,
            enqueued_ms: 1,
            lock: Some((9, 2)),
            dead_letter_source: None,
        };
        let read = Message::parse(&message.delivery(&stamps)).unwrap();
        assert_eq!(read, message);
        assert_eq!(read.shown(), "{}");
        assert_eq!(read.content_type(), "application/json");
        assert_eq!(read.property("a"), Some(&Value::text("b")));
    }

    #[test]
    fn sections_have_an_order_and_a_body() {
        let mut bytes = Vec::new();
        encode(&described(DATA, Value::Binary(vec![1])), &mut bytes);
        assert!(Message::parse(&bytes).is_ok());
        encode(&described(PROPERTIES, Value::List(vec![])), &mut bytes);
        assert!(Message::parse(&bytes).is_err());
        assert!(Message::parse(&[]).is_err());
    }
}
