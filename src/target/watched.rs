//! A target that is made when its server comes, and that says whether it is waited for.
//!
//! The daemon starts without its target: CRMs are listened to and the log is written, jobs try again until their rows
//! are taken. Every call passes through here, so that what the calls met is known in one place.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use metrics::Gauge;

use crate::fault::{Fault, FaultKind};
use crate::mapping::plan::JobPlan;
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::model::record_id::RecordId;
use crate::model::stored::StoredObject;
use crate::model::waiting::Waiting;
use crate::runtime::clock::Clock;
use crate::target::port::review::{Binding, Decided, InReview, Review, Reviews, Which};
use crate::target::port::sweep::{SweepKey, Sweeps, Unmet};
use crate::target::port::{
    Applied, Assignment, Batch, Expired, ParkedKey, ReaderKey, Released, RowsPage, StoredRow,
    Strays, Target, Traced,
};
use crate::telemetry::metrics::{Metrics, TARGET_WAITING};

/// A call that takes longer is told of while it lasts: a server may hold a connection and say nothing.
const SLOW: Duration = Duration::from_mins(1);

/// A target and what its calls met.
pub struct Watched {
    target: Arc<dyn Target>,
    objects: Vec<StoredObject>,
    /// Whether the tables are there.
    made: tokio::sync::Mutex<bool>,
    contact: Contact,
}

impl Watched {
    /// Watches `target`, whose tables shall be those of `objects`. Calls nothing.
    pub fn new(
        target: Arc<dyn Target>,
        objects: Vec<StoredObject>,
        clock: Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> Self {
        Self {
            target,
            objects,
            made: tokio::sync::Mutex::default(),
            contact: Contact::new(clock, metrics.gauge(TARGET_WAITING, &[])),
        }
    }

    /// Makes the tables, if no call has yet.
    ///
    /// # Errors
    /// As [`Target::ensure`].
    pub async fn make(&self) -> Result<(), Fault> {
        let mut made = self.made.lock().await;
        if !*made {
            let ensured = self.target.ensure(&self.objects).await;
            self.contact.met(Does::Write, ensured)?;
            *made = true;
        }
        Ok(())
    }

    /// Why the target is waited for; `None` while it answers.
    #[must_use]
    pub fn waiting(&self) -> Option<Waiting> {
        self.contact.waiting()
    }
}

#[async_trait]
impl Target for Watched {
    async fn ensure(&self, objects: &[StoredObject]) -> Result<(), Fault> {
        let done = self.target.ensure(objects).await;
        self.contact.met(Does::Write, done)
    }

    async fn prepare(&self, plan: &JobPlan) -> Result<(), Fault> {
        self.make().await?;
        let done = self.target.prepare(plan).await;
        self.contact.met(Does::Write, done)
    }

    async fn assign(&self, reader: &ReaderKey, partition: u32) -> Result<Assignment, Fault> {
        let call = self.target.assign(reader, partition);
        self.contact.watch(Does::Write, call).await
    }

    async fn apply(&self, batch: Batch) -> Result<Applied, Fault> {
        let call = self.target.apply(batch);
        self.contact.watch(Does::Write, call).await
    }

    fn side_by_side(&self) -> usize {
        self.target.side_by_side()
    }

    async fn release(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        partitions: &[u32],
        limit: usize,
    ) -> Result<Released, Fault> {
        let call = self.target.release(connection, job, partitions, limit);
        self.contact.watch(Does::Write, call).await
    }

