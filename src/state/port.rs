//! The state's port: who owns a connection, how far it is, and what it owes.
//!
//! Contract for every engine:
//! * Every write carries the owner's term and is refused as `Fenced` when a higher one is stored (I7).
//! * [`State::commit`] is one transaction (I1): a position never becomes visible without what it owes.
//! * Nothing here is guessed after a loss: a lost file means a new term, no position, and so a hole.
//! * A lease is judged by one clock. A file belongs to one host, whose `now` callers hand in; a server has a clock of
//!   its own and ignores theirs, which differ between hosts. A lease begins no earlier than the call that asks for it,
//!   so an owner that counts from before its call, by its own clock, sees the end before anybody may take over; for
//!   that clocks must run at one speed, not show one date.
//! * A write whose reply is lost is told as a fault that passes, and may have been done. Each may be made again by the
//!   same owner and changes nothing then, but [`State::acquire`], which yields the next term. Engines repeat by
//!   themselves only what another transaction was in the way of; waiting out the rest is the caller's.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultKind};
use crate::model::name::{ConnectionId, FieldName, ObjectName};
use crate::model::position::Position;
use crate::model::record_id::RecordId;

use super::descriptions::Descriptions;
use super::orders::Orders;
use super::runs::{RunHead, Runs};

/// A store of state.
#[async_trait]
pub trait State: Orders + Descriptions + Runs + Send + Sync {
    /// Takes the connection over if its lease is free, expired or ours; `None` if another owner is alive.
    /// The new term is max(stored + 1, unix seconds), so that lost state never makes old versions win. `owner` names
    /// one process at a time. The lease ends `lease` after now.
    async fn acquire(
        &self,
        connection: &ConnectionId,
        owner: &str,
        now: DateTime<Utc>,
        lease: Duration,
    ) -> Result<Option<u64>, Fault>;

    /// Prolongs the lease: it ends `lease` after now. One that has run out goes on, unless another took over.
    async fn renew(
        &self,
        connection: &ConnectionId,
        term: u64,
        now: DateTime<Utc>,
        lease: Duration,
    ) -> Result<(), Fault>;

    /// Gives the connection up.
    async fn release(&self, connection: &ConnectionId, term: u64) -> Result<(), Fault>;

    /// Where the stream goes on.
    async fn position(&self, connection: &ConnectionId) -> Result<Option<StoredPosition>, Fault>;

    /// Position, owed reads, settled reads and holes in one transaction.
    async fn commit(
        &self,
        connection: &ConnectionId,
        term: u64,
        progress: Progress,
    ) -> Result<(), Fault>;

    /// Records of an object that owe a read, oldest stamp first.
    async fn owed(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        limit: usize,
    ) -> Result<Vec<Owed>, Fault>;

    /// How many reads are owed, per object.
    async fn owed_counts(&self, connection: &ConnectionId)
    -> Result<Vec<(ObjectName, u64)>, Fault>;

    /// Holes, newest first; only open ones unless `all`.
    async fn holes(&self, connection: Option<&ConnectionId>, all: bool)
    -> Result<Vec<Hole>, Fault>;

    /// Notes that a repair has begun.
    async fn repairing(&self, connection: &ConnectionId, term: u64, hole: i64)
    -> Result<(), Fault>;

    /// Closes a hole with its evidence; `Corrupt` if the evidence's `as_of` is not later than the hole's end.
    async fn close_hole(
        &self,
        connection: &ConnectionId,
        term: u64,
        hole: i64,
        evidence: Evidence,
        now: DateTime<Utc>,
    ) -> Result<(), Fault>;

    /// What is known of an object.
    async fn object(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
    ) -> Result<ObjectState, Fault>;

    /// Every object of which something is known, by name; also those that no job selects any more.
    async fn objects(
        &self,
        connection: &ConnectionId,
    ) -> Result<Vec<(ObjectName, ObjectState)>, Fault>;

    /// Stores what is known of an object.
    async fn put_object(
        &self,
        connection: &ConnectionId,
        term: u64,
        object: &ObjectName,
        state: ObjectState,
    ) -> Result<(), Fault>;

    /// Asks the owner to publish a record again (a job met a lower term than its ledger holds); no term needed.
    async fn request_republish(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        record: &RecordId,
    ) -> Result<(), Fault>;

    /// Such requests; each stays until a [`Progress`] says that it was met.
    async fn to_republish(
        &self,
        connection: &ConnectionId,
        limit: usize,
    ) -> Result<Vec<(ObjectName, RecordId)>, Fault>;

    /// Notes that records are said to have changed, all or none, durably; no term needed, as whoever is told need not
    /// own the connection. Of a record only the newest hint stays, and each is later than the one before: made again,
    /// it is a hint again.
    async fn hint(&self, connection: &ConnectionId, hints: Vec<Hinted>) -> Result<(), Fault>;

