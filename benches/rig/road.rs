//! The daemon's road from a topic to a store: the job as the daemon runs it, and who waits for what it commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tributary::config::job::Brakes;
use tributary::fault::Fault;
use tributary::flow::board::Board;
use tributary::flow::job::{self, JobRoad};
use tributary::flow::road::{topic_name, topic_spec};
use tributary::log::port::{Entry, Log};
use tributary::mapping::plan::JobPlan;
use tributary::model::name::{ConnectionId, JobId, ObjectName};
use tributary::model::record_id::RecordId;
use tributary::model::stored::StoredObject;
use tributary::runtime::clock::SystemClock;
use tributary::runtime::shutdown::StopSignal;
use tributary::state::memory::MemoryState;
use tributary::state::port::State;
use tributary::target::port::review::{Binding, Decided, InReview, Review, Reviews, Which};
use tributary::target::port::sweep::{SweepKey, Sweeps, Unmet};
use tributary::target::port::{
    Applied, Assignment, Batch, Expired, ParkedKey, ReaderKey, Released, RowsPage, StoredRow,
    Target, Traced,
};
use tributary::telemetry::metrics::Metrics;

use super::load::Plan;

/// A target that counts the changes that it committed.
pub struct Counting {
    pub inner: Arc<dyn Target>,
    /// Rows of the first destination, committed.
    rows: watch::Sender<u64>,
    batches: AtomicU64,
    witness: Option<Witness>,
}

/// Sees every batch once it is committed.
pub type Witness = Box<dyn Fn(&Batch) + Send + Sync>;

impl Counting {
    pub fn new(inner: Arc<dyn Target>) -> Self {
        Self {
            inner,
            rows: watch::Sender::new(0),
            batches: AtomicU64::new(0),
            witness: None,
        }
    }

    pub fn seen_by(mut self, witness: Witness) -> Self {
        self.witness = Some(witness);
        self
    }

    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    pub fn committed(&self) -> u64 {
        *self.rows.borrow()
    }

    /// Waits until so many rows are committed.
    pub async fn reach(&self, rows: u64) {
        self.rows
            .subscribe()
            .wait_for(|held| *held >= rows)
            .await
            .unwrap();
    }
}

/// The job, its topic and its store.
pub struct Road {
    pub topic: Arc<str>,
    pub log: Arc<dyn Log>,
    pub target: Arc<Counting>,
    pub board: Arc<Board>,
    job: JobRoad,
    running: Option<(StopSignal, JoinHandle<()>)>,
    appended: u64,
}

impl Road {
    pub async fn on(plan: &Plan, target: Arc<dyn Target>, log: Arc<dyn Log>, prefix: &str) -> Self {
        let state = Arc::new(MemoryState::default());
        Self::over(plan, Counting::new(target), log, prefix, state).await
    }

    pub async fn over(
        plan: &Plan,
        target: Counting,
        log: Arc<dyn Log>,
        prefix: &str,
        state: Arc<dyn State>,
    ) -> Self {
        target.ensure(&plan.objects).await.unwrap();
        let job = plan.mapping.plan();
        let topic: Arc<str> = topic_name(prefix, &job.connection, &job.source).into();
        log.ensure(&topic_spec(&topic)).await.unwrap();
        let target = Arc::new(target);
        let board = Arc::new(Board::default());
        Self {
            job: JobRoad {
                mapping: Arc::clone(&plan.mapping),
                topic: Arc::clone(&topic),
                log: Arc::clone(&log),
                target: Arc::clone(&target) as _,
                state,
                clock: Arc::new(SystemClock),
                metrics: Metrics::none(),
                board: Arc::clone(&board),
                parked_ttl: TimeDelta::days(30),
                brakes: Brakes::OFF,
                retry: (Duration::from_millis(100), Duration::from_secs(10)),
            },
            topic,
            log,
            target,
            board,
            running: None,
            appended: 0,
        }
    }

    pub fn start(&mut self) {
        let stop = StopSignal::new();
        let running = tokio::spawn(job::keep(self.job.clone(), stop.clone()));
        self.running = Some((stop, running));
    }

    pub async fn stop(&mut self) {
        if let Some((stop, running)) = self.running.take() {
            stop.stop();
            running.await.unwrap();
        }
    }

