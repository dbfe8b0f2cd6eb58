//! Links: one way each, with the credit that the receiving end gave.

use std::collections::VecDeque;

use super::amqp::frame::{SOURCE, TARGET};
use super::amqp::value::{Value, field};
use super::connection::Peer;
use super::message::Message;
use super::node::Node;
use super::sas::Right;

/// Credit given to clients that send.
pub(super) const INLET_CREDIT: u32 = 100;
/// The largest message of the standard tier.
pub(super) const LARGEST: usize = 256 * 1024;

/// A link that the client receives on.
#[derive(Debug)]
pub(super) struct Outlet {
    pub node: Node,
    pub delivery_count: u32,
    pub credit: u32,
    pub drain: bool,
    /// Deliveries are settled as they are sent: receive and delete.
    pub settled: bool,
    /// The address that answers are to be sent to.
    pub reply_to: Option<String>,
    /// Answers that wait for credit.
    pub answers: VecDeque<Message>,
}

/// A link that the client sends on.
#[derive(Debug)]
pub(super) struct Inlet {
    pub node: Node,
    pub delivery_count: u32,
    pub credit: u32,
    /// The delivery under way.
    pub partial: Option<Partial>,
}

/// A delivery of which some frames came.
#[derive(Debug, Default)]
pub(super) struct Partial {
    pub id: u32,
    pub settled: bool,
    pub bytes: Vec<u8>,
}

/// What a client asks for.
#[derive(Debug)]
pub(super) struct Attach<'f> {
    pub name: &'f str,
    pub handle: u32,
    /// The client is the receiver.
    pub receives: bool,
    pub address: Option<&'f str>,
    pub fields: &'f [Value],
}

impl<'f> Attach<'f> {
    pub fn read(fields: &'f [Value]) -> Option<Self> {
        let receives = match field(fields, 2) {
            Value::Bool(role) => *role,
            _ => return None,
        };
        let (terminus, code) = match receives {
            true => (field(fields, 5), SOURCE),
            false => (field(fields, 6), TARGET),
        };
        Some(Self {
            name: field(fields, 0).word()?,
            handle: field(fields, 1).small()?,
            receives,
            address: address(terminus, code),
            fields,
        })
    }

    /// The other end's address: where a client that receives answers wants them.
    pub fn other_address(&self) -> Option<&'f str> {
        match self.receives {
            true => address(field(self.fields, 6), TARGET),
            false => address(field(self.fields, 5), SOURCE),
        }
    }

    pub fn is_settled(&self) -> bool {
        field(self.fields, 3).small() == Some(1)
    }

    pub fn initial_delivery_count(&self) -> u32 {
        field(self.fields, 9).small().unwrap_or(0)
    }

    /// The fields of the answer; a refused link has no terminus here.
    pub fn answer(&self, refused: bool) -> Vec<Value> {
        let of = |place: usize, gone: bool| match gone {
            true => Value::Null,
            false => field(self.fields, place).clone(),
        };
        vec![
            Value::text(self.name),
            Value::Uint(self.handle),
            Value::Bool(!self.receives),
            of(3, false),
            of(4, false),
            of(5, refused && self.receives),
            of(6, refused && !self.receives),
            Value::Null,
            Value::Null,
            match self.receives {
                true => Value::Uint(0),
                false => Value::Null,
            },
            Value::Ulong(LARGEST as u64),
        ]
    }
}

/// Where a link leads, if the client may have it.
pub(super) fn admit(attach: &Attach<'_>, peer: &Peer) -> Result<Node, (&'static str, String)> {
    let address = attach.address.unwrap_or_default();
    let missing = || {
        let text = format!(
            "The messaging entity 'sb://{}/{address}' could not be found.",
            peer.host
        );
        ("amqp:not-found", text)
    };
    let node = Node::parse(address).ok_or_else(missing)?;
    if node == Node::Cbs {
        if peer.has_cbs(attach.receives) {
            let text = "Only one $cbs link of each direction is allowed on a connection.";
            return Err(("amqp:not-allowed", text.to_owned()));
        }
        return Ok(node);
    }
    if !peer.may(&node, attach.receives, peer.org.clock.now()) {
        let right = if attach.receives {
            Right::Listen
        } else {
            Right::Send
        };
        let text = format!(
            "Unauthorized access. '{right:?}' claim(s) are required to perform this operation. Resource: 'sb://{}/{address}'.",
            peer.host
        );
        return Err(("amqp:unauthorized-access", text));
    }
    if !peer.bus().knows(&node) {
        return Err(missing());
    }
    if !attach.receives && node.is_dead() && matches!(node, Node::Entity { .. }) {
        let text = "Messages can't be sent to a dead-letter queue.";
        return Err(("amqp:not-allowed", text.to_owned()));
    }
    Ok(node)
}

fn address(terminus: &Value, code: u64) -> Option<&str> {
    match terminus.parts()? {
        (found, Value::List(fields)) if found == code => field(fields, 0).word(),
        _ => None,
    }
}
