//! The one appender: entries go to the broker in the order of the calls; after a failed delivery everything from
//! the first unacknowledged entry is published again.
//!
//! librdkafka retries by itself as long as order holds. When it gives an entry up, later ones may have landed
//! already: sending that one alone would put it behind them, and compaction would keep it. So the producer is dropped
//! and the whole suffix goes out again; readers compare versions.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::OwnedDeliveryResult;
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer, PurgeConfig};
use rdkafka::util::TokioRuntime;
use tokio::sync::{mpsc, oneshot};

use crate::fault::{Fault, FaultKind};
use crate::log::kafka::fault::{fate, is_final, refused};
use crate::log::kafka::settings::KafkaSettings;
use crate::log::port::{Entry, Place};
use crate::log::topic::closed;
use crate::runtime::backoff::{Attempts, Backoff};

/// Entries that are published and not acknowledged; callers wait beyond.
const FLYING: usize = 20_000;
/// Their bytes.
const FLYING_BYTES: usize = 32 * 1024 * 1024;
/// How long a close waits for what was taken.
const LAST_WAIT: Duration = Duration::from_secs(15);

type Kafka = FutureProducer<super::Quiet, TokioRuntime>;

/// Calls that wait for the appender.
const QUEUE: usize = 64;

/// The way to the appender's task.
#[derive(Clone)]
pub(super) struct Appender {
    calls: mpsc::Sender<Call>,
}

enum Call {
    Append(Vec<Entry>, oneshot::Sender<Result<Vec<Place>, Fault>>),
    Close(oneshot::Sender<()>),
}

impl Appender {
    /// Starts the task.
    pub(super) fn start(settings: &KafkaSettings) -> Result<Self, Fault> {
        let (calls, taken) = mpsc::channel(QUEUE);
        let task = Task {
            producer: Some(open(settings)?),
            settings: settings.clone(),
            flying: VecDeque::new(),
            published: 0,
            bytes: 0,
            backoff: Attempts::new(Backoff::default(), u64::from(std::process::id())),
        };
        // The task ends when the last handle is gone and everything taken is acknowledged.
        tokio::spawn(task.run(taken));
        Ok(Self { calls })
    }

    /// Appends; the future may be dropped, the entries go out all the same.
    pub(super) async fn append(&self, entries: Vec<Entry>) -> Result<Vec<Place>, Fault> {
        let (done, answer) = oneshot::channel();
        self.calls
            .send(Call::Append(entries, done))
            .await
            .map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Waits for what was taken.
    pub(super) async fn close(&self) {
        let (done, answer) = oneshot::channel();
        if self.calls.send(Call::Close(done)).await.is_ok() {
            answer.await.ok();
        }
    }
}

struct Task {
    settings: KafkaSettings,
    producer: Option<Kafka>,
    /// Entries that are not acknowledged, oldest first; the first `published` of them are with librdkafka.
    flying: VecDeque<Flying>,
    published: usize,
    bytes: usize,
    backoff: Attempts,
}

struct Flying {
    entry: Entry,
    call: Arc<Ticket>,
    delivery: Option<DeliveryFuture>,
}

/// A call's answer, completed entry by entry.
struct Ticket(std::sync::Mutex<Waiting>);

struct Waiting {
    places: Vec<Place>,
    left: usize,
    done: Option<oneshot::Sender<Result<Vec<Place>, Fault>>>,
}

impl Ticket {
    fn new(entries: usize, done: oneshot::Sender<Result<Vec<Place>, Fault>>) -> Arc<Self> {
        Arc::new(Self(std::sync::Mutex::new(Waiting {
            places: Vec::with_capacity(entries),
            left: entries,
            done: Some(done),
        })))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn landed(&self, place: Place) {
        let mut waiting = self.lock();
        waiting.places.push(place);
        waiting.left -= 1;
        if waiting.left == 0
            && let Some(done) = waiting.done.take()
        {
            // A caller that went away loses its answer and nothing else.
            done.send(Ok(std::mem::take(&mut waiting.places))).ok();
        }
    }

    fn failed(&self, fault: Fault) {
        if let Some(done) = self.lock().done.take() {
            done.send(Err(fault)).ok();
        }
    }
}

impl Task {
    async fn run(mut self, mut calls: mpsc::Receiver<Call>) {
        let mut closing = None;
        loop {
            self.publish();
            let has_room = self.flying.len() < FLYING && self.bytes < FLYING_BYTES;
            let taking = has_room && closing.is_none();
            if self.flying.is_empty()
                && (closing.is_some() || calls.is_closed() && calls.is_empty())
            {
                break;
            }
            let delivery = self
                .flying
                .front_mut()
                .and_then(|first| first.delivery.as_mut());
            tokio::select! {
                biased;
                delivered = async {
                    match delivery {
                        Some(delivery) => delivery.await,
                        None => std::future::pending().await,
                    }
                } => self.settle(delivered.ok()).await,
                call = calls.recv(), if taking => match call {
                    Some(Call::Append(entries, done)) => self.take(entries, done),
                    Some(Call::Close(done)) => {
                        closing = Some((done, tokio::time::Instant::now() + LAST_WAIT));
                        calls.close();
                    }
                    None => closing = Some((oneshot::channel().0, tokio::time::Instant::now() + LAST_WAIT)),
                },
                () = deadline(closing.as_ref().map(|(_, until)| *until)) => break,
            }
        }
        for flying in self.flying.drain(..) {
            flying.call.failed(closed());
        }
        discard(self.producer.take()).await;
        if let Some((done, _)) = closing {
            done.send(()).ok();
        }
    }

