//! The log on Apache Kafka, by librdkafka: for production.
//!
//! One producer a daemon, one consumer a reader, with a thread each. Offsets are never committed to the broker; its
//! groups only assign. An append of several entries may land in part if it fails; it is never out of order.

mod admin;
mod appender;
mod consumer;
mod fault;
mod reader;
pub mod settings;
mod topic_id;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::fault::{Fault, FaultKind};
use crate::log::kafka::admin::Admin;
use crate::log::kafka::appender::Appender;
use crate::log::kafka::fault::refused;
use crate::log::kafka::reader::KafkaReader;
use crate::log::kafka::settings::KafkaSettings;
use crate::log::port::{Bounds, Entry, From, Log, Place, Reader, TopicSpec};
use crate::log::topic::{check_entry, check_spec, closed, first_millisecond, missing};

/// How long the broker may take to answer.
const WAIT: Duration = Duration::from_secs(15);

/// The log on a Kafka cluster.
pub struct KafkaLog {
    settings: KafkaSettings,
    admin: Arc<Admin>,
    appender: Appender,
    closed: AtomicBool,
}

/// Passes librdkafka's faults to the log lines.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::log) struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(error = %error, reason, "the Kafka client met a fault");
    }
}

impl KafkaLog {
    /// Sets up the clients; the brokers need not be there yet.
    ///
    /// # Errors
    /// `Config` for settings that librdkafka refuses or that would lose data.
    pub fn open(settings: KafkaSettings) -> Result<Self, Fault> {
        settings.check()?;
        let admin: Admin = settings
            .admin()
            .create_with_context(Quiet)
            .map_err(|error| refused("setting up `[log.kafka]`", error))?;
        Ok(Self {
            admin: Arc::new(admin),
            appender: Appender::start(&settings)?,
            settings,
            closed: AtomicBool::new(false),
        })
    }

    fn check_open(&self) -> Result<(), Fault> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        Ok(())
    }

    /// Runs what blocks off the runtime, on a client of its own.
    async fn ask<T: Send + 'static>(
        &self,
        topic: &str,
        ask: impl FnOnce(&BaseConsumer, &str, Vec<i32>) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, Fault> {
        self.check_open()?;
        let config = self.settings.consumer("tributary");
        let (topic, doing) = (
            topic.to_owned(),
            format!("asking for the ends of `{topic}`"),
        );
        let asked = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = config.create().map_err(|error| refused(&doing, error))?;
            let metadata = consumer
                .fetch_metadata(Some(&topic), WAIT)
                .map_err(|error| refused(&doing, error))?;
            let partitions: Vec<i32> = metadata
                .topics()
                .iter()
                .filter(|found| found.name() == topic && found.error().is_none())
                .flat_map(|found| found.partitions().iter().map(|partition| partition.id()))
                .collect();
            if partitions.is_empty() {
                return Err(missing(&topic));
            }
            ask(&consumer, &topic, partitions).map_err(|error| refused(&doing, error))
        });
        asked
            .await
            .map_err(|error| Fault::new(FaultKind::Stopping, "asking the broker").source(error))?
    }
}

#[async_trait]
impl Log for KafkaLog {
    async fn ensure(&self, topic: &TopicSpec) -> Result<String, Fault> {
        self.check_open()?;
        check_spec(topic)?;
        admin::ensure(&self.admin, &self.settings, topic).await
    }

    async fn append(&self, entries: Vec<Entry>) -> Result<Vec<Place>, Fault> {
        self.check_open()?;
        entries.iter().try_for_each(check_entry)?;
        self.appender.append(entries).await
    }

    async fn bounds(&self, topic: &str) -> Result<BTreeMap<u32, Bounds>, Fault> {
        self.ask(topic, |consumer, topic, partitions| {
            let mut bounds = BTreeMap::new();
            for partition in partitions {
                let (low, high) = consumer.fetch_watermarks(topic, partition, WAIT)?;
                let ends = Bounds {
                    start: u64::try_from(low).unwrap_or(0),
                    end: u64::try_from(high).unwrap_or(0),
                };
                bounds.insert(u32::try_from(partition).unwrap_or_default(), ends);
            }
            Ok(bounds)
        })
        .await
    }

    async fn at_time(&self, topic: &str, at: DateTime<Utc>) -> Result<BTreeMap<u32, u64>, Fault> {
        let first = first_millisecond(at);
        self.ask(topic, move |consumer, topic, partitions| {
            let mut list = TopicPartitionList::new();
            for partition in &partitions {
                list.add_partition_offset(topic, *partition, Offset::Offset(first))?;
            }
            let mut offsets = BTreeMap::new();
            for element in consumer.offsets_for_times(list, WAIT)?.elements() {
                element.error()?;
                let partition = element.partition();
                let offset = match element.offset() {
                    Offset::Offset(offset) => offset,
                    // Nothing is that young.
                    _ => consumer.fetch_watermarks(topic, partition, WAIT)?.1,
                };
                let key = u32::try_from(partition).unwrap_or_default();
                offsets.insert(key, u64::try_from(offset).unwrap_or(0));
            }
            Ok(offsets)
        })
        .await
    }

    async fn reader(&self, topic: &str, from: From) -> Result<Box<dyn Reader>, Fault> {
        let bounds = self.bounds(topic).await?;
        let reader = KafkaReader::open(&self.settings, topic, from, &bounds)?;
        Ok(Box::new(reader))
    }

    async fn topics(&self) -> Result<Vec<TopicSpec>, Fault> {
        self.check_open()?;
        let admin = Arc::clone(&self.admin);
        let names = tokio::task::spawn_blocking(move || {
            let metadata = admin
                .inner()
                .fetch_metadata(None, WAIT)
                .map_err(|error| refused("listing topics", error))?;
            Ok::<_, Fault>(
                metadata
                    .topics()
                    .iter()
                    .map(|topic| topic.name().to_owned())
                    .filter(|name| !name.starts_with("__"))
                    .collect::<Vec<_>>(),
            )
        });
        let names = names.await.map_err(|error| {
            Fault::new(FaultKind::Stopping, "asking the broker").source(error)
        })??;
        let mut topics = Vec::with_capacity(names.len());
        for name in names {
            match admin::describe(&self.admin, &name, None).await {
                Ok(spec) => topics.push(spec),
                // Others' topics are none of ours.
                Err(fault) => tracing::debug!(topic = name, error = %fault, "topic passed over"),
            }
        }
        Ok(topics)
    }

    async fn close(&self) -> Result<(), Fault> {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.appender.close().await;
        }
        Ok(())
    }
}

impl std::fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaLog")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
