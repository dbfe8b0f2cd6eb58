//! A change event (CDC Developer Guide, "Change Event Message Structure"), whatever its transport: what it says of
//! which records, never less than that something changed.

mod body;
pub mod cell;
mod known;

use std::borrow::Cow;

use chrono::{DateTime, Utc};

use crate::model::event::{Event, EventKind, GapCause, Transaction};
use crate::model::name::ObjectName;
use crate::model::position::Position;
use crate::model::record_id::RecordId;
use crate::model::value::Fields;

pub use body::Unclear;
use body::{Body, Told};
use cell::Cells;
use known::Known;
pub use known::Objects;

/// The id of an overflow event: no record's.
const NO_RECORD: &str = "000000000000000AAA";

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

/// An event as a transport tells it.
#[derive(Debug, Default)]
pub struct Payload<'a> {
    /// Its header.
    pub header: Header<'a>,
    /// Its fields, without the header.
    pub body: Option<Cells<'a>>,
    /// Why it can't be told what changed, though the header can be read.
    pub unclear: Option<Unclear>,
}

/// `ChangeEventHeader`.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Header<'a> {
    /// `entityName`.
    pub entity: Option<Cow<'a, str>>,
    /// `recordIds`.
    pub records: Option<Vec<Cow<'a, str>>>,
    /// `changeType`.
    pub change: Option<Cow<'a, str>>,
    /// `changeOrigin`.
    pub origin: Option<Cow<'a, str>>,
    /// `transactionKey`.
    pub key: Option<Cow<'a, str>>,
    /// `sequenceNumber`.
    pub sequence: Option<i64>,
    /// `commitTimestamp`.
    pub committed_at: Option<DateTime<Utc>>,
    /// `commitUser`.
    pub user: Option<Cow<'a, str>>,
    /// `changedFields`, by name.
    pub changed: Names<'a>,
    /// `nulledFields`, by name.
    pub nulled: Vec<Cow<'a, str>>,
    /// Whether `diffFields` names what is no difference.
    pub differs: bool,
}

/// A list of fields.
#[derive(Debug, Default, Clone, PartialEq)]
pub enum Names<'a> {
    /// There is none.
    #[default]
    Absent,
    /// It can't be read.
    Unreadable,
    /// The fields.
    Listed(Vec<Cow<'a, str>>),
}

/// What is known of an event whatever its body.
struct Head<'a> {
    object: &'a ObjectName,
    committed_at: DateTime<Utc>,
    transaction: Transaction,
    position: Position,
}

impl Objects {
    /// Decodes a payload, `None` if it can't be read at all. `arrived` is an upper bound of the commit, for events
    /// that do not tell theirs.
    #[must_use]
    pub fn decode(
        &self,
        payload: Option<Payload<'_>>,
        position: &Position,
        arrived: DateTime<Utc>,
    ) -> Decoded {
        let Some(payload) = payload else {
            return self.unreadable(position, arrived);
        };
        let Some(entity) = &payload.header.entity else {
            return self.unreadable(position, arrived);
        };
        let Some(known) = self.get(entity) else {
            return Decoded::default();
        };
        let head = Head {
            object: &known.name,
            committed_at: payload.header.committed_at.unwrap_or(arrived),
            transaction: transaction(&payload.header, position),
            position: position.clone(),
        };
        head.decode(payload, known)
    }

    /// An event of no readable entity: any object may have changed.
    fn unreadable(&self, position: &Position, arrived: DateTime<Utc>) -> Decoded {
        tracing::warn!(%position, "event can't be read: every object is read again");
        let events = self.all().map(|known| {
            let head = Head {
                object: &known.name,
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
    fn decode(self, payload: Payload<'_>, known: &Known) -> Decoded {
        let header = &payload.header;
        let change = header.change.as_deref().unwrap_or_default();
        if change == "GAP_OVERFLOW" {
            return self.object_gap(GapCause::Overflow);
        }
        let Some(ids) = header.records.as_ref().filter(|ids| !ids.is_empty()) else {
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
        let cells = payload.body.unwrap_or_default();
        let may_share = is_enriched(&cells, change, &header.changed);
        let body = Body::new(&known.description, &cells);
        let told = match (payload.unclear, change) {
            (_, "DELETE") => Ok((EventKind::Delete, Told::default())),
            (Some(unclear), "CREATE" | "UNDELETE" | "UPDATE") => Err(unclear),
            (None, "CREATE") => body.whole().map(|told| (EventKind::Create, told)),
            (None, "UNDELETE") => body.whole().map(|told| (EventKind::Undelete, told)),
            (None, "UPDATE") => update(body, header).map(|told| (EventKind::Update, told)),
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
                known.derive(&mut event.fields);
                event.changed = event.fields.keys().cloned().collect();
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

fn update(body: Body<'_>, header: &Header<'_>) -> Result<Told, Unclear> {
    if header.differs {
        return Err(Unclear::Diff);
    }
    match &header.changed {
        Names::Listed(names) => body.changed(names, &header.nulled),
        // Events of 2018 have no list: what is there has changed.
        Names::Absent => body.present(&header.nulled),
        Names::Unreadable => Err(Unclear::Names),
    }
}

/// Whether fields are there that did not change: such events may have been split under one replay id.
fn is_enriched(cells: &Cells<'_>, change: &str, changed: &Names<'_>) -> bool {
    let mut names = cells.0.iter().map(|(name, _)| name.as_ref());
    match (change, changed) {
        ("DELETE", _) => names.next().is_some(),
        ("UPDATE", Names::Listed(changed)) => {
            let is_of = |changed: &Cow<'_, str>, name: &str| {
                let rest = changed.strip_prefix(name);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            // Both have the order of the schema, as a rule: one look ahead finds it.
            let mut next = 0;
            names.any(|name| {
                let (before, from) = changed.split_at_checked(next).unwrap_or((&[], changed));
                let ahead = from.iter().position(|changed| is_of(changed, name));
                if let Some(at) = ahead {
                    next = before.len() + at;
                }
                ahead.is_none() && !before.iter().any(|changed| is_of(changed, name))
            })
        }
        _ => false,
    }
}

fn transaction(header: &Header<'_>, position: &Position) -> Transaction {
    let client = header.origin.as_ref().and_then(|origin| {
        let (_, client) = origin.split_once(";client=")?;
        (!client.is_empty()).then(|| client.to_owned())
    });
    let filled = |text: &Option<Cow<'_, str>>| {
        let text = text.as_deref().filter(|text| !text.is_empty());
        text.map(str::to_owned)
    };
    Transaction {
        // Something must tell one event from another.
        key: filled(&header.key).unwrap_or_else(|| position.as_str().to_owned()),
        sequence: header.sequence.unwrap_or(0),
        user: filled(&header.user),
        client,
    }
}

#[cfg(test)]
mod tests;
