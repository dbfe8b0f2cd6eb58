//! A consumer's thread: it polls librdkafka, answers rebalances when the reader has, and hands over records.
//!
//! The broker's group only assigns. An assignment is answered at once with nothing, so that the group goes on, and
//! each partition is added when the reader has said where it begins; nothing is committed to the broker. A revoked
//! partition is given back when the reader has released it, so that the next member starts behind what this one
//! committed to its target. Each partition has a queue of its own within librdkafka: a reader that is behind leaves
//! its records there, while the thread goes on serving the group.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use crate::fault::{Fault, FaultKind};
use crate::log::kafka::asker::{native, number};
use crate::log::kafka::contact::{Contact, log};
use crate::log::kafka::fault::{is_passing, is_position_lost, refused};
use crate::log::kafka::hand_over::{EndGuard, HandOver, Revoked};
use crate::log::port::Record;

/// The longest sleep: librdkafka rings for records and most events; the rest is met this late.
const TICK: Duration = Duration::from_millis(100);
/// Polls that must find nothing before the client's queue counts as empty: a poll may serve an event and say nothing.
const EMPTY: u32 = 3;

/// What is asked of the thread.
pub(super) enum Order {
    /// Deliver the partition from the offset, under the number of the start.
    Start(u32, u64, u64),
    /// The reader gave the partition up.
    Release(u32),
    /// Something to be seen to: records came, or the reader has room again.
    Look,
    /// The reader is gone.
    Leave,
}

/// Takes rebalances down for the thread; answers them itself once the thread is leaving.
pub(super) struct Rebalances {
    contact: Arc<Contact>,
    turns: Mutex<VecDeque<Turn>>,
    is_leaving: AtomicBool,
}

enum Turn {
    Assigned(Vec<u32>),
    Revoked(Vec<u32>),
}

impl Rebalances {
    pub(super) fn new(contact: &Arc<Contact>) -> Self {
        Self {
            contact: Arc::clone(contact),
            turns: Mutex::default(),
            is_leaving: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Turn>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.contact.met(&error, reason);
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        if self.is_leaving.load(Ordering::Acquire) {
            // Nobody answers any more; a client that is closing takes every answer for this one.
            consumer.unassign().ok();
            return;
        }
        let elements = list.elements();
        let partitions = elements.iter().map(|element| number(element.partition()));
        let partitions = partitions.collect();
        self.lock().push_back(match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Turn::Assigned(partitions),
            _ => Turn::Revoked(partitions),
        });
    }
}

/// The thread's side.
pub(super) struct Poller {
    consumer: Arc<BaseConsumer<Rebalances>>,
    topic: String,
    orders: Receiver<Order>,
    bell: Sender<Order>,
    shared: Arc<HandOver>,
    seats: BTreeMap<u32, Seat>,
    /// Queues live as long as the thread: a second one would silence the first one's bell.
    queues: BTreeMap<u32, PartitionQueue<Rebalances>>,
    /// Revoked, and not released yet.
    owed: BTreeSet<u32>,
    /// Released, and not given back yet: a revocation is answered once.
    released: BTreeSet<u32>,
}

/// A partition that is being read.
struct Seat {
    start: u64,
    next: u64,
    at: DateTime<Utc>,
}

impl Poller {
    pub(super) fn new(
        mut consumer: BaseConsumer<Rebalances>,
        topic: String,
        (bell, orders): (Sender<Order>, Receiver<Order>),
        shared: Arc<HandOver>,
    ) -> Self {
        let ring = bell.clone();
        // A thread that is gone needs no bell.
        consumer.set_nonempty_callback(move || drop(ring.send(Order::Look)));
        Self {
            consumer: Arc::new(consumer),
            topic,
            orders,
            bell,
            shared,
            seats: BTreeMap::new(),
            queues: BTreeMap::new(),
            owed: BTreeSet::new(),
            released: BTreeSet::new(),
        }
    }

    /// Polls until the reader is gone, then leaves the group.
    pub(super) fn run(mut self) {
        let _ended = EndGuard(Arc::clone(&self.shared));
        while self.obey() {
            self.serve();
            self.take_turns();
            self.fill();
        }
        let context = Arc::clone(self.consumer.client().context());
        context.is_leaving.store(true, Ordering::Release);
        // A revocation that waits for its answer would hold up the departure.
        if let Ok(all) = self.consumer.assignment() {
            self.consumer.incremental_unassign(&all).ok();
        }
        // Dropping the consumer closes it, which leaves the group; the queues hold on to it.
        self.queues.clear();
        tracing::trace!(topic = self.topic, "a reader leaves");
    }

