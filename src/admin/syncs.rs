//! Full syncs: asking for them, and how they stand.

use axum::Json;
use axum::extract::{Path, State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::control::SyncStanding;
use crate::flow::board::FaultPicture;
use crate::model::name::{ConnectionId, ObjectName};

use super::Sources;
use super::jobs;
use super::reply::Failure;

/// The full syncs of a connection's objects.
#[derive(Serialize)]
pub(super) struct Syncs {
    objects: Vec<Sync>,
    /// What is wrong with the connection, as this daemon knows it.
    fault: Option<FaultPicture>,
}

#[derive(Serialize)]
struct Sync {
    object: ObjectName,
    /// The number of the newest sync that was asked for and is not done; null once all are.
    asked: Option<u64>,
    asked_by: Option<String>,
    asked_at: Option<DateTime<Utc>>,
    /// Only so many records were asked for.
    limit: Option<u64>,
    /// They are read; the others wait until somebody asks for all.
    sampled: bool,
    /// Rows that one in progress has read.
    rows: Option<u64>,
    rows_total: Option<u64>,
    synced_at: Option<DateTime<Utc>>,
}

impl From<SyncStanding> for Sync {
    fn from(standing: SyncStanding) -> Self {
        let (asked, wish) = match standing.asked {
            Some(asked) => (Some(asked.number), asked.wish),
            None => (None, Default::default()),
        };
        Self {
            object: standing.object,
            asked,
            asked_by: wish.by,
            asked_at: wish.at,
            limit: wish.limit,
            sampled: standing.sampled,
            rows: standing.rows,
            rows_total: standing.rows_total,
            synced_at: standing.synced_at,
        }
    }
}

fn page(sources: &Sources, connection: &ConnectionId, objects: Vec<SyncStanding>) -> Json<Syncs> {
    let mut picture = sources.board.picture();
    let shown = picture.connections.remove(connection);
    Json(Syncs {
        objects: objects.into_iter().map(Sync::from).collect(),
        fault: shown.and_then(|shown| shown.fault),
    })
}

/// `GET /api/v1/connections/{connection}/syncs`.
pub(super) async fn list(
    State(sources): State<Sources>,
    Path(connection): Path<ConnectionId>,
) -> Result<Json<Syncs>, Failure> {
    let objects = sources.control.syncs(&connection).await?;
    Ok(page(&sources, &connection, objects))
}

/// Which object; all that jobs select, if none is named. All of its records, if there is no limit.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asking {
    object: Option<ObjectName>,
    by: Option<String>,
    limit: Option<u64>,
}

/// `POST` of the same.
pub(super) async fn ask(
    State(sources): State<Sources>,
    Path(connection): Path<ConnectionId>,
    Json(asking): Json<Asking>,
) -> Result<Json<Syncs>, Failure> {
    let by = jobs::checked("by", asking.by, jobs::MAX_BY)?;
    let object = asking.object.as_ref();
    let control = &sources.control;
    let objects = control.sync(&connection, object, by, asking.limit).await?;
    Ok(page(&sources, &connection, objects))
}
