//! Ways in for the fuzz targets under `fuzz/`: the body of an answer to a poll.

use std::sync::Arc;

use chrono::{DateTime, Utc};

pub use super::super::decode::Objects;
use super::super::describe::Description;
use super::messages::{self, Data};
use super::payload;
use super::reply::Reply;
use crate::model::event::Event;
use crate::model::position::Position;

/// The object of a describe.
///
/// # Errors
/// A JSON error for what is none.
pub fn objects(describe: &[u8]) -> Result<Objects, serde_json::Error> {
    let description = Description::parse(describe)?;
    let mut objects = Objects::default();
    objects.insert(description.schema.name.clone(), Arc::new(description));
    Ok(objects)
}

/// The events of a body, as the stream takes it apart; `None` if it holds no messages.
pub fn events(objects: &Objects, body: &[u8], arrived: DateTime<Utc>) -> Option<Vec<Event>> {
    let position = Position::new("cometd:1");
    let mut events = Vec::new();
    for message in messages::parse(body).ok()? {
        let data = match &message {
            Some(message) if message.channel.starts_with("/meta/") => {
                drop(Reply::of(message, "connect"));
                continue;
            }
            Some(message) => message.data,
            None => None,
        };
        let payload = data.and_then(Data::read).and_then(|data| data.payload);
        let payload = payload.and_then(payload::read);
        events.extend(objects.decode(payload, &position, arrived).events);
    }
    Some(events)
}
