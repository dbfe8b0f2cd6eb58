//! A session: its links, what is delivered on them and not settled, and the windows of both ends.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::amqp::frame::{
    ACCEPTED, ATTACH, DETACH, DISPOSITION, FLOW, Frame, REJECTED, TRANSFER, error,
};
use super::amqp::value::{Value, field};
use super::connection::{Broken, Peer};
use super::link::{Attach, INLET_CREDIT, Inlet, LARGEST, Outlet, Partial, admit};
use super::message::Message;
use super::node::Node;
use super::request;
use super::settlement::{answer, outcome, tag};

/// Frames that the client may send before it hears of the window again.
pub(super) const WINDOW: u32 = 5000;

/// A delivery that the client has not settled.
#[derive(Debug)]
struct Unsettled {
    handle: u32,
    node: Node,
    token: u128,
}

#[derive(Debug)]
pub(super) struct Session {
    channel: u16,
    next_incoming: u32,
    next_outgoing: u32,
    /// Frames that the client has room for.
    room: u32,
    next_delivery: u32,
    outlets: BTreeMap<u32, Outlet>,
    inlets: BTreeMap<u32, Inlet>,
    /// Handles that were detached here; what is still under way on them is passed over.
    detached: BTreeSet<u32>,
    unsettled: BTreeMap<u32, Unsettled>,
}

impl Session {
    /// A session as the client's `begin` describes it.
    pub fn new(channel: u16, begin: &[Value]) -> Self {
        Self {
            channel,
            next_incoming: field(begin, 1).small().unwrap_or(0),
            next_outgoing: 1,
            room: field(begin, 2).small().unwrap_or(0),
            next_delivery: 0,
            outlets: BTreeMap::new(),
            inlets: BTreeMap::new(),
            detached: BTreeSet::new(),
            unsettled: BTreeMap::new(),
        }
    }

    fn frame(&self, code: u64, fields: Vec<Value>) -> Frame {
        Frame::of(self.channel, code, fields)
    }

    /// Opens a link, or refuses it as the real one does: attached, and detached with the reason.
    pub fn attach(
        &mut self,
        fields: &[Value],
        peer: &mut Peer,
        out: &mut Vec<Frame>,
    ) -> Result<(), Broken> {
        let attach = Attach::read(fields).ok_or_else(|| {
            Broken::session(
                "amqp:invalid-field",
                "an attach needs name, handle and role",
            )
        })?;
        let handle = attach.handle;
        if self.outlets.contains_key(&handle) || self.inlets.contains_key(&handle) {
            return Err(Broken::session(
                "amqp:session:handle-in-use",
                "the handle is in use",
            ));
        }
        self.detached.remove(&handle);
        match admit(&attach, peer) {
            Err((condition, description)) => {
                out.push(self.frame(ATTACH, attach.answer(true)));
                self.detach(handle, condition, &description, out);
            }
            Ok(node) => {
                peer.opened(&node, attach.receives);
                out.push(self.frame(ATTACH, attach.answer(false)));
                self.open(&attach, node, out);
            }
        }
        Ok(())
    }

    fn open(&mut self, attach: &Attach<'_>, node: Node, out: &mut Vec<Frame>) {
        if attach.receives {
            let outlet = Outlet {
                settled: attach.is_settled() || !matches!(node, Node::Entity { .. }),
                node,
                delivery_count: 0,
                credit: 0,
                drain: false,
                reply_to: attach.other_address().map(str::to_owned),
                answers: std::collections::VecDeque::new(),
            };
            self.outlets.insert(attach.handle, outlet);
            return;
        }
        let inlet = Inlet {
            node,
            delivery_count: attach.initial_delivery_count(),
            credit: INLET_CREDIT,
            partial: None,
        };
        let count = inlet.delivery_count;
        self.inlets.insert(attach.handle, inlet);
        out.push(self.flow(Some((attach.handle, count, INLET_CREDIT, false))));
    }

    /// Ends a link with an error.
    fn detach(&mut self, handle: u32, condition: &str, description: &str, out: &mut Vec<Frame>) {
        let fields = vec![
            Value::Uint(handle),
            Value::Bool(true),
            error(condition, description),
        ];
        out.push(self.frame(DETACH, fields));
        self.detached.insert(handle);
        self.forget(handle);
    }

