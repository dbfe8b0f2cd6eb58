//! A reader of a topic on Kafka: the asynchronous side of a consumer's thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::consumer::Consumer;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::fault::{Fault, FaultKind};
use crate::log::kafka::asker::Asker;
use crate::log::kafka::consumer::{Order, Poller, open};
use crate::log::kafka::contact::Contact;
use crate::log::kafka::fault::refused;
use crate::log::kafka::hand_over::{HandOver, Looked};
use crate::log::kafka::settings::KafkaSettings;
use crate::log::polling::Limit;
use crate::log::port::{Bounds, Delivery, From, Reader};
use crate::log::topic::{check_position, closed, missing_partition};

/// A wait that is as good as for ever.
const FOR_EVER: Duration = Duration::from_hours(24 * 365);

/// What a reader shares with its log.
pub(super) struct Ground {
    pub settings: KafkaSettings,
    pub contact: Arc<Contact>,
    pub asker: Arc<Asker>,
    pub closed: CancellationToken,
}

/// A reader. It is bound to the topic as it was when the reader was opened: once that was deleted, every position is
/// lost, whatever stands at the same offsets of a topic of the same name.
pub(super) struct KafkaReader {
    topic: String,
    /// The topic's id.
    generation: String,
    is_member: bool,
    shared: Arc<HandOver>,
    orders: Sender<Order>,
    asker: Arc<Asker>,
    closed: CancellationToken,
}

impl KafkaReader {
    /// Opens a consumer and its thread.
    pub(super) async fn open(
        ground: &Ground,
        topic: &str,
        generation: String,
        from: From,
        bounds: &BTreeMap<u32, Bounds>,
    ) -> Result<Self, Fault> {
        let doing = format!("opening a reader of `{topic}`");
        let (group, places) = match from {
            // Within the topic's name, so that one prefix of ACLs covers topics and groups.
            From::Group(name) => (format!("{topic}.{name}"), None),
            From::Partitions(places) => (topic.to_owned(), Some(places)),
        };
        for (partition, offset) in places.iter().flatten() {
            let ends = bounds
                .get(partition)
                .ok_or_else(|| missing_partition(topic, *partition, bounds.len()))?;
            check_position(topic, *partition, *offset, *ends)?;
        }
        let config = ground.settings.consumer(&group);
        let contact = Arc::clone(&ground.contact);
        let (name, is_member) = (topic.to_owned(), places.is_none());
        let opened = tokio::task::spawn_blocking(move || {
            let consumer = open(&config, &contact)?;
            if is_member {
                consumer.subscribe(&[&name])?;
            }
            Ok(consumer)
        });
        let consumer = opened
            .await
            .map_err(|error| Fault::new(FaultKind::Stopping, doing.clone()).source(error))?
            .map_err(|error| refused(&doing, error))?;
        let shared = Arc::new(HandOver::default());
        let (orders, taken) = std::sync::mpsc::channel();
        for (partition, offset) in places.into_iter().flatten() {
            let start = shared.lock().seat(partition);
            orders
                .send(Order::Start(partition, offset, start))
                .map_err(|_| closed())?;
        }
        let poller = Poller::new(
            consumer,
            topic.to_owned(),
            (orders.clone(), taken),
            Arc::clone(&shared),
        );
        std::thread::Builder::new()
            .name(thread_name(topic))
            .spawn(move || poller.run())
            .map_err(|error| Fault::new(FaultKind::Storage, doing).source(error))?;
        Ok(Self {
            topic: topic.to_owned(),
            generation,
            is_member,
            shared,
            orders,
            asker: Arc::clone(&ground.asker),
            closed: ground.closed.clone(),
        })
    }

    /// What has to be told when the topic turns out to be another one.
    pub(super) fn shared(&self) -> &Arc<HandOver> {
        &self.shared
    }

    fn not_ours(&self, partition: u32) -> Fault {
        Fault::new(
            FaultKind::Fenced,
            format!(
                "partition {partition} of `{}` is not assigned to this reader",
                self.topic
            ),
        )
    }

    /// The thread ends by itself only if librdkafka panics: then the log is as good as closed.
    fn order(&self, order: Order) -> Result<(), Fault> {
        self.orders.send(order).map_err(|_| closed())
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
        let until = Instant::now() + wait.min(FOR_EVER);
        let limit = Limit {
            records: max_records.max(1),
            bytes: max_bytes,
        };
        loop {
            if self.closed.is_cancelled() {
                return Err(closed());
            }
            // Nothing is awaited between taking records out and returning them.
            if let Looked::Found(delivery, has_room) = self.shared.look(limit)? {
                if has_room {
                    self.order(Order::Look)?;
                }
                return Ok(delivery);
            }
            tokio::select! {
                biased;
                () = self.closed.cancelled() => {}
                // One reader, one bell: a ring while nobody waits is kept.
                () = self.shared.bell.notified() => {}
                () = tokio::time::sleep_until(until) => return Ok(Delivery::Idle),
            }
        }
    }

    async fn start(&mut self, partition: u32, offset: u64) -> Result<(), Fault> {
        if self.closed.is_cancelled() {
            return Err(closed());
        }
        if !self.shared.lock().may_start(partition) {
            return Err(self.not_ours(partition));
        }
        let (ends, generation) = self.asker.ends(&self.topic, partition).await?;
        if generation != self.generation {
            self.shared.make_again(made_again(&self.topic));
        }
        self.shared.lock().check_made_again()?;
        check_position(&self.topic, partition, offset, ends)?;
        // It may have been revoked meanwhile.
        let started = self.shared.lock().start(partition);
        let start = started.ok_or_else(|| self.not_ours(partition))?;
        self.order(Order::Start(partition, offset, start))
    }

    async fn release(&mut self, partition: u32) -> Result<(), Fault> {
        if !self.is_member {
            return Err(self.not_ours(partition));
        }
        if !self.shared.lock().release(partition) {
            return Err(Fault::new(
                FaultKind::Protocol,
                format!(
                    "partition {partition} of `{}` was released without having been revoked",
                    self.topic
                ),
            ));
        }
        self.order(Order::Release(partition))
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        // A thread that is gone has left already.
        self.orders.send(Order::Leave).ok();
    }
}

/// Linux keeps 15 bytes of it: the topic's last ones tell most.
pub(super) fn thread_name(topic: &str) -> String {
    let start = topic.len().saturating_sub(9);
    format!("kafka-{}", topic.get(start..).unwrap_or_default())
}

pub(super) fn made_again(topic: &str) -> String {
    format!(
        "topic `{topic}` was deleted, or deleted and made again: its offsets mean other records"
    )
}
