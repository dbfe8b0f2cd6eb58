//! Questions to the brokers: partitions, ends, offsets of dates, ids of topics; each asked off the runtime.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::metadata::Metadata;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::fault::{Fault, FaultKind};
use crate::log::kafka::contact::{Contact, Listening};
use crate::log::kafka::fault::{has_no_leader, is_contact_lost, of_code, refused};
use crate::log::kafka::settings::KafkaSettings;
use crate::log::kafka::topic_id;
use crate::log::port::Bounds;
use crate::log::topic::{closed, missing};

/// How long the brokers may take to answer.
pub(super) const WAIT: Duration = Duration::from_secs(15);

/// Between two questions to a partition that has no leader; this is no thread of the runtime's.
const AGAIN: Duration = Duration::from_millis(100);

type Client = BaseConsumer<Listening>;

/// One client for all questions. It is in no group and reads nothing.
pub(super) struct Asker {
    /// Gone once the log is closed.
    client: Mutex<Option<Arc<Client>>>,
    contact: Arc<Contact>,
}

impl Asker {
    pub(super) fn new(settings: &KafkaSettings, contact: &Arc<Contact>) -> Result<Self, Fault> {
        let client = settings
            .asker()
            .create_with_context(Listening(Arc::clone(contact)))
            .map_err(|error| refused("setting up `[log.kafka]`", error))?;
        Ok(Self {
            client: Mutex::new(Some(Arc::new(client))),
            contact: Arc::clone(contact),
        })
    }

    /// The partitions of a topic. `Missing` if there is no such topic.
    pub(super) async fn partitions(&self, topic: &str) -> Result<Vec<u32>, Fault> {
        let topic = topic.to_owned();
        let doing = format!("asking for the partitions of `{topic}`");
        self.ask(doing, move |client, doing| {
            let ids = partitions(client, doing, &topic)?;
            Ok(ids.into_iter().map(number).collect())
        })
        .await
    }

    /// The ends of every partition.
    pub(super) async fn bounds(&self, topic: &str) -> Result<BTreeMap<u32, Bounds>, Fault> {
        let topic = topic.to_owned();
        let doing = format!("asking for the ends of `{topic}`");
        self.ask(doing, move |client, doing| {
            let ids = partitions(client, doing, &topic)?;
            // The start first: what retention removes in between makes it too low and never too high.
            let starts = offsets(client, doing, &topic, &ids, Offset::Beginning)?;
            let ends = offsets(client, doing, &topic, &ids, Offset::End)?;
            let pairs = starts.into_iter().zip(ends);
            Ok(pairs
                .map(|((partition, start), (_, end))| (partition, bounds(start, end)))
                .collect())
        })
        .await
    }

    /// The ends of one partition, and the id of its topic.
    pub(super) async fn ends(
        &self,
        topic: &str,
        partition: u32,
    ) -> Result<(Bounds, String), Fault> {
        let topic = topic.to_owned();
        let doing = format!("asking for the ends of partition {partition} of `{topic}`");
        self.ask(doing, move |client, doing| {
            let id = id(client, doing, &topic)?.ok_or_else(|| missing(&topic))?;
            let ends = || client.fetch_watermarks(&topic, native(partition), WAIT);
            let (start, end) = patiently(ends).map_err(|error| refused(doing, error))?;
            Ok((bounds(start, end), id))
        })
        .await
    }

    /// Per partition the first offset whose record is not older than `millis` since 1970; the end if none is.
    pub(super) async fn at_time(
        &self,
        topic: &str,
        millis: i64,
    ) -> Result<BTreeMap<u32, u64>, Fault> {
        let topic = topic.to_owned();
        let doing = format!("asking for offsets of `{topic}` at a date");
        self.ask(doing, move |client, doing| {
            let ids = partitions(client, doing, &topic)?;
            // The ends first: a record that comes in between is found, and its offset is no gap.
            let ends = offsets(client, doing, &topic, &ids, Offset::End)?;
            // Negative dates mean something else to a broker.
            let at = Offset::Offset(millis.max(0));
            let found = offsets(client, doing, &topic, &ids, at)?;
            let found = found
                .into_iter()
                .zip(ends)
                .map(|((partition, at), (_, end))| {
                    let offset = if at < 0 { end } else { at };
                    (partition, u64::try_from(offset).unwrap_or(0))
                });
            Ok(found.collect())
        })
        .await
    }

    /// The id of a topic; `None` if there is no such topic.
    pub(super) async fn topic_id(&self, topic: &str) -> Result<Option<String>, Fault> {
        let topic = topic.to_owned();
        let doing = format!("asking for the id of `{topic}`");
        self.ask(doing, move |client, doing| id(client, doing, &topic))
            .await
    }

