//! Authorising a connection: a link for a person, what comes back from it, and its end.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, body::Body};
use serde::{Deserialize, Serialize};

use std::sync::Arc;

use crate::config::admin::CALLBACK;
use crate::crm::port::OrgIdentity;
use crate::crm::port::consent::{Callback, Desk, Disconnected, Ended};
use crate::fault::{Fault, FaultKind};
use crate::model::name::ConnectionId;
use crate::runtime::shutdown::StopSignal;
use crate::secret::Secret;

use super::Sources;
use super::reply::Failure;

/// A link and where it comes back to.
#[derive(Serialize)]
pub(super) struct Link {
    link: String,
    callback: String,
}

/// What a CRM puts into the callback's address (RFC 6749, section 4.1.2).
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    state: String,
    code: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

impl From<Answer> for Callback {
    fn from(answer: Answer) -> Self {
        let error = answer.error.map(|error| {
            let more = answer.error_description.unwrap_or_default();
            format!("{error} {more}").trim().to_owned()
        });
        Self {
            state: answer.state,
            code: answer.code.map(Secret::new),
            error,
        }
    }
}

/// `POST /api/v1/connections/{connection}/authorization`.
pub(super) async fn ask(
    State(sources): State<Sources>,
    Path(connection): Path<String>,
) -> Result<Json<Link>, Failure> {
    let connection = ConnectionId::new(connection);
    Ok(Json(Link {
        link: sources.desk.link(&connection, &sources.callback).await?,
        callback: sources.callback.to_string(),
    }))
}

/// `GET` of the same: how the newest link ended.
pub(super) async fn ended(
    State(sources): State<Sources>,
    Path(connection): Path<String>,
) -> Result<Json<Ended>, Failure> {
    let ended = sources.desk.ended(&ConnectionId::new(&connection));
    let none = || {
        Fault::new(
            FaultKind::Missing,
            format!("no link was made for {connection}"),
        )
    };
    Ok(Json(ended.ok_or_else(none)?))
}

/// `DELETE` of the same.
pub(super) async fn disconnect(
    State(sources): State<Sources>,
    Path(connection): Path<String>,
) -> Result<Json<Disconnected>, Failure> {
    let connection = ConnectionId::new(connection);
    Ok(Json(sources.desk.disconnect(&connection).await?))
}

/// The callback alone. It carries its own proof, so it needs no token.
pub fn callback_router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route(CALLBACK, get(callback))
        .with_state(desk)
}

/// Takes what came back in a callback's query.
///
/// # Errors
/// `Config` for a query that can't be read; else as [`Desk::callback`].
pub async fn take(desk: &Desk, query: &str) -> Result<(ConnectionId, OrgIdentity), Fault> {
    let unreadable = |_| Fault::new(FaultKind::Config, "the callback's query can't be read");
    let uri: axum::http::Uri = format!("/?{query}")
        .parse()
        .map_err(|_| Fault::new(FaultKind::Config, "the callback's query can't be read"))?;
    let Query(answer) = Query::<Answer>::try_from_uri(&uri).map_err(unreadable)?;
    desk.callback(answer.into()).await
}

/// Serves the callback alone until the stop signal.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: tokio::net::TcpListener,
    desk: Arc<Desk>,
    stop: StopSignal,
) -> Result<(), Fault> {
    axum::serve(listener, callback_router(desk))
        .with_graceful_shutdown(async move { stop.stopped().await })
        .await
        .map_err(|error| Fault::new(FaultKind::Unavailable, "serving the callback").source(error))
}

async fn callback(State(desk): State<Arc<Desk>>, Query(answer): Query<Answer>) -> Response {
    match desk.callback(answer.into()).await {
        Ok((connection, org)) => {
            let text = format!(
                "Connection {connection} is authorised for org {}. You may close this page.",
                org.org_id
            );
            page(StatusCode::OK, &text)
        }
        Err(fault) => {
            tracing::warn!(error = fault.report(), "an authorisation was refused");
            page(StatusCode::BAD_REQUEST, &fault.report())
        }
    }
}

/// A page that no browser keeps, frames, or tells others about: its address holds a code.
fn page(status: StatusCode, text: &str) -> Response {
    let escaped = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let body = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Tributary</title><p>{escaped}</p></html>\n"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
    ];
    (status, headers, Body::from(body)).into_response()
}
