//! A change event from a data message (CDC Developer Guide, "Change Event Message Structure"): what it says of
//! which records, never less than that something changed.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::event::{Event, EventKind, GapCause, Transaction};
use crate::model::name::ObjectName;
use crate::model::position::Position;
use crate::model::record_id::RecordId;
use crate::model::schema::FieldKind;
use crate::model::value::Fields;

use super::super::describe::Description;
use super::super::stamp;
use super::body::{Body, Unclear};
use crate::http::raw_row::RawRow;

/// The id of an overflow event: no record's.
const NO_RECORD: &str = "000000000000000AAA";

/// The objects that are listened to.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    known: HashMap<String, (ObjectName, Arc<Description>)>,
}

/// What a data message came to.
#[derive(Debug, Default)]
pub struct Decoded {
    /// The events; none for an object that nobody listens to.
    pub events: Vec<Event>,
    /// Whether the event may share its replay id with the next one.
    pub may_share: bool,
    /// An object whose description is stale now.
    pub stale: Option<ObjectName>,
}

/// What is known of an event whatever its body.
struct Head<'a> {
    object: &'a ObjectName,
    committed_at: DateTime<Utc>,
    transaction: Transaction,
    position: Position,
}

impl Objects {
    /// Adds an object under the name that events give it.
    pub fn insert(&mut self, name: ObjectName, description: Arc<Description>) {
        self.known
            .insert(name.as_str().to_ascii_lowercase(), (name, description));
    }

    fn get(&self, entity: &str) -> Option<&(ObjectName, Arc<Description>)> {
        self.known.get(&entity.to_ascii_lowercase())
    }

