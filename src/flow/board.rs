//! The board: what every running part last said of itself, for `/api/v1/health` and the live line.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::budget::BudgetPicture;
use crate::crm::port::survey::Changes;
use crate::fault::Fault;
use crate::model::name::{ConnectionId, FieldName, JobId, ObjectName};
use crate::state::orders::Order;

/// The truth per connection, object and job.
#[derive(Debug, Default)]
pub struct Board(Mutex<Picture>);

/// A copy of the board.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Picture {
    /// Connections by id.
    pub connections: BTreeMap<ConnectionId, ConnectionPicture>,
    /// Jobs by connection and id.
    pub jobs: BTreeMap<ConnectionId, BTreeMap<JobId, JobPicture>>,
}

/// A listener's or a job's life. None of it is stored but the order to pause: after a start it is found out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Life {
    /// Nothing has run yet. Set by the board.
    #[default]
    Absent,
    /// Taking the connection over, reading topics back, signing in. Set by the connection.
    Starting,
    /// The first full sync of an object runs; the stream flows beside it. Set by the full sync.
    Snapshotting,
    /// The stream flows. Set by the connection.
    Streaming,
    /// The stream flows and a hole is being read. Set by the repair.
    Repairing,
    /// Another instance owns the connection. Set by the connection.
    Standby,
    /// The credentials are refused; position kept. Set by the connection.
    Revoked,
    /// A passing fault; tried again with backoff. Set by the connection or job.
    Retrying,
    /// A fault that does not pass by itself. Set by the connection or job.
    Failed,
    /// Told to apply nothing. Set by the job, as the state's orders say.
    Paused,
    /// Ended by a stop signal. Set by the connection or job.
    Stopped,
}

/// One connection.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ConnectionPicture {
    /// Its life.
    pub state: Life,
    /// The org that answered.
    pub org: Option<String>,
    /// The newest fault, until the connection streams again.
    pub fault: Option<FaultPicture>,
    /// CRM time up to which the stream is confirmed.
    pub confirmed_at: Option<DateTime<Utc>>,
    /// Holes that are not closed.
    pub open_holes: u64,
    /// What is left of the org's calls, and who waits for them; null while another daemon owns the connection.
    pub budget: Option<BudgetPicture>,
    /// The service bus that it listens to, if there is one.
    pub servicebus: Option<BusPicture>,
    /// Its objects.
    pub objects: BTreeMap<ObjectName, ObjectPicture>,
}

/// A connection's service bus.
#[derive(Debug, Clone, Serialize)]
pub struct BusPicture {
    /// `connecting`, `connected`, `retrying`, `refused` or `stopped`.
    pub state: &'static str,
    /// What is wrong, until messages come again; or what was wrong with the last one.
    pub fault: Option<FaultPicture>,
}

/// One object.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ObjectPicture {
    /// Its life.
    pub state: Life,
    /// When the first full sync was done.
    pub synced_at: Option<DateTime<Utc>>,
    /// Rows read by the full sync in progress or the last one.
    pub rows_read: u64,
    /// How many the CRM says there are.
    pub rows_total: Option<u64>,
    /// How its changes come, where the CRM can be asked that.
    pub changes: Option<Changes>,
    /// Fields that jobs read and that the CRM no longer shows.
    pub lost_fields: Vec<FieldName>,
    /// Records that the probe found changed since the start though no event told it.
    pub missed: u64,
    /// Reads owed.
    pub owed: u64,
    /// Changes published since the start.
    pub published: u64,
}

/// One job.
#[derive(Debug, Clone, Default, Serialize)]
pub struct JobPicture {
    /// Its life.
    pub state: Life,
    /// Why it is paused, if it is.
    pub paused: Option<PausePicture>,
    /// The newest fault, until a batch commits.
    pub fault: Option<FaultPicture>,
    /// Changes in the topic that are not applied.
    pub lag_records: u64,
    /// Seconds from CRM commit to store commit of the newest change of the stream.
    pub lag_seconds: Option<f64>,
    /// When it committed last.
    pub committed_at: Option<DateTime<Utc>>,
    /// Rows by outcome since the start.
    pub rows: BTreeMap<&'static str, u64>,
    /// Dead letters since the start.
    pub dead_letters: u64,
    /// Records that wait for a person to say which row they are.
    pub in_review: u64,
    /// The replay into the live tables that is under way here.
    pub replay: Option<ReplayPicture>,
}

