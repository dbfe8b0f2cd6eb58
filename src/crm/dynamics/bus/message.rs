//! A message as it was delivered: what it hints at, and the lock that it is under.

use std::time::Duration;

use chrono::{DateTime, Utc};
use fe2o3_amqp::link::delivery::{Delivery, DeliveryInfo};
use fe2o3_amqp::types::messaging::annotations::OwnedKey;
use fe2o3_amqp::types::messaging::{Body, Message};
use fe2o3_amqp::types::primitives::{SimpleValue, Symbol, Uuid, Value};
use tokio::time::Instant;

use crate::crm::dynamics::push::hint::{self, Hint, Refusal};

/// Locks are not renewed more seldom.
const MOST_WAIT: Duration = Duration::from_secs(20);
/// Locks are not renewed more often.
const LEAST_WAIT: Duration = Duration::from_millis(200);

/// A message that is locked for us.
pub(super) struct Held {
    /// Settles it.
    pub info: DeliveryInfo,
    /// Names its lock.
    pub lock: Option<Uuid>,
    /// When its lock is to be renewed.
    pub renew_at: Instant,
    /// And how long after that again.
    pub renew_every: Duration,
}

impl Held {
    /// Reads a delivery: its lock, and its hint or why it is none.
    pub fn read(
        delivery: Delivery<Body<Value>>,
        now: DateTime<Utc>,
    ) -> (Self, Result<Hint, Refusal>) {
        let (info, message) = delivery.into_parts();
        let lock = match annotation(&message, "x-opt-lock-token") {
            Some(Value::Uuid(token)) => Some(token.clone()),
            _ => of_tag(info.delivery_tag()),
        };
        let left = match annotation(&message, "x-opt-locked-until") {
            Some(Value::Timestamp(time)) => DateTime::from_timestamp_millis(time.milliseconds())
                .map(|until| (until - now).to_std().unwrap_or_default()),
            _ => None,
        };
        // Half of what is left, whatever the clocks say.
        let renew_every = left.map_or(MOST_WAIT, |left| (left / 2).clamp(LEAST_WAIT, MOST_WAIT));
        let held = Self {
            info,
            lock,
            renew_at: Instant::now() + renew_every,
            renew_every,
        };
        (held, content(&message))
    }

    /// A delivery of which nothing could be read.
    pub fn unread(info: DeliveryInfo) -> Self {
        Self {
            lock: of_tag(info.delivery_tag()),
            info,
            renew_at: Instant::now() + MOST_WAIT,
            renew_every: MOST_WAIT,
        }
    }
}

fn annotation<'m>(message: &'m Message<Body<Value>>, name: &str) -> Option<&'m Value> {
    let key = OwnedKey::Symbol(Symbol::from(name));
    let sections = [
        message.message_annotations.as_ref().map(|of| &of.0),
        message.delivery_annotations.as_ref().map(|of| &of.0),
    ];
    let mut sections = sections.into_iter().flatten();
    sections.find_map(|section| section.get(&key))
}

fn content(message: &Message<Body<Value>>) -> Result<Hint, Refusal> {
    let content_type = message
        .properties
        .as_ref()
        .and_then(|of| of.content_type.as_ref());
    let is_cut = message
        .application_properties
        .as_ref()
        .is_some_and(|of| of.get("MessageMaxSizeExceeded").is_some_and(is_set));
    let bytes = match &message.body {
        Body::Data(sections) => sections
            .iter()
            .flat_map(|data| data.0.iter().copied())
            .collect(),
        Body::Value(value) => match &value.0 {
            Value::Binary(bytes) => bytes.to_vec(),
            Value::String(text) => text.as_bytes().to_vec(),
            _ => Vec::new(),
        },
        Body::Sequence(_) | Body::Empty => Vec::new(),
    };
    hint::parse(content_type.map(Symbol::as_str), &bytes, is_cut)
}

fn is_set(value: &SimpleValue) -> bool {
    !matches!(value, SimpleValue::Bool(false))
}

/// A delivery tag is the lock's GUID, in the order of bytes that .NET gives it.
fn of_tag(tag: &[u8]) -> Option<Uuid> {
    let mut bytes: [u8; 16] = tag.try_into().ok()?;
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    Some(Uuid::from(bytes))
}
