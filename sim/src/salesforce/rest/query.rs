//! Queries and their pages.

use std::collections::HashMap;

use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::super::cursors::Cursor;
use super::super::org::Org;
use super::super::soql;
use super::error::ApiError;
use super::{Caller, Caught, Shared, option, permissions};

/// The bounds of `batchSize`.
const BATCH: std::ops::RangeInclusive<usize> = 200..=2000;

type Answer = Result<Json<Value>, ApiError>;

pub(super) async fn query(
    State(org): Shared,
    Extension(caller): Caught,
    Query(parameters): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Answer {
    answer(&org, &caller, &parameters, &headers, false)
}

pub(super) async fn query_all(
    State(org): Shared,
    Extension(caller): Caught,
    Query(parameters): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Answer {
    answer(&org, &caller, &parameters, &headers, true)
}

fn answer(
    org: &Org,
    caller: &Caller,
    parameters: &HashMap<String, String>,
    headers: &HeaderMap,
    all_rows: bool,
) -> Answer {
    let text = parameters
        .get("q")
        .filter(|text| !text.trim().is_empty())
        .ok_or_else(|| {
            ApiError::bad_request("MALFORMED_QUERY", "A query string has to be specified")
        })?;
    let now = org.clock.now();
    let object = soql::scope(text)?.object;
    let results = if permissions::is_about(&object) {
        if !org.views_setup() {
            return Err(permissions::unsupported(&object));
        }
        soql::run(&permissions::tables(org, &caller.user), text, false, now)?
    } else {
        soql::run(&org.store(), text, all_rows, now)?
    };
    if results.counts_only() {
        return Ok(Json(json!({
            "totalSize": results.len(),
            "done": true,
            "records": [],
        })));
    }
    let page = page_size(org, headers);
    if results.len() <= page {
        return Ok(Json(json!({
            "totalSize": results.len(),
            "done": true,
            "records": results.page(0, page, &caller.version),
        })));
    }
    let (id, cursor) = org.cursors.open(results, page, now);
    Ok(Json(show(&id, &cursor, 0, &caller.version)))
}

/// The next page; the same locator gives the same rows for as long as its cursor lives.
pub(super) async fn more(
    State(org): Shared,
    Extension(caller): Caught,
    Path((_, locator)): Path<(String, String)>,
) -> Answer {
    org.cursors
        .find(&locator, org.clock.now())
        .map(|(id, cursor, from)| Json(show(&id, &cursor, from, &caller.version)))
        .ok_or_else(|| ApiError::bad_request("INVALID_QUERY_LOCATOR", "invalid query locator"))
}

fn show(id: &str, cursor: &Cursor, from: usize, version: &str) -> Value {
    let next = from + cursor.page;
    let done = next >= cursor.results.len();
    let mut page = json!({
        "totalSize": cursor.results.len(),
        "done": done,
        "records": cursor.results.page(from, cursor.page, version),
    });
    if !done {
        // Also for queryAll the address says `query`.
        page["nextRecordsUrl"] = json!(format!("/services/data/v{version}/query/{id}-{next}"));
    }
    page
}

fn page_size(org: &Org, headers: &HeaderMap) -> usize {
    let asked = option(headers, "sforce-query-options", "batchSize")
        .and_then(|size| size.parse::<usize>().ok())
        .map_or(*BATCH.end(), |size| {
            size.clamp(*BATCH.start(), *BATCH.end())
        });
    asked.min(org.profile.page_size)
}
