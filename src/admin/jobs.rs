//! Jobs: how each stands, and orders to it.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::control::{JobStanding, Told};
use crate::fault::{Fault, FaultKind};
use crate::flow::board::{FaultPicture, Life, PausePicture};
use crate::model::name::{ConnectionId, JobId, ObjectName};

use super::Sources;
use super::replays::Shown;
use super::reply::Failure;

/// The longest reason, and the longest name of who gives an order.
const MAX_REASON: usize = 500;
pub(super) const MAX_BY: usize = 100;

/// A job as pages and commands show it.
#[derive(Serialize)]
pub(super) struct Job {
    connection: ConnectionId,
    job: JobId,
    name: String,
    object: ObjectName,
    enabled: bool,
    /// What it does, on this daemon.
    state: Life,
    /// What it was told, if it was told to pause; obeyed once `state` says so.
    paused: Option<PausePicture>,
    lag_records: u64,
    lag_seconds: Option<f64>,
    committed_at: Option<DateTime<Utc>>,
    rows: BTreeMap<&'static str, u64>,
    dead_letters: u64,
    /// Records that wait for a person to say which row they are.
    in_review: u64,
    fault: Option<FaultPicture>,
    /// The replay into the live tables that was asked for last.
    replay: Option<Shown>,
}

impl From<JobStanding> for Job {
    fn from(standing: JobStanding) -> Self {
        let JobStanding {
            known,
            mut order,
            picture,
        } = standing;
        let picture = picture.unwrap_or_default();
        let replay = order.replay.take();
        Self {
            connection: known.connection,
            job: known.job,
            name: known.name,
            object: known.object,
            enabled: known.enabled,
            state: picture.state,
            paused: order.paused.then(|| PausePicture::of(order)),
            lag_records: picture.lag_records,
            lag_seconds: picture.lag_seconds,
            committed_at: picture.committed_at,
            rows: picture.rows,
            dead_letters: picture.dead_letters,
            in_review: picture.in_review,
            fault: picture.fault,
            replay: replay.map(|replay| Shown::of(replay, picture.replay)),
        }
    }
}

/// `GET /api/v1/jobs`.
pub(super) async fn list(State(sources): State<Sources>) -> Result<Json<Vec<Job>>, Failure> {
    let jobs = sources.control.jobs().await?;
    Ok(Json(jobs.into_iter().map(Job::from).collect()))
}

/// What an order says. JSON is asked for, so that no page of another site can send one unasked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    reason: Option<String>,
    by: Option<String>,
    /// Yes to what a brake stopped the job for.
    #[serde(default)]
    accept: bool,
}

impl Said {
    fn told(self) -> Result<Told, Fault> {
        Ok(Told {
            reason: checked("reason", self.reason, MAX_REASON)?,
            by: checked("by", self.by, MAX_BY)?,
            accept: self.accept,
        })
    }
}

/// A text that somebody sent, trimmed; nothing, if it is empty.
pub(super) fn checked(
    name: &str,
    text: Option<String>,
    most: usize,
) -> Result<Option<String>, Fault> {
    let text = text.map(|text| text.trim().to_owned());
    match text.filter(|text| !text.is_empty()) {
        Some(long) if long.chars().count() > most => Err(Fault::new(
            FaultKind::Config,
            format!("`{name}` is longer than {most} characters"),
        )),
        text => Ok(text),
    }
}

/// What an order did.
#[derive(Serialize)]
pub(super) struct Done {
    /// Whether the job had been told otherwise before.
    changed: bool,
    job: Job,
}

impl Done {
    pub(super) fn new(changed: bool, standing: JobStanding) -> Self {
        let job = standing.into();
        Self { changed, job }
    }
}

/// `POST /api/v1/jobs/{connection}/{job}/pause`.
pub(super) async fn pause(
    State(sources): State<Sources>,
    Path((connection, job)): Path<(ConnectionId, JobId)>,
    Json(said): Json<Said>,
) -> Result<Json<Done>, Failure> {
    let told = said.told()?;
    let (changed, job) = sources.control.pause(&connection, &job, told).await?;
    Ok(Json(Done::new(changed, job)))
}

/// `POST /api/v1/jobs/{connection}/{job}/resume`.
pub(super) async fn resume(
    State(sources): State<Sources>,
    Path((connection, job)): Path<(ConnectionId, JobId)>,
    Json(said): Json<Said>,
) -> Result<Json<Done>, Failure> {
    let told = said.told()?;
    let (changed, job) = sources.control.resume(&connection, &job, told).await?;
    Ok(Json(Done::new(changed, job)))
}
