//! The log on Apache Kafka, by librdkafka: for production.
//!
//! One producer and one client for questions a daemon, one consumer a reader, with a thread of its own. Offsets are
//! never committed to the broker; its groups only assign. A group's id is the topic's name, a dot, and the name given.
//! An append that fails at the brokers may have landed in part; it is never out of order.

mod admin;
mod appender;
mod asker;
mod consumer;
mod contact;
mod fault;
mod hand_over;
mod producer;
mod reader;
pub mod settings;
mod topic_id;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use crate::fault::{Fault, FaultKind};
use crate::log::kafka::admin::Admin;
use crate::log::kafka::appender::Appender;
use crate::log::kafka::asker::Asker;
use crate::log::kafka::contact::Contact;
use crate::log::kafka::reader::{Ground, KafkaReader};
use crate::log::kafka::settings::{KafkaSettings, MAX_MESSAGE_BYTES};
use crate::log::kafka::watch::Watch;
use crate::log::port::{Bounds, Entry, From, Log, Place, Reader, TopicSpec};
use crate::log::topic::{check_entry, check_spec, closed, first_millisecond, missing};
use crate::model::waiting::Waiting;
use crate::telemetry::metrics::Metrics;

/// How long a close waits for what was taken.
const LAST_WAIT: Duration = Duration::from_secs(15);
/// What a batch of one entry adds to it at most, and each of its headers.
const OVERHEAD: usize = 256;
const HEADER_OVERHEAD: usize = 10;

/// The log on a Kafka cluster.
pub struct KafkaLog {
    ground: Ground,
    admin: Admin,
    appender: Appender,
    watch: Arc<Watch>,
    /// Topics that were found to be there.
    known: Mutex<HashSet<Arc<str>>>,
}

impl KafkaLog {
    /// Sets up the clients; the brokers need not be there yet. Must be called within a runtime.
    ///
    /// # Errors
    /// `Config` for settings that librdkafka refuses or that would lose data.
    pub fn open(settings: KafkaSettings, metrics: &Metrics) -> Result<Self, Fault> {
        Self::open_with(settings, metrics, LAST_WAIT)
    }

    fn open_with(
        settings: KafkaSettings,
        metrics: &Metrics,
        last_wait: Duration,
    ) -> Result<Self, Fault> {
        settings.check()?;
        let contact = Contact::new(metrics);
        let asker = Arc::new(Asker::new(&settings, &contact)?);
        let admin = Admin::new(&settings, &contact, &asker)?;
        let appender = Appender::start(&settings, &contact, last_wait)?;
        let watch = Arc::new(Watch::default());
        let closed = CancellationToken::new();
        tokio::spawn(Arc::clone(&watch).run(
            Arc::clone(&asker),
            Arc::clone(&contact),
            closed.clone(),
        ));
        Ok(Self {
            ground: Ground {
                settings,
                contact,
                asker,
                closed,
            },
            admin,
            appender,
            watch,
            known: Mutex::default(),
        })
    }

    fn check_open(&self) -> Result<(), Fault> {
        if self.ground.closed.is_cancelled() {
            return Err(closed());
        }
        Ok(())
    }

    /// Refuses a call of which a part can't be stored before any of it is sent.
    async fn check_topics(&self, entries: &[Entry]) -> Result<(), Fault> {
        let mut unknown: Vec<Arc<str>> = Vec::new();
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            for entry in entries {
                if !known.contains(&entry.topic) && !unknown.contains(&entry.topic) {
                    unknown.push(Arc::clone(&entry.topic));
                }
            }
        }
        for topic in unknown {
            self.ground.asker.partitions(&topic).await?;
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(topic);
        }
        Ok(())
    }
}

#[async_trait]
impl Log for KafkaLog {
    async fn ensure(&self, topic: &TopicSpec) -> Result<String, Fault> {
        self.check_open()?;
        check_spec(topic)?;
        self.admin.ensure(topic).await
    }

    async fn verify(&self, topic: &TopicSpec) -> Result<bool, Fault> {
        self.check_open()?;
        check_spec(topic)?;
        self.admin.verify(topic).await
    }

    async fn append(&self, entries: Vec<Entry>) -> Result<Vec<Place>, Fault> {
        self.check_open()?;
        for entry in &entries {
            check_entry(entry)?;
            check_packed(entry)?;
        }
        self.check_topics(&entries).await?;
        let appended = self.appender.append(entries).await;
        if let Err(fault) = &appended
            && fault.kind() == FaultKind::Missing
        {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.clear();
        }
        appended
    }

    fn waiting(&self) -> Option<Waiting> {
        self.ground.contact.waiting()
    }

    async fn bounds(&self, topic: &str) -> Result<BTreeMap<u32, Bounds>, Fault> {
        self.ground.asker.bounds(topic).await
    }

    async fn at_time(&self, topic: &str, at: DateTime<Utc>) -> Result<BTreeMap<u32, u64>, Fault> {
        let millis = first_millisecond(at);
        self.ground.asker.at_time(topic, millis).await
    }

    async fn reader(&self, topic: &str, from: From) -> Result<Box<dyn Reader>, Fault> {
        self.check_open()?;
        let ground = &self.ground;
        let generation = ground.asker.topic_id(topic).await?;
        let generation = generation.ok_or_else(|| missing(topic))?;
        let bounds = ground.asker.bounds(topic).await?;
        let reader = KafkaReader::open(ground, topic, generation.clone(), from, &bounds).await?;
        self.watch.add(topic, &generation, reader.shared());
        Ok(Box::new(reader))
    }

    async fn topics(&self) -> Result<Vec<TopicSpec>, Fault> {
        self.check_open()?;
        self.admin.topics().await
    }

    async fn close(&self) -> Result<(), Fault> {
        self.ground.closed.cancel();
        let closed = self.appender.close().await;
        let clients = (self.ground.asker.close(), self.admin.close());
        tokio::task::spawn_blocking(move || drop(clients))
            .await
            .ok();
        closed
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.ground.closed.cancel();
        let clients = (self.ground.asker.close(), self.admin.close());
        if clients.0.is_some() || clients.1.is_some() {
            // Joins librdkafka's threads, which may take a while.
            std::thread::spawn(move || drop(clients));
        }
    }
}

/// Many small headers take more room on the wire than they hold.
fn check_packed(entry: &Entry) -> Result<(), Fault> {
    let packed = entry.size() + OVERHEAD + entry.headers.len() * HEADER_OVERHEAD;
    if packed <= MAX_MESSAGE_BYTES {
        return Ok(());
    }
    Err(Fault::new(
        FaultKind::Record,
        format!(
            "an entry for `{}` with {} headers takes {packed} bytes, {MAX_MESSAGE_BYTES} is the limit",
            entry.topic,
            entry.headers.len()
        ),
    ))
}

impl std::fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaLog")
            .field("settings", &self.ground.settings)
            .finish_non_exhaustive()
    }
}
