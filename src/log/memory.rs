//! The log in memory: for tests of what is built on the port; as strict as the others, and gone with its process.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::watch;
use uuid::Uuid;

use crate::fault::Fault;
use crate::log::group::Groups;
use crate::log::polling::{Limit, PollingReader, Source};
use crate::log::port::{
    Bounds, Entry, From, Log, Place, Policy, Reader, Record, TopicSpec, partition_of,
};
use crate::log::topic::{
    check_entry, check_position, check_same, check_spec, closed, cutoff, first_millisecond,
    missing, missing_partition,
};
use crate::runtime::clock::Clock;

/// Topics in memory.
pub struct MemoryLog {
    store: Arc<Store>,
    groups: Arc<Groups>,
    closed: Arc<AtomicBool>,
}

/// What a restart sees.
struct Store {
    clock: Arc<dyn Clock>,
    topics: Mutex<BTreeMap<String, Arc<Topic>>>,
}

struct Topic {
    name: Arc<str>,
    spec: TopicSpec,
    generation: Mutex<String>,
    partitions: Mutex<Vec<Partition>>,
    bounds: watch::Sender<Vec<Bounds>>,
}

#[derive(Default)]
struct Partition {
    records: Vec<Record>,
    start: u64,
    next: u64,
    last_at: i64,
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::on(Arc::new(Store {
            clock,
            topics: Mutex::default(),
        }))
    }

    /// The same topics, opened again as after a restart of the process: without groups, and not closed.
    #[must_use]
    pub fn reopen(&self) -> Self {
        Self::on(Arc::clone(&self.store))
    }

    /// Applies retention and compaction as of the clock's date; answers with the number of records removed.
    ///
    /// # Errors
    /// `Stopping` once closed.
    pub fn maintain(&self) -> Result<u64, Fault> {
        self.check_open()?;
        let now = self.store.clock.now();
        let topics: Vec<_> = lock(&self.store.topics).values().cloned().collect();
        Ok(topics.iter().map(|topic| topic.maintain(now)).sum())
    }

    /// Deletes a topic and makes it again, as an operator might do to a broker: another generation, no records.
    ///
    /// # Errors
    /// `Missing`.
    pub fn make_again(&self, topic: &str) -> Result<(), Fault> {
        let topic = self.topic(topic)?;
        let mut partitions = lock(&topic.partitions);
        partitions
            .iter_mut()
            .for_each(|partition| *partition = Partition::default());
        *lock(&topic.generation) = Uuid::now_v7().to_string();
        topic.publish(&partitions);
        Ok(())
    }

    /// Cuts a partition's end back to `end`, as a broker does that was restored from a backup.
    ///
    /// # Errors
    /// `Missing`.
    pub fn cut(&self, topic: &str, partition: u32, end: u64) -> Result<(), Fault> {
        let topic = self.topic(topic)?;
        let mut partitions = lock(&topic.partitions);
        let count = partitions.len();
        let found = partitions
            .get_mut(partition as usize)
            .ok_or_else(|| missing_partition(&topic.name, partition, count))?;
        let keep = found.position(end);
        found.records.truncate(keep);
        found.next = found.next.min(end);
        topic.publish(&partitions);
        Ok(())
    }

    fn on(store: Arc<Store>) -> Self {
        Self {
            store,
            groups: Arc::default(),
            closed: Arc::default(),
        }
    }

    fn check_open(&self) -> Result<(), Fault> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        Ok(())
    }

    fn topic(&self, name: &str) -> Result<Arc<Topic>, Fault> {
        self.check_open()?;
        lock(&self.store.topics)
            .get(name)
            .cloned()
            .ok_or_else(|| missing(name))
    }
}

#[async_trait]
impl Log for MemoryLog {
    async fn ensure(&self, spec: &TopicSpec) -> Result<String, Fault> {
        self.check_open()?;
        check_spec(spec)?;
        let mut topics = lock(&self.store.topics);
        let topic = topics
            .entry(spec.name.clone())
            .or_insert_with(|| Arc::new(Topic::new(spec.clone())));
        check_same(&topic.spec, spec)?;
        let generation = lock(&topic.generation).clone();
        Ok(generation)
    }

