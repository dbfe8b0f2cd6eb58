//! A consumer's thread: it polls librdkafka, answers rebalances when the reader has, and hands over chunks.
//!
//! The broker's group only assigns. Where a partition begins is told by [`Order::Start`]; nothing is committed to
//! the broker. A revoked partition is given back when the reader has released it, so that the next member starts
//! behind what this one committed to its target.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::{mpsc, oneshot};

use crate::fault::{Fault, FaultKind};
use crate::log::kafka::fault::refused;
use crate::log::port::{Bounds, Record};
use crate::log::topic::check_position;

/// Records in a chunk at most.
const CHUNK: usize = 500;
/// Bytes in a chunk, about.
const CHUNK_BYTES: usize = 1024 * 1024;
/// How long a poll waits: orders wait no longer than this.
const POLL: Duration = Duration::from_millis(10);
/// How long the broker may take to tell a partition's ends.
const ENDS: Duration = Duration::from_secs(10);

/// What the reader asks of the thread.
pub(super) enum Order {
    /// Deliver the partition from the offset.
    Start(u32, u64, oneshot::Sender<Result<u64, Fault>>),
    /// Give the partition back.
    Release(u32, oneshot::Sender<Result<(), Fault>>),
}

/// What the thread hands over.
pub(super) enum Handed {
    Assigned(u32),
    Revoked(u32),
    /// Records of one partition, read since its start of that number.
    Chunk(u32, u64, Vec<Record>),
    Fault(Fault),
}

/// What librdkafka tells between messages.
enum Turn {
    Assigned(Vec<u32>),
    Revoked(Vec<u32>),
}

/// Takes rebalances down for the thread; answers them itself only once the thread is leaving.
#[derive(Default)]
pub(super) struct Told {
    turns: Mutex<VecDeque<Turn>>,
    leaving: std::sync::atomic::AtomicBool,
}

impl ClientContext for Told {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(error = %error, reason, "the consumer met a fault");
    }
}

impl ConsumerContext for Told {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        if self.leaving.load(std::sync::atomic::Ordering::Acquire) {
            // Nobody answers any more.
            consumer.unassign().ok();
            return;
        }
        let partitions = list
            .elements()
            .iter()
            .filter_map(|element| u32::try_from(element.partition()).ok())
            .collect();
        let turn = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Turn::Assigned(partitions),
            _ => Turn::Revoked(partitions),
        };
        self.lock().push_back(turn);
    }
}

impl Told {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Turn>> {
        self.turns
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The thread's side.
pub(super) struct Poller {
    pub consumer: BaseConsumer<Told>,
    pub topic: String,
    pub orders: Receiver<Order>,
    pub out: mpsc::Sender<Handed>,
    /// Partitions and the number of their start; none before it.
    pub held: BTreeMap<u32, u64>,
    /// Whether a group assigns.
    pub grouped: bool,
    pub waiting: BTreeSet<u32>,
    pub revoked: BTreeSet<u32>,
    /// Those of a revocation that the reader has released, until it has released all.
    pub released: BTreeSet<u32>,
    pub starts: u64,
}

impl Poller {
    /// Polls until the reader is gone, then leaves the group.
    pub(super) fn run(mut self) {
        let ended = self.work();
        self.consumer
            .context()
            .leaving
            .store(true, std::sync::atomic::Ordering::Release);
        if self.grouped {
            self.consumer.unsubscribe();
        }
        self.consumer.unassign().ok();
        if let Err(Gone) = ended {
            tracing::trace!(topic = self.topic, "a reader was dropped");
        }
    }

    fn work(&mut self) -> Result<(), Gone> {
        loop {
            self.obey()?;
            self.take_turns()?;
            self.poll()?;
        }
    }

    fn obey(&mut self) -> Result<(), Gone> {
        loop {
            match self.orders.try_recv() {
                Ok(Order::Start(partition, offset, answer)) => {
                    answer.send(self.start(partition, offset)).ok();
                }
                Ok(Order::Release(partition, answer)) => {
                    answer.send(self.release(partition)).ok();
                }
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(Gone),
            }
        }
    }

    /// Passes on what the group decided.
    fn take_turns(&mut self) -> Result<(), Gone> {
        loop {
            let Some(turn) = self.consumer.context().lock().pop_front() else {
                return Ok(());
            };
            match turn {
                Turn::Assigned(partitions) => {
                    if partitions.is_empty() {
                        // An answer is due even to nothing.
                        self.answer_assigned(&TopicPartitionList::new());
                    }
                    for partition in partitions {
                        self.waiting.insert(partition);
                        self.hand(Handed::Assigned(partition))?;
                    }
                }
                Turn::Revoked(partitions) => {
                    if partitions.is_empty() {
                        self.answer_revoked(&TopicPartitionList::new());
                    }
                    for partition in partitions {
                        self.waiting.remove(&partition);
                        self.revoked.insert(partition);
                        self.hand(Handed::Revoked(partition))?;
                    }
                }
            }
        }
    }

    fn poll(&mut self) -> Result<(), Gone> {
        let mut partition = 0;
        let mut bytes = 0;
        let mut records: Vec<Record> = Vec::new();
        let mut wait = POLL;
        let mut fault = None;
        while records.len() < CHUNK && bytes < CHUNK_BYTES {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    wait = Duration::ZERO;
                    let record = record_of(&message);
                    if !records.is_empty() && record.partition != partition {
                        self.hand(Handed::Chunk(
                            partition,
                            self.start_of(partition),
                            std::mem::take(&mut records),
                        ))?;
                        bytes = 0;
                    }
                    partition = record.partition;
                    bytes += record.size();
                    records.push(record);
                }
                Some(Err(error)) => {
                    fault = self.fault_of(error);
                    break;
                }
            }
        }
        if !records.is_empty() {
            self.hand(Handed::Chunk(partition, self.start_of(partition), records))?;
        }
        match fault {
            Some(fault) => self.hand(Handed::Fault(fault)),
            None => Ok(()),
        }
    }

