//! The job's seams: its log, and its target with a witness beside it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::fault::{Fault, FaultKind};
use crate::flow::simulation::faults::Process;
use crate::log::memory::MemoryLog;
use crate::log::port::{Bounds, Entry, From, Log, Place, Reader, TopicSpec};
use crate::mapping::plan::{Cell, JobPlan, Life};
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::model::record_id::RecordId;
use crate::model::stored::StoredObject;
use crate::model::version::Version;
use crate::target::memory::MemoryTarget;
use crate::target::port::review::{Binding, Decided, InReview, Review, Reviews, Which};
use crate::target::port::sweep::{SweepKey, Sweeps, Unmet};
use crate::target::port::{
    Applied, Assignment, Batch, Expired, ParkedKey, ReaderKey, Released, RowsPage, StoredRow,
    Strays, Target, Traced,
};

use super::group::{Groups, Manner, SimReader};
use super::jobs::POISON;
use super::witness::Witness;

const AWAY: FaultKind = FaultKind::Unavailable;

/// The log as a job has it: its reader is a member of a simulated group, its letters are witnessed.
pub struct JobLog {
    pub inner: Arc<MemoryLog>,
    pub groups: Arc<Groups>,
    pub process: Arc<Process>,
    pub witness: Arc<Witness>,
    pub manner: Manner,
}

#[async_trait]
impl Log for JobLog {
    async fn ensure(&self, topic: &TopicSpec) -> Result<String, Fault> {
        let work = self.inner.ensure(topic);
        self.process.pass("job.ensure", AWAY, work).await
    }

    async fn append(&self, entries: Vec<Entry>) -> Result<Vec<Place>, Fault> {
        let work = async {
            let letters = entries.clone();
            let places = self.inner.append(entries).await?;
            self.witness.letters(&letters);
            Ok(places)
        };
        self.process.pass("job.append", AWAY, work).await
    }

    async fn bounds(&self, topic: &str) -> Result<BTreeMap<u32, Bounds>, Fault> {
        self.process.alive().await;
        self.inner.bounds(topic).await
    }

    async fn at_time(&self, topic: &str, at: DateTime<Utc>) -> Result<BTreeMap<u32, u64>, Fault> {
        self.inner.at_time(topic, at).await
    }

    async fn reader(&self, topic: &str, from: From) -> Result<Box<dyn Reader>, Fault> {
        let From::Group(group) = from else {
            return self.inner.reader(topic, from).await;
        };
        let reader = SimReader::join(
            &self.inner,
            topic,
            &group,
            &self.groups,
            &self.process,
            self.manner,
        );
        let open = std::future::ready(Ok(Box::new(reader) as Box<dyn Reader>));
        self.process.pass("job.reader", AWAY, open).await
    }

    async fn topics(&self) -> Result<Vec<TopicSpec>, Fault> {
        self.inner.topics().await
    }

    async fn close(&self) -> Result<(), Fault> {
        Ok(())
    }
}

/// How the target is broken on purpose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Flaw {
    #[default]
    None,
    /// Every change counts as newer than what is held.
    ForgetsVersions,
    /// The offset is committed before the rows, in a transaction of its own.
    OffsetsFirst,
    /// Whoever writes is let in.
    NoFence,
    /// Nobody hears who refers to a row that was left.
    LeavesChildren,
}

/// The target behind its seam.
pub struct SimTarget {
    pub inner: Arc<MemoryTarget>,
    pub process: Arc<Process>,
    pub witness: Arc<Witness>,
    pub flaw: Flaw,
}

/// What a broken target takes for a version.
static NEWER: AtomicU64 = AtomicU64::new(0);

impl SimTarget {
    async fn commit(&self, mut batch: Batch) -> Result<Applied, Fault> {
        let mut told = batch.clone();
        match self.flaw {
            Flaw::None | Flaw::LeavesChildren => {}
            Flaw::ForgetsVersions => {
                let rows = told.destinations.iter_mut();
                for row in rows.flat_map(|to| Arc::make_mut(&mut to.rows)) {
                    let newer = NEWER.fetch_add(1, Ordering::SeqCst);
                    row.version = Version::new(Version::MAX_TERM, newer);
                }
            }
            Flaw::OffsetsFirst if told.next != told.expect => {
                let offset = Batch {
                    destinations: Vec::new(),
                    ..told.clone()
                };
                self.inner.apply(offset).await?;
                told.expect = told.next;
                self.witness.moved(&told);
                tokio::time::sleep(Duration::from_millis(20)).await;
                self.process.alive().await;
            }
            Flaw::OffsetsFirst => {}
            Flaw::NoFence => {
                let held = self.witness.seat(&told.reader, told.partition);
                told.epoch = held.epoch;
                told.expect = held.next;
                told.next = told.next.max(held.next);
            }
        }
        let seat = (told.epoch, told.expect, told.next);
        let applied = self.inner.apply(told).await?;
        if self.flaw == Flaw::OffsetsFirst {
            // What is wrong with that is to be seen by what it loses.
            (batch.epoch, batch.expect, batch.next) = seat;
        }
        self.witness.applied(&self.inner, &batch, &applied).await;
        Ok(applied)
    }
}

