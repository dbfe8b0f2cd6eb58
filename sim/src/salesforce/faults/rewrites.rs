//! What happens to a transaction's events on their way into the log: by script, and by the 1 MB rule.

use std::collections::HashMap;
use std::sync::Mutex;

use serde_json::json;

use super::super::cometd::{Garble, weight};
use super::super::commits::{ChangeEvent, ChangeType};
use super::super::lock::lock;
use super::script::{EventFault, EventMatch};
use super::{Pending, diff, fire};

/// The record id of an overflow event.
pub(crate) const OVERFLOWED: &str = "000000000000000AAA";
/// A larger event becomes a gap.
const MAX_EVENT: usize = 1024 * 1024;

/// The scripts for events, and the marks they left.
#[derive(Debug, Default)]
pub struct Rewrites {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pending: Vec<Pending<EventMatch, EventFault>>,
    /// By transaction key and sequence number.
    marks: HashMap<(String, u32), Marks>,
}

/// What a surface does with an event when it delivers it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    pub garble: Option<Garble>,
    /// The answer ends with this event.
    pub parted: bool,
    /// It has the replay id of the event before it.
    pub shared: bool,
}

impl Rewrites {
    pub(crate) fn add(&self, pending: Pending<EventMatch, EventFault>) {
        lock(&self.state).pending.push(pending);
    }

    /// What is left, in order.
    pub(crate) fn left(&self) -> Vec<Pending<EventMatch, EventFault>> {
        lock(&self.state).pending.clone()
    }

    /// Forgets the scripts; events that were spoiled stay so.
    pub fn clear(&self) {
        lock(&self.state).pending.clear();
    }

    /// The marks of a delivered event.
    #[must_use]
    pub fn marks(&self, event: &ChangeEvent) -> Marks {
        let state = lock(&self.state);
        if state.marks.is_empty() {
            return Marks::default();
        }
        let key = (event.transaction_key.clone(), event.sequence);
        state.marks.get(&key).copied().unwrap_or_default()
    }

    /// Tells a long text of an update by its diff, if a script wants it; `before` gives a field's old text.
    pub(crate) fn differ<'a>(
        &self,
        event: &mut ChangeEvent,
        before: impl Fn(&str) -> Option<&'a str>,
    ) {
        let mut state = lock(&self.state);
        if state.pending.is_empty() || event.change_type != ChangeType::Update {
            return;
        }
        let long = event.body.iter_mut().find_map(|(field, value)| {
            let (old, new) = (before(field)?, value.as_str()?.to_owned());
            diff::may_differ(old, &new).then_some((old, new, field.clone()))
        });
        let Some((old, new, field)) = long else {
            return;
        };
        let fault = fire(&mut state.pending, |on, fault| match fault {
            EventFault::Diff { broken } if on.matches(event) => Some(*broken),
            _ => None,
        });
        if let Some(broken) = fault {
            let diff = diff::unified(old, &new, broken);
            event.body.insert(field, json!({"diff": diff}));
        }
    }

    /// The events of one transaction as they enter the log.
    #[must_use]
    pub fn apply(&self, mut events: Vec<ChangeEvent>) -> Vec<ChangeEvent> {
        for event in &mut events {
            if too_large(event) {
                become_gap(event);
            }
        }
        let mut state = lock(&self.state);
        if state.pending.is_empty() {
            return events;
        }
        events.retain(|event| !state.lose(event));
        for event in &mut events {
            state.spoil(event);
        }
        let (mut parted, mut shared) = (false, false);
        for (on, fault) in state.for_transaction(&events) {
            match fault {
                EventFault::Merge {} => events = merged(events, &on),
                EventFault::Overflow { keep } => overflow(&mut events, keep),
                EventFault::SequenceHole { skip } => leave_out(&mut events, skip),
                EventFault::ShareReplayId {} => shared = true,
                _ => parted = true,
            }
        }
        state.mark(&events, parted, shared);
        events
    }
}

