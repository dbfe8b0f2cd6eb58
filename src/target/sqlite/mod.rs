//! The SQLite target: tables and ledger in one file, written by one transaction at a time.
//!
//! A table is named as its object's file and is `STRICT`, so that what is stored is what was bound: `gsid`
//! (UUIDv7, the primary key), `created_date`, `modified_date`, `crm_state`, `crm_state_at`, and the object's
//! fields. Texts, dates (`2026-01-31`), instants (`2026-01-31T10:11:12.000Z`) and GSIDs are `TEXT`, booleans 0 and
//! 1; a number is an integer if it fits 64 bits, a real if that has all its digits, else a text. The ledger is in
//! the tables `tributary_*` of the same file, because attached files don't commit together (SQLite documentation,
//! "ATTACH DATABASE").
//!
//! Every batch is a `BEGIN IMMEDIATE` transaction on the file's one writer: whoever comes second sees the first.
//! So no claims are needed to insert a row once, and what waits is woken by the very write that brings its row. A
//! row that another program writes into the file wakes nothing. SQLite runs in this process, so a prepared
//! statement is run per row; the number of different statements depends on the plans, not on the batch.
//!
//! A row that leaves does not take the references to it along: they are right again when it comes back, with
//! the same GSID.

mod apply;
mod cell;
mod derive;
mod destination;
mod expired;
mod ledger;
mod lookup;
mod parked;
mod read;
mod read_held;
mod release;
mod review;
mod rows;
mod schema;
mod stray;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rusqlite::{ErrorCode, Transaction};
use uuid::{ContextV7, Uuid};

use self::release::Share;
use crate::fault::{Fault, FaultKind};
use crate::mapping::plan::JobPlan;
use crate::model::name::{ConnectionId, JobId, ObjectKey, ObjectName};
use crate::model::record_id::RecordId;
use crate::model::stored::StoredObject;
use crate::model::version::Version;
use crate::runtime::clock::Clock;
use crate::sqlite::database::Database;
use crate::sqlite::error::{JobError, SqliteError};
use crate::sqlite::lock::FileLock;
use crate::sqlite::readers::Readers;
use crate::sqlite::writer::Writer;
use crate::target::beside::{HeldRow, Holder, StoreBeside};
use crate::target::port::review::{Binding, Decided, InReview, Review, Reviews, Which};
use crate::target::port::sweep::{SweepKey, Sweeps, Unmet};
use crate::target::port::{
    Applied, Assignment, Batch, Expired, ParkedKey, ReaderKey, Released, RowsPage, StoredRow,
    Strays, Target, Traced,
};

const READERS: usize = 2;

/// Rows and ledger in a SQLite file.
pub struct SqliteTarget {
    writer: Writer,
    store: ReadOnlyStore,
    clock: Arc<dyn Clock>,
    /// Keeps the GSIDs of one process in the order in which they were given.
    gsids: Arc<Mutex<ContextV7>>,
}

impl SqliteTarget {
    /// Opens the file, alone; `clock` dates what is filled later.
    ///
    /// # Errors
    /// `Config` while another process holds it or if a later build wrote it, `Storage` or `Corrupt` if it
    /// can't be used.
    pub async fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, Fault> {
        let lock = FileLock::take(&lock_path(path))?;
        let database = Database::new(path, ledger::STEPS);
        Ok(Self {
            writer: Writer::open(database.clone(), Some(lock)).await?,
            store: ReadOnlyStore(Readers::new(database, READERS)),
            clock,
            gsids: Arc::default(),
        })
    }

    /// Opens the file for reading beside a running daemon.
    #[must_use]
    pub fn read_only(path: &Path) -> ReadOnlyStore {
        ReadOnlyStore(Readers::new(Database::new(path, ledger::STEPS), 1))
    }

    /// Removes a store with what SQLite keeps beside it. One that is not there is none to remove.
    ///
    /// # Errors
    /// `Config` while a process holds it; `Storage`.
    pub fn remove(path: &Path) -> Result<(), Fault> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|cause| SqliteError::file("making folder", folder, cause))?;
        }
        let lock = FileLock::take(&lock_path(path))?;
        // The lock goes last, while it is held.
        for ending in ["", "-wal", "-shm", ".lock"] {
            let mut name = OsString::from(path);
            name.push(ending);
            match std::fs::remove_file(&name) {
                Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                    return Err(SqliteError::file("removing", path, cause).into());
                }
                _ => {}
            }
        }
        drop(lock);
        Ok(())
    }

    /// Runs a job in a transaction of its own.
    async fn write<T, F>(&self, job: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, JobError> + Send + 'static,
    {
        self.writer
            .alone(|transaction| job(transaction).map_err(told))
            .await
    }
}

/// `store.db.lock` beside `store.db`.
fn lock_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".lock");
    name.into()
}