/// Whether a row that is to be stored has a name that the target does not take.
fn is_poison(batch: &Batch) -> bool {
    let rows = batch.destinations.iter().flat_map(|to| to.rows.iter());
    rows.filter(|row| row.life == Life::Present)
        .flat_map(|row| row.cells.iter().flatten())
        .any(|cell| matches!(cell, Cell::Text(text) if &**text == POISON))
}

#[async_trait]
impl Target for SimTarget {
    async fn ensure(&self, objects: &[StoredObject]) -> Result<(), Fault> {
        self.inner.ensure(objects).await
    }

    async fn prepare(&self, plan: &JobPlan) -> Result<(), Fault> {
        let work = self.inner.prepare(plan);
        self.process.pass("target.prepare", AWAY, work).await
    }

    /// So that batches of several partitions are under way while partitions come and go.
    fn side_by_side(&self) -> usize {
        3
    }

    async fn assign(&self, reader: &ReaderKey, partition: u32) -> Result<Assignment, Fault> {
        let work = async {
            let assignment = self.inner.assign(reader, partition).await?;
            self.witness
                .assigned(self.process.name, reader, partition, assignment);
            Ok(assignment)
        };
        self.process.pass("target.assign", AWAY, work).await
    }

    async fn apply(&self, batch: Batch) -> Result<Applied, Fault> {
        let work = async {
            self.witness.offered(self.process.name, &batch);
            if is_poison(&batch) {
                return Err(Fault::new(FaultKind::Record, "a value is refused"));
            }
            self.commit(batch).await
        };
        self.process.pass("target.apply", AWAY, work).await
    }

    async fn release(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        partitions: &[u32],
        limit: usize,
    ) -> Result<Released, Fault> {
        // Few at a time, so that there is more than one round.
        let work = self
            .inner
            .release(connection, job, partitions, limit.min(3));
        self.process.pass("target.release", AWAY, work).await
    }

    async fn expired(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        partitions: &[u32],
        older_than: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<Expired>, Fault> {
        let work = self
            .inner
            .expired(connection, job, partitions, older_than, limit);
        self.process.pass("target.expired", AWAY, work).await
    }

    async fn forget(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        parked: &[ParkedKey],
    ) -> Result<u64, Fault> {
        let work = async {
            self.witness.forgotten(job, parked);
            self.inner.forget(connection, job, parked).await
        };
        self.process.pass("target.forget", AWAY, work).await
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
        let work = self.inner.held(connection, object, table);
        self.process.pass("target.held", AWAY, work).await
    }

    async fn parked(&self) -> Result<Vec<(ConnectionId, JobId, u64)>, Fault> {
        self.process.alive().await;
        self.inner.parked().await
    }

    async fn strays(&self, connection: &ConnectionId) -> Result<Strays, Fault> {
        self.process.alive().await;
        if self.flaw == Flaw::LeavesChildren {
            return Ok(Strays::default());
        }
        self.inner.strays(connection).await
    }

    async fn forget_strays(&self, marks: &[u64]) -> Result<(), Fault> {
        self.process.alive().await;
        self.inner.forget_strays(marks).await
    }

    async fn close(&self) -> Result<(), Fault> {
        Ok(())
    }
}

#[async_trait]
impl Reviews for SimTarget {
    async fn reviews(&self, which: &Which) -> Result<Vec<Review>, Fault> {
        self.inner.reviews(which).await
    }

    async fn bindings(&self) -> Result<Vec<Binding>, Fault> {
        self.inner.bindings().await
    }

    async fn in_review(&self, connection: &ConnectionId, job: &JobId) -> Result<InReview, Fault> {
        self.process.alive().await;
        self.inner.in_review(connection, job).await
    }

    async fn decide(&self, binding: &Binding) -> Result<Decided, Fault> {
        self.inner.decide(binding).await
    }
}

#[async_trait]
impl Sweeps for SimTarget {
    async fn begin_replay(&self, of: &SweepKey, tables: &[String]) -> Result<u64, Fault> {
        self.process.alive().await;
        self.inner.begin_replay(of, tables).await
    }

    async fn met(&self, of: &SweepKey, records: &[RecordId]) -> Result<(), Fault> {
        self.process.alive().await;
        self.inner.met(of, records).await
    }

    async fn unmet(&self, of: &SweepKey, limit: usize) -> Result<Vec<Unmet>, Fault> {
        self.process.alive().await;
        self.inner.unmet(of, limit).await
    }

    async fn swept(&self, of: &SweepKey, swept: &[Unmet]) -> Result<(), Fault> {
        self.process.alive().await;
        self.inner.swept(of, swept).await
    }

    async fn end_replay(&self, of: &SweepKey) -> Result<(), Fault> {
        self.process.alive().await;
        self.inner.end_replay(of).await
    }
}
