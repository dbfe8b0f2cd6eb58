//! Descriptions of a connection's objects: how old they are, what is lost, and having them read anew.

use axum::Json;
use axum::extract::{Path, State};
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::control::Described;
use crate::model::name::{ConnectionId, FieldName, ObjectName};

use super::Sources;
use super::reply::Failure;

/// The descriptions of a connection's objects.
#[derive(Serialize)]
pub(super) struct Metadata {
    objects: Vec<Object>,
    /// When somebody asked to have them read anew.
    asked_at: Option<DateTime<Utc>>,
}

#[derive(Serialize)]
struct Object {
    object: ObjectName,
    described_at: Option<DateTime<Utc>>,
    lost_fields: Vec<FieldName>,
}

fn page((objects, asked_at): (Vec<Described>, Option<DateTime<Utc>>)) -> Json<Metadata> {
    let objects = objects.into_iter().map(|described| Object {
        object: described.object,
        described_at: described.read_at,
        lost_fields: described.lost,
    });
    Json(Metadata {
        objects: objects.collect(),
        asked_at,
    })
}

/// `GET /api/v1/connections/{connection}/metadata`.
pub(super) async fn list(
    State(sources): State<Sources>,
    Path(connection): Path<ConnectionId>,
) -> Result<Json<Metadata>, Failure> {
    Ok(page(sources.control.metadata(&connection).await?))
}

/// `POST /api/v1/connections/{connection}/metadata/refresh`.
pub(super) async fn refresh(
    State(sources): State<Sources>,
    Path(connection): Path<ConnectionId>,
) -> Result<Json<Metadata>, Failure> {
    Ok(page(sources.control.refresh(&connection).await?))
}
