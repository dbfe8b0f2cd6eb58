//! The language of fault scripts, strict about every key.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::bulk::Compression;
use super::super::cometd::{Advice, Garble};
use super::super::commits::{ChangeEvent, ChangeType};
use super::super::ids;
use super::{Pending, RequestAct, RpcFault, RpcMatch};

/// A script as it is sent to the control API.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Script {
    on: Option<Map<String, Value>>,
    #[serde(default)]
    after: u32,
    times: Option<u32>,
    #[serde(default)]
    forever: bool,
    #[serde(rename = "do")]
    act: Map<String, Value>,
}

/// Why a script was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScriptError {
    #[error("a script is `{{\"on\":…,\"after\":…,\"times\":…,\"do\":…}}`")]
    Form(#[source] serde_json::Error),
    #[error("`do` is no fault that the control API documents")]
    Act(#[source] serde_json::Error),
    #[error("`on` does not fit a fault of kind {kind}")]
    On {
        kind: String,
        source: serde_json::Error,
    },
    #[error("a fault of kind {0} is for Bayeux messages: `on` takes only `message`")]
    OnlyMessage(String),
    #[error("a fault of kind {0} happens at once: it takes no `on`, `after`, `times` or `forever`")]
    AtOnce(String),
    #[error("`times` is 0 or stands beside `forever`; leave it out for once")]
    Times,
    #[error("{0} is no HTTP status that an answer can have")]
    Status(u16),
    #[error("`code` holds what no trailer can: leave out spaces and control characters")]
    Code,
    #[error("{0} is no record id of 15 or 18 characters")]
    Id(String),
    #[error("{0} is no gap: it is not GAP_CREATE, GAP_UPDATE, GAP_DELETE or GAP_UNDELETE")]
    NotAGap(String),
    #[error("the fault `{0}` needs at least one of its things")]
    Empty(&'static str),
}

/// A checked script.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Checked {
    Request(Pending<RequestMatch, RequestAct>),
    Event(Pending<EventMatch, EventFault>),
    Rpc(Pending<RpcMatch, RpcFault>),
    AtOnce(Act),
}

/// Which part of the org a request goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Surface {
    Oauth,
    Rest,
    Bulk,
    Cometd,
    Other,
}

impl Surface {
    /// By the path; `None` for the control API, which never fails by script.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        if path == "/_sim" || path.starts_with("/_sim/") {
            return None;
        }
        let mut segments = path.trim_start_matches('/').split('/');
        Some(match (segments.next(), segments.next()) {
            (Some("cometd"), _) => Self::Cometd,
            (Some("services"), Some("oauth2")) | (Some("id"), _) => Self::Oauth,
            (Some("services"), Some("data")) => match segments.nth(1) {
                Some("jobs") => Self::Bulk,
                _ => Self::Rest,
            },
            _ => Self::Other,
        })
    }
}

/// Which requests a fault is for; what is absent matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequestMatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surface: Option<Surface>,
    /// The path's beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// A Bayeux channel, such as `/meta/connect`, among the request's messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl RequestMatch {
    pub(crate) fn matches(
        &self,
        surface: Surface,
        method: &str,
        path: &str,
        messages: &[String],
    ) -> bool {
        self.surface.is_none_or(|wanted| wanted == surface)
            && self
                .path
                .as_deref()
                .is_none_or(|begin| path.starts_with(begin))
            && self
                .method
                .as_deref()
                .is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
            && self
                .message
                .as_ref()
                .is_none_or(|wanted| messages.contains(wanted))
    }

    /// Whether a fault of the Bayeux layer is for a message on this channel.
    pub(crate) fn takes(&self, fault: &BayeuxFault, channel: &str) -> bool {
        if matches!(fault, BayeuxFault::DenyHandshake { .. }) && channel != "/meta/handshake" {
            return false;
        }
        self.message
            .as_deref()
            .is_none_or(|wanted| wanted == channel)
    }
}

/// Which events a fault is for; what is absent matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventMatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change_type: Option<ChangeType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_id: Option<String>,
}

impl EventMatch {
    pub(crate) fn matches(&self, event: &ChangeEvent) -> bool {
        self.entity
            .as_deref()
            .is_none_or(|wanted| wanted == event.entity)
            && self
                .change_type
                .is_none_or(|wanted| wanted == event.change_type)
            && self
                .record_id
                .as_ref()
                .is_none_or(|wanted| event.record_ids.contains(wanted))
    }
}