    async fn append(&self, entries: Vec<Entry>) -> Result<Vec<Place>, Fault> {
        self.check_open()?;
        let now = self.store.clock.now().timestamp_millis();
        // Held throughout: calls are atomic and one after the other.
        let topics = lock(&self.store.topics);
        let mut plan = Vec::with_capacity(entries.len());
        for entry in entries {
            let topic = topics
                .get(&*entry.topic)
                .ok_or_else(|| missing(&entry.topic))?;
            check_entry(&entry)?;
            plan.push((topic, entry));
        }
        let mut places = Vec::with_capacity(plan.len());
        let mut touched = HashMap::new();
        for (topic, entry) in plan {
            places.push(topic.push(entry, now));
            touched.insert(Arc::clone(&topic.name), topic);
        }
        for topic in touched.into_values() {
            topic.publish(&lock(&topic.partitions));
        }
        Ok(places)
    }

    async fn bounds(&self, topic: &str) -> Result<BTreeMap<u32, Bounds>, Fault> {
        let topic = self.topic(topic)?;
        let bounds = (0..).zip(topic.bounds.borrow().iter().copied()).collect();
        Ok(bounds)
    }

    async fn at_time(&self, topic: &str, at: DateTime<Utc>) -> Result<BTreeMap<u32, u64>, Fault> {
        let topic = self.topic(topic)?;
        let first = first_millisecond(at);
        let partitions = lock(&topic.partitions);
        let offset = |partition: &Partition| {
            let records = &partition.records;
            let position = records.partition_point(|record| record.at.timestamp_millis() < first);
            records
                .get(position)
                .map_or(partition.next, |record| record.offset)
        };
        Ok((0..).zip(partitions.iter().map(offset)).collect())
    }

    async fn reader(&self, topic: &str, from: From) -> Result<Box<dyn Reader>, Fault> {
        let source = Arc::new(Open {
            topic: self.topic(topic)?,
            closed: Arc::clone(&self.closed),
        });
        Ok(Box::new(PollingReader::open(source, &self.groups, from)?))
    }

    async fn topics(&self) -> Result<Vec<TopicSpec>, Fault> {
        self.check_open()?;
        let topics = lock(&self.store.topics);
        Ok(topics.values().map(|topic| topic.spec.clone()).collect())
    }

    async fn close(&self) -> Result<(), Fault> {
        self.closed.store(true, Ordering::Release);
        for topic in lock(&self.store.topics).values() {
            topic.bounds.send_modify(|_| ());
        }
        Ok(())
    }
}

/// A topic of a log that may be closed.
struct Open {
    topic: Arc<Topic>,
    closed: Arc<AtomicBool>,
}

#[async_trait]
impl Source for Open {
    fn name(&self) -> &Arc<str> {
        &self.topic.name
    }

    fn bounds(&self) -> watch::Receiver<Vec<Bounds>> {
        self.topic.bounds.subscribe()
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    async fn fetch(&self, partition: u32, offset: u64, limit: Limit) -> Result<Vec<Record>, Fault> {
        let name = &self.topic.name;
        let partitions = lock(&self.topic.partitions);
        let found = partitions
            .get(partition as usize)
            .ok_or_else(|| missing_partition(name, partition, partitions.len()))?;
        check_position(name, partition, offset, found.bounds())?;
        let mut batch = Vec::new();
        let mut bytes = 0;
        for record in &found.records[found.position(offset)..] {
            let size = record.size();
            if !limit.admits(batch.len(), bytes, size) {
                break;
            }
            bytes += size;
            batch.push(record.clone());
        }
        Ok(batch)
    }
}

impl Topic {
    fn new(spec: TopicSpec) -> Self {
        let partitions: Vec<_> = (0..spec.partitions).map(|_| Partition::default()).collect();
        Self {
            name: Arc::from(spec.name.as_str()),
            spec,
            generation: Mutex::new(Uuid::now_v7().to_string()),
            bounds: watch::Sender::new(partitions.iter().map(Partition::bounds).collect()),
            partitions: Mutex::new(partitions),
        }
    }

    fn push(&self, entry: Entry, now: i64) -> Place {
        let number = partition_of(&entry.key, self.spec.partitions);
        let mut partitions = lock(&self.partitions);
        let partition = &mut partitions[number as usize];
        let offset = partition.next;
        partition.next += 1;
        partition.last_at = partition.last_at.max(now);
        partition.records.push(Record {
            partition: number,
            offset,
            at: DateTime::from_timestamp_millis(partition.last_at).unwrap_or_default(),
            key: entry.key,
            value: entry.value,
            headers: entry.headers,
        });
        Place {
            partition: number,
            offset,
        }
    }

