//! A connection and the task that owns it: orders one after the other, each to its end.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::Server;
use super::error::OrderError;
use super::session::Session;
use crate::fault::{Fault, FaultKind};

/// Orders that wait before a caller has to.
const QUEUE: usize = 16;
/// How often an order that others were in the way of is run at once.
const ATTEMPTS: usize = 8;

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
}

impl Worker {
    /// Starts the task; it connects when the first order comes.
    #[must_use]
    pub fn start(server: Arc<Server>) -> Self {
        let (orders, mut queue) = mpsc::channel::<Task>(QUEUE);
        let task = tokio::spawn(async move {
            let mut line = Line {
                server,
                session: None,
            };
            while let Some(task) = queue.recv().await {
                task(&mut line).await;
            }
        });
        Self {
            orders: Mutex::new(Some(orders)),
            task: Mutex::new(Some(task)),
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
        let stopping = || {
            Fault::new(
                FaultKind::Stopping,
                "the connection to PostgreSQL is closed",
            )
        };
        let orders = orders.ok_or_else(stopping)?;
        orders.send(task).await.map_err(|_| stopping())?;
        drop(orders);
        done.await.map_err(|_| stopping())?
    }

    /// Finishes what was taken, and closes.
    ///
    /// # Errors
    /// `Corrupt` if the task died.
    pub async fn close(&self) -> Result<(), Fault> {
        drop(lock(&self.orders).take());
        let task = lock(&self.task).take();
        match task {
            Some(task) => task.await.map_err(|error| {
                Fault::new(FaultKind::Corrupt, "closing a connection to PostgreSQL").source(error)
            }),
            None => Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The connection, while there is one.
struct Line {
    server: Arc<Server>,
    session: Option<Session>,
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
            none => Ok(none.insert(self.server.session().await?)),
        }
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}
