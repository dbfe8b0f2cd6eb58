//! How librdkafka is set: what the operator may choose, and what the road fixes because another value loses data.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::fault::{Fault, FaultKind};
use crate::log::port::MAX_ENTRY_BYTES;

/// Where the brokers are, and any librdkafka property.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaSettings {
    /// `host:port`, several with commas between them.
    pub brokers: String,
    /// Replicas of each topic that is made.
    pub replication: i32,
    /// librdkafka properties by name (`sasl.username`, `ssl.ca.location`, …); values may be secret.
    pub properties: BTreeMap<String, String>,
    /// The settings that topics must have differ in tests, which can't wait a week for a compaction.
    pub checks_lag: bool,
}

/// Room for a batch's own bytes around the largest entry.
pub(super) const MAX_MESSAGE_BYTES: usize = MAX_ENTRY_BYTES + 64 * 1024;

/// Properties of every client that no config may change, with what goes wrong otherwise.
const FIXED: &[(&str, &str)] = &[
    // The default resets to the newest record: a silent skip.
    ("auto.offset.reset", "error"),
    // Offsets lie in the target's ledger (J1).
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // A topic that somebody deleted must be noticed, not made again with the broker's defaults.
    ("allow.auto.create.topics", "false"),
    // Keys must lie where every other Kafka client looks for them.
    ("partitioner", "murmur2_random"),
    ("enable.idempotence", "true"),
    ("acks", "all"),
    // A message that times out alone would be overtaken by later ones of its key.
    ("message.timeout.ms", "0"),
    ("enable.partition.eof", "false"),
    ("isolation.level", "read_committed"),
];

const PRODUCER: &[(&str, &str)] = &[
    ("partitioner", "murmur2_random"),
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("message.timeout.ms", "0"),
    ("compression.type", "zstd"),
    ("linger.ms", "2"),
    ("queue.buffering.max.kbytes", "32768"),
    ("queue.buffering.max.messages", "50000"),
];

const CONSUMER: &[(&str, &str)] = &[
    ("auto.offset.reset", "error"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("allow.auto.create.topics", "false"),
    ("enable.partition.eof", "false"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    // Per consumer, of which each job has one; the default is 64 MB.
    ("queued.max.messages.kbytes", "8192"),
    // The default waits a second before it fetches again and stalls the reader.
    ("fetch.queue.backoff.ms", "20"),
    ("fetch.wait.max.ms", "100"),
];

impl std::fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&String> = self.properties.keys().collect();
        f.debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("properties", &names)
            .finish_non_exhaustive()
    }
}

impl KafkaSettings {
    /// Settings for `brokers` with nothing else chosen.
    #[must_use]
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            replication: -1,
            properties: BTreeMap::new(),
            checks_lag: true,
        }
    }

    /// Whether the chosen properties leave alone what must not be changed.
    ///
    /// # Errors
    /// `Config`, naming the property and the value that it must have.
    pub fn check(&self) -> Result<(), Fault> {
        for (name, value) in FIXED {
            if let Some(chosen) = self.properties.get(*name)
                && chosen != value
            {
                return Err(Fault::new(
                    FaultKind::Config,
                    format!(
                        "`[log.kafka] {name} = \"{chosen}\"` would lose data: it must be `{value}`"
                    ),
                )
                .remedy(format!("take `{name}` out of `[log.kafka]`")));
            }
        }
        Ok(())
    }

    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.client(PRODUCER);
        config.set("message.max.bytes", MAX_MESSAGE_BYTES.to_string());
        config
    }

    pub(super) fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.client(CONSUMER);
        config.set("group.id", group);
        // One record must always fit, however large.
        config.set("fetch.message.max.bytes", (1024 * 1024).to_string());
        config.set("receive.message.max.bytes", (64 * 1024 * 1024).to_string());
        config
    }

    pub(super) fn admin(&self) -> ClientConfig {
        self.client(&[])
    }

    /// What is chosen goes over our own choices, but for what [`KafkaSettings::check`] refuses.
    fn client(&self, own: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config.set("client.id", "tributary");
        config.set("topic.metadata.refresh.interval.ms", "30000");
        for (name, value) in own {
            config.set(*name, *value);
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set_log_level(RDKafkaLogLevel::Warning);
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_lose_data_is_refused() {
        let mut settings = KafkaSettings::new("b:9092");
        settings
            .properties
            .insert("linger.ms".to_owned(), "20".to_owned());
        settings.check().unwrap();
        settings
            .properties
            .insert("acks".to_owned(), "1".to_owned());
        let fault = settings.check().unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Config);
        assert!(
            fault.report().contains("`[log.kafka] acks = \"1\"`"),
            "{fault}"
        );
    }

    #[test]
    fn secrets_do_not_show() {
        let mut settings = KafkaSettings::new("b:9092");
        settings
            .properties
            .insert("sasl.password".to_owned(), "hunter2".to_owned());
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
