//! A queue: messages in order, locks, settlement, and the dead letters beside it.
//!
//! Source: <https://learn.microsoft.com/azure/service-bus-messaging/message-transfers-locks-settlement>

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::message::{Message, Stamps};
use crate::salesforce::random::Random;

/// How a queue treats its messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub lock: TimeDelta,
    /// Deliveries after which a message is a dead letter; none for dead letters themselves.
    pub most_deliveries: Option<u32>,
}

/// What becomes of a message that was delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Complete,
    Abandon,
    Defer,
    DeadLetter { reason: String, description: String },
}

/// The lock is over, or never was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "The lock supplied is invalid. Either the lock expired, or the message has already been removed from the queue."
)]
pub(super) struct LockLost;

/// A message in a queue.
#[derive(Debug, Clone)]
struct Held {
    message: Message,
    enqueued: DateTime<Utc>,
    failures: u32,
    /// The queue that it was a dead letter of.
    source: Option<String>,
}

#[derive(Debug)]
struct Lock {
    sequence: u64,
    until: DateTime<Utc>,
    held: Held,
}

/// A message on its way to a receiver.
#[derive(Debug)]
pub(super) struct Taken {
    pub token: u128,
    pub message: Message,
    pub stamps: Stamps,
}

/// What a queue holds and did, for showing.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Counts {
    pub ready: usize,
    pub locked: usize,
    pub deferred: usize,
    pub delivered: u64,
    pub completed: u64,
    pub abandoned: u64,
    pub dead_lettered: u64,
    pub locks_expired: u64,
    pub locks_renewed: u64,
    pub locks_lost: u64,
}

#[derive(Debug)]
pub(super) struct Queue {
    name: String,
    rules: Rules,
    next: u64,
    ready: BTreeMap<u64, Held>,
    locked: BTreeMap<u128, Lock>,
    deferred: BTreeMap<u64, Held>,
    counts: Counts,
    dead: Option<Box<Queue>>,
}

impl Queue {
    /// An empty queue with a place for its dead letters.
    pub fn new(name: &str, rules: Rules) -> Self {
        let dead = Rules {
            most_deliveries: None,
            ..rules
        };
        Self {
            dead: Some(Box::new(Self::bare(
                &format!("{name}/$deadletterqueue"),
                dead,
            ))),
            ..Self::bare(name, rules)
        }
    }

