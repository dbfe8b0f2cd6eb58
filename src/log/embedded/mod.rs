//! The embedded log: topics in one SQLite file, for one process, with no broker.
//!
//! A folder holds `log.db` and `log.lock`. One thread writes, with several appends in one commit where they wait
//! together; readers have connections of their own. A commit is on the disk before `append` returns. The ends of all
//! partitions are kept in memory as of the last commit; a change of them wakes the readers.

mod headers;
mod house;
pub mod read_only;
mod rows;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::{Semaphore, watch};

use crate::fault::Fault;
use crate::log::embedded::rows::{Row, Stored};
use crate::log::group::Groups;
use crate::log::polling::{Limit, PollingReader, Source};
use crate::log::port::{Bounds, Entry, From, Log, Place, Reader, Record, TopicSpec, partition_of};
use crate::log::topic::{
    check_entry, check_same, check_spec, closed, first_millisecond, missing, missing_partition,
};
use crate::runtime::clock::Clock;
use crate::sqlite::database::Database;
use crate::sqlite::error::SqliteError;
use crate::sqlite::lock::FileLock;
use crate::sqlite::readers::Readers;
use crate::sqlite::writer::Writer;

/// Bytes of entries that wait for the writer before callers have to.
const QUEUED_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of a page. Changes have thousands of bytes each: in smaller pages most would lie in chains of pages of their
/// own, and a commit writes whole pages.
const PAGE_SIZE: u32 = 16 * 1024;

/// The log in one SQLite file.
pub struct EmbeddedLog {
    writer: Writer,
    readers: Readers,
    clock: Arc<dyn Clock>,
    topics: Arc<RwLock<BTreeMap<String, Arc<Topic>>>>,
    groups: Arc<Groups>,
    room: Arc<Semaphore>,
    closed: Arc<AtomicBool>,
}

/// How the embedded log is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Connections that read at the same time.
    pub readers: usize,
    /// The file grows to no more than this many bytes; an append beyond fails as on a full disk.
    pub max_bytes: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            readers: 4,
            max_bytes: None,
        }
    }
}

/// A topic, its place in the file, and its ends as of the last commit.
struct Topic {
    name: Arc<str>,
    stored: Stored,
    bounds: watch::Sender<Vec<Bounds>>,
}

impl EmbeddedLog {
    /// Opens the log in `folder`, making it where it is missing.
    ///
    /// # Errors
    /// `Config` if another process has it or a later build wrote it; `Storage`, `Corrupt`.
    pub async fn open(
        folder: &Path,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> Result<Self, Fault> {
        let database = Database::new(folder.join("log.db"), rows::STEPS).page_size(PAGE_SIZE);
        let lock_file = folder.join("log.lock");
        let opening = database.clone();
        let opened = tokio::task::spawn_blocking(move || -> Result<_, Fault> {
            let lock = FileLock::take(&lock_file)?;
            let mut connection = opening.open_writer()?;
            let stored = rows::set_up(&mut connection, settings.max_bytes)
                .map_err(|cause| SqliteError::engine("reading", opening.path(), cause))?;
            let writer = Writer::start(opening.path().to_owned(), connection, Some(lock))?;
            Ok((writer, stored))
        });
        let (writer, stored) = opened.await.map_err(|error| SqliteError::Panicked {
            file: database.path().to_owned(),
            message: error.to_string(),
        })??;
        let topics = stored.into_iter().map(|(stored, bounds)| {
            let topic = Topic::new(stored, bounds);
            (topic.stored.spec.name.clone(), Arc::new(topic))
        });
        Ok(Self {
            writer,
            readers: Readers::new(database, settings.readers.max(1)),
            clock,
            topics: Arc::new(RwLock::new(topics.collect())),
            groups: Arc::default(),
            room: Arc::new(Semaphore::new(QUEUED_BYTES)),
            closed: Arc::default(),
        })
    }

    fn topic(&self, name: &str) -> Result<Arc<Topic>, Fault> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        self.find(name).ok_or_else(|| missing(name))
    }

    fn find(&self, name: &str) -> Option<Arc<Topic>> {
        read(&self.topics).get(name).cloned()
    }

    fn all_topics(&self) -> Vec<Arc<Topic>> {
        read(&self.topics).values().cloned().collect()
    }
}

#[async_trait]
impl Log for EmbeddedLog {
    async fn ensure(&self, spec: &TopicSpec) -> Result<String, Fault> {
        check_spec(spec)?;
        if self.find(&spec.name).is_none() {
            let (asked, topics) = (spec.clone(), Arc::clone(&self.topics));
            let make = move |tx: &rusqlite::Transaction<'_>| Ok(rows::make_topic(tx, asked)?);
            // Entered by the writer's thread: a topic that is in the file is also here, whoever asked for it.
            let enter = move |made: &Option<Stored>| {
                if let Some(stored) = made {
                    let bounds = vec![Bounds { start: 0, end: 0 }; stored.partitions.len()];
                    let topic = Arc::new(Topic::new(stored.clone(), bounds));
                    topics
                        .write()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(stored.spec.name.clone(), topic);
                }
            };
            self.writer.grouped_then(make, enter).await?;
        }
        let topic = self.topic(&spec.name)?;
        check_same(&topic.stored.spec, spec)?;
        Ok(topic.stored.generation.clone())
    }

