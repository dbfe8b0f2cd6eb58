//! How librdkafka is set: what the operator may choose, and what the road fixes because another value loses data.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::config::kafka::{FIXED, KafkaConfig};
use crate::fault::{Fault, FaultKind};
use crate::log::port::MAX_ENTRY_BYTES;

/// Where the brokers are, and any librdkafka property.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaSettings {
    /// `host:port`, several with commas between them.
    pub brokers: String,
    /// Replicas of each topic that is made; the brokers' own default if not given.
    pub replication: Option<u16>,
    /// librdkafka properties by name (`sasl.username`, `ssl.ca.location`, …); values may be secret.
    pub properties: BTreeMap<String, String>,
}

/// Room for a batch's own bytes around the largest entry.
pub(super) const MAX_MESSAGE_BYTES: usize = MAX_ENTRY_BYTES + 64 * 1024;

const PRODUCER: &[(&str, &str)] = &[
    ("compression.type", "zstd"),
    ("linger.ms", "2"),
    // The defaults are 1 GiB and 100,000.
    ("queue.buffering.max.kbytes", "32768"),
    ("queue.buffering.max.messages", "50000"),
];

const CONSUMER: &[(&str, &str)] = &[
    ("check.crcs", "true"),
    // How long a killed daemon's partitions wait for their next reader; the default is 45 s.
    ("session.timeout.ms", "10000"),
    // Per partition, since each has a queue of its own; the default is 64 MiB.
    ("queued.max.messages.kbytes", "1024"),
    ("fetch.message.max.bytes", "1048576"),
    // The default waits a second before it fetches again and stalls the reader.
    ("fetch.queue.backoff.ms", "20"),
    ("fetch.wait.max.ms", "100"),
    // One record must always fit, however large.
    ("receive.message.max.bytes", "67108864"),
];

impl std::fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&String> = self.properties.keys().collect();
        f.debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("replication", &self.replication)
            .field("properties", &names)
            .finish()
    }
}

impl KafkaSettings {
    /// Settings for `brokers` with nothing else chosen.
    #[must_use]
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            replication: None,
            properties: BTreeMap::new(),
        }
    }

    /// Settings as configured; reads the secrets.
    ///
    /// # Errors
    /// `Credentials` for a secret that is not there, `Storage` for one that can't be read.
    pub fn from_config(config: &KafkaConfig) -> Result<Self, Fault> {
        let mut properties = BTreeMap::new();
        for (name, property) in &config.properties {
            let value = property
                .read()
                .map_err(|fault| fault.context(format!("reading `{name}` of `[log.kafka]`")))?;
            properties.insert(name.clone(), value);
        }
        Ok(Self {
            brokers: config.brokers.clone(),
            replication: config.replication,
            properties,
        })
    }

    /// Whether the chosen properties are librdkafka's, and leave alone what must not be changed.
    ///
    /// # Errors
    /// `Config`, naming the property and what is wrong with it.
    pub fn check(&self) -> Result<(), Fault> {
        for fixed in FIXED {
            if let Some(chosen) = self.properties.get(fixed.name)
                && fixed.value != Some(chosen)
            {
                let what = format!("`[log.kafka]` sets `{}`: {}", fixed.name, fixed.why);
                let fault = Fault::new(FaultKind::Config, what);
                return Err(fault.remedy("take it out"));
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
        config
    }

    /// A consumer without a group, for questions.
    pub(super) fn asker(&self) -> ClientConfig {
        self.client(&[])
    }

    pub(super) fn admin(&self) -> ClientConfig {
        self.client(&[])
    }

    /// What is chosen goes over our own choices, and what loses data otherwise over everything.
    fn client(&self, own: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", "tributary");
        // The default is five minutes, for which a refused topic stays refused after its ACLs were mended.
        config.set("topic.metadata.refresh.interval.ms", "30000");
        for (name, value) in own {
            config.set(*name, *value);
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        for fixed in FIXED {
            if let Some(value) = fixed.value {
                config.set(fixed.name, value);
            }
        }
        config.set("bootstrap.servers", &self.brokers);
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
        let mut set = |name: &str, value: &str| {
            settings
                .properties
                .insert(name.to_owned(), value.to_owned());
            settings.check()
        };
        set("linger.ms", "20").unwrap();
        set("acks", "all").unwrap();
        let fault = set("acks", "1").unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Config);
        assert!(fault.report().contains("`acks`"), "{fault}");
        set("acks", "all").unwrap();
        assert!(set("transactional.id", "x").is_err());
    }

    #[test]
    fn librdkafka_takes_every_client() {
        let settings = KafkaSettings::new("b:9092");
        for config in [
            settings.producer(),
            settings.consumer("g"),
            settings.asker(),
            settings.admin(),
        ] {
            config.create_native_config().unwrap();
        }
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
