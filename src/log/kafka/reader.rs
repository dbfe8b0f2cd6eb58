//! A reader of a topic on Kafka: the asynchronous side of a consumer's thread.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::fault::{Fault, FaultKind};
use crate::log::kafka::consumer::{Handed, Order, Poller, Told};
use crate::log::kafka::fault::refused;
use crate::log::kafka::settings::KafkaSettings;
use crate::log::port::{Bounds, Delivery, From, Reader, Record};
use crate::log::topic::{check_position, closed, missing_partition};

/// Chunks that wait for the reader; the thread pauses beyond.
const QUEUE: usize = 4;

/// A reader.
pub(super) struct KafkaReader {
    orders: std::sync::mpsc::Sender<Order>,
    handed: mpsc::Receiver<Handed>,
    /// What was handed over and not delivered yet.
    rest: Option<(u32, u64, std::vec::IntoIter<Record>)>,
    /// The number of the start whose records count, per partition.
    starts: BTreeMap<u32, u64>,
    /// A position that is lost stays lost until the partition is started elsewhere.
    lost: Option<String>,
}

impl KafkaReader {
    /// Opens a consumer and its thread.
    pub(super) fn open(
        settings: &KafkaSettings,
        topic: &str,
        from: From,
        bounds: &BTreeMap<u32, Bounds>,
    ) -> Result<Self, Fault> {
        let doing = format!("opening a reader of `{topic}`");
        let group = match &from {
            From::Group(group) => group.as_str(),
            From::Partitions(_) => "tributary",
        };
        let consumer: BaseConsumer<Told> = settings
            .consumer(group)
            .create_with_context(Told::default())
            .map_err(|error| refused(&doing, error))?;
        let mut held = BTreeMap::new();
        let grouped = match from {
            From::Group(_) => {
                consumer
                    .subscribe(&[topic])
                    .map_err(|error| refused(&doing, error))?;
                true
            }
            From::Partitions(places) => {
                let mut list = TopicPartitionList::new();
                for (partition, offset) in places {
                    let Some(ends) = bounds.get(&partition) else {
                        return Err(missing_partition(topic, partition, bounds.len()));
                    };
                    check_position(topic, partition, offset, *ends)?;
                    let at = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
                    list.add_partition_offset(
                        topic,
                        i32::try_from(partition).unwrap_or(i32::MAX),
                        at,
                    )
                    .map_err(|error| refused(&doing, error))?;
                    held.insert(partition, 1);
                }
                consumer
                    .assign(&list)
                    .map_err(|error| refused(&doing, error))?;
                false
            }
        };
        let (orders, taken) = std::sync::mpsc::channel();
        let (out, handed) = mpsc::channel(QUEUE);
        let starts = held.clone();
        let poller = Poller {
            consumer,
            topic: topic.to_owned(),
            orders: taken,
            out,
            held,
            grouped,
            waiting: BTreeSet::new(),
            revoked: BTreeSet::new(),
            released: BTreeSet::new(),
            starts: 1,
        };
        std::thread::Builder::new()
            .name("kafka-consumer".to_owned())
            .spawn(move || poller.run())
            .map_err(|error| Fault::new(FaultKind::Storage, doing).source(error))?;
        Ok(Self {
            orders,
            handed,
            rest: None,
            starts,
            lost: None,
        })
    }

    async fn ask<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, Fault>>) -> Order,
    ) -> Result<T, Fault> {
        let (answer, answered) = oneshot::channel();
        self.orders.send(order(answer)).map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// Up to the limits of what is at hand, of one partition.
    fn batch(&mut self, max_records: usize, max_bytes: usize) -> Option<Vec<Record>> {
        let (partition, start, mut records) = self.rest.take()?;
        // Read before the partition was started elsewhere, or lost.
        if self.starts.get(&partition) != Some(&start) {
            return None;
        }
        let mut batch: Vec<Record> = Vec::with_capacity(records.len().min(max_records));
        let mut bytes = 0_usize;
        while batch.len() < max_records.max(1) {
            let Some(next) = records.as_slice().first() else {
                break;
            };
            bytes = bytes.saturating_add(next.size());
            if !batch.is_empty() && bytes > max_bytes {
                break;
            }
            batch.extend(records.next());
        }
        if records.len() > 0 {
            self.rest = Some((partition, start, records));
        }
        (!batch.is_empty()).then_some(batch)
    }
}

#[async_trait]
impl Reader for KafkaReader {
    async fn next(
        &mut self,
        max_records: usize,
        max_bytes: usize,
        wait: Duration,
    ) -> Result<Delivery, Fault> {
        let until = Instant::now() + wait.min(Duration::from_hours(24));
        loop {
            if let Some(batch) = self.batch(max_records, max_bytes) {
                return Ok(Delivery::Batch(batch));
            }
            if let Some(lost) = &self.lost {
                return Err(Fault::new(FaultKind::PositionLost, lost.clone()));
            }
            let Ok(handed) = tokio::time::timeout_at(until, self.handed.recv()).await else {
                return Ok(Delivery::Idle);
            };
            match handed {
                None => return Err(closed()),
                Some(Handed::Assigned(partition)) => return Ok(Delivery::Assigned(partition)),
                Some(Handed::Revoked(partition)) => return Ok(Delivery::Revoked(partition)),
                Some(Handed::Chunk(partition, start, records)) => {
                    self.rest = Some((partition, start, records.into_iter()));
                }
                Some(Handed::Fault(fault)) => {
                    if fault.kind() == FaultKind::PositionLost {
                        self.lost = Some(fault.report());
                    }
                    return Err(fault);
                }
            }
        }
    }

    async fn start(&mut self, partition: u32, offset: u64) -> Result<(), Fault> {
        let start = self
            .ask(|answer| Order::Start(partition, offset, answer))
            .await?;
        self.starts.insert(partition, start);
        self.lost = None;
        Ok(())
    }

    async fn release(&mut self, partition: u32) -> Result<(), Fault> {
        self.ask(|answer| Order::Release(partition, answer)).await?;
        self.starts.remove(&partition);
        Ok(())
    }
}