    /// Waits for orders and carries them out; false once the reader is gone.
    fn obey(&mut self) -> bool {
        let mut order = match self.orders.recv_timeout(TICK) {
            Ok(order) => Some(order),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        while let Some(next) = order {
            match next {
                Order::Start(partition, offset, start) => self.start(partition, offset, start),
                Order::Release(partition) => self.release(partition),
                Order::Look => {}
                Order::Leave => return false,
            }
            order = self.orders.try_recv().ok();
        }
        true
    }

    /// Serves the client's own queue: rebalances, faults of the group.
    fn serve(&mut self) {
        let mut silent = 0;
        while silent < EMPTY {
            match self.consumer.poll(Duration::ZERO) {
                None => silent += 1,
                // Records come by the partitions' queues.
                Some(Ok(message)) => self.unexpected(&message),
                Some(Err(error)) => {
                    let is_passing = error.rdkafka_error_code().is_none_or(is_passing);
                    if is_passing {
                        continue;
                    }
                    let fault = refused(&format!("reading `{}`", self.topic), error);
                    self.shared.lock().fail(fault);
                    self.shared.bell.notify_one();
                }
            }
        }
    }

    fn unexpected(&self, message: &BorrowedMessage<'_>) {
        let what = format!(
            "the client delivered offset {} of partition {} of `{}` past its queue",
            message.offset(),
            message.partition(),
            self.topic
        );
        let fault = Fault::new(FaultKind::Protocol, what);
        self.shared.lock().fail(fault);
        self.shared.bell.notify_one();
    }

    /// Passes on what the group decided.
    fn take_turns(&mut self) {
        loop {
            let Some(turn) = self.consumer.client().context().lock().pop_front() else {
                return;
            };
            match turn {
                Turn::Assigned(partitions) => {
                    self.answer(&TopicPartitionList::new(), true);
                    let mut state = self.shared.lock();
                    for partition in partitions {
                        state.assigned(partition);
                    }
                }
                Turn::Revoked(partitions) => {
                    if self.consumer.assignment_lost() {
                        tracing::warn!(
                            topic = self.topic,
                            "the group gave the reader's partitions away: it did not hear from it in time"
                        );
                    }
                    for partition in partitions {
                        match self.shared.lock().revoked(partition) {
                            Revoked::Told => self.owed.insert(partition),
                            Revoked::Unknown => self.released.insert(partition),
                        };
                    }
                    self.give_back();
                }
            }
            self.shared.bell.notify_one();
        }
    }

    fn release(&mut self, partition: u32) {
        self.owed.remove(&partition);
        self.released.insert(partition);
        self.give_back();
    }

    /// Answers a revocation, once all of its partitions are released.
    fn give_back(&mut self) {
        if !self.owed.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::new();
        for partition in std::mem::take(&mut self.released) {
            // What was never started was never added.
            if self.seats.remove(&partition).is_some() {
                list.add_partition(&self.topic, native(partition));
            }
        }
        self.answer(&list, false);
    }

    fn answer(&self, list: &TopicPartitionList, is_assignment: bool) -> bool {
        let answered = if is_assignment {
            self.consumer.incremental_assign(list)
        } else {
            self.consumer.incremental_unassign(list)
        };
        if let Err(error) = &answered {
            let fault = refused(
                &format!("moving the partitions of a reader of `{}`", self.topic),
                error.clone(),
            );
            self.shared.lock().fail(fault);
            self.shared.bell.notify_one();
        }
        answered.is_ok()
    }

    /// Begins a partition, or goes elsewhere in one.
    fn start(&mut self, partition: u32, offset: u64, start: u64) {
        if !self.queues.contains_key(&partition) {
            let queue = self
                .consumer
                .split_partition_queue(&self.topic, native(partition));
            let Some(mut queue) = queue else {
                let what = format!("opening partition {partition} of `{}`", self.topic);
                let fault = Fault::new(FaultKind::Protocol, what);
                self.shared.lock().stick(partition, start, &fault);
                self.shared.bell.notify_one();
                return;
            };
            let ring = self.bell.clone();
            queue.set_nonempty_callback(move || drop(ring.send(Order::Look)));
            self.queues.insert(partition, queue);
        }
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, native(partition));
        if self.seats.remove(&partition).is_some() {
            if !self.answer(&list, false) {
                return;
            }
            // Records of the old place end here.
            if let Some(queue) = self.queues.get(&partition) {
                while queue.poll(Duration::ZERO).is_some() {}
            }
        }
        let at = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
        if list.set_all_offsets(at).is_ok() && self.answer(&list, true) {
            let seat = Seat {
                start,
                next: offset,
                at: DateTime::UNIX_EPOCH,
            };
            self.seats.insert(partition, seat);
        }
    }

