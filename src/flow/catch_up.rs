//! Reading the topics back at start: the topic is the truth, images are a cache of a prefix of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use chrono::DateTime;
use tokio::time::Instant;

use crate::fault::{Fault, FaultKind};
use crate::image::merge::{Image, Life, rebuilt};
use crate::image::port::{Held, ImageBatch};
use crate::log::port::{Bounds, Delivery, From, Reader, Record};
use crate::model::change::Change;
use crate::model::record_id::RecordId;
use crate::state::port::{Fence, ObjectState, Owed, Progress};

use super::ingest::Redelivery;
use super::road::{ObjectRoad, Road, topic_spec};

const MAX_RECORDS: usize = 2000;
const MAX_BYTES: usize = 8 * 1024 * 1024;
const WAIT: Duration = Duration::from_millis(200);
/// How long the log may be silent before a partition's end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A topic and its images, side by side.
#[derive(Debug)]
pub struct Inspected {
    /// The topic's generation.
    pub generation: String,
    /// Its ends.
    pub bounds: BTreeMap<u32, Bounds>,
    /// How far the images hold.
    pub held: Held,
}

/// What reading one object's topic back found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CaughtUp {
    /// Records of the topic read back.
    pub read: u64,
    /// Records of the topic that are no change and were passed over.
    pub unreadable: u64,
    /// Records whose newest change in the topic is older than their image, or came after its owner's term.
    pub healed: u64,
    /// Records read back that others have fields of.
    pub moved: BTreeSet<RecordId>,
}

/// Who reads the topic back, and what the owner before found.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The term.
    pub term: u64,
    /// The fence of the newest owner.
    pub fence: Option<&'a Fence>,
    /// The term since which the topic is what it is.
    pub since: Option<u64>,
}

impl Owner<'_> {
    /// Whether a change was published by an owner whose term was over: it knows less than what this side of the
    /// fence knows, though its version may be the higher one.
    fn is_late(self, record: &Record, change: &Change) -> bool {
        self.fence.is_some_and(|fence| {
            let end = fence.ends.get(&record.partition).copied();
            change.version.term() < fence.term && end.is_some_and(|end| record.offset >= end)
        })
    }
}

impl Inspected {
    /// What images are marked with that hold for the topic since that term: another owner may have found it cut
    /// meanwhile, and filled it again past the offsets of what lies here.
    #[must_use]
    pub fn mark(&self, since: Option<u64>) -> String {
        match since {
            Some(term) => format!("{}/{term}", self.generation),
            None => self.generation.clone(),
        }
    }

    /// Whether the images were made from another topic: one that was deleted, made again, or cut, behind our back or
    /// by the knowledge of whoever owned the connection since.
    #[must_use]
    pub fn is_foreign(&self, since: Option<u64>) -> bool {
        let other = self.held.generation.as_ref() != Some(&self.mark(since));
        other || self.is_past_the_end()
    }

    /// Whether changes may be gone that no rebuild brings back.
    #[must_use]
    pub fn has_lost(&self, state: &ObjectState) -> bool {
        let known = state.topic.as_ref();
        if known.is_some_and(|topic| *topic != self.generation) {
            return true;
        }
        let Some(held) = &self.held.generation else {
            // The images are gone, or were never here; if the topic went with them, nothing is left to tell.
            let is_empty = self.bounds.values().all(|bounds| bounds.end == 0);
            return state.synced_at.is_some() && is_empty;
        };
        if known.is_some() && *held != self.mark(state.topic_since) {
            // Another owner went on without these images, and wrote down what was lost.
            return false;
        }
        // A topic's id may hold a slash itself.
        let rest = held.strip_prefix(&*self.generation);
        let is_of_it = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        !is_of_it || self.is_past_the_end()
    }

    fn is_past_the_end(&self) -> bool {
        self.held.offsets.iter().any(|(partition, next)| {
            let bounds = self.bounds.get(partition);
            bounds.is_none_or(|bounds| *next > bounds.end)
        })
    }
}

/// Looks at one object's topic and images; makes the topic if there is none.
///
/// # Errors
/// A fault of the log or the image store.
pub async fn inspect(road: &Road, object: &ObjectRoad) -> Result<Inspected, Fault> {
    Ok(Inspected {
        generation: road.log.ensure(&topic_spec(&object.topic)).await?,
        bounds: road.log.bounds(&object.topic).await?,
        held: road.images.held(&object.key).await?,
    })
}

