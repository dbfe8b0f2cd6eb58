//! The reader that the memory and the embedded engine share: membership, positions, turns and waiting.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::fault::{Fault, FaultKind};
use crate::log::group::{Groups, Member, Turn};
use crate::log::port::{Bounds, Delivery, From, Reader, Record};
use crate::log::topic::{check_position, closed, missing_partition};

/// A wait that is as good as for ever.
const FOR_EVER: Duration = Duration::from_hours(24 * 365);

/// One topic of an engine, as its readers see it.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// The topic's name.
    fn name(&self) -> &Arc<str>;

    /// The ends of its partitions, in order; changes wake the readers that wait.
    fn bounds(&self) -> watch::Receiver<Vec<Bounds>>;

    /// Whether the log was closed; that wakes the readers, too.
    fn is_closed(&self) -> bool;

    /// The records that are there from `offset` on, in order: at most `limit`, at least one if there is one.
    /// `PositionLost` if retention has passed `offset`, checked in the snapshot that is read.
    async fn fetch(&self, partition: u32, offset: u64, limit: Limit) -> Result<Vec<Record>, Fault>;
}

/// How much a batch may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Records; at least 1.
    pub records: usize,
    /// Bytes of keys, values and headers; one record may exceed it.
    pub bytes: usize,
}

impl Limit {
    /// Whether a batch of `records` with `bytes` may take one more record of `size`.
    #[must_use]
    pub const fn admits(self, records: usize, bytes: usize, size: usize) -> bool {
        records == 0 || (records < self.records && bytes.saturating_add(size) <= self.bytes)
    }
}

/// A reader that asks its source, and waits for the source's bounds or its group to change.
pub struct PollingReader<S> {
    source: Arc<S>,
    bounds: watch::Receiver<Vec<Bounds>>,
    member: Option<Member>,
    held: BTreeMap<u32, Hold>,
    /// The partition that the last batch was of; the next one has the turn.
    last: u32,
}

/// Where a reader stands in a partition that is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// Assigned and not started.
    Waiting,
    /// Delivering; the next offset.
    At(u64),
    /// To be released.
    Revoked,
}

impl<S: Source> PollingReader<S> {
    /// A reader of `source`.
    ///
    /// # Errors
    /// `Missing` for a partition there is not, `PositionLost` for an offset out of bounds.
    pub fn open(source: Arc<S>, groups: &Arc<Groups>, from: From) -> Result<Self, Fault> {
        let bounds = source.bounds();
        let now = bounds.borrow().clone();
        let mut held = BTreeMap::new();
        let member = match from {
            From::Group(group) => {
                let partitions = u32::try_from(now.len()).unwrap_or(u32::MAX);
                Some(groups.join(Arc::clone(source.name()), group, partitions))
            }
            From::Partitions(offsets) => {
                for (partition, offset) in offsets {
                    check(source.name(), partition, offset, &now)?;
                    held.insert(partition, Hold::At(offset));
                }
                None
            }
        };
        Ok(Self {
            source,
            bounds,
            member,
            held,
            last: u32::MAX,
        })
    }

    /// What the group has to say.
    fn turn(&mut self) -> Option<Delivery> {
        let held = &self.held;
        let is_told = |partition| held.get(&partition) == Some(&Hold::Revoked);
        match self.member.as_ref()?.turn(is_told)? {
            Turn::Assigned(partition) => {
                self.held.insert(partition, Hold::Waiting);
                Some(Delivery::Assigned(partition))
            }
            Turn::Revoked(partition) => {
                self.held.insert(partition, Hold::Revoked);
                Some(Delivery::Revoked(partition))
            }
        }
    }

    /// A batch of the first partition in turn that has one.
    async fn fetch(
        &mut self,
        bounds: &[Bounds],
        limit: Limit,
    ) -> Result<Option<Vec<Record>>, Fault> {
        let name = Arc::clone(self.source.name());
        for partition in self.in_turn() {
            let Some(Hold::At(offset)) = self.held.get(&partition).copied() else {
                continue;
            };
            let ends = check(&name, partition, offset, bounds)?;
            if offset == ends.end {
                continue;
            }
            let mut records = self.source.fetch(partition, offset, limit).await?;
            // A commit may be read before its ends are told. What lies past them waits: a reader that stood there
            // would be told that its topic was cut.
            records.truncate(records.partition_point(|record| record.offset < ends.end));
            // Nothing may be awaited from here to the return, so that a dropped call loses nothing.
            let next = records.last().map_or(ends.end, |record| record.offset + 1);
            self.held.insert(partition, Hold::At(next));
            if !records.is_empty() {
                self.last = partition;
                return Ok(Some(records));
            }
        }
        Ok(None)
    }

    /// The partitions held, beginning after the last one served.
    fn in_turn(&self) -> Vec<u32> {
        let after = self.held.keys().filter(|partition| **partition > self.last);
        let before = self
            .held
            .keys()
            .filter(|partition| **partition <= self.last);
        after.chain(before).copied().collect()
    }

