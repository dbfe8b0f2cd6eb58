//! The calls on query jobs.
#![allow(clippy::unused_async, reason = "axum's handlers are async")]

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Json};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::org::Org;
use super::super::rest::error::ApiError;
use super::super::rest::{Caller, Caught, Shared, json as parse};
use super::super::soql;
use super::job::{Job, JobState, Order};
use super::{Compression, csv};

const DELIMITERS: [(&str, u8); 6] = [
    ("BACKQUOTE", b'`'),
    ("CARET", b'^'),
    ("COMMA", b','),
    ("PIPE", b'|'),
    ("SEMICOLON", b';'),
    ("TAB", b'\t'),
];
const LINE_ENDINGS: [(&str, &str); 2] = [("LF", "\n"), ("CRLF", "\r\n")];
/// Pages that one call names.
const MOST_PAGES: usize = 5;
/// The first version that names pages.
const PAGES_SINCE: f64 = 58.0;

type One = Path<(String, String)>;
type Parameters = Query<HashMap<String, String>>;

/// Paths below a version, and what answers them.
pub(in super::super) fn routes() -> Vec<(&'static str, MethodRouter<Arc<Org>>)> {
    vec![
        ("/jobs/query", post(create).get(list)),
        ("/jobs/query/{job}", get(read).patch(abort).delete(delete)),
        ("/jobs/query/{job}/results", get(results)),
        ("/jobs/query/{job}/resultPages", get(result_pages)),
        ("/jobs/query/{job}/resultpages", get(result_pages)),
    ]
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Asked {
    operation: String,
    query: String,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    column_delimiter: Option<String>,
    #[serde(default)]
    line_ending: Option<String>,
}

async fn create(
    State(org): Shared,
    Extension(caller): Caught,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    parse(&headers, &body).and_then(|asked| answer_create(&org, &caller, &asked))
}

fn answer_create(org: &Org, caller: &Caller, asked: &Asked) -> Result<Json<Value>, ApiError> {
    let invalid = |message: String| ApiError::bad_request("INVALIDJOB", message);
    let (operation, all_rows) = match asked.operation.as_str() {
        "query" => ("query", false),
        "queryAll" => ("queryAll", true),
        other => return Err(invalid(format!("Operation not supported: {other}"))),
    };
    if let Some(kind) = asked.content_type.as_deref().filter(|kind| *kind != "CSV") {
        return Err(invalid(format!("Content type not supported: {kind}")));
    }
    let wanted = asked.column_delimiter.as_deref().unwrap_or("COMMA");
    let delimiter = DELIMITERS.into_iter().find(|(name, _)| *name == wanted);
    let delimiter = delimiter.ok_or_else(|| invalid(format!("Unknown delimiter: {wanted}")))?;
    let wanted = asked.line_ending.as_deref().unwrap_or("LF");
    let line_ending = LINE_ENDINGS.into_iter().find(|(name, _)| *name == wanted);
    let line_ending =
        line_ending.ok_or_else(|| invalid(format!("Unknown line ending: {wanted}")))?;

    let now = org.clock.now();
    let scope = soql::scope(&asked.query)?;
    if org.bulk.is_unsupported(&scope.object) {
        return Err(ApiError::bad_request(
            "INVALIDENTITY",
            format!(
                "Entity '{}' is not supported by the Bulk API.",
                scope.object
            ),
        ));
    }
    if scope.aggregates || scope.offset {
        return Err(ApiError::bad_request(
            "INVALIDJOB",
            "Aggregate Relationships and OFFSET not supported in Bulk Query",
        ));
    }
    let results = soql::run(&org.store(), &asked.query, all_rows, now)?;
    if results.has_compounds() {
        return Err(ApiError::bad_request(
            "API_ERROR",
            "Selecting compound data not supported in Bulk Query",
        ));
    }
    let order = Order {
        operation,
        object: results.object().to_owned(),
        user: caller.user.id.clone(),
        version: caller.version.clone(),
        delimiter,
        line_ending,
        chunked: !scope.ordered && !scope.limited,
        results,
    };
    let job = org.bulk.create(order, now).ok_or_else(|| {
        ApiError::bad_request(
            "LIMIT_EXCEEDED",
            "Max bulk v2 query jobs reached for the last 24 hours",
        )
    })?;
    Ok(Json(job.brief(JobState::UploadComplete)))
}

async fn list(State(org): Shared) -> Json<Value> {
    let now = org.clock.now();
    let jobs: Vec<_> = org
        .bulk
        .all()
        .iter()
        .map(|job| job.brief(job.state(now)))
        .collect();
    Json(json!({"done": true, "records": jobs, "nextRecordsUrl": null}))
}

fn found(org: &Org, id: &str) -> Result<Arc<Job>, ApiError> {
    org.bulk
        .find(id, org.clock.now())
        .ok_or_else(ApiError::not_found)
}

async fn read(State(org): Shared, Path((_, id)): One) -> Result<Json<Value>, ApiError> {
    found(&org, &id).map(|job| Json(job.whole(org.clock.now())))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    state: String,
}

async fn abort(
    State(org): Shared,
    Path((_, id)): One,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let job = found(&org, &id)?;
    let change: Change = parse(&headers, &body)?;
    if change.state != "Aborted" {
        return Err(wrong_state(&format!(
            "A query job can't be set to {}",
            change.state
        )));
    }
    if !job.abort(org.clock.now()) {
        return Err(wrong_state("Aborting already terminated Job not allowed"));
    }
    Ok(Json(job.brief(JobState::Aborted)))
}

fn wrong_state(message: &str) -> ApiError {
    ApiError::bad_request("INVALIDJOBSTATE", message)
}

async fn delete(State(org): Shared, Path((_, id)): One) -> Result<StatusCode, ApiError> {
    let job = found(&org, &id)?;
    if !job.state(org.clock.now()).is_terminal() {
        return Err(wrong_state(
            "Deleting a job that is not over is not allowed",
        ));
    }
    org.bulk.remove(&job.id);
    Ok(StatusCode::NO_CONTENT)
}

/// A job whose results can be read, by the version it was created with.
fn complete(org: &Org, caller: &Caller, id: &str) -> Result<Arc<Job>, ApiError> {
    let job = found(org, id)?;
    if job.order.version != caller.version {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "INVALIDVERSION",
            format!(
                "The job was created in API version {} and can't be read in {}",
                job.order.version, caller.version
            ),
        ));
    }
    if job.state(org.clock.now()) != JobState::JobComplete {
        return Err(wrong_state("The job has no results: it is not complete"));
    }
    Ok(job)
}

