//! Test control of data, without a session, under `/_sim/`:
//!
//! * `POST /_sim/transactions` `{"wait": true, "transactions": [{"user": …, "client": …, "hold_ms": …, "all_or_none":
//!   …, "ops": [{"op": "create|update|delete|undelete|hard_delete|recalculate", "object": …, "id": …, "fields": {…}}]}]}`
//!   → `{"transactions": [{"results": [{"id": …} | {"error": {…}}], "events": [{"replay_id": …, "id": …}]}]}`.
//!   All statements run at once and in order, which stamps their records; `hold_ms` (on the org's clock) delays a
//!   commit: the long transaction, whose change shows up later with an early stamp. With `"wait": false` the answer
//!   does not wait for held commits, and has no events for them. `client` gives the events' origin; without it they
//!   have none, as automation's. `"$1.0"` as an id or a value is the id of transaction 1's first operation.
//! * `GET /_sim/records/{object}` → `{"records": [{"Id": …, "IsDeleted": …, …}]}`: the truth, the bin included, hidden
//!   fields too, by id.
//! * `GET /_sim/counts` → `{"calls": {"GET query": 3, …}, "api_usage": 3, "delivered": 0}`.
//! * `POST /_sim/cursors/expire`: every open query cursor is stale.
//! * `POST /_sim/fields/{object}/{field}` `{"type": "string"}` adds a field, `{"visible": false}` hides one,
//!   `{"choices": [{"value": …, "label": …, "active": true}]}` sets the entries of a picklist.
//! * `POST /_sim/permissions` `{"view_setup": false}` takes "View Setup and Configuration" from all users.
#![allow(clippy::unused_async, reason = "axum's handlers are async")]

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;

use super::journal::JournalError;
use super::org::Org;
use super::rest::error::ApiError;
use super::schema::{Choice, Field, FieldType};
use super::transaction::{Operation, Outcome, Transaction, Verb};

type Shared = State<Arc<Org>>;

