//! A small pool of read-only connections; a read runs off the async runtime and sees one snapshot.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, Transaction};
use tokio::sync::Semaphore;

use crate::fault::Fault;
use crate::sqlite::database::Database;
use crate::sqlite::error::{JobError, SqliteError};

/// Read-only connections to one file. Clones share them.
#[derive(Debug, Clone)]
pub struct Readers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    database: Database,
    free: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    /// Opens up to `count` connections, as they are needed. The file must be there: open its writer first.
    #[must_use]
    pub fn new(database: Database, count: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                database,
                free: Mutex::new(Vec::with_capacity(count)),
                permits: Arc::new(Semaphore::new(count)),
            }),
        }
    }

    /// Runs `job` on a connection of its own, in one read transaction. Waits while all are in use. A dropped call
    /// loses its answer and nothing else.
    ///
    /// # Errors
    /// The job's own fault, or SQLite's with the file's name.
    pub async fn read<T, F>(&self, job: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, JobError> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let closed = || SqliteError::Closed {
            file: self.shared.database.path().to_owned(),
        };
        let permit = Arc::clone(&shared.permits)
            .acquire_owned()
            .await
            .map_err(|_| closed())?;
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            shared.run(job)
        });
        done.await.map_err(|error| SqliteError::Panicked {
            file: self.shared.database.path().to_owned(),
            message: error.to_string(),
        })?
    }

    /// Refuses further reads and closes the connections: those in use, as they come back.
    pub fn close(&self) {
        self.shared.permits.close();
        self.shared.lock().clear();
    }
}

impl Shared {
    fn run<T>(
        &self,
        job: impl FnOnce(&Transaction<'_>) -> Result<T, JobError>,
    ) -> Result<T, Fault> {
        let refused = |cause| SqliteError::engine("reading", self.database.path(), cause);
        let free = self.lock().pop();
        let mut connection = match free {
            Some(connection) => connection,
            None => self.database.open_reader()?,
        };
        let transaction = connection.transaction().map_err(refused)?;
        let done = match job(&transaction) {
            Ok(done) => Ok(done),
            Err(JobError::Sqlite(cause)) => Err(refused(cause).into()),
            Err(JobError::Fault(fault)) => Err(fault),
        };
        transaction.finish().map_err(refused)?;
        if !self.permits.is_closed() {
            self.lock().push(connection);
        }
        done
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        // A panic can't leave a list of idle connections half changed.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
