//! How the suite speaks to a target: a writer that counts offsets, and looks at what is stored.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::Bench;
use super::plans::{Row, objects};
use crate::fault::Fault;
use crate::mapping::plan::{Cell, DestinationPlan, MappedRow};
use crate::model::name::ObjectName;
use crate::model::record_id::RecordId;
use crate::target::port::{
    Applied, Assignment, Batch, DestinationBatch, Expired, Outcome, ParkedKey, ReaderKey, Released,
    RowsPage, StoredRow, Target, Traced,
};

/// The date at which every case begins.
pub fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_607_872, 0).expect("a date")
}

/// The tables are made, and a job writes.
pub async fn begin(bench: &mut dyn Bench) -> Writer {
    bench.target().ensure(&objects()).await.unwrap();
    Writer::open(bench.target(), "acme", "sync").await
}

/// One owner of partition 0 of a job; each batch is a second after the one before.
#[derive(Clone)]
pub struct Writer {
    pub target: Arc<dyn Target>,
    pub reader: ReaderKey,
    pub partition: u32,
    pub object: ObjectName,
    pub owned: Assignment,
    pub now: DateTime<Utc>,
}

impl Writer {
    pub async fn open(target: Arc<dyn Target>, connection: &str, job: &str) -> Self {
        let reader = ReaderKey {
            connection: connection.into(),
            job: job.into(),
            reader: "live".to_owned(),
            generation: "g1".to_owned(),
        };
        let owned = target.assign(&reader, 0).await.unwrap();
        Self {
            target,
            reader,
            partition: 0,
            object: "Object".into(),
            owned,
            now: start(),
        }
    }

    /// The same job on what a bench has open now.
    pub async fn again(&self, bench: &dyn Bench) -> Self {
        let target = bench.target();
        let owned = target.assign(&self.reader, self.partition).await.unwrap();
        Self {
            target,
            owned,
            ..self.clone()
        }
    }

    /// Rows by destination, in the order in which their plans first come.
    pub fn batch(&self, rows: impl IntoIterator<Item = Row>) -> Batch {
        let mut parts: Vec<(Arc<DestinationPlan>, Vec<MappedRow>, Vec<Bytes>)> = Vec::new();
        for Row { plan, row } in rows {
            let image = image(row.record.as_str(), row.version.counter());
            let known = parts.iter_mut().find(|(own, ..)| Arc::ptr_eq(own, &plan));
            if let Some((_, rows, images)) = known {
                rows.push(row);
                images.push(image);
            } else {
                parts.push((plan, vec![row], vec![image]));
            }
        }
        let parts = parts.into_iter();
        let destinations = parts.map(|(plan, rows, images)| DestinationBatch {
            plan,
            rows: Arc::new(rows),
            images: Arc::new(images),
        });
        Batch {
            reader: self.reader.clone(),
            partition: self.partition,
            epoch: self.owned.epoch,
            expect: self.owned.next,
            next: self.owned.next + 1,
            object: self.object.clone(),
            destinations: destinations.collect(),
            since: 0,
            asked_again: HashSet::new(),
            rematch: false,
            brake: None,
            now: self.now + TimeDelta::seconds(1),
        }
    }

    /// Applies a batch as it is, and goes on after it if it was committed.
    pub async fn apply(&mut self, batch: Batch) -> Result<Applied, Fault> {
        let (next, now) = (batch.next, batch.now);
        let applied = self.target.apply(batch).await?;
        if applied.committed {
            self.owned.next = next;
            self.now = now;
        }
        Ok(applied)
    }

    /// Applies rows that must be committed; the outcomes of all destinations.
    pub async fn send(&mut self, rows: impl IntoIterator<Item = Row>) -> Vec<Outcome> {
        let applied = self.apply(self.batch(rows)).await.unwrap();
        assert!(applied.committed, "{applied:?}");
        applied.outcomes.into_iter().flatten().collect()
    }

    /// Applies one row.
    pub async fn one(&mut self, row: Row) -> Outcome {
        let mut outcomes = self.send([row]).await;
        assert_eq!(outcomes.len(), 1);
        outcomes.remove(0)
    }