/// A replay into the live tables, as far as a daemon's partitions go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplayPicture {
    /// Its id among the job's replays.
    pub id: String,
    /// What is done.
    pub phase: ReplayPhase,
    /// Offsets that are read.
    pub read: u64,
    /// How many there are to read; compaction may have left fewer records.
    pub of: u64,
}

/// What a replay into the live tables does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayPhase {
    /// The topic is read and applied.
    Reading,
    /// What came meanwhile is looked through.
    Following,
    /// What was not met leaves.
    Sweeping,
}

/// A pause as people read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PausePicture {
    /// Why.
    pub reason: Option<String>,
    /// Who said so.
    pub by: Option<String>,
    /// When.
    pub since: Option<DateTime<Utc>>,
    /// It was a brake.
    pub brake: bool,
}

/// A fault as people read it.
#[derive(Debug, Clone, Serialize)]
pub struct FaultPicture {
    /// The kind.
    pub kind: &'static str,
    /// What, causes, remedy.
    pub text: String,
    /// When.
    pub at: DateTime<Utc>,
}

impl Life {
    /// Every state, for the state metric.
    pub const ALL: [Self; 11] = [
        Self::Absent,
        Self::Starting,
        Self::Snapshotting,
        Self::Streaming,
        Self::Repairing,
        Self::Standby,
        Self::Revoked,
        Self::Retrying,
        Self::Failed,
        Self::Paused,
        Self::Stopped,
    ];

    /// Its label in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Starting => "starting",
            Self::Snapshotting => "snapshotting",
            Self::Streaming => "streaming",
            Self::Repairing => "repairing",
            Self::Standby => "standby",
            Self::Revoked => "revoked",
            Self::Retrying => "retrying",
            Self::Failed => "failed",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl PausePicture {
    /// What an order to pause says.
    #[must_use]
    pub fn of(order: Order) -> Self {
        Self {
            reason: order.reason,
            by: order.by,
            since: order.since,
            brake: order.braked.is_some(),
        }
    }
}

impl FaultPicture {
    /// A fault met at `at`.
    #[must_use]
    pub fn of(fault: &Fault, at: DateTime<Utc>) -> Self {
        Self {
            kind: fault.kind().label(),
            text: fault.report(),
            at,
        }
    }
}

impl Board {
    /// A copy of everything.
    #[must_use]
    pub fn picture(&self) -> Picture {
        self.lock().clone()
    }

    /// Changes a connection's entry.
    pub fn connection(&self, id: &ConnectionId, change: impl FnOnce(&mut ConnectionPicture)) {
        change(self.lock().connections.entry(id.clone()).or_default());
    }

    /// Changes an object's entry.
    pub fn object(
        &self,
        id: &ConnectionId,
        object: &ObjectName,
        change: impl FnOnce(&mut ObjectPicture),
    ) {
        let mut picture = self.lock();
        let connection = picture.connections.entry(id.clone()).or_default();
        change(connection.objects.entry(object.clone()).or_default());
    }

    /// A copy of a job's entry; `None` for one that nothing here runs.
    #[must_use]
    pub fn job_picture(&self, id: &ConnectionId, job: &JobId) -> Option<JobPicture> {
        self.lock().jobs.get(id)?.get(job).cloned()
    }

    /// Changes a job's entry.
    pub fn job(&self, id: &ConnectionId, job: &JobId, change: impl FnOnce(&mut JobPicture)) {
        let mut picture = self.lock();
        let jobs = picture.jobs.entry(id.clone()).or_default();
        change(jobs.entry(job.clone()).or_default());
    }

    fn lock(&self) -> MutexGuard<'_, Picture> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