    /// Names and partition counts of all topics.
    pub(super) async fn topics(&self) -> Result<BTreeMap<String, u32>, Fault> {
        self.ask("listing topics".to_owned(), |client, doing| {
            let metadata = client
                .fetch_metadata(None, WAIT)
                .map_err(|error| refused(doing, error))?;
            let topics = metadata.topics().iter();
            Ok(topics
                .map(|topic| {
                    let partitions = u32::try_from(topic.partitions().len());
                    (topic.name().to_owned(), partitions.unwrap_or(u32::MAX))
                })
                .collect())
        })
        .await
    }

    /// Ends the client, off the runtime: its threads are joined.
    pub(super) fn close(&self) -> Option<Arc<impl Send + Sync + use<>>> {
        self.client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    async fn ask<T: Send + 'static>(
        &self,
        doing: String,
        question: impl FnOnce(&Client, &str) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let client = self.client.lock();
        let client = client.unwrap_or_else(PoisonError::into_inner).clone();
        let client = client.ok_or_else(closed)?;
        let contact = Arc::clone(&self.contact);
        let asked = tokio::task::spawn_blocking(move || {
            let answer = question(&client, &doing);
            // Takes down what librdkafka said meanwhile; there are no records.
            while client.poll(Duration::ZERO).is_some() {}
            match &answer {
                Err(fault) if is_contact_lost(fault) => contact.unreachable(fault.report()),
                // A refusal is an answer, too.
                _ => contact.answered(),
            }
            answer
        });
        asked
            .await
            .map_err(|error| Fault::new(FaultKind::Stopping, "asking the brokers").source(error))?
    }
}

/// A topic's metadata; `None` if there is no such topic.
fn metadata(client: &Client, doing: &str, topic: &str) -> Result<Option<Metadata>, Fault> {
    let metadata = client
        .fetch_metadata(Some(topic), WAIT)
        .map_err(|error| refused(doing, error))?;
    let found = metadata.topics().iter().find(|one| one.name() == topic);
    let Some(found) = found else { return Ok(None) };
    match found.error().map(Code::from) {
        None if found.partitions().is_empty() => Ok(None),
        None => Ok(Some(metadata)),
        Some(Code::UnknownTopic | Code::UnknownTopicOrPartition) => Ok(None),
        Some(code) => Err(of_code(doing, code)),
    }
}

fn partitions(client: &Client, doing: &str, topic: &str) -> Result<Vec<i32>, Fault> {
    let metadata = metadata(client, doing, topic)?.ok_or_else(|| missing(topic))?;
    let topics = metadata.topics().iter();
    let mut ids: Vec<i32> = topics
        .filter(|one| one.name() == topic)
        .flat_map(|one| one.partitions().iter().map(|partition| partition.id()))
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

fn id(client: &Client, doing: &str, topic: &str) -> Result<Option<String>, Fault> {
    let Some(metadata) = metadata(client, doing, topic)? else {
        return Ok(None);
    };
    // The one that answered, unless it was met by its address only.
    let answered = Some(metadata.orig_broker_id()).filter(|id| *id >= 0);
    let first = || metadata.brokers().first().map(|broker| broker.id());
    let Some(broker) = answered.or_else(first) else {
        return Err(Fault::new(FaultKind::Unavailable, doing.to_owned()));
    };
    topic_id::topic_id(client.client(), broker, topic, WAIT)
}

/// Asks again while a partition has no leader, as just after it was made or while one follows another.
fn patiently<T>(question: impl Fn() -> KafkaResult<T>) -> KafkaResult<T> {
    let until = Instant::now() + WAIT;
    loop {
        match question() {
            Err(error) if error.rdkafka_error_code().is_some_and(has_no_leader) => {
                if Instant::now() >= until {
                    return Err(error);
                }
                std::thread::sleep(AGAIN);
            }
            answer => return answer,
        }
    }
}

/// One question for all partitions; `Beginning` and `End` are dates of their own in the protocol (ListOffsets).
fn offsets(
    client: &Client,
    doing: &str,
    topic: &str,
    partitions: &[i32],
    at: Offset,
) -> Result<BTreeMap<u32, i64>, Fault> {
    let found = patiently(|| {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition_offset(topic, *partition, at)?;
        }
        let found = client.offsets_for_times(list, WAIT)?;
        for element in found.elements() {
            element.error()?;
        }
        Ok(found)
    });
    let found = found.map_err(|error| refused(doing, error))?;
    let mut offsets = BTreeMap::new();
    for element in found.elements() {
        let offset = match element.offset() {
            Offset::Offset(offset) => offset,
            _ => -1,
        };
        offsets.insert(number(element.partition()), offset);
    }
    Ok(offsets)
}

fn bounds(start: i64, end: i64) -> Bounds {
    let end = u64::try_from(end).unwrap_or(0);
    Bounds {
        start: u64::try_from(start).unwrap_or(0).min(end),
        end,
    }
}

/// A partition as librdkafka numbers it.
pub(super) fn native(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

/// A partition as the port numbers it.
pub(super) fn number(partition: i32) -> u32 {
    u32::try_from(partition).unwrap_or(u32::MAX)
}
