//! Requests and answers on a pair of links: tokens at `$cbs`, locks at `$management`.
//!
//! Source: <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-request-response>

use std::time::Duration;

use fe2o3_amqp::session::SessionHandle;
use fe2o3_amqp::types::messaging::{
    AmqpValue, ApplicationProperties, Body, Message, MessageId, Properties,
};
use fe2o3_amqp::types::primitives::{SimpleValue, Value};
use fe2o3_amqp::{Receiver, Sender};

use crate::fault::{Fault, FaultKind};

use super::refusal;

/// A pair of links to one node. The bus allows one pair to `$cbs` on a connection.
pub(super) struct Exchange {
    node: String,
    answers_to: String,
    sender: Sender,
    receiver: Receiver,
    asked: u64,
    timeout: Duration,
}

/// An answer's status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    /// As in HTTP.
    pub code: i64,
    /// What the bus says.
    pub text: String,
}

impl Status {
    /// Whether it was done.
    pub const fn is_done(&self) -> bool {
        matches!(self.code, 200..=299)
    }
}

impl Exchange {
    /// Opens both links.
    ///
    /// # Errors
    /// As [`refusal`] reads what the bus says; `Unavailable` after `timeout`.
    pub async fn open(
        session: &mut SessionHandle<()>,
        node: &str,
        timeout: Duration,
    ) -> Result<Self, Fault> {
        let answers_to = format!("tributary-{node}");
        let links = async {
            let sender = Sender::builder()
                .name(format!("to-{node}"))
                .source(answers_to.as_str())
                .target(node)
                .attach(session);
            let sender = sender.await.map_err(refusal::of_sender)?;
            let receiver = Receiver::builder()
                .name(format!("from-{node}"))
                .source(node)
                .target(answers_to.as_str())
                .attach(session);
            let receiver = receiver.await.map_err(refusal::of_receiver)?;
            Ok((sender, receiver))
        };
        let opened = tokio::time::timeout(timeout, links).await;
        let (sender, receiver) = opened.unwrap_or_else(|_| Err(silent(node)))?;
        Ok(Self {
            node: node.to_owned(),
            answers_to,
            sender,
            receiver,
            asked: 0,
            timeout,
        })
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// The connection's; `Unavailable` if no answer comes in time. Whatever the status is, it is an answer.
    pub async fn ask(&mut self, properties: &[(&str, &str)], body: Value) -> Result<Status, Fault> {
        self.asked += 1;
        let id = self.asked;
        let message = self.request(id, properties, body);
        let timeout = self.timeout;
        let answered = async {
            let outcome = self.sender.send(message).await;
            let outcome = outcome.map_err(refusal::of_send)?;
            outcome.accepted_or_else(|state| {
                let what = format!(
                    "the service bus took no request at {}: {state:?}",
                    self.node
                );
                Fault::new(FaultKind::Unavailable, what)
            })?;
            self.answer(id).await
        };
        let answered = tokio::time::timeout(timeout, answered).await;
        answered.unwrap_or_else(|_| Err(silent(&self.node)))
    }

    fn request(
        &self,
        id: u64,
        properties: &[(&str, &str)],
        body: Value,
    ) -> Message<AmqpValue<Value>> {
        let mut named = ApplicationProperties::default();
        for (name, value) in properties {
            named.insert((*name).to_owned(), SimpleValue::String((*value).to_owned()));
        }
        Message {
            properties: Some(Properties {
                message_id: Some(MessageId::Ulong(id)),
                reply_to: Some(self.answers_to.clone()),
                ..Properties::default()
            }),
            application_properties: Some(named),
            header: None,
            delivery_annotations: None,
            message_annotations: None,
            body: AmqpValue(body),
            footer: None,
        }
    }

    /// The answer of request `id`; those of requests that were given up are passed over.
    async fn answer(&mut self, id: u64) -> Result<Status, Fault> {
        loop {
            let delivery = self.receiver.recv::<Body<Value>>().await;
            let delivery = delivery.map_err(refusal::of_recv)?;
            // It may come settled; then there is nothing to say.
            self.receiver.accept(&delivery).await.ok();
            let message = delivery.message();
            let of = message
                .properties
                .as_ref()
                .and_then(|of| of.correlation_id.as_ref());
            if of == Some(&MessageId::Ulong(id)) {
                return Ok(status(message.application_properties.as_ref()));
            }
        }
    }
}

fn status(properties: Option<&ApplicationProperties>) -> Status {
    let find = |names: [&str; 2]| {
        let properties = properties?;
        names.iter().find_map(|name| properties.get(*name))
    };
    let code = match find(["status-code", "statusCode"]) {
        Some(SimpleValue::Int(code)) => i64::from(*code),
        Some(SimpleValue::Long(code)) => *code,
        _ => 0,
    };
    let text = match find(["status-description", "statusDescription"]) {
        Some(SimpleValue::String(text)) => text.chars().take(300).collect(),
        _ => String::new(),
    };
    Status { code, text }
}

fn silent(node: &str) -> Fault {
    Fault::new(
        FaultKind::Unavailable,
        format!("the service bus does not answer at {node}"),
    )
}
