//! A change event as CometD sends it: header, changed fields, schema id, replay id.
//!
//! Source: Change Data Capture Developer Guide, "Change Event Message Structure" and "Change Event Fields".

use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::super::commits::{ChangeEvent, ChangeType, Committed};
use super::message::Name;

/// How a payload is spoiled, for ever, for every reader of that event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Garble {
    /// The payload is text.
    TextPayload,
    /// The payload has no header.
    NoHeader,
    /// The header lacks its record ids.
    NoRecordIds,
    /// The change type is none that was ever documented.
    ChangeType,
}

/// An event on its way to a subscription.
#[derive(Debug, Clone)]
pub(crate) struct DataMessage {
    pub channel: Name,
    pub client_id: Option<Name>,
    pub schema: Name,
    pub event: Arc<Committed>,
    pub garble: Option<Garble>,
    /// The one of a merged event's records that this message is about; all of them, if absent.
    pub record: Option<usize>,
    /// Unchanged fields that the channel adds.
    pub enriched: Vec<(String, Value)>,
}

impl Serialize for DataMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(client) = &self.client_id {
            map.serialize_entry("clientId", client)?;
        }
        map.serialize_entry("data", &Data(self))?;
        map.serialize_entry("channel", &self.channel)?;
        map.end()
    }
}

struct Data<'a>(&'a DataMessage);

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("schema", &self.0.schema)?;
        if self.0.garble == Some(Garble::TextPayload) {
            map.serialize_entry("payload", "\u{fffd}\u{fffd}")?;
        } else {
            map.serialize_entry("payload", &Payload(self.0))?;
        }
        map.serialize_entry(
            "event",
            &Position {
                replay_id: self.0.event.replay_id,
            },
        )?;
        map.end()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Position {
    replay_id: u64,
}

struct Payload<'a>(&'a DataMessage);

impl Serialize for Payload<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = &self.0.event.event;
        let mut map = serializer.serialize_map(None)?;
        if self.0.garble != Some(Garble::NoHeader) {
            map.serialize_entry("ChangeEventHeader", &Header(self.0))?;
        }
        for (field, value) in &event.body {
            map.serialize_entry(field, value)?;
        }
        for (field, value) in &self.0.enriched {
            if !event.body.contains_key(field) {
                map.serialize_entry(field, value)?;
            }
        }
        map.end()
    }
}

struct Header<'a>(&'a DataMessage);

impl Serialize for Header<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (event, garble) = (&self.0.event.event, self.0.garble);
        let records = match self.0.record {
            Some(record) => event.record_ids.get(record..=record).unwrap_or_default(),
            None => &event.record_ids,
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("entityName", &event.entity)?;
        if garble != Some(Garble::NoRecordIds) {
            map.serialize_entry("recordIds", records)?;
        }
        if garble == Some(Garble::ChangeType) {
            map.serialize_entry("changeType", "TRANSMUTE")?;
        } else {
            map.serialize_entry("changeType", &event.change_type)?;
        }
        let changed: &[String] = match event.change_type {
            ChangeType::Update => &event.changed,
            _ => &[],
        };
        map.serialize_entry("changedFields", changed)?;
        map.serialize_entry("changeOrigin", &event.change_origin)?;
        map.serialize_entry("transactionKey", &event.transaction_key)?;
        map.serialize_entry("sequenceNumber", &event.sequence)?;
        map.serialize_entry(
            "commitTimestamp",
            &event.commit_timestamp.timestamp_millis(),
        )?;
        map.serialize_entry("commitNumber", &event.commit_number)?;
        map.serialize_entry("commitUser", &event.commit_user)?;
        map.end()
    }
}

/// Roughly what an event weighs on the wire, in bytes.
pub(crate) fn weight(event: &ChangeEvent) -> usize {
    fn of(value: &Value) -> usize {
        match value {
            Value::String(text) => text.len() + 2,
            Value::Array(values) => values.iter().map(|value| of(value) + 1).sum(),
            Value::Object(map) => map
                .iter()
                .map(|(name, value)| name.len() + 4 + of(value))
                .sum(),
            _ => 8,
        }
    }
    let names: usize = event.changed.iter().map(|name| name.len() + 3).sum();
    let body: usize = event
        .body
        .iter()
        .map(|(name, value)| name.len() + 4 + of(value))
        .sum();
    600 + names + body + event.record_ids.len() * 21
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::json;

    use super::*;

    fn update() -> Committed {
        Committed {
            replay_id: 4711,
            at: DateTime::UNIX_EPOCH,
            event: ChangeEvent {
                entity: "Account".into(),
                record_ids: vec!["001000000000001AAA".into()],
                change_type: ChangeType::Update,
                change_origin: String::new(),
                transaction_key: "000a".into(),
                sequence: 1,
                commit_timestamp: DateTime::from_timestamp(1_760_000_000, 0).unwrap(),
                commit_number: 9_007_199_254_740_993,
                commit_user: "005000000000001AAA".into(),
                changed: vec!["Industry".into(), "BillingAddress.City".into()],
                schema: String::new(),
                body: json!({"Industry": null, "BillingAddress": {"City": "Bonn"}})
                    .as_object()
                    .cloned()
                    .unwrap(),
            },
        }
    }

    fn shown(event: Committed, garble: Option<Garble>) -> Value {
        let message = DataMessage {
            channel: "/data/ChangeEvents".into(),
            client_id: None,
            schema: "s".into(),
            event: Arc::new(event),
            garble,
            record: None,
            enriched: Vec::new(),
        };
        serde_json::to_value(message).unwrap()
    }

    #[test]
    fn an_update_looks_as_documented() {
        assert_eq!(
            shown(update(), None),
            json!({"channel": "/data/ChangeEvents", "data": {
                "schema": "s",
                "payload": {
                    "ChangeEventHeader": {
                        "entityName": "Account", "recordIds": ["001000000000001AAA"], "changeType": "UPDATE",
                        "changedFields": ["Industry", "BillingAddress.City"], "changeOrigin": "",
                        "transactionKey": "000a", "sequenceNumber": 1, "commitTimestamp": 1_760_000_000_000_u64,
                        "commitNumber": 9_007_199_254_740_993_u64, "commitUser": "005000000000001AAA"},
                    "Industry": null, "BillingAddress": {"City": "Bonn"}},
                "event": {"replayId": 4711}}})
        );
    }

    #[test]
    fn a_spoiled_payload_keeps_its_replay_id() {
        for garble in [
            Garble::TextPayload,
            Garble::NoHeader,
            Garble::NoRecordIds,
            Garble::ChangeType,
        ] {
            let spoiled = shown(update(), Some(garble));
            assert_ne!(spoiled, shown(update(), None));
            assert_eq!(spoiled["data"]["event"]["replayId"], 4711);
        }
    }

    #[test]
    fn the_weight_is_near_the_truth() {
        let event = update();
        let real = shown(event.clone(), None).to_string().len();
        let guess = weight(&event.event);
        assert!(guess >= real && guess < real * 2, "{guess} for {real}");
    }
}
