//! What a subscription is owed: events after its position, in order, in answers of a bounded size.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::super::commits::{CommitLog, Committed, TooOld};
use super::super::org::Org;
use super::channel::Channel;
use super::event::{DataMessage, schema_id, weight};
use super::message::Name;

/// Events of one answer.
pub(super) const MAX_EVENTS: usize = 1000;
/// Rough size of one answer, in bytes.
const MAX_BYTES: usize = 1024 * 1024;
/// Events read from the log at a time.
const PAGE: usize = 512;

/// A channel that a client listens to, and how far it has been served.
#[derive(Debug)]
pub(super) struct Subscription {
    pub name: Name,
    pub channel: Channel,
    /// Everything up to this replay id was sent or is none of its business.
    pub cursor: u64,
    /// Sent once already, and to be sent again before anything new.
    pub again: VecDeque<Arc<Committed>>,
}

/// Who asks, and how much may be sent.
pub(super) struct Request<'a> {
    pub org: &'a Org,
    /// Added to each message, if the server is in the mood.
    pub client_id: Option<Name>,
    /// Without it, no change event is shown.
    pub view_all_data: bool,
    /// Entities that this user's permissions hide.
    pub forbidden: &'a BTreeSet<String>,
    /// What is left of the daily allocation.
    pub allowance: usize,
}

/// Takes the next answer's events off the subscriptions. Each one's order is the log's; between them it is by replay
/// id. An error tells that events were removed which a subscription had not been sent.
pub(super) fn take(
    subscriptions: &mut [Subscription],
    request: &Request<'_>,
) -> Result<Vec<DataMessage>, TooOld> {
    let room = request.allowance.min(MAX_EVENTS);
    let mut answer = Answer::new(request, room);
    for subscription in subscriptions.iter_mut() {
        while answer.has_room()
            && let Some(event) = subscription.again.pop_front()
        {
            answer.push(&subscription.name, event);
        }
    }
    if !answer.has_room() {
        return Ok(answer.messages);
    }
    let mut pulled = Vec::with_capacity(subscriptions.len());
    for subscription in subscriptions.iter() {
        pulled.push(Pulled::read(subscription, request, room)?);
    }
    while answer.has_room() {
        let next = pulled
            .iter()
            .enumerate()
            .filter_map(|(place, pulled)| Some((pulled.events.front()?.replay_id, place)))
            .min();
        let Some((replay_id, place)) = next else {
            break;
        };
        let Some((subscription, pulled)) = subscriptions.get_mut(place).zip(pulled.get_mut(place))
        else {
            break;
        };
        // Events that share a replay id are never parted: the second could not be asked for.
        while let Some(event) = pulled.next_of(replay_id) {
            answer.push(&subscription.name, event);
        }
        subscription.cursor = replay_id;
    }
    for (subscription, pulled) in subscriptions.iter_mut().zip(&pulled) {
        if pulled.events.is_empty() {
            subscription.cursor = pulled.reached;
        }
    }
    Ok(answer.messages)
}

/// Events found for a subscription.
struct Pulled {
    events: VecDeque<Arc<Committed>>,
    /// The last replay id looked at.
    reached: u64,
}

impl Pulled {
    fn read(
        subscription: &Subscription,
        request: &Request<'_>,
        room: usize,
    ) -> Result<Self, TooOld> {
        let mut pulled = Self {
            events: VecDeque::new(),
            reached: subscription.cursor,
        };
        while pulled.events.len() < room {
            let page = whole_page(&request.org.log, pulled.reached)?;
            let Some(last) = page.last() else {
                break;
            };
            pulled.reached = last.replay_id;
            pulled.events.extend(page.into_iter().filter(|committed| {
                let entity = &committed.event.entity;
                request.view_all_data
                    && subscription.channel.carries(entity)
                    && !request.forbidden.contains(entity)
            }));
        }
        Ok(pulled)
    }

    fn next_of(&mut self, replay_id: u64) -> Option<Arc<Committed>> {
        self.events
            .front()
            .is_some_and(|event| event.replay_id == replay_id)
            .then(|| self.events.pop_front())
            .flatten()
    }
}

/// Events after a position, never only a part of those that share a replay id.
fn whole_page(log: &CommitLog, after: u64) -> Result<Vec<Arc<Committed>>, TooOld> {
    let mut size = PAGE;
    loop {
        let mut page = log.after(after, size)?;
        if page.len() < size {
            return Ok(page);
        }
        let last = page.last().map(|event| event.replay_id);
        let whole = page.partition_point(|event| Some(event.replay_id) < last);
        if whole > 0 {
            page.truncate(whole);
            return Ok(page);
        }
        size *= 2;
    }
}

/// The answer as it grows.
struct Answer<'a> {
    request: &'a Request<'a>,
    room: usize,
    messages: Vec<DataMessage>,
    bytes: usize,
    /// The answer ends here, as a script wants it.
    parted: bool,
    schemas: HashMap<String, Name>,
}

impl<'a> Answer<'a> {
    fn new(request: &'a Request<'a>, room: usize) -> Self {
        Self {
            request,
            room,
            messages: Vec::new(),
            bytes: 0,
            parted: false,
            schemas: HashMap::new(),
        }
    }

    fn has_room(&self) -> bool {
        !self.parted && self.messages.len() < self.room && self.bytes < MAX_BYTES
    }

    fn push(&mut self, channel: &Name, event: Arc<Committed>) {
        self.bytes += weight(&event.event);
        let marks = self.request.org.log.rewrites.marks(&event.event);
        self.parted |= marks.parted;
        let entity = &event.event.entity;
        let schema = match self.schemas.get(entity) {
            Some(schema) => Arc::clone(schema),
            None => {
                let schema = schema(self.request.org, entity);
                self.schemas.insert(entity.clone(), Arc::clone(&schema));
                schema
            }
        };
        self.messages.push(DataMessage {
            channel: Arc::clone(channel),
            client_id: self.request.client_id.clone(),
            schema,
            event,
            garble: marks.garble,
        });
    }
}

fn schema(org: &Org, entity: &str) -> Name {
    match org.object(entity) {
        Some(object) => schema_id(
            entity,
            object.fields.iter().map(|field| field.name.as_str()),
        ),
        None => schema_id(entity, std::iter::empty()),
    }
}