/// Brings an object's images up to the end of its topic and notes what the stream may repeat. Holes that
/// [`Inspected::has_lost`] asks for must be durable before: this forgets what told of them.
///
/// # Errors
/// A fault of the log, the image store or the state.
pub async fn catch_up(
    road: &Road,
    object: &ObjectRoad,
    inspected: &Inspected,
    owner: Owner<'_>,
    redelivery: &mut Redelivery,
) -> Result<CaughtUp, Fault> {
    let mut report = CaughtUp::default();
    let mut held = inspected.held.offsets.clone();
    if inspected.is_foreign(owner.since) {
        road.images
            .clear(&object.key, &inspected.mark(owner.since))
            .await?;
        held.clear();
    }
    let bounds = &inspected.bounds;
    let from: BTreeMap<u32, u64> = bounds
        .iter()
        .map(|(partition, bounds)| {
            let next = held.get(partition).copied().unwrap_or(0);
            (*partition, next.max(bounds.start))
        })
        .collect();
    let mut left: BTreeMap<u32, u64> = bounds
        .iter()
        .filter(|(partition, bounds)| from.get(partition).is_some_and(|next| *next < bounds.end))
        .map(|(partition, bounds)| (*partition, bounds.end))
        .collect();
    if left.is_empty() {
        return Ok(report);
    }
    let mut reader = road
        .log
        .reader(&object.topic, From::Partitions(from))
        .await?;
    while let Some(records) = next_batch(reader.as_mut(), &object.topic, &mut left).await? {
        report.read += records.len() as u64;
        take(road, object, &records, owner, redelivery, &mut report).await?;
    }
    Ok(report)
}

/// The next records on the way to the ends in `left`; none once all are met. The log keeps a partition's newest
/// record (`log/port.rs`), so whatever is silent before its end is slow, not over: passing it over would mark
/// images as holding what was never read.
async fn next_batch(
    reader: &mut dyn Reader,
    topic: &str,
    left: &mut BTreeMap<u32, u64>,
) -> Result<Option<Vec<Record>>, Fault> {
    let until = Instant::now() + PATIENCE;
    while !left.is_empty() {
        match reader.next(MAX_RECORDS, MAX_BYTES, WAIT).await? {
            Delivery::Batch(records) => {
                if let Some(last) = records.last()
                    && left
                        .get(&last.partition)
                        .is_some_and(|end| last.offset + 1 >= *end)
                {
                    left.remove(&last.partition);
                }
                return Ok(Some(records));
            }
            Delivery::Idle if Instant::now() < until => {}
            Delivery::Idle => {
                let ends: Vec<String> = left
                    .iter()
                    .map(|(partition, end)| format!("partition {partition} up to {end}"))
                    .collect();
                let (ends, seconds) = (ends.join(", "), PATIENCE.as_secs());
                return Err(Fault::new(
                    FaultKind::Unavailable,
                    format!("reading {topic} back: nothing came for {seconds} s of {ends}"),
                ));
            }
            Delivery::Assigned(partition) | Delivery::Revoked(partition) => {
                return Err(Fault::new(
                    FaultKind::Protocol,
                    format!("log moved partition {partition} of a reader of fixed partitions"),
                ));
            }
        }
    }
    Ok(None)
}

