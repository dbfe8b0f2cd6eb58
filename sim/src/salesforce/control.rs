//! The control API under `/_sim/`: time, faults, channels, capture, and a look at the streaming sessions.
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
//! | `GET /_sim/faults` | | what is left: `{"requests":[…],"events":[…],"rpcs":[…]}` |
//! | `POST /_sim/faults` | a script, or a list of them | see below |
//! | `DELETE /_sim/faults` | | no scripts, nothing forbidden, default limits |
//! | `GET /_sim/cometd` | | `{"clients":[{"client_id":…,"user":…,"held":true,"polls":2,"deadline":…,"subscriptions":[{"channel":…,"replay_id":…}]}]}` |
//! | `GET /_sim/pubsub` | | `{"streams":[{"topic":…,"user":…,"replay_id":…,"credit":100,"sent":3}]}` |
//! | `GET /_sim/stream` | | `{"beginning":…,"earliest":…,"newest":…}` (replay ids) |
//! | `GET /_sim/channels` | | `{"Sync__chn":{"Account":["Name"]}}`: entities and enriching fields |
//! | `POST /_sim/channels` | `{"name":"Sync__chn","entities":["Account","Contact"],"enrich":{"Account":["Name"]}}` | defines or changes a custom channel; `enrich` adds up to 10 fields to an entity's updates and deletes, as they are at delivery |
//! | `GET /_sim/capture` | | `["Account"]` |
//! | `POST /_sim/capture` | `{"capture":["Contact"],"release":["Account"]}` | selects objects for change events, or no longer |
//!
//! A script is `{"on":{…},"after":0,"times":1,"do":{"kind":…}}`: it passes `after` matches and fires `times` times (once
//! if absent; `"forever":true` until cleared). The first script that fires is the only one.
//!
//! **Requests**: `on` has any of `surface` (`oauth`, `rest`, `bulk`, `cometd`, `other`), `path` (its beginning),
//! `method`, `message` (a Bayeux channel in the body: `/meta/connect`).
//!
//! | `do` | What happens |
//! |---|---|
//! | `{"kind":"status","status":503}` | 401 `INVALID_SESSION_ID`, 403 `REQUEST_LIMIT_EXCEEDED`, 500 `UNKNOWN_EXCEPTION`, 502 and 503 HTML, 406, 420 and 429 empty; `code`, `message`, `retry_after` (seconds) may be given |
//! | `{"kind":"expire_tokens","when":"before"}` | all tokens end `before`, `during` (a held poll) or `after` (between pages) the request |
//! | `{"kind":"slow","seconds":30}` | a wait before the request is executed |
//! | `{"kind":"slow_body","chunk":100,"seconds":1}` | the body in pieces, a wait before each |
//! | `{"kind":"cut","bytes":100}` | so much of the body (half if absent) under the full length, then the connection ends |
//! | `{"kind":"lost_reply"}` | executed, then the connection ends without an answer |
//! | `{"kind":"lost_request"}` | not executed, the connection ends |
//! | `{"kind":"stall"}` | not executed, never answered |
//!
//! **Bayeux messages**: `on` has `message`, or matches any.
//!
//! | `do` | What happens |
//! |---|---|
//! | `{"kind":"refuse","error":"403::Restricted channel"}` | this error; `reason` goes to `ext.sfdc.failureReason`, `advice` is `retry`, `handshake` or `none` |
//! | `{"kind":"deny_handshake","reason":"too_busy"}` | `authentication_invalid`, `authentication_required`, `too_many_clients`, `too_busy`, `too_busy_as_authentication` |
//! | `{"kind":"unknown_client"}` | all sessions are forgotten before the message |
//! | `{"kind":"lost_cookie"}` | all sessions' cookies are forgotten before the message |
//! | `{"kind":"dismiss"}` | the server's own `/meta/disconnect` in the answer of the poll |
//!
//! **gRPC calls**: `on` has any of `rpc` (`Subscribe`, `GetTopic`, …) and `topic`; `at` is `call` (before the call is looked
//! at; a Subscribe has no topic then) or `answer` (in the place of a stream's next answer).
//!
//! | `do` | What happens |
//! |---|---|
//! | `{"kind":"rpc_status","status":"UNAVAILABLE","code":"service.unavailable","message":"…","at":"answer"}` | ends by this status; without `code` there are no trailers, as from a proxy |
//! | `{"kind":"rpc_slow","seconds":30}` | a wait |
//! | `{"kind":"rpc_stall","at":"answer"}` | silence, without keepalives, for as long as the connection lasts |
//! | `{"kind":"rpc_cut","at":"answer"}` | the connection is cut |
//!
//! **Change events**, as they are committed: `on` has any of `entity`, `change_type`, `record_id`.
//!
//! | `do` | What happens |
//! |---|---|
//! | `{"kind":"gap"}` | the event becomes the gap event of its kind |
//! | `{"kind":"lose"}` | the event is told to nobody, and nothing tells that |
//! | `{"kind":"merge"}` | like changes of a transaction are one event with several `recordIds` |
//! | `{"kind":"sequence_hole","skip":2}` | numbers after the transaction's first are higher by so many |
//! | `{"kind":"without_last_modified"}` | an update without `LastModifiedDate` |
//! | `{"kind":"overflow","keep":10}` | beyond so many events of a transaction, one `GAP_OVERFLOW` for each entity |
//! | `{"kind":"undecodable","garble":"no_header"}` | `text_payload`, `no_header`, `no_record_ids` or `change_type`; the same at every delivery |
//! | `{"kind":"diff","broken":false}` | the first long text (1000 characters, before and after) of an update comes as `{"diff":…}`; if broken, its hash is wrong |
//! | `{"kind":"share_replay_id"}` | all events of a transaction have one replay id |
//! | `{"kind":"split_transaction"}` | its first event ends an answer, the others come in the next |
//!
//! **At once**: no `on`, no counts.
//!
//! | `do` | What happens |
//! |---|---|
//! | `{"kind":"inject_gap","entity":"Account","change_type":"GAP_UPDATE","record_ids":["001…"]}` | a gap event that no write made |
//! | `{"kind":"inject_overflow","entity":"Account"}` | a `GAP_OVERFLOW` |
//! | `{"kind":"wildcard","entity":"Account"}` | a `GAP_UPDATE` of `001*` |
//! | `{"kind":"duplicate","last":3}` | every subscription gets its last events again |
//! | `{"kind":"redeliver","after":20000017}` | every subscription gets all after this replay id again |
//! | `{"kind":"disconnect"}` | the server's `/meta/disconnect` to every session, held polls too |
//! | `{"kind":"forget_clients"}`, `{"kind":"forget_cookies"}` | sessions are unknown; cookies are wrong |
//! | `{"kind":"expire_tokens_now"}` | all tokens end, held polls notice |
//! | `{"kind":"expire_refresh_tokens"}` | refresh tokens and authorization codes end |
//! | `{"kind":"cut_retention"}` | every replay id given out so far is refused; with `"before":20000017`, those below it |
//! | `{"kind":"reset_stream"}` | a new stream with unrelated, lower replay ids |
//! | `{"kind":"forbid","entity":"Account"}` | its events are dropped silently, its own channel refused |
//! | `{"kind":"limit_clients","clients":1}` | sessions at a time (1000 by default) |
//! | `{"kind":"limit_events","events":10}` | events delivered in a rolling day (`--event-limit` by default) |
//! | `{"kind":"limit_calls","calls":100}` | API calls in a rolling day (`--api-limit` by default) |
//! | `{"kind":"bulk_delay","seconds":60}` | bulk jobs created from here on wait a third of it and work two |
//! | `{"kind":"bulk_fail","message":"…"}` | the next bulk job fails with this `errorMessage` |
//! | `{"kind":"bulk_refuse","object":"Account"}` | the Bulk API does not support it |
//! | `{"kind":"bulk_gzip","when":"always"}` | results are compressed `asked` (default), `always` or `never` |
//! | `{"kind":"bulk_empty_body"}` | results without rows have no header row either |
//! | `{"kind":"bulk_forget"}` | every bulk job is gone |
//! | `{"kind":"limit_batch","events":1}` | events of one gRPC answer (100 by default) |
//! | `{"kind":"keep_alive","seconds":5}` | the longest silence of a gRPC stream (270 s by default) |
//! | `{"kind":"end_streams"}` | the server ends every gRPC stream, without an error |
//! | `{"kind":"cut_connections"}` | every gRPC connection is cut |
#![allow(clippy::unused_async, reason = "axum's handlers are async")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::commits::{ChangeEvent, ChangeType, Cut, TooOld};
use super::faults::rewrites::OVERFLOWED;
use super::faults::{Act, Checked, Script, ScriptError};
use super::journal::JournalError;
use super::lock::lock;
use super::org::Org;

