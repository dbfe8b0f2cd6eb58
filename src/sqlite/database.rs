//! A database file: how it is opened, and how its schema comes up to date.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::sqlite::error::SqliteError;

/// How long a connection waits for a lock that another program (`sqlite3`, a backup) holds.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Prepared statements kept per connection.
const STATEMENTS: usize = 128;

/// A file and the steps that make its schema.
#[derive(Debug, Clone)]
pub struct Database {
    path: PathBuf,
    steps: &'static [&'static str],
    page_size: u32,
}

impl Database {
    /// The database at `path`. Step *n* (from 1) of `steps` takes the schema from version *n* − 1 to *n*
    /// (`PRAGMA user_version`); steps are only ever added.
    pub fn new(path: impl Into<PathBuf>, steps: &'static [&'static str]) -> Self {
        Self {
            path: path.into(),
            steps,
            page_size: 8192,
        }
    }

    /// The same with another size of pages, a power of two in bytes; a file that is there keeps its own.
    #[must_use]
    pub fn page_size(self, bytes: u32) -> Self {
        Self {
            page_size: bytes,
            ..self
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the connection that writes: makes the file where it is missing, sets it to survive a power cut
    /// (WAL, `synchronous=FULL`), and brings the schema up to date, each step in a transaction. Blocking.
    ///
    /// # Errors
    /// `Newer` for a file of a later build; `NoWal`, `Engine`, `File`.
    pub fn open_writer(&self) -> Result<Connection, SqliteError> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|cause| SqliteError::file("making folder", folder, cause))?;
        }
        let mut connection =
            self.open(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        self.make_durable(&connection)?;
        self.migrate(&mut connection)?;
        Ok(connection)
    }

    /// Opens a connection that only reads; the file must be there. Blocking.
    ///
    /// # Errors
    /// `Absent`, `Engine`.
    pub fn open_reader(&self) -> Result<Connection, SqliteError> {
        if !self.path.exists() {
            return Err(SqliteError::Absent {
                file: self.path.clone(),
            });
        }
        let connection = self.open(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection
            .pragma_update(None, "query_only", true)
            .map_err(self.refused("opening"))?;
        Ok(connection)
    }

    fn open(&self, flags: OpenFlags) -> Result<Connection, SqliteError> {
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(&self.path, flags).map_err(self.refused("opening"))?;
        connection
            .busy_timeout(BUSY_TIMEOUT)
            .map_err(self.refused("opening"))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(connection)
    }

    fn make_durable(&self, connection: &Connection) -> Result<(), SqliteError> {
        // Page size and vacuum mode hold only if set before the first table is made.
        connection
            .execute_batch(&format!(
                "PRAGMA page_size = {}; PRAGMA auto_vacuum = INCREMENTAL;",
                self.page_size
            ))
            .map_err(self.refused("opening"))?;
        let mode: String = connection
            .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
            .map_err(self.refused("opening"))?;
        if mode != "wal" {
            return Err(SqliteError::NoWal {
                file: self.path.clone(),
                mode,
            });
        }
        connection
            .execute_batch(
                "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
                 PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -16384;",
            )
            .map_err(self.refused("opening"))
    }

    fn migrate(&self, connection: &mut Connection) -> Result<(), SqliteError> {
        loop {
            let transaction = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(self.refused("opening"))?;
            let version: i64 = transaction
                .query_row("PRAGMA user_version", [], |row| row.get(0))
                .map_err(self.refused("reading the schema version of"))?;
            let found = usize::try_from(version).unwrap_or(usize::MAX);
            let Some(step) = self.steps.get(found) else {
                if found == self.steps.len() {
                    return Ok(());
                }
                return Err(SqliteError::Newer {
                    file: self.path.clone(),
                    found,
                    known: self.steps.len(),
                });
            };
            transaction
                .execute_batch(step)
                .and_then(|()| transaction.pragma_update(None, "user_version", version + 1))
                .and_then(|()| transaction.commit())
                .map_err(self.refused("bringing up to date the schema of"))?;
        }
    }

    fn refused(&self, doing: &'static str) -> impl Fn(rusqlite::Error) -> SqliteError {
        move |cause| SqliteError::engine(doing, &self.path, cause)
    }
}
