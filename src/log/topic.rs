//! What every engine checks before it takes a topic or an entry, and the faults they share.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::fault::{Fault, FaultKind};
use crate::log::port::{Bounds, Entry, MAX_ENTRY_BYTES, TopicSpec};

/// The longest name Kafka takes.
const MAX_NAME: usize = 249;

/// Kafka's rule for names, and at least one partition.
///
/// # Errors
/// `Config`, naming the topic and what is wrong with it.
pub fn check_spec(spec: &TopicSpec) -> Result<(), Fault> {
    let name = &spec.name;
    let refuse = |why: &str| {
        Fault::new(FaultKind::Config, format!("topic `{name}` {why}"))
            .remedy("choose another [log] prefix, connection id or object")
    };
    if name.is_empty() || name == "." || name == ".." {
        return Err(refuse("has no usable name"));
    }
    if name.len() > MAX_NAME {
        return Err(refuse("has a name of more than 249 characters"));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(bad) = name.chars().find(|c| !allowed(*c)) {
        return Err(refuse(&format!(
            "has {bad:?} in its name, where only A-Z, a-z, 0-9, `.`, `_` and `-` may stand"
        )));
    }
    if spec.partitions == 0 || spec.partitions > 100_000 {
        return Err(refuse(&format!(
            "can't have {} partitions",
            spec.partitions
        )));
    }
    Ok(())
}

/// Whether the topic there is, is the topic asked for.
///
/// # Errors
/// `Config`, naming both settings.
pub fn check_same(found: &TopicSpec, asked: &TopicSpec) -> Result<(), Fault> {
    if found == asked {
        return Ok(());
    }
    let why = if found.partitions == asked.partitions {
        format!("keeps {:?}, not {:?}", found.policy, asked.policy)
    } else {
        format!(
            "has {} partitions, not {}: keys would change their partition",
            found.partitions, asked.partitions
        )
    };
    Err(
        Fault::new(FaultKind::Config, format!("topic `{}` {why}", found.name))
            .remedy("set the topic back, or choose another [log] prefix and take a full sync"),
    )
}

/// The limit of one entry.
///
/// # Errors
/// `Record`, naming the key and the size.
pub fn check_entry(entry: &Entry) -> Result<(), Fault> {
    let size = entry.size();
    if size <= MAX_ENTRY_BYTES {
        return Ok(());
    }
    Err(Fault::new(
        FaultKind::Record,
        format!(
            "an entry for `{}` with key `{}` has {size} bytes, {MAX_ENTRY_BYTES} is the limit",
            entry.topic,
            key_text(&entry.key)
        ),
    ))
}

/// Whether a reader may stand at `offset`.
///
/// # Errors
/// `PositionLost`, naming the partition and its ends.
pub fn check_position(
    topic: &str,
    partition: u32,
    offset: u64,
    bounds: Bounds,
) -> Result<(), Fault> {
    let Bounds { start, end } = bounds;
    let why = if offset < start {
        "retention has removed what was there"
    } else if offset > end {
        "the topic was cut, restored or made again"
    } else {
        return Ok(());
    };
    Err(Fault::new(
        FaultKind::PositionLost,
        format!(
            "offset {offset} of partition {partition} of `{topic}` lies outside of {start} to {end}: {why}"
        ),
    ))
}

/// A topic that there is not.
#[must_use]
pub fn missing(topic: &str) -> Fault {
    Fault::new(FaultKind::Missing, format!("there is no topic `{topic}`"))
}

/// A partition that the topic has not.
#[must_use]
pub fn missing_partition(topic: &str, partition: u32, partitions: usize) -> Fault {
    Fault::new(
        FaultKind::Missing,
        format!("topic `{topic}` has {partitions} partitions and no number {partition}"),
    )
}

/// A log that was closed.
#[must_use]
pub fn closed() -> Fault {
    Fault::new(FaultKind::Stopping, "the log is closed")
}

/// Milliseconds since 1970 of the newest record that is `age` old at `now`.
#[must_use]
pub fn cutoff(now: DateTime<Utc>, age: Duration) -> i64 {
    TimeDelta::from_std(age)
        .ok()
        .and_then(|age| now.checked_sub_signed(age))
        .map_or(i64::MIN, |date| date.timestamp_millis())
}

/// The first millisecond that is not older than `at`.
#[must_use]
pub fn first_millisecond(at: DateTime<Utc>) -> i64 {
    let whole = at.timestamp_millis();
    if at.timestamp_subsec_nanos().is_multiple_of(1_000_000) {
        whole
    } else {
        whole.saturating_add(1)
    }
}

/// A key for a message: record ids are text; anything else is shortened to what is readable.
fn key_text(key: &[u8]) -> String {
    String::from_utf8_lossy(&key[..key.len().min(64)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::port::Policy;

    fn spec(name: &str) -> TopicSpec {
        TopicSpec {
            name: name.to_owned(),
            partitions: 8,
            policy: Policy::Delete {
                retention: Duration::from_secs(1),
            },
        }
    }

    #[test]
    fn names_are_kafkas() {
        for good in ["a", "tributary.acme.Account__c", &"x".repeat(249)] {
            check_spec(&spec(good)).unwrap();
        }
        for bad in ["", ".", "..", "a b", "a/b", "é", "a:b", &"x".repeat(250)] {
            let fault = check_spec(&spec(bad)).unwrap_err();
            assert_eq!(fault.kind(), FaultKind::Config, "{bad}");
        }
    }

    #[test]
    fn times_between_two_milliseconds_round_up() {
        let date = DateTime::from_timestamp_nanos(5_000_001);
        assert_eq!(first_millisecond(date), 6);
        assert_eq!(
            first_millisecond(DateTime::from_timestamp_nanos(5_000_000)),
            5
        );
    }
}
