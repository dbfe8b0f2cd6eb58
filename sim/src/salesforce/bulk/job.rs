//! One query job: what it was asked for, how far it is, and its rows.

use std::sync::Mutex;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::super::lock::lock;
use super::super::soql::ResultSet;
use super::super::value::rest_datetime;

/// What a job was created with.
#[derive(Debug)]
pub(super) struct Order {
    pub operation: &'static str,
    pub object: String,
    pub user: String,
    /// `66.0`.
    pub version: String,
    pub delimiter: (&'static str, u8),
    pub line_ending: (&'static str, &'static str),
    /// Whether the org splits the query by keys.
    pub chunked: bool,
    pub results: ResultSet,
}

/// A query job.
#[derive(Debug)]
pub(super) struct Job {
    pub id: String,
    pub order: Order,
    pub created: DateTime<Utc>,
    delay: TimeDelta,
    failure: Option<String>,
    aborted: Mutex<Option<DateTime<Utc>>>,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobState {
    UploadComplete,
    InProgress,
    JobComplete,
    Failed,
    Aborted,
}

impl JobState {
    pub fn name(self) -> &'static str {
        match self {
            Self::UploadComplete => "UploadComplete",
            Self::InProgress => "InProgress",
            Self::JobComplete => "JobComplete",
            Self::Failed => "Failed",
            Self::Aborted => "Aborted",
        }
    }

    pub fn is_terminal(self) -> bool {
        matches!(self, Self::JobComplete | Self::Failed | Self::Aborted)
    }
}

impl Job {
    pub fn new(
        id: String,
        order: Order,
        created: DateTime<Utc>,
        delay: TimeDelta,
        failure: Option<String>,
    ) -> Self {
        Self {
            id,
            order,
            created,
            delay,
            failure,
            aborted: Mutex::new(None),
        }
    }

    /// A third of its time it waits; without any it is over when it is first looked at.
    pub fn state(&self, now: DateTime<Utc>) -> JobState {
        let age = now - self.created;
        if lock(&self.aborted).is_some() {
            JobState::Aborted
        } else if age < self.delay / 3 {
            JobState::UploadComplete
        } else if age < self.delay {
            JobState::InProgress
        } else if self.failure.is_some() {
            JobState::Failed
        } else {
            JobState::JobComplete
        }
    }

    /// Ends a job that is not over; tells whether it was not.
    pub fn abort(&self, now: DateTime<Utc>) -> bool {
        if self.state(now).is_terminal() {
            return false;
        }
        *lock(&self.aborted) = Some(now);
        true
    }

    pub fn is_of_day(&self, now: DateTime<Utc>) -> bool {
        now - self.created < TimeDelta::hours(24)
    }

    /// The job as its creation answers it.
    pub fn brief(&self, state: JobState) -> Value {
        let order = &self.order;
        json!({
            "id": self.id,
            "operation": order.operation,
            "object": order.object,
            "createdById": order.user,
            "createdDate": rest_datetime(self.created),
            "systemModstamp": rest_datetime(self.created),
            "state": state.name(),
            "concurrencyMode": "Parallel",
            "contentType": "CSV",
            "apiVersion": order.version.parse::<f64>().unwrap_or_default(),
            "lineEnding": order.line_ending.0,
            "columnDelimiter": order.delimiter.0,
        })
    }

    /// The job as a poll answers it.
    pub fn whole(&self, now: DateTime<Utc>) -> Value {
        let state = self.state(now);
        let mut shown = self.brief(state);
        let rows = match state {
            JobState::JobComplete => self.order.results.len(),
            _ => 0,
        };
        let ended = lock(&self.aborted).unwrap_or(self.created + self.delay);
        shown["jobType"] = json!("V2Query");
        shown["numberRecordsProcessed"] = json!(rows);
        shown["retries"] = json!(0);
        shown["totalProcessingTime"] = json!((ended.min(now) - self.created).num_milliseconds());
        shown["isPkChunkingSupported"] = json!(self.order.chunked);
        shown["systemModstamp"] = json!(rest_datetime(ended.min(now)));
        if state == JobState::Failed {
            shown["errorMessage"] = json!(self.failure);
        }
        shown
    }
}
