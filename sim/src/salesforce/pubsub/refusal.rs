//! Errors as the event bus tells them: a gRPC status, and trailers with the code to branch on.

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

const PREFIX: &str = "sfdc.platform.eventbus.grpc.";

/// A refusal by its status, code suffix and text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: Code,
    /// What follows `sfdc.platform.eventbus.grpc.`.
    pub code: &'static str,
    pub text: &'static str,
}

const fn refusal(status: Code, code: &'static str, text: &'static str) -> Refusal {
    Refusal { status, code, text }
}

pub(super) const AUTHENTICATION: Refusal = refusal(
    Code::Unauthenticated,
    "service.auth.error",
    "An authentication exception occurred. Provide valid authentication via metadata headers.",
);
pub(super) const HEADERS: Refusal = refusal(
    Code::Unauthenticated,
    "service.auth.headers.invalid",
    "The metadata headers accesstoken, instanceurl and tenantid must be given.",
);
pub(super) const NO_TOPIC: Refusal = refusal(
    Code::InvalidArgument,
    "topic.validation.empty",
    "Topic validation failed. The topic name can't be blank.",
);
pub(super) const CANNOT_SUBSCRIBE: Refusal = refusal(
    Code::PermissionDenied,
    "subscription.topic.cannot.subscribe",
    "You don't have permission to subscribe to this topic.",
);
pub(super) const BLANK_SCHEMA: Refusal = refusal(
    Code::InvalidArgument,
    "schema.validation.failed",
    "Schema validation failed. The schema ID can't be blank.",
);
pub(super) const UNKNOWN_SCHEMA: Refusal = refusal(
    Code::InvalidArgument,
    "schema.validation.failed",
    "Schema validation failed. The schema ID isn't known.",
);
pub(super) const CORRUPTED: Refusal = refusal(
    Code::InvalidArgument,
    "subscription.fetch.replayid.corrupted",
    "The Replay ID validation failed. Ensure that the Replay ID is valid.",
);
pub(super) const NO_REPLAY_ID: Refusal = refusal(
    Code::InvalidArgument,
    "subscription.fetch.replayid.validation.failed",
    "The replay preset CUSTOM needs a Replay ID.",
);
pub(super) const REQUESTED: Refusal = refusal(
    Code::InvalidArgument,
    "subscription.fetch.requested.events.invalid",
    "The number of requested events must be greater than zero.",
);
pub(super) const MISMATCH: Refusal = refusal(
    Code::InvalidArgument,
    "subscription.fetch.topic.mismatch",
    "The topic name must be that of the first fetch request.",
);
pub(super) const BAD_FETCH: Refusal = refusal(
    Code::InvalidArgument,
    "subscription.fetch.request.invalid",
    "The replay preset is none of LATEST, EARLIEST and CUSTOM.",
);
pub(super) const DELIVERY_LIMIT: Refusal = refusal(
    Code::ResourceExhausted,
    "subscription.limit.exceeded",
    "You have exceeded the event delivery limit for your org.",
);

impl Refusal {
    pub fn status(self, rpc_id: &str) -> Status {
        status(self.status, Some(self.code), self.text, rpc_id)
    }
}

/// The topic is none of the org's, or its object is not selected for capture.
pub(super) fn topic_not_found(org: &str, topic: &str, rpc_id: &str) -> Status {
    let text = format!(
        "The topic information for org {org} and topic {topic} not found. Check if the topic exists and is enabled."
    );
    status(Code::NotFound, Some("topic.not.found"), &text, rpc_id)
}

/// A status with the bus's trailers; one without a code comes from a proxy and has none.
pub(super) fn status(code: Code, suffix: Option<&str>, text: &str, rpc_id: &str) -> Status {
    let Some(suffix) = suffix else {
        return Status::new(code, text);
    };
    let mut trailers = MetadataMap::new();
    let full = format!("{PREFIX}{suffix}");
    for (name, value) in [("error-code", full.as_str()), ("rpc-id", rpc_id)] {
        // A code that is no header value can come from a script only, which checks it.
        if let Ok(value) = MetadataValue::try_from(value) {
            trailers.insert(name, value);
        }
    }
    Status::with_metadata(code, format!("{text} rpcId: {rpc_id}"), trailers)
}
