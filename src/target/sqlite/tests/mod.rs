//! Tests of the SQLite target: the suite of all targets, and what is SQLite's own.

mod crash;
mod faults;
mod properties;
mod storage;
mod waiting;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::DateTime;
use tempfile::TempDir;

use super::SqliteTarget;
use crate::runtime::clock::ManualClock;
use crate::target::port::Target;
use crate::target::suite::{Bench, target_suite};

/// A store in a folder of its own.
pub struct File {
    dir: TempDir,
    pub target: Arc<SqliteTarget>,
}

impl File {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let target = Arc::new(Self::open(&dir).await);
        Self { dir, target }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("store.db")
    }

    /// The first column of what a query answers.
    pub async fn query(&self, sql: &str) -> Vec<String> {
        let sql = sql.to_owned();
        let job = self.target.writer.alone(move |transaction| {
            let mut statement = transaction.prepare(&sql)?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        });
        job.await.unwrap()
    }

    pub async fn execute(&self, sql: &str) {
        let sql = sql.to_owned();
        let job = self
            .target
            .writer
            .alone(move |transaction| Ok(transaction.execute_batch(&sql)?));
        job.await.unwrap();
    }

    async fn open(dir: &TempDir) -> SqliteTarget {
        // Later than the suite's batches.
        let clock = ManualClock::new(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        SqliteTarget::open(&dir.path().join("store.db"), Arc::new(clock))
            .await
            .unwrap()
    }
}

#[async_trait]
impl Bench for File {
    fn target(&self) -> Arc<dyn Target> {
        Arc::clone(&self.target) as _
    }

    async fn reopen(&mut self) {
        self.target.close().await.unwrap();
        self.target = Arc::new(Self::open(&self.dir).await);
    }
}

target_suite!(File::new());
