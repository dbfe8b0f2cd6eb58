//! The memory engine of the log: everything the port promises but surviving the process.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::watch;

use crate::fault::{Fault, FaultKind};
use crate::log::port::{
    Bounds, Delivery, Entry, From, Log, Place, Reader, Record, TopicSpec, partition_of,
};
use crate::runtime::clock::{Clock, SystemClock};

/// A log in memory. Clones share it.
#[derive(Clone)]
pub struct MemoryLog {
    inner: Arc<Inner>,
}

struct Inner {
    topics: Mutex<HashMap<String, Topic>>,
    clock: Arc<dyn Clock>,
    appended: watch::Sender<u64>,
}

struct Topic {
    spec: TopicSpec,
    generation: String,
    partitions: Vec<Partition>,
    groups: HashMap<String, Group>,
}

#[derive(Default)]
struct Partition {
    records: VecDeque<Record>,
    next: u64,
}

/// Who of a group holds which partition. A partition moves only after its holder released it.
#[derive(Default)]
struct Group {
    members: Vec<u64>,
    holders: BTreeMap<u32, u64>,
    next_member: u64,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl MemoryLog {
    /// An empty log that stamps records by `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            inner: Arc::new(Inner {
                topics: Mutex::default(),
                clock,
                appended: watch::Sender::new(0),
            }),
        }
    }

    /// Deletes a topic behind everybody's back, as an operator might.
    pub fn delete_topic(&self, topic: &str) {
        self.inner.lock().remove(topic);
        self.inner.wake();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Topic>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.appended.send_modify(|count| *count += 1);
    }
}

fn missing(topic: &str) -> Fault {
    Fault::new(FaultKind::Missing, format!("log has no topic `{topic}`"))
}

#[async_trait]
impl Log for MemoryLog {
    async fn ensure(&self, spec: &TopicSpec) -> Result<String, Fault> {
        spec.check_name()?;
        let mut topics = self.inner.lock();
        let topic = topics.entry(spec.name.clone()).or_insert_with(|| Topic {
            spec: spec.clone(),
            generation: uuid::Uuid::now_v7().to_string(),
            partitions: (0..spec.partitions).map(|_| Partition::default()).collect(),
            groups: HashMap::new(),
        });
        spec.check_against(&topic.spec)?;
        Ok(topic.generation.clone())
    }

    async fn append(&self, entries: Vec<Entry>) -> Result<Vec<Place>, Fault> {
        let now = self.inner.clock.now();
        let mut topics = self.inner.lock();
        for entry in &entries {
            entry.check_size()?;
            if !topics.contains_key(&*entry.topic) {
                return Err(missing(&entry.topic));
            }
        }
        let mut places = Vec::with_capacity(entries.len());
        for entry in entries {
            let topic = topics
                .get_mut(&*entry.topic)
                .ok_or_else(|| missing(&entry.topic))?;
            let number = partition_of(&entry.key, topic.spec.partitions);
            let Some(partition) = topic.partitions.get_mut(number as usize) else {
                return Err(missing(&entry.topic));
            };
            let offset = partition.next;
            partition.next += 1;
            partition.records.push_back(Record {
                partition: number,
                offset,
                at: now,
                key: entry.key,
                value: entry.value,
                headers: entry.headers,
            });
            places.push(Place {
                partition: number,
                offset,
            });
        }
        drop(topics);
        self.inner.wake();
        Ok(places)
    }

    async fn bounds(&self, topic: &str) -> Result<BTreeMap<u32, Bounds>, Fault> {
        let topics = self.inner.lock();
        let topic = topics.get(topic).ok_or_else(|| missing(topic))?;
        Ok((0..)
            .zip(&topic.partitions)
            .map(|(number, partition)| {
                let start = partition
                    .records
                    .front()
                    .map_or(partition.next, |first| first.offset);
                (
                    number,
                    Bounds {
                        start,
                        end: partition.next,
                    },
                )
            })
            .collect())
    }

    async fn at_time(&self, topic: &str, at: DateTime<Utc>) -> Result<BTreeMap<u32, u64>, Fault> {
        let topics = self.inner.lock();
        let topic = topics.get(topic).ok_or_else(|| missing(topic))?;
        Ok((0..)
            .zip(&topic.partitions)
            .map(|(number, partition)| {
                let first = partition.records.iter().find(|record| record.at >= at);
                (number, first.map_or(partition.next, |record| record.offset))
            })
            .collect())
    }

    async fn reader(&self, topic: &str, from: From) -> Result<Box<dyn Reader>, Fault> {
        let mut topics = self.inner.lock();
        let found = topics.get_mut(topic).ok_or_else(|| missing(topic))?;
        let mut reader = MemoryReader {
            inner: Arc::clone(&self.inner),
            topic: topic.to_owned(),
            generation: found.generation.clone(),
            group: None,
            next: BTreeMap::new(),
            turn: 0,
        };
        match from {
            From::Partitions(partitions) => {
                for (number, offset) in partitions {
                    check_start(found, topic, number, offset)?;
                    reader.next.insert(number, Some(offset));
                }
            }
            From::Group(name) => {
                let group = found.groups.entry(name.clone()).or_default();
                let member = group.next_member;
                group.next_member += 1;
                group.members.push(member);
                reader.group = Some((name, member));
            }
        }
        drop(topics);
        self.inner.wake();
        Ok(Box::new(reader))
    }