    async fn append(&self, entries: Vec<Entry>) -> Result<Vec<Place>, Fault> {
        let mut bytes = 0_usize;
        let mut touched: Vec<Arc<Topic>> = Vec::new();
        let mut prepared = Vec::with_capacity(entries.len());
        for entry in entries {
            check_entry(&entry)?;
            bytes = bytes.saturating_add(entry.size());
            let known = touched.iter().position(|topic| topic.name == entry.topic);
            let index = match known {
                Some(index) => index,
                None => {
                    touched.push(self.topic(&entry.topic)?);
                    touched.len() - 1
                }
            };
            let stored = &touched[index].stored;
            let partition = partition_of(&entry.key, stored.spec.partitions);
            prepared.push(Row {
                topic: index,
                partition,
                partition_id: stored.partitions[partition as usize],
                headers: headers::encode(&entry.headers),
                key: entry.key,
                value: entry.value,
            });
        }
        let bytes = u32::try_from(bytes.min(QUEUED_BYTES)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room)
            .acquire_many_owned(bytes)
            .await
            .map_err(|_| closed())?;
        let clock = Arc::clone(&self.clock);
        let insert = move |tx: &rusqlite::Transaction<'_>| {
            let appended = rows::append(tx, &prepared, clock.now().timestamp_millis())?;
            drop(room);
            Ok(appended)
        };
        let wake = move |appended: &rows::Appended| {
            for (index, topic) in touched.iter().enumerate() {
                topic.bounds.send_modify(|bounds| {
                    for end in appended.ends.iter().filter(|end| end.topic == index) {
                        bounds[end.partition as usize].end = end.next;
                    }
                });
            }
        };
        Ok(self.writer.grouped_then(insert, wake).await?.places)
    }

    async fn bounds(&self, topic: &str) -> Result<BTreeMap<u32, Bounds>, Fault> {
        let topic = self.topic(topic)?;
        let bounds = (0..).zip(topic.bounds.borrow().iter().copied()).collect();
        Ok(bounds)
    }

    async fn at_time(&self, topic: &str, at: DateTime<Utc>) -> Result<BTreeMap<u32, u64>, Fault> {
        offsets_at(&self.readers, self.topic(topic)?, at).await
    }

    async fn reader(&self, topic: &str, from: From) -> Result<Box<dyn Reader>, Fault> {
        let source = Arc::new(Open {
            topic: self.topic(topic)?,
            readers: self.readers.clone(),
            closed: Arc::clone(&self.closed),
        });
        Ok(Box::new(PollingReader::open(source, &self.groups, from)?))
    }

    async fn topics(&self) -> Result<Vec<TopicSpec>, Fault> {
        let topics = self.all_topics();
        Ok(topics
            .iter()
            .map(|topic| topic.stored.spec.clone())
            .collect())
    }

    async fn close(&self) -> Result<(), Fault> {
        self.closed.store(true, Ordering::Release);
        for topic in self.all_topics() {
            topic.bounds.send_modify(|_| ());
        }
        self.readers.close();
        self.writer.close().await
    }
}

async fn offsets_at(
    readers: &Readers,
    topic: Arc<Topic>,
    at: DateTime<Utc>,
) -> Result<BTreeMap<u32, u64>, Fault> {
    let first = first_millisecond(at);
    readers
        .read(move |tx| {
            let mut offsets = BTreeMap::new();
            for (partition, id) in (0..).zip(&topic.stored.partitions) {
                offsets.insert(partition, rows::first_at(tx, *id, first)?);
            }
            Ok(offsets)
        })
        .await
}

/// A topic of a log that may be closed.
struct Open {
    topic: Arc<Topic>,
    readers: Readers,
    closed: Arc<AtomicBool>,
}

#[async_trait]
impl Source for Open {
    fn name(&self) -> &Arc<str> {
        &self.topic.name
    }

    fn bounds(&self) -> watch::Receiver<Vec<Bounds>> {
        self.topic.bounds.subscribe()
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    async fn fetch(&self, partition: u32, offset: u64, limit: Limit) -> Result<Vec<Record>, Fault> {
        let topic = Arc::clone(&self.topic);
        let ids = &topic.stored.partitions;
        let id = *ids
            .get(partition as usize)
            .ok_or_else(|| missing_partition(&topic.name, partition, ids.len()))?;
        self.readers
            .read(move |tx| rows::fetch(tx, &topic.name, (partition, id), offset, limit))
            .await
    }
}

impl Topic {
    fn new(stored: Stored, bounds: Vec<Bounds>) -> Self {
        Self {
            name: Arc::from(stored.spec.name.as_str()),
            stored,
            bounds: watch::Sender::new(bounds),
        }
    }
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    // The map is only ever inserted into.
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedLog")
            .field("file", &self.writer.path())
            .finish_non_exhaustive()
    }
}
