//! The control API under `/_sim/`: time, faults, sign-in, limits, tables, snapshots, webhooks, counters.
//!
//! Every body is JSON; an unknown key, kind or value is refused with 400 and `{"error":"…"}`, and nothing of the request
//! is done unless the error says so. Scripts never touch the control API itself.
//!
//! | Call | Body | Effect |
//! |---|---|---|
//! | `GET /_sim/time` | | `{"now":"2026-01-05T10:11:12.345Z","frozen":false}` |
//! | `POST /_sim/time` | `{"advance_seconds":110}` | forward; timers whose time has come fire |
//! | | `{"set":"2026-01-05T10:00:00Z"}` | shows this time from here on |
//! | | `{"freeze":true}` | stops, or with `false` runs again |
//! | `GET /_sim/calls` | | `{"web_api":{"GET accounts":3},…}`; `DELETE` forgets them |
//! | `GET /_sim/faults` | | the scripts that are left |
//! | `POST /_sim/faults` | a script, or a list of them | see below; `DELETE` clears them |
//! | `POST /_sim/entra` | any of `{"access_seconds":60,"refresh_seconds":…,"code_seconds":…}` | lifetimes of what is issued from here on |
//! | | `{"revoke":true}`, `{"expire_access":true}` | every refresh token is revoked; every access token ends |
//! | | `{"consent":false}`, `{"spa":true}` | consent is taken away; redirect URIs are of type `spa` |
//! | `POST /_sim/limits` | any of `{"requests":6000,"execution_ms":1200000,"concurrency":52,"cost_ms":0}` | service protection limits, `cost_ms` added to every request; what was used is forgotten |
//! | `GET /_sim/tables` | | `{"account":{"set":"accounts","rows":3,"tracked":true}}` |
//! | `POST /_sim/tables` | `{"table":"new_plan","definition":{…}}` | defines a table, or adds columns and keys, or switches tracking on: change tokens of it expire |
//! | `POST /_sim/snapshots` | `{"save":"a"}`, `{"restore":"a"}` | keeps the rows under a name; brings them back, row versions with them |
//! | `POST /_sim/privileges` | `{"deny":[["Read","account"]],"allow":[…]}` | `Read`, `Create`, `Write`, `Delete` on a table for all callers |
//! | `POST /_sim/switches` | `{"expired_status":410}` | the status of an expired change token (400 by default) |
//! | `GET /_sim/webhooks` | | `{"waiting":0,"log":[{"outcome":"delivered",…}],"settings":{…}}` |
//! | `POST /_sim/webhooks` | any of `{"timeout_ms":60000,"parent_context":true,"dates":"milliseconds","newer_members":true}` | `dates` is `milliseconds`, `offset` or `iso` |
//! | `GET /_sim/bus` | | without `--amqp-listen`: `{"waiting":2}`; `DELETE` takes the oldest message and shows it |
//!
//! A script is `{"on":{…},"after":0,"times":1,"do":{"kind":…}}`: it passes `after` matches and fires `times` times (once
//! if absent; `"forever":true` until cleared). The first script that fires is the only one.
//!
//! **Requests**: `on` has any of `surface` (`entra`, `web_api`, `discovery`, `other`), `path` (its beginning), `method`.
//!
//! | `do` | What happens |
//! |---|---|
//! | `{"kind":"status","status":503}` | this answer, unexecuted; `code`, `message`, `retry_after` (seconds) may be given |
//! | `{"kind":"expire_tokens","when":"before"}` | all access tokens end `before` or `after` the request |
//! | `{"kind":"slow","seconds":30}` | a wait before the request is executed |
//! | `{"kind":"cut","bytes":100}` | so much of the body (half if absent) under the full length, then the connection ends |
//! | `{"kind":"lost_reply"}`, `{"kind":"lost_request"}`, `{"kind":"stall"}` | executed without an answer; not executed; never answered |
//!
//! **Sign-in**: `on` may name the `call` (`authorize`, `token`, `adminconsent`); `{"kind":"sign_in","aadsts":50076}` refuses it.
//!
//! **Webhooks**: `on` has any of `table`, `message`; `do` is `{"kind":"lose"}`, `{"kind":"double"}`,
//! `{"kind":"hold","behind":1}` (until so many others were sent) or `{"kind":"delay","seconds":5}`.
#![allow(clippy::unused_async, reason = "axum's handlers are async")]

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::faults::{Script, ScriptError};
use super::journal::JournalError;
use super::load::definition::{Definition, DefinitionError};
use super::load::standard;
use super::org::Org;
use super::schema::Table;
use super::throttle::Limits;
use super::webhooks::Settings;
use crate::salesforce::lock::lock;

type Shared = State<Arc<Org>>;