    fn start_of(&self, partition: u32) -> u64 {
        self.held.get(&partition).copied().unwrap_or(0)
    }

    /// Faults that librdkafka gets over by itself are no faults of the reader.
    fn fault_of(&self, error: KafkaError) -> Option<Fault> {
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::CoordinatorLoadInProgress
                | RDKafkaErrorCode::NotCoordinator,
            ) => {
                tracing::debug!(topic = self.topic, error = %error, "the broker is away for a while");
                None
            }
            _ => Some(refused(&format!("reading `{}`", self.topic), error)),
        }
    }

    /// Waits while the reader is behind: the push-back that bounds memory. Orders are obeyed meanwhile.
    fn hand(&mut self, handed: Handed) -> Result<(), Gone> {
        let mut handed = handed;
        loop {
            match self.out.try_send(handed) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Closed(_)) => return Err(Gone),
                Err(mpsc::error::TrySendError::Full(back)) => {
                    handed = back;
                    // Messages stay with librdkafka; what is not paused would only fill its own bounded queue.
                    match self.orders.recv_timeout(POLL) {
                        Ok(Order::Start(partition, offset, answer)) => {
                            answer.send(self.start(partition, offset)).ok();
                        }
                        Ok(Order::Release(partition, answer)) => {
                            answer.send(self.release(partition)).ok();
                        }
                        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                        Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return Err(Gone),
                    }
                }
            }
        }
    }

    /// Begins a partition, or goes elsewhere in one; answers with the number of the start.
    fn start(&mut self, partition: u32, offset: u64) -> Result<u64, Fault> {
        let known = self.waiting.contains(&partition) || self.held.contains_key(&partition);
        if !known || self.revoked.contains(&partition) {
            return Err(Fault::new(
                FaultKind::Fenced,
                format!("partition {partition} of `{}` is not ours", self.topic),
            ));
        }
        check_position(&self.topic, partition, offset, self.bounds(partition)?)?;
        let mut list = TopicPartitionList::new();
        let at = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
        list.add_partition_offset(&self.topic, id(partition), at)
            .map_err(|error| refused("starting", error))?;
        if self.held.contains_key(&partition) {
            let mut old = TopicPartitionList::new();
            old.add_partition(&self.topic, id(partition));
            self.consumer
                .incremental_unassign(&old)
                .map_err(|error| refused("leaving a partition's place", error))?;
        }
        self.answer_assigned(&list);
        self.starts += 1;
        self.waiting.remove(&partition);
        self.held.insert(partition, self.starts);
        Ok(self.starts)
    }

    fn release(&mut self, partition: u32) -> Result<(), Fault> {
        if !self.revoked.remove(&partition) {
            return Err(Fault::new(
                FaultKind::Protocol,
                format!("partition {partition} of `{}` was not revoked", self.topic),
            ));
        }
        if self.held.remove(&partition).is_some() {
            self.released.insert(partition);
        }
        // One answer to one revocation: the group would move on at the first of several.
        if self.revoked.is_empty() {
            let mut list = TopicPartitionList::new();
            for partition in std::mem::take(&mut self.released) {
                list.add_partition(&self.topic, id(partition));
            }
            self.answer_revoked(&list);
        }
        Ok(())
    }

    fn answer_assigned(&self, list: &TopicPartitionList) {
        let answered = match self.consumer.rebalance_protocol() {
            RebalanceProtocol::Eager => self.consumer.assign(list),
            _ => self.consumer.incremental_assign(list),
        };
        if let Err(error) = answered {
            tracing::warn!(topic = self.topic, error = %error, "answering an assignment");
        }
    }

    fn answer_revoked(&self, list: &TopicPartitionList) {
        if let Err(error) = self.consumer.incremental_unassign(list) {
            // The assignment was lost meanwhile: the group has taken the partition already.
            tracing::debug!(topic = self.topic, error = %error, "answering a revocation");
        }
    }

    fn bounds(&self, partition: u32) -> Result<Bounds, Fault> {
        let (low, high) = self
            .consumer
            .fetch_watermarks(&self.topic, id(partition), ENDS)
            .map_err(|error| refused(&format!("asking for the ends of `{}`", self.topic), error))?;
        Ok(Bounds {
            start: u64::try_from(low).unwrap_or(0),
            end: u64::try_from(high).unwrap_or(0),
        })
    }
}

/// The reader was dropped.
struct Gone;

fn id(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

fn record_of(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| {
                (
                    header.key.to_owned(),
                    header.value.map(<[u8]>::to_vec).unwrap_or_default(),
                )
            })
            .collect()
    });
    let at = message.timestamp().to_millis().unwrap_or(0);
    Record {
        partition: u32::try_from(message.partition()).unwrap_or_default(),
        offset: u64::try_from(message.offset()).unwrap_or_default(),
        at: DateTime::from_timestamp_millis(at).unwrap_or_default(),
        key: Bytes::copy_from_slice(message.key().unwrap_or_default()),
        value: message.payload().map(Bytes::copy_from_slice),
        headers,
    }
}