    async fn expired(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        partitions: &[u32],
        older_than: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<Expired>, Fault> {
        let target = &self.target;
        let call = target.expired(connection, job, partitions, older_than, limit);
        self.contact.watch(Does::Read, call).await
    }

    async fn forget(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        parked: &[ParkedKey],
    ) -> Result<u64, Fault> {
        let call = self.target.forget(connection, job, parked);
        self.contact.watch(Does::Write, call).await
    }

    async fn rows(&self, table: &str, page: RowsPage) -> Result<Vec<StoredRow>, Fault> {
        // What is asked for may not be there; that says nothing of the target.
        self.target.rows(table, page).await
    }

    async fn trace(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        record: &RecordId,
    ) -> Result<Vec<Traced>, Fault> {
        self.target.trace(connection, object, record).await
    }

    async fn held(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        table: &str,
    ) -> Result<u64, Fault> {
        let call = self.target.held(connection, object, table);
        self.contact.watch(Does::Read, call).await
    }

    async fn parked(&self) -> Result<Vec<(ConnectionId, JobId, u64)>, Fault> {
        self.contact.watch(Does::Read, self.target.parked()).await
    }

    async fn strays(&self, connection: &ConnectionId) -> Result<Strays, Fault> {
        let call = self.target.strays(connection);
        self.contact.watch(Does::Read, call).await
    }

    async fn forget_strays(&self, marks: &[u64]) -> Result<(), Fault> {
        let call = self.target.forget_strays(marks);
        self.contact.watch(Does::Write, call).await
    }

    async fn close(&self) -> Result<(), Fault> {
        self.target.close().await
    }
}

#[async_trait]
impl Reviews for Watched {
    async fn reviews(&self, which: &Which) -> Result<Vec<Review>, Fault> {
        self.target.reviews(which).await
    }

    async fn bindings(&self) -> Result<Vec<Binding>, Fault> {
        self.target.bindings().await
    }

    async fn in_review(&self, connection: &ConnectionId, job: &JobId) -> Result<InReview, Fault> {
        let call = self.target.in_review(connection, job);
        self.contact.watch(Does::Read, call).await
    }

    async fn decide(&self, binding: &Binding) -> Result<Decided, Fault> {
        // What is asked for may not be there; that says nothing of the target.
        self.target.decide(binding).await
    }
}

#[async_trait]
impl Sweeps for Watched {
    async fn begin_replay(&self, of: &SweepKey, tables: &[String]) -> Result<u64, Fault> {
        let call = self.target.begin_replay(of, tables);
        self.contact.watch(Does::Write, call).await
    }

    async fn met(&self, of: &SweepKey, records: &[RecordId]) -> Result<(), Fault> {
        let call = self.target.met(of, records);
        self.contact.watch(Does::Write, call).await
    }

    async fn unmet(&self, of: &SweepKey, limit: usize) -> Result<Vec<Unmet>, Fault> {
        let call = self.target.unmet(of, limit);
        self.contact.watch(Does::Read, call).await
    }

    async fn swept(&self, of: &SweepKey, swept: &[Unmet]) -> Result<(), Fault> {
        let call = self.target.swept(of, swept);
        self.contact.watch(Does::Write, call).await
    }

    async fn end_replay(&self, of: &SweepKey) -> Result<(), Fault> {
        let call = self.target.end_replay(of);
        self.contact.watch(Does::Write, call).await
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}

/// What a call does: that reads work does not say that writes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Read,
    Write,
}

struct Contact {
    clock: Arc<dyn Clock>,
    gauge: Gauge,
    wait: Mutex<Option<(Waiting, Does)>>,
}

impl Contact {
    fn new(clock: Arc<dyn Clock>, gauge: Gauge) -> Self {
        gauge.set(0.0);
        Self {
            clock,
            gauge,
            wait: Mutex::default(),
        }
    }

    fn waiting(&self) -> Option<Waiting> {
        self.lock().as_ref().map(|(waiting, _)| waiting.clone())
    }

    /// Runs a call to its end, however long that is, and notes what it came to.
    async fn watch<T>(
        &self,
        does: Does,
        call: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let mut call = pin!(call);
        let Ok(done) = tokio::time::timeout(SLOW, &mut call).await else {
            self.away(does, format!("a call has had no answer for {SLOW:?}"));
            return self.met(does, call.await);
        };
        self.met(does, done)
    }

    /// Notes what a call came to, and hands it on.
    fn met<T>(&self, does: Does, done: Result<T, Fault>) -> Result<T, Fault> {
        match &done {
            Ok(_) => self.answered(does),
            Err(fault) if is_away(fault.kind()) => self.away(does, fault.report()),
            // A record, a fence: the target is there.
            Err(_) => {}
        }
        done
    }