/// The calls of this module.
pub(super) fn router(org: &Arc<Org>) -> Router {
    Router::new()
        .route("/_sim/time", get(time).post(move_time))
        .route("/_sim/calls", get(calls).delete(forget_calls))
        .route(
            "/_sim/faults",
            get(faults).post(add_faults).delete(clear_faults),
        )
        .route("/_sim/entra", post(sign_in))
        .route("/_sim/limits", get(limits).post(set_limits))
        .route("/_sim/tables", get(tables).post(define))
        .route("/_sim/snapshots", post(snapshots))
        .route("/_sim/privileges", post(privileges))
        .route("/_sim/switches", post(switches))
        .route("/_sim/webhooks", get(webhooks).post(set_webhooks))
        .with_state(Arc::clone(org))
}

/// What the outbox holds, where no bus takes it.
pub(super) fn outbox(org: &Arc<Org>) -> Router {
    Router::new()
        .route("/_sim/bus", get(bus).delete(take_message))
        .with_state(Arc::clone(org))
}

/// Why a control call was refused.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("reading the body")]
    Body(#[source] serde_json::Error),
    #[error("in script {place}")]
    Script {
        place: usize,
        #[source]
        source: ScriptError,
    },
    #[error("give exactly one of {0}")]
    OneOf(&'static str),
    #[error("there is no snapshot `{0}`")]
    NoSnapshot(String),
    #[error("{0} is no action: give `Read`, `Create`, `Write` or `Delete`, and a table")]
    NoAction(String),
    #[error("{0} is no status of an error")]
    Status(u16),
    #[error("change tracking of {0} can't be switched off again")]
    Untrack(String),
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            // Writing to a string can't fail.
            if write!(text, ": {error}").is_err() {
                break;
            }
            cause = error.source();
        }
        (StatusCode::BAD_REQUEST, Json(json!({"error": text}))).into_response()
    }
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(Refused::Body)
}

async fn time(State(org): Shared) -> Json<Value> {
    shown_time(&org)
}

