//! Looks from time to time whether topics that are read are still the same, and whether the brokers are back.
//!
//! librdkafka follows a topic by its name: after a deletion it reads on in whatever bears the name then, as long as
//! there is a record at the offset.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::fault::FaultKind;
use crate::log::kafka::asker::Asker;
use crate::log::kafka::contact::Contact;
use crate::log::kafka::hand_over::HandOver;
use crate::log::kafka::reader::made_again;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(10);
/// Between two looks while no broker answers.
const EVERY_WHILE_AWAY: Duration = Duration::from_secs(1);

/// The topics that are being read.
#[derive(Default)]
pub(super) struct Watch {
    readers: Mutex<Vec<Read>>,
}

struct Read {
    topic: String,
    generation: String,
    reader: Weak<HandOver>,
}

impl Watch {
    /// Tells the reader when `topic` has another id than `generation`.
    pub(super) fn add(&self, topic: &str, generation: &str, reader: &Arc<HandOver>) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|read| read.reader.strong_count() > 0);
        readers.push(Read {
            topic: topic.to_owned(),
            generation: generation.to_owned(),
            reader: Arc::downgrade(reader),
        });
    }

    /// The topics and their readers as of now.
    fn reading(&self) -> BTreeMap<String, Vec<(String, Arc<HandOver>)>> {
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut topics: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for read in readers.iter() {
            if let Some(reader) = read.reader.upgrade() {
                let found = topics.entry(read.topic.clone()).or_default();
                found.push((read.generation.clone(), reader));
            }
        }
        topics
    }

    /// Looks until the log is closed.
    pub(super) async fn run(
        self: Arc<Self>,
        asker: Arc<Asker>,
        contact: Arc<Contact>,
        closed: CancellationToken,
    ) {
        loop {
            let every = if contact.is_away() {
                EVERY_WHILE_AWAY
            } else {
                EVERY
            };
            tokio::select! {
                () = closed.cancelled() => return,
                () = tokio::time::sleep(every) => {}
                // Once told, the shorter time counts.
                () = contact.away.notified() => continue,
            }
            for (topic, readers) in self.reading() {
                self.look(&asker, &topic, readers).await;
            }
            if contact.is_away() {
                // Any answer will do; the asker takes note of it.
                asker.topics().await.ok();
            }
        }
    }

    async fn look(&self, asker: &Asker, topic: &str, readers: Vec<(String, Arc<HandOver>)>) {
        let found = match asker.topic_id(topic).await {
            Ok(found) => found,
            Err(fault) if fault.kind() == FaultKind::Missing => None,
            Err(fault) => {
                tracing::debug!(topic, error = fault.report(), "looking after a topic");
                return;
            }
        };
        for (generation, reader) in readers {
            if found.as_ref() != Some(&generation) {
                reader.make_again(made_again(topic));
            }
        }
    }
}
