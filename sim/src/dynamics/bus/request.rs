//! Requests and their answers: tokens at `$cbs`, locks at `$management`.
//!
//! Source: <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-request-response>

use chrono::{DateTime, Utc};

use super::Bus;
use super::amqp::value::Value;
use super::message::Message;
use super::node::Node;
use super::queue::{LockLost, Outcome};
use super::sas::Grant;

/// Takes a token: the answer, and what it allows.
pub(super) fn put_token(
    bus: &Bus,
    request: &Message,
    now: DateTime<Utc>,
) -> (Message, Option<Grant>) {
    let word = |name: &str| {
        request
            .property(name)
            .and_then(Value::word)
            .unwrap_or_default()
    };
    let answer = |code: i32, text: &str| {
        let status = vec![
            (Value::text("status-code"), Value::Int(code)),
            (Value::text("status-description"), Value::text(text)),
        ];
        reply(request, Value::Null, status)
    };
    if word("operation") != "put-token" {
        return (answer(400, "The operation is not put-token."), None);
    }
    // A client of the vendor's calls a signature `jwt`: the token itself tells what it is.
    if !matches!(word("type"), "servicebus.windows.net:sastoken" | "jwt") {
        let text = "The token type is not supported: servicebus.windows.net:sastoken is.";
        return (answer(400, text), None);
    }
    let Some(token) = request.body_value().and_then(Value::word) else {
        return (answer(400, "The body is no token in a string."), None);
    };
    match bus.verify(token, word("name"), now) {
        Ok(grant) => (answer(202, "Accepted"), Some(grant)),
        Err(refused) => (answer(401, &refused.to_string()), None),
    }
}

/// Does what a request about an entity's locks asks for.
pub(super) fn manage(bus: &Bus, node: &Node, request: &Message, now: DateTime<Utc>) -> Message {
    let operation = request
        .property("operation")
        .and_then(Value::word)
        .unwrap_or_default();
    let body = request.body_value().unwrap_or(&Value::Null);
    let tokens: Option<Vec<u128>> = body.entry("lock-tokens").map(|tokens| {
        let ids = tokens.list().iter().filter_map(|token| match token {
            Value::Uuid(id) => Some(*id),
            _ => None,
        });
        ids.collect()
    });
    let done = match (operation, tokens) {
        ("com.microsoft:renew-lock" | "com.microsoft:update-disposition", None) => {
            return status(request, Value::Null, 400, "`lock-tokens` is missing.", None);
        }
        ("com.microsoft:renew-lock", Some(tokens)) => renew(bus, node, &tokens, now),
        ("com.microsoft:update-disposition", Some(tokens)) => match outcome(body) {
            Some(outcome) => dispose(bus, node, &tokens, &outcome, now),
            None => {
                let text =
                    "`disposition-status` is none of completed, abandoned, suspended, defered.";
                return status(request, Value::Null, 400, text, None);
            }
        },
        _ => {
            let text = "The operation is not supported by this simulator.";
            return status(
                request,
                Value::Null,
                501,
                text,
                Some("amqp:not-implemented"),
            );
        }
    };
    match done {
        Ok(body) => status(request, body, 200, "OK", None),
        Err(lost) => {
            let condition = Some("com.microsoft:message-lock-lost");
            status(request, Value::Null, 410, &lost.to_string(), condition)
        }
    }
}

fn renew(bus: &Bus, node: &Node, tokens: &[u128], now: DateTime<Utc>) -> Result<Value, LockLost> {
    let ends = tokens.iter().map(|token| bus.renew(node, *token, now));
    let ends = ends.collect::<Result<Vec<_>, _>>()?;
    let ends = ends
        .iter()
        .map(|end| Value::Timestamp(end.timestamp_millis()));
    let expirations = Value::Array(ends.collect());
    Ok(Value::Map(vec![(Value::text("expirations"), expirations)]))
}

fn dispose(
    bus: &Bus,
    node: &Node,
    tokens: &[u128],
    outcome: &Outcome,
    now: DateTime<Utc>,
) -> Result<Value, LockLost> {
    for token in tokens {
        bus.settle(node, *token, outcome.clone(), now)?;
    }
    Ok(Value::Null)
}

fn outcome(body: &Value) -> Option<Outcome> {
    let word = |name: &str| body.entry(name).and_then(Value::word).unwrap_or_default();
    Some(match word("disposition-status") {
        "completed" => Outcome::Complete,
        "abandoned" => Outcome::Abandon,
        "defered" => Outcome::Defer,
        "suspended" => Outcome::DeadLetter {
            reason: word("deadletter-reason").to_owned(),
            description: word("deadletter-description").to_owned(),
        },
        _ => return None,
    })
}

fn status(
    request: &Message,
    body: Value,
    code: i32,
    text: &str,
    condition: Option<&str>,
) -> Message {
    let mut status = vec![
        (Value::text("statusCode"), Value::Int(code)),
        (Value::text("statusDescription"), Value::text(text)),
    ];
    if let Some(condition) = condition {
        status.push((Value::text("errorCondition"), Value::symbol(condition)));
    }
    reply(request, body, status)
}

/// An answer names its request by the request's id.
fn reply(request: &Message, body: Value, status: Vec<(Value, Value)>) -> Message {
    let mut properties = vec![Value::Null; 6];
    properties[5] = request.message_id().clone();
    Message::value(body, properties, status)
}