type Shared = State<Arc<Org>>;

/// Fields that one member of a channel may be enriched by.
const ENRICHED: usize = 10;

/// The calls of this module.
pub(super) fn router(org: &Arc<Org>) -> Router {
    Router::new()
        .route("/_sim/time", get(time).post(move_time))
        .route(
            "/_sim/faults",
            get(faults).post(add_faults).delete(clear_faults),
        )
        .route("/_sim/cometd", get(cometd))
        .route("/_sim/pubsub", get(pubsub))
        .route("/_sim/stream", get(stream))
        .route("/_sim/channels", get(channels).post(define_channel))
        .route("/_sim/capture", get(captured).post(select))
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
    #[error("playing script {place} (those before it were played)")]
    Act {
        place: usize,
        #[source]
        source: Box<Refused>,
    },
    #[error("give exactly one of `advance_seconds`, `set`, `freeze`")]
    Time,
    #[error("{0} is not captured: capture it first by POST /_sim/capture")]
    NotCaptured(String),
    #[error("{0} is no object of this org, in this spelling")]
    NoObject(String),
    #[error("{0} is enriched and no member of the channel")]
    NoMember(String),
    #[error("{0} is enriched by {1} fields, and may be by {ENRICHED}")]
    TooManyFields(String, usize),
    #[error(
        "{0} has no field {1} that events can be enriched by (compounds and their parts can't)"
    )]
    NoField(String, String),
    #[error("{0} is no custom channel's name: it ends in __chn")]
    ChannelName(String),
    #[error(transparent)]
    TooOld(#[from] TooOld),
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
    match read(&body)? {
        TimeOrder {
            advance_seconds: Some(seconds),
            set: None,
            freeze: None,
        } => org.clock.advance(Duration::from_secs(seconds)),
        TimeOrder {
            advance_seconds: None,
            set: Some(time),
            freeze: None,
        } => org.clock.set(time),
        TimeOrder {
            advance_seconds: None,
            set: None,
            freeze: Some(freeze),
        } => {
            if freeze {
                org.clock.freeze();
            } else {
                org.clock.thaw();
            }
        }
        _ => return Err(Refused::Time),
    }
    Ok(shown_time(&org))
}

