//! A producer, and the place where it lays down what became of each entry.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, PurgeConfig, ThreadedProducer};
use tokio::sync::Notify;

use crate::fault::Fault;
use crate::log::kafka::contact::{Contact, log};
use crate::log::kafka::fault::refused;
use crate::log::kafka::settings::KafkaSettings;
use crate::log::port::{Entry, Place};

/// An entry's number, and what became of it.
pub(super) type Outcome = (usize, Result<Place, Code>);

/// What the producer's thread lays down.
pub(super) struct Deliveries {
    contact: Arc<Contact>,
    outcomes: Mutex<Vec<Outcome>>,
    bell: Arc<Notify>,
}

/// The context that librdkafka calls; clones share the deliveries.
#[derive(Clone)]
pub(super) struct Courier(Arc<Deliveries>);

impl ClientContext for Courier {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.contact.met(&error, reason);
    }
}

impl ProducerContext for Courier {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivery: &DeliveryResult<'_>, number: usize) {
        let outcome = match delivery {
            Ok(message) => {
                let partition = u32::try_from(message.partition());
                let offset = u64::try_from(message.offset());
                match (partition, offset) {
                    (Ok(partition), Ok(offset)) => Ok(Place { partition, offset }),
                    // The broker has had it before and does not say where: it goes out again, and is found twice.
                    _ => Err(Code::DuplicateSequenceNumber),
                }
            }
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(Code::Fail)),
        };
        let outcomes = self.0.outcomes.lock();
        outcomes
            .unwrap_or_else(PoisonError::into_inner)
            .push((number, outcome));
        self.0.bell.notify_one();
    }
}

/// A producer and what it delivered.
pub(super) struct Line {
    producer: ThreadedProducer<Courier>,
    deliveries: Arc<Deliveries>,
}

impl Line {
    /// Opens a producer; each delivery rings `bell`. Blocking.
    pub(super) fn open(
        settings: &KafkaSettings,
        contact: Arc<Contact>,
        bell: Arc<Notify>,
    ) -> Result<Self, Fault> {
        let deliveries = Arc::new(Deliveries {
            contact,
            outcomes: Mutex::default(),
            bell,
        });
        let producer = settings
            .producer()
            .create_with_context(Courier(Arc::clone(&deliveries)))
            .map_err(|error| refused("opening a producer", error))?;
        Ok(Self {
            producer,
            deliveries,
        })
    }

    /// Hands an entry over.
    pub(super) fn send(&self, number: usize, entry: &Entry) -> Result<(), Code> {
        let sent = self.producer.send(record_of(number, entry));
        sent.map_err(|(error, _)| error.rdkafka_error_code().unwrap_or(Code::Fail))
    }

    /// What was delivered since.
    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        let outcomes = self.deliveries.outcomes.lock();
        std::mem::take(&mut outcomes.unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the producer, off the runtime: what is unsent is purged, and its threads are joined.
    pub(super) async fn discard(self) {
        let dropped = tokio::task::spawn_blocking(move || {
            let all = PurgeConfig::default().queue().inflight();
            self.producer.purge(all);
            drop(self);
        });
        dropped.await.ok();
    }
}

fn record_of(number: usize, entry: &Entry) -> BaseRecord<'_, [u8], [u8], usize> {
    let mut record = BaseRecord::with_opaque_to(&entry.topic, number).key(&entry.key[..]);
    if let Some(value) = &entry.value {
        record = record.payload(&value[..]);
    }
    if entry.headers.is_empty() {
        return record;
    }
    let mut headers = OwnedHeaders::new_with_capacity(entry.headers.len());
    for (name, value) in &entry.headers {
        headers = headers.insert(Header {
            key: name,
            value: Some(value),
        });
    }
    record.headers(headers)
}