async fn take(
    road: &Road,
    object: &ObjectRoad,
    records: &[Record],
    owner: Owner<'_>,
    redelivery: &mut Redelivery,
    report: &mut CaughtUp,
) -> Result<(), Fault> {
    let ids: HashSet<RecordId> = records.iter().filter_map(record_id).collect();
    let mut images: HashMap<RecordId, Image> = road
        .images
        .get(&object.key, ids.into_iter().collect())
        .await?;
    let mut next: BTreeMap<u32, u64> = BTreeMap::new();
    let mut last: BTreeMap<RecordId, Change> = BTreeMap::new();
    let mut healed: BTreeSet<RecordId> = BTreeSet::new();
    for record in records {
        let mut change = read(object, record, &mut images, report);
        if let Some(late) = change.take_if(|change| owner.is_late(record, change)) {
            let image = images.entry(late.id.clone()).or_insert_with(Image::partial);
            image.version = image.version.max(late.version);
            healed.insert(late.id);
        }
        if let Some(change) = &change {
            redelivery.found(record.partition, change);
        }
        // The offset stays before what the stream may repeat: a second crash must find it again.
        if !redelivery.expects(&object.key.object, record.partition) {
            next.insert(record.partition, record.offset + 1);
        }
        if let Some(change) = change {
            let before = images.remove(&change.id);
            if let Some(image) = rebuilt(before, &change) {
                images.insert(change.id.clone(), image);
            }
            last.insert(change.id.clone(), change);
        }
    }
    if !object.followers.is_empty() {
        report.moved.extend(last.keys().cloned());
    }
    healed.extend(last.into_iter().filter_map(|(record, change)| {
        let image = images.get(&record)?;
        (image.version > change.version).then_some(record)
    }));
    heal(road, object, owner.term, &images, &healed).await?;
    report.healed += healed.len() as u64;
    road.images
        .put(ImageBatch {
            images: vec![(object.key.clone(), images.into_iter().collect())],
            offsets: next
                .into_iter()
                .map(|(partition, offset)| (object.key.clone(), partition, offset))
                .collect(),
            mark: None,
        })
        .await
}

fn read(
    object: &ObjectRoad,
    record: &Record,
    images: &mut HashMap<RecordId, Image>,
    report: &mut CaughtUp,
) -> Option<Change> {
    let Some(value) = &record.value else {
        // A tombstone: the record was forgotten, its delete came before.
        if let Some(id) = record_id(record) {
            images.remove(&id);
        }
        return None;
    };
    match Change::decode(value) {
        Ok(change) => Some(change),
        Err(error) => {
            report.unreadable += 1;
            tracing::error!(
                error = %error, topic = %object.topic, partition = record.partition,
                offset = record.offset, "topic holds a record that is no change"
            );
            None
        }
    }
}

/// The topic's newest change of a record is older than its image, or knows less: an owner whose term was over woke
/// up in the middle of an append. Compaction would keep it, so the image is published again, or read first.
async fn heal(
    road: &Road,
    object: &ObjectRoad,
    term: u64,
    images: &HashMap<RecordId, Image>,
    healed: &BTreeSet<RecordId>,
) -> Result<(), Fault> {
    let mut owe = Vec::new();
    for record in healed {
        tracing::warn!(object = %object.key, %record, "the topic ends with a change that came too late: publishing again");
        if images
            .get(record)
            .is_some_and(|image| image.life != Life::Partial)
        {
            let (connection, name) = (&road.connection, &object.key.object);
            road.state
                .request_republish(connection, name, record)
                .await?;
        } else {
            owe.push(Owed {
                object: object.key.object.clone(),
                record: record.clone(),
                stamp: DateTime::UNIX_EPOCH,
            });
        }
    }
    if owe.is_empty() {
        return Ok(());
    }
    let progress = Progress {
        owe,
        ..Progress::default()
    };
    road.state.commit(&road.connection, term, progress).await
}