    /// Decodes a payload. `arrived` is an upper bound of the commit, for events that do not tell theirs.
    #[must_use]
    pub fn decode(
        &self,
        payload: Option<&RawValue>,
        position: &Position,
        arrived: DateTime<Utc>,
    ) -> Decoded {
        let body = payload.and_then(|json| serde_json::from_str::<RawRow<'_>>(json.get()).ok());
        let header = body
            .as_ref()
            .and_then(|body| body.get("ChangeEventHeader"))
            .and_then(|json| serde_json::from_str::<RawRow<'_>>(json.get()).ok());
        let (Some(body), Some(header)) = (body, header) else {
            return self.unreadable(position, arrived);
        };
        let Some(entity) = text(&header, "entityName") else {
            return self.unreadable(position, arrived);
        };
        let Some((object, description)) = self.get(&entity) else {
            return Decoded::default();
        };
        let head = Head {
            object,
            committed_at: commit_stamp(&header).unwrap_or(arrived),
            transaction: transaction(&header, position),
            position: position.clone(),
        };
        head.decode(&body, &header, description)
    }

    /// An event of no readable entity: any object may have changed.
    fn unreadable(&self, position: &Position, arrived: DateTime<Utc>) -> Decoded {
        tracing::warn!(%position, "event can't be read: every object is read again");
        let events = self.known.values().map(|(object, _)| {
            let head = Head {
                object,
                committed_at: arrived,
                transaction: Transaction {
                    key: position.as_str().to_owned(),
                    sequence: 0,
                    user: None,
                    client: None,
                },
                position: position.clone(),
            };
            head.event(Vec::new(), EventKind::ObjectGap(GapCause::Undecodable))
        });
        Decoded {
            events: events.collect(),
            ..Decoded::default()
        }
    }
}

impl Head<'_> {
    fn decode(self, body: &RawRow<'_>, header: &RawRow<'_>, description: &Description) -> Decoded {
        let change = text(header, "changeType").unwrap_or_default();
        if change == "GAP_OVERFLOW" {
            return self.object_gap(GapCause::Overflow);
        }
        let Some(ids) = texts(header, "recordIds").filter(|ids| !ids.is_empty()) else {
            return self.object_gap(GapCause::Undecodable);
        };
        if ids.iter().any(|id| id.contains('*')) {
            let stale = Some(self.object.clone());
            return Decoded {
                stale,
                ..self.object_gap(GapCause::Wildcard)
            };
        }
        if ids.iter().all(|id| id == NO_RECORD) {
            return self.object_gap(GapCause::Overflow);
        }
        let records: Result<Vec<RecordId>, _> =
            ids.iter().map(|id| RecordId::salesforce(id)).collect();
        let Ok(records) = records else {
            return self.object_gap(GapCause::Undecodable);
        };
        let changed = texts(header, "changedFields");
        let may_share = is_enriched(body, &change, changed.as_deref());
        let told = match change.as_str() {
            "CREATE" => Body::new(description, body)
                .whole()
                .map(|told| (EventKind::Create, told)),
            "UNDELETE" => Body::new(description, body)
                .whole()
                .map(|told| (EventKind::Undelete, told)),
            "UPDATE" => self
                .update(body, header, description, changed)
                .map(|told| (EventKind::Update, told)),
            "DELETE" => Ok((EventKind::Delete, Default::default())),
            // The gaps that name their records, and whatever there may be one day.
            _ => Err(Unclear::Kind),
        };
        let mut events = Vec::new();
        match told {
            Ok((kind, told)) => {
                let composed = told.composed && kind == EventKind::Update;
                let gap = composed.then(|| self.gap_beside(records.clone()));
                let mut event = self.event(records, kind);
                event.fields = told.fields;
                event.changed = told.changed.into_iter().collect();
                events.push(event);
                events.extend(gap);
            }
            Err(unclear) => {
                tracing::debug!(
                    object = %self.object, position = %self.position, reason = %unclear,
                    "event does not tell what changed: its records are read"
                );
                events.push(self.event(records, EventKind::Gap));
            }
        }
        Decoded {
            events,
            may_share,
            stale: None,
        }
    }

    fn update(
        &self,
        body: &RawRow<'_>,
        header: &RawRow<'_>,
        description: &Description,
        changed: Option<Vec<String>>,
    ) -> Result<super::body::Told, Unclear> {
        let emptied = texts(header, "nulledFields").unwrap_or_default();
        if texts(header, "diffFields").is_some_and(|diffs| !diffs.is_empty()) {
            return Err(Unclear::Diff);
        }
        let body = Body::new(description, body);
        match changed {
            Some(names) => body.changed(&names, &emptied),
            // Events of 2018 have no list: what is there has changed.
            None if header.get("changedFields").is_none() => body.present(&emptied),
            None => Err(Unclear::Names),
        }
    }

    /// Text that the CRM puts together from parts changed with them, and no event tells it: the record is read
    /// besides. Told apart from the update by its key, or a restart would take the one for the other.
    fn gap_beside(&self, records: Vec<RecordId>) -> Event {
        let mut gap = self.event_of(records, EventKind::Gap);
        gap.transaction.key.push_str("#composed");
        gap
    }

    fn object_gap(self, cause: GapCause) -> Decoded {
        Decoded {
            events: vec![self.event(Vec::new(), EventKind::ObjectGap(cause))],
            ..Decoded::default()
        }
    }

    fn event(self, records: Vec<RecordId>, kind: EventKind) -> Event {
        self.event_of(records, kind)
    }

    fn event_of(&self, records: Vec<RecordId>, kind: EventKind) -> Event {
        Event {
            object: self.object.clone(),
            records,
            kind,
            fields: Fields::new(),
            changed: Vec::new(),
            committed_at: self.committed_at,
            transaction: self.transaction.clone(),
            position: self.position.clone(),
        }
    }
}

/// Whether fields are there that did not change: such events may have been split under one replay id.
fn is_enriched(body: &RawRow<'_>, change: &str, changed: Option<&[String]>) -> bool {
    let mut names = body
        .0
        .iter()
        .map(|(name, _)| name.as_ref())
        .filter(|name| *name != "ChangeEventHeader");
    match (change, changed) {
        ("DELETE", _) => names.next().is_some(),
        ("UPDATE", Some(changed)) => {
            let roots: BTreeSet<&str> = changed
                .iter()
                .map(|name| name.split('.').next().unwrap_or(name))
                .collect();
            names.any(|name| !roots.contains(name))
        }
        _ => false,
    }
}

fn transaction(header: &RawRow<'_>, position: &Position) -> Transaction {
    let client = text(header, "changeOrigin").and_then(|origin| {
        let (_, client) = origin.split_once(";client=")?;
        (!client.is_empty()).then(|| client.to_owned())
    });
    Transaction {
        // Something must tell one event from another.
        key: text(header, "transactionKey")
            .filter(|key| !key.is_empty())
            .unwrap_or_else(|| position.as_str().to_owned()),
        sequence: number(header, "sequenceNumber").unwrap_or(0),
        user: text(header, "commitUser").filter(|user| !user.is_empty()),
        client,
    }
}

fn commit_stamp(header: &RawRow<'_>) -> Option<DateTime<Utc>> {
    match number(header, "commitTimestamp") {
        Some(millis) => stamp::from_millis(millis),
        None => stamp::instant(&text(header, "commitTimestamp")?),
    }
}

fn text(row: &RawRow<'_>, name: &str) -> Option<String> {
    serde_json::from_str(row.get(name)?.get()).ok()
}

fn texts(row: &RawRow<'_>, name: &str) -> Option<Vec<String>> {
    serde_json::from_str(row.get(name)?.get()).ok()
}

fn number(row: &RawRow<'_>, name: &str) -> Option<i64> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number<'a> {
        Number(i64),
        Text(#[serde(borrow)] Cow<'a, str>),
    }
    match serde_json::from_str(row.get(name)?.get()).ok()? {
        Number::Number(number) => Some(number),
        Number::Text(text) => text.parse().ok(),
    }
}

/// Whether events may carry a field of this kind.
pub(super) const fn is_carried(kind: FieldKind) -> bool {
    kind.is_selectable()
}

#[cfg(test)]
mod tests;
