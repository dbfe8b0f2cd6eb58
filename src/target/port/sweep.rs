//! Sweeps: which records hold rows of a job and were not met in its topic, so that what the topic does not tell can leave.
//!
//! Contract for every engine:
//! * What is noted is durable when a call returns, and every daemon on the target sees it. Each replay has its own;
//!   [`Sweeps::begin_replay`] begins it anew.
//! * Noted is the version at which a record held its row when the sweep began. Records that came since are not noted. Whoever
//!   has one leave says that version: what has moved on since is stale then (J2), and stays.
//! * A call made again changes nothing.

use async_trait::async_trait;

use crate::fault::Fault;
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::model::record_id::RecordId;
use crate::model::version::Version;

/// What the names of replays begin with, as readers.
pub const READER: &str = "replay ";

/// The part of a target that knows what a replay has not met.
#[async_trait]
pub trait Sweeps: Send + Sync {
    /// Notes every record of the object that holds a row of one of the tables, marked ones left out, and forgets what earlier
    /// replays of the job left, not other attempts at this one. How many were noted, counted per table.
    async fn begin_replay(&self, of: &SweepKey, tables: &[String]) -> Result<u64, Fault>;

    /// Strikes out records that were met, in every table.
    async fn met(&self, of: &SweepKey, records: &[RecordId]) -> Result<(), Fault>;

    /// What was noted and not struck out, by record; at most `limit` of it.
    async fn unmet(&self, of: &SweepKey, limit: usize) -> Result<Vec<Unmet>, Fault>;

    /// Strikes out what has left, or stays after all.
    async fn swept(&self, of: &SweepKey, swept: &[Unmet]) -> Result<(), Fault>;

    /// Forgets what was noted of a replay, and its offsets.
    async fn end_replay(&self, of: &SweepKey) -> Result<(), Fault>;
}

/// Whose sweep.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SweepKey {
    /// The connection.
    pub connection: ConnectionId,
    /// The job.
    pub job: JobId,
    /// The object that it moves.
    pub object: ObjectName,
    /// The replay's id; those of a job are in the order in which they were asked for.
    pub replay: String,
    /// Who began it: of two that do at once one is believed, and the other spoils nothing.
    pub attempt: String,
}

impl SweepKey {
    /// What the ledger knows it by.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.replay, self.attempt)
    }

    /// What the replay is called as a [reader](super::ReaderKey).
    #[must_use]
    pub fn reader(&self) -> String {
        format!("{READER}{}", self.name())
    }

    /// All readers of earlier replays come before this.
    #[must_use]
    pub fn readers_before(&self) -> String {
        format!("{READER}{}", self.replay)
    }
}

/// A record that holds a row and was not met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmet {
    /// The record.
    pub record: RecordId,
    /// The table.
    pub table: String,
    /// The version at which it held the row when the sweep began.
    pub version: Version,
}