    /// The locks of what was delivered on the link go on.
    fn forget(&mut self, handle: u32) {
        self.outlets.remove(&handle);
        self.inlets.remove(&handle);
        self.unsettled
            .retain(|_, delivery| delivery.handle != handle);
    }

    /// The client ends a link.
    pub fn detached(
        &mut self,
        fields: &[Value],
        peer: &mut Peer,
        out: &mut Vec<Frame>,
    ) -> Result<(), Broken> {
        let handle = field(fields, 0).small().ok_or_else(unattached)?;
        if self.detached.remove(&handle) {
            return Ok(());
        }
        let outlet = self.outlets.get(&handle).map(|link| (&link.node, true));
        let inlet = self.inlets.get(&handle).map(|link| (&link.node, false));
        let (node, receives) = outlet.or(inlet).ok_or_else(unattached)?;
        peer.closed(node, receives);
        self.forget(handle);
        let closed = field(fields, 1).clone();
        out.push(self.frame(DETACH, vec![Value::Uint(handle), closed]));
        Ok(())
    }

    /// Detaches every link that needs a token and has none that holds.
    pub fn enforce(&mut self, peer: &Peer, out: &mut Vec<Frame>) {
        let now = peer.org.clock.now();
        let outlets = self
            .outlets
            .iter()
            .map(|(handle, link)| (*handle, &link.node, true));
        let inlets = self
            .inlets
            .iter()
            .map(|(handle, link)| (*handle, &link.node, false));
        let over: Vec<u32> = outlets
            .chain(inlets)
            .filter(|(_, node, receives)| !peer.may(node, *receives, now))
            .map(|(handle, ..)| handle)
            .collect();
        for handle in over {
            let text = "ExpiredToken: The token is expired. Expiration time has passed.";
            self.detach(handle, "amqp:unauthorized-access", text, out);
        }
    }

    /// Detaches every link to a queue.
    pub fn detach_all(&mut self, condition: &str, description: &str, out: &mut Vec<Frame>) {
        let outlets = self
            .outlets
            .iter()
            .filter(|(_, link)| matches!(link.node, Node::Entity { .. }));
        for handle in outlets.map(|(handle, _)| *handle).collect::<Vec<_>>() {
            self.detach(handle, condition, description, out);
        }
    }

    /// The client tells its windows and a link's credit.
    pub fn flowed(&mut self, fields: &[Value], out: &mut Vec<Frame>) -> Result<(), Broken> {
        let small = |place: usize| field(fields, place).small();
        let expected = small(0).unwrap_or(1);
        let window = small(1).unwrap_or(0);
        self.room = expected
            .wrapping_add(window)
            .wrapping_sub(self.next_outgoing);
        if let Some(next) = small(2) {
            self.next_incoming = next;
        }
        let echo = field(fields, 9).is_true();
        let Some(handle) = small(4) else {
            if echo {
                out.push(self.flow(None));
            }
            return Ok(());
        };
        if self.detached.contains(&handle) {
            return Ok(());
        }
        if let Some(outlet) = self.outlets.get_mut(&handle) {
            let seen = small(5).unwrap_or(0);
            let credit = small(6).unwrap_or(0);
            outlet.credit = seen
                .wrapping_add(credit)
                .wrapping_sub(outlet.delivery_count);
            outlet.drain = field(fields, 8).is_true();
            if echo && !outlet.drain {
                let state = (handle, outlet.delivery_count, outlet.credit, false);
                out.push(self.flow(Some(state)));
            }
            return Ok(());
        }
        let inlet = self.inlets.get(&handle).ok_or_else(unattached)?;
        if echo {
            let state = (handle, inlet.delivery_count, inlet.credit, false);
            out.push(self.flow(Some(state)));
        }
        Ok(())
    }

    /// A flow frame, of a link if one is given: handle, delivery count, credit, drain.
    fn flow(&self, link: Option<(u32, u32, u32, bool)>) -> Frame {
        let mut fields = vec![
            Value::Uint(self.next_incoming),
            Value::Uint(WINDOW),
            Value::Uint(self.next_outgoing),
            Value::Uint(WINDOW),
        ];
        if let Some((handle, count, credit, drain)) = link {
            fields.extend([Value::Uint(handle), Value::Uint(count), Value::Uint(credit)]);
            fields.extend([Value::Null, Value::Bool(drain)]);
        }
        self.frame(FLOW, fields)
    }

