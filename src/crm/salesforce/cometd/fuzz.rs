//! Ways in for the fuzz targets: the body of an answer.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use super::super::decode::Objects;
use super::messages::{self, Data};
use super::payload;
use super::reply::Reply;
use crate::model::position::Position;

/// How many events the data messages of a body come to.
pub fn events(objects: &Objects, body: &[u8], arrived: DateTime<Utc>) -> Option<usize> {
    let position = Position::new("cometd:1");
    let mut events = 0;
    for message in messages::parse(body).ok()?.into_iter().flatten() {
        Reply::of(&message, "connect");
        let data = message.data.map(RawValue::get);
        let data: Option<Data<'_>> = data.and_then(|data| serde_json::from_str(data).ok());
        let payload = data.and_then(|data| data.payload).and_then(payload::read);
        events += objects.decode(payload, &position, arrived).events.len();
    }
    Some(events)
}