    /// Applies rows of which one must be rejected; the reasons.
    pub async fn refused(&mut self, rows: impl IntoIterator<Item = Row>) -> Vec<String> {
        let applied = self.apply(self.batch(rows)).await.unwrap();
        assert!(!applied.committed, "{applied:?}");
        let reasons = applied.outcomes.into_iter().flatten();
        reasons
            .filter_map(|outcome| match outcome {
                Outcome::Rejected(reason) => Some(reason),
                _ => None,
            })
            .collect()
    }

    /// What is released until nothing more is waiting.
    pub async fn release(&self) -> Released {
        let mut all = Released::default();
        for _ in 0..1_000 {
            let some = self.release_some(1_000).await;
            all.filled += some.filled;
            for change in some.changes {
                if !all.changes.contains(&change) {
                    all.changes.push(change);
                }
            }
            if !some.more {
                return all;
            }
        }
        panic!("released for ever: {all:?}");
    }

    /// One release of the connection's references, and of this owner's changes.
    pub async fn release_some(&self, limit: usize) -> Released {
        let ReaderKey {
            connection, job, ..
        } = &self.reader;
        let own = [self.partition];
        let released = self.target.release(connection, job, &own, limit);
        released.await.unwrap()
    }

    /// What this owner parked before a date.
    pub async fn expired(&self, older_than: DateTime<Utc>, limit: usize) -> Vec<Expired> {
        let ReaderKey {
            connection, job, ..
        } = &self.reader;
        let own = [self.partition];
        let expired = self
            .target
            .expired(connection, job, &own, older_than, limit);
        expired.await.unwrap()
    }

    /// Forgets parked things; how many.
    pub async fn forget<'a>(&self, told: impl IntoIterator<Item = &'a ParkedKey>) -> u64 {
        let keys: Vec<_> = told.into_iter().cloned().collect();
        let ReaderKey {
            connection, job, ..
        } = &self.reader;
        self.target.forget(connection, job, &keys).await.unwrap()
    }

    pub async fn parked(&self) -> u64 {
        let parked = self.target.parked().await.unwrap();
        let own = parked.iter().filter(|(connection, job, _)| {
            (connection, job) == (&self.reader.connection, &self.reader.job)
        });
        own.map(|(_, _, count)| count).sum()
    }

    pub async fn traced(&self, record: &str) -> Vec<Traced> {
        let record = RecordId::stored(record);
        self.target
            .trace(&self.reader.connection, &self.object, &record)
            .await
            .unwrap()
    }

    /// The record's row in a table.
    pub async fn row_of(&self, table: &str, record: &str) -> Option<StoredRow> {
        let traced = self.traced(record).await;
        traced.into_iter().find(|traced| traced.table == table)?.row
    }

    pub async fn gsid_of(&self, table: &str, record: &str) -> Uuid {
        let row = self.row_of(table, record).await;
        row.unwrap_or_else(|| panic!("{record} has no row in {table}"))
            .gsid
    }

    /// One cell of the record's row in a table.
    pub async fn cell_of(&self, table: &str, record: &str, column: &str) -> Cell {
        let row = self.row_of(table, record).await;
        row.unwrap_or_else(|| panic!("{record} has no row in {table}"))
            .cell(column)
    }

    /// Every row of a table.
    pub async fn all(&self, table: &str) -> Vec<StoredRow> {
        every(&*self.target, table).await
    }
}

/// Every row of a table, by GSID.
pub async fn every(target: &dyn Target, table: &str) -> Vec<StoredRow> {
    let page = RowsPage {
        limit: 1_000_000,
        ..RowsPage::default()
    };
    let mut rows = target.rows(table, page).await.unwrap();
    rows.sort_by_key(|row| row.gsid);
    rows
}

/// The bytes that stand for a change.
pub fn image(record: &str, version: u64) -> Bytes {
    Bytes::from(format!("{record}@{version}"))
}

impl StoredRow {
    pub fn cell(&self, column: &str) -> Cell {
        let found = self.columns.iter().find(|(name, _)| name == column);
        found
            .unwrap_or_else(|| panic!("no column {column} in {self:?}"))
            .1
            .clone()
    }
}
