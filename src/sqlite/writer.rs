//! The one writer of a database file: a thread that owns the connection and runs jobs, several in one commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior, ffi};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::fault::Fault;
use crate::sqlite::database::{BUSY_TIMEOUT, Database};
use crate::sqlite::error::{JobError, SqliteError};
use crate::sqlite::lock::FileLock;

/// Jobs that wait before callers have to.
const QUEUE: usize = 256;
/// Jobs that share a commit at most.
const GROUP: usize = 64;
/// Idle for so long, the write-ahead log is put into the file and cut to nothing.
const IDLE: Duration = Duration::from_secs(1);

/// Takes jobs and runs them in order on the one connection that writes.
///
/// A job's changes are durable when its call returns, all of them or, on an error, none. A job that was taken is
/// run to its end even if the caller drops its future.
#[derive(Debug)]
pub struct Writer {
    path: Arc<Path>,
    orders: Mutex<Option<Sender<Order>>>,
    places: Arc<Semaphore>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// One job in the queue; its place is free again when it has been run.
struct Order {
    alone: bool,
    work: Work,
    _place: OwnedSemaphorePermit,
}

/// Runs a job in a transaction, or tells its caller why it can't be.
type Work = Box<dyn FnOnce(Result<&Transaction<'_>, Arc<rusqlite::Error>>) -> Ran + Send>;

/// A job that was run and waits for the commit.
struct Ran {
    /// Whether its changes are to stay.
    keep: bool,
    /// What SQLite said, if it refused.
    cause: Option<Arc<rusqlite::Error>>,
    /// Answers the caller, given how the commit went.
    finish: Box<dyn FnOnce(Result<(), Arc<rusqlite::Error>>) + Send>,
}

impl Writer {
    /// Opens the file, brings its schema up to date and starts the thread, which keeps `lock` until it ends.
    ///
    /// # Errors
    /// As [`Database::open_writer`].
    pub async fn open(database: Database, lock: Option<FileLock>) -> Result<Self, Fault> {
        let path = database.path().to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            let connection = database.open_writer()?;
            Self::start(database.path().to_owned(), connection, lock)
        });
        opened.await.map_err(|error| SqliteError::Panicked {
            file: path,
            message: error.to_string(),
        })?
    }

