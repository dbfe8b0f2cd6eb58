//! Replays into the live tables: asked for, and stopped.

use axum::Json;
use axum::extract::{Path, State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::flow::board::{ReplayPhase, ReplayPicture};
use crate::model::name::{ConnectionId, JobId};
use crate::state::orders::{Replay, ReplayStage, Since};

use super::Sources;
use super::jobs::{self, Done};
use super::reply::Failure;

/// A replay as pages and commands show it.
#[derive(Serialize)]
pub(super) struct Shown {
    id: String,
    /// `asked`, `running`, `done` or `failed`.
    state: &'static str,
    from: Since,
    by: Option<String>,
    asked_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    /// Why it failed.
    reason: Option<String>,
    /// What is done on this daemon, and how many offsets of its partitions are read.
    phase: Option<ReplayPhase>,
    read: Option<u64>,
    of: Option<u64>,
}

impl Shown {
    /// What was ordered, with what this daemon shows of it.
    pub(super) fn of(replay: Replay, picture: Option<ReplayPicture>) -> Self {
        let picture = picture.filter(|picture| picture.id == replay.id);
        let state = replay.stage.label();
        let (ended_at, reason) = match replay.stage {
            ReplayStage::Asked | ReplayStage::Reading(_) => (None, None),
            ReplayStage::Done { at } => (Some(at), None),
            ReplayStage::Failed { at, reason } => (Some(at), Some(reason)),
        };
        Self {
            id: replay.id,
            state,
            from: replay.since,
            by: replay.by,
            asked_at: replay.at,
            ended_at,
            reason,
            phase: picture.as_ref().map(|picture| picture.phase),
            read: picture.as_ref().map(|picture| picture.read),
            of: picture.as_ref().map(|picture| picture.of),
        }
    }
}

/// What is asked for. JSON, so that no page of another site can send one unasked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    /// Where to begin: `"start"`, `{"time": …}` or `{"offset": …}`.
    #[serde(default)]
    from: Since,
    by: Option<String>,
    /// End the one that is under way.
    #[serde(default)]
    stop: bool,
}

/// `POST /api/v1/jobs/{connection}/{job}/replay`.
pub(super) async fn tell(
    State(sources): State<Sources>,
    Path((connection, job)): Path<(ConnectionId, JobId)>,
    Json(said): Json<Said>,
) -> Result<Json<Done>, Failure> {
    let by = jobs::checked("by", said.by, jobs::MAX_BY)?;
    let control = &sources.control;
    let (changed, standing) = if said.stop {
        control.stop_replay(&connection, &job, by).await?
    } else {
        let standing = control.replay(&connection, &job, said.from, by).await?;
        (true, standing)
    };
    Ok(Json(Done::new(changed, standing)))
}
