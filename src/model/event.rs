//! What a CRM says: stream events, and rows of reads with the time they are true of.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::model::name::{FieldName, ObjectName};
use crate::model::position::Position;
use crate::model::record_id::RecordId;
use crate::model::value::Fields;

/// One event of a CRM's change stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The object.
    pub object: ObjectName,
    /// The records; the CRM may merge equal changes to several.
    pub records: Vec<RecordId>,
    /// What happened.
    pub kind: EventKind,
    /// What the event tells: on an update only what changed, null meaning "now empty"; on a create every
    /// non-empty field.
    pub fields: Fields,
    /// Names that changed, components of compound fields by their column names.
    pub changed: Vec<FieldName>,
    /// C: the commit stamp, whole seconds on Salesforce. Where a CRM tells none, an instant of its clock after
    /// the commit: when it had told the change.
    pub committed_at: DateTime<Utc>,
    /// The CRM's transaction.
    pub transaction: Transaction,
    /// Where the stream stands after this event.
    pub position: Position,
}

/// What an event says of its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// Created.
    Create,
    /// Some fields changed.
    Update,
    /// Moved to the bin.
    Delete,
    /// Back from the bin.
    Undelete,
    /// Something changed and the event can't say what (a gap event, a text diff that can't be applied,
    /// an undecodable body with a readable header): the records must be read.
    Gap,
    /// More changed than the stream tells, on records it does not name (overflow, wildcard ids,
    /// an undecodable event): the object must be read. The text is the hole's cause.
    ObjectGap(GapCause),
    /// The whole row as it is now, created or changed: the CRM's change tracking does not say which.
    Row {
        /// The row's place in its record's order.
        version: RowVersion,
        /// When the CRM says it was last changed.
        modified_at: Option<DateTime<Utc>>,
        /// Whether it may be of before the previous question, which may have told that the record died since.
        late: bool,
    },
    /// Deleted some time before `Event::committed_at`; the record may live again since.
    Tombstone {
        /// What was seen of the record from then on may be newer than its death.
        since: DateTime<Utc>,
        /// Whether the same answer has the record's row, too, or may have.
        beside_row: bool,
    },
}

/// A row's place in its record's order, where the CRM numbers rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RowVersion {
    /// How often the org was found restored to an earlier state, which takes its numbers back.
    #[serde(rename = "i")]
    pub incarnation: u32,
    /// The CRM's own number.
    #[serde(rename = "n")]
    pub number: u64,
}

impl EventKind {
    /// Whether it tells the end of its records.
    #[must_use]
    pub const fn is_end(&self) -> bool {
        matches!(self, Self::Delete | Self::Tombstone { .. })
    }
}

impl Event {
    /// The best known time of the change at the source.
    #[must_use]
    pub fn source_time(&self) -> DateTime<Utc> {
        match self.kind {
            EventKind::Row {
                modified_at: Some(at),
                ..
            } => at,
            _ => self.committed_at,
        }
    }
}

/// Why the stream does not name the records of a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapCause {
    /// More than 100,000 changes in one transaction.
    Overflow,
    /// Record ids like `001*`.
    Wildcard,
    /// The event could not be decoded.
    Undecodable,
}

/// The CRM's transaction that an event belongs to. Key, sequence and record tell one event from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Transaction {
    /// The transaction's random key.
    pub key: String,
    /// The event's number within it, with holes.
    pub sequence: i64,
    /// The user who committed.
    pub user: Option<String>,
    /// The API client's tag, if it set one.
    pub client: Option<String>,
}

/// One row of a read.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The record.
    pub record: RecordId,
    /// All selected fields, null where empty.
    pub fields: Fields,
    /// When the CRM says it last changed (SystemModstamp, modifiedon), if the read selected it.
    pub modified_at: Option<DateTime<Utc>>,
    /// Its place in its record's order, where the CRM numbers rows.
    pub version: Option<RowVersion>,
}

/// A part of a read, and what it is true of.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The rows, at most the CRM's page size.
    pub rows: Vec<Row>,
    /// A: the CRM's clock when the query *started*, less `read_lag`. Equal for all pages of one query.
    pub as_of: DateTime<Utc>,
    /// How many rows the whole read has, where the CRM counts them.
    pub total: Option<u64>,
    /// Where a later read can go on after this page; `None` on the last.
    pub resume: Option<String>,
}

/// The answer to a read by id: every asked id is in one of the two lists.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The rows there are.
    pub rows: Vec<Row>,
    /// The ids that are deleted, hidden or never were.
    pub absent: Vec<RecordId>,
    /// A, as in [`Page::as_of`].
    pub as_of: DateTime<Utc>,
}
