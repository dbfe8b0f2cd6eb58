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
//! | `GET /_sim/faults` | | what is left: `{"requests":[…],"events":[…]}` |
//! | `POST /_sim/faults` | a script, or a list of them | see below |
//! | `DELETE /_sim/faults` | | no scripts, nothing forbidden, default limits |
//! | `GET /_sim/cometd` | | `{"clients":[{"client_id":…,"user":…,"held":true,"polls":2,"deadline":…,"subscriptions":[{"channel":…,"replay_id":…}]}]}` |
//! | `GET /_sim/stream` | | `{"beginning":…,"earliest":…,"newest":…}` (replay ids) |
//! | `GET /_sim/channels` | | `{"Sync__chn":["Account"]}` |
//! | `POST /_sim/channels` | `{"name":"Sync__chn","entities":["Account","Contact"]}` | defines or changes a custom channel |
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
//! | `{"kind":"refuse","error":"403::Handshake denied","reason":"503::Server is too busy"}` | this error; `reason` goes to `ext.sfdc.failureReason` |
//! | `{"kind":"unknown_client"}` | all sessions are forgotten before the message |
//! | `{"kind":"lost_cookie"}` | all sessions' cookies are forgotten before the message |
//! | `{"kind":"dismiss"}` | the server's own `/meta/disconnect` in the answer of the poll |
//!
//! **Change events**, as they are committed: `on` has any of `entity`, `change_type`, `record_id`.
//!
//! | `do` | What happens |
//! |---|---|
//! | `{"kind":"gap"}` | the event becomes the gap event of its kind |
//! | `{"kind":"merge"}` | like changes of a transaction are one event with several `recordIds` |
//! | `{"kind":"sequence_hole","skip":2}` | numbers after the transaction's first are higher by so many |
//! | `{"kind":"without_last_modified"}` | an update without `LastModifiedDate` |
//! | `{"kind":"overflow","keep":10}` | beyond so many events of a transaction, one `GAP_OVERFLOW` for each entity |
//! | `{"kind":"undecodable","garble":"no_header"}` | `text_payload`, `no_header`, `no_record_ids` or `change_type`; the same at every delivery |
//! | `{"kind":"split_transaction"}` | its first event ends an answer, the others come in the next |
//!
//! **At once**: no `on`, no counts.
//!
//! | `do` | What happens |
//! |---|---|
//! | `{"kind":"inject_gap","entity":"Account","change_type":"GAP_UPDATE","record_ids":["001…"]}` | a gap event that no write made |
//! | `{"kind":"inject_overflow","entity":"Account"}` | a `GAP_OVERFLOW` |
//! | `{"kind":"wildcard","entity":"Account","prefix":"001"}` | a `GAP_UPDATE` of `001*` |
//! | `{"kind":"duplicate","last":3}` | every subscription gets its last events again |
//! | `{"kind":"redeliver","after":20000017}` | every subscription gets all after this replay id again |
//! | `{"kind":"disconnect"}` | the server's `/meta/disconnect` to every session, held polls too |
//! | `{"kind":"forget_clients"}`, `{"kind":"forget_cookies"}` | sessions are unknown; cookies are wrong |
//! | `{"kind":"expire_tokens_now"}` | all tokens end, held polls notice |
//! | `{"kind":"cut_retention"}` | every replay id given out so far is refused |
//! | `{"kind":"reset_stream"}` | a new stream with unrelated, lower replay ids |
//! | `{"kind":"forbid","entity":"Account"}` | its events are dropped silently, its own channel refused |
//! | `{"kind":"limit_clients","clients":1}` | sessions at a time (2000 by default) |
//! | `{"kind":"limit_events","events":10}` | events delivered in a rolling day (50,000 by default) |

use std::collections::BTreeSet;
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
use serde_json::{Value, json};

use super::commits::{ChangeEvent, ChangeType, Cut, TooOld};
use super::faults::{Act, Script, ScriptError};
use super::journal::JournalError;
use super::org::Org;

/// The calls of this module.
pub fn router(org: Arc<Org>) -> Router {
    Router::new()
        .route("/_sim/time", get(time).post(move_time))
        .route(
            "/_sim/faults",
            get(faults).post(add_faults).delete(clear_faults),
        )
        .route("/_sim/cometd", get(cometd))
        .route("/_sim/stream", get(stream))
        .route("/_sim/channels", get(channels).post(define_channel))
        .route("/_sim/capture", get(captured).post(select))
        .with_state(org)
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

async fn time(State(org): State<Arc<Org>>) -> Json<Value> {
    std::future::ready(shown_time(&org)).await
}

fn shown_time(org: &Org) -> Json<Value> {
    Json(json!({"now": org.clock.now(), "frozen": org.clock.is_frozen()}))
}
