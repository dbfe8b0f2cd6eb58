//! The log's port: topics of ordered, keyed records, and what every engine promises.
//!
//! * **Order.** Records of one key lie in one partition (murmur2 of the key, as Kafka's own clients choose) in the
//!   order in which [`Log::append`] was called; a reader of that partition gets them in that order.
//! * **Durable.** When `append` returns, its records survive the process and, with an engine that writes to
//!   disks, the machine. Dropping its future does not undo it. A failed append may have landed in part; whoever
//!   appends again appends the whole suffix, and readers compare versions.
//! * **Restart.** A reader sees every acknowledged record again, at the same offset, except those that
//!   compaction or retention removed. Offsets are never used twice, whatever was removed.
//! * **Gaps.** Compaction leaves gaps; reading from inside one yields the next record that is there, once. It never
//!   removes a partition's newest record, so that a reader on its way to [`Bounds::end`] always meets a record at
//!   `end - 1` unless `start == end`.
//! * **No silent reset.** A reader whose offset retention has passed, or that lies past the end, gets
//!   `PositionLost` from [`Log::reader`], [`Reader::start`] or [`Reader::next`], again and again until it is
//!   started elsewhere.
//! * **Cursors.** The log stores none: CRM positions lie in `state/`, job offsets in the target's ledger (J1).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::fault::Fault;
use crate::log::topic::{check_same, check_spec};
use crate::model::waiting::Waiting;

/// A log engine.
#[async_trait]
pub trait Log: Send + Sync {
    /// Makes the topic, or checks that it is as asked; answers with its generation id, which changes when a
    /// topic is deleted and made again. `Config` if it has other partitions or another policy.
    async fn ensure(&self, topic: &TopicSpec) -> Result<String, Fault>;

    /// Whether the topic is there: checks it as [`Log::ensure`] does, and makes nothing. `Config` if it has other
    /// partitions or another policy.
    async fn verify(&self, topic: &TopicSpec) -> Result<bool, Fault> {
        check_spec(topic)?;
        let topics = self.topics().await?;
        match topics.iter().find(|found| found.name == topic.name) {
            Some(found) => check_same(found, topic).map(|()| true),
            None => Ok(false),
        }
    }

    /// Appends, all entries or none; answers with their places in the entries' order. `Missing` for a topic
    /// there is not, `Record` for an entry over [`MAX_ENTRY_BYTES`].
    async fn append(&self, entries: Vec<Entry>) -> Result<Vec<Place>, Fault>;

    /// Why the log waits for what it stands on; `None` while it does not. Asks nobody.
    fn waiting(&self) -> Option<Waiting> {
        None
    }

    /// First offset still there and next offset, per partition.
    async fn bounds(&self, topic: &str) -> Result<BTreeMap<u32, Bounds>, Fault>;

    /// Per partition the first offset whose record is not older than `at`; past the end means the end.
    async fn at_time(&self, topic: &str, at: DateTime<Utc>) -> Result<BTreeMap<u32, u64>, Fault>;

    /// Opens a reader of one topic.
    async fn reader(&self, topic: &str, from: From) -> Result<Box<dyn Reader>, Fault>;

    /// The topics there are.
    async fn topics(&self) -> Result<Vec<TopicSpec>, Fault>;

    /// Finishes what was taken, and closes.
    async fn close(&self) -> Result<(), Fault>;
}

/// A reader of one topic.
#[async_trait]
pub trait Reader: Send {
    /// Waits up to `wait` for what comes next. Cancel-safe: a dropped call loses nothing. A batch holds at most
    /// `max_records` records and `max_bytes` bytes of keys, values and headers, but always one record, however
    /// large. Partitions take turns.
    async fn next(
        &mut self,
        max_records: usize,
        max_bytes: usize,
        wait: Duration,
    ) -> Result<Delivery, Fault>;

    /// Answers [`Delivery::Assigned`]: deliver from `offset`. May be called again for a partition that is held, to
    /// go elsewhere. `PositionLost` if that lies past the end (the topic was truncated, restored or made again) or
    /// before the start (retention passed it); `Fenced` for a partition that is not ours.
    async fn start(&mut self, partition: u32, offset: u64) -> Result<(), Fault>;

