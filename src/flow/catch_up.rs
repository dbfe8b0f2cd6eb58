//! Reading the topics back at start: the topic is the truth, images are a cache of a prefix of it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use crate::fault::{Fault, FaultKind};
use crate::image::merge::{Image, rebuilt};
use crate::image::port::ImageBatch;
use crate::log::port::{Delivery, From, Record};
use crate::model::change::Change;
use crate::model::record_id::RecordId;

use super::ingest::Redelivery;
use super::road::{ObjectRoad, Road, topic_spec};

const MAX_RECORDS: usize = 2000;
const MAX_BYTES: usize = 8 * 1024 * 1024;
const WAIT: Duration = Duration::from_millis(200);

/// What reading one object's topic back found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CaughtUp {
    /// Records of the topic read back.
    pub read: u64,
    /// The topic is another than the images were made from: deleted, made again, or cut behind our back.
    pub recreated: bool,
    /// Records of the topic that are no change and were passed over.
    pub unreadable: u64,
}

/// Brings an object's images up to the end of its topic and notes what the stream may repeat.
///
/// # Errors
/// A fault of the log or the image store.
pub async fn catch_up(
    road: &Road,
    object: &ObjectRoad,
    redelivery: &mut Redelivery,
) -> Result<CaughtUp, Fault> {
    let mut report = CaughtUp::default();
    let generation = road.log.ensure(&topic_spec(&object.topic)).await?;
    let bounds = road.log.bounds(&object.topic).await?;
    let mut held = road.images.held(&object.key).await?;
    let past_the_end = held.offsets.iter().any(|(partition, next)| {
        bounds
            .get(partition)
            .is_none_or(|bounds| *next > bounds.end)
    });
    if held.generation.as_deref() != Some(&generation) || past_the_end {
        report.recreated = held.generation.is_some();
        road.images.clear(&object.key, &generation).await?;
        held.offsets.clear();
    }
    let from: BTreeMap<u32, u64> = bounds
        .iter()
        .map(|(partition, bounds)| {
            let next = held.offsets.get(partition).copied().unwrap_or(0);
            (*partition, next.max(bounds.start))
        })
        .collect();
    let mut left: HashMap<u32, u64> = bounds
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
    while !left.is_empty() {
        match reader.next(MAX_RECORDS, MAX_BYTES, WAIT).await? {
            Delivery::Batch(records) => {
                report.read += records.len() as u64;
                take(road, object, &records, redelivery, &mut report).await?;
                if let Some(last) = records.last()
                    && left
                        .get(&last.partition)
                        .is_some_and(|end| last.offset + 1 >= *end)
                {
                    left.remove(&last.partition);
                }
            }
            // Nothing more comes although the end was not met: compaction removed the last records.
            Delivery::Idle => break,
            Delivery::Assigned(partition) | Delivery::Revoked(partition) => {
                return Err(Fault::new(
                    FaultKind::Protocol,
                    format!("log moved partition {partition} of a reader of fixed partitions"),
                ));
            }
        }
    }
    let offsets = left
        .into_iter()
        .map(|(partition, end)| (object.key.clone(), partition, end));
    road.images
        .put(ImageBatch {
            offsets: offsets.collect(),
            ..ImageBatch::default()
        })
        .await?;
    Ok(report)
}

async fn take(
    road: &Road,
    object: &ObjectRoad,
    records: &[Record],
    redelivery: &mut Redelivery,
    report: &mut CaughtUp,
) -> Result<(), Fault> {
    let ids: HashSet<RecordId> = records.iter().filter_map(record_id).collect();
    let mut images: HashMap<RecordId, Image> = road
        .images
        .get(&object.key, ids.into_iter().collect())
        .await?;
    for record in records {
        let Some(value) = &record.value else {
            // A tombstone: the record was forgotten, its delete came before.
            if let Some(id) = record_id(record) {
                images.remove(&id);
            }
            continue;
        };
        match Change::decode(value) {
            Ok(change) => {
                redelivery.found(record.partition, &change);
                let before = images.remove(&change.id);
                if let Some(image) = rebuilt(before, &change) {
                    images.insert(change.id, image);
                }
            }
            Err(error) => {
                report.unreadable += 1;
                tracing::error!(
                    error = %error, topic = %object.topic, partition = record.partition,
                    offset = record.offset, "topic holds a record that is no change"
                );
            }
        }
    }
    let mut next: BTreeMap<u32, u64> = BTreeMap::new();
    for record in records {
        let offset = next.entry(record.partition).or_default();
        *offset = (*offset).max(record.offset + 1);
    }
    road.images
        .put(ImageBatch {
            images: vec![(object.key.clone(), images.into_iter().collect())],
            offsets: next
                .into_iter()
                .map(|(partition, offset)| (object.key.clone(), partition, offset))
                .collect(),
            position: None,
        })
        .await
}

fn record_id(record: &Record) -> Option<RecordId> {
    std::str::from_utf8(&record.key).ok().map(RecordId::stored)
}