/// The routes.
pub(super) fn router(org: &Arc<Org>) -> Router {
    Router::new()
        .route("/_sim/transactions", post(transactions))
        .route("/_sim/records/{object}", get(records))
        .route("/_sim/counts", get(counts))
        .route("/_sim/cursors/expire", post(expire_cursors))
        .route("/_sim/fields/{object}/{field}", post(field))
        .route("/_sim/permissions", post(permissions))
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::clone(org))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ordered {
    #[serde(default = "yes")]
    wait: bool,
    transactions: Vec<OrderedTransaction>,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderedTransaction {
    user: Option<String>,
    client: Option<String>,
    #[serde(default)]
    hold_ms: u64,
    #[serde(default)]
    all_or_none: bool,
    ops: Vec<Op>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Op {
    op: Verb,
    object: String,
    id: Option<String>,
    #[serde(default)]
    fields: Map<String, Value>,
}

/// A transaction that has run its statements.
enum Begun {
    Committed(Outcome),
    Held(Vec<Value>, JoinHandle<Result<Outcome, JournalError>>),
}

async fn transactions(
    State(org): Shared,
    Json(ordered): Json<Ordered>,
) -> Result<Json<Value>, ApiError> {
    let mut ids: Vec<Vec<Option<String>>> = Vec::new();
    let mut begun = Vec::new();
    for transaction in ordered.transactions {
        let hold = Duration::from_millis(transaction.hold_ms);
        let transaction = prepare(&org, transaction, &ids);
        let one = if hold.is_zero() {
            let outcome = org.transact(transaction)?;
            ids.push(
                outcome
                    .results
                    .iter()
                    .map(|result| result.as_ref().ok().cloned())
                    .collect(),
            );
            Begun::Committed(outcome)
        } else {
            let prepared = org.begin(transaction);
            let results = prepared.results.iter();
            ids.push(
                results
                    .clone()
                    .map(|result| result.as_ref().ok().cloned())
                    .collect(),
            );
            let shown = results.map(result).collect();
            // Its own task: a caller that hangs up must not leave records locked.
            let org = Arc::clone(&org);
            let held = tokio::spawn(async move {
                org.clock.sleep(hold).await;
                org.commit(prepared)
            });
            Begun::Held(shown, held)
        };
        begun.push(one);
    }
    let wait = ordered.wait;
    let shown = join_all(begun.into_iter().map(|one| finish(one, wait))).await;
    let shown = shown.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(Json(json!({"transactions": shown})))
}

async fn finish(begun: Begun, wait: bool) -> Result<Value, ApiError> {
    match begun {
        Begun::Committed(outcome) => Ok(show(&outcome)),
        Begun::Held(results, _) if !wait => Ok(json!({"results": results, "events": null})),
        Begun::Held(_, held) => match held.await {
            Ok(outcome) => Ok(show(&outcome?)),
            Err(crashed) => Err(ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "UNKNOWN_EXCEPTION",
                crashed.to_string(),
            )),
        },
    }
}

fn prepare(org: &Org, ordered: OrderedTransaction, ids: &[Vec<Option<String>>]) -> Transaction {
    let origin = ordered.client.map_or_else(String::new, |client| {
        let version = &org.profile.api_version;
        format!("com/salesforce/api/rest/{version};client={client}")
    });
    let operations = ordered
        .ops
        .into_iter()
        .map(|op| Operation {
            verb: op.op,
            object: op.object,
            id: op.id.map(|id| named(&id, ids).unwrap_or(id)),
            fields: op
                .fields
                .into_iter()
                .map(|(name, value)| {
                    let known = value.as_str().and_then(|text| named(text, ids));
                    (name, known.map_or(value, Value::String))
                })
                .collect(),
            unmodified_since: None,
            external_id: None,
            update_only: false,
        })
        .collect();
    Transaction {
        user: ordered
            .user
            .unwrap_or_else(|| org.profile.run_as.id.clone()),
        origin,
        all_or_none: ordered.all_or_none,
        operations,
    }
}

/// The id behind `$1.0`.
fn named(text: &str, ids: &[Vec<Option<String>>]) -> Option<String> {
    let (transaction, operation) = text.strip_prefix('$')?.split_once('.')?;
    let transaction: usize = transaction.parse().ok()?;
    let operation: usize = operation.parse().ok()?;
    ids.get(transaction.checked_sub(1)?)?
        .get(operation)?
        .clone()
}

fn show(outcome: &Outcome) -> Value {
    let events: Vec<_> = outcome
        .events
        .iter()
        .map(|committed| {
            json!({
                "replay_id": committed.replay_id,
                "id": committed.event.record_ids.first(),
                "change_type": committed.event.change_type,
                "transaction_key": committed.event.transaction_key,
            })
        })
        .collect();
    let results: Vec<_> = outcome.results.iter().map(result).collect();
    json!({"results": results, "events": events})
}

fn result(result: &Result<String, super::transaction::RowError>) -> Value {
    match result {
        Ok(id) => json!({"id": id}),
        Err(error) => json!({"error": error}),
    }
}

async fn records(State(org): Shared, Path(object): Path<String>) -> Result<Json<Value>, ApiError> {
    truth(&org, &object)
}

fn truth(org: &Org, object: &str) -> Result<Json<Value>, ApiError> {
    let store = org.store();
    let table = store.table(object).ok_or_else(ApiError::not_found)?;
    let records: Vec<_> = table
        .heads()
        .map(|record| {
            let fields = table.object.fields.iter().enumerate();
            fields
                .filter(|(_, field)| !field.kind.is_compound())
                .map(|(place, field)| (field.name.clone(), record.get(place).rest()))
                .collect::<Map<_, _>>()
        })
        .collect();
    Ok(Json(json!({"records": records})))
}

async fn counts(State(org): Shared) -> Json<Value> {
    Json(json!({
        "calls": org.counters.by_resource(),
        "api_usage": org.counters.used(org.clock.now()),
        "delivered": org.counters.delivered(),
    }))
}

async fn expire_cursors(State(org): Shared) -> StatusCode {
    org.cursors.expire_all();
    StatusCode::NO_CONTENT
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Permissions {
    view_setup: bool,
}

async fn permissions(State(org): Shared, Json(given): Json<Permissions>) -> StatusCode {
    org.view_setup(given.view_setup);
    StatusCode::NO_CONTENT
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldChange {
    #[serde(rename = "type")]
    kind: Option<FieldType>,
    visible: Option<bool>,
    choices: Option<Vec<Choice>>,
}

async fn field(
    State(org): Shared,
    Path((object, field)): Path<(String, String)>,
    Json(change): Json<FieldChange>,
) -> Response {
    let added = change
        .kind
        .is_none_or(|kind| org.add_field(&object, Field::new(&field, kind)));
    let shown = change
        .visible
        .is_none_or(|visible| org.show_field(&object, &field, visible));
    let labelled = change
        .choices
        .is_none_or(|choices| org.label_field(&object, &field, choices));
    if added && shown && labelled {
        StatusCode::NO_CONTENT.into_response()
    } else {
        ApiError::not_found().into_response()
    }
}
