//! The embedded log's file, opened for reading beside the daemon that writes it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::fault::{Fault, FaultKind};
use crate::log::embedded::{Open, Topic, offsets_at, rows};
use crate::log::group::Groups;
use crate::log::polling::PollingReader;
use crate::log::port::{Bounds, Entry, From, Log, Place, Reader, TopicSpec};
use crate::log::topic::{closed, missing};
use crate::sqlite::database::Database;
use crate::sqlite::error::SqliteError;
use crate::sqlite::readers::Readers;

/// The log as of when it was opened: its topics and their ends stand still; everything that would write is refused.
pub struct ReadOnlyLog {
    readers: Readers,
    topics: BTreeMap<String, Arc<Topic>>,
    groups: Arc<Groups>,
    closed: Arc<AtomicBool>,
}

impl ReadOnlyLog {
    /// Opens the log of `folder` without taking its lock.
    ///
    /// # Errors
    /// `Storage` if there is no log, `Corrupt`.
    pub async fn open(folder: &Path) -> Result<Self, Fault> {
        let database = Database::new(folder.join("log.db"), rows::STEPS);
        let opening = database.clone();
        let opened = tokio::task::spawn_blocking(move || -> Result<_, Fault> {
            let mut connection = opening.open_reader()?;
            let stored = rows::set_up(&mut connection, None)
                .map_err(|cause| SqliteError::engine("reading", opening.path(), cause))?;
            Ok(stored)
        });
        let stored = opened.await.map_err(|error| SqliteError::Panicked {
            file: database.path().to_owned(),
            message: error.to_string(),
        })??;
        let topics = stored.into_iter().map(|(stored, bounds)| {
            let topic = Topic::new(stored, bounds);
            (topic.stored.spec.name.clone(), Arc::new(topic))
        });
        Ok(Self {
            readers: Readers::new(database, 1),
            topics: topics.collect(),
            groups: Arc::default(),
            closed: Arc::default(),
        })
    }

    fn topic(&self, name: &str) -> Result<&Arc<Topic>, Fault> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        self.topics.get(name).ok_or_else(|| missing(name))
    }
}

fn read_only() -> Fault {
    Fault::new(FaultKind::Config, "the log is open for reading only")
        .remedy("stop the daemon first: one process writes the log")
}

#[async_trait]
impl Log for ReadOnlyLog {
    async fn ensure(&self, _: &TopicSpec) -> Result<String, Fault> {
        Err(read_only())
    }

    async fn append(&self, _: Vec<Entry>) -> Result<Vec<Place>, Fault> {
        Err(read_only())
    }

    async fn bounds(&self, topic: &str) -> Result<BTreeMap<u32, Bounds>, Fault> {
        let bounds = self.topic(topic)?.bounds.borrow().clone();
        Ok((0..).zip(bounds).collect())
    }

    async fn at_time(&self, topic: &str, at: DateTime<Utc>) -> Result<BTreeMap<u32, u64>, Fault> {
        offsets_at(&self.readers, Arc::clone(self.topic(topic)?), at).await
    }

    async fn reader(&self, topic: &str, from: From) -> Result<Box<dyn Reader>, Fault> {
        let source = Arc::new(Open {
            topic: Arc::clone(self.topic(topic)?),
            readers: self.readers.clone(),
            closed: Arc::clone(&self.closed),
        });
        Ok(Box::new(PollingReader::open(source, &self.groups, from)?))
    }

    async fn topics(&self) -> Result<Vec<TopicSpec>, Fault> {
        Ok(self
            .topics
            .values()
            .map(|topic| topic.stored.spec.clone())
            .collect())
    }

    async fn close(&self) -> Result<(), Fault> {
        self.closed.store(true, Ordering::Release);
        self.readers.close();
        Ok(())
    }
}
