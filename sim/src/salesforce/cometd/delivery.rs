//! What a subscription is owed: events after its position, in order, in answers of a bounded size.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use super::super::commits::{ChangeType, CommitLog, Committed, TooOld};
use super::super::org::Org;
use super::channel::Channel;
use super::event::{DataMessage, weight};
use super::message::Name;

/// Events of one answer.
pub(super) const MAX_EVENTS: usize = 1000;
/// Rough size of one answer, in bytes.
const MAX_BYTES: usize = 1024 * 1024;
/// Events read from the log at a time; few in tests, so that small logs have many pages.
const PAGE: usize = if cfg!(test) { 4 } else { 512 };

/// A channel that a client listens to, and how far it has been served.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub name: Name,
    pub channel: Channel,
    /// Everything up to this replay id was sent or is none of its business.
    pub cursor: u64,
    /// Sent once already, and to be sent again before anything new.
    pub again: VecDeque<Arc<Committed>>,
}

impl Subscription {
    /// Sends the last `count` of its events that it has been served once more.
    pub fn repeat(&mut self, events: &[Arc<Committed>], count: usize) {
        let mut last: Vec<_> = events
            .iter()
            .rev()
            .filter(|event| event.replay_id <= self.cursor)
            .filter(|event| self.channel.carries(&event.event.entity))
            .take(count)
            .cloned()
            .collect();
        last.reverse();
        self.again.extend(last);
    }
}

/// Who asks, and how much may be sent.
pub(crate) struct Request<'a> {
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

impl Request<'_> {
    /// Whether an event is for this subscription, and for the eyes of its user.
    fn shows(&self, channel: &Channel, committed: &Committed) -> bool {
        let entity = &committed.event.entity;
        self.view_all_data && channel.carries(entity) && !self.forbidden.contains(entity)
    }
}

