//! Recognises events that a restarted stream delivers again (I2): a prefix or nothing, never a set.
//!
//! After a crash the stream starts from the stored position, so it repeats what was done since. Two marks tell
//! how much: the newest event that images hold (they are stored before the position is), and, per partition, the
//! stream changes found in the topic beyond the stored images. What lies before a mark is not merged again. An
//! event before a mark that left no change in the topic may have owed something that the crash forgot, so its
//! records are read instead: more reads, never a guess.
//!
//! A mark ends when its event comes, or when the stream is past its commit stamp without it: then it lies before
//! the stored position.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

use crate::image::port::Mark;
use crate::model::change::{Change, Origin};
use crate::model::event::{Event, Transaction};
use crate::model::name::ObjectName;
use crate::model::position::Position;
use crate::model::record_id::RecordId;

/// How much earlier than the confirmed time an event may have been committed and still be repeated: clocks and
/// deliveries are late. More costs memory, less lets an event through twice.
const REPEAT_REACH: TimeDelta = TimeDelta::minutes(1);

/// What to do with one record of a delivered event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// Not seen before: merge it.
    Fresh,
    /// Its change is in the topic: pass over it.
    Known,
    /// It lies before a mark but left no change: owe a read of the record.
    Unsure,
}

/// The marks of one connection's restart.
#[derive(Debug, Default)]
pub struct Redelivery {
    /// What was committed before is not repeated.
    since: Option<DateTime<Utc>>,
    imaged: Option<Mark>,
    tails: BTreeMap<(ObjectName, u32), Tail>,
}

#[derive(Debug, Default)]
struct Tail {
    seen: HashSet<Identity>,
    last: Option<(Identity, DateTime<Utc>)>,
}

/// What tells one event from another: transaction key, sequence, record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Identity {
    key: String,
    sequence: i64,
    record: RecordId,
}

impl Redelivery {
    /// Nothing is expected again.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The stream goes on from a position that was confirmed up to `confirmed_at`.
    #[must_use]
    pub fn after(confirmed_at: DateTime<Utc>) -> Self {
        Self {
            since: Some(
                confirmed_at
                    .checked_sub_signed(REPEAT_REACH)
                    .unwrap_or(confirmed_at),
            ),
            ..Self::default()
        }
    }

    /// Images hold everything up to `mark`, which the stored position may not reach.
    pub fn imaged_up_to(&mut self, mark: Mark) {
        self.imaged = Some(mark);
    }

    /// A change was found in the topic beyond the stored images, in offset order per partition.
    pub fn found(&mut self, partition: u32, change: &Change) {
        let Some((transaction, committed_at)) = self.may_repeat(change) else {
            return;
        };
        let identity = Identity {
            key: transaction.key.clone(),
            sequence: transaction.sequence,
            record: change.id.clone(),
        };
        let tail = self
            .tails
            .entry((change.object.clone(), partition))
            .or_default();
        tail.seen.insert(identity.clone());
        tail.last = Some((identity, committed_at));
    }

