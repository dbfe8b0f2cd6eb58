//! The suite on librdkafka's mock cluster: within 4 MiB a partition, without topics that are made or listed.

use std::sync::mpsc::{Sender, channel};

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use tokio::sync::oneshot;

use super::super::*;
use crate::log::suite::{Bench, log_suite};

pub(super) type Cluster = MockCluster<'static, DefaultProducerContext>;

type Order = Box<dyn FnOnce(&Cluster) + Send>;

/// A cluster on a thread of its own, because it can't leave the one it was made on.
#[derive(Clone)]
pub(super) struct Mock {
    orders: Sender<Order>,
    pub brokers: String,
}

impl Mock {
    pub(super) async fn start(brokers: i32) -> Self {
        let (orders, taken) = channel::<Order>();
        let (told, ready) = oneshot::channel();
        std::thread::spawn(move || {
            let cluster = MockCluster::new(brokers).unwrap();
            told.send(cluster.bootstrap_servers()).unwrap();
            for order in taken {
                order(&cluster);
            }
        });
        Self {
            orders,
            brokers: ready.await.unwrap(),
        }
    }

    pub(super) async fn with<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Cluster) -> T + Send + 'static,
    ) -> T {
        let (told, answer) = oneshot::channel();
        let order: Order = Box::new(move |cluster| told.send(ask(cluster)).ok().unwrap());
        self.orders.send(order).ok().unwrap();
        answer.await.unwrap()
    }

    pub(super) fn settings(&self) -> KafkaSettings {
        let mut settings = KafkaSettings::new(self.brokers.clone());
        for (name, value) in [
            // A fetch that waits is not woken by an append here.
            ("fetch.wait.max.ms", "10"),
            ("reconnect.backoff.max.ms", "200"),
            // The mock gives members almost a session to join again.
            ("session.timeout.ms", "2500"),
            ("heartbeat.interval.ms", "300"),
            ("topic.metadata.refresh.interval.ms", "1000"),
        ] {
            let pair = (name.to_owned(), value.to_owned());
            settings.properties.extend([pair]);
        }
        settings
    }

    pub(super) fn log(&self) -> MockLog {
        MockLog {
            mock: self.clone(),
            log: KafkaLog::open(self.settings(), &Metrics::none()).unwrap(),
        }
    }

    pub(super) async fn make(&self, topic: &str, partitions: u32) {
        let name = topic.to_owned();
        let partitions = i32::try_from(partitions).unwrap();
        // It may be there already.
        self.with(move |cluster| cluster.create_topic(&name, partitions, 1).ok())
            .await;
    }
}

/// The engine, but for the making of topics, which a mock cluster does not offer to its clients.
pub(super) struct MockLog {
    mock: Mock,
    pub log: KafkaLog,
}

#[async_trait]
impl Log for MockLog {
    async fn ensure(&self, topic: &TopicSpec) -> Result<String, Fault> {
        self.mock.make(&topic.name, topic.partitions).await;
        let id = self.log.ground.asker.topic_id(&topic.name).await?;
        id.ok_or_else(|| missing(&topic.name))
    }

    async fn append(&self, entries: Vec<Entry>) -> Result<Vec<Place>, Fault> {
        self.log.append(entries).await
    }

    async fn bounds(&self, topic: &str) -> Result<BTreeMap<u32, Bounds>, Fault> {
        self.log.bounds(topic).await
    }

    async fn at_time(&self, topic: &str, at: DateTime<Utc>) -> Result<BTreeMap<u32, u64>, Fault> {
        self.log.at_time(topic, at).await
    }

    async fn reader(&self, topic: &str, from: From) -> Result<Box<dyn Reader>, Fault> {
        self.log.reader(topic, from).await
    }

    async fn topics(&self) -> Result<Vec<TopicSpec>, Fault> {
        self.log.topics().await
    }

    async fn close(&self) -> Result<(), Fault> {
        self.log.close().await
    }
}

pub(super) struct MockBench {
    pub mock: Mock,
    pub log: Arc<MockLog>,
}

impl MockBench {
    pub(super) async fn open() -> Self {
        let mock = Mock::start(1).await;
        let log = Arc::new(mock.log());
        Self { mock, log }
    }
}

#[async_trait]
impl Bench for MockBench {
    fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.log) as _
    }

    async fn reopen(&mut self) {
        self.log.close().await.unwrap();
        self.log = Arc::new(self.mock.log());
    }

    fn brief(&self) -> Duration {
        Duration::from_millis(500)
    }

    fn is_prompt(&self) -> bool {
        false
    }
}

log_suite!(core MockBench::open());