    /// Such hints, oldest first; each stays until a [`Progress`] says that it was met.
    async fn hints(&self, connection: &ConnectionId, limit: usize) -> Result<Vec<Hinted>, Fault>;

    /// Finishes what was taken, and closes.
    async fn close(&self) -> Result<(), Fault>;
}

/// A position and what it is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPosition {
    /// The position; `None` while a stream that began "now" has told none.
    pub position: Option<Position>,
    /// CRM time up to which the stream is confirmed.
    pub confirmed_at: DateTime<Utc>,
}

/// What [`State::commit`] stores.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// The stream's place; `None` leaves it.
    pub position: Option<StoredPosition>,
    /// Reads that are owed.
    pub owe: Vec<Owed>,
    /// Reads that were done. They settle what was owed before this commit, not what it owes.
    pub settle: Vec<Settled>,
    /// Records that were published again because a job asked for it.
    pub republished: Vec<(ObjectName, RecordId)>,
    /// Hints that were met, unless a newer one came meanwhile.
    pub met: Vec<Hinted>,
    /// Holes that opened. One equal in cause, object and window to an open one is not opened twice.
    pub open: Vec<NewHole>,
}

/// A record that must be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    /// The object.
    pub object: ObjectName,
    /// The record.
    pub record: RecordId,
    /// C of the newest change that is not known.
    pub stamp: DateTime<Utc>,
}

/// A record that is said to have changed; nobody vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hinted {
    /// The object.
    pub object: ObjectName,
    /// The record.
    pub record: RecordId,
    /// When it was told, by our own clock.
    pub at: DateTime<Utc>,
}

/// A read that was believed: it settles the record's owed read unless a newer one than `stamp` came meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The object.
    pub object: ObjectName,
    /// The record.
    pub record: RecordId,
    /// The newest owed stamp that the read answers.
    pub stamp: DateTime<Utc>,
}

/// An interval or an object for which changes may have been missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewHole {
    /// The object.
    pub object: ObjectName,
    /// Why.
    pub cause: HoleCause,
    /// What may be missing.
    pub scope: HoleScope,
    /// When it was noticed.
    pub opened_at: DateTime<Utc>,
}

/// Why changes may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoleCause {
    /// The stored position is no longer valid.
    ExpiredPosition,
    /// The stream began without a stored position although objects were synced.
    NoPosition,
    /// Too many changes in one transaction.
    Overflow,
    /// An event named records by wildcard.
    Wildcard,
    /// An event could not be decoded.
    Undecodable,
    /// The topic was deleted, made again or truncated.
    TopicRecreated,
    /// A field was added to the selection.
    NewField,
    /// The org's delivery limit was reached.
    DeliveryLimit,
    /// Permission on the object was lost.
    PermissionLost,
    /// The object is not captured.
    NotCaptured,
    /// The org was restored to an earlier state.
    OrgRestored,
    /// More children than one step tells have a field of a parent that changed.
    ParentChanged,
    /// The probe found records that differ though the stream should have told them.
    MissedChanges,
    /// Values of a selected picklist are called otherwise than they were.
    Relabelled,
}

/// What may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoleScope {
    /// What changed in an interval of CRM time.
    Window {
        /// Its start.
        from: DateTime<Utc>,
        /// Its end.
        to: DateTime<Utc>,
    },
    /// Anything of the object up to an instant of CRM time.
    Object {
        /// The instant.
        to: DateTime<Utc>,
    },
}

/// A row of the hole ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hole {
    /// Its number.
    pub id: i64,
    /// The connection.
    pub connection: ConnectionId,
    /// The object.
    pub object: ObjectName,
    /// Why.
    pub cause: HoleCause,
    /// What may be missing.
    pub scope: HoleScope,
    /// Where its repair stands.
    pub state: HoleState,
    /// When it was noticed.
    pub opened_at: DateTime<Utc>,
    /// When it was closed.
    pub closed_at: Option<DateTime<Utc>>,
    /// By what.
    pub evidence: Option<Evidence>,
}

/// Where a hole's repair stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoleState {
    /// Not begun.
    Open,
    /// Reads are under way.
    Repairing,
    /// Closed by evidence.
    Closed,
}

/// The reads that closed a hole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// A of the reads.
    pub as_of: DateTime<Utc>,
    /// Rows read.
    pub rows: u64,
    /// Records found deleted.
    pub deleted: u64,
}