    fn away(&self, does: Does, cause: String) {
        let mut wait = self.lock();
        match &mut *wait {
            Some((waiting, by)) => {
                waiting.cause = cause;
                if does == Does::Write {
                    *by = does;
                }
            }
            None => {
                self.gauge.set(1.0);
                tracing::warn!(reason = cause, "waiting for the target");
                let since = self.clock.now();
                *wait = Some((Waiting { cause, since }, does));
            }
        }
    }

    fn answered(&self, does: Does) {
        let mut wait = self.lock();
        let Some((waiting, by)) = &*wait else { return };
        if does == Does::Read && *by == Does::Write {
            return;
        }
        self.gauge.set(0.0);
        let waited = self.clock.now() - waiting.since;
        tracing::info!(
            waited_seconds = waited.num_seconds(),
            "the target answers again"
        );
        *wait = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Waiting, Does)>> {
        // Every change is made in one go.
        self.wait.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a fault is the target's and not of what was asked for.
const fn is_away(kind: FaultKind) -> bool {
    match kind {
        FaultKind::Unavailable
        | FaultKind::Throttled
        | FaultKind::Storage
        | FaultKind::Credentials
        | FaultKind::Permission
        | FaultKind::Missing
        | FaultKind::Config
        | FaultKind::Corrupt
        | FaultKind::Protocol => true,
        FaultKind::PositionLost
        | FaultKind::Record
        | FaultKind::Ambiguous
        | FaultKind::Fenced
        | FaultKind::Stopping => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::runtime::clock::ManualClock;

    fn fault(kind: FaultKind) -> Result<(), Fault> {
        Err(Fault::new(kind, format!("the server is {}", kind.label())))
    }

    #[test]
    fn a_wait_is_told_from_its_beginning_to_its_end() {
        let shown = Arc::new(AtomicU64::new(7));
        let gauge = || f64::from_bits(shown.load(Ordering::Relaxed));
        let clock = Arc::new(ManualClock::new(DateTime::UNIX_EPOCH));
        let contact = Contact::new(Arc::clone(&clock) as _, Gauge::from_arc(Arc::clone(&shown)));
        assert_eq!((contact.waiting(), gauge()), (None, 0.0));
        for kind in [FaultKind::Record, FaultKind::Fenced, FaultKind::Stopping] {
            contact.met(Does::Write, fault(kind)).unwrap_err();
            assert_eq!((contact.waiting(), gauge()), (None, 0.0), "{kind:?}");
        }
        contact
            .met(Does::Read, fault(FaultKind::Unavailable))
            .unwrap_err();
        clock.advance(Duration::from_secs(5));
        contact
            .met(Does::Write, fault(FaultKind::Credentials))
            .unwrap_err();
        let waiting = contact.waiting().unwrap();
        assert_eq!(waiting.cause, "the server is credentials");
        assert_eq!((waiting.since, gauge()), (DateTime::UNIX_EPOCH, 1.0));
        contact.met(Does::Read, Ok(())).unwrap();
        assert_eq!(gauge(), 1.0, "no write was tried again");
        contact.met(Does::Write, Ok(())).unwrap();
        assert_eq!((contact.waiting(), gauge()), (None, 0.0));
        contact
            .met(Does::Read, fault(FaultKind::Unavailable))
            .unwrap_err();
        contact.met(Does::Read, Ok(())).unwrap();
        assert_eq!((contact.waiting(), gauge()), (None, 0.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_answer_is_told_while_it_lasts() {
        let clock = Arc::new(ManualClock::new(DateTime::UNIX_EPOCH));
        let contact = Contact::new(clock, Gauge::noop());
        let (answer, called) = tokio::sync::oneshot::channel();
        let call = async { Ok(called.await.unwrap()) };
        let look = async {
            tokio::time::sleep(SLOW - Duration::from_secs(1)).await;
            assert_eq!(contact.waiting(), None);
            tokio::time::sleep(Duration::from_secs(2)).await;
            let waiting = contact.waiting().unwrap();
            assert!(waiting.cause.contains("60s"), "{}", waiting.cause);
            answer.send(7).unwrap();
        };
        let (done, ()) = tokio::join!(contact.watch(Does::Write, call), look);
        assert_eq!(done.unwrap(), 7);
        assert_eq!(contact.waiting(), None);
    }
}