/// When tokens end, seen from a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Moment {
    #[default]
    Before,
    /// While a poll is held.
    During,
    After,
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum RequestFault {
    /// Answers this status, unexecuted.
    Status {
        status: u16,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
    },
    /// Ends all tokens before, while or after the request is executed.
    ExpireTokens {
        #[serde(default)]
        when: Moment,
    },
    /// Waits on the org's clock before the request is executed.
    Slow { seconds: u64 },
    /// Sends the body in pieces, with a pause on the org's clock after each.
    SlowBody { chunk: usize, seconds: u64 },
    /// Sends so many bytes of the body (half of it, if absent), then cuts the connection.
    Cut {
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes: Option<usize>,
    },
    /// Executes the request and cuts the connection instead of an answer.
    LostReply {},
    /// Cuts the connection, unexecuted.
    LostRequest {},
    /// Never answers, unexecuted.
    Stall {},
}

/// Why a handshake is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Denial {
    AuthenticationInvalid,
    AuthenticationRequired,
    TooManyClients,
    TooBusy,
    /// The server is too busy, and its error speaks of authentication all the same.
    TooBusyAsAuthentication,
}

/// What happens to a Bayeux message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum BayeuxFault {
    /// Refuses it with this error, and this `ext.sfdc.failureReason`.
    Refuse {
        error: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// `retry`, `handshake` or `none`.
        #[serde(skip_serializing_if = "Option::is_none")]
        advice: Option<Advice>,
    },
    /// Refuses handshakes, as Salesforce words it for this reason.
    DenyHandshake {
        reason: Denial,
    },
    UnknownClient {},
    LostCookie {},
    /// The server's own `/meta/disconnect` comes with the next poll's answer.
    Dismiss {},
}

/// What happens to change events as they are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum EventFault {
    /// The event becomes a gap event of its kind.
    Gap {},
    /// The event is told to nobody, and nothing tells that.
    Lose {},
    /// Like changes of a transaction become one event with several record ids.
    Merge {},
    /// Sequence numbers after the transaction's first event leave out so many.
    SequenceHole { skip: u32 },
    /// An update does not tell its `LastModifiedDate`.
    WithoutLastModified {},
    /// Beyond so many events of a transaction, each entity has one overflow event.
    Overflow { keep: usize },
    /// A payload that can't be read, at every delivery.
    Undecodable { garble: Garble },
    /// A long text of an update comes as a diff, with a hash that fits or not.
    Diff {
        #[serde(default)]
        broken: bool,
    },
    /// The events of a transaction have one replay id.
    ShareReplayId {},
    /// The first event of a transaction comes in one answer, the rest in the next.
    SplitTransaction {},
}

/// What happens at once.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Act {
    /// A gap event for records that nobody wrote.
    InjectGap {
        entity: String,
        change_type: ChangeType,
        record_ids: Vec<String>,
    },
    /// An overflow event for an entity.
    InjectOverflow {
        entity: String,
    },
    /// A gap for all records of an entity: `001*`.
    Wildcard {
        entity: String,
    },
    /// The last events come once more.
    Duplicate {
        last: usize,
    },
    /// Everything after this replay id comes once more.
    Redeliver {
        after: u64,
    },
    /// The server ends every session.
    Disconnect {},
    ForgetClients {},
    ForgetCookies {},
    /// All tokens end now.
    ExpireTokensNow {},
    /// All refresh tokens and authorization codes end now.
    ExpireRefreshTokens {},
    /// Every replay id given out so far is refused, or only those before one.
    CutRetention {
        before: Option<u64>,
    },
    /// A new stream with unrelated replay ids.
    ResetStream {},
    /// An entity's events are dropped without a word.
    Forbid {
        entity: String,
    },
    LimitClients {
        clients: usize,
    },
    LimitEvents {
        events: usize,
    },
    /// API calls in a rolling day.
    LimitCalls {
        calls: u64,
    },
    /// Bulk jobs that are created from here on take so long.
    BulkDelay {
        seconds: u32,
    },
    /// The next bulk job fails.
    BulkFail {
        message: String,
    },
    /// The Bulk API does not support an object.
    BulkRefuse {
        object: String,
    },
    /// Bulk results are compressed when asked, always or never.
    BulkGzip {
        when: Compression,
    },
    /// Bulk results without rows have no header row either.
    BulkEmptyBody {},
    /// Every bulk job is gone.
    BulkForget {},
    /// Events of one gRPC answer at most.
    LimitBatch {
        events: usize,
    },
    /// How long a gRPC stream is silent at most.
    KeepAlive {
        seconds: u64,
    },
    /// The server ends every gRPC stream without an error.
    EndStreams {},
    /// Every gRPC connection is cut.
    CutConnections {},
}

