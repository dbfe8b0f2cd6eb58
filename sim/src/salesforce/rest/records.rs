//! One record at a time: read, create, update, delete.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::header::IF_UNMODIFIED_SINCE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::super::ids;
use super::super::org::Org;
use super::super::schema::Object;
use super::super::soql::{attributes, rest_value};
use super::super::store::Record;
use super::super::transaction::{Operation, Transaction, Verb};
use super::error::ApiError;
use super::{Caller, Caught, Shared, json as parse, parse_http_date};

type One = Path<(String, String, String)>;

pub(super) async fn read(
    State(org): Shared,
    Extension(caller): Caught,
    Path((_, object, id)): One,
    Query(parameters): Query<HashMap<String, String>>,
) -> Result<Json<Value>, ApiError> {
    answer_read(&org, &caller, &object, &id, &parameters)
}

pub(super) fn answer_read(
    org: &Org,
    caller: &Caller,
    object: &str,
    id: &str,
    parameters: &HashMap<String, String>,
) -> Result<Json<Value>, ApiError> {
    let store = org.store();
    let table = store.table(object).ok_or_else(ApiError::not_found)?;
    let id = known_id(id)?;
    let record = table
        .at(&id, org.clock.now())
        .ok_or_else(ApiError::not_found)?;
    if table.is_deleted(record) {
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "ENTITY_IS_DELETED",
            "entity is deleted",
        ));
    }
    let places = match parameters.get("fields") {
        Some(names) => places(&table.object, names.split(',').map(str::trim))?,
        None => visible(&table.object),
    };
    Ok(Json(show(&table.object, record, &places, &caller.version)))
}

/// A record with these fields.
pub(super) fn show(object: &Object, record: &Record, places: &[usize], version: &str) -> Value {
    let mut shown = Map::new();
    shown.insert("attributes".to_owned(), attributes(object, record, version));
    for place in places {
        let name = object.fields[*place].name.clone();
        shown.insert(name, rest_value(object, record, *place));
    }
    Value::Object(shown)
}

/// The places of named fields.
pub(super) fn places<'a>(
    object: &Object,
    names: impl Iterator<Item = &'a str>,
) -> Result<Vec<usize>, ApiError> {
    names
        .map(|name| {
            object.field(name).map(|(place, _)| place).ok_or_else(|| {
                ApiError::bad_request(
                    "INVALID_FIELD",
                    format!("No such column '{name}' on sobject of type {}", object.name),
                )
            })
        })
        .collect()
}

fn visible(object: &Object) -> Vec<usize> {
    let fields = object.fields.iter().enumerate();
    fields
        .filter(|(_, field)| field.visible)
        .map(|(place, _)| place)
        .collect()
}

fn known_id(id: &str) -> Result<String, ApiError> {
    ids::normalise(id).ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            format!("Provided external ID field does not exist or is not accessible: {id}"),
        )
    })
}

pub(super) async fn create(
    State(org): Shared,
    Extension(caller): Caught,
    Path((_, object)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    parse(&headers, &body)
        .and_then(|fields| write(&org, &caller, Verb::Create, &object, None, fields, None))
        .map(|id| {
            let answer = json!({"id": id, "success": true, "errors": []});
            (StatusCode::CREATED, Json(answer)).into_response()
        })
}

pub(super) async fn update(
    State(org): Shared,
    Extension(caller): Caught,
    Path((_, object, id)): One,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let since = headers
        .get(IF_UNMODIFIED_SINCE)
        .and_then(|value| value.to_str().ok())
        .and_then(parse_http_date);
    parse(&headers, &body)
        .and_then(|fields| {
            let id = Some(known_id(&id)?);
            write(&org, &caller, Verb::Update, &object, id, fields, since)
        })
        .map(|_| StatusCode::NO_CONTENT)
}

pub(super) async fn delete(
    State(org): Shared,
    Extension(caller): Caught,
    Path((_, object, id)): One,
) -> Result<StatusCode, ApiError> {
    known_id(&id)
        .and_then(|id| {
            write(
                &org,
                &caller,
                Verb::Delete,
                &object,
                Some(id),
                Map::new(),
                None,
            )
        })
        .map(|_| StatusCode::NO_CONTENT)
}

fn write(
    org: &Arc<Org>,
    caller: &Caller,
    verb: Verb,
    object: &str,
    id: Option<String>,
    mut fields: Map<String, Value>,
    unmodified_since: Option<chrono::DateTime<chrono::Utc>>,
) -> Result<String, ApiError> {
    let object = org.object(object).ok_or_else(ApiError::not_found)?;
    fields.remove("attributes");
    if fields.keys().any(|name| name.eq_ignore_ascii_case("Id")) {
        return Err(ApiError::bad_request(
            "INVALID_FIELD",
            "The Id field should not be specified in the sobject data.",
        ));
    }
    let outcome = org.transact(Transaction {
        user: caller.user.id.clone(),
        origin: caller.origin(),
        all_or_none: true,
        operations: vec![Operation {
            verb,
            object: object.name.clone(),
            id,
            fields,
            unmodified_since,
            external_id: None,
            update_only: false,
        }],
    })?;
    match outcome.results.into_iter().next() {
        Some(result) => result.map_err(ApiError::from),
        None => Err(ApiError::not_found()),
    }
}
