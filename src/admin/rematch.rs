//! Asking identifiers again, page by page of a job's topic, so that no request takes long.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};

use crate::flow::job::rematch::{Move, Page};
use crate::model::name::{ConnectionId, JobId};

use super::Sources;
use super::jobs;
use super::reply::Failure;

/// A partition of the topic.
#[derive(Serialize)]
pub(super) struct Partition {
    partition: u32,
    start: u64,
    end: u64,
}

/// `GET /api/v1/jobs/{connection}/{job}/rematch`.
pub(super) async fn bounds(
    State(sources): State<Sources>,
    Path((connection, job)): Path<(ConnectionId, JobId)>,
) -> Result<Json<Vec<Partition>>, Failure> {
    let bounds = sources.control.to_rematch(&connection, &job).await?;
    let partitions = bounds.into_iter().map(|(partition, ends)| Partition {
        partition,
        start: ends.start,
        end: ends.end,
    });
    Ok(Json(partitions.collect()))
}

/// A page, and whether its records are only looked at.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    partition: u32,
    from: u64,
    until: u64,
    dry_run: bool,
    by: Option<String>,
}

/// What it holds.
#[derive(Serialize)]
pub(super) struct Done {
    /// Where the next page begins.
    next: u64,
    read: u64,
    moves: Vec<Move>,
}

/// `POST` of the same.
pub(super) async fn page(
    State(sources): State<Sources>,
    Path((connection, job)): Path<(ConnectionId, JobId)>,
    Json(said): Json<Said>,
) -> Result<Json<Done>, Failure> {
    let by = jobs::checked("by", said.by, jobs::MAX_BY)?;
    let page = Page {
        partition: said.partition,
        from: said.from,
        until: said.until,
    };
    let control = &sources.control;
    let looked = control
        .rematch(&connection, &job, page, said.dry_run, by.as_deref())
        .await?;
    Ok(Json(Done {
        next: looked.next,
        read: looked.read,
        moves: looked.moves,
    }))
}