    /// The event behind a change, if the stream may repeat it. Of a topic that is read back whole only the end
    /// matters, and only that is remembered.
    fn may_repeat<'a>(&self, change: &'a Change) -> Option<(&'a Transaction, DateTime<Utc>)> {
        let (since, committed_at) = (self.since?, change.committed_at?);
        let transaction = change.transaction.as_ref()?;
        let repeats = change.origin == Origin::Stream && committed_at >= since;
        repeats.then_some((transaction, committed_at))
    }

    /// Whether the stream may repeat changes of this partition.
    #[must_use]
    pub fn expects(&self, object: &ObjectName, partition: u32) -> bool {
        self.tails.contains_key(&(object.clone(), partition))
    }

    /// Whether every mark has been passed, so that [`Redelivery::judge`] need not be asked.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.imaged.is_none() && self.tails.is_empty()
    }

    /// Whether the images' mark has not been passed.
    #[must_use]
    pub const fn is_marked(&self) -> bool {
        self.imaged.is_some()
    }

    /// The partitions in which changes were found.
    #[must_use]
    pub fn partitions(&self) -> BTreeSet<(ObjectName, u32)> {
        self.tails.keys().cloned().collect()
    }

    /// Takes those partitions out of `some` in which nothing is expected any more.
    pub fn take_over(&self, some: &mut BTreeSet<(ObjectName, u32)>) -> Vec<(ObjectName, u32)> {
        let over: Vec<_> = some
            .iter()
            .filter(|place| !self.tails.contains_key(place))
            .cloned()
            .collect();
        for place in &over {
            some.remove(place);
        }
        over
    }

    /// Judges one record of an event, in delivery order.
    pub fn judge(&mut self, event: &Event, record: &RecordId, partition: u32) -> Judgement {
        if let Some(mark) = &self.imaged {
            if event.committed_at <= mark.committed_at {
                return Judgement::Unsure;
            }
            self.imaged = None;
        }
        let place = (event.object.clone(), partition);
        let Some(tail) = self.tails.get(&place) else {
            return Judgement::Fresh;
        };
        let identity = Identity {
            key: event.transaction.key.clone(),
            sequence: event.transaction.sequence,
            record: record.clone(),
        };
        match &tail.last {
            Some((last, _)) if *last == identity => {
                self.tails.remove(&place);
                Judgement::Known
            }
            Some((_, committed_at)) if event.committed_at > *committed_at => {
                self.tails.remove(&place);
                Judgement::Fresh
            }
            _ if tail.seen.contains(&identity) => Judgement::Known,
            _ => Judgement::Unsure,
        }
    }

    /// An event was judged for all its records; it may be the images' mark.
    pub fn passed(&mut self, position: &Position) {
        if self.imaged.as_ref().map(|mark| &mark.position) == Some(position) {
            self.imaged = None;
        }
    }

    /// The stream has told everything that was committed before `confirmed_at`.
    pub fn reached(&mut self, confirmed_at: DateTime<Utc>) {
        let second = confirmed_at.trunc_subsecs(0);
        if self
            .imaged
            .as_ref()
            .is_some_and(|mark| mark.committed_at < second)
        {
            self.imaged = None;
        }
        self.tails.retain(|_, tail| {
            tail.last
                .as_ref()
                .is_some_and(|(_, committed_at)| *committed_at >= second)
        });
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use crate::model::change::{Op, WIRE_VERSION};
    use crate::model::event::EventKind;
    use crate::model::name::ConnectionId;
    use crate::model::value::Fields;
    use crate::model::version::Version;

    use super::*;

    fn event(key: &str, second: i64, position: u64) -> Event {
        Event {
            object: ObjectName::new("Account"),
            records: vec![RecordId::stored("001")],
            kind: EventKind::Update,
            fields: Fields::new(),
            changed: Vec::new(),
            committed_at: Utc.timestamp_opt(1_700_000_000 + second, 0).unwrap(),
            transaction: Transaction {
                key: key.to_owned(),
                sequence: 1,
                user: None,
                client: None,
            },
            position: Position::new(format!("p:{position}")),
        }
    }

    fn change(event: &Event) -> Change {
        Change {
            v: WIRE_VERSION,
            connection: ConnectionId::new("acme"),
            object: event.object.clone(),
            id: event.records[0].clone(),
            op: Op::Update,
            version: Version::new(1, 1),
            committed_at: Some(event.committed_at),
            origin: Origin::Stream,
            position: Some(event.position.clone()),
            transaction: Some(event.transaction.clone()),
            changed: Vec::new(),
            fields: Fields::new(),
            row: None,
            synced: None,
        }
    }

    fn mark(position: &str, second: i64) -> Mark {
        Mark {
            position: Position::new(position),
            committed_at: Utc.timestamp_opt(1_700_000_000 + second, 0).unwrap(),
        }
    }

    fn judge(redelivery: &mut Redelivery, event: &Event) -> Judgement {
        let judgement = redelivery.judge(event, &event.records[0], 0);
        redelivery.passed(&event.position);
        judgement
    }

    #[test]
    fn a_found_prefix_is_passed_over_and_the_rest_is_fresh() {
        let (first, silent, second, third) = (
            event("a", 1, 1),
            event("s", 1, 2),
            event("b", 1, 3),
            event("c", 2, 4),
        );
        let mut redelivery = Redelivery::after(DateTime::UNIX_EPOCH);
        redelivery.found(0, &change(&first));
        redelivery.found(0, &change(&second));
        assert_eq!(judge(&mut redelivery, &first), Judgement::Known);
        assert_eq!(judge(&mut redelivery, &silent), Judgement::Unsure);
        assert_eq!(judge(&mut redelivery, &second), Judgement::Known);
        assert!(redelivery.is_over());
        assert_eq!(judge(&mut redelivery, &third), Judgement::Fresh);
    }

    #[test]
    fn a_mark_that_never_comes_ends_by_its_commit_stamp() {
        let mut redelivery = Redelivery::after(DateTime::UNIX_EPOCH);
        redelivery.found(0, &change(&event("gone", 1, 1)));
        assert_eq!(
            judge(&mut redelivery, &event("new", 2, 9)),
            Judgement::Fresh
        );
        assert!(redelivery.is_over());
    }

    #[test]
    fn everything_up_to_the_images_mark_is_read_again() {
        let mut redelivery = Redelivery::after(DateTime::UNIX_EPOCH);
        redelivery.imaged_up_to(mark("p:2", 1));
        assert_eq!(judge(&mut redelivery, &event("a", 1, 1)), Judgement::Unsure);
        assert_eq!(judge(&mut redelivery, &event("b", 1, 2)), Judgement::Unsure);
        assert_eq!(judge(&mut redelivery, &event("c", 1, 3)), Judgement::Fresh);
    }

    #[test]
    fn other_partitions_are_not_held_up() {
        let mut redelivery = Redelivery::after(DateTime::UNIX_EPOCH);
        redelivery.found(3, &change(&event("a", 9, 1)));
        assert_eq!(judge(&mut redelivery, &event("b", 1, 2)), Judgement::Fresh);
    }

    #[test]
    fn a_mark_before_the_stored_position_ends_by_its_stamp_or_a_keep_alive() {
        let mut redelivery = Redelivery::after(DateTime::UNIX_EPOCH);
        redelivery.imaged_up_to(mark("gone", 1));
        assert_eq!(judge(&mut redelivery, &event("a", 1, 7)), Judgement::Unsure);
        assert_eq!(judge(&mut redelivery, &event("b", 2, 8)), Judgement::Fresh);
        let mut redelivery = Redelivery::after(DateTime::UNIX_EPOCH);
        redelivery.imaged_up_to(mark("gone", 1));
        redelivery.found(0, &change(&event("never", 1, 1)));
        redelivery.reached(event("x", 1, 0).committed_at);
        assert!(!redelivery.is_over(), "its second is not over");
        redelivery.reached(event("x", 2, 0).committed_at);
        assert!(redelivery.is_over());
    }

    #[test]
    fn only_what_the_stream_may_repeat_is_remembered() {
        let old = event("old", 1, 1);
        let mut redelivery = Redelivery::after(event("x", 62, 0).committed_at);
        redelivery.found(0, &change(&old));
        assert!(redelivery.is_over());
        let mut fresh = Redelivery::none();
        fresh.found(0, &change(&old));
        assert!(fresh.is_over());
    }
}
