//! Runs: what each execution of a job did.

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;

use crate::model::name::{ConnectionId, JobId};
use crate::state::runs::{RunsWanted, ShownRun};

use super::Sources;
use super::reply::Failure;

/// The most runs of one answer.
const MOST: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    connection: Option<ConnectionId>,
    job: Option<JobId>,
    #[serde(default = "twenty")]
    limit: usize,
}

const fn twenty() -> usize {
    20
}

/// `GET /api/v1/runs`.
pub(super) async fn list(
    State(sources): State<Sources>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Vec<ShownRun>>, Failure> {
    let runs = sources.state.runs(RunsWanted {
        connection: wanted.connection,
        job: wanted.job,
        limit: wanted.limit.min(MOST),
    });
    let now = sources.clock.now();
    let runs = runs.await?.into_iter();
    Ok(Json(runs.map(|run| run.shown(now)).collect()))
}
