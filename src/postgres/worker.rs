//! A connection and the task that owns it: orders one after the other, each to its end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Server;
use super::error::OrderError;
use super::session::Session;
use crate::fault::{Fault, FaultKind};

/// Orders that wait before a caller has to.
const QUEUE: usize = 16;
/// How often an order that others were in the way of is run at once.
const ATTEMPTS: usize = 8;
/// How long a close waits for the order in hand: a server may have stopped without breaking the connection.
const LAST_WAIT: Duration = Duration::from_secs(10);

/// What a worker runs; again from the start, if another transaction was in its way.
pub trait Order: Send + 'static {
    /// What it yields.
    type Answer: Send + 'static;

    /// Runs it once. A transaction that is open afterwards is rolled back.
    fn run<'a>(
        &'a mut self,
        session: &'a mut Session,
    ) -> BoxFuture<'a, Result<Self::Answer, OrderError>>;

    /// Whether it was done after all, when the connection broke under it. Asked on a new connection.
    fn was_done<'a>(
        &'a mut self,
        _session: &'a mut Session,
    ) -> BoxFuture<'a, Result<Option<Self::Answer>, OrderError>> {
        Box::pin(std::future::ready(Ok(None)))
    }
}

type Task = Box<dyn for<'a> FnOnce(&'a mut Line) -> BoxFuture<'a, ()> + Send>;

/// Runs orders on one connection.
pub struct Worker {
    orders: Mutex<Option<mpsc::Sender<Task>>>,
    task: Mutex<Option<JoinHandle<()>>>,
    closing: CancellationToken,
}

impl Worker {
    /// Starts the task; it connects when the first order comes.
    #[must_use]
    pub fn start(server: Arc<Server>) -> Self {
        let (orders, mut queue) = mpsc::channel::<Task>(QUEUE);
        let closing = CancellationToken::new();
        let mut line = Line {
            server,
            session: None,
            closing: closing.clone(),
        };
        let task = tokio::spawn(async move {
            while let Some(task) = queue.recv().await {
                task(&mut line).await;
            }
        });
        Self {
            orders: Mutex::new(Some(orders)),
            task: Mutex::new(Some(task)),
            closing,
        }
    }

    /// Runs an order. Dropping the future takes back nothing that was handed over.
    ///
    /// # Errors
    /// The order's; `Stopping` once the worker is closed.
    pub async fn run<O: Order>(&self, mut order: O) -> Result<O::Answer, Fault> {
        let orders = lock(&self.orders).clone();
        let (answer, done) = oneshot::channel();
        let task: Task = Box::new(move |line| {
            Box::pin(async move {
                // Nobody may be waiting any more.
                answer.send(line.run(&mut order).await).ok();
            })
        });
        let orders = orders.ok_or_else(stopping)?;
        orders.send(task).await.map_err(|_| stopping())?;
        drop(orders);
        done.await.map_err(|_| stopping())?
    }

    /// Finishes what was taken, as far as the connection is there, and closes.
    ///
    /// # Errors
    /// `Corrupt` if the task died, `Unavailable` if the server does not answer the order in hand.
    pub async fn close(&self) -> Result<(), Fault> {
        drop(lock(&self.orders).take());
        self.closing.cancel();
        let Some(mut task) = lock(&self.task).take() else {
            return Ok(());
        };
        if let Ok(ended) = tokio::time::timeout(LAST_WAIT, &mut task).await {
            return ended.map_err(|error| {
                Fault::new(FaultKind::Corrupt, "closing a connection to PostgreSQL").source(error)
            });
        }
        task.abort();
        let what = "PostgreSQL does not answer, its connection had to be cut";
        Err(Fault::new(FaultKind::Unavailable, what)
            .remedy("nothing is lost: what was not committed is done again at the next start"))
    }
}

fn stopping() -> Fault {
    Fault::new(
        FaultKind::Stopping,
        "the connection to PostgreSQL is closed",
    )
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The connection, while there is one.
struct Line {
    server: Arc<Server>,
    session: Option<Session>,
    /// Set when no connection is worth making any more.
    closing: CancellationToken,
}

impl Line {
    async fn run<O: Order>(&mut self, order: &mut O) -> Result<O::Answer, Fault> {
        let mut attempt = 1;
        loop {
            let session = self.session().await?;
            let error = match order.run(session).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if error.ends_session() || session.is_closed() {
                self.session = None;
                if let Some(answer) = self.was_done(order).await {
                    return Ok(answer);
                }
            } else if session.run("ROLLBACK").await.is_err() {
                self.session = None;
            }
            if !error.is_passing() || attempt == ATTEMPTS {
                return Err(error.into());
            }
            attempt += 1;
        }
    }

    async fn was_done<O: Order>(&mut self, order: &mut O) -> Option<O::Answer> {
        let session = self.session().await.ok()?;
        match order.was_done(session).await {
            Ok(answer) => answer,
            Err(_) => {
                self.session = None;
                None
            }
        }
    }

    async fn session(&mut self) -> Result<&mut Session, Fault> {
        if self.session.as_ref().is_none_or(Session::is_closed) {
            self.session = None;
        }
        match &mut self.session {
            Some(session) => Ok(session),
            none => {
                let session = tokio::select! {
                    biased;
                    () = self.closing.cancelled() => return Err(stopping()),
                    session = self.server.session() => session?,
                };
                Ok(none.insert(session))
            }
        }
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}
