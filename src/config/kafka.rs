//! `[log.kafka]`: librdkafka properties, and those that no config may change.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::config::document::{Node, Report, Shape};
use crate::config::problem::Problem;
use crate::config::reader::shown;
use crate::config::secret::SecretRef;
use crate::fault::Fault;

/// A Kafka cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// `host:port`, several with commas between them.
    pub brokers: String,
    /// `replication`: replicas of each topic that is made; the brokers' default if not given.
    pub replication: Option<u16>,
    /// librdkafka properties by name.
    pub properties: BTreeMap<String, KafkaProperty>,
}

/// A property's value.
#[derive(Clone, PartialEq, Eq)]
pub enum KafkaProperty {
    /// As written.
    Text(String),
    /// Kept elsewhere.
    Secret(SecretRef),
}

impl KafkaProperty {
    /// The value; a secret is read anew.
    ///
    /// # Errors
    /// As [`SecretRef::read`].
    pub fn read(&self) -> Result<String, Fault> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::Secret(secret) => Ok(secret.read()?.expose().to_owned()),
        }
    }
}

impl fmt::Debug for KafkaProperty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A user name, perhaps, but nobody knows what the next version's properties hold.
            Self::Text(_) => f.write_str("Text(…)"),
            Self::Secret(place) => place.fmt(f),
        }
    }
}

/// A property that the log sets itself (librdkafka, CONFIGURATION.md).
#[derive(Debug, Clone, Copy)]
pub struct Fixed {
    /// Its name.
    pub name: &'static str,
    /// The value it has; `None`: it must not be set.
    pub value: Option<&'static str>,
    /// What another value does.
    pub why: &'static str,
}

const fn fixed(name: &'static str, value: &'static str, why: &'static str) -> Fixed {
    Fixed {
        name,
        value: Some(value),
        why,
    }
}

const fn never(name: &'static str, why: &'static str) -> Fixed {
    Fixed {
        name,
        value: None,
        why,
    }
}

const ONCE: &str = "any other value loses records or stores them twice or out of order";
const COUNTED: &str = "offsets lie in the target's ledger and nowhere else";
const OWN: &str = "the log gives it its value";
const FITS: &str = "entries of 16 MiB must fit";

/// What no config may change. [`Fixed::value`] is set on every client.
pub const FIXED: &[Fixed] = &[
    fixed(
        "auto.offset.reset",
        "error",
        "any other value skips records silently",
    ),
    fixed("enable.auto.commit", "false", COUNTED),
    fixed("enable.auto.offset.store", "false", COUNTED),
    fixed(
        "allow.auto.create.topics",
        "false",
        "a deleted topic would be made again with settings that lose records",
    ),
    fixed(
        "partitioner",
        "murmur2_random",
        "keys must lie where every Kafka client looks for them",
    ),
    fixed("enable.idempotence", "true", ONCE),
    fixed("acks", "all", ONCE),
    fixed(
        "message.timeout.ms",
        "0",
        "a record that times out is overtaken by later ones of its key",
    ),
    fixed("queuing.strategy", "fifo", ONCE),
    fixed("enable.partition.eof", "false", OWN),
    fixed("isolation.level", "read_committed", ONCE),
    fixed(
        "partition.assignment.strategy",
        "cooperative-sticky",
        "partitions would be taken from a job in the middle of a batch",
    ),
    fixed(
        "group.protocol",
        "classic",
        "this version speaks the classic protocol",
    ),
    never("auto.commit.enable", COUNTED),
    never("request.required.acks", ONCE),
    never("delivery.timeout.ms", ONCE),
    never("transactional.id", ONCE),
    never(
        "group.instance.id",
        "the daemon's readers would throw each other out",
    ),
    never("group.id", OWN),
    never("group.remote.assignor", OWN),
    never("bootstrap.servers", "`url` names the brokers"),
    never("metadata.broker.list", "`url` names the brokers"),
    never("message.max.bytes", FITS),
    never("receive.message.max.bytes", FITS),
    never("message.copy.max.bytes", OWN),
];

/// Values that are secrets whatever they are.
const SECRETS: &[&str] = &[
    "sasl.password",
    "sasl.oauthbearer.client.secret",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
];

/// The properties of a table; `sasl.mechanism = …` and `"sasl.mechanism" = …` are the same.
pub(super) fn properties(
    node: &Node,
    root: &Path,
    report: &Report,
) -> BTreeMap<String, KafkaProperty> {
    let mut found = BTreeMap::new();
    if let Some(table) = node.table() {
        for (name, node) in &table.0 {
            gather(name.clone(), node, root, report, &mut found);
        }
    } else if !matches!(node.shape, Shape::Unreadable) {
        report.wrong(
            &node.spot,
            "no table of librdkafka properties",
            "write [log.kafka] and a property a line",
        );
    }
    found
}

fn gather(
    name: String,
    node: &Node,
    root: &Path,
    report: &Report,
    found: &mut BTreeMap<String, KafkaProperty>,
) {
    if let Shape::Table(table) = &node.shape {
        let is_secret = ["env", "file"].iter().any(|key| table.get(key).is_some())
            || SECRETS.contains(&name.as_str());
        if !is_secret {
            for (part, node) in &table.0 {
                gather(format!("{name}.{part}"), node, root, report, found);
            }
            return;
        }
        if let Some(secret) = SecretRef::parse(node, root, report)
            && may_be_set(&name, None, node, report)
        {
            found.insert(name, KafkaProperty::Secret(secret));
        }
        return;
    }
    let text = match &node.shape {
        Shape::Text(text) | Shape::Given(text) | Shape::Float(text) => text.clone(),
        Shape::Integer(number) => number.to_string(),
        Shape::Boolean(truth) => truth.to_string(),
        Shape::Unreadable => return,
        _ => {
            report.wrong(
                &node.spot,
                "no value of a librdkafka property",
                "write a text, a number, true or false",
            );
            return;
        }
    };
    if SECRETS.contains(&name.as_str()) {
        report.wrong(
            &node.spot,
            "a secret may not stand in the config",
            "name its place: { env = \"NAME\" } or { file = \"/run/secrets/name\" }",
        );
    } else if may_be_set(&name, Some(&text), node, report) {
        found.insert(name, KafkaProperty::Text(text));
    }
}

fn may_be_set(name: &str, value: Option<&str>, node: &Node, report: &Report) -> bool {
    let Some(fixed) = FIXED.iter().find(|fixed| fixed.name == name) else {
        return true;
    };
    if fixed.value.is_some() && fixed.value == value {
        return true;
    }
    let problem = Problem::new(
        &node.spot,
        format!("can't be set: {}", fixed.why),
        "remove it",
    );
    report.add(match value {
        Some(value) => problem.value(shown(value)),
        None => problem,
    });
    false
}
