//! Settlement: what a client asks to become of a delivery, and what it is told.

use super::amqp::frame::{ACCEPTED, MODIFIED, REJECTED, RELEASED, error};
use super::amqp::value::{Value, field};
use super::queue::{LockLost, Outcome};

/// What a delivery state asks for; settled without one is taken for completed.
pub(super) fn outcome(state: &Value, settled: bool) -> Option<Outcome> {
    let Some((code, inner)) = state.parts() else {
        return settled.then_some(Outcome::Complete);
    };
    let fields = inner.list();
    Some(match code {
        ACCEPTED => Outcome::Complete,
        RELEASED => Outcome::Abandon,
        MODIFIED if field(fields, 1).is_true() => Outcome::Defer,
        MODIFIED => Outcome::Abandon,
        REJECTED => {
            let cause = field(fields, 0)
                .parts()
                .map_or(&[][..], |(_, inner)| inner.list());
            let info = field(cause, 2);
            let told = |name: &str| {
                info.entry(name)
                    .and_then(Value::word)
                    .unwrap_or_default()
                    .to_owned()
            };
            Outcome::DeadLetter {
                reason: told("DeadLetterReason"),
                description: told("DeadLetterErrorDescription"),
            }
        }
        _ => return None,
    })
}

/// The state that a client is told of what it asked for: the same, or why not.
pub(super) fn answer(asked: &Value, outcome: &Outcome, done: Result<(), LockLost>) -> Value {
    match done {
        // A rejection with an error would mean that the settlement was refused.
        Ok(()) if matches!(outcome, Outcome::DeadLetter { .. }) => {
            Value::composite(REJECTED, Vec::new())
        }
        Ok(()) => asked.clone(),
        Err(lost) => {
            let cause = error("com.microsoft:message-lock-lost", &lost.to_string());
            Value::composite(REJECTED, vec![cause])
        }
    }
}

/// The delivery tag of a lock: a GUID's bytes as .NET orders them.
pub(super) fn tag(token: u128) -> [u8; 16] {
    let mut bytes = token.to_be_bytes();
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}
