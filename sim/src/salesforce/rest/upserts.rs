//! Records by external id: read, upserted one at a time and up to 200 at once.

use std::collections::HashMap;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::super::org::Org;
use super::super::related::{having, key};
use super::super::schema::Object;
use super::super::transaction::{Operation, Outcome, RowError, Transaction, Verb};
use super::collections::{self, Rows};
use super::error::ApiError;
use super::{Caller, Caught, Shared, json as parse, records};

/// From here on an update answers with a body.
const TOLD_SINCE: f64 = 46.0;

type One = Path<(String, String, String, String)>;

/// `PATCH sobjects/{object}/{field}/{value}`.
pub(super) async fn upsert(
    State(org): Shared,
    Extension(caller): Caught,
    Path((_, object, field, value)): One,
    Query(parameters): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let mut fields: Map<String, Value> = parse(&headers, &body)?;
    fields.remove("attributes");
    let object = org.object(&object).ok_or_else(ApiError::not_found)?;
    let same = |name: &String| name.eq_ignore_ascii_case(&field);
    if fields
        .keys()
        .any(|name| same(name) || name.eq_ignore_ascii_case("Id"))
    {
        return Err(ApiError::bad_request(
            "INVALID_FIELD",
            format!("The {field} field should not be specified in the sobject data."),
        ));
    }
    let ids = found(&org, &object, &field, &value)?;
    if ids.len() > 1 {
        return Ok(choices(&object, &ids, &caller));
    }
    let update_only = parameters
        .get("updateOnly")
        .is_some_and(|value| value == "true");
    let operation = Operation {
        verb: Verb::Upsert,
        object: object.name.clone(),
        id: None,
        fields,
        unmodified_since: None,
        external_id: Some((field, json!(value))),
        update_only,
    };
    let outcome = run(&org, &caller, true, vec![operation])?;
    let (result, created) = outcome
        .results
        .into_iter()
        .zip(outcome.created)
        .next()
        .ok_or_else(ApiError::not_found)?;
    let id = result.map_err(|error| match error.code {
        "NOT_FOUND" => ApiError::not_found(),
        _ => ApiError::from(error),
    })?;
    let status = match created {
        true => StatusCode::CREATED,
        false if caller.version.parse::<f64>().unwrap_or_default() < TOLD_SINCE => {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        false => StatusCode::OK,
    };
    let answer = json!({"id": id, "success": true, "errors": [], "created": created});
    Ok((status, Json(answer)).into_response())
}

/// `GET sobjects/{object}/{field}/{value}`.
pub(super) async fn read(
    State(org): Shared,
    Extension(caller): Caught,
    Path((_, object, field, value)): One,
) -> Result<Response, ApiError> {
    let object = org.object(&object).ok_or_else(ApiError::not_found)?;
    let ids = found(&org, &object, &field, &value)?;
    match ids.as_slice() {
        [id] => records::answer_read(&org, &caller, &object.name, id, &HashMap::new())
            .map(IntoResponse::into_response),
        [] => Err(ApiError::not_found()),
        several => Ok(choices(&object, several, &caller)),
    }
}

fn found(org: &Org, object: &Object, field: &str, value: &str) -> Result<Vec<String>, ApiError> {
    let (place, value) = key(object, field, &json!(value)).map_err(ApiError::from)?;
    let store = org.store();
    let table = store.table(&object.name).ok_or_else(ApiError::not_found)?;
    Ok(having(table, place, &value)
        .iter()
        .map(ToString::to_string)
        .collect())
}

/// An external id that several records have: their addresses.
fn choices(object: &Object, ids: &[String], caller: &Caller) -> Response {
    let url = |id| {
        format!(
            "/services/data/v{}/sobjects/{}/{id}",
            caller.version, object.name
        )
    };
    let urls: Vec<_> = ids.iter().map(url).collect();
    (StatusCode::MULTIPLE_CHOICES, Json(json!(urls))).into_response()
}

/// `PATCH composite/sobjects/{object}/{field}`.
pub(super) async fn upsert_all(
    State(org): Shared,
    Extension(caller): Caught,
    Path((_, object, field)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let rows: Rows = parse(&headers, &body)?;
    collections::check_count(rows.records.len())?;
    let object = org.object(&object).ok_or_else(ApiError::not_found)?;
    if !field.eq_ignore_ascii_case("Id") {
        let known = object
            .field(&field)
            .is_some_and(|(_, field)| field.external_id);
        if !known {
            let message = format!("{field} is no external ID field of {}", object.name);
            return Err(ApiError::bad_request("INVALID_FIELD", message));
        }
    }
    let operations = rows
        .records
        .into_iter()
        .map(|row| operation(&object, &field, row))
        .collect::<Result<Vec<_>, _>>()?;
    let outcome = run(&org, &caller, rows.all_or_none, operations)?;
    let rows: Vec<_> = outcome
        .results
        .iter()
        .zip(outcome.created)
        .map(|(result, created)| show(result, created))
        .collect();
    Ok(Json(json!(rows)))
}

fn operation(
    object: &Object,
    field: &str,
    mut row: Map<String, Value>,
) -> Result<Operation, ApiError> {
    let kind = row.remove("attributes");
    let kind = kind.as_ref().and_then(|kind| kind.get("type")?.as_str());
    if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case(&object.name)) {
        return Err(ApiError::bad_request(
            "INVALID_INPUT",
            format!(
                "Every record's attributes must have the type {}",
                object.name
            ),
        ));
    }
    let name = row.keys().find(|name| name.eq_ignore_ascii_case(field));
    let name = name.cloned().unwrap_or_default();
    let value = row.remove(&name).unwrap_or(Value::Null);
    if row.keys().any(|name| name.eq_ignore_ascii_case("Id")) {
        return Err(ApiError::bad_request(
            "INVALID_FIELD_FOR_INSERT_UPDATE",
            "cannot specify Id in an upsert call by another field",
        ));
    }
    records::places(object, row.keys().map(String::as_str))?;
    Ok(Operation {
        verb: Verb::Upsert,
        object: object.name.clone(),
        id: None,
        fields: row,
        unmodified_since: None,
        external_id: Some((field.to_owned(), value)),
        update_only: false,
    })
}

fn run(
    org: &Org,
    caller: &Caller,
    all_or_none: bool,
    operations: Vec<Operation>,
) -> Result<Outcome, ApiError> {
    Ok(org.transact(Transaction {
        user: caller.user.id.clone(),
        origin: caller.origin(),
        all_or_none,
        operations,
    })?)
}

fn show(result: &Result<String, RowError>, created: bool) -> Value {
    match result {
        Ok(id) => json!({"id": id, "success": true, "created": created, "errors": []}),
        Err(error) => json!({"success": false, "errors": [error]}),
    }
}
