//! The port of orders: what a job was told stands here until it is told otherwise, and a full sync that was asked for
//! until it was done.
//!
//! Contract for every engine:
//! * What a call stored is durable when it returns, and every daemon on the state reads it from then on.
//! * An order is replaced by who saw the newest one only: each write names the revision that it replaces. No term is
//!   compared, as whoever gives an order need not own the connection.
//! * A write whose reply is lost may be made again and changes nothing then.
//! * Orders outlive the jobs that they are for: a job that leaves the config and comes back is found as it was told.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::runs::Taken;
use crate::fault::Fault;
use crate::model::name::{ConnectionId, JobId, ObjectName};

/// A store of orders.
#[async_trait]
pub trait Orders: Send + Sync {
    /// What a job was told last; the default before anybody told it anything.
    async fn standing(&self, connection: &ConnectionId, job: &JobId) -> Result<Standing, Fault>;

    /// What every job was told last, by connection and job.
    async fn all_standing(&self) -> Result<Vec<(ConnectionId, JobId, Standing)>, Fault>;

    /// Replaces the order of revision `after`; whether that was still the newest one.
    async fn give(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        after: u64,
        order: Order,
    ) -> Result<bool, Fault>;

    /// Asks the connection's owner for a full sync of an object. Whoever asks again while one is waited for asks for the
    /// same; while one runs, for another one after it.
    async fn ask_sync(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        wish: Wish,
    ) -> Result<(), Fault>;

    /// Full syncs that were asked for and not done yet, by object.
    async fn asked_syncs(
        &self,
        connection: &ConnectionId,
    ) -> Result<Vec<(ObjectName, Asked)>, Fault>;

    /// Notes that a full sync was done that had been asked for by then; what was asked for since stays.
    async fn sync_done(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        number: u64,
    ) -> Result<(), Fault>;
}

/// What a job is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// It applies nothing.
    pub paused: bool,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// Who said so.
    #[serde(default)]
    pub by: Option<String>,
    /// When, by the clock of who said so.
    #[serde(default)]
    pub since: Option<DateTime<Utc>>,
    /// It is a brake that paused the job: what it saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub braked: Option<Seen>,
    /// What somebody said yes to after a brake: brakes count nothing of it. Stays with later orders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Seen>,
    /// The replay into the live tables that was asked for last, and how it stands. Stays with later orders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
}

/// A replay of a job's topic into the live tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// Names it among the job's replays: its run, and its reader in the target's ledger.
    pub id: String,
    /// Where it begins.
    pub since: Since,
    /// Who asked for it.
    #[serde(default)]
    pub by: Option<String>,
    /// When, by the clock of who asked.
    pub at: DateTime<Utc>,
    /// How it stands.
    pub stage: ReplayStage,
}

/// Where a replay begins, in every partition of its topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Since {
    /// At the first record that is there.
    #[default]
    Start,
    /// At the first record that is not older.
    Time(DateTime<Utc>),
    /// At an offset.
    Offset(u64),
}

/// How a replay stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayStage {
    /// Nobody has begun.
    Asked,
    /// The topic is read; after that, what was not met leaves.
    Reading(Reading),
    /// All is done.
    Done {
        /// When.
        at: DateTime<Utc>,
    },
    /// It ended before that; what it had applied by then is right and stays.
    Failed {
        /// When.
        at: DateTime<Utc>,
        /// Why.
        reason: String,
    },
}

/// What of a topic is read, and how much of it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The topic's generation.
    pub generation: String,
    /// Who began it, as the target's ledger knows that.
    pub attempt: String,
    /// The first offset and the end, per partition.
    pub spans: BTreeMap<u32, (u64, u64)>,
    /// Partitions that are read to their ends.
    pub done: BTreeSet<u32>,
}

/// What a brake saw when it stopped a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The topic's generation.
    pub generation: String,
    /// The topic's next offset per partition.
    pub ends: BTreeMap<u32, u64>,
    /// The run that it stopped.
    pub run: String,
    /// Which is a full sync: a yes is for all of it. A stream has no end to wait for.
    pub is_sync: bool,
    /// What the run had taken.
    pub took: Taken,
}

impl Replay {
    /// One that is asked for at `at`.
    #[must_use]
    pub fn new(since: Since, by: Option<String>, at: DateTime<Utc>) -> Self {
        Self {
            id: at.format("%Y%m%dT%H%M%S%.3fZ-replay").to_string(),
            since,
            by,
            at,
            stage: ReplayStage::Asked,
        }
    }

    /// Whether there is something to do for it.
    #[must_use]
    pub const fn is_under_way(&self) -> bool {
        matches!(self.stage, ReplayStage::Asked | ReplayStage::Reading(_))
    }

    /// Whether what it does not meet leaves: only the whole topic tells who is not there.
    #[must_use]
    pub const fn sweeps(&self) -> bool {
        matches!(self.since, Since::Start)
    }
}

impl ReplayStage {
    /// Its label on pages.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Reading(_) => "running",
            Self::Done { .. } => "done",
            Self::Failed { .. } => "failed",
        }
    }
}

impl Reading {
    /// Whether every partition is read.
    #[must_use]
    pub fn is_read(&self) -> bool {
        let mut partitions = self.spans.keys();
        partitions.all(|partition| self.done.contains(partition))
    }
}

/// Who asks for a full sync, and of how much.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Who.
    #[serde(default)]
    pub by: Option<String>,
    /// When, by the clock of who asks.
    #[serde(default)]
    pub at: Option<DateTime<Utc>>,
    /// Only so many records, to see whether they come out right. The first sync of an object waits then until somebody
    /// asks for all of them.
    #[serde(default)]
    pub limit: Option<u64>,
}

/// A full sync that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Goes up each time that somebody asks.
    pub number: u64,
    /// What the newest of them said.
    pub wish: Wish,
}

/// An order and its place among those that the job got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Goes up with each order; 0 before the first.
    pub revision: u64,
    /// The newest one.
    pub order: Order,
}

impl Standing {
    /// Whether this is what giving `order` over revision `after` left.
    pub(super) fn is_left_by(&self, after: u64, order: &Order) -> bool {
        self.revision == after + 1 && self.order == *order
    }
}
