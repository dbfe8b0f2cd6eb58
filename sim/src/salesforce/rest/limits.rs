//! `GET /limits`: what is left of the org's allowances.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Shared;
use super::error::ApiError;

pub(super) async fn limits(State(org): Shared) -> Result<Json<Value>, ApiError> {
    if !org.views_setup() {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "INSUFFICIENT_ACCESS",
            "insufficient access rights on cross-reference id",
        ));
    }
    let now = org.clock.now();
    let max = org.counters.api_limit();
    let used = org.counters.used(now);
    let jobs = org.bulk.usage(now);
    let streaming = org.streaming.usage(now);
    let left = |max: u64, used: u64| json!({"Max": max, "Remaining": max.saturating_sub(used)});
    Ok(Json(json!({
        "DailyApiRequests": left(max, used),
        "DailyBulkV2QueryJobs": left(jobs.1, jobs.0),
        "DailyBulkV2QueryFileStorageMB": left(976_562, 0),
        "DailyDeliveredPlatformEvents": left(streaming.max_events, streaming.events),
        "MonthlyPlatformEventsUsageEntitlement": left(0, 0),
        "StreamingApiConcurrentClients": left(streaming.max_clients, streaming.clients),
    })))
}
