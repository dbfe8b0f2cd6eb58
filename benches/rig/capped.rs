//! A log whose batches hold no more records than it is told: what a job gets of a topic that is quiet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tributary::fault::Fault;
use tributary::log::port::{Bounds, Delivery, Entry, From, Log, Place, Reader, TopicSpec};

/// A log and the most records that one of its batches holds.
pub struct CappedLog {
    pub inner: Arc<dyn Log>,
    pub most: usize,
}

struct CappedReader {
    inner: Box<dyn Reader>,
    most: usize,
}

#[async_trait]
impl Log for CappedLog {
    async fn ensure(&self, topic: &TopicSpec) -> Result<String, Fault> {
        self.inner.ensure(topic).await
    }

    async fn append(&self, entries: Vec<Entry>) -> Result<Vec<Place>, Fault> {
        self.inner.append(entries).await
    }

    async fn bounds(&self, topic: &str) -> Result<BTreeMap<u32, Bounds>, Fault> {
        self.inner.bounds(topic).await
    }

    async fn at_time(&self, topic: &str, at: DateTime<Utc>) -> Result<BTreeMap<u32, u64>, Fault> {
        self.inner.at_time(topic, at).await
    }

    async fn reader(&self, topic: &str, from: From) -> Result<Box<dyn Reader>, Fault> {
        Ok(Box::new(CappedReader {
            inner: self.inner.reader(topic, from).await?,
            most: self.most,
        }))
    }

    async fn topics(&self) -> Result<Vec<TopicSpec>, Fault> {
        self.inner.topics().await
    }

    async fn close(&self) -> Result<(), Fault> {
        self.inner.close().await
    }
}

#[async_trait]
impl Reader for CappedReader {
    async fn next(
        &mut self,
        max_records: usize,
        max_bytes: usize,
        wait: Duration,
    ) -> Result<Delivery, Fault> {
        let records = max_records.min(self.most);
        self.inner.next(records, max_bytes, wait).await
    }

    async fn start(&mut self, partition: u32, offset: u64) -> Result<(), Fault> {
        self.inner.start(partition, offset).await
    }

    async fn release(&mut self, partition: u32) -> Result<(), Fault> {
        self.inner.release(partition).await
    }
}
