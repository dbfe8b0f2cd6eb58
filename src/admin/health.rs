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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::control::Control;
    use crate::flow::board::Board;
    use crate::log::kafka::KafkaLog;
    use crate::log::kafka::settings::KafkaSettings;
    use crate::log::memory::MemoryLog;
    use crate::log::port::Log;
    use crate::runtime::clock::SystemClock;
    use crate::state::memory::MemoryState;
    use crate::target::memory::MemoryTarget;
    use crate::target::watched::Watched;
    use crate::telemetry::exposition::Exposition;

    fn sources(log: Arc<dyn Log>) -> Sources {
        let exposition = Exposition::new().unwrap();
        let target = Arc::new(Watched::new(
            Arc::new(MemoryTarget::default()),
            Vec::new(),
            Arc::new(SystemClock),
            exposition.metrics(),
        ));
        let (board, state): (Arc<Board>, Arc<MemoryState>) = (Arc::default(), Arc::default());
        let control = Control::new(
            Arc::clone(&state) as _,
            Arc::clone(&board),
            Arc::new(SystemClock),
            Some(Arc::clone(&target) as _),
            Vec::new(),
            Vec::new(),
        );
        Sources {
            board,
            control: Arc::new(control),
            clock: Arc::new(SystemClock),
            state,
            log,
            target,
            receivers: Arc::default(),
            desk: Arc::default(),
            callback: "http://localhost:8080/oauth/callback".into(),
            ready: Arc::new(AtomicBool::new(true)),
            exposition,
        }
    }

    #[tokio::test]
    async fn a_log_without_brokers_is_not_ready_and_named() {
        let settings = KafkaSettings::new("127.0.0.1:1");
        let log = Arc::new(
            KafkaLog::open(settings, &crate::telemetry::metrics::Metrics::none()).unwrap(),
        );
        let until = Instant::now() + Duration::from_secs(30);
        while log.waiting().is_none() {
            assert!(Instant::now() < until, "librdkafka does not tell");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let sources = sources(log);
        let (status, _) = ready(State(sources.clone())).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let told = serde_json::to_value(health(State(sources)).await.0).unwrap();
        let cause = told["log"]["waiting"]["cause"].as_str().unwrap();
        assert!(cause.contains("127.0.0.1:1"), "{told:#}");
        assert!(told["log"]["waiting"]["since"].is_string(), "{told:#}");
        assert!(told["target"]["waiting"].is_null(), "{told:#}");
    }

    #[tokio::test]
    async fn a_log_that_works_is_ready() {
        let sources = sources(Arc::new(MemoryLog::new(Arc::new(SystemClock))));
        assert_eq!(ready(State(sources.clone())).await.0, StatusCode::OK);
        sources.ready.store(false, Ordering::Release);
        let (status, _) = ready(State(sources)).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    }
}