impl State {
    /// Whether a script has the event lost.
    fn lose(&mut self, event: &ChangeEvent) -> bool {
        let fault = fire(&mut self.pending, |on, fault| match fault {
            EventFault::Lose {} if on.matches(event) => Some(()),
            _ => None,
        });
        fault.is_some()
    }

    /// Scripts for a single event, before its transaction is looked at.
    fn spoil(&mut self, event: &mut ChangeEvent) {
        let fault = fire(&mut self.pending, |on, fault| {
            let fits = match fault {
                EventFault::Gap {} => gap_of(event.change_type).is_some(),
                EventFault::WithoutLastModified {} => event.change_type == ChangeType::Update,
                _ => false,
            };
            (fits && on.matches(event)).then_some(*fault)
        });
        match fault {
            Some(EventFault::Gap {}) => become_gap(event),
            Some(EventFault::WithoutLastModified {}) => {
                event.body.remove("LastModifiedDate");
                event.changed.retain(|name| name != "LastModifiedDate");
            }
            _ => {}
        }
    }

    /// Scripts for a transaction as a whole: each fires once at most.
    fn for_transaction(&mut self, events: &[ChangeEvent]) -> Vec<(EventMatch, EventFault)> {
        let mut fired = Vec::new();
        self.pending.retain_mut(|script| {
            let matching = events
                .iter()
                .filter(|event| script.on.matches(event))
                .count();
            let fits = match script.act {
                EventFault::Merge {} => merged(events.to_vec(), &script.on).len() < events.len(),
                EventFault::SplitTransaction {} | EventFault::ShareReplayId {} => {
                    matching > 0 && events.len() > 1
                }
                EventFault::Overflow { keep } => matching > 0 && events.len() > keep,
                EventFault::SequenceHole { .. } => matching > 0,
                _ => false,
            };
            if !fits {
                return true;
            }
            if script.after > 0 {
                script.after -= 1;
                return true;
            }
            fired.push((script.on.clone(), script.act));
            script.use_up()
        });
        fired
    }

    /// Notes what the surfaces do with these events, by their final numbers.
    fn mark(&mut self, events: &[ChangeEvent], parted: bool, shared: bool) {
        for (place, event) in events.iter().enumerate() {
            let garble = fire(&mut self.pending, |on, fault| match fault {
                EventFault::Undecodable { garble } if on.matches(event) => Some(*garble),
                _ => None,
            });
            let marks = Marks {
                garble,
                parted: parted && place == 0,
                shared: shared && place > 0,
            };
            if marks != Marks::default() {
                let key = (event.transaction_key.clone(), event.sequence);
                self.marks.insert(key, marks);
            }
        }
    }
}

fn too_large(event: &ChangeEvent) -> bool {
    weight(event) > MAX_EVENT
}

fn gap_of(change_type: ChangeType) -> Option<ChangeType> {
    Some(match change_type {
        ChangeType::Create => ChangeType::GapCreate,
        ChangeType::Update => ChangeType::GapUpdate,
        ChangeType::Delete => ChangeType::GapDelete,
        ChangeType::Undelete => ChangeType::GapUndelete,
        _ => return None,
    })
}

/// A gap tells who and when, not what.
fn become_gap(event: &mut ChangeEvent) {
    if let Some(gap) = gap_of(event.change_type) {
        event.change_type = gap;
        event.change_origin.clear();
        event.changed.clear();
        event.body.clear();
    }
}

/// Like changes become one event, at the place of the first, with its number.
fn merged(events: Vec<ChangeEvent>, on: &EventMatch) -> Vec<ChangeEvent> {
    let mut merged: Vec<ChangeEvent> = Vec::with_capacity(events.len());
    for event in events {
        let like = merged.iter_mut().find(|earlier| {
            on.matches(&event)
                && earlier.entity == event.entity
                && earlier.change_type == event.change_type
                && earlier.transaction_key == event.transaction_key
                && earlier.changed == event.changed
                && earlier.body == event.body
        });
        match like {
            Some(earlier) => earlier.record_ids.extend(event.record_ids),
            None => merged.push(event),
        }
    }
    merged
}

