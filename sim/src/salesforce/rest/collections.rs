//! Collections: up to 200 rows written in one transaction, up to 2000 records fetched by id.

use std::collections::HashMap;

use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::ids;
use super::super::org::Org;
use super::super::transaction::{Operation, RowError, Transaction, Verb};
use super::error::ApiError;
use super::{Caller, Caught, Shared, json as parse, records};

const MOST_ROWS: usize = 200;
const MOST_IDS: usize = 2000;
/// How often the type may change from one row to the next.
const MOST_CHUNKS: usize = 10;

type Answer = Result<Json<Value>, ApiError>;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Rows {
    #[serde(default)]
    pub all_or_none: bool,
    pub records: Vec<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    ids: Vec<String>,
    fields: Vec<String>,
}

pub(super) async fn create(
    State(org): Shared,
    Extension(caller): Caught,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    parse(&headers, &body).and_then(|rows| write(&org, &caller, Verb::Create, rows))
}

pub(super) async fn update(
    State(org): Shared,
    Extension(caller): Caught,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    parse(&headers, &body).and_then(|rows| write(&org, &caller, Verb::Update, rows))
}

pub(super) async fn delete(
    State(org): Shared,
    Extension(caller): Caught,
    Query(parameters): Query<HashMap<String, String>>,
) -> Answer {
    answer_delete(&org, &caller, &parameters)
}

fn answer_delete(org: &Org, caller: &Caller, parameters: &HashMap<String, String>) -> Answer {
    let ids: Vec<_> = parameters
        .get("ids")
        .map(|ids| ids.split(',').map(str::trim).collect())
        .unwrap_or_default();
    check_count(ids.len())?;
    let object_of = |id: &str| {
        org.store()
            .table_of(id)
            .map(|table| table.object.name.clone())
    };
    let operations = ids
        .into_iter()
        .map(|id| Operation {
            verb: Verb::Delete,
            // An id of no known object fails as a row.
            object: object_of(id).unwrap_or_default(),
            id: Some(id.to_owned()),
            fields: Map::new(),
            unmodified_since: None,
            external_id: None,
            update_only: false,
        })
        .collect();
    let all_or_none = parameters
        .get("allOrNone")
        .is_some_and(|value| value == "true");
    run(org, caller, all_or_none, operations)
}

fn write(org: &Org, caller: &Caller, verb: Verb, rows: Rows) -> Answer {
    check_count(rows.records.len())?;
    let operations = rows
        .records
        .into_iter()
        .map(|row| operation(org, verb, row))
        .collect::<Result<Vec<_>, _>>()?;
    let chunks = operations
        .windows(2)
        .filter(|pair| pair[0].object != pair[1].object)
        .count()
        + 1;
    if chunks > MOST_CHUNKS {
        return Err(ApiError::bad_request(
            "LIMIT_EXCEEDED",
            "Cannot have more than 10 chunks in a single operation. Please rearrange the data to reduce chunking.",
        ));
    }
    run(org, caller, rows.all_or_none, operations)
}

/// One row; what is no known column fails the whole call, as it does in Salesforce's parser.
fn operation(org: &Org, verb: Verb, mut row: Map<String, Value>) -> Result<Operation, ApiError> {
    let object = row
        .remove("attributes")
        .and_then(|attributes| attributes.get("type")?.as_str().map(str::to_owned))
        .ok_or_else(|| {
            ApiError::bad_request(
                "INVALID_INPUT",
                "Include attributes with a type for each record",
            )
        })?;
    let object = org.object(&object).ok_or_else(|| {
        ApiError::bad_request(
            "INVALID_TYPE",
            format!("sObject type '{object}' is not supported."),
        )
    })?;
    let id = ["id", "Id", "ID"].iter().find_map(|name| row.remove(*name));
    let id = id.as_ref().and_then(Value::as_str).map(str::to_owned);
    if verb == Verb::Create && id.is_some() {
        return Err(ApiError::bad_request(
            "INVALID_FIELD_FOR_INSERT_UPDATE",
            "cannot specify Id in an insert call",
        ));
    }
    records::places(&object, row.keys().map(String::as_str))?;
    Ok(Operation {
        verb,
        object: object.name.clone(),
        id,
        fields: row,
        unmodified_since: None,
        external_id: None,
        update_only: false,
    })
}

pub(super) fn check_count(rows: usize) -> Result<(), ApiError> {
    match rows {
        0 => Err(ApiError::bad_request(
            "MISSING_ARGUMENT",
            "The records of the collection are missing",
        )),
        1..=MOST_ROWS => Ok(()),
        _ => Err(ApiError::bad_request(
            "NUMBER_OUTSIDE_VALID_RANGE",
            format!("A collection may hold {MOST_ROWS} records, not {rows}"),
        )),
    }
}

fn run(org: &Org, caller: &Caller, all_or_none: bool, operations: Vec<Operation>) -> Answer {
    let outcome = org.transact(Transaction {
        user: caller.user.id.clone(),
        origin: caller.origin(),
        all_or_none,
        operations,
    })?;
    let rows: Vec<_> = outcome.results.iter().map(show).collect();
    Ok(Json(json!(rows)))
}

fn show(result: &Result<String, RowError>) -> Value {
    match result {
        Ok(id) => json!({"id": id, "success": true, "errors": []}),
        Err(error) => json!({"success": false, "errors": [error]}),
    }
}

/// `POST composite/sobjects/{object}`: the records in the order of their ids, null for one that is not there.
pub(super) async fn fetch(
    State(org): Shared,
    Extension(caller): Caught,
    Path((_, object)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    parse(&headers, &body).and_then(|wanted| answer_fetch(&org, &caller, &object, &wanted))
}

fn answer_fetch(org: &Org, caller: &Caller, object: &str, wanted: &Wanted) -> Answer {
    let store = org.store();
    let table = store.table(object).ok_or_else(ApiError::not_found)?;
    if wanted.ids.is_empty() || wanted.fields.is_empty() {
        return Err(ApiError::bad_request(
            "MISSING_ARGUMENT",
            "ids and fields must be given",
        ));
    }
    if wanted.ids.len() > MOST_IDS {
        return Err(ApiError::bad_request(
            "EXCEEDED_ID_LIMIT",
            format!("{} ids are more than {MOST_IDS}", wanted.ids.len()),
        ));
    }
    let places = records::places(&table.object, wanted.fields.iter().map(String::as_str))?;
    let now = org.clock.now();
    let rows = wanted
        .ids
        .iter()
        .map(|id| {
            let id = ids::normalise(id).ok_or_else(|| {
                ApiError::bad_request("MALFORMED_ID", format!("malformed id {id}"))
            })?;
            let found = table
                .at(&id, now)
                .filter(|record| !table.is_deleted(record));
            Ok(found.map_or(Value::Null, |record| {
                records::show(&table.object, record, &places, &caller.version)
            }))
        })
        .collect::<Result<Vec<_>, ApiError>>()?;
    Ok(Json(json!(rows)))
}
