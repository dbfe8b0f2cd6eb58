//! The Kafka node that `tests/kafka` started around this process.

use std::path::Path;

use tributary::log::kafka::KafkaLog;
use tributary::log::kafka::settings::KafkaSettings;
use tributary::telemetry::metrics::Metrics;

/// A node on this machine.
pub struct Broker {
    address: String,
    /// Its process.
    pub pid: u32,
}

impl Broker {
    /// The node that the environment names; none without `tests/kafka`.
    pub fn given() -> Option<Self> {
        let address = std::env::var("TRIBUTARY_TEST_KAFKA").ok()?;
        let folder = std::env::var("TRIBUTARY_TEST_KAFKA_NODE").ok()?;
        let pid = std::fs::read_to_string(Path::new(&folder).join("pid")).ok()?;
        Some(Self {
            address,
            pid: pid.trim().parse().ok()?,
        })
    }

    pub fn log(&self) -> KafkaLog {
        KafkaLog::open(KafkaSettings::new(&self.address), &Metrics::none()).unwrap()
    }
}