fn overflow(events: &mut Vec<ChangeEvent>, keep: usize) {
    let mut told: Vec<ChangeEvent> = Vec::new();
    for mut event in events.drain(keep.min(events.len())..) {
        if told.iter().any(|earlier| earlier.entity == event.entity) {
            continue;
        }
        event.change_type = ChangeType::GapOverflow;
        event.record_ids = vec![OVERFLOWED.to_owned()];
        event.change_origin.clear();
        event.changed.clear();
        event.body.clear();
        told.push(event);
    }
    events.append(&mut told);
}

fn leave_out(events: &mut [ChangeEvent], skip: u32) {
    let from = usize::from(events.len() > 1);
    for event in events.iter_mut().skip(from) {
        event.sequence = event.sequence.saturating_add(skip);
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::json;

    use super::*;

    fn event(id: &str, change_type: ChangeType, sequence: u32) -> ChangeEvent {
        ChangeEvent {
            entity: "Account".into(),
            record_ids: vec![id.into()],
            change_type,
            change_origin: "com/salesforce/api/rest/66.0;client=x".into(),
            transaction_key: "k".into(),
            sequence,
            commit_timestamp: DateTime::UNIX_EPOCH,
            commit_number: 1,
            commit_user: "u".into(),
            changed: vec!["Name".into(), "LastModifiedDate".into()],
            schema: String::new(),
            body: json!({"Name": "x", "LastModifiedDate": "1970-01-01T00:00:00.000Z"})
                .as_object()
                .cloned()
                .unwrap(),
        }
    }

    fn updates(count: u32) -> Vec<ChangeEvent> {
        (1..=count)
            .map(|number| event(&format!("id{number}"), ChangeType::Update, number))
            .collect()
    }

    fn with(act: EventFault) -> Rewrites {
        let rewrites = Rewrites::default();
        rewrites.add(Pending {
            on: EventMatch::default(),
            after: 0,
            times: Some(1),
            act,
        });
        rewrites
    }

    #[test]
    fn without_scripts_events_pass_unchanged() {
        let events = updates(3);
        assert_eq!(Rewrites::default().apply(events.clone()), events);
        assert_eq!(Rewrites::default().marks(&events[0]), Marks::default());
    }

    #[test]
    fn a_lost_event_is_told_to_nobody() {
        let rewrites = with(EventFault::Lose {});
        assert_eq!(rewrites.apply(updates(2)), updates(2)[1..]);
        assert!(rewrites.left().is_empty());
        assert_eq!(rewrites.apply(updates(2)), updates(2));
    }

    #[test]
    fn a_gap_takes_the_place_of_each_kind_of_event_once() {
        for (kind, gap) in [
            (ChangeType::Create, ChangeType::GapCreate),
            (ChangeType::Update, ChangeType::GapUpdate),
            (ChangeType::Delete, ChangeType::GapDelete),
            (ChangeType::Undelete, ChangeType::GapUndelete),
        ] {
            let rewrites = with(EventFault::Gap {});
            let events = rewrites.apply(vec![event("a", kind, 1), event("b", kind, 2)]);
            assert_eq!((events[0].change_type, events[1].change_type), (gap, kind));
            assert!(events[0].body.is_empty() && events[0].changed.is_empty());
            assert_eq!(events[0].record_ids, ["a"]);
            assert!(rewrites.left().is_empty());
        }
    }

    #[test]
    fn like_changes_merge_and_others_stay() {
        let mut events = updates(4);
        events[1].body.insert("Name".into(), json!("other"));
        let merged = with(EventFault::Merge {}).apply(events);
        assert_eq!(merged.len(), 2);
        assert_eq!(merged[0].record_ids, ["id1", "id3", "id4"]);
        assert_eq!((merged[0].sequence, merged[1].sequence), (1, 2));
    }

    #[test]
    fn a_merge_waits_for_something_to_merge() {
        let rewrites = with(EventFault::Merge {});
        assert_eq!(rewrites.apply(updates(1)), updates(1));
        assert_eq!(rewrites.left().len(), 1);
        assert_eq!(rewrites.apply(updates(2)).len(), 1);
        assert!(rewrites.left().is_empty());
    }

    #[test]
    fn an_overflow_tells_each_entity_once() {
        let mut events = updates(5);
        events[4].entity = "Contact".into();
        let events = with(EventFault::Overflow { keep: 2 }).apply(events);
        assert_eq!(events.len(), 4);
        assert_eq!(events[1], updates(2)[1]);
        for (event, entity) in events[2..].iter().zip(["Account", "Contact"]) {
            assert_eq!(event.change_type, ChangeType::GapOverflow);
            assert_eq!(event.entity, entity);
            assert_eq!(event.record_ids, [OVERFLOWED]);
            assert!(event.body.is_empty());
        }
        assert!(events[3].sequence > events[2].sequence);
    }

    #[test]
    fn sequence_numbers_have_holes() {
        let skip = EventFault::SequenceHole { skip: 3 };
        let numbers: Vec<_> = with(skip)
            .apply(updates(3))
            .iter()
            .map(|event| event.sequence)
            .collect();
        assert_eq!(numbers, [1, 5, 6]);
        assert_eq!(with(skip).apply(updates(1))[0].sequence, 4);
    }

    #[test]
    fn an_update_may_not_tell_its_date() {
        let rewrites = with(EventFault::WithoutLastModified {});
        let create = rewrites.apply(vec![event("a", ChangeType::Create, 1)]);
        assert!(create[0].body.contains_key("LastModifiedDate"));
        let update = rewrites.apply(updates(1));
        assert!(!update[0].body.contains_key("LastModifiedDate"));
        assert_eq!(update[0].changed, ["Name"]);
    }

    #[test]
    fn marks_stay_with_their_event() {
        let rewrites = with(EventFault::Undecodable {
            garble: Garble::NoHeader,
        });
        rewrites.add(Pending {
            on: EventMatch::default(),
            after: 1,
            times: None,
            act: EventFault::SplitTransaction {},
        });
        let first = rewrites.apply(updates(2));
        assert_eq!(rewrites.marks(&first[0]).garble, Some(Garble::NoHeader));
        assert_eq!(rewrites.marks(&first[1]), Marks::default());
        let mut second = updates(2);
        for event in &mut second {
            event.transaction_key = "l".into();
        }
        let second = rewrites.apply(second);
        assert!(rewrites.marks(&second[0]).parted);
        assert!(!rewrites.marks(&second[1]).parted);
        rewrites.clear();
        assert_eq!(rewrites.marks(&first[0]).garble, Some(Garble::NoHeader));
    }

    #[test]
    fn an_event_above_a_megabyte_is_a_gap() {
        let mut events = updates(1);
        events[0]
            .body
            .insert("Description".into(), json!("x".repeat(MAX_EVENT)));
        let events = Rewrites::default().apply(events);
        assert_eq!(events[0].change_type, ChangeType::GapUpdate);
    }

    #[test]
    fn a_script_matches_by_entity_type_and_record() {
        let rewrites = Rewrites::default();
        rewrites.add(Pending {
            on: EventMatch {
                entity: Some("Account".into()),
                change_type: Some(ChangeType::Update),
                record_id: Some("id2".into()),
            },
            after: 1,
            times: Some(2),
            act: EventFault::Gap {},
        });
        let gaps: Vec<_> = (0..4)
            .flat_map(|_| rewrites.apply(updates(3)))
            .map(|event| event.change_type == ChangeType::GapUpdate)
            .collect();
        let mut expected = [false; 12];
        (expected[4], expected[7]) = (true, true);
        assert_eq!(gaps, expected);
    }
}