    fn bare(name: &str, rules: Rules) -> Self {
        Self {
            name: name.to_owned(),
            rules,
            next: 1,
            ready: BTreeMap::new(),
            locked: BTreeMap::new(),
            deferred: BTreeMap::new(),
            counts: Counts::default(),
            dead: None,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The rules from here on; locks that are held keep theirs.
    pub fn set(&mut self, rules: Rules) {
        self.rules = rules;
        if let Some(dead) = &mut self.dead {
            dead.rules.lock = rules.lock;
        }
    }

    pub fn dead(&self) -> Option<&Self> {
        self.dead.as_deref()
    }

    pub fn dead_mut(&mut self) -> Option<&mut Self> {
        self.dead.as_deref_mut()
    }

    /// Puts a message at the end.
    pub fn push(&mut self, message: Message, now: DateTime<Utc>) {
        self.hold(Held {
            message,
            enqueued: now,
            failures: 0,
            source: None,
        });
    }

    fn hold(&mut self, held: Held) {
        self.ready.insert(self.next, held);
        self.next += 1;
    }

    /// Locks the oldest message for a receiver.
    pub fn take(&mut self, draws: &mut Random, now: DateTime<Utc>) -> Option<Taken> {
        self.expire(now);
        let (sequence, held) = self.ready.pop_first()?;
        let token = (u128::from(draws.next()) << 64) | u128::from(draws.next());
        let until = now + self.rules.lock;
        self.counts.delivered += 1;
        let taken = Taken {
            token,
            message: held.message.clone(),
            stamps: stamps(sequence, &held, Some((token, until.timestamp_millis()))),
        };
        self.locked.insert(
            token,
            Lock {
                sequence,
                until,
                held,
            },
        );
        Some(taken)
    }

    /// Takes the oldest message away.
    pub fn remove(&mut self, now: DateTime<Utc>) -> Option<Taken> {
        self.expire(now);
        let (sequence, held) = self.ready.pop_first()?;
        self.counts.delivered += 1;
        self.counts.completed += 1;
        Some(Taken {
            token: u128::from(sequence),
            stamps: stamps(sequence, &held, None),
            message: held.message,
        })
    }

    /// Decides what becomes of a locked message.
    pub fn settle(
        &mut self,
        token: u128,
        outcome: Outcome,
        now: DateTime<Utc>,
    ) -> Result<(), LockLost> {
        self.expire(now);
        let Some(Lock { sequence, held, .. }) = self.locked.remove(&token) else {
            self.counts.locks_lost += 1;
            return Err(LockLost);
        };
        match outcome {
            Outcome::Complete => self.counts.completed += 1,
            Outcome::Defer => {
                self.deferred.insert(sequence, held);
            }
            Outcome::Abandon => {
                self.counts.abandoned += 1;
                self.failed(sequence, held);
            }
            // A dead letter stays where it is.
            Outcome::DeadLetter { .. } if self.dead.is_none() => self.failed(sequence, held),
            Outcome::DeadLetter {
                reason,
                description,
            } => self.bury(held, &reason, &description),
        }
        Ok(())
    }

    /// Lengthens a lock; its new end.
    pub fn renew(&mut self, token: u128, now: DateTime<Utc>) -> Result<DateTime<Utc>, LockLost> {
        self.expire(now);
        match self.locked.get_mut(&token) {
            Some(lock) => {
                lock.until = now + self.rules.lock;
                self.counts.locks_renewed += 1;
                Ok(lock.until)
            }
            None => {
                self.counts.locks_lost += 1;
                Err(LockLost)
            }
        }
    }

    /// When the next lock ends.
    pub fn next_expiry(&self) -> Option<DateTime<Utc>> {
        self.locked.values().map(|lock| lock.until).min()
    }

    pub fn counts(&self) -> Counts {
        Counts {
            ready: self.ready.len(),
            locked: self.locked.len(),
            deferred: self.deferred.len(),
            ..self.counts.clone()
        }
    }

    /// The messages that can be had, oldest first.
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        self.ready.values().map(|held| &held.message)
    }

    /// Gives back what is locked beyond its time.
    pub fn expire(&mut self, now: DateTime<Utc>) {
        let over: Vec<u128> = self
            .locked
            .iter()
            .filter(|(_, lock)| lock.until <= now)
            .map(|(token, _)| *token)
            .collect();
        for token in over {
            if let Some(Lock { sequence, held, .. }) = self.locked.remove(&token) {
                self.counts.locks_expired += 1;
                self.failed(sequence, held);
            }
        }
    }

    /// A delivery failed: the message is there again, or dead.
    fn failed(&mut self, sequence: u64, mut held: Held) {
        held.failures += 1;
        match self.rules.most_deliveries {
            Some(most) if held.failures >= most => {
                let description =
                    format!("Message could not be consumed after {most} delivery attempts.");
                self.bury(held, "MaxDeliveryCountExceeded", &description);
            }
            _ => {
                self.ready.insert(sequence, held);
            }
        }
    }

    fn bury(&mut self, mut held: Held, reason: &str, description: &str) {
        self.counts.dead_lettered += 1;
        held.message.set_property("DeadLetterReason", reason);
        held.message
            .set_property("DeadLetterErrorDescription", description);
        held.source = Some(self.name.clone());
        if let Some(dead) = &mut self.dead {
            dead.hold(held);
        }
    }
}

fn stamps(sequence: u64, held: &Held, lock: Option<(u128, i64)>) -> Stamps {
    Stamps {
        failures: held.failures,
        sequence,
        enqueued_ms: held.enqueued.timestamp_millis(),
        lock,
        dead_letter_source: held.source.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> (Queue, Random) {
        let rules = Rules {
            lock: TimeDelta::seconds(60),
            most_deliveries: Some(3),
        };
        let mut queue = Queue::new("changes", rules);
        for number in 0..2 {
            queue.push(message(number), at(0));
        }
        (queue, Random::new(1, "locks"))
    }

    fn message(number: u8) -> Message {
        Message::data(vec![number], number.to_string(), "application/json", &[])
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn a_message_comes_again_until_it_is_completed_and_before_younger_ones() {
        let (mut queue, mut draws) = queue();
        let first = queue.take(&mut draws, at(0)).unwrap();
        assert_eq!((first.message, first.stamps.failures), (message(0), 0));
        queue.settle(first.token, Outcome::Abandon, at(1)).unwrap();
        let again = queue.take(&mut draws, at(1)).unwrap();
        assert_eq!((again.message, again.stamps.failures), (message(0), 1));
        queue
            .settle(again.token, Outcome::Complete, at(60))
            .unwrap();
        assert_eq!(
            queue.settle(again.token, Outcome::Complete, at(60)),
            Err(LockLost)
        );
        assert_eq!(queue.take(&mut draws, at(60)).unwrap().message, message(1));
        assert!(queue.take(&mut draws, at(60)).is_none());
        assert_eq!(queue.counts().completed, 1);
    }

    #[test]
    fn a_lock_ends_unless_it_is_renewed() {
        let (mut queue, mut draws) = queue();
        let taken = queue.take(&mut draws, at(0)).unwrap();
        assert_eq!(queue.renew(taken.token, at(50)).unwrap(), at(110));
        assert_eq!(queue.next_expiry(), Some(at(110)));
        queue.expire(at(109));
        assert_eq!(queue.counts().ready, 1);
        assert_eq!(
            queue.settle(taken.token, Outcome::Complete, at(110)),
            Err(LockLost)
        );
        assert_eq!(queue.renew(taken.token, at(110)), Err(LockLost));
        let counts = queue.counts();
        assert_eq!(
            (counts.ready, counts.locks_expired, counts.locks_lost),
            (2, 1, 2)
        );
    }

    #[test]
    fn too_many_failures_and_rejections_are_dead_letters() {
        let (mut queue, mut draws) = queue();
        for second in 0..3 {
            let taken = queue.take(&mut draws, at(second)).unwrap();
            assert_eq!(taken.message, message(0));
            queue
                .settle(taken.token, Outcome::Abandon, at(second))
                .unwrap();
        }
        let taken = queue.take(&mut draws, at(9)).unwrap();
        let poison = Outcome::DeadLetter {
            reason: "Poison".to_owned(),
            description: "no JSON".to_owned(),
        };
        queue.settle(taken.token, poison.clone(), at(9)).unwrap();
        let dead = queue.dead_mut().unwrap();
        let reasons: Vec<_> = dead
            .messages()
            .map(|message| {
                message
                    .property("DeadLetterReason")
                    .unwrap()
                    .word()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        assert_eq!(reasons, ["MaxDeliveryCountExceeded", "Poison"]);
        // A dead letter can't die again, and no count takes it away.
        for second in 0..20 {
            let taken = dead.take(&mut draws, at(second)).unwrap();
            assert_eq!(taken.stamps.dead_letter_source.as_deref(), Some("changes"));
            dead.settle(taken.token, poison.clone(), at(second))
                .unwrap();
        }
        assert_eq!(dead.counts().ready, 2);
    }
}
