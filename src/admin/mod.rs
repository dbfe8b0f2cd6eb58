//! The daemon's HTTP side: metrics, health, the truth per connection and job, and the page.

pub mod consent;
mod health;
mod jobs;
mod metadata;
mod page;
mod rematch;
mod replays;
mod reply;
mod reviews;
mod rows;
mod runs;
mod syncs;
mod webhooks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;

use crate::control::Control;
use crate::crm::port::consent::Desk;
use crate::fault::{Fault, FaultKind};
use crate::flow::board::Board;
use crate::log::port::Log;
use crate::runtime::clock::Clock;
use crate::runtime::shutdown::StopSignal;
use crate::secret::Secret;
use crate::state::port::State as StateStore;
use crate::target::watched::Watched;
use crate::telemetry::exposition::Exposition;

const MAX_BODY: usize = 64 * 1024;
const TIMEOUT: Duration = Duration::from_secs(30);

/// What the pages show.
#[derive(Clone)]
pub struct Sources {
    /// The board.
    pub board: Arc<Board>,
    /// Who gives orders to jobs.
    pub control: Arc<Control>,
    /// The metrics' text.
    pub exposition: Exposition,
    /// The date.
    pub clock: Arc<dyn Clock>,
    /// The state.
    pub state: Arc<dyn StateStore>,
    /// The log.
    pub log: Arc<dyn Log>,
    /// The target.
    pub target: Arc<Watched>,
    /// Where CRMs push what changed.
    pub receivers: webhooks::Receivers,
    /// Set once the daemon is up; cleared when it drains.
    pub ready: Arc<std::sync::atomic::AtomicBool>,
    /// Who asks people to authorise connections.
    pub desk: Arc<Desk>,
    /// Where the CRM sends them back to.
    pub callback: Arc<str>,
}

/// Opens the listener.
///
/// # Errors
/// `Config` for an address that can't be bound, or that others can reach without a token.
pub async fn bind(listen: SocketAddr, token: Option<&Secret>) -> Result<TcpListener, Fault> {
    if !listen.ip().is_loopback() && token.is_none() {
        return Err(Fault::new(
            FaultKind::Config,
            format!(
                "`[admin] listen = \"{listen}\"` can be reached by others, and no token is set"
            ),
        )
        .remedy("set `[admin] token = { env = \"…\" }`, or listen on 127.0.0.1"));
    }
    TcpListener::bind(listen).await.map_err(|error| {
        Fault::new(
            FaultKind::Config,
            format!("binding `[admin] listen = \"{listen}\"`"),
        )
        .source(error)
        .remedy("stop what uses the port, or set another `[admin] listen`")
    })
}

/// Serves until the stop signal, then lets requests end.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    sources: Sources,
    token: Option<Secret>,
    stop: StopSignal,
) -> Result<(), Fault> {
    axum::serve(listener, router(sources, token))
        .with_graceful_shutdown(async move { stop.stopped().await })
        .await
        .map_err(|error| Fault::new(FaultKind::Unavailable, "serving HTTP").source(error))
}

/// All routes. Without a token only loopback can reach them; with one, everything needs it but the two probes, the
/// callback of an authorisation, and the webhooks, which carry secrets of their own.
pub fn router(sources: Sources, token: Option<Secret>) -> Router {
    let guarded = Router::new()
        .route("/", get(page::page))
        .route("/metrics", get(metrics))
        .route("/api/v1/health", get(health::health))
        .route("/api/v1/holes", get(health::holes))
        .route("/api/v1/rows/{table}", get(rows::rows))
        .route("/api/v1/runs", get(runs::list))
        .route("/api/v1/reviews", get(reviews::list))
        .route(
            "/api/v1/reviews/{connection}/{object}/{record}",
            post(reviews::decide),
        )
        .route("/api/v1/bindings", get(reviews::bindings))
        .route("/api/v1/jobs", get(jobs::list))
        .route("/api/v1/jobs/{connection}/{job}/pause", post(jobs::pause))
        .route("/api/v1/jobs/{connection}/{job}/resume", post(jobs::resume))
        .route(
            "/api/v1/jobs/{connection}/{job}/rematch",
            get(rematch::bounds).post(rematch::page),
        )
        .route(
            "/api/v1/jobs/{connection}/{job}/replay",
            post(replays::tell),
        )
        .route(
            "/api/v1/connections/{connection}/syncs",
            get(syncs::list).post(syncs::ask),
        )
        .route(
            "/api/v1/connections/{connection}/metadata",
            get(metadata::list),
        )
        .route(
            "/api/v1/connections/{connection}/metadata/refresh",
            post(metadata::refresh),
        )
        .route(
            "/api/v1/connections/{connection}/authorization",
            get(consent::ended)
                .post(consent::ask)
                .delete(consent::disconnect),
        )
        .layer(middleware::from_fn_with_state(
            token.map(Arc::new),
            authorize,
        ));
    let webhooks = webhooks::routes(Arc::clone(&sources.receivers));
    let callback = consent::callback_router(Arc::clone(&sources.desk));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(health::ready))
        .merge(guarded)
        .layer(RequestBodyLimitLayer::new(MAX_BODY))
        .with_state(sources)
        .merge(webhooks)
        .merge(callback)
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            TIMEOUT,
        ))
}

async fn authorize(
    State(token): State<Option<Arc<Secret>>>,
    request: Request,
    next: Next,
) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    match (&token, given) {
        (None, _) => next.run(request).await,
        (Some(token), Some(given)) if token.matches(given) => next.run(request).await,
        _ => (
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, "Bearer")],
            "send the token of `[admin] token` as `Authorization: Bearer …`\n",
        )
            .into_response(),
    }
}

async fn metrics(State(sources): State<Sources>) -> impl IntoResponse {
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        sources.exposition.render(),
    )
}
