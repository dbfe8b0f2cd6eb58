//! Recognises events that a restarted stream delivers again (I2): a prefix or nothing, never a set.
//!
//! After a crash the stream starts from the stored position, so it repeats what was done since. Two marks tell
//! how much: the position up to which images were stored (they are stored before the position is), and, per
//! partition, the stream changes found in the topic beyond the stored images. What lies before a mark is not
//! merged again. An event before a mark that left no change in the topic may have owed something that the
//! crash forgot, so its records are read instead: more reads, never a guess.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use crate::model::change::{Change, Origin};
use crate::model::event::Event;
use crate::model::name::ObjectName;
use crate::model::position::Position;
use crate::model::record_id::RecordId;

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
    imaged_up_to: Option<Position>,
    tails: HashMap<(ObjectName, u32), Tail>,
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

    /// Images hold everything up to `position`, which the stored position does not reach.
    pub fn imaged_up_to(&mut self, position: Position) {
        self.imaged_up_to = Some(position);
    }

    /// A change was found in the topic beyond the stored images, in offset order per partition.
    pub fn found(&mut self, partition: u32, change: &Change) {
        if change.origin != Origin::Stream {
            return;
        }
        let (Some(transaction), Some(committed_at)) = (&change.transaction, change.committed_at)
        else {
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

    /// Whether every mark has been passed, so that [`Redelivery::judge`] need not be asked.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.imaged_up_to.is_none() && self.tails.is_empty()
    }

    /// Judges one record of an event, in delivery order.
    pub fn judge(&mut self, event: &Event, record: &RecordId, partition: u32) -> Judgement {
        if self.imaged_up_to.is_some() {
            return Judgement::Unsure;
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
            // The mark was committed before this event and has not come: it lies before the stored position.
            Some((_, committed_at)) if event.committed_at > *committed_at => {
                self.tails.remove(&place);
                Judgement::Fresh
            }
            _ if tail.seen.contains(&identity) => Judgement::Known,
            _ => Judgement::Unsure,
        }
    }

    /// An event was judged for all its records; its position may be the images' mark.
    pub fn passed(&mut self, position: &Position) {
        if self.imaged_up_to.as_ref() == Some(position) {
            self.imaged_up_to = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use crate::model::change::{Op, WIRE_VERSION};
    use crate::model::event::{EventKind, Transaction};
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
        let mut redelivery = Redelivery::none();
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
        let mut redelivery = Redelivery::none();
        redelivery.found(0, &change(&event("gone", 1, 1)));
        assert_eq!(
            judge(&mut redelivery, &event("new", 2, 9)),
            Judgement::Fresh
        );
        assert!(redelivery.is_over());
    }

    #[test]
    fn everything_up_to_the_images_mark_is_read_again() {
        let mut redelivery = Redelivery::none();
        redelivery.imaged_up_to(Position::new("p:2"));
        assert_eq!(judge(&mut redelivery, &event("a", 1, 1)), Judgement::Unsure);
        assert_eq!(judge(&mut redelivery, &event("b", 1, 2)), Judgement::Unsure);
        assert_eq!(judge(&mut redelivery, &event("c", 1, 3)), Judgement::Fresh);
    }

    #[test]
    fn other_partitions_are_not_held_up() {
        let mut redelivery = Redelivery::none();
        redelivery.found(3, &change(&event("a", 9, 1)));
        assert_eq!(judge(&mut redelivery, &event("b", 1, 2)), Judgement::Fresh);
    }
}
