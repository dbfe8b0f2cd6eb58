//! What every log engine must do: one suite, run on each by `log_suite!`.

pub mod appending;
pub mod grouping;
pub mod reading;
pub mod removing;
pub mod timed;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::log::port::{
    Delivery, Entry, From, Log, Place, Policy, Reader, Record, TopicSpec, partition_of,
};
use crate::runtime::clock::ManualClock;

/// An engine to be tried.
#[async_trait]
pub trait Bench: Send + Sync {
    /// The log as it is open now.
    fn log(&self) -> Arc<dyn Log>;

    /// Ends the engine and opens it again on what it stored.
    async fn reopen(&mut self);

    /// How long to look for what must not come.
    fn brief(&self) -> Duration {
        BRIEF
    }

    /// Whether an engine in this process: what one reader does, another sees at once.
    fn is_prompt(&self) -> bool {
        true
    }
}

/// An engine whose clock and whose maintenance obey the test.
#[async_trait]
pub trait Timed: Bench {
    /// The clock it asks.
    fn clock(&self) -> &ManualClock;

    /// Applies retention and compaction now.
    async fn maintain(&self);
}

/// Makes a test of every function of the suite for the bench that the expression (a future) yields; `core` leaves
/// out what needs a clock that can be moved, or topics that can be listed. Attributes go to every test.
macro_rules! log_suite {
    ($(#[$attribute:meta])* core $bench:expr) => {
        $crate::log::suite::log_suite!(@ [$(#[$attribute])*] $bench;
            appending: keys_keep_their_order batches_are_whole_or_not_there appenders_do_not_mix
                dropped_appends_are_whole headers_and_empty_values_are_kept
                one_call_reaches_several_topics a_restart_sees_everything what_is_not_there_is_missing
                a_closed_log_says_so;
            reading: offsets_are_where_reading_starts batches_are_limited a_dropped_next_loses_nothing
                an_append_wakes_a_reader positions_out_of_bounds_are_lost fixed_readers_are_independent
                partitions_take_turns;
            grouping: a_partition_waits_for_its_start a_revoked_partition_goes_over
                a_reader_that_goes_frees_its_partitions every_record_is_processed_once;
        );
    };
    ($(#[$attribute:meta])* stored $bench:expr) => {
        $crate::log::suite::log_suite!($(#[$attribute])* core $bench);
        $crate::log::suite::log_suite!(@ [$(#[$attribute])*] $bench;
            appending: topics_are_made_once_and_checked topics_are_verified_and_not_made sizes_are_limited;
        );
    };
    ($bench:expr) => {
        $crate::log::suite::log_suite!(stored $bench);
        $crate::log::suite::log_suite!(@ [] $bench;
            timed: dates_never_go_back dates_lead_to_offsets;
            removing: the_last_value_of_a_key_stays young_records_stay tombstones_go_late_and_alone
                a_gap_yields_the_next_record_once the_end_survives_the_removal_of_everything
                a_reader_that_retention_passes_is_told compaction_under_a_reader_is_seen_as_gaps
                whatever_happens_the_last_values_are_there;
        );
    };
    (@ $attributes:tt $bench:expr; $($module:ident: $($name:ident)*;)*) => {
        $($($crate::log::suite::log_suite!(= $attributes $bench; $module $name);)*)*
    };
    (= [$($attribute:tt)*] $bench:expr; $module:ident $name:ident) => {
        #[tokio::test]
        $($attribute)*
        async fn $name() {
            let mut bench = $bench.await;
            $crate::log::suite::$module::$name(&mut bench).await;
        }
    };
}
pub(crate) use log_suite;

/// The lag before compaction in these tests.
pub const LAG: Duration = Duration::from_secs(7 * 86_400);
/// How much longer tombstones stay.
pub const KEPT: Duration = Duration::from_secs(30 * 86_400);
/// The retention of topics that are not compacted.
pub const RETENTION: Duration = Duration::from_secs(30 * 86_400);
/// Longer than any engine may take.
pub const LONG: Duration = Duration::from_secs(30);
/// A look at what is there.
pub const BRIEF: Duration = Duration::from_millis(5);

pub async fn compacted(log: &dyn Log, name: &str, partitions: u32) -> String {
    let policy = Policy::Compact {
        min_lag: LAG,
        delete_retention: KEPT,
    };
    let name_of = name.to_owned();
    log.ensure(&TopicSpec {
        name: name_of,
        partitions,
        policy,
    })
    .await
    .unwrap()
}

pub async fn retained(log: &dyn Log, name: &str, partitions: u32) -> String {
    let policy = Policy::Delete {
        retention: RETENTION,
    };
    let name_of = name.to_owned();
    log.ensure(&TopicSpec {
        name: name_of,
        partitions,
        policy,
    })
    .await
    .unwrap()
}

pub fn entry(topic: &str, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Entry {
    Entry {
        topic: Arc::from(topic),
        key: Bytes::copy_from_slice(key.as_ref()),
        value: Some(Bytes::copy_from_slice(value.as_ref())),
        headers: Vec::new(),
    }
}

pub fn tombstone(topic: &str, key: impl AsRef<[u8]>) -> Entry {
    Entry {
        value: None,
        ..entry(topic, key, "")
    }
}

/// Appends one record per value, all in one call.
pub async fn put(
    log: &dyn Log,
    topic: &str,
    key: &str,
    values: impl IntoIterator<Item = u64>,
) -> Vec<Place> {
    let entries = values
        .into_iter()
        .map(|value| entry(topic, key, value.to_string()));
    log.append(entries.collect()).await.unwrap()
}

/// A key that lies in a partition.
pub fn key_in(partition: u32, partitions: u32) -> String {
    (0..)
        .map(|n| format!("key-{n}"))
        .find(|key| partition_of(key.as_bytes(), partitions) == partition)
        .unwrap()
}

pub fn key_of(record: &Record) -> String {
    String::from_utf8(record.key.to_vec()).unwrap()
}

pub fn number(record: &Record) -> u64 {
    let value = record.value.as_ref().expect("a value, not a tombstone");
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

pub fn offsets(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.offset).collect()
}

/// The next batch of a reader that must have one.
pub async fn batch(reader: &mut dyn Reader, max_records: usize) -> Vec<Record> {
    match reader.next(max_records, usize::MAX, LONG).await.unwrap() {
        Delivery::Batch(records) => {
            assert!(!records.is_empty() && records.len() <= max_records);
            records
        }
        other => panic!("a batch was due, {other:?} came"),
    }
}

/// Nothing comes for a while.
pub async fn quiet(bench: &dyn Bench, reader: &mut dyn Reader) {
    let delivery = reader.next(100, usize::MAX, bench.brief()).await.unwrap();
    assert_eq!(delivery, Delivery::Idle);
}

/// Everything from given offsets to the ends as of now.
pub async fn read_from(log: &dyn Log, topic: &str, from: BTreeMap<u32, u64>) -> Vec<Record> {
    let bounds = log.bounds(topic).await.unwrap();
    let mut next = from.clone();
    let mut reader = log.reader(topic, From::Partitions(from)).await.unwrap();
    let mut all = Vec::new();
    while next
        .iter()
        .any(|(partition, offset)| *offset < bounds[partition].end)
    {
        for record in batch(&mut *reader, 7).await {
            let place = next.get_mut(&record.partition).unwrap();
            assert!(
                record.offset >= *place,
                "{record:?} came twice or out of order"
            );
            *place = record.offset + 1;
            all.push(record);
        }
    }
    all
}

/// Everything the topic holds, partition by partition.
pub async fn read_all(log: &dyn Log, topic: &str) -> Vec<Record> {
    let bounds = log.bounds(topic).await.unwrap();
    let from = bounds
        .iter()
        .map(|(partition, ends)| (*partition, ends.start));
    let mut all = read_from(log, topic, from.collect()).await;
    all.sort_by_key(|record| (record.partition, record.offset));
    all
}

/// Numbers that look random and are the same each time.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}
