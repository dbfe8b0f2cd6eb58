//! What the bus says when it refuses, and what becomes of it here.
//!
//! Source: <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-troubleshoot>

use std::time::Duration;

use fe2o3_amqp::connection::OpenError;
use fe2o3_amqp::link::{
    DetachError, LinkStateError, ReceiverAttachError, RecvError, SendError, SenderAttachError,
};
use fe2o3_amqp::types::definitions;
use fe2o3_amqp::types::primitives::Symbol;

use crate::fault::{Fault, FaultKind};

/// When a busy bus is asked again.
const BUSY_WAIT: Duration = Duration::from_secs(10);

/// The name of an error condition.
fn condition(error: &definitions::Error) -> String {
    match &error.condition {
        definitions::ErrorCondition::AmqpError(known) => Symbol::from(known).to_string(),
        definitions::ErrorCondition::ConnectionError(known) => Symbol::from(known).to_string(),
        definitions::ErrorCondition::SessionError(known) => Symbol::from(known).to_string(),
        definitions::ErrorCondition::LinkError(known) => Symbol::from(known).to_string(),
        definitions::ErrorCondition::Custom(name) => name.to_string(),
    }
}

/// What the bus says, as a text.
fn text(error: &definitions::Error) -> String {
    let told = error.description.as_deref().unwrap_or("no reason");
    let told: String = told.chars().take(300).collect();
    format!("the service bus says {}: {told}", condition(error))
}

/// The fault of an error that the bus told of.
pub(super) fn fault(error: &definitions::Error) -> Fault {
    let of = |kind| Fault::new(kind, text(error));
    match condition(error).as_str() {
        "amqp:unauthorized-access" => of(FaultKind::Permission).remedy(
            "give the shared access policy the right Listen on the queue, or name another policy in `key_name`",
        ),
        "amqp:not-found" => of(FaultKind::Missing)
            .remedy("make the queue, or write its name in `queue` (a topic: `topic/Subscriptions/name`)"),
        "com.microsoft:entity-disabled" => of(FaultKind::Permission).remedy("enable the queue in the portal"),
        "amqp:not-allowed" | "amqp:not-implemented" => of(FaultKind::Config)
            .remedy("use a queue or subscription without sessions, of the tier Standard or Premium"),
        "com.microsoft:server-busy" | "amqp:resource-limit-exceeded" => {
            of(FaultKind::Throttled).retry_after(BUSY_WAIT)
        }
        _ => of(FaultKind::Unavailable),
    }
}

/// The fault of a connection that did not open.
pub(super) fn of_open(error: OpenError) -> Fault {
    match error {
        OpenError::RemoteClosedWithError(error) => fault(&error),
        OpenError::ProtocolHeaderMismatch(_) => Fault::new(
            FaultKind::Protocol,
            "the service bus does not answer in AMQP 1.0",
        )
        .remedy("check `servicebus_url` and `transport`")
        .source(error),
        OpenError::SaslError { .. } => Fault::new(
            FaultKind::Protocol,
            "the service bus refuses to begin without a sign-in",
        )
        .source(error),
        other => lost("opening the connection").source(other),
    }
}

/// The fault of a link that was not opened for sending.
pub(super) fn of_sender(error: SenderAttachError) -> Fault {
    match error {
        SenderAttachError::RemoteClosedWithError(error) => fault(&error),
        other => lost("opening a link").source(other),
    }
}

/// The fault of a link that was not opened for receiving.
pub(super) fn of_receiver(error: ReceiverAttachError) -> Fault {
    match error {
        ReceiverAttachError::RemoteClosedWithError(error) => fault(&error),
        other => lost("opening a link").source(other),
    }
}

/// The fault of a message that was not sent.
pub(super) fn of_send(error: SendError) -> Fault {
    match error {
        SendError::Detached(
            DetachError::RemoteClosedWithError(error) | DetachError::RemoteDetachedWithError(error),
        ) => fault(&error),
        SendError::LinkStateError(error) => of_state(error),
        other => lost("sending a request").source(other),
    }
}

/// The fault of a wait for messages.
pub(super) fn of_recv(error: RecvError) -> Fault {
    match error {
        RecvError::LinkStateError(error) => of_state(error),
        other => lost("receiving").source(other),
    }
}

/// The fault of a link that has ended.
pub(super) fn of_state(error: LinkStateError) -> Fault {
    match error {
        LinkStateError::RemoteClosedWithError(error)
        | LinkStateError::RemoteDetachedWithError(error) => {
            let fault = fault(&error);
            // The link was there: a token ran out, and a new one is brought with the next.
            if fault.kind() == FaultKind::Permission {
                return Fault::new(FaultKind::Unavailable, text(&error));
            }
            fault
        }
        other => lost("listening").source(other),
    }
}

/// The connection ended by itself.
pub(super) fn lost(doing: &str) -> Fault {
    let what = format!("{doing}: the connection to the service bus ended");
    Fault::new(FaultKind::Unavailable, what)
}
