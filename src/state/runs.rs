//! The port of runs: what each execution of a job did, told by those that did it.
//!
//! Contract for every engine:
//! * A run is named by connection, job and id. Whoever counts for it (a daemon is one writer) notes its own part, whole,
//!   in place of what it noted before: a note whose reply is lost may be made again and changes nothing then, and
//!   several writers never count into one another's part. What a run did is the sum of its parts.
//! * The first head of a run stays, until one comes that knows its end; that one replaces it.
//! * [`Runs::forget_runs`] keeps the newest; nothing else removes a run.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::model::name::{ConnectionId, JobId};

/// A store of runs.
#[async_trait]
pub trait Runs: Send + Sync {
    /// Notes what a writer counted for a run of a job so far.
    async fn note_run(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        head: RunHead,
        writer: &str,
        part: RunPart,
    ) -> Result<(), Fault>;

    /// Runs, those that began last first.
    async fn runs(&self, wanted: RunsWanted) -> Result<Vec<Run>, Fault>;

    /// Forgets all runs of a job but the `keep` that began last.
    async fn forget_runs(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        keep: usize,
    ) -> Result<(), Fault>;
}

/// Which runs [`Runs::runs`] tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunsWanted {
    /// Of this connection; of all, if none is named.
    pub connection: Option<ConnectionId>,
    /// Of jobs of this id.
    pub job: Option<JobId>,
    /// At most so many.
    pub limit: usize,
}

/// What a run is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunHead {
    /// Its id among the runs of a job; ids of one kind are in the order of their beginnings.
    pub id: String,
    /// Why it is.
    pub cause: RunCause,
    /// Who asked for it.
    #[serde(default)]
    pub by: Option<String>,
    /// When it began.
    pub began: DateTime<Utc>,
    /// When all was published that is part of it.
    #[serde(default)]
    pub ended: Option<DateTime<Utc>>,
    /// Rows that the CRM gave for it.
    #[serde(default)]
    pub rows: u64,
    /// Where the topic's partitions ended when it began. What comes before belongs to another run.
    #[serde(default)]
    pub from: BTreeMap<u32, u64>,
    /// And where after its last change: the job is done with it when it is past these.
    #[serde(default)]
    pub ends: Option<BTreeMap<u32, u64>>,
}

/// Why a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunCause {
    /// The object was new.
    First,
    /// `full_sync` of a job was due.
    Scheduled,
    /// Somebody asked for it.
    Asked,
    /// A hole over the whole object was read.
    Repair,
    /// No full sync: the topic was read again into the live tables.
    Replay,
    /// No full sync: what came in real time on one day, by UTC.
    Stream,
}

/// What one writer did for a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPart {
    /// Rows by outcome, as the metrics count them.
    pub counts: BTreeMap<String, u64>,
    /// How far the job is, per partition.
    pub next: BTreeMap<u32, u64>,
    /// Records, applied or refused.
    #[serde(default)]
    pub records: u64,
    /// Updated rows in which a mapped column lost its value, where a brake asks for them.
    #[serde(default)]
    pub emptied: u64,
    /// What of it was applied because somebody had said yes to it after a brake: the brakes count nothing of it.
    #[serde(default)]
    pub accepted: Taken,
    /// When it committed last.
    pub at: Option<DateTime<Utc>>,
}

/// What brakes count of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Deleted and marked rows.
    pub gone: u64,
    /// Updated rows in which a mapped column lost its value.
    pub emptied: u64,
    /// Rejected records.
    pub rejected: u64,
}

/// A run and what was done for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The connection.
    pub connection: ConnectionId,
    /// The job.
    pub job: JobId,
    /// What it is.
    pub head: RunHead,
    /// What all writers did together.
    pub done: RunPart,
}

/// A run as pages and commands show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownRun {
    /// Its id among the runs of the job.
    pub id: String,
    /// The connection.
    pub connection: ConnectionId,
    /// The job.
    pub job: JobId,
    /// Why it is.
    pub cause: RunCause,
    /// Who asked for it.
    pub by: Option<String>,
    /// How it stands.
    pub state: RunState,
    /// When it began.
    pub began: DateTime<Utc>,
    /// When it ended; null while it runs.
    pub ended: Option<DateTime<Utc>>,
    /// Rows that the CRM gave for it; null until its read has ended, and where nothing was read.
    pub rows_read: Option<u64>,
    /// Records that were applied or refused.
    pub records: u64,
    /// Rows by outcome.
    pub rows: BTreeMap<String, u64>,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Not all of it is applied.
    Running,
    /// All of it is applied.
    Success,
    /// All of it is applied but what was rejected.
    PartialSuccess,
}

impl RunHead {
    /// The run of what comes in real time on the day of `now`.
    #[must_use]
    pub fn stream(now: DateTime<Utc>) -> Self {
        Self::new(
            now.format("%Y%m%d-stream").to_string(),
            RunCause::Stream,
            now,
        )
    }

    /// A full sync that begins.
    #[must_use]
    pub fn sync(
        cause: RunCause,
        by: Option<String>,
        from: BTreeMap<u32, u64>,
        now: DateTime<Utc>,
    ) -> Self {
        let id = now.format("%Y%m%dT%H%M%S%.3fZ-sync").to_string();
        Self {
            by,
            from,
            ..Self::new(id, cause, now)
        }
    }

