//! Dead letters: the original bytes, the reason, and where they came from, in a topic of their own.

use std::sync::Arc;

use bytes::Bytes;

use crate::fault::Fault;
use crate::log::port::{Entry, MAX_ENTRY_BYTES, Record};
use crate::target::port::Expired;
use crate::telemetry::metrics;

use super::JobRoad;

/// Reasons are cut after this many characters.
const MAX_REASON: usize = 4000;

/// A record set aside.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub key: Bytes,
    pub value: Option<Bytes>,
    pub reason: String,
    /// The destination that refused it; `None` if it did not get that far.
    pub destination: Option<String>,
    pub partition: u32,
    pub offset: u64,
}

impl Letter {
    pub(super) fn of(record: &Record, reason: impl Into<String>) -> Self {
        Self {
            key: record.key.clone(),
            value: record.value.clone(),
            reason: reason.into(),
            destination: None,
            partition: record.partition,
            offset: record.offset,
        }
    }
}

/// Writes letters and waits until they are durable: the commit that passes the records comes after.
pub(super) async fn write(road: &JobRoad, run: &str, letters: &[Letter]) -> Result<(), Fault> {
    if letters.is_empty() {
        return Ok(());
    }
    let plan = road.mapping.plan();
    let topic: Arc<str> = format!("{}.dead", road.topic).into();
    let entries = letters
        .iter()
        .map(|letter| entry(road, &topic, run, letter))
        .collect();
    road.log.append(entries).await?;
    road.metrics
        .counter(metrics::DEAD_LETTERS, &road.labels())
        .increment(letters.len() as u64);
    road.board.job(&plan.connection, &plan.job, |entry| {
        entry.dead_letters += letters.len() as u64
    });
    for letter in letters {
        tracing::warn!(
            connection = %plan.connection, job = %plan.job, partition = letter.partition,
            offset = letter.offset, reason = letter.reason, "record set aside"
        );
    }
    Ok(())
}

/// A letter as a log entry. A value that would make it too large stays behind: the topic still has it.
fn entry(road: &JobRoad, topic: &Arc<str>, run: &str, letter: &Letter) -> Entry {
    let job = &road.mapping.plan().job;
    let reason: String = letter.reason.chars().take(MAX_REASON).collect();
    let mut entry = Entry {
        topic: Arc::clone(topic),
        key: letter.key.clone(),
        value: letter.value.clone(),
        headers: vec![
            ("tributary_reason".to_owned(), reason.into_bytes()),
            ("tributary_job".to_owned(), job.as_str().as_bytes().to_vec()),
            ("tributary_run".to_owned(), run.as_bytes().to_vec()),
            ("tributary_topic".to_owned(), road.topic.as_bytes().to_vec()),
            (
                "tributary_partition".to_owned(),
                letter.partition.to_string().into_bytes(),
            ),
            (
                "tributary_offset".to_owned(),
                letter.offset.to_string().into_bytes(),
            ),
        ],
    };
    if let Some(destination) = &letter.destination {
        let label = destination.as_bytes().to_vec();
        entry
            .headers
            .push(("tributary_destination".to_owned(), label));
    }
    if entry.size() > MAX_ENTRY_BYTES
        && let Some(value) = entry.value.take()
    {
        let bytes = value.len().to_string().into_bytes();
        entry
            .headers
            .push(("tributary_left_out_bytes".to_owned(), bytes));
    }
    entry
}

/// Letters of what was parked too long.
pub(super) fn of_expired(road: &JobRoad, expired: &[Expired]) -> Vec<Letter> {
    expired
        .iter()
        .map(|expired| Letter {
            key: Bytes::copy_from_slice(expired.key.record.as_str().as_bytes()),
            value: expired.image.clone(),
            reason: format!(
                "waited {} for {}, which did not come",
                spell(road.parked_ttl),
                expired.waited_for
            ),
            destination: None,
            partition: expired.key.place.0,
            offset: expired.key.place.1,
        })
        .collect()
}

fn spell(time: chrono::TimeDelta) -> String {
    let (days, hours, minutes) = (time.num_days(), time.num_hours(), time.num_minutes());
    if days > 0 {
        format!("{days} d")
    } else if hours > 0 {
        format!("{hours} h")
    } else {
        format!("{minutes} min")
    }
}
