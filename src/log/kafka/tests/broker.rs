//! The suite on a real broker, and what only one can show: topics, retention, compaction, other clients.

use std::sync::atomic::{AtomicU64, Ordering};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use tokio::time::Instant;

use super::super::*;
use crate::log::suite::{Bench, LONG, log_suite};

/// `HOST:PORT` of the broker that `tests/kafka` started.
pub(super) fn brokers() -> String {
    std::env::var("TRIBUTARY_TEST_KAFKA").expect("TRIBUTARY_TEST_KAFKA: run tests/run --kafka")
}

pub(super) fn settings() -> KafkaSettings {
    let mut settings = KafkaSettings::new(brokers());
    for (name, value) in [
        ("fetch.wait.max.ms", "50"),
        ("session.timeout.ms", "6000"),
        ("heartbeat.interval.ms", "300"),
        ("reconnect.backoff.max.ms", "500"),
        ("topic.metadata.propagation.max.ms", "2000"),
    ] {
        let pair = (name.to_owned(), value.to_owned());
        settings.properties.extend([pair]);
    }
    settings
}

pub(super) fn open() -> KafkaLog {
    KafkaLog::open(settings(), &Metrics::none()).unwrap()
}

/// A name that no other test uses, on a broker that all of them share.
pub(super) fn unique(name: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let run = uuid::Uuid::now_v7().simple().to_string();
    format!("case-{}-{count}.{name}", &run[8..])
}

pub(super) struct Tool(pub AdminClient<DefaultClientContext>);

impl Tool {
    pub(super) fn new() -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers());
        Self(config.create().unwrap())
    }

    /// Makes a topic as an operator would.
    pub(super) async fn make(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let made = self.0.create_topics([&new], &AdminOptions::new()).await;
        made.unwrap().remove(0).unwrap();
        // A topic that was just made takes a moment to be known to those who write.
        let until = Instant::now() + LONG;
        let led = || {
            let known = self.0.inner().fetch_metadata(Some(topic), LONG).unwrap();
            let partitions = known.topics()[0].partitions();
            !partitions.is_empty() && partitions.iter().all(|partition| partition.leader() >= 0)
        };
        while !led() {
            assert!(Instant::now() < until, "`{topic}` is not known");
        }
    }

    pub(super) async fn delete(&self, topic: &str) {
        let deleted = self.0.delete_topics(&[topic], &AdminOptions::new()).await;
        deleted.unwrap().remove(0).unwrap();
    }
}

/// The engine with a prefix before every topic's name.
struct Prefixed {
    log: KafkaLog,
    prefix: String,
}

impl Prefixed {
    fn name(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }
}

#[async_trait]
impl Log for Prefixed {
    async fn ensure(&self, topic: &TopicSpec) -> Result<String, Fault> {
        let topic = TopicSpec {
            name: self.name(&topic.name),
            ..topic.clone()
        };
        self.log.ensure(&topic).await
    }

    async fn verify(&self, topic: &TopicSpec) -> Result<bool, Fault> {
        let topic = TopicSpec {
            name: self.name(&topic.name),
            ..topic.clone()
        };
        self.log.verify(&topic).await
    }

    async fn append(&self, entries: Vec<Entry>) -> Result<Vec<Place>, Fault> {
        let entries = entries.into_iter().map(|entry| Entry {
            topic: Arc::from(self.name(&entry.topic)),
            ..entry
        });
        self.log.append(entries.collect()).await
    }

    async fn bounds(&self, topic: &str) -> Result<BTreeMap<u32, Bounds>, Fault> {
        self.log.bounds(&self.name(topic)).await
    }

    async fn at_time(&self, topic: &str, at: DateTime<Utc>) -> Result<BTreeMap<u32, u64>, Fault> {
        self.log.at_time(&self.name(topic), at).await
    }

    async fn reader(&self, topic: &str, from: From) -> Result<Box<dyn Reader>, Fault> {
        self.log.reader(&self.name(topic), from).await
    }

    async fn topics(&self) -> Result<Vec<TopicSpec>, Fault> {
        let topics = self.log.topics().await?.into_iter();
        let own = topics.filter_map(|spec| {
            let name = spec.name.strip_prefix(&self.prefix)?.to_owned();
            Some(TopicSpec { name, ..spec })
        });
        Ok(own.collect())
    }

    async fn close(&self) -> Result<(), Fault> {
        self.log.close().await
    }
}

struct BrokerBench {
    prefix: String,
    log: Arc<Prefixed>,
}

impl BrokerBench {
    fn open() -> Self {
        let prefix = unique("");
        let log = Self::opened(&prefix);
        Self { prefix, log }
    }

    fn opened(prefix: &str) -> Arc<Prefixed> {
        Arc::new(Prefixed {
            log: open(),
            prefix: prefix.to_owned(),
        })
    }
}

#[async_trait]
impl Bench for BrokerBench {
    fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.log) as _
    }

    async fn reopen(&mut self) {
        self.log.close().await.unwrap();
        self.log = Self::opened(&self.prefix);
    }

    fn brief(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn is_prompt(&self) -> bool {
        false
    }
}

log_suite!(#[ignore = "needs a broker: tests/run --kafka"] stored async { BrokerBench::open() });