    /// Waits for the bounds or the group to change.
    async fn changed(&mut self) {
        // The source and the group outlive this reader, so their senders do.
        match &mut self.member {
            None => drop(self.bounds.changed().await),
            Some(member) => tokio::select! {
                _ = self.bounds.changed() => (),
                _ = member.changes().changed() => (),
            },
        }
    }

    fn not_ours(&self, partition: u32) -> Fault {
        Fault::new(
            FaultKind::Fenced,
            format!(
                "partition {partition} of `{}` is not assigned to this reader",
                self.source.name()
            ),
        )
    }
}

#[async_trait]
impl<S: Source> Reader for PollingReader<S> {
    async fn next(
        &mut self,
        max_records: usize,
        max_bytes: usize,
        wait: Duration,
    ) -> Result<Delivery, Fault> {
        let deadline = Instant::now() + wait.min(FOR_EVER);
        let limit = Limit {
            records: max_records.max(1),
            bytes: max_bytes,
        };
        loop {
            if self.source.is_closed() {
                return Err(closed());
            }
            // Marked as seen before looking, so that a change in between wakes the wait.
            let bounds = self.bounds.borrow_and_update().clone();
            if let Some(member) = &mut self.member {
                member.changes().mark_unchanged();
            }
            if let Some(turn) = self.turn() {
                return Ok(turn);
            }
            if let Some(batch) = self.fetch(&bounds, limit).await? {
                return Ok(Delivery::Batch(batch));
            }
            if tokio::time::timeout_at(deadline, self.changed())
                .await
                .is_err()
            {
                return Ok(Delivery::Idle);
            }
        }
    }

    async fn start(&mut self, partition: u32, offset: u64) -> Result<(), Fault> {
        match self.held.get(&partition) {
            None | Some(Hold::Revoked) => return Err(self.not_ours(partition)),
            Some(Hold::Waiting | Hold::At(_)) => (),
        }
        check(self.source.name(), partition, offset, &self.bounds.borrow())?;
        self.held.insert(partition, Hold::At(offset));
        Ok(())
    }

    async fn release(&mut self, partition: u32) -> Result<(), Fault> {
        let Some(member) = &self.member else {
            return Err(self.not_ours(partition));
        };
        if self.held.get(&partition) != Some(&Hold::Revoked) {
            return Err(Fault::new(
                FaultKind::Protocol,
                format!(
                    "partition {partition} of `{}` was released without having been revoked",
                    self.source.name()
                ),
            ));
        }
        self.held.remove(&partition);
        member.release(partition);
        Ok(())
    }
}

/// The ends of a partition, if a reader may stand at `offset`.
fn check(topic: &str, partition: u32, offset: u64, bounds: &[Bounds]) -> Result<Bounds, Fault> {
    let ends = bounds
        .get(partition as usize)
        .copied()
        .ok_or_else(|| missing_partition(topic, partition, bounds.len()))?;
    check_position(topic, partition, offset, ends)?;
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chrono::DateTime;

    use super::*;

    /// A topic of one partition that has three records, and tells its ends when it is told to.
    struct Late {
        name: Arc<str>,
        bounds: watch::Sender<Vec<Bounds>>,
    }

    #[async_trait]
    impl Source for Late {
        fn name(&self) -> &Arc<str> {
            &self.name
        }

        fn bounds(&self) -> watch::Receiver<Vec<Bounds>> {
            self.bounds.subscribe()
        }

        fn is_closed(&self) -> bool {
            false
        }

        async fn fetch(&self, partition: u32, offset: u64, _: Limit) -> Result<Vec<Record>, Fault> {
            let record = |offset| Record {
                partition,
                offset,
                at: DateTime::UNIX_EPOCH,
                key: Bytes::new(),
                value: None,
                headers: Vec::new(),
            };
            Ok((offset..3).map(record).collect())
        }
    }

    /// What was committed before its end is told is delivered once it is, and is no cut topic meanwhile.
    #[tokio::test]
    async fn a_commit_that_is_read_before_its_end_is_told_waits() {
        let ends = |end| vec![Bounds { start: 0, end }];
        let source = Arc::new(Late {
            name: "t".into(),
            bounds: watch::Sender::new(ends(2)),
        });
        let from = From::Partitions([(0, 0)].into());
        let mut reader =
            PollingReader::open(Arc::clone(&source), &Arc::new(Groups::default()), from).unwrap();
        let mut next = async || reader.next(10, 1000, Duration::ZERO).await.unwrap();
        let offsets = |told| match told {
            Delivery::Batch(records) => records.iter().map(|record| record.offset).collect(),
            _ => Vec::new(),
        };
        assert_eq!(offsets(next().await), [0, 1]);
        assert!(matches!(next().await, Delivery::Idle));
        source.bounds.send_replace(ends(3));
        assert_eq!(offsets(next().await), [2]);
    }
}