/// What is known of one object of one connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectState {
    /// The selected fields that images hold; more in the config than here is a hole.
    pub fields: Vec<FieldName>,
    /// CRM time since which the stream is unbroken.
    pub covered: Option<DateTime<Utc>>,
    /// A full sync in progress.
    pub snapshot: Option<SnapshotProgress>,
    /// When the first full sync was done; `None`: it is not.
    pub synced_at: Option<DateTime<Utc>>,
    /// The full sync that began last, as a run of the object's jobs; no change of it is published before it stands here.
    #[serde(default)]
    pub run: Option<RunHead>,
    /// Where the newest owner found the ends of the object's topic.
    #[serde(default)]
    pub fence: Option<Fence>,
    /// The term under which the object's topic began to be what it is; another one once it was found made again
    /// or cut, stored before anything more is published. Jobs count their offsets anew then.
    #[serde(default)]
    pub topic_since: Option<u64>,
    /// The generation of the object's topic. An owner that finds another one is on another log than the owner
    /// before, whatever its own images say.
    #[serde(default)]
    pub topic: Option<String>,
    /// The number of the wish for some records that was met last, while all of them were never read.
    #[serde(default)]
    pub sampled: Option<u64>,
    /// Fields that jobs select and that the CRM no longer shows, though it did.
    #[serde(default)]
    pub lost: Vec<FieldName>,
    /// CRM time up to which the probe has looked for changes that no event told.
    #[serde(default)]
    pub probed: Option<DateTime<Utc>>,
    /// By which labels the records' own were taken, or are by an open hole.
    #[serde(default)]
    pub editions: BTreeMap<FieldName, String>,
}

/// What an owner found when it had read a topic back. A change of a lower term at or beyond these ends was
/// published by somebody who owned the connection no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The owner's term.
    pub term: u64,
    /// The next offset per partition.
    pub ends: BTreeMap<u32, u64>,
}

/// Where a full sync stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotProgress {
    /// Where the next page begins; `None` before the first.
    pub resume: Option<String>,
    /// The selected fields of the pages so far; a read of others begins anew.
    #[serde(default)]
    pub fields: Vec<FieldName>,
    /// The earliest A of the pages so far: what the whole read is true of.
    #[serde(default)]
    pub as_of: Option<DateTime<Utc>>,
    /// Rows so far.
    pub rows: u64,
    /// When it began.
    pub started_at: DateTime<Utc>,
}

impl HoleCause {
    /// Every cause, for metrics.
    pub const ALL: [Self; 14] = [
        Self::ExpiredPosition,
        Self::NoPosition,
        Self::Overflow,
        Self::Wildcard,
        Self::Undecodable,
        Self::TopicRecreated,
        Self::NewField,
        Self::DeliveryLimit,
        Self::PermissionLost,
        Self::NotCaptured,
        Self::OrgRestored,
        Self::ParentChanged,
        Self::MissedChanges,
        Self::Relabelled,
    ];

    /// Its label in metrics and on pages.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::ExpiredPosition => "expired_position",
            Self::NoPosition => "no_position",
            Self::Overflow => "overflow",
            Self::Wildcard => "wildcard",
            Self::Undecodable => "undecodable",
            Self::TopicRecreated => "topic_recreated",
            Self::NewField => "new_field",
            Self::DeliveryLimit => "delivery_limit",
            Self::PermissionLost => "permission_lost",
            Self::NotCaptured => "not_captured",
            Self::OrgRestored => "org_restored",
            Self::ParentChanged => "parent_changed",
            Self::MissedChanges => "missed_changes",
            Self::Relabelled => "relabelled",
        }
    }
}

impl HoleScope {
    /// The instant as of which reads must be later to close the hole.
    #[must_use]
    pub const fn end(&self) -> DateTime<Utc> {
        match self {
            Self::Window { to, .. } | Self::Object { to } => *to,
        }
    }
}

impl fmt::Display for HoleScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |at: &DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
        match self {
            Self::Window { from, to } => write!(f, "{} to {}", at(from), at(to)),
            Self::Object { to } => write!(f, "everything up to {}", at(to)),
        }
    }
}

/// The term after `stored`: never lower than the clock, so that lost state never makes old versions win.
pub(super) fn next_term(stored: u64, now: DateTime<Utc>) -> u64 {
    (stored + 1).max(u64::try_from(now.timestamp()).unwrap_or(0))
}

/// When a lease that begins now ends.
pub(super) fn end_of(now: DateTime<Utc>, lease: Duration) -> DateTime<Utc> {
    let lease = TimeDelta::from_std(lease).ok();
    lease
        .and_then(|lease| now.checked_add_signed(lease))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

pub(super) fn fenced(connection: &ConnectionId, term: u64, stored: u64) -> Fault {
    Fault::new(
        FaultKind::Fenced,
        format!("term {term} of connection {connection} is over: {stored} is stored"),
    )
    .remedy("another daemon owns the connection now; nothing was written")
}

pub(super) fn no_hole(id: i64) -> Fault {
    Fault::new(FaultKind::Missing, format!("the ledger has no hole {id}"))
}

pub(super) fn insufficient(id: i64, as_of: DateTime<Utc>, end: DateTime<Utc>) -> Fault {
    Fault::new(
        FaultKind::Corrupt,
        format!("reads as of {as_of} can't close hole {id}, which ends at {end}"),
    )
}
