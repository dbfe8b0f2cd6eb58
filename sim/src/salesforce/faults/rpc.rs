//! Faults of gRPC calls: which call or answer, and what happens to it.

use serde::{Deserialize, Serialize};
use tonic::Code;

/// Which calls a fault is for; what is absent matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RpcMatch {
    /// `Subscribe`, `GetTopic`, `GetSchema`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpc: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
}

/// Whether a call fails before it is looked at, or in the place of one of its stream's answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RpcMoment {
    #[default]
    Call,
    Answer,
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields)]
pub(crate) enum RpcFault {
    /// Ends it by this status; without a code, as a proxy does.
    #[serde(rename = "rpc_status")]
    Status {
        status: RpcStatus,
        /// What follows `sfdc.platform.eventbus.grpc.`.
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        #[serde(default)]
        at: RpcMoment,
    },
    /// Waits on the org's clock.
    #[serde(rename = "rpc_slow")]
    Slow {
        seconds: u64,
        #[serde(default)]
        at: RpcMoment,
    },
    /// Is silent from here on, without keepalives.
    #[serde(rename = "rpc_stall")]
    Stall {
        #[serde(default)]
        at: RpcMoment,
    },
    /// Cuts the connection and all that it carries.
    #[serde(rename = "rpc_cut")]
    Cut {
        #[serde(default)]
        at: RpcMoment,
    },
}

/// A gRPC status by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum RpcStatus {
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl RpcStatus {
    pub(crate) fn code(self) -> Code {
        match self {
            Self::Cancelled => Code::Cancelled,
            Self::Unknown => Code::Unknown,
            Self::InvalidArgument => Code::InvalidArgument,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::NotFound => Code::NotFound,
            Self::PermissionDenied => Code::PermissionDenied,
            Self::ResourceExhausted => Code::ResourceExhausted,
            Self::FailedPrecondition => Code::FailedPrecondition,
            Self::Aborted => Code::Aborted,
            Self::OutOfRange => Code::OutOfRange,
            Self::Unimplemented => Code::Unimplemented,
            Self::Internal => Code::Internal,
            Self::Unavailable => Code::Unavailable,
            Self::DataLoss => Code::DataLoss,
            Self::Unauthenticated => Code::Unauthenticated,
        }
    }
}

impl RpcFault {
    fn at(&self) -> RpcMoment {
        match self {
            Self::Status { at, .. }
            | Self::Slow { at, .. }
            | Self::Stall { at }
            | Self::Cut { at } => *at,
        }
    }

    /// Whether it strikes a call of this name on this topic at this moment; a Subscribe names its topic only later.
    pub(super) fn strikes(&self, on: &RpcMatch, at: RpcMoment, rpc: &str, topic: &str) -> bool {
        self.at() == at
            && on.rpc.as_deref().is_none_or(|wanted| wanted == rpc)
            && on.topic.as_deref().is_none_or(|wanted| wanted == topic)
    }

    /// A code that can stand in a trailer.
    pub(super) fn is_sound(&self) -> bool {
        match self {
            Self::Status {
                code: Some(code), ..
            } => code.bytes().all(|byte| byte.is_ascii_graphic()),
            _ => true,
        }
    }
}