    /// Takes records down for the reader, of each partition as many as it has room for.
    fn fill(&mut self) {
        let mut has_news = false;
        for (partition, seat) in &mut self.seats {
            let Some(queue) = self.queues.get(partition) else {
                continue;
            };
            let Some(limit) = self.shared.lock().room(*partition, seat.start) else {
                continue;
            };
            let mut records: Vec<Record> = Vec::new();
            let mut bytes = 0;
            let mut stuck = None;
            let mut is_empty = false;
            while records.len() < limit.records && bytes < limit.bytes {
                match queue.poll(Duration::ZERO) {
                    None => {
                        is_empty = true;
                        break;
                    }
                    Some(Ok(message)) => {
                        if let Some(record) = seat.take(&message) {
                            bytes += record.size();
                            records.push(record);
                        }
                    }
                    Some(Err(error)) => {
                        stuck = seat.stuck(&self.topic, *partition, error);
                        if stuck.is_some() {
                            break;
                        }
                    }
                }
            }
            if records.is_empty() && stuck.is_none() && is_empty {
                continue;
            }
            has_news = true;
            let mut state = self.shared.lock();
            state.deposit(*partition, seat.start, records);
            if let Some(fault) = stuck {
                state.stick(*partition, seat.start, &fault);
            } else if !is_empty {
                // Full now, unless the reader took some meanwhile: then there is room, and nobody else rings.
                if state.room(*partition, seat.start).is_some() {
                    drop(self.bell.send(Order::Look));
                }
            }
        }
        if has_news {
            self.shared.bell.notify_one();
        }
    }
}

impl Seat {
    /// The record, unless it was delivered before.
    fn take(&mut self, message: &BorrowedMessage<'_>) -> Option<Record> {
        let offset = u64::try_from(message.offset()).ok()?;
        if offset < self.next {
            return None;
        }
        self.next = offset + 1;
        let millis = message.timestamp().to_millis().unwrap_or(0);
        // Clocks of brokers and writers differ; dates within a partition do not go back.
        self.at = self
            .at
            .max(DateTime::from_timestamp_millis(millis).unwrap_or_default());
        Some(record_of(message, offset, self.at))
    }

    /// A fault that ends the reading of a partition; none for one that librdkafka gets over.
    fn stuck(&self, topic: &str, partition: u32, error: KafkaError) -> Option<Fault> {
        let code = error.rdkafka_error_code();
        if code.is_some_and(is_passing) {
            return None;
        }
        let doing = if code.is_some_and(is_position_lost) {
            let next = self.next;
            format!("offset {next} of partition {partition} of `{topic}` is not there any more")
        } else {
            format!("reading partition {partition} of `{topic}`")
        };
        Some(refused(&doing, error))
    }
}

fn record_of(message: &BorrowedMessage<'_>, offset: u64, at: DateTime<Utc>) -> Record {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        let headers = headers.iter().map(|header| {
            let value = header.value.map(<[u8]>::to_vec).unwrap_or_default();
            (header.key.to_owned(), value)
        });
        headers.collect()
    });
    Record {
        partition: number(message.partition()),
        offset,
        at,
        key: Bytes::copy_from_slice(message.key().unwrap_or_default()),
        value: message.payload().map(Bytes::copy_from_slice),
        headers,
    }
}

/// Opens a consumer. Blocking.
pub(super) fn open(
    config: &rdkafka::ClientConfig,
    contact: &Arc<Contact>,
) -> KafkaResult<BaseConsumer<Rebalances>> {
    config.create_with_context(Rebalances::new(contact))
}