async fn faults(State(org): Shared) -> Json<Value> {
    Json(json!({
        "requests": org.faults.left(),
        "events": org.log.rewrites.left(),
        "rpcs": org.faults.rpcs_left(),
    }))
}

async fn add_faults(State(org): Shared, body: Bytes) -> Result<StatusCode, Refused> {
    let scripts = match read::<Value>(&body)? {
        Value::Array(scripts) => scripts,
        one => vec![one],
    };
    let checked = scripts
        .into_iter()
        .enumerate()
        .map(|(place, script)| {
            let place = place + 1;
            let script = Script::deserialize(script).map_err(ScriptError::Form);
            script
                .and_then(Script::check)
                .map_err(|source| Refused::Script { place, source })
        })
        .collect::<Result<Vec<_>, _>>()?;
    for (place, script) in checked.into_iter().enumerate() {
        play(&org, script).map_err(|source| Refused::Act {
            place: place + 1,
            source: Box::new(source),
        })?;
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn clear_faults(State(org): Shared) -> StatusCode {
    org.faults.clear();
    org.log.rewrites.clear();
    org.streaming.relax();
    org.bus.relax();
    org.bulk.relax();
    org.counters.relax();
    StatusCode::NO_CONTENT
}

fn play(org: &Org, script: Checked) -> Result<(), Refused> {
    match script {
        Checked::Request(pending) => org.faults.add(pending),
        Checked::Event(pending) => org.log.rewrites.add(pending),
        Checked::Rpc(pending) => org.faults.add_rpc(pending),
        Checked::AtOnce(act) => return act_now(org, act),
    }
    Ok(())
}

fn act_now(org: &Org, act: Act) -> Result<(), Refused> {
    let streaming = &org.streaming;
    match act {
        Act::InjectGap {
            entity,
            change_type,
            record_ids,
        } => inject(org, entity, change_type, record_ids)?,
        Act::InjectOverflow { entity } => {
            let ids = vec![OVERFLOWED.to_owned()];
            inject(org, entity, ChangeType::GapOverflow, ids)?;
        }
        Act::Wildcard { entity } => {
            let Some(object) = org.object(&entity) else {
                return Err(Refused::NotCaptured(entity));
            };
            let ids = vec![format!("{}*", object.key_prefix)];
            inject(org, entity, ChangeType::GapUpdate, ids)?;
        }
        Act::Duplicate { last } => {
            org.bus.repeat(org, last)?;
            streaming.repeat(org, last)?;
        }
        Act::Redeliver { after } => {
            org.bus.rewind(org, after)?;
            streaming.rewind(org, after)?;
        }
        Act::Disconnect {} => streaming.dismiss(),
        Act::ForgetClients {} => streaming.forget_clients(),
        Act::ForgetCookies {} => streaming.forget_cookies(),
        Act::ExpireTokensNow {} => {
            org.sessions.expire_all();
            streaming.wake();
        }
        Act::ExpireRefreshTokens {} => org.sign_in.forget_all(),
        Act::CutRetention { before } => org.log.cut(before.map_or(Cut::All, Cut::Before))?,
        Act::ResetStream {} => org.log.reset()?,
        Act::Forbid { entity } => streaming.forbid(&entity),
        Act::LimitClients { clients } => streaming.limit_clients(clients),
        Act::LimitEvents { events } => streaming.limit_events(events),
        Act::LimitCalls { calls } => org.counters.limit_calls(calls),
        Act::BulkDelay { seconds } => org.bulk.delay(seconds),
        Act::BulkFail { message } => org.bulk.fail_next(message),
        Act::BulkRefuse { object } => org.bulk.refuse(object),
        Act::BulkGzip { when } => org.bulk.compress(when),
        Act::BulkEmptyBody {} => org.bulk.empty_bodies(),
        Act::BulkForget {} => org.bulk.forget(),
        Act::LimitBatch { events } => org.bus.limit_batch(events),
        Act::KeepAlive { seconds } => {
            org.bus.keep_alive_every(Duration::from_secs(seconds));
            streaming.wake();
        }
        Act::EndStreams {} => {
            org.bus.dismiss();
            streaming.wake();
        }
        Act::CutConnections {} => org.bus.cut_connections(),
    }
    Ok(())
}

/// Adds an event that no write made, in a transaction of its own.
fn inject(
    org: &Org,
    entity: String,
    change_type: ChangeType,
    record_ids: Vec<String>,
) -> Result<(), Refused> {
    if !org.captures(&entity) {
        return Err(Refused::NotCaptured(entity));
    }
    let object = org.object(&entity);
    let schema = object.map(|object| org.schemas.id_of(&object));
    let schema = schema.unwrap_or_default();
    let (transaction_key, commit_number) = {
        let mut draws = lock(&org.draws);
        draws.commit_number += 1;
        (draws.random.uuid(), draws.commit_number)
    };
    org.log.append(vec![ChangeEvent {
        entity,
        record_ids,
        change_type,
        change_origin: String::new(),
        transaction_key,
        sequence: 1,
        commit_timestamp: org.clock.second(),
        commit_number,
        commit_user: org.profile.run_as.id.clone(),
        changed: Vec::new(),
        body: Map::new(),
        schema,
    }])?;
    Ok(())
}

async fn cometd(State(org): Shared) -> Json<Value> {
    Json(json!({"clients": org.streaming.clients()}))
}

async fn pubsub(State(org): Shared) -> Json<Value> {
    Json(json!({"streams": org.bus.streams()}))
}

async fn stream(State(org): Shared) -> Json<Value> {
    Json(json!({
        "beginning": org.log.beginning(),
        "earliest": org.log.earliest(),
        "newest": org.log.newest(),
    }))
}

async fn channels(State(org): Shared) -> Json<Value> {
    Json(json!(org.streaming.channels()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChannelOrder {
    name: String,
    entities: BTreeSet<String>,
    #[serde(default)]
    enrich: BTreeMap<String, Vec<String>>,
}

async fn define_channel(State(org): Shared, body: Bytes) -> Result<StatusCode, Refused> {
    let order: ChannelOrder = read(&body)?;
    if order.name.len() <= "__chn".len() || !order.name.ends_with("__chn") {
        return Err(Refused::ChannelName(order.name));
    }
    if let Some(entity) = order.entities.iter().find(|entity| !org.captures(entity)) {
        return Err(Refused::NotCaptured(entity.clone()));
    }
    for (entity, fields) in &order.enrich {
        if !order.entities.contains(entity) {
            return Err(Refused::NoMember(entity.clone()));
        }
        if fields.len() > ENRICHED {
            return Err(Refused::TooManyFields(entity.clone(), fields.len()));
        }
        if let Some(field) = fields.iter().find(|field| !can_enrich(&org, entity, field)) {
            return Err(Refused::NoField(entity.clone(), field.clone()));
        }
    }
    let mut enrich = order.enrich;
    let members = order
        .entities
        .into_iter()
        .map(|entity| {
            let fields = enrich.remove(&entity).unwrap_or_default();
            (entity, fields)
        })
        .collect();
    org.streaming.define_channel(&order.name, members);
    Ok(StatusCode::NO_CONTENT)
}

/// Whether events can be enriched by a field: a visible one, in its own spelling, that is no part of a compound.
fn can_enrich(org: &Org, entity: &str, name: &str) -> bool {
    org.object(entity).is_some_and(|object| {
        object.field(name).is_some_and(|(_, field)| {
            field.name == name && field.in_events() && field.compound.is_none()
        })
    })
}

async fn captured(State(org): Shared) -> Json<Value> {
    Json(json!(org.captured()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaptureOrder {
    #[serde(default)]
    capture: Vec<String>,
    #[serde(default)]
    release: Vec<String>,
}

async fn select(State(org): Shared, body: Bytes) -> Result<StatusCode, Refused> {
    let order: CaptureOrder = read(&body)?;
    for name in order.capture.iter().chain(&order.release) {
        if org.object(name).is_none_or(|object| object.name != *name) {
            return Err(Refused::NoObject(name.clone()));
        }
    }
    for name in &order.capture {
        org.capture(name);
    }
    for name in &order.release {
        org.release(name);
    }
    Ok(StatusCode::NO_CONTENT)
}
