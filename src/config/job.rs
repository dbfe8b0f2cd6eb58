//! A job as its file says it: source object, filter, destinations with their mappings.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::config::notify::Wish;
use crate::config::problem::{Located, Spot};
use crate::config::schedule::Schedule;
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::model::policy::{
    OnEmptyIdentifier, OnExit, OnLostField, OnMove, OnMultiple, OnNone, Refresh,
};
use crate::model::value::{Fields, Value};

mod avatar;
mod derive;
mod destination;
mod map;
pub(super) mod read;
mod trial;

/// A job. What its texts mean (paths, filters, columns) is checked by `mapping/`, which compiles it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobConfig {
    /// The connection.
    pub connection: ConnectionId,
    /// The job's id: its file's stem.
    pub id: JobId,
    /// Where the job stands.
    pub spot: Spot,
    /// Its name on pages; the id unless set.
    pub name: String,
    /// `source`: the CRM object.
    pub source: Located<ObjectName>,
    /// `enabled`.
    pub enabled: bool,
    /// `realtime`.
    pub realtime: bool,
    /// `realtime_fields`: the source paths whose columns changes move at once, if not all.
    pub realtime_fields: Option<Vec<Located<String>>>,
    /// `where`, unparsed.
    pub filter: Option<Located<String>>,
    /// `on_delete`, for destinations that say nothing else.
    pub on_delete: OnExit,
    /// `on_filter_exit`, likewise.
    pub on_filter_exit: OnExit,
    /// `on_empty_identifier`, likewise.
    pub on_empty_identifier: OnEmptyIdentifier,
    /// `on_move`, likewise.
    pub on_move: OnMove,
    /// `parked_ttl`.
    pub parked_ttl: TimeDelta,
    /// `[to.…]` in the file's order.
    pub destinations: Vec<DestinationConfig>,
}

/// One `[to.<object>]`.
#[derive(Debug, Clone, PartialEq)]
pub struct DestinationConfig {
    /// The stored object's label.
    pub object: Located<String>,
    /// `where` of this destination alone.
    pub filter: Option<Located<String>>,
    /// `identifiers`: column names; `@person_key` is spelled out already.
    pub identifiers: Vec<Located<String>>,
    /// `map`, in the file's order.
    pub map: Vec<MapEntry>,
    /// `derive`, in the file's order.
    pub derive: Vec<DeriveEntry>,
    /// `on_delete`.
    pub on_delete: Option<OnExit>,
    /// `on_filter_exit`.
    pub on_filter_exit: Option<OnExit>,
    /// `on_empty_identifier`.
    pub on_empty_identifier: Option<OnEmptyIdentifier>,
    /// `on_move`.
    pub on_move: Option<OnMove>,
}

impl DestinationConfig {
    /// The source paths of its mappings and look-ups.
    pub(super) fn source_paths(&self) -> impl Iterator<Item = &Located<String>> {
        let mapped = self.map.iter().filter_map(|entry| match &entry.source {
            MapSource::Path(path) => Some(path),
            MapSource::Constant(_) => None,
        });
        let matched = self.derive.iter().flat_map(|entry| match &entry.by {
            DeriveSource::Match { pairs, .. } => pairs.as_slice(),
            DeriveSource::Sibling(_) => &[],
        });
        mapped.chain(matched.map(|(_, path)| path))
    }
}

/// One direct mapping: a column and what fills it.
#[derive(Debug, Clone, PartialEq)]
pub struct MapEntry {
    /// The column.
    pub column: Located<String>,
    /// What fills it.
    pub source: MapSource,
    /// `values`: what a source value (as text) becomes; others are rejected.
    pub values: Option<BTreeMap<String, Value>>,
    /// `default`: instead of null.
    pub default: Option<Located<Value>>,
    /// `when = "insert"`.
    pub insert_only: bool,
    /// `on_null = "keep"`.
    pub keep_on_null: bool,
}

/// What fills a column.
#[derive(Debug, Clone, PartialEq)]
pub enum MapSource {
    /// A source path (`BillingCity`, `Owner.Email`), unparsed.
    Path(Located<String>),
    /// A constant.
    Constant(Located<Value>),
}

/// One derived mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct DeriveEntry {
    /// The column.
    pub column: Located<String>,
    /// How its row is found.
    pub by: DeriveSource,
    /// `on_multiple`.
    pub on_multiple: OnMultiple,
    /// `on_none` and `default`.
    pub on_none: OnNone,
}

/// How a derived mapping finds its row.
#[derive(Debug, Clone, PartialEq)]
pub enum DeriveSource {
    /// `from` and `match`.
    Match {
        /// The looked-up object's label.
        from: Located<String>,
        /// Column (or `@id`) and source path, in the file's order.
        pairs: Vec<(Located<String>, Located<String>)>,
    },
    /// `sibling`: an earlier destination of the job, by label.
    Sibling(Located<String>),
}

/// What a job's file says besides what it moves.
#[derive(Debug, Clone, PartialEq)]
pub struct Routine {
    /// `full_sync`: when every record of the source is read again.
    pub full_sync: Schedule,
    /// `on_lost_field`: what becomes of the job when the CRM no longer shows a field of it.
    pub on_lost_field: OnLostField,
    /// `refresh`: when formulas are read.
    pub refresh: Refresh,
    /// `brakes`.
    pub brakes: Brakes,
    /// `notify`: who is told; what it does not say, the connection's does.
    pub notify: Wish,
    /// `digest`: how often people are told what became of real-time changes, if there is anything to tell.
    pub digest: Duration,
    /// `[[test]]`, in the file's order.
    pub tests: Vec<MappingTest>,
}

/// `brakes`: how much a run may take away before the job stops and asks; 100 never stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Brakes {
    /// Of the rows that the store holds and the job may delete or mark, so many at most are.
    pub max_delete_percent: u8,
    /// Of the rows that the store holds of the job, so many at most in which a mapped column loses its value.
    pub max_null_percent: u8,
    /// Of the records of the run, so many refused at most.
    pub max_rejected_percent: u8,
    /// So many stop nothing, whatever their share.
    pub min_rows: u64,
}

impl Brakes {
    /// Never stop.
    pub const OFF: Self = Self {
        max_delete_percent: 100,
        max_null_percent: 100,
        max_rejected_percent: 100,
        min_rows: 0,
    };
}

impl Default for Brakes {
    fn default() -> Self {
        Self {
            max_delete_percent: 10,
            max_null_percent: 50,
            max_rejected_percent: 50,
            min_rows: 100,
        }
    }
}

/// Columns of a row by name.
pub type ExpectedRow = BTreeMap<String, Expected>;

/// What a column is expected to hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Expected {
    /// A value; the empty text is null.
    Value(Value),
    /// The id of a row that holds this.
    Row(ExpectedRow),
}

/// The field of a test's record that says whether it is deleted.
pub const DELETED: &str = "@deleted";

/// One `[[test]]`: records, and the rows or errors that the job makes of them.
#[derive(Debug, Clone, PartialEq)]
pub struct MappingTest {
    /// Where it stands.
    pub spot: Spot,
    /// `now`: what date literals count from, if the test says so.
    pub now: Option<DateTime<Utc>>,
    /// `given`: a CRM object's records, in the order in which they come. [`DELETED`] marks one that is deleted.
    pub given: Vec<(Located<ObjectName>, Vec<Fields>)>,
    /// `expect`: a stored object's rows.
    pub expect: Vec<(Located<String>, Vec<ExpectedRow>)>,
    /// `errors`: what a record is refused for.
    pub errors: Vec<Located<String>>,
}
