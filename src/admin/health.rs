//! Health: whether the daemon works, and the truth per connection, object and job.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::flow::board::Picture;
use crate::model::name::ConnectionId;
use crate::model::waiting::Waiting;
use crate::state::port::Hole;

use super::Sources;
use super::reply::Failure;

/// Ready when config, state, log and HTTP work. A revoked org never takes the daemon out of service, nor does a target
/// that is away: changes are kept for it.
pub(super) async fn ready(State(sources): State<Sources>) -> (StatusCode, &'static str) {
    let away = |what| (StatusCode::SERVICE_UNAVAILABLE, what);
    if !sources.ready.load(Ordering::Acquire) {
        return away("starting or draining\n");
    }
    if sources.log.waiting().is_some() {
        return away("the log waits for its brokers\n");
    }
    match sources.state.holes(None, false).await {
        Ok(_) => (StatusCode::OK, "ready\n"),
        Err(_) => away("state can't be read\n"),
    }
}

#[derive(Serialize)]
pub(super) struct Health {
    version: &'static str,
    log: Footing,
    target: Footing,
    #[serde(flatten)]
    picture: Picture,
}

/// What the daemon stands on.
#[derive(Serialize)]
struct Footing {
    /// Null while it answers.
    waiting: Option<Waiting>,
}

pub(super) async fn health(State(sources): State<Sources>) -> Json<Health> {
    Json(Health {
        version: env!("CARGO_PKG_VERSION"),
        log: Footing {
            waiting: sources.log.waiting(),
        },
        target: Footing {
            waiting: sources.target.waiting(),
        },
        picture: sources.board.picture(),
    })
}

#[derive(Deserialize)]
pub(super) struct HolesQuery {
    connection: Option<String>,
    #[serde(default)]
    all: bool,
}

pub(super) async fn holes(
    State(sources): State<Sources>,
    Query(query): Query<HolesQuery>,
) -> Result<Json<Vec<Hole>>, Failure> {
    let connection = query.connection.map(ConnectionId::new);
    Ok(Json(
        sources.state.holes(connection.as_ref(), query.all).await?,
    ))
}
