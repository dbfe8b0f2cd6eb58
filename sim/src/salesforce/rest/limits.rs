//! `GET /limits`: what is left of the org's allowances.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Shared;

/// Delivered events a day, of an Enterprise org.
const DAILY_EVENTS: u64 = 25_000;

pub(super) async fn limits(State(org): Shared) -> Json<Value> {
    let max = org.counters.api_limit();
    let used = org.counters.used(org.clock.now());
    let delivered = org.counters.delivered();
    let left = |max: u64, used: u64| json!({"Max": max, "Remaining": max.saturating_sub(used)});
    Json(json!({
        "DailyApiRequests": left(max, used),
        "DailyBulkV2QueryJobs": left(10_000, 0),
        "DailyBulkV2QueryFileStorageMB": left(976_562, 0),
        "DailyDeliveredPlatformEvents": left(DAILY_EVENTS, delivered),
        "MonthlyPlatformEventsUsageEntitlement": left(0, 0),
        "StreamingApiConcurrentClients": left(1000, 0),
    }))
}