/// Says what SQLite's general errors mean here.
fn told(error: JobError) -> JobError {
    let JobError::Sqlite(cause) = error else {
        return error;
    };
    let text = cause.to_string();
    let missing = ["no such table", "no such column", "has no column named"];
    if missing.iter().any(|known| text.contains(known)) {
        return Fault::new(FaultKind::Missing, "the store lacks a table or a column")
            .source(cause)
            .remedy("declare it, and let the target bring its tables up to date")
            .into();
    }
    // A type or a rule (an operator's unique index) of the store's own tables.
    let refused = cause.sqlite_error_code() == Some(ErrorCode::ConstraintViolation);
    if refused && !text.contains("tributary_") {
        return Fault::new(FaultKind::Record, "the store refuses a row")
            .source(cause)
            .into();
    }
    JobError::Sqlite(cause)
}

#[async_trait]
impl Target for SqliteTarget {
    async fn ensure(&self, objects: &[StoredObject]) -> Result<(), Fault> {
        let objects = objects.to_vec();
        self.write(move |transaction| {
            objects
                .iter()
                .try_for_each(|object| schema::ensure(transaction, object))
        })
        .await
    }

    async fn prepare(&self, plan: &JobPlan) -> Result<(), Fault> {
        let plan = plan.clone();
        self.write(move |transaction| schema::prepare(transaction, &plan))
            .await
    }

    async fn assign(&self, reader: &ReaderKey, partition: u32) -> Result<Assignment, Fault> {
        let reader = reader.clone();
        self.write(move |transaction| ledger::assign(transaction, &reader, partition))
            .await
    }

    async fn apply(&self, batch: Batch) -> Result<Applied, Fault> {
        let gsids = Arc::clone(&self.gsids);
        // What is not to be committed leaves the transaction as a fault, which undoes it.
        let refused = Arc::new(Mutex::new(None));
        let outcomes = Arc::clone(&refused);
        let done = self
            .write(move |transaction| {
                let gsids = gsids.lock().unwrap_or_else(PoisonError::into_inner);
                let applied = apply::apply(transaction, &batch, &gsids)?;
                if applied.committed {
                    return Ok(applied);
                }
                *outcomes.lock().unwrap_or_else(PoisonError::into_inner) = Some(applied);
                Err(Fault::new(FaultKind::Record, "the batch holds rows that keep it back").into())
            })
            .await;
        let refused = refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        refused.map_or(done, Ok)
    }

    async fn release(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        partitions: &[u32],
        limit: usize,
    ) -> Result<Released, Fault> {
        let share = Share::new(connection, job, partitions);
        let now = self.clock.now();
        self.write(move |transaction| release::release(transaction, &share, limit, now))
            .await
    }

    async fn expired(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        partitions: &[u32],
        older_than: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<Expired>, Fault> {
        let share = Share::new(connection, job, partitions);
        self.store
            .0
            .read(move |transaction| expired::list(transaction, &share, older_than, limit))
            .await
    }

    async fn forget(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        parked: &[ParkedKey],
    ) -> Result<u64, Fault> {
        let (connection, job, parked) = (connection.clone(), job.clone(), parked.to_vec());
        self.write(move |transaction| expired::forget(transaction, &connection, &job, &parked))
            .await
    }

    async fn rows(&self, table: &str, page: RowsPage) -> Result<Vec<StoredRow>, Fault> {
        self.store.rows(table, page).await
    }

    async fn trace(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        record: &RecordId,
    ) -> Result<Vec<Traced>, Fault> {
        self.store.trace(connection, object, record).await
    }

    async fn held(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        table: &str,
    ) -> Result<u64, Fault> {
        let (connection, object) = (connection.clone(), object.clone());
        let table = table.to_owned();
        self.store
            .0
            .read(move |transaction| read_held::count(transaction, &connection, &object, &table))
            .await
    }

    async fn parked(&self) -> Result<Vec<(ConnectionId, JobId, u64)>, Fault> {
        self.store.parked().await
    }

    async fn strays(&self, connection: &ConnectionId) -> Result<Strays, Fault> {
        let connection = connection.clone();
        self.store
            .0
            .read(move |transaction| stray::list(transaction, &connection))
            .await
    }

    async fn forget_strays(&self, marks: &[u64]) -> Result<(), Fault> {
        let marks = marks.to_vec();
        self.write(move |transaction| stray::forget(transaction, &marks))
            .await
    }

    async fn close(&self) -> Result<(), Fault> {
        self.store.0.close();
        self.writer.close().await
    }
}

#[async_trait]
impl Reviews for SqliteTarget {
    async fn reviews(&self, which: &Which) -> Result<Vec<Review>, Fault> {
        self.store.reviews(which).await
    }

