//! What a refused call or an ended stream means (Pub/Sub API Developer Guide, "Handling Errors").

use std::error::Error;
use std::time::Duration;

use tonic::{Code, Status};

use crate::crm::salesforce::limits::delivery_spent;
use crate::fault::{Fault, FaultKind};

/// What an error code begins with, in the trailer that bears it.
const CODE: &str = "sfdc.platform.eventbus.grpc.";
const TRAILER: &str = "error-code";

/// What ends a call.
#[derive(Debug)]
pub enum Trouble {
    /// The token is dead: a new one helps.
    DeadToken(String),
    /// The connection or the stream was cut: a new one helps, if it does.
    Cut(String),
    /// It is for the caller.
    Fault(Fault),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// What becomes of a code.
enum Fate {
    DeadToken,
    Cut,
    Spent,
    Wait(FaultKind, Duration, Option<&'static str>),
    Fault(FaultKind, Option<&'static str>),
}

/// Classifies what ended `what`.
#[must_use]
pub fn classify(what: &str, status: &Status) -> Trouble {
    let code = status
        .metadata()
        .get(TRAILER)
        .and_then(|code| code.to_str().ok());
    let suffix = code.map(|code| code.strip_prefix(CODE).unwrap_or(code));
    let shown = shown(what, status, suffix);
    let fate = suffix
        .and_then(of_suffix)
        .unwrap_or_else(|| of_status(status, suffix.is_some()));
    match fate {
        Fate::DeadToken => Trouble::DeadToken(shown),
        Fate::Cut => Trouble::Cut(shown),
        Fate::Spent => Trouble::Fault(delivery_spent(&shown)),
        Fate::Wait(kind, wait, remedy) => {
            let fault = Fault::new(kind, shown).retry_after(wait);
            Trouble::Fault(match remedy {
                Some(remedy) => fault.remedy(remedy),
                None => fault,
            })
        }
        Fate::Fault(kind, remedy) => {
            let fault = Fault::new(kind, shown);
            Trouble::Fault(match remedy {
                Some(remedy) => fault.remedy(remedy),
                None => fault,
            })
        }
    }
}

const UNKNOWN_TOPIC: &str =
    "check the channel's name, and select the object in Setup → Change Data Capture";
const NO_PERMISSION: &str =
    "give the connection's user View All Data, or View All on each object, and API access";

fn of_suffix(suffix: &str) -> Option<Fate> {
    use FaultKind::{Config, Permission, PositionLost, Protocol, Throttled, Unavailable};
    let minute = Duration::from_mins(1);
    Some(match suffix {
        "service.auth.error" | "service.auth.headers.invalid" | "service.auth.refresh.invalid" => {
            Fate::DeadToken
        }
        "service.unavailable"
        | "topic.api.unavailable"
        | "schema.api.unavailable"
        | "subscription.internal.error" => Fate::Fault(Unavailable, None),
        "service.protection.triggered" => Fate::Wait(Throttled, minute, None),
        "service.protection.stream.limit.triggered" | "concurrent.client.limit.exceeded" => {
            let remedy = "too many subscriptions are open in the org: let fewer subscribers listen";
            Fate::Wait(Throttled, 5 * minute, Some(remedy))
        }
        "subscription.limit.exceeded" => Fate::Spent,
        "service.tenant.license" => Fate::Fault(
            Permission,
            Some("the org's licence does not include the Pub/Sub API: ask its admin"),
        ),
        "topic.not.found" => Fate::Fault(Config, Some(UNKNOWN_TOPIC)),
        "topic.meta.permission"
        | "schema.meta.permission"
        | "subscription.topic.cannot.subscribe" => Fate::Fault(Permission, Some(NO_PERMISSION)),
        // Too old, or the stream was reset: what lies between is a hole either way.
        "subscription.fetch.replayid.corrupted"
        | "subscription.fetch.replayid.validation.failed" => Fate::Fault(PositionLost, None),
        "subscription.fetch.replay.repeated" => Fate::Cut,
        "topic.validation.empty"
        | "schema.validation.failed"
        | "subscription.fetch.requested.events.invalid"
        | "subscription.fetch.topic.mismatch"
        | "subscription.fetch.request.invalid"
        | "subscription.fetch.overflow" => Fate::Fault(Protocol, None),
        _ => return None,
    })
}

/// By the gRPC status, for what bears no code that is known: a network, a proxy, a code that is new.
fn of_status(status: &Status, has_code: bool) -> Fate {
    use FaultKind::{Config, Permission, PositionLost, Protocol, Throttled, Unavailable};
    let says = |text: &str| status.message().to_ascii_lowercase().contains(text);
    match status.code() {
        Code::Unauthenticated => Fate::DeadToken,
        Code::PermissionDenied => Fate::Fault(Permission, Some(NO_PERMISSION)),
        Code::NotFound => Fate::Fault(Config, Some(UNKNOWN_TOPIC)),
        Code::ResourceExhausted => Fate::Wait(Throttled, Duration::from_mins(5), None),
        Code::InvalidArgument if says("replay id validation failed") => {
            Fate::Fault(PositionLost, None)
        }
        Code::OutOfRange if says("decoded message length too large") => Fate::Fault(
            Protocol,
            Some("the Pub/Sub API sends at most 3 MB at once: see what stands between"),
        ),
        Code::InvalidArgument | Code::OutOfRange | Code::DataLoss => Fate::Fault(Protocol, None),
        Code::Unimplemented => Fate::Fault(
            Config,
            Some("`pubsub_address` serves no Pub/Sub API: check it, and what stands between"),
        ),
        _ if has_code => Fate::Fault(Unavailable, None),
        _ => Fate::Cut,
    }
}

/// The text for the operator: what was said, by which code, under which id for Salesforce's support.
fn shown(what: &str, status: &Status, suffix: Option<&str>) -> String {
    let said: String = status.message().chars().take(500).collect();
    let mut shown = format!("{what}: {}", status.code());
    if !said.is_empty() {
        shown = format!("{what}: {said}");
    }
    let mut cause = status.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !shown.ends_with(&text) {
            shown = format!("{shown}: {text}");
        }
        cause = inner.source();
    }
    if let Some(suffix) = suffix {
        shown = format!("{shown} ({suffix})");
    }
    let rpc = status
        .metadata()
        .get("rpc-id")
        .and_then(|id| id.to_str().ok());
    match rpc {
        Some(rpc) if !shown.contains(rpc) => format!("{shown} (rpcId {rpc})"),
        _ => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: Code, suffix: &str) -> Status {
        let mut status = Status::new(code, "It failed.");
        let code = format!("{CODE}{suffix}");
        status.metadata_mut().insert(TRAILER, code.parse().unwrap());
        status
            .metadata_mut()
            .insert("rpc-id", "r-1".parse().unwrap());
        status
    }

    fn kind(trouble: &Trouble) -> Option<FaultKind> {
        match trouble {
            Trouble::Fault(fault) => Some(fault.kind()),
            _ => None,
        }
    }

    #[test]
    fn the_table() {
        use FaultKind::{Config, Permission, PositionLost, Protocol, Throttled, Unavailable};
        for (suffix, expected) in [
            ("service.unavailable", Unavailable),
            ("topic.api.unavailable", Unavailable),
            ("schema.api.unavailable", Unavailable),
            ("subscription.internal.error", Unavailable),
            ("service.protection.triggered", Throttled),
            ("service.protection.stream.limit.triggered", Throttled),
            ("concurrent.client.limit.exceeded", Throttled),
            ("subscription.limit.exceeded", Throttled),
            ("service.tenant.license", Permission),
            ("topic.not.found", Config),
            ("topic.meta.permission", Permission),
            ("schema.meta.permission", Permission),
            ("subscription.topic.cannot.subscribe", Permission),
            ("subscription.fetch.replayid.corrupted", PositionLost),
            (
                "subscription.fetch.replayid.validation.failed",
                PositionLost,
            ),
            ("topic.validation.empty", Protocol),
            ("schema.validation.failed", Protocol),
            ("subscription.fetch.requested.events.invalid", Protocol),
            ("subscription.fetch.topic.mismatch", Protocol),
            ("subscription.fetch.request.invalid", Protocol),
            ("subscription.fetch.overflow", Protocol),
            ("something.new", Unavailable),
        ] {
            // The code decides, whatever the status.
            let trouble = classify("x", &status(Code::Internal, suffix));
            assert_eq!(kind(&trouble), Some(expected), "{suffix}");
            if expected == Throttled {
                assert!(matches!(trouble, Trouble::Fault(fault) if fault.wait_hint().is_some()));
            }
        }
    }

    #[test]
    fn what_a_new_token_or_a_new_stream_heals() {
        for suffix in [
            "service.auth.error",
            "service.auth.headers.invalid",
            "service.auth.refresh.invalid",
        ] {
            let trouble = classify("x", &status(Code::Internal, suffix));
            assert!(matches!(trouble, Trouble::DeadToken(_)), "{suffix}");
        }
        let repeated = status(Code::InvalidArgument, "subscription.fetch.replay.repeated");
        assert!(matches!(classify("x", &repeated), Trouble::Cut(_)));
        for code in [
            Code::Unavailable,
            Code::Unknown,
            Code::Internal,
            Code::Cancelled,
            Code::Aborted,
        ] {
            let trouble = classify("x", &Status::new(code, "broken pipe"));
            assert!(matches!(trouble, Trouble::Cut(_)), "{code:?}");
        }
        let refused = Status::unauthenticated("An authentication exception occurred.");
        assert!(matches!(classify("x", &refused), Trouble::DeadToken(_)));
    }

    #[test]
    fn a_status_without_code() {
        use FaultKind::{Config, Permission, PositionLost, Protocol, Throttled};
        for (status, expected) in [
            (Status::permission_denied(""), Permission),
            (Status::not_found(""), Config),
            (Status::resource_exhausted(""), Throttled),
            (
                Status::invalid_argument("The Replay ID validation failed. Ensure"),
                PositionLost,
            ),
            (Status::invalid_argument("x"), Protocol),
            (Status::unimplemented(""), Config),
            (
                Status::out_of_range("Error, decoded message length too large"),
                Protocol,
            ),
        ] {
            assert_eq!(kind(&classify("x", &status)), Some(expected), "{status:?}");
        }
    }

    #[test]
    fn the_text_has_what_support_asks_for() {
        let text = match classify(
            "subscribing",
            &status(Code::Internal, "service.unavailable"),
        ) {
            Trouble::Fault(fault) => fault.report(),
            _ => String::new(),
        };
        assert_eq!(
            text,
            "subscribing: It failed. (service.unavailable) (rpcId r-1)"
        );
    }
}