fn record_id(record: &Record) -> Option<RecordId> {
    std::str::from_utf8(&record.key).ok().map(RecordId::stored)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn inspected(held: Option<&str>, next: u64, end: u64) -> Inspected {
        Inspected {
            generation: "to/pic".to_owned(),
            bounds: [(0, Bounds { start: 0, end })].into(),
            held: Held {
                generation: held.map(str::to_owned),
                offsets: [(0, next)].into(),
            },
        }
    }

    fn known(topic: Option<&str>, since: Option<u64>, synced: bool) -> ObjectState {
        ObjectState {
            topic: topic.map(str::to_owned),
            topic_since: since,
            synced_at: synced.then_some(DateTime::UNIX_EPOCH),
            ..ObjectState::default()
        }
    }

    #[test]
    fn what_lies_here_is_compared_with_what_any_owner_knew() {
        let ours = Some("to/pic/7");
        for (held, next, end, state, foreign, lost) in [
            // The same topic, grown meanwhile, by us or by another owner.
            (
                ours,
                5,
                9,
                known(Some("to/pic"), Some(7), true),
                false,
                false,
            ),
            // Cut behind everybody's back.
            (ours, 5, 4, known(Some("to/pic"), Some(7), true), true, true),
            // Cut, noted by another owner, and filled again past our offsets.
            (
                ours,
                5,
                9,
                known(Some("to/pic"), Some(8), true),
                true,
                false,
            ),
            (
                ours,
                5,
                4,
                known(Some("to/pic"), Some(8), true),
                true,
                false,
            ),
            // Made again while nobody looked.
            (
                Some("old/7"),
                5,
                9,
                known(Some("old"), Some(7), true),
                true,
                true,
            ),
            // Made again, noted by another owner.
            (
                Some("old/7"),
                5,
                9,
                known(Some("to/pic"), Some(8), true),
                true,
                false,
            ),
            // The owner before was on another log.
            (ours, 5, 9, known(Some("else"), Some(8), true), true, true),
            (None, 0, 9, known(Some("else"), Some(8), true), true, true),
            // No images: a new daemon beside a full topic, beside an empty one, on a new object.
            (
                None,
                0,
                9,
                known(Some("to/pic"), Some(7), true),
                true,
                false,
            ),
            (None, 0, 0, known(Some("to/pic"), Some(7), true), true, true),
            (None, 0, 0, known(None, None, false), true, false),
            // Stored by a build that marked images by the topic alone.
            (
                Some("to/pic"),
                5,
                9,
                known(None, Some(7), true),
                true,
                false,
            ),
            (Some("to/pic"), 5, 4, known(None, Some(7), true), true, true),
            (Some("old"), 5, 9, known(None, Some(7), true), true, true),
        ] {
            let inspected = inspected(held, next, end);
            let found = (
                inspected.is_foreign(state.topic_since),
                inspected.has_lost(&state),
            );
            assert_eq!(found, (foreign, lost), "{inspected:?} {state:?}");
        }
    }

    /// A reader of a slow broker: silent so many times before each record.
    struct Slow {
        silences: u32,
        left: u32,
        offsets: VecDeque<(u32, u64)>,
    }

    #[async_trait::async_trait]
    impl Reader for Slow {
        async fn next(&mut self, _: usize, _: usize, wait: Duration) -> Result<Delivery, Fault> {
            if self.left > 0 {
                self.left -= 1;
                tokio::time::sleep(wait).await;
                return Ok(Delivery::Idle);
            }
            self.left = self.silences;
            let Some((partition, offset)) = self.offsets.pop_front() else {
                tokio::time::sleep(wait).await;
                return Ok(Delivery::Idle);
            };
            Ok(Delivery::Batch(vec![Record {
                partition,
                offset,
                at: DateTime::UNIX_EPOCH,
                key: "k".into(),
                value: None,
                headers: Vec::new(),
            }]))
        }

        async fn start(&mut self, _: u32, _: u64) -> Result<(), Fault> {
            unreachable!("fixed partitions")
        }

        async fn release(&mut self, _: u32) -> Result<(), Fault> {
            unreachable!("fixed partitions")
        }
    }

    async fn read(silences: u32, offsets: &[(u32, u64)]) -> (Vec<u64>, Result<(), Fault>) {
        let mut reader = Slow {
            silences,
            left: silences,
            offsets: offsets.iter().copied().collect(),
        };
        let mut left = BTreeMap::from([(3, 10), (5, 4)]);
        let mut found = Vec::new();
        loop {
            match next_batch(&mut reader, "t", &mut left).await {
                Ok(Some(records)) => found.extend(records.iter().map(|record| record.offset)),
                Ok(None) => return (found, Ok(())),
                Err(fault) => return (found, Err(fault)),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_log_is_waited_for() {
        // 40 s of silence before every record, and one that came after the ends were taken.
        let (found, read) = read(200, &[(3, 2), (5, 3), (5, 4), (3, 9)]).await;
        read.unwrap();
        assert_eq!(found, [2, 3, 4, 9]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_stays_silent_before_an_end_is_a_fault_that_passes() {
        let (found, read) = read(1, &[(5, 3), (3, 8)]).await;
        assert_eq!(found, [3, 8]);
        let fault = read.unwrap_err();
        assert_eq!(fault.fate(), crate::fault::Fate::Retry);
        let told = fault.report();
        assert!(told.contains("partition 3 up to 10"), "{told}");
        assert!(!told.contains("partition 5"), "{told}");
    }
}