    fn take(&mut self, entries: Vec<Entry>, done: oneshot::Sender<Result<Vec<Place>, Fault>>) {
        let call = Ticket::new(entries.len(), done);
        if entries.is_empty() {
            if let Some(done) = call.lock().done.take() {
                done.send(Ok(Vec::new())).ok();
            }
            return;
        }
        for entry in entries {
            self.bytes += entry.size();
            self.flying.push_back(Flying {
                entry,
                call: Arc::clone(&call),
                delivery: None,
            });
        }
    }

    /// Hands over to librdkafka, in order, until its queue is full.
    fn publish(&mut self) {
        while let Some(next) = self.flying.get_mut(self.published) {
            let Some(producer) = &self.producer else {
                return;
            };
            match producer.send_result(record_of(&next.entry)) {
                Ok(delivery) => {
                    next.delivery = Some(delivery);
                    self.published += 1;
                }
                // The first delivery makes room; there is one, or the queue would not be full.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => return,
                Err((error, _)) => {
                    let call = Arc::clone(&next.call);
                    self.give_up(&call, error);
                }
            }
        }
    }

    async fn settle(&mut self, delivered: Option<OwnedDeliveryResult>) {
        match delivered {
            Some(Ok(delivery)) => {
                let Some(first) = self.flying.pop_front() else {
                    return;
                };
                self.published -= 1;
                self.bytes -= first.entry.size();
                self.backoff.succeeded();
                first.call.landed(Place {
                    partition: u32::try_from(delivery.partition).unwrap_or_default(),
                    offset: u64::try_from(delivery.offset).unwrap_or_default(),
                });
            }
            Some(Err((error, _))) => {
                let code = error.rdkafka_error_code();
                tracing::warn!(error = %error, unacknowledged = self.flying.len(), "delivery failed, publishing again from there");
                if code.is_some_and(is_final)
                    && let Some(first) = self.flying.front()
                {
                    let call = Arc::clone(&first.call);
                    self.give_up(&call, error);
                }
                self.start_over().await;
            }
            None => self.start_over().await,
        }
    }

    /// Fails a call and takes its entries out; what of it landed stays.
    fn give_up(&mut self, call: &Arc<Ticket>, error: KafkaError) {
        let kind = error
            .rdkafka_error_code()
            .map_or(FaultKind::Unavailable, |code| fate(code).0);
        let topic = self
            .flying
            .iter()
            .find(|flying| Arc::ptr_eq(&flying.call, call))
            .map_or_else(String::new, |flying| flying.entry.topic.to_string());
        let fault = refused(&format!("appending to `{topic}`"), error);
        debug_assert_eq!(fault.kind(), kind);
        call.failed(fault);
        let published = self.published;
        let mut gone_published = 0;
        let mut index = 0;
        let bytes = &mut self.bytes;
        self.flying.retain(|flying| {
            let keep = !Arc::ptr_eq(&flying.call, call);
            if !keep {
                *bytes -= flying.entry.size();
                gone_published += usize::from(index < published);
            }
            index += 1;
            keep
        });
        self.published -= gone_published;
    }

    /// A new producer; everything that is not acknowledged goes out again.
    async fn start_over(&mut self) {
        discard(self.producer.take()).await;
        for flying in &mut self.flying {
            flying.delivery = None;
        }
        self.published = 0;
        loop {
            tokio::time::sleep(self.backoff.failed(None)).await;
            match open(&self.settings) {
                Ok(producer) => {
                    self.producer = Some(producer);
                    return;
                }
                Err(fault) => tracing::error!(error = fault.report(), "opening a producer"),
            }
        }
    }
}

async fn deadline(until: Option<tokio::time::Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

fn open(settings: &KafkaSettings) -> Result<Kafka, Fault> {
    settings
        .producer()
        .create_with_context(super::Quiet)
        .map_err(|error| refused("opening a producer", error))
}

/// Drops a producer off the runtime: what is unsent is purged, and its threads are joined.
async fn discard(producer: Option<Kafka>) {
    let Some(producer) = producer else { return };
    let dropped = tokio::task::spawn_blocking(move || {
        producer.purge(PurgeConfig::default().queue().inflight());
        drop(producer);
    });
    dropped.await.ok();
}

fn record_of(entry: &Entry) -> FutureRecord<'_, [u8], [u8]> {
    let mut record = FutureRecord::to(&entry.topic).key(&entry.key[..]);
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