    async fn topics(&self) -> Result<Vec<TopicSpec>, Fault> {
        let mut specs: Vec<TopicSpec> = self
            .inner
            .lock()
            .values()
            .map(|topic| topic.spec.clone())
            .collect();
        specs.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(specs)
    }

    async fn close(&self) -> Result<(), Fault> {
        Ok(())
    }
}

fn check_start(topic: &Topic, name: &str, number: u32, offset: u64) -> Result<(), Fault> {
    let Some(partition) = topic.partitions.get(number as usize) else {
        return Err(missing(&format!("{name}/{number}")));
    };
    if offset > partition.next {
        return Err(Fault::new(
            FaultKind::PositionLost,
            format!(
                "offset {offset} of topic `{name}` partition {number} lies past its end {}",
                partition.next
            ),
        )
        .remedy("the topic was cut, restored or made again; it must be read from its beginning"));
    }
    Ok(())
}

/// A reader; `next` holds `None` for a partition that was assigned and not yet started.
struct MemoryReader {
    inner: Arc<Inner>,
    topic: String,
    generation: String,
    group: Option<(String, u64)>,
    next: BTreeMap<u32, Option<u64>>,
    turn: u32,
}

impl MemoryReader {
    fn poll(&mut self, max_records: usize, max_bytes: usize) -> Result<Option<Delivery>, Fault> {
        let inner = Arc::clone(&self.inner);
        let mut topics = inner.lock();
        let topic = topics
            .get_mut(&self.topic)
            .filter(|topic| topic.generation == self.generation)
            .ok_or_else(|| missing(&self.topic))?;
        if let Some(delivery) = self.rebalance(topic) {
            return Ok(Some(delivery));
        }
        let numbers: Vec<u32> = self.next.keys().copied().collect();
        let ready = numbers.len() as u32;
        for step in 0..ready {
            let number = numbers[((self.turn + step) % ready) as usize];
            let (Some(Some(from)), Some(partition)) = (
                self.next.get(&number).copied(),
                topic.partitions.get(number as usize),
            ) else {
                continue;
            };
            let at = partition
                .records
                .partition_point(|record| record.offset < from);
            let mut bytes = 0;
            let mut records = Vec::new();
            for record in partition.records.iter().skip(at).take(max_records.max(1)) {
                bytes += record.size();
                if !records.is_empty() && bytes > max_bytes {
                    break;
                }
                records.push(record.clone());
            }
            if let Some(last) = records.last() {
                self.next.insert(number, Some(last.offset + 1));
                self.turn = (self.turn + step + 1) % ready;
                return Ok(Some(Delivery::Batch(records)));
            }
        }
        Ok(None)
    }

    /// Compares what the group gives this member with what it holds: one move at a time.
    fn rebalance(&mut self, topic: &mut Topic) -> Option<Delivery> {
        let (name, member) = self.group.as_ref()?;
        let partitions = topic.spec.partitions;
        let group = topic.groups.get_mut(name)?;
        let rank = group.members.iter().position(|other| other == member)?;
        let members = group.members.len();
        for number in 0..partitions {
            let ours = number as usize % members == rank;
            let holder = group.holders.get(&number).copied();
            if ours && holder.is_none() {
                group.holders.insert(number, *member);
                self.next.insert(number, None);
                return Some(Delivery::Assigned(number));
            }
            if !ours && holder == Some(*member) && self.next.contains_key(&number) {
                self.next.remove(&number);
                return Some(Delivery::Revoked(number));
            }
        }
        None
    }
}

#[async_trait]
impl Reader for MemoryReader {
    async fn next(
        &mut self,
        max_records: usize,
        max_bytes: usize,
        wait: Duration,
    ) -> Result<Delivery, Fault> {
        let mut appended = self.inner.appended.subscribe();
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            appended.mark_unchanged();
            if let Some(delivery) = self.poll(max_records, max_bytes)? {
                return Ok(delivery);
            }
            match tokio::time::timeout_at(deadline, appended.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Ok(Delivery::Idle),
            }
        }
    }

    async fn start(&mut self, partition: u32, offset: u64) -> Result<(), Fault> {
        let topics = self.inner.lock();
        let topic = topics
            .get(&self.topic)
            .ok_or_else(|| missing(&self.topic))?;
        check_start(topic, &self.topic, partition, offset)?;
        drop(topics);
        match self.next.get_mut(&partition) {
            Some(next) => {
                *next = Some(offset);
                Ok(())
            }
            None => Err(Fault::new(
                FaultKind::Fenced,
                format!(
                    "partition {partition} of `{}` is not assigned to this reader",
                    self.topic
                ),
            )),
        }
    }

    async fn release(&mut self, partition: u32) -> Result<(), Fault> {
        if let Some((name, member)) = &self.group
            && let Some(topic) = self.inner.lock().get_mut(&self.topic)
            && let Some(group) = topic.groups.get_mut(name)
            && group.holders.get(&partition) == Some(member)
        {
            group.holders.remove(&partition);
        }
        self.inner.wake();
        Ok(())
    }
}

impl Drop for MemoryReader {
    fn drop(&mut self) {
        if let Some((name, member)) = &self.group
            && let Some(topic) = self.inner.lock().get_mut(&self.topic)
            && let Some(group) = topic.groups.get_mut(name)
        {
            group.members.retain(|other| other != member);
            group.holders.retain(|_, holder| holder != member);
        }
        self.inner.wake();
    }
}