    /// Shows the readers where the ends are.
    fn publish(&self, partitions: &[Partition]) {
        let bounds = partitions.iter().map(Partition::bounds).collect();
        self.bounds.send_replace(bounds);
    }

    fn maintain(&self, now: DateTime<Utc>) -> u64 {
        let mut partitions = lock(&self.partitions);
        let removed = partitions
            .iter_mut()
            .map(|partition| match self.spec.policy {
                Policy::Delete { retention } => partition.retain(cutoff(now, retention)),
                Policy::Compact {
                    min_lag,
                    delete_retention,
                } => partition.compact(
                    cutoff(now, min_lag),
                    cutoff(now, min_lag.saturating_add(delete_retention)),
                ),
            })
            .sum();
        self.publish(&partitions);
        removed
    }
}

impl Partition {
    fn bounds(&self) -> Bounds {
        Bounds {
            start: self.start,
            end: self.next,
        }
    }

    /// Where in the list the first record from `offset` on is.
    fn position(&self, offset: u64) -> usize {
        self.records
            .partition_point(|record| record.offset < offset)
    }

    /// How many records lie at or before a date.
    fn until(&self, cutoff: i64) -> usize {
        self.records
            .partition_point(|record| record.at.timestamp_millis() <= cutoff)
    }

    fn retain(&mut self, cutoff: i64) -> u64 {
        let removed = self.until(cutoff);
        self.records.drain(..removed);
        self.start = self
            .records
            .first()
            .map_or(self.next, |record| record.offset.max(self.start));
        removed as u64
    }

    fn compact(&mut self, cleanable: i64, forgettable: i64) -> u64 {
        let (before, horizon, tombstones) = (
            self.records.len(),
            self.until(cleanable),
            self.until(forgettable),
        );
        let newest: HashMap<_, _> = self.records[..horizon]
            .iter()
            .map(|record| (record.key.clone(), record.offset))
            .collect();
        let end = self.next;
        let mut place = 0;
        self.records.retain(|record| {
            place += 1;
            let superseded = place <= horizon && newest.get(&record.key) != Some(&record.offset);
            let forgotten =
                place <= tombstones && record.value.is_none() && record.offset + 1 != end;
            !superseded && !forgotten
        });
        (before - self.records.len()) as u64
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere in a test must not hide behind a second one here.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for MemoryLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryLog").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultKind;
    use crate::log::port::Delivery;
    use crate::log::suite::{BRIEF, Bench, Timed, compacted, log_suite, put};
    use crate::runtime::clock::ManualClock;

    struct Memory {
        log: Arc<MemoryLog>,
        clock: Arc<ManualClock>,
    }

    #[async_trait]
    impl Bench for Memory {
        fn log(&self) -> Arc<dyn Log> {
            Arc::clone(&self.log) as _
        }

        async fn reopen(&mut self) {
            self.log.close().await.unwrap();
            self.log = Arc::new(self.log.reopen());
        }
    }

    #[async_trait]
    impl Timed for Memory {
        fn clock(&self) -> &ManualClock {
            &self.clock
        }

        async fn maintain(&self) {
            self.log.maintain().unwrap();
        }
    }

    fn memory() -> Memory {
        let start = DateTime::from_timestamp(1_767_607_872, 0).unwrap();
        let clock = Arc::new(ManualClock::new(start));
        Memory {
            log: Arc::new(MemoryLog::new(Arc::clone(&clock) as _)),
            clock,
        }
    }

    log_suite!(std::future::ready(memory()));

    #[tokio::test]
    async fn a_topic_made_again_or_cut_is_told() {
        let log = memory().log;
        let first = compacted(&*log, "t", 1).await;
        put(&*log, "t", "k", 0..5).await;
        let from = |offset| From::Partitions(BTreeMap::from([(0, offset)]));
        let mut reader = log.reader("t", from(4)).await.unwrap();
        log.cut("t", 0, 3).unwrap();
        let lost = reader.next(1, 1, BRIEF).await.unwrap_err();
        assert_eq!(lost.kind(), FaultKind::PositionLost);
        reader.start(0, 2).await.unwrap();
        assert!(matches!(
            reader.next(9, 9, BRIEF).await.unwrap(),
            Delivery::Batch(_)
        ));
        log.make_again("t").unwrap();
        assert_ne!(compacted(&*log, "t", 1).await, first);
        let lost = reader.next(1, 1, BRIEF).await.unwrap_err();
        assert_eq!(lost.kind(), FaultKind::PositionLost);
    }
}
