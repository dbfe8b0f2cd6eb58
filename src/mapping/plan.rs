//! A job's compiled plan, and the rows it yields for a target to apply.
//!
//! `mapping/` compiles a job of the config into a [`JobPlan`] and turns images into [`MappedRow`]s. It finds
//! nothing by itself: what has to be looked up is carried as [`Reference`]s, which the target resolves
//! inside the transaction that writes the row, so that a destination sees the rows of those before it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, Utc};
use uuid::Uuid;

use crate::model::name::{ConnectionId, FieldName, JobId, ObjectName};
use crate::model::policy::{OnEmptyIdentifier, OnExit, OnMove, OnMultiple, OnNone};
use crate::model::record_id::RecordId;
use crate::model::stored::StoredType;
use crate::model::version::Version;

/// A compiled job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobPlan {
    /// The connection.
    pub connection: ConnectionId,
    /// The job.
    pub job: JobId,
    /// The source object.
    pub source: ObjectName,
    /// Every field that the job's filter, mappings, identifiers and look-ups read.
    pub fields: Vec<FieldName>,
    /// Destinations in config order.
    pub destinations: Vec<Arc<DestinationPlan>>,
}

/// A compiled destination.
#[derive(Debug, Clone, PartialEq)]
pub struct DestinationPlan {
    /// The stored object's table (`company`).
    pub table: String,
    /// Its label (`Company`), for messages.
    pub label: String,
    /// Written columns, in the order of [`MappedRow::cells`].
    pub columns: Vec<PlanColumn>,
    /// Derived columns, in the order of [`MappedRow::references`].
    pub derives: Vec<DerivePlan>,
    /// The columns that match a stored row, ANDed; of `columns` or `derives`.
    pub identifiers: Vec<IdentifierPlan>,
    /// What an identifier without a value means for a record without a crosswalk entry.
    pub on_empty_identifier: OnEmptyIdentifier,
    /// What a delete at the source does to the row.
    pub on_delete: OnExit,
    /// What leaving the filter does to the row.
    pub on_filter_exit: OnExit,
    /// What other identifiers than its row's mean for a record that has one.
    pub on_move: OnMove,
    /// Columns that connections listed before this one map too: they are theirs in a row that a record of theirs holds.
    pub owners: BTreeMap<String, BTreeSet<ConnectionId>>,
    /// Columns that a row which is there gets by full syncs alone (`realtime_fields`); never an identifier.
    pub scheduled: BTreeSet<String>,
    /// Columns that it writes and by which look-ups of any job find its rows: who found one is told when they change.
    pub keys: BTreeSet<String>,
    /// Whether look-ups of any job find its rows: who found one is told when its record lets go of it.
    pub is_looked_up: bool,
}

impl JobPlan {
    /// Whether it writes columns by full syncs alone.
    #[must_use]
    pub fn has_scheduled(&self) -> bool {
        let mut destinations = self.destinations.iter();
        destinations.any(|destination| !destination.scheduled.is_empty())
    }
}

impl DestinationPlan {
    /// The connections whose column it is where they hold the row.
    #[must_use]
    pub fn owners_of(&self, column: &str) -> Vec<&str> {
        let owners = self.owners.get(column).into_iter().flatten();
        owners.map(ConnectionId::as_str).collect()
    }

    /// Takes the scheduled columns out of what is to be written to a row: `values` by `columns`, then by `derives`, and
    /// what the latter mean, which is `absent` from then on.
    pub fn leave_scheduled<V, M>(
        &self,
        values: &mut [Option<V>],
        meanings: &mut [M],
        absent: impl Fn() -> M,
    ) {
        let columns = self.columns.iter().zip(values.iter_mut());
        for (_, value) in columns.filter(|(column, _)| self.scheduled.contains(&column.name)) {
            *value = None;
        }
        let derived = values.iter_mut().skip(self.columns.len()).zip(meanings);
        for (derive, (value, meaning)) in self.derives.iter().zip(derived) {
            if self.scheduled.contains(&derive.column) {
                (*value, *meaning) = (None, absent());
            }
        }
    }
}

/// A column written from the image or a constant.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanColumn {
    /// The column.
    pub name: String,
    /// Its type.
    pub ty: StoredType,
    /// Written on insert only (`when = "insert"`).
    pub insert_only: bool,
    /// A null never overwrites a value (`on_null = "keep"`).
    pub keep_on_null: bool,
}