impl Script {
    /// Reads what the script means.
    pub(crate) fn check(self) -> Result<Checked, ScriptError> {
        if self.times == Some(0) || (self.forever && self.times.is_some()) {
            return Err(ScriptError::Times);
        }
        let kind = match self.act.get("kind") {
            Some(Value::String(kind)) => kind.clone(),
            _ => String::new(),
        };
        let act = Value::Object(self.act);
        let on = self.on.map(Value::Object);
        let times = (!self.forever).then(|| self.times.unwrap_or(1));
        let after = self.after;
        if REQUEST_KINDS.contains(&kind.as_str()) {
            let fault = RequestFault::deserialize(act).map_err(ScriptError::Act)?;
            check_request(&fault)?;
            return Ok(Checked::Request(Pending {
                on: read_on(on, &kind)?,
                after,
                times,
                act: RequestAct::Request(fault),
            }));
        }
        if BAYEUX_KINDS.contains(&kind.as_str()) {
            let fault = BayeuxFault::deserialize(act).map_err(ScriptError::Act)?;
            let on: RequestMatch = read_on(on, &kind)?;
            if on.surface.is_some() || on.path.is_some() || on.method.is_some() {
                return Err(ScriptError::OnlyMessage(kind));
            }
            return Ok(Checked::Request(Pending {
                on,
                after,
                times,
                act: RequestAct::Bayeux(fault),
            }));
        }
        if EVENT_KINDS.contains(&kind.as_str()) {
            let fault = EventFault::deserialize(act).map_err(ScriptError::Act)?;
            let mut on: EventMatch = read_on(on, &kind)?;
            on.record_id = on.record_id.map(full_id).transpose()?;
            return Ok(Checked::Event(Pending {
                on,
                after,
                times,
                act: fault,
            }));
        }
        if RPC_KINDS.contains(&kind.as_str()) {
            let fault = RpcFault::deserialize(act).map_err(ScriptError::Act)?;
            if !fault.is_sound() {
                return Err(ScriptError::Code);
            }
            return Ok(Checked::Rpc(Pending {
                on: read_on(on, &kind)?,
                after,
                times,
                act: fault,
            }));
        }
        let act = Act::deserialize(act).map_err(ScriptError::Act)?;
        if on.is_some() || after > 0 || self.forever || self.times.is_some() {
            return Err(ScriptError::AtOnce(kind));
        }
        check_act(act).map(Checked::AtOnce)
    }
}

const REQUEST_KINDS: &[&str] = &[
    "status",
    "expire_tokens",
    "slow",
    "slow_body",
    "cut",
    "lost_reply",
    "lost_request",
    "stall",
];
const BAYEUX_KINDS: &[&str] = &[
    "refuse",
    "deny_handshake",
    "unknown_client",
    "lost_cookie",
    "dismiss",
];
const RPC_KINDS: &[&str] = &["rpc_status", "rpc_slow", "rpc_stall", "rpc_cut"];
const EVENT_KINDS: &[&str] = &[
    "gap",
    "lose",
    "merge",
    "sequence_hole",
    "without_last_modified",
    "overflow",
    "undecodable",
    "diff",
    "share_replay_id",
    "split_transaction",
];

fn read_on<T: Default + for<'de> Deserialize<'de>>(
    on: Option<Value>,
    kind: &str,
) -> Result<T, ScriptError> {
    on.map_or_else(
        || Ok(T::default()),
        |on| {
            T::deserialize(on).map_err(|source| ScriptError::On {
                kind: kind.to_owned(),
                source,
            })
        },
    )
}

fn check_request(fault: &RequestFault) -> Result<(), ScriptError> {
    match fault {
        // 1xx, 204 and 304 have no body that a client could be told anything by.
        RequestFault::Status { status, .. } if !(400..600).contains(status) => {
            Err(ScriptError::Status(*status))
        }
        RequestFault::SlowBody { chunk: 0, .. } => Err(ScriptError::Empty("slow_body")),
        _ => Ok(()),
    }
}

fn check_act(act: Act) -> Result<Act, ScriptError> {
    match act {
        Act::InjectGap {
            entity,
            change_type,
            record_ids,
        } => {
            if !is_gap(change_type) {
                return Err(ScriptError::NotAGap(format!("{change_type:?}")));
            }
            if record_ids.is_empty() {
                return Err(ScriptError::Empty("inject_gap"));
            }
            Ok(Act::InjectGap {
                entity,
                change_type,
                record_ids: record_ids
                    .into_iter()
                    .map(full_id)
                    .collect::<Result<_, _>>()?,
            })
        }
        Act::LimitBatch { events: 0 } => Err(ScriptError::Empty("limit_batch")),
        Act::KeepAlive { seconds: 0 } => Err(ScriptError::Empty("keep_alive")),
        act => Ok(act),
    }
}

fn is_gap(change_type: ChangeType) -> bool {
    matches!(
        change_type,
        ChangeType::GapCreate
            | ChangeType::GapUpdate
            | ChangeType::GapDelete
            | ChangeType::GapUndelete
    )
}

fn full_id(id: String) -> Result<String, ScriptError> {
    ids::normalise(&id).ok_or(ScriptError::Id(id))
}