    /// Starts the thread on a connection that is open; `path` is for messages.
    ///
    /// # Errors
    /// `Storage` if the system gives no thread.
    pub fn start(
        path: PathBuf,
        connection: Connection,
        lock: Option<FileLock>,
    ) -> Result<Self, Fault> {
        let (orders, queue) = channel();
        let thread = std::thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || {
                run(connection, &queue);
                drop(lock);
            })
            .map_err(|cause| SqliteError::file("starting the writer of", &path, cause))?;
        Ok(Self {
            path: path.into(),
            orders: Mutex::new(Some(orders)),
            places: Arc::new(Semaphore::new(QUEUE)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `job` in a transaction shared with whatever else waits; its failure undoes it alone.
    ///
    /// # Errors
    /// The job's own fault, or SQLite's with the file's name; `Stopping` once closed.
    pub async fn grouped<T, F>(&self, job: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, JobError> + Send + 'static,
    {
        self.submit(false, job, |_| ()).await
    }

    /// As [`Writer::grouped`]; when the changes are durable, `then` runs on the writer's thread, in the order of
    /// commits and also if the caller is gone.
    ///
    /// # Errors
    /// As [`Writer::grouped`].
    pub async fn grouped_then<T, F, G>(&self, job: F, then: G) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, JobError> + Send + 'static,
        G: FnOnce(&T) + Send + 'static,
    {
        self.submit(false, job, then).await
    }

    /// Runs `job` in a transaction of its own.
    ///
    /// # Errors
    /// As [`Writer::grouped`].
    pub async fn alone<T, F>(&self, job: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, JobError> + Send + 'static,
    {
        self.submit(true, job, |_| ()).await
    }

    /// Takes no more jobs, finishes those taken, puts the write-ahead log into the file, and ends the thread.
    ///
    /// # Errors
    /// `Protocol` if the thread panicked.
    pub async fn close(&self) -> Result<(), Fault> {
        drop(lock(&self.orders).take());
        let Some(thread) = lock(&self.thread).take() else {
            return Ok(());
        };
        let joined = tokio::task::spawn_blocking(move || thread.join().is_ok()).await;
        if matches!(joined, Ok(true)) {
            return Ok(());
        }
        Err(self.panicked("the writer's thread ended").into())
    }

    async fn submit<T, F, G>(&self, alone: bool, job: F, then: G) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, JobError> + Send + 'static,
        G: FnOnce(&T) + Send + 'static,
    {
        let closed = || SqliteError::Closed {
            file: self.path.to_path_buf(),
        };
        let place = Arc::clone(&self.places)
            .acquire_owned()
            .await
            .map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let path = Arc::clone(&self.path);
        let order = Order {
            alone,
            work: Box::new(move |transaction| work(&path, transaction, job, then, reply)),
            _place: place,
        };
        let sent = lock(&self.orders)
            .as_ref()
            .is_some_and(|orders| orders.send(order).is_ok());
        if !sent {
            return Err(closed().into());
        }
        answer
            .await
            .map_err(|_| self.panicked("its answer was lost"))?
    }

    fn panicked(&self, message: &str) -> SqliteError {
        SqliteError::Panicked {
            file: self.path.to_path_buf(),
            message: message.to_owned(),
        }
    }
}

/// Runs one job; what it answers goes out when the commit is known.
fn work<T, F, G>(
    path: &Arc<Path>,
    transaction: Result<&Transaction<'_>, Arc<rusqlite::Error>>,
    job: F,
    then: G,
    reply: oneshot::Sender<Result<T, Fault>>,
) -> Ran
where
    T: Send + 'static,
    F: FnOnce(&Transaction<'_>) -> Result<T, JobError>,
    G: FnOnce(&T) + Send + 'static,
{
    let mut cause = None;
    let done: Result<T, Fault> = match transaction {
        Err(refusal) => Err(SqliteError::engine("writing", path, refusal).into()),
        Ok(transaction) => match catch_unwind(AssertUnwindSafe(|| job(transaction))) {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(JobError::Fault(fault))) => Err(fault),
            Ok(Err(JobError::Sqlite(error))) => {
                let error = Arc::new(error);
                cause = Some(Arc::clone(&error));
                Err(SqliteError::engine("writing", path, error).into())
            }
            Err(panic) => Err(SqliteError::Panicked {
                file: path.to_path_buf(),
                message: panic_text(panic.as_ref()).to_owned(),
            }
            .into()),
        },
    };
    let path = Arc::clone(path);
    Ran {
        keep: done.is_ok(),
        cause,
        finish: Box::new(move |committed| {
            let done = done.and_then(|done| match committed {
                Ok(()) => {
                    then(&done);
                    Ok(done)
                }
                Err(cause) => Err(SqliteError::engine("committing to", &path, cause).into()),
            });
            // The caller may have dropped its future: the job stays done.
            drop(reply.send(done));
        }),
    }
}

/// The thread: takes what waits, as a group where it may be one, until the last sender is gone.
fn run(mut connection: Connection, queue: &Receiver<Order>) {
    let mut held = None;
    let mut dirty = false;
    loop {
        let first = match held.take() {
            Some(order) => order,
            None if dirty => match queue.recv_timeout(IDLE) {
                Ok(order) => order,
                Err(RecvTimeoutError::Timeout) => {
                    dirty = !checkpoint(&connection, Duration::ZERO);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            },
            None => match queue.recv() {
                Ok(order) => order,
                Err(_) => break,
            },
        };
        let mut group = vec![first];
        while !group[0].alone && group.len() < GROUP {
            match queue.try_recv() {
                Ok(order) if order.alone => {
                    held = Some(order);
                    break;
                }
                Ok(order) => group.push(order),
                Err(_) => break,
            }
        }
        commit(&mut connection, group);
        dirty = true;
    }
    checkpoint(&connection, BUSY_TIMEOUT);
}

/// Runs the orders in one transaction, commits, and answers their callers.
fn commit(connection: &mut Connection, orders: Vec<Order>) {
    let several = orders.len() > 1;
    let transaction = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(transaction) => transaction,
        Err(error) => {
            let error = Arc::new(error);
            for order in orders {
                ((order.work)(Err(Arc::clone(&error))).finish)(Ok(()));
            }
            return;
        }
    };
    let mut lost = None;
    let mut all = Vec::with_capacity(orders.len());
    for order in orders {
        let ran = match &lost {
            Some(cause) => (order.work)(Err(Arc::clone(cause))),
            None => step(&transaction, several, order.work, &mut lost),
        };
        all.push(ran);
    }
    let committed = match lost {
        Some(cause) => Err(cause),
        None if all.iter().any(|ran| ran.keep) => transaction.commit().map_err(Arc::new),
        None => transaction.rollback().map_err(Arc::new),
    };
    for ran in all {
        (ran.finish)(committed.clone());
    }
}

/// Runs one job, between savepoints if it shares the transaction. A refusal (a full disk) that made SQLite undo the
/// whole transaction is left in `lost`.
fn step(
    transaction: &Transaction<'_>,
    several: bool,
    work: Work,
    lost: &mut Option<Arc<rusqlite::Error>>,
) -> Ran {
    let mark = |sql| {
        if several {
            transaction.execute_batch(sql)
        } else {
            Ok(())
        }
    };
    if let Err(error) = mark("SAVEPOINT job") {
        return work(Err(Arc::new(error)));
    }
    let ran = work(Ok(transaction));
    let marked = if ran.keep {
        mark("RELEASE job")
    } else if transaction.is_autocommit() {
        *lost = Some(ran.cause.clone().unwrap_or_else(aborted));
        return ran;
    } else {
        mark("ROLLBACK TO job; RELEASE job")
    };
    if let Err(error) = marked {
        *lost = Some(Arc::new(error));
    }
    ran
}

fn aborted() -> Arc<rusqlite::Error> {
    Arc::new(rusqlite::Error::SqliteFailure(
        ffi::Error::new(ffi::SQLITE_ABORT_ROLLBACK),
        Some("a job ended the transaction it was given".to_owned()),
    ))
}

/// Puts the write-ahead log into the file and cuts it; false if a reader is in the way.
fn checkpoint(connection: &Connection, wait: Duration) -> bool {
    let done = connection.busy_timeout(wait).and_then(|()| {
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
            row.get::<_, i64>(0)
        })
    });
    // What was committed is durable in the log whether or not it moves now: a failure is met again by a writer.
    let restored = connection.busy_timeout(BUSY_TIMEOUT);
    matches!((done, restored), (Ok(0), Ok(())))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Both hold an option that is taken whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