    /// A frame of a delivery came.
    pub fn transferred(
        &mut self,
        fields: &[Value],
        payload: &[u8],
        peer: &mut Peer,
        out: &mut Vec<Frame>,
    ) -> Result<(), Broken> {
        self.next_incoming = self.next_incoming.wrapping_add(1);
        let handle = field(fields, 0).small().ok_or_else(unattached)?;
        if self.detached.contains(&handle) {
            return Ok(());
        }
        let inlet = self.inlets.get_mut(&handle).ok_or_else(unattached)?;
        let partial = match inlet.partial.take() {
            Some(mut partial) => {
                partial.settled |= field(fields, 4).is_true();
                partial
            }
            None => {
                let Some(id) = field(fields, 1).small() else {
                    return Err(Broken::session(
                        "amqp:invalid-field",
                        "the first transfer of a delivery needs its id",
                    ));
                };
                if inlet.credit == 0 {
                    self.detach(
                        handle,
                        "amqp:link:transfer-limit-exceeded",
                        "there was no credit",
                        out,
                    );
                    return Ok(());
                }
                inlet.credit -= 1;
                inlet.delivery_count = inlet.delivery_count.wrapping_add(1);
                Partial {
                    id,
                    settled: field(fields, 4).is_true(),
                    bytes: Vec::new(),
                }
            }
        };
        if field(fields, 9).is_true() {
            return Ok(());
        }
        let mut partial = partial;
        partial.bytes.extend_from_slice(payload);
        if partial.bytes.len() > LARGEST {
            self.detach(
                handle,
                "amqp:link:message-size-exceeded",
                "the message is too large",
                out,
            );
            return Ok(());
        }
        if field(fields, 5).is_true() {
            inlet.partial = Some(partial);
            return Ok(());
        }
        let node = inlet.node.clone();
        if inlet.credit < INLET_CREDIT / 2 {
            inlet.credit = INLET_CREDIT;
            let state = (handle, inlet.delivery_count, INLET_CREDIT, false);
            out.push(self.flow(Some(state)));
        }
        let state = self.receive(&node, &partial.bytes, peer);
        if !partial.settled {
            let id = Value::Uint(partial.id);
            let fields = vec![Value::Bool(true), id.clone(), id, Value::Bool(true), state];
            out.push(self.frame(DISPOSITION, fields));
        }
        Ok(())
    }

    /// Takes a whole message; the state that its sender is told.
    fn receive(&mut self, node: &Node, bytes: &[u8], peer: &mut Peer) -> Value {
        let accepted = Value::composite(ACCEPTED, Vec::new());
        let rejected =
            |condition: &str, text: &str| Value::composite(REJECTED, vec![error(condition, text)]);
        let message = match Message::parse(bytes) {
            Ok(message) => message,
            Err(malformed) => return rejected("amqp:decode-error", &malformed.to_string()),
        };
        let now = peer.org.clock.now();
        let answer = match node {
            Node::Entity { .. } => {
                return match peer.bus().push(node, message, now) {
                    true => accepted,
                    false => rejected("amqp:not-found", "the entity is gone"),
                };
            }
            Node::Cbs => {
                let (answer, grant) = request::put_token(peer.bus(), &message, now);
                if let Some(grant) = grant {
                    peer.grant(grant);
                }
                answer
            }
            Node::Management { .. } => request::manage(peer.bus(), node, &message, now),
        };
        let wanted = message.reply_to();
        let outlet = self.outlets.values_mut().find(|link| {
            link.node == *node && (wanted.is_none() || link.reply_to.as_deref() == wanted)
        });
        match outlet {
            Some(outlet) => {
                outlet.answers.push_back(answer);
                accepted
            }
            None => rejected(
                "amqp:not-found",
                "no link of this session has the address in reply-to",
            ),
        }
    }

    /// Delivers what there is credit for.
    pub fn deliver(&mut self, peer: &Peer, out: &mut Vec<Frame>) {
        let now = peer.org.clock.now();
        for handle in self.outlets.keys().copied().collect::<Vec<_>>() {
            while self.room > 0 {
                let Some(outlet) = self.outlets.get_mut(&handle).filter(|link| link.credit > 0)
                else {
                    break;
                };
                let (bytes, token) = if let Some(answer) = outlet.answers.pop_front() {
                    (answer.bytes(), None)
                } else if !matches!(outlet.node, Node::Entity { .. }) {
                    break;
                } else if let Some(taken) = peer.bus().take(&outlet.node, outlet.settled, now) {
                    (taken.message.delivery(&taken.stamps), Some(taken.token))
                } else {
                    break;
                };
                outlet.credit -= 1;
                outlet.delivery_count = outlet.delivery_count.wrapping_add(1);
                self.send(handle, &bytes, token, peer.most, out);
            }
            self.drained(handle, out);
        }
    }

