//! `[log]`: where topics are kept, what they are called, how long deletes are remembered.

use std::path::Path;
use std::time::Duration;

use crate::config::document::{Node, Report};
use crate::config::id::check_id;
use crate::config::kafka::{KafkaConfig, properties};
use crate::config::problem::{Located, Problem};
use crate::config::reader::{Reader, shown};

const DAY: Duration = Duration::from_hours(24);

/// The section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `url`.
    pub engine: LogEngine,
    /// `prefix`: the first part of every topic's name.
    pub prefix: String,
    /// `forget_after`: when a deleted record's last value is replaced by a tombstone.
    pub forget_after: Duration,
}

/// Where topics are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEngine {
    /// `"embedded"`: a file under the data directory.
    Embedded,
    /// `"kafka://HOST:PORT,…"`, with `replication` and `[log.kafka]`.
    Kafka(KafkaConfig),
}

impl LogConfig {
    pub(super) fn parse(tree: &Node, root: &Path, report: &Report) -> Self {
        let mut reader = Reader::open_section(tree, "log", report);
        let url = reader.text("url");
        let brokers = url.as_ref().and_then(|url| brokers(url, report));
        let replication = reader.integer("replication", 1..=100);
        let kafka = reader.take("kafka");
        let is_embedded = url.is_none_or(|url| url.value == "embedded");
        let kafka = kafka.filter(|_| !is_embedded);
        let properties = kafka.map(|node| properties(node, root, report));
        if is_embedded {
            for key in ["replication", "kafka"] {
                reader.refuse(
                    key,
                    "has a meaning with a Kafka cluster only",
                    "remove it, or write url = \"kafka://HOST:9092\"",
                );
            }
        }
        let engine = brokers.map_or(LogEngine::Embedded, |brokers| {
            LogEngine::Kafka(KafkaConfig {
                brokers,
                replication: replication.and_then(|count| u16::try_from(count).ok()),
                properties: properties.unwrap_or_default(),
            })
        });
        let prefix = reader
            .text("prefix")
            .filter(|prefix| check_id(&prefix.value, "prefix", &prefix.spot, report));
        let forget_after = reader.duration("forget_after", DAY, DAY * 3650);
        reader.close();
        Self {
            engine,
            prefix: prefix.map_or_else(|| "tributary".to_owned(), |prefix| prefix.value),
            forget_after: forget_after.unwrap_or(DAY * 90),
        }
    }
}

/// The brokers of `kafka://HOST:PORT,HOST:PORT`; a host alone gets Kafka's own port.
fn brokers(url: &Located<String>, report: &Report) -> Option<String> {
    let text = url.value.as_str();
    if text == "embedded" {
        return None;
    }
    let mistaken = |what: &str| {
        let remedy = "write \"embedded\", or \"kafka://HOST:9092,HOST:9092\"";
        let problem = Problem::new(&url.spot, what, remedy);
        // What stands before an @ may be a password.
        report.add(if text.contains('@') {
            problem
        } else {
            problem.value(shown(text))
        });
        None
    };
    let Some(list) = text.strip_prefix("kafka://") else {
        return mistaken("no log that this version knows");
    };
    let mut brokers = Vec::new();
    for broker in list.split(',') {
        let broker = broker.trim();
        // An IPv6 address is written in brackets.
        let after_address = broker.rfind(']').map_or(broker, |end| &broker[end..]);
        let (host, port) = match after_address.rfind(':') {
            Some(_) => broker.rsplit_once(':').unwrap_or((broker, "")),
            None => (broker, "9092"),
        };
        let is_host = !host.is_empty()
            && host.chars().all(|c| {
                c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']' | ':')
            });
        if !is_host || port.parse::<u16>().is_err() {
            return mistaken("names no broker");
        }
        brokers.push(format!("{host}:{port}"));
    }
    Some(brokers.join(","))
}