fn shown_time(org: &Org) -> Json<Value> {
    Json(json!({"now": org.clock.now(), "frozen": org.clock.is_frozen()}))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimeOrder {
    advance_seconds: Option<u64>,
    set: Option<DateTime<Utc>>,
    freeze: Option<bool>,
}

async fn move_time(State(org): Shared, body: Bytes) -> Result<Json<Value>, Refused> {
    let order: TimeOrder = read(&body)?;
    match (order.advance_seconds, order.set, order.freeze) {
        (Some(seconds), None, None) => org.clock.advance(Duration::from_secs(seconds)),
        (None, Some(time), None) => org.clock.set(time),
        (None, None, Some(true)) => org.clock.freeze(),
        (None, None, Some(false)) => org.clock.thaw(),
        _ => return Err(Refused::OneOf("`advance_seconds`, `set`, `freeze`")),
    }
    Ok(shown_time(&org))
}

async fn calls(State(org): Shared) -> Json<Value> {
    Json(json!(org.counters.all()))
}

async fn forget_calls(State(org): Shared) -> StatusCode {
    org.counters.clear();
    StatusCode::NO_CONTENT
}

async fn faults(State(org): Shared) -> Json<Value> {
    Json(json!(org.faults.left()))
}

async fn add_faults(State(org): Shared, body: Bytes) -> Result<StatusCode, Refused> {
    let scripts = match read::<Value>(&body)? {
        Value::Array(scripts) => scripts,
        one => vec![one],
    };
    let checked = scripts.into_iter().enumerate().map(|(place, script)| {
        let script = Script::deserialize(script).map_err(ScriptError::Form);
        script
            .and_then(Script::check)
            .map_err(|source| Refused::Script {
                place: place + 1,
                source,
            })
    });
    for script in checked.collect::<Result<Vec<_>, _>>()? {
        org.faults.add(script);
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn clear_faults(State(org): Shared) -> StatusCode {
    org.faults.clear();
    StatusCode::NO_CONTENT
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignInOrder {
    access_seconds: Option<u32>,
    refresh_seconds: Option<u32>,
    code_seconds: Option<u32>,
    #[serde(default)]
    revoke: bool,
    #[serde(default)]
    expire_access: bool,
    consent: Option<bool>,
    spa: Option<bool>,
}

async fn sign_in(State(org): Shared, body: Bytes) -> Result<StatusCode, Refused> {
    let order: SignInOrder = read(&body)?;
    let mut grants = lock(&org.entra.grants);
    let seconds = |seconds: u32| TimeDelta::seconds(i64::from(seconds));
    if let Some(access) = order.access_seconds {
        grants.lifetimes.access = seconds(access);
    }
    if let Some(refresh) = order.refresh_seconds {
        grants.lifetimes.refresh = seconds(refresh);
    }
    if let Some(code) = order.code_seconds {
        grants.lifetimes.code = seconds(code);
    }
    if order.revoke {
        grants.revoke();
    }
    if order.expire_access {
        grants.expire_access();
    }
    grants.consented = order.consent.unwrap_or(grants.consented);
    grants.spa = order.spa.unwrap_or(grants.spa);
    Ok(StatusCode::NO_CONTENT)
}

async fn limits(State(org): Shared) -> Json<Value> {
    Json(json!(org.throttle.limits()))
}

async fn set_limits(State(org): Shared, body: Bytes) -> Result<StatusCode, Refused> {
    org.throttle.set(read::<Limits>(&body)?);
    org.throttle.relax();
    Ok(StatusCode::NO_CONTENT)
}

async fn tables(State(org): Shared) -> Json<Value> {
    let store = org.store();
    let all = store.tables().map(|rows| {
        let table = &rows.table;
        let shown = json!({"set": table.set, "rows": rows.len(), "tracked": table.tracked});
        (table.name.clone(), shown)
    });
    Json(Value::Object(all.collect()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TableOrder {
    table: String,
    #[serde(default)]
    definition: Definition,
}

async fn define(State(org): Shared, body: Bytes) -> Result<StatusCode, Refused> {
    let order: TableOrder = read(&body)?;
    let known = org
        .store()
        .table(&order.table)
        .map(|rows| Table::clone(&rows.table));
    let table = match known {
        Some(mut table) => {
            if table.tracked && order.definition.tracked == Some(false) {
                return Err(Refused::Untrack(order.table));
            }
            order.definition.apply(&mut table)?;
            table
        }
        None => {
            let mut table = Table::new(&order.table, &format!("{}s", order.table));
            standard::define(&mut table, &order.definition)?;
            table
        }
    };
    org.define(table).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotOrder {
    save: Option<String>,
    restore: Option<String>,
}

async fn snapshots(State(org): Shared, body: Bytes) -> Result<StatusCode, Refused> {
    match read(&body)? {
        SnapshotOrder {
            save: Some(name),
            restore: None,
        } => org.snapshot(&name),
        SnapshotOrder {
            save: None,
            restore: Some(name),
        } => {
            if !org.restore(&name).await? {
                return Err(Refused::NoSnapshot(name));
            }
        }
        _ => return Err(Refused::OneOf("`save`, `restore`")),
    }
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PrivilegeOrder {
    #[serde(default)]
    deny: Vec<(String, String)>,
    #[serde(default)]
    allow: Vec<(String, String)>,
}

async fn privileges(State(org): Shared, body: Bytes) -> Result<StatusCode, Refused> {
    let order: PrivilegeOrder = read(&body)?;
    let known = |(action, table): &(String, String)| {
        matches!(action.as_str(), "Read" | "Create" | "Write" | "Delete")
            && org.store().table(table).is_some()
    };
    if let Some((action, table)) = order
        .deny
        .iter()
        .chain(&order.allow)
        .find(|pair| !known(pair))
    {
        return Err(Refused::NoAction(format!("{action} {table}")));
    }
    let mut switches = lock(&org.switches);
    switches.denied.extend(order.deny);
    for pair in &order.allow {
        switches.denied.remove(pair);
    }
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchOrder {
    expired_status: u16,
}

async fn switches(State(org): Shared, body: Bytes) -> Result<StatusCode, Refused> {
    let SwitchOrder { expired_status } = read(&body)?;
    if !(400..600).contains(&expired_status) {
        return Err(Refused::Status(expired_status));
    }
    lock(&org.switches).expired_status = expired_status;
    Ok(StatusCode::NO_CONTENT)
}

async fn webhooks(State(org): Shared) -> Json<Value> {
    let webhooks = &org.webhooks;
    Json(
        json!({"waiting": webhooks.waiting(), "log": webhooks.log(), "settings": webhooks.settings()}),
    )
}

async fn set_webhooks(State(org): Shared, body: Bytes) -> Result<StatusCode, Refused> {
    org.webhooks.set(read::<Settings>(&body)?);
    Ok(StatusCode::NO_CONTENT)
}

async fn bus(State(org): Shared) -> Json<Value> {
    Json(json!({"waiting": org.outbox.len()}))
}

async fn take_message(State(org): Shared) -> Json<Value> {
    Json(org.outbox.take().map_or(Value::Null, |message| {
        let properties: serde_json::Map<_, _> = message
            .properties
            .into_iter()
            .map(|(k, v)| (k, v.into()))
            .collect();
        json!({
            "endpoint": message.endpoint,
            "entity": message.entity,
            "contract": message.contract,
            "content_type": message.content_type,
            "properties": properties,
            "body": message.body,
        })
    }))
}