    /// Gives back the credit of a link that is drained.
    fn drained(&mut self, handle: u32, out: &mut Vec<Frame>) {
        let Some(outlet) = self
            .outlets
            .get_mut(&handle)
            .filter(|link| link.drain && self.room > 0)
        else {
            return;
        };
        outlet.delivery_count = outlet.delivery_count.wrapping_add(outlet.credit);
        outlet.credit = 0;
        outlet.drain = false;
        let state = (handle, outlet.delivery_count, 0, true);
        out.push(self.flow(Some(state)));
    }

    fn send(
        &mut self,
        handle: u32,
        bytes: &[u8],
        token: Option<u128>,
        most: usize,
        out: &mut Vec<Frame>,
    ) {
        let Some(outlet) = self.outlets.get(&handle) else {
            return;
        };
        let id = self.next_delivery;
        self.next_delivery = id.wrapping_add(1);
        let settled = outlet.settled;
        let node = outlet.node.clone();
        let tag = token.map_or_else(|| id.to_be_bytes().to_vec(), |token| tag(token).to_vec());
        let mut chunks = bytes.chunks(most.saturating_sub(128).max(256)).peekable();
        let mut first = true;
        while let Some(chunk) = chunks.next() {
            let mut fields = vec![
                Value::Uint(handle),
                Value::Null,
                Value::Null,
                Value::Null,
                Value::Null,
            ];
            if std::mem::take(&mut first) {
                fields[1] = Value::Uint(id);
                fields[2] = Value::Binary(tag.clone());
                fields[3] = Value::Uint(0);
                fields[4] = Value::Bool(settled);
            }
            fields.push(Value::Bool(chunks.peek().is_some()));
            let mut frame = self.frame(TRANSFER, fields);
            frame.payload = chunk.to_vec();
            out.push(frame);
            self.next_outgoing = self.next_outgoing.wrapping_add(1);
            self.room = self.room.saturating_sub(1);
        }
        if let (Some(token), false) = (token, settled) {
            self.unsettled.insert(
                id,
                Unsettled {
                    handle,
                    node,
                    token,
                },
            );
        }
    }

    /// The client settles deliveries, or says what is to become of them.
    pub fn disposed(
        &mut self,
        fields: &[Value],
        peer: &Peer,
        out: &mut Vec<Frame>,
    ) -> Result<(), Broken> {
        // What the client sent is settled as it comes: there is nothing to hear of it.
        if !field(fields, 0).is_true() {
            return Ok(());
        }
        let first = field(fields, 1).small().ok_or_else(|| {
            Broken::session(
                "amqp:invalid-field",
                "a disposition needs its first delivery",
            )
        })?;
        let last = field(fields, 2).small().unwrap_or(first);
        let settled = field(fields, 3).is_true();
        let Some(outcome) = outcome(field(fields, 4), settled) else {
            return Ok(());
        };
        let now = peer.org.clock.now();
        let ids: Vec<u32> = match first <= last {
            true => self
                .unsettled
                .range(first..=last)
                .map(|(id, _)| *id)
                .collect(),
            false => Vec::new(),
        };
        for id in ids {
            let Some(delivery) = self.unsettled.remove(&id) else {
                continue;
            };
            let result = match peer.bus().loses_settlement() {
                true => Ok(()),
                false => peer
                    .bus()
                    .settle(&delivery.node, delivery.token, outcome.clone(), now),
            };
            if settled {
                continue;
            }
            let state = answer(field(fields, 4), &outcome, result);
            let id = Value::Uint(id);
            let fields = vec![Value::Bool(false), id.clone(), id, Value::Bool(true), state];
            out.push(self.frame(DISPOSITION, fields));
        }
        Ok(())
    }

    /// When something of a lock's end may be delivered here.
    pub fn next_expiry(&self, peer: &Peer) -> Option<DateTime<Utc>> {
        let waiting = self.outlets.values().filter(|link| link.credit > 0);
        waiting
            .filter_map(|link| peer.bus().next_expiry(&link.node))
            .min()
    }
}

fn unattached() -> Broken {
    Broken::session("amqp:session:unattached-handle", "no link has this handle")
}