    /// A replay into the live tables. No place of the topic is part of it.
    #[must_use]
    pub fn replay(id: String, by: Option<String>, now: DateTime<Utc>) -> Self {
        Self {
            by,
            ..Self::new(id, RunCause::Replay, now)
        }
    }

    /// The same, at its end.
    #[must_use]
    pub fn ended(self, now: DateTime<Utc>) -> Self {
        Self {
            ended: Some(now),
            ends: Some(BTreeMap::new()),
            ..self
        }
    }

    fn new(id: String, cause: RunCause, began: DateTime<Utc>) -> Self {
        Self {
            id,
            cause,
            by: None,
            began,
            ended: None,
            rows: 0,
            from: BTreeMap::new(),
            ends: None,
        }
    }

    /// Whether a change at a place of the topic is part of this full sync, as far as its end is known.
    #[must_use]
    pub fn holds(&self, partition: u32, offset: u64) -> bool {
        let from = self.from.get(&partition).copied().unwrap_or(0);
        let end = self.ends.as_ref().map(|ends| ends.get(&partition));
        let before = end.is_none_or(|end| end.is_some_and(|end| offset < *end));
        from <= offset && before
    }

    /// Whether a job that is at `next` is done with this full sync. In a partition where none of it lies nobody need
    /// have been.
    #[must_use]
    pub fn is_done(&self, next: &BTreeMap<u32, u64>) -> bool {
        self.ends.as_ref().is_some_and(|ends| {
            ends.iter().all(|(partition, end)| {
                let from = self.from.get(partition).copied().unwrap_or(0);
                from >= *end || next.get(partition).is_some_and(|next| next >= end)
            })
        })
    }

    /// Whether a sync of a topic that ends there may go on with it. One that ends earlier than the run began was made again.
    #[must_use]
    pub fn goes_on(&self, ends: &BTreeMap<u32, u64>) -> bool {
        let mut from = self.from.iter();
        !self.is_closed() && from.all(|(partition, from)| ends.get(partition) >= Some(from))
    }

    /// Whether its end is known: such a head replaces one that knows less.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.ends.is_some()
    }
}

impl RunCause {
    /// Its label on pages.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Scheduled => "scheduled",
            Self::Asked => "asked",
            Self::Repair => "repair",
            Self::Replay => "replay",
            Self::Stream => "stream",
        }
    }

    /// Whether it is a full sync, which published changes.
    #[must_use]
    pub const fn is_sync(self) -> bool {
        !matches!(self, Self::Replay | Self::Stream)
    }
}

impl RunPart {
    /// Adds what another writer did.
    pub fn add(&mut self, other: &Self) {
        for (outcome, count) in &other.counts {
            *self.counts.entry(outcome.clone()).or_default() += count;
        }
        for (partition, next) in &other.next {
            let held = self.next.entry(*partition).or_default();
            *held = (*held).max(*next);
        }
        self.records += other.records;
        self.emptied += other.emptied;
        self.accepted.gone += other.accepted.gone;
        self.accepted.emptied += other.accepted.emptied;
        self.accepted.rejected += other.accepted.rejected;
        self.at = self.at.max(other.at);
    }
}

impl Run {
    /// How it stands at `now`.
    #[must_use]
    pub fn state(&self, now: DateTime<Utc>) -> RunState {
        let done = match self.head.cause {
            RunCause::Stream => self.head.began.date_naive() < now.date_naive(),
            _ => self.head.is_done(&self.done.next),
        };
        let rejected = self.done.counts.get("rejected").copied().unwrap_or(0);
        match (done, rejected) {
            (false, _) => RunState::Running,
            (true, 0) => RunState::Success,
            (true, _) => RunState::PartialSuccess,
        }
    }

    /// As pages and commands show it at `now`.
    #[must_use]
    pub fn shown(self, now: DateTime<Utc>) -> ShownRun {
        let (state, ended) = (self.state(now), self.ended(now));
        ShownRun {
            rows_read: self.head.is_closed().then_some(self.head.rows),
            id: self.head.id,
            connection: self.connection,
            job: self.job,
            cause: self.head.cause,
            by: self.head.by,
            state,
            began: self.head.began,
            ended,
            records: self.done.records,
            rows: self.done.counts,
        }
    }

    /// When it ended; `None` while it runs. A full sync that found no difference ended with its read.
    #[must_use]
    pub fn ended(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self.state(now) {
            RunState::Running => None,
            _ => self.done.at.max(self.head.ended),
        }
    }
}

impl RunState {
    /// Its label on pages.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Success => "success",
            Self::PartialSuccess => "partial success",
        }
    }
}

/// A head with one of its parts.
pub(super) type Row = (ConnectionId, JobId, RunHead, Option<RunPart>);

/// Rows of heads, each with one of its parts, those of a run side by side: the runs.
pub(super) fn gathered<E>(rows: impl Iterator<Item = Result<Row, E>>) -> Result<Vec<Run>, E> {
    let mut runs: Vec<Run> = Vec::new();
    for row in rows {
        let (connection, job, head, part) = row?;
        let part = part.unwrap_or_default();
        match runs.last_mut() {
            Some(run)
                if run.connection == connection && run.job == job && run.head.id == head.id =>
            {
                run.done.add(&part);
            }
            _ => runs.push(Run {
                connection,
                job,
                head,
                done: part,
            }),
        }
    }
    Ok(runs)
}
