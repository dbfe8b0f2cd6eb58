//! The target in memory: for tests of what is built on the port; as strict as the others, and gone with its process.

mod apply;
mod exit;
mod identity;
mod layout;
mod ledger;
mod lookup;
mod release;
mod review;
mod spared;
mod stray;
mod sweep;
mod tables;
mod transaction;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use self::layout::Layout;
use self::ledger::Standing;
use self::release::Share;
use self::tables::{Table, missing_column};
use self::transaction::Store;
use crate::fault::{Fault, FaultKind};
use crate::mapping::plan::{DeriveBy, JobPlan, MatchKey};
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::model::record_id::RecordId;
use crate::model::stored::StoredObject;
use crate::target::port::review::{Binding, Decided, InReview, Review, Reviews, Which};
use crate::target::port::sweep::{SweepKey, Sweeps, Unmet};
use crate::target::port::{
    Applied, Assignment, Batch, Expired, ParkedKey, ReaderKey, Released, RowsPage, StoredRow,
    Strays, Target, Traced,
};

/// Rows and ledger in memory. It asks no clock: dates are those of the batches, and a filled reference has the
/// newest of them; GSIDs count on from there. So the same calls leave the same rows.
#[derive(Default)]
pub struct MemoryTarget {
    store: Arc<Mutex<Store>>,
    closed: AtomicBool,
}

