//! Composite: up to 25 calls in one, each able to use what those before it answered.
//!
//! Source: REST API Developer Guide, "Composite". Each call is a transaction of its own: `allOrNone` is refused.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::{Extension, Json};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tower_service::Service;

use super::super::org::Org;
use super::error::ApiError;
use super::{Caller, Caught, Shared, json as parse};

const MOST_CALLS: usize = 25;

/// Marks a call that came within another: its caller is admitted and counted.
#[derive(Debug, Clone)]
pub(super) struct Within(pub Caller);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Calls {
    #[serde(default)]
    all_or_none: bool,
    /// Taken; calls are made in their order either way.
    #[serde(default, rename = "collateSubrequests")]
    _collate: bool,
    composite_request: Vec<Call>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Call {
    method: String,
    url: String,
    reference_id: String,
    body: Option<Value>,
    #[serde(default)]
    http_headers: Map<String, Value>,
}

/// `POST composite`.
pub(super) async fn composite(
    State(org): Shared,
    Extension(caller): Caught,
    Path(version): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let calls: Calls = parse(&headers, &body)?;
    check(&calls)?;
    let mut answers: Map<String, Value> = Map::new();
    let mut shown = Vec::new();
    for call in calls.composite_request {
        let (status, body) = match filled(&call, &answers) {
            Ok((url, body)) => run(&org, &caller, &version, &call, &url, body).await?,
            Err(message) => {
                let error = json!([{"errorCode": "PROCESSING_HALTED", "message": message}]);
                (StatusCode::BAD_REQUEST, error)
            }
        };
        shown.push(json!({
            "body": body,
            "httpHeaders": {},
            "httpStatusCode": status.as_u16(),
            "referenceId": call.reference_id,
        }));
        if status.is_success() {
            answers.insert(call.reference_id, body);
        }
    }
    Ok(Json(json!({"compositeResponse": shown})))
}

fn check(calls: &Calls) -> Result<(), ApiError> {
    let refused = |message: &str| Err(ApiError::bad_request("INVALID_INPUT", message));
    if calls.all_or_none {
        return refused("allOrNone of a composite is not simulated");
    }
    let calls = &calls.composite_request;
    if calls.is_empty() || calls.len() > MOST_CALLS {
        return refused("A composite holds 1 to 25 requests");
    }
    for (place, call) in calls.iter().enumerate() {
        let again = calls[..place]
            .iter()
            .any(|earlier| earlier.reference_id == call.reference_id);
        if again {
            return refused("Each referenceId must be used once");
        }
    }
    Ok(())
}

/// Address and body with what earlier answers give; the error names a reference that none does.
fn filled(call: &Call, answers: &Map<String, Value>) -> Result<(String, Option<Value>), String> {
    let url = fill(&call.url, answers)?;
    let body = match &call.body {
        Some(body) => Some(fill_all(body, answers)?),
        None => None,
    };
    Ok((url, body))
}

fn fill_all(value: &Value, answers: &Map<String, Value>) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => Value::String(fill(text, answers)?),
        Value::Array(values) => values
            .iter()
            .map(|value| fill_all(value, answers))
            .collect::<Result<_, _>>()?,
        Value::Object(map) => map
            .iter()
            .map(|(name, value)| Ok((name.clone(), fill_all(value, answers)?)))
            .collect::<Result<_, String>>()?,
        other => other.clone(),
    })
}

/// A text with its `@{reference.records[0].Id}` replaced.
fn fill(text: &str, answers: &Map<String, Value>) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, from)) = rest.split_once("@{") {
        let (path, after) = from
            .split_once('}')
            .ok_or_else(|| format!("Invalid reference specified in {text}"))?;
        filled.push_str(before);
        filled.push_str(&looked_up(path, answers)?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn looked_up(path: &str, answers: &Map<String, Value>) -> Result<String, String> {
    let unknown = || format!("Invalid reference specified. No value for {path} found");
    let pointer = path.replace('[', ".").replace(']', "");
    let mut steps = pointer.split('.');
    let first = steps.next().and_then(|name| answers.get(name));
    let mut value = first.ok_or_else(unknown)?;
    for step in steps {
        let found = match value {
            Value::Array(values) => step.parse::<usize>().ok().and_then(|at| values.get(at)),
            value => value.get(step),
        };
        value = found.ok_or_else(unknown)?;
    }
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        _ => Err(unknown()),
    }
}

/// Makes one of the calls.
async fn run(
    org: &Arc<Org>,
    caller: &Caller,
    version: &str,
    call: &Call,
    url: &str,
    body: Option<Value>,
) -> Result<(StatusCode, Value), ApiError> {
    let base = format!("/services/data/{version}/");
    let path = url.strip_prefix(&base);
    let nested = |path: &str| {
        let path = path.split('?').next().unwrap_or_default();
        path.trim_end_matches('/') == "composite"
    };
    if path.is_none_or(nested) {
        let message = format!("The URL must begin with {base} and name no composite: {url}");
        return Err(ApiError::bad_request("INVALID_INPUT", message));
    }
    let method = Method::from_bytes(call.method.as_bytes());
    let mut request = Request::builder()
        .method(method.unwrap_or_default())
        .uri(url.replace(' ', "+"));
    for (name, value) in &call.http_headers {
        if let Some(value) = value.as_str() {
            request = request.header(name, value);
        }
    }
    let body = match body {
        Some(body) => {
            request = request.header(CONTENT_TYPE, "application/json");
            Body::from(body.to_string())
        }
        None => Body::empty(),
    };
    let mut request = request
        .body(body)
        .map_err(|error| ApiError::bad_request("INVALID_INPUT", error.to_string()))?;
    request.extensions_mut().insert(Within(caller.clone()));
    let answer = match super::router(org).call(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    };
    let status = answer.status();
    // The org's own answers are in memory and can't fail.
    let bytes = to_bytes(answer.into_body(), usize::MAX)
        .await
        .unwrap_or_default();
    Ok((
        status,
        serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    ))
}
