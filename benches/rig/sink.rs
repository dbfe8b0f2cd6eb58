//! A target that takes everything and keeps nothing: what is left is the job's own work.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tributary::fault::Fault;
use tributary::mapping::plan::JobPlan;
use tributary::model::name::{ConnectionId, JobId, ObjectName};
use tributary::model::record_id::RecordId;
use tributary::model::stored::StoredObject;
use tributary::target::port::review::{Binding, Decided, InReview, Review, Reviews, Which};
use tributary::target::port::sweep::{SweepKey, Sweeps, Unmet};
use tributary::target::port::{
    Applied, Assignment, Batch, Expired, Outcome, ParkedKey, ReaderKey, Released, RowsPage,
    StoredRow, Target, Traced,
};

/// Every row is new.
pub struct Sink;

#[async_trait]
impl Target for Sink {
    async fn ensure(&self, _: &[StoredObject]) -> Result<(), Fault> {
        Ok(())
    }

    async fn prepare(&self, _: &JobPlan) -> Result<(), Fault> {
        Ok(())
    }

    async fn assign(&self, _: &ReaderKey, _: u32) -> Result<Assignment, Fault> {
        Ok(Assignment { next: 0, epoch: 1 })
    }

    async fn apply(&self, batch: Batch) -> Result<Applied, Fault> {
        let outcomes = batch.destinations.iter();
        Ok(Applied {
            committed: true,
            outcomes: outcomes
                .map(|part| vec![Outcome::Inserted; part.rows.len()])
                .collect(),
        })
    }

    async fn release(
        &self,
        _: &ConnectionId,
        _: &JobId,
        _: &[u32],
        _: usize,
    ) -> Result<Released, Fault> {
        Ok(Released::default())
    }

    async fn expired(
        &self,
        _: &ConnectionId,
        _: &JobId,
        _: &[u32],
        _: DateTime<Utc>,
        _: usize,
    ) -> Result<Vec<Expired>, Fault> {
        Ok(Vec::new())
    }

    async fn forget(&self, _: &ConnectionId, _: &JobId, _: &[ParkedKey]) -> Result<u64, Fault> {
        Ok(0)
    }

    async fn rows(&self, _: &str, _: RowsPage) -> Result<Vec<StoredRow>, Fault> {
        Ok(Vec::new())
    }

    async fn trace(
        &self,
        _: &ConnectionId,
        _: &ObjectName,
        _: &RecordId,
    ) -> Result<Vec<Traced>, Fault> {
        Ok(Vec::new())
    }

    async fn held(&self, _: &ConnectionId, _: &ObjectName, _: &str) -> Result<u64, Fault> {
        Ok(0)
    }

    async fn parked(&self) -> Result<Vec<(ConnectionId, JobId, u64)>, Fault> {
        Ok(Vec::new())
    }

    async fn close(&self) -> Result<(), Fault> {
        Ok(())
    }
}

#[async_trait]
impl Reviews for Sink {
    async fn reviews(&self, _: &Which) -> Result<Vec<Review>, Fault> {
        Ok(Vec::new())
    }

    async fn bindings(&self) -> Result<Vec<Binding>, Fault> {
        Ok(Vec::new())
    }

    async fn in_review(&self, _: &ConnectionId, _: &JobId) -> Result<InReview, Fault> {
        Ok(InReview::default())
    }

    async fn decide(&self, _: &Binding) -> Result<Decided, Fault> {
        Ok(Decided {
            before: None,
            waits: false,
        })
    }
}

#[async_trait]
impl Sweeps for Sink {
    async fn begin_replay(&self, _: &SweepKey, _: &[String]) -> Result<u64, Fault> {
        Ok(0)
    }

    async fn met(&self, _: &SweepKey, _: &[RecordId]) -> Result<(), Fault> {
        Ok(())
    }

    async fn unmet(&self, _: &SweepKey, _: usize) -> Result<Vec<Unmet>, Fault> {
        Ok(Vec::new())
    }

    async fn swept(&self, _: &SweepKey, _: &[Unmet]) -> Result<(), Fault> {
        Ok(())
    }

    async fn end_replay(&self, _: &SweepKey) -> Result<(), Fault> {
        Ok(())
    }
}