impl MemoryTarget {
    /// An empty target.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same rows and ledger, opened again as after a restart of the process.
    #[must_use]
    pub fn reopen(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            closed: AtomicBool::new(false),
        }
    }

    fn open(&self) -> Result<MutexGuard<'_, Store>, Fault> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Fault::new(FaultKind::Stopping, "the target is closed"));
        }
        // A panic elsewhere in a test must not hide behind a second one here.
        Ok(self.store.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Target for MemoryTarget {
    async fn ensure(&self, objects: &[StoredObject]) -> Result<(), Fault> {
        let mut store = self.open()?;
        for object in objects {
            if let Some(table) = store.tables.get(object.table.as_str()) {
                table.check(object)?;
            }
        }
        for object in objects {
            store
                .tables
                .entry(Arc::from(object.table.as_str()))
                .or_insert_with(Table::new)
                .extend(object);
        }
        Ok(())
    }

    async fn prepare(&self, plan: &JobPlan) -> Result<(), Fault> {
        // Indexes are made at the first look; what is missing is told here.
        let store = self.open()?;
        for destination in &plan.destinations {
            Layout::of(&store, destination)?;
            for derive in &destination.derives {
                let table = store.table(&derive.table)?;
                let DeriveBy::Match(keys) = &derive.by else {
                    continue;
                };
                for key in keys {
                    if let MatchKey::Column { name, .. } = key {
                        let found = table.position(name);
                        found.ok_or_else(|| missing_column(&derive.table, name))?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn assign(&self, reader: &ReaderKey, partition: u32) -> Result<Assignment, Fault> {
        Ok(self.open()?.ledger.assign(reader, partition))
    }

    async fn apply(&self, batch: Batch) -> Result<Applied, Fault> {
        apply::apply(&mut *self.open()?, &batch)
    }

    async fn release(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        partitions: &[u32],
        limit: usize,
    ) -> Result<Released, Fault> {
        let share = Share {
            connection,
            job,
            partitions,
        };
        release::release(&mut *self.open()?, share, limit)
    }

    async fn expired(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        partitions: &[u32],
        older_than: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<Expired>, Fault> {
        let share = Share {
            connection,
            job,
            partitions,
        };
        let store = self.open()?;
        Ok(release::expired(&store.ledger, share, older_than, limit))
    }

    async fn forget(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        parked: &[ParkedKey],
    ) -> Result<u64, Fault> {
        let mut store = self.open()?;
        let ledger = &mut store.ledger;
        Ok(parked
            .iter()
            .map(|key| release::forget(ledger, connection, job, key))
            .sum())
    }

    async fn rows(&self, table: &str, page: RowsPage) -> Result<Vec<StoredRow>, Fault> {
        self.open()?.table(table)?.page(table, &page)
    }

    async fn trace(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        record: &RecordId,
    ) -> Result<Vec<Traced>, Fault> {
        let store = self.open()?;
        let own = store.ledger.entries.iter().filter(|(key, _)| {
            (&key.connection, &key.object, &key.record) == (connection, object, record)
        });
        let mut traced = Vec::new();
        for (key, entry) in own {
            let table = store.table(&key.table)?;
            let held = entry
                .gsid
                .filter(|_| entry.standing != Standing::Gone)
                .and_then(|gsid| Some((gsid, table.get(gsid)?)));
            let parked = store.ledger.references.iter().filter(|(parked, waiting)| {
                (
                    &parked.connection,
                    &parked.table,
                    &parked.record,
                    &waiting.object,
                ) == (connection, &key.table, record, object)
            });
            traced.push(Traced {
                table: key.table.to_string(),
                version: entry.version,
                row: held.map(|(gsid, row)| table.stored(gsid, row)),
                parked: parked.map(|(parked, _)| parked.column.clone()).collect(),
            });
        }
        Ok(traced)
    }

    async fn held(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        table: &str,
    ) -> Result<u64, Fault> {
        let store = self.open()?;
        let own = store.ledger.entries.iter().filter(|(key, entry)| {
            (&key.connection, &key.object, &*key.table) == (connection, object, table)
                && entry.gsid.is_some()
                && entry.standing == Standing::Present
        });
        Ok(own.count() as u64)
    }

    async fn parked(&self) -> Result<Vec<(ConnectionId, JobId, u64)>, Fault> {
        let store = self.open()?;
        let references = store.ledger.references.keys();
        let references = references.map(|key| (&key.connection, &key.job));
        let changes = store.ledger.changes.iter();
        let changes = changes.filter(|(_, waiting)| waiting.ambiguity.is_none());
        let changes = changes.map(|(key, _)| (&key.connection, &key.job));
        let mut counts: BTreeMap<_, u64> = BTreeMap::new();
        for job in references.chain(changes) {
            *counts.entry(job).or_default() += 1;
        }
        Ok(counts
            .into_iter()
            .map(|((connection, job), count)| (connection.clone(), job.clone(), count))
            .collect())
    }

    async fn strays(&self, connection: &ConnectionId) -> Result<Strays, Fault> {
        Ok(stray::list(&*self.open()?, connection))
    }

    async fn forget_strays(&self, marks: &[u64]) -> Result<(), Fault> {
        let mut store = self.open()?;
        store.ledger.left.retain(|mark, _| !marks.contains(mark));
        Ok(())
    }

    async fn close(&self) -> Result<(), Fault> {
        self.closed.store(true, Ordering::Release);
        Ok(())
    }
}

#[async_trait]
impl Reviews for MemoryTarget {
    async fn reviews(&self, which: &Which) -> Result<Vec<Review>, Fault> {
        review::list(&*self.open()?, which)
    }

    async fn bindings(&self) -> Result<Vec<Binding>, Fault> {
        Ok(review::bindings(&self.open()?.ledger))
    }

    async fn in_review(&self, connection: &ConnectionId, job: &JobId) -> Result<InReview, Fault> {
        Ok(review::count(&self.open()?.ledger, connection, job))
    }

    async fn decide(&self, binding: &Binding) -> Result<Decided, Fault> {
        review::decide(&mut *self.open()?, binding)
    }
}

#[async_trait]
impl Sweeps for MemoryTarget {
    async fn begin_replay(&self, of: &SweepKey, tables: &[String]) -> Result<u64, Fault> {
        Ok(sweep::begin(&mut self.open()?.ledger, of, tables))
    }

    async fn met(&self, of: &SweepKey, records: &[RecordId]) -> Result<(), Fault> {
        sweep::met(&mut self.open()?.ledger, of, records);
        Ok(())
    }

    async fn unmet(&self, of: &SweepKey, limit: usize) -> Result<Vec<Unmet>, Fault> {
        Ok(sweep::unmet(&self.open()?.ledger, of, limit))
    }

    async fn swept(&self, of: &SweepKey, swept: &[Unmet]) -> Result<(), Fault> {
        sweep::swept(&mut self.open()?.ledger, of, swept);
        Ok(())
    }

    async fn end_replay(&self, of: &SweepKey) -> Result<(), Fault> {
        sweep::end(&mut self.open()?.ledger, of);
        Ok(())
    }
}

impl std::fmt::Debug for MemoryTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryTarget").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::suite::{Bench, target_suite};

    struct Memory(Arc<MemoryTarget>);

    #[async_trait]
    impl Bench for Memory {
        fn target(&self) -> Arc<dyn Target> {
            Arc::clone(&self.0) as _
        }

        async fn reopen(&mut self) {
            self.0.close().await.unwrap();
            self.0 = Arc::new(self.0.reopen());
        }
    }

    target_suite!(std::future::ready(Memory(Arc::default())));
}