/// Takes the next answer's events off the subscriptions. Each one's order is the log's; between them it is by replay
/// id. An error tells that events were removed which a subscription had not been sent.
pub(crate) fn take(
    subscriptions: &mut [Subscription],
    request: &Request<'_>,
) -> Result<Vec<DataMessage>, TooOld> {
    let room = request.allowance.min(MAX_EVENTS);
    let mut answer = Answer::new(request, room);
    for subscription in subscriptions.iter_mut() {
        while answer.has_room()
            && let Some(event) = subscription.again.pop_front()
        {
            if request.shows(&subscription.channel, &event) {
                answer.push(subscription, event);
            }
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
            answer.push(subscription, event);
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
            let shown = page
                .into_iter()
                .filter(|committed| request.shows(&subscription.channel, committed));
            pulled.events.extend(shown);
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

    fn push(&mut self, subscription: &Subscription, event: Arc<Committed>) {
        let marks = self.request.org.log.rewrites.marks(&event.event);
        self.parted |= marks.parted;
        let change = &event.event;
        let schema = match self.schemas.get(&change.schema) {
            Some(schema) => Arc::clone(schema),
            None => {
                let schema = Name::from(change.schema.as_str());
                self.schemas
                    .insert(change.schema.clone(), Arc::clone(&schema));
                schema
            }
        };
        let fields = match change.change_type {
            ChangeType::Update | ChangeType::Delete => {
                subscription.channel.enriches(&change.entity)
            }
            _ => &[],
        };
        // An enriched event is about one record: a merged one is split, under its one replay id.
        let records = if fields.is_empty() {
            vec![None]
        } else {
            (0..change.record_ids.len()).map(Some).collect()
        };
        for record in records {
            self.bytes += weight(change);
            self.messages.push(DataMessage {
                channel: Arc::clone(&subscription.name),
                client_id: self.request.client_id.clone(),
                schema: Arc::clone(&schema),
                garble: marks.garble,
                record,
                enriched: record
                    .and_then(|record| change.record_ids.get(record))
                    .map_or_else(Vec::new, |id| {
                        enriched(self.request.org, &change.entity, id, fields)
                    }),
                event: Arc::clone(&event),
            });
        }
    }
}

/// Fields of a record as they are at this moment, empty ones left out.
fn enriched(org: &Org, entity: &str, id: &str, fields: &[String]) -> Vec<(String, Value)> {
    let Some((object, record)) = org.object(entity).zip(org.record(entity, id)) else {
        return Vec::new();
    };
    fields
        .iter()
        .filter_map(|name| {
            let (place, field) = object.field(name)?;
            let value = record.get(place);
            (!value.is_null()).then(|| (field.name.clone(), value.cometd()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;
    use serde_json::Map;

    use super::super::super::commits::{ChangeEvent, ChangeType};
    use super::super::super::options::SimOptions;
    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        /// Events of these entities, each under an id of its own.
        Commit(Vec<bool>),
        /// Events that share the newest id.
        Share(usize),
        /// An answer of so many events at most.
        Answer(usize),
        /// The last event once more.
        Again,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            prop::collection::vec(any::<bool>(), 1..6).prop_map(Step::Commit),
            (1_usize..4).prop_map(Step::Share),
            (1_usize..5).prop_map(Step::Answer),
            Just(Step::Again),
        ];
        prop::collection::vec(step, 1..40)
    }

    fn event(number: usize, account: bool) -> ChangeEvent {
        ChangeEvent {
            entity: if account { "Account" } else { "Contact" }.to_owned(),
            record_ids: vec![number.to_string()],
            change_type: ChangeType::Create,
            change_origin: String::new(),
            transaction_key: number.to_string(),
            sequence: 1,
            commit_timestamp: DateTime::UNIX_EPOCH,
            commit_number: 1,
            commit_user: String::new(),
            changed: Vec::new(),
            body: Map::new(),
            schema: String::new(),
        }
    }

    fn subscription(org: &Org, name: &str, channel: Channel) -> Subscription {
        Subscription {
            name: name.into(),
            channel,
            cursor: org.log.newest(),
            again: VecDeque::new(),
        }
    }

    fn answered(
        org: &Org,
        subscriptions: &mut [Subscription],
        allowance: usize,
    ) -> Vec<DataMessage> {
        let forbidden = BTreeSet::new();
        let request = Request {
            org,
            client_id: None,
            view_all_data: true,
            forbidden: &forbidden,
            allowance,
        };
        take(subscriptions, &request).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Whatever is written and however the answers are cut, each subscription gets each of its events once, in the
        /// log's order, and those of one id together.
        #[test]
        fn nothing_is_lost_doubled_or_parted(steps in steps()) {
            let org = Org::open(&SimOptions::default()).unwrap();
            let mut subscriptions = [
                subscription(&org, "all", Channel::Standard),
                subscription(&org, "one", Channel::Entity("Account".to_owned())),
            ];
            let (mut number, mut again) = (0, 0);
            let mut seen: [Vec<(u64, String)>; 2] = Default::default();
            let mut answer = |subscriptions: &mut [Subscription], room: usize| {
                let messages = answered(&org, subscriptions, room);
                for message in &messages {
                    let place = usize::from(&*message.channel == "one");
                    let event = &message.event;
                    seen[place].push((event.replay_id, event.event.record_ids[0].clone()));
                }
                messages.len()
            };
            for step in steps {
                match step {
                    Step::Commit(entities) => {
                        let events = entities.into_iter().map(|account| {
                            number += 1;
                            event(number, account)
                        });
                        org.log.append(events.collect()).unwrap();
                    }
                    Step::Share(count) => {
                        let mut events = Vec::new();
                        for _ in 0..count {
                            number += 1;
                            events.push(event(number, true));
                        }
                        let shared = org.log.append(events.split_off(count - 1)).unwrap()[0].replay_id;
                        org.log.append_at(shared, events).unwrap();
                    }
                    Step::Answer(room) => {
                        answer(&mut subscriptions, room);
                    }
                    Step::Again => {
                        let last = org.log.after(org.log.beginning(), usize::MAX).unwrap();
                        let one = &mut subscriptions[0];
                        if let Some(last) = last.iter().rfind(|event| event.replay_id <= one.cursor) {
                            one.again.push_back(Arc::clone(last));
                            again += 1;
                        }
                    }
                }
            }
            while answer(&mut subscriptions, 3) > 0 {}
            let log = org.log.after(org.log.beginning(), usize::MAX).unwrap();
            let of = |account: bool| -> Vec<_> {
                log.iter()
                    .filter(|event| !account || event.event.entity == "Account")
                    .map(|event| (event.replay_id, event.event.record_ids[0].clone()))
                    .collect()
            };
            prop_assert_eq!(&seen[1], &of(true));
            prop_assert_eq!(seen[0].len(), of(false).len() + again);
            let mut once = Vec::new();
            for event in &seen[0] {
                if !once.contains(event) {
                    once.push(event.clone());
                }
            }
            prop_assert_eq!(once, of(false));
        }
    }

    #[test]
    fn events_that_share_an_id_come_together_past_any_page() {
        let org = Org::open(&SimOptions::default()).unwrap();
        let mut subscriptions = [subscription(&org, "all", Channel::Standard)];
        let first = org.log.append(vec![event(0, true)]).unwrap()[0].replay_id;
        let shared = (1..PAGE * 2).map(|number| event(number, true)).collect();
        org.log.append_at(first, shared).unwrap();
        let answer = answered(&org, &mut subscriptions, 10);
        assert_eq!(answer.len(), PAGE * 2);
        assert!(answered(&org, &mut subscriptions, 10).is_empty());
    }

    #[test]
    fn a_removed_event_that_was_owed_is_an_error() {
        let org = Org::open(&SimOptions::default()).unwrap();
        let mut subscriptions = [subscription(&org, "all", Channel::Standard)];
        org.log.append(vec![event(1, true)]).unwrap();
        org.log.cut(super::super::super::commits::Cut::All).unwrap();
        let forbidden = BTreeSet::new();
        let request = Request {
            org: &org,
            client_id: None,
            view_all_data: true,
            forbidden: &forbidden,
            allowance: 5,
        };
        assert!(take(&mut subscriptions, &request).is_err());
    }
}