    /// Answers [`Delivery::Revoked`], once the batch in hand is committed or dropped. Until then nobody else gets
    /// the partition. Dropping the reader releases all. `Protocol` for a partition that was not revoked.
    async fn release(&mut self, partition: u32) -> Result<(), Fault>;
}

/// Where a reader starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// As a member of a group: partitions come and go, each started by [`Reader::start`].
    Group(String),
    /// At fixed offsets of fixed partitions (rebuild, replay, tail); nothing is assigned or revoked.
    Partitions(BTreeMap<u32, u64>),
}

/// What a reader yields.
#[derive(Debug, Clone, PartialEq)]
pub enum Delivery {
    /// A partition is ours: answer with [`Reader::start`].
    Assigned(u32),
    /// A partition goes to another member: answer with [`Reader::release`] and write nothing after.
    Revoked(u32),
    /// Records of one partition in offset order; at least one.
    Batch(Vec<Record>),
    /// Nothing came within the wait.
    Idle,
}

/// A record to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The topic.
    pub topic: Arc<str>,
    /// The key; decides the partition.
    pub key: Bytes,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Entry {
    /// Bytes of key, value and headers together.
    #[must_use]
    pub fn size(&self) -> usize {
        size(&self.key, self.value.as_ref(), &self.headers)
    }
}

impl Record {
    /// Bytes of key, value and headers together.
    #[must_use]
    pub fn size(&self) -> usize {
        size(&self.key, self.value.as_ref(), &self.headers)
    }
}

fn size(key: &Bytes, value: Option<&Bytes>, headers: &[(String, Vec<u8>)]) -> usize {
    let headers: usize = headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    key.len() + value.map_or(0, Bytes::len) + headers
}

/// Where an entry landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
}

/// A record read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
    /// When it was appended, to the millisecond; never earlier than the record before it in its partition.
    pub at: DateTime<Utc>,
    /// The key.
    pub key: Bytes,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// A partition's ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that may still be there.
    pub start: u64,
    /// The offset that the next record gets; survives the removal of everything.
    pub end: u64,
}

/// A topic and its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// `[A-Za-z0-9._-]`, at most 249 characters.
    pub name: String,
    /// How many partitions; never changed.
    pub partitions: u32,
    /// What is kept.
    pub policy: Policy,
}

/// What a topic keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The last value per key.
    Compact {
        /// A record younger than this is never removed.
        min_lag: Duration,
        /// A tombstone is removed this long after it could first be.
        delete_retention: Duration,
    },
    /// Everything younger than this.
    Delete {
        /// The age.
        retention: Duration,
    },
}

/// The largest key, value and headers of one entry together, in bytes.
pub const MAX_ENTRY_BYTES: usize = 16 * 1024 * 1024;

/// The partition of a key: Kafka's `toPositive(murmur2(key)) % partitions`.
#[must_use]
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

/// MurmurHash2 with the seed that Apache Kafka's clients use (`Utils.murmur2`).
#[must_use]
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = chunk
            .iter()
            .rev()
            .fold(0_u32, |word, byte| (word << 8) | u32::from(*byte))
            .wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        let tail = rest
            .iter()
            .rev()
            .fold(0_u32, |word, byte| (word << 8) | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Apache Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_is_kafkas() {
        let vectors: [(&str, i32); 5] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
        ];
        for (text, expected) in vectors {
            assert_eq!(murmur2(text.as_bytes()), expected.cast_unsigned(), "{text}");
        }
    }

    /// `DefaultPartitioner` of Apache Kafka: `toPositive(murmur2(key)) % partitions`, from the vectors above.
    #[test]
    fn partitions_are_kafkas() {
        for (text, hash) in [("21", -973_932_308_i64), ("foobar", -790_332_482)] {
            for partitions in [1_u32, 3, 8, 100] {
                let positive = hash.rem_euclid(1 << 31);
                assert_eq!(
                    i64::from(partition_of(text.as_bytes(), partitions)),
                    positive % i64::from(partitions)
                );
            }
        }
        assert_eq!(partition_of(b"21", 8), 4);
        assert_eq!(partition_of(b"foobar", 8), 6);
    }
}