    /// Appends to the topic.
    pub async fn append(&mut self, entries: Vec<Entry>) {
        self.appended += entries.len() as u64;
        self.log.append(entries).await.unwrap();
    }

    /// Waits until all that was appended is committed. Each record may come once since the last wait: changes that
    /// are folded are not counted.
    pub async fn drained(&self) {
        let waited =
            tokio::time::timeout(Duration::from_secs(600), self.target.reach(self.appended)).await;
        assert!(
            waited.is_ok(),
            "the job stands still: {:?}",
            self.board.picture().jobs
        );
    }
}

#[async_trait]
impl Target for Counting {
    async fn ensure(&self, objects: &[StoredObject]) -> Result<(), Fault> {
        self.inner.ensure(objects).await
    }

    async fn prepare(&self, plan: &JobPlan) -> Result<(), Fault> {
        self.inner.prepare(plan).await
    }

    async fn assign(&self, reader: &ReaderKey, partition: u32) -> Result<Assignment, Fault> {
        self.inner.assign(reader, partition).await
    }

    async fn apply(&self, batch: Batch) -> Result<Applied, Fault> {
        let shown = self
            .witness
            .as_ref()
            .map(|witness| (witness, batch.clone()));
        let applied = self.inner.apply(batch).await?;
        if applied.committed {
            if let Some((witness, batch)) = shown {
                witness(&batch);
            }
            let rows = applied.outcomes.first().map_or(0, Vec::len) as u64;
            self.batches.fetch_add(1, Ordering::Relaxed);
            self.rows.send_modify(|held| *held += rows);
        }
        Ok(applied)
    }

    fn side_by_side(&self) -> usize {
        self.inner.side_by_side()
    }

    async fn release(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        partitions: &[u32],
        limit: usize,
    ) -> Result<Released, Fault> {
        self.inner.release(connection, job, partitions, limit).await
    }

    async fn expired(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        partitions: &[u32],
        older_than: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<Expired>, Fault> {
        self.inner
            .expired(connection, job, partitions, older_than, limit)
            .await
    }

    async fn forget(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        parked: &[ParkedKey],
    ) -> Result<u64, Fault> {
        self.inner.forget(connection, job, parked).await
    }

    async fn rows(&self, table: &str, page: RowsPage) -> Result<Vec<StoredRow>, Fault> {
        self.inner.rows(table, page).await
    }

    async fn trace(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        record: &RecordId,
    ) -> Result<Vec<Traced>, Fault> {
        self.inner.trace(connection, object, record).await
    }

    async fn held(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        table: &str,
    ) -> Result<u64, Fault> {
        self.inner.held(connection, object, table).await
    }

    async fn parked(&self) -> Result<Vec<(ConnectionId, JobId, u64)>, Fault> {
        self.inner.parked().await
    }

    async fn close(&self) -> Result<(), Fault> {
        self.inner.close().await
    }
}

#[async_trait]
impl Reviews for Counting {
    async fn reviews(&self, which: &Which) -> Result<Vec<Review>, Fault> {
        self.inner.reviews(which).await
    }

    async fn bindings(&self) -> Result<Vec<Binding>, Fault> {
        self.inner.bindings().await
    }

    async fn in_review(&self, connection: &ConnectionId, job: &JobId) -> Result<InReview, Fault> {
        self.inner.in_review(connection, job).await
    }

    async fn decide(&self, binding: &Binding) -> Result<Decided, Fault> {
        self.inner.decide(binding).await
    }
}

#[async_trait]
impl Sweeps for Counting {
    async fn begin_replay(&self, of: &SweepKey, tables: &[String]) -> Result<u64, Fault> {
        self.inner.begin_replay(of, tables).await
    }

    async fn met(&self, of: &SweepKey, records: &[RecordId]) -> Result<(), Fault> {
        self.inner.met(of, records).await
    }

    async fn unmet(&self, of: &SweepKey, limit: usize) -> Result<Vec<Unmet>, Fault> {
        self.inner.unmet(of, limit).await
    }

    async fn swept(&self, of: &SweepKey, swept: &[Unmet]) -> Result<(), Fault> {
        self.inner.swept(of, swept).await
    }

    async fn end_replay(&self, of: &SweepKey) -> Result<(), Fault> {
        self.inner.end_replay(of).await
    }
}