    async fn bindings(&self) -> Result<Vec<Binding>, Fault> {
        self.store.bindings().await
    }

    async fn in_review(&self, connection: &ConnectionId, job: &JobId) -> Result<InReview, Fault> {
        let (connection, job) = (connection.clone(), job.clone());
        self.store
            .0
            .read(move |transaction| review::count(transaction, &connection, &job))
            .await
    }

    async fn decide(&self, binding: &Binding) -> Result<Decided, Fault> {
        let binding = binding.clone();
        self.write(move |transaction| review::decide(transaction, &binding))
            .await
    }
}

#[async_trait]
impl Sweeps for SqliteTarget {
    async fn begin_replay(&self, of: &SweepKey, tables: &[String]) -> Result<u64, Fault> {
        let (of, tables) = (of.clone(), tables.to_vec());
        self.write(move |transaction| sweep::begin(transaction, &of, &tables))
            .await
    }

    async fn met(&self, of: &SweepKey, records: &[RecordId]) -> Result<(), Fault> {
        let (of, records) = (of.clone(), records.to_vec());
        self.write(move |transaction| sweep::met(transaction, &of, &records))
            .await
    }

    async fn unmet(&self, of: &SweepKey, limit: usize) -> Result<Vec<Unmet>, Fault> {
        let of = of.clone();
        self.store
            .0
            .read(move |transaction| sweep::unmet(transaction, &of, limit))
            .await
    }

    async fn swept(&self, of: &SweepKey, swept: &[Unmet]) -> Result<(), Fault> {
        let (of, swept) = (of.clone(), swept.to_vec());
        self.write(move |transaction| sweep::swept(transaction, &of, &swept))
            .await
    }

    async fn end_replay(&self, of: &SweepKey) -> Result<(), Fault> {
        let of = of.clone();
        self.write(move |transaction| sweep::end(transaction, &of))
            .await
    }
}

/// A store that another process may be writing.
#[derive(Debug)]
pub struct ReadOnlyStore(Readers);

impl ReadOnlyStore {
    /// As [`Target::parked`].
    ///
    /// # Errors
    /// `Storage` or `Corrupt` if the file can't be read.
    pub async fn parked(&self) -> Result<Vec<(ConnectionId, JobId, u64)>, Fault> {
        self.0.read(read::parked).await
    }
}

#[async_trait]
impl StoreBeside for ReadOnlyStore {
    async fn is_made(&self) -> Result<bool, Fault> {
        let made = self.0.read(|transaction| {
            let sql =
                "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'tributary_crosswalk')";
            Ok(transaction.query_row(sql, [], |row| row.get(0))?)
        });
        match made.await {
            Ok(made) => Ok(made),
            // No file yet: the daemon makes it.
            Err(fault) if fault.kind() == FaultKind::Missing => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    async fn rows(&self, table: &str, page: RowsPage) -> Result<Vec<StoredRow>, Fault> {
        let table = table.to_owned();
        self.0
            .read(move |transaction| read::rows(transaction, &table, &page))
            .await
    }

    async fn trace(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        record: &RecordId,
    ) -> Result<Vec<Traced>, Fault> {
        let (connection, object, record) = (connection.clone(), object.clone(), record.clone());
        self.0
            .read(move |transaction| read::trace(transaction, &connection, &object, &record))
            .await
    }

    async fn reviews(&self, which: &Which) -> Result<Vec<Review>, Fault> {
        let which = which.clone();
        self.0
            .read(move |transaction| review::list(transaction, &which))
            .await
    }

    async fn bindings(&self) -> Result<Vec<Binding>, Fault> {
        self.0.read(review::bindings).await
    }

    async fn held(
        &self,
        key: &ObjectKey,
        table: &str,
        after: Option<&RecordId>,
        limit: usize,
    ) -> Result<Vec<HeldRow>, Fault> {
        let (key, table, after) = (key.clone(), table.to_owned(), after.cloned());
        self.0
            .read(move |transaction| {
                read_held::held(transaction, &key, &table, after.as_ref(), limit)
            })
            .await
    }

    async fn newest(&self, key: &ObjectKey) -> Result<Option<Version>, Fault> {
        let key = key.clone();
        self.0
            .read(move |transaction| read_held::newest(transaction, &key))
            .await
    }

    async fn holders(
        &self,
        table: &str,
        gsids: &[Uuid],
    ) -> Result<BTreeMap<Uuid, Vec<Holder>>, Fault> {
        let (table, gsids) = (table.to_owned(), gsids.to_vec());
        self.0
            .read(move |transaction| read_held::holders(transaction, &table, &gsids))
            .await
    }
}

impl std::fmt::Debug for SqliteTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteTarget")
            .field("file", &self.writer.path())
            .finish_non_exhaustive()
    }
}