/// A column filled with the GSID of another stored row.
#[derive(Debug, Clone, PartialEq)]
pub struct DerivePlan {
    /// The column.
    pub column: String,
    /// The table looked up; the destination's own for a self look-up.
    pub table: String,
    /// How the row is found.
    pub by: DeriveBy,
    /// Several rows match.
    pub on_multiple: OnMultiple,
    /// No row matches.
    pub on_none: OnNone,
}

/// How a derived mapping finds its row.
#[derive(Debug, Clone, PartialEq)]
pub enum DeriveBy {
    /// By up to six pairs, all equal; the target's side of each.
    Match(Vec<MatchKey>),
    /// The row that this record has in an earlier destination of the same job (its table).
    Sibling(String),
}

/// The target's side of a match pair.
#[derive(Debug, Clone, PartialEq)]
pub enum MatchKey {
    /// `@id`: the CRM id on this connection, through the crosswalk.
    RecordId,
    /// A column of the looked-up table.
    Column {
        /// The column.
        name: String,
        /// Its type.
        ty: StoredType,
        /// Compared without case (e-mail, user name).
        case_blind: bool,
    },
}

/// One identifier.
#[derive(Debug, Clone, PartialEq)]
pub struct IdentifierPlan {
    /// The column, mapped or derived.
    pub column: String,
    /// Compared without case.
    pub case_blind: bool,
}

/// What one record does to one destination.
#[derive(Debug, Clone, PartialEq)]
pub struct MappedRow {
    /// The record.
    pub record: RecordId,
    /// The change's version: lower than the crosswalk's is skipped, equal is applied (J2).
    pub version: Version,
    /// Where the change lies in the topic (partition, offset), for parked changes and messages.
    pub place: (u32, u64),
    /// The record's newest version up to this one that a full sync told; this one, if that did.
    pub synced: Option<Version>,
    /// Best known time at the source, for `crm_state_at`.
    pub committed_at: Option<DateTime<Utc>>,
    /// Whether the record lives and passes the filters.
    pub life: Life,
    /// A cell per plan column; `None`: the image lacks the field, leave the column as it is.
    pub cells: Vec<Option<Cell>>,
    /// A reference per derived column; `None`: the image lacks a field of it, leave the column as it is.
    pub references: Vec<Option<Reference>>,
}

impl MappedRow {
    /// Whether the scheduled columns of the row that the record has at version `held` stay as they are: that version, or
    /// one before it, wrote what the last full sync told.
    #[must_use]
    pub fn spares_scheduled(&self, held: Version) -> bool {
        self.synced
            .is_none_or(|synced| synced <= held && synced < self.version)
    }
}

/// Whether a record takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It does: upsert.
    Present,
    /// Deleted at the source: `on_delete`.
    Deleted,
    /// It does not pass the filter: `on_filter_exit` if it has a row, else nothing.
    Filtered,
}

/// The record's side of a derived mapping.
#[derive(Debug, Clone, PartialEq)]
pub enum Reference {
    /// An empty field: no reference; the column becomes null, nothing is parked (J5).
    Empty,
    /// A value per match key; for [`MatchKey::RecordId`] the normalised id as text.
    Values(Vec<Cell>),
    /// For [`DeriveBy::Sibling`].
    Sibling,
}

/// A value cast to its column's type. `Null` clears the column.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Empty.
    Null,
    /// Boolean.
    Boolean(bool),
    /// Number, currency, percentage: digits kept, plain decimal notation.
    Number(Box<str>),
    /// Every text-like type.
    Text(Box<str>),
    /// Day.
    Date(NaiveDate),
    /// Instant.
    DateTime(DateTime<Utc>),
    /// A stored row.
    Gsid(Uuid),
}

impl Cell {
    /// The cell as JSON; a number that a JSON reader would round is a text.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Boolean(value) => (*value).into(),
            Self::Number(digits) => number_to_json(digits),
            Self::Text(text) => (&**text).into(),
            Self::Date(date) => date.to_string().into(),
            Self::DateTime(at) => at
                .to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
                .into(),
            Self::Gsid(gsid) => gsid.to_string().into(),
        }
    }
}

fn number_to_json(digits: &str) -> serde_json::Value {
    let exact = serde_json::from_str::<serde_json::Number>(digits)
        .ok()
        .filter(|number| number.to_string() == digits);
    exact.map_or_else(|| digits.into(), serde_json::Value::Number)
}