/// Where the page of a locator begins.
fn start(job: &Job, parameters: &HashMap<String, String>) -> Result<usize, ApiError> {
    let Some(locator) = parameters.get("locator") else {
        return Ok(0);
    };
    URL_SAFE_NO_PAD
        .decode(locator)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| text.parse().ok())
        .filter(|from| *from < job.order.results.len())
        .ok_or_else(|| ApiError::bad_request("INVALIDLOCATOR", "The locator is not valid"))
}

fn locator(from: usize) -> String {
    URL_SAFE_NO_PAD.encode(from.to_string())
}

async fn results(
    State(org): Shared,
    Extension(caller): Caught,
    Path((_, id)): One,
    Query(parameters): Parameters,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let job = complete(&org, &caller, &id)?;
    let from = start(&job, &parameters)?;
    let count = match parameters.get("maxRecords") {
        None => org.bulk.page,
        Some(text) => text
            .parse::<usize>()
            .ok()
            .filter(|count| *count > 0)
            .map(|count| count.min(org.bulk.page))
            .ok_or_else(|| {
                ApiError::bad_request("INVALID_PARAMETER", "maxRecords must be above zero")
            })?,
    };
    let total = job.order.results.len();
    let rows = count.min(total - from.min(total));
    let next = from + rows;
    let next = if next < total {
        locator(next)
    } else {
        "null".to_owned()
    };
    let failed = |error: std::io::Error| {
        tracing::error!(%error, "writing the results of a job failed");
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "API_ERROR",
            "An unexpected error occurred.",
        )
    };
    let mut body =
        csv::page(&job.order, from, rows, org.bulk.has_empty_bodies()).map_err(failed)?;
    let zipped = match org.bulk.compression() {
        Compression::Always => true,
        Compression::Never => false,
        Compression::Asked => accepts_gzip(&headers),
    };
    let mut answer = HeaderMap::new();
    answer.insert(CONTENT_TYPE, HeaderValue::from_static("text/csv"));
    let records = HeaderName::from_static("sforce-numberofrecords");
    answer.insert(records, HeaderValue::from(rows));
    if let Ok(next) = HeaderValue::from_str(&next) {
        answer.insert(HeaderName::from_static("sforce-locator"), next);
    }
    if zipped {
        body = csv::gzip(&body).map_err(failed)?;
        answer.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok((answer, body).into_response())
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().starts_with("gzip"))
}

/// Up to five pages, to be read side by side.
async fn result_pages(
    State(org): Shared,
    Extension(caller): Caught,
    Path((_, id)): One,
    Query(parameters): Parameters,
) -> Result<Json<Value>, ApiError> {
    if caller.version.parse::<f64>().unwrap_or_default() < PAGES_SINCE {
        return Err(ApiError::not_found());
    }
    let job = complete(&org, &caller, &id)?;
    let from = start(&job, &parameters)?;
    let (page, total) = (org.bulk.page, job.order.results.len());
    let base = format!("/services/data/v{}/jobs/query/{}", caller.version, job.id);
    let starts = (from..total.max(1)).step_by(page);
    let pages: Vec<_> = starts
        .take(MOST_PAGES)
        .map(|from| {
            let place = if from == 0 {
                String::new()
            } else {
                format!("?locator={}", locator(from))
            };
            json!({"resultUrl": format!("{base}/results{place}")})
        })
        .collect();
    let next = from + MOST_PAGES * page;
    let mut answer = json!({"resultPages": pages, "done": next >= total});
    if next < total {
        let url = format!("{base}/resultpages?locator={}", locator(next));
        answer["nextRecordsUrl"] = json!(url);
    }
    Ok(Json(answer))
}
