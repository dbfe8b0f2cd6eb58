//! The PostgreSQL engine of the state: one schema that several daemons share, each connection owned by one of them.
//!
//! Every write is one transaction that compares the owner's term with the stored one while nobody can raise it
//! (`lease.rs`). Leases are judged by the server's clock. A write whose reply is lost is not repeated here: it may be
//! made again by the caller, and changes nothing then.

mod credentials;
mod descriptions;
mod lease;
mod notices;
mod orders;
mod read;
mod runs;
mod schema;
#[cfg(test)]
mod tests;
mod write;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;

use self::schema::Schema;
use crate::fault::Fault;
use crate::model::name::{ConnectionId, ObjectName};
use crate::model::record_id::RecordId;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::postgres::worker::{Order, Worker};
use crate::postgres::{Server, Settings};
use crate::state::port::{
    Evidence, Hinted, Hole, ObjectState, Owed, Progress, State, StoredPosition,
};

/// Connections that write, each for its own CRM connections; made when first needed.
const WRITERS: usize = 4;

/// State in a PostgreSQL database.
pub struct PostgresState {
    name: String,
    schema: Arc<Schema>,
    /// The tables are there.
    made: OnceCell<()>,
    writers: Vec<Worker>,
    /// Leases are renewed while writers are busy.
    keeper: Worker,
    reader: Worker,
}

impl PostgresState {
    /// Reaches nobody yet: the first call does, and makes the tables in `schema`; so does the next one, where that
    /// went wrong.
    ///
    /// # Errors
    /// `Config` for settings that make no sense.
    pub fn new(settings: &Settings, schema: &str) -> Result<Self, Fault> {
        let server = Arc::new(Server::new(settings)?);
        let start = || Worker::start(Arc::clone(&server));
        Ok(Self {
            name: server.name().to_owned(),
            schema: Arc::new(Schema::new(schema)?),
            made: OnceCell::new(),
            writers: (0..WRITERS).map(|_| start()).collect(),
            keeper: start(),
            reader: start(),
        })
    }

    /// For whoever only reads; makes nothing.
    ///
    /// # Errors
    /// As [`PostgresState::new`].
    pub fn read_only(settings: &Settings, schema: &str) -> Result<Self, Fault> {
        Ok(Self {
            made: OnceCell::new_with(Some(())),
            ..Self::new(settings, schema)?
        })
    }

    async fn run<O: Order>(&self, worker: &Worker, order: O) -> Result<O::Answer, Fault> {
        self.made.get_or_try_init(|| self.make()).await?;
        worker.run(order).await
    }

    async fn make(&self) -> Result<(), Fault> {
        let order = Call {
            given: self.schema(),
            run: |session, schema| Box::pin(schema::migrate(session, schema)),
        };
        let made = self.keeper.run(order).await;
        made.map_err(|fault| fault.context("making the tables of the state"))
    }

    /// The connection that writes for a CRM connection: one, so that its writes keep their order.
    fn writer(&self, connection: &ConnectionId) -> &Worker {
        let mut hasher = DefaultHasher::new();
        connection.hash(&mut hasher);
        &self.writers[hasher.finish() as usize % self.writers.len()]
    }

    fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.schema)
    }
}

/// An order that is a call of one function.
struct Call<G, A> {
    given: G,
    run: for<'a> fn(&'a mut Session, &'a G) -> BoxFuture<'a, Result<A, OrderError>>,
}

impl<G: Send + Sync + 'static, A: Send + 'static> Order for Call<G, A> {
    type Answer = A;

    fn run<'a>(&'a mut self, session: &'a mut Session) -> BoxFuture<'a, Result<A, OrderError>> {
        (self.run)(session, &self.given)
    }
}

#[async_trait]
impl State for PostgresState {
    async fn acquire(
        &self,
        connection: &ConnectionId,
        owner: &str,
        _now: DateTime<Utc>,
        lease: Duration,
    ) -> Result<Option<u64>, Fault> {
        let order = Call {
            given: (self.schema(), connection.clone(), owner.to_owned(), lease),
            run: |session, (schema, connection, owner, lease)| {
                Box::pin(lease::acquire(session, schema, connection, owner, *lease))
            },
        };
        self.run(&self.keeper, order).await
    }

    async fn renew(
        &self,
        connection: &ConnectionId,
        term: u64,
        _now: DateTime<Utc>,
        lease: Duration,
    ) -> Result<(), Fault> {
        let order = Call {
            given: (self.schema(), connection.clone(), term, lease),
            run: |session, (schema, connection, term, lease)| {
                Box::pin(lease::renew(session, schema, connection, *term, *lease))
            },
        };
        self.run(&self.keeper, order).await
    }

    async fn release(&self, connection: &ConnectionId, term: u64) -> Result<(), Fault> {
        let order = Call {
            given: (self.schema(), connection.clone(), term),
            run: |session, (schema, connection, term)| {
                Box::pin(lease::release(session, schema, connection, *term))
            },
        };
        self.run(&self.keeper, order).await
    }

    async fn position(&self, connection: &ConnectionId) -> Result<Option<StoredPosition>, Fault> {
        let order = Call {
            given: (self.schema(), connection.clone()),
            run: |session, (schema, connection)| {
                Box::pin(read::position(session, schema, connection))
            },
        };
        self.run(&self.reader, order).await
    }

    async fn commit(
        &self,
        connection: &ConnectionId,
        term: u64,
        progress: Progress,
    ) -> Result<(), Fault> {
        let order = Call {
            given: (self.schema(), connection.clone(), term, progress),
            run: |session, (schema, connection, term, progress)| {
                Box::pin(write::commit(session, schema, connection, *term, progress))
            },
        };
        self.run(self.writer(connection), order).await
    }

    async fn owed(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        limit: usize,
    ) -> Result<Vec<Owed>, Fault> {
        let order = Call {
            given: (self.schema(), connection.clone(), object.clone(), limit),
            run: |session, (schema, connection, object, limit)| {
                Box::pin(read::owed(session, schema, connection, object, *limit))
            },
        };
        self.run(&self.reader, order).await
    }

    async fn owed_counts(
        &self,
        connection: &ConnectionId,
    ) -> Result<Vec<(ObjectName, u64)>, Fault> {
        let order = Call {
            given: (self.schema(), connection.clone()),
            run: |session, (schema, connection)| {
                Box::pin(read::owed_counts(session, schema, connection))
            },
        };
        self.run(&self.reader, order).await
    }

    async fn holes(
        &self,
        connection: Option<&ConnectionId>,
        all: bool,
    ) -> Result<Vec<Hole>, Fault> {
        let order = Call {
            given: (self.schema(), connection.cloned(), all),
            run: |session, (schema, connection, all)| {
                Box::pin(read::holes(session, schema, connection.as_ref(), *all))
            },
        };
        self.run(&self.reader, order).await
    }

    async fn repairing(
        &self,
        connection: &ConnectionId,
        term: u64,
        hole: i64,
    ) -> Result<(), Fault> {
        let order = Call {
            given: (self.schema(), connection.clone(), term, hole),
            run: |session, (schema, connection, term, hole)| {
                Box::pin(write::repairing(session, schema, connection, *term, *hole))
            },
        };
        self.run(self.writer(connection), order).await
    }

    async fn close_hole(
        &self,
        connection: &ConnectionId,
        term: u64,
        hole: i64,
        evidence: Evidence,
        now: DateTime<Utc>,
    ) -> Result<(), Fault> {
        let closing = write::Closing {
            term,
            hole,
            evidence,
            now,
        };
        let order = Call {
            given: (self.schema(), connection.clone(), closing),
            run: |session, (schema, connection, closing)| {
                Box::pin(write::close_hole(session, schema, connection, closing))
            },
        };
        self.run(self.writer(connection), order).await
    }

    async fn object(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
    ) -> Result<ObjectState, Fault> {
        let order = Call {
            given: (self.schema(), connection.clone(), object.clone()),
            run: |session, (schema, connection, object)| {
                Box::pin(read::object(session, schema, connection, object))
            },
        };
        self.run(&self.reader, order).await
    }

    async fn objects(
        &self,
        connection: &ConnectionId,
    ) -> Result<Vec<(ObjectName, ObjectState)>, Fault> {
        let order = Call {
            given: (self.schema(), connection.clone()),
            run: |session, (schema, connection)| {
                Box::pin(read::objects(session, schema, connection))
            },
        };
        self.run(&self.reader, order).await
    }

    async fn put_object(
        &self,
        connection: &ConnectionId,
        term: u64,
        object: &ObjectName,
        state: ObjectState,
    ) -> Result<(), Fault> {
        let order = Call {
            given: (
                self.schema(),
                connection.clone(),
                term,
                object.clone(),
                state,
            ),
            run: |session, (schema, connection, term, object, state)| {
                Box::pin(write::put_object(
                    session, schema, connection, *term, object, state,
                ))
            },
        };
        self.run(self.writer(connection), order).await
    }

    async fn request_republish(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        record: &RecordId,
    ) -> Result<(), Fault> {
        let order = Call {
            given: (
                self.schema(),
                connection.clone(),
                object.clone(),
                record.clone(),
            ),
            run: |session, (schema, connection, object, record)| {
                Box::pin(write::request(session, schema, connection, object, record))
            },
        };
        self.run(self.writer(connection), order).await
    }

    async fn to_republish(
        &self,
        connection: &ConnectionId,
        limit: usize,
    ) -> Result<Vec<(ObjectName, RecordId)>, Fault> {
        let order = Call {
            given: (self.schema(), connection.clone(), limit),
            run: |session, (schema, connection, limit)| {
                Box::pin(read::to_republish(session, schema, connection, *limit))
            },
        };
        self.run(&self.reader, order).await
    }

    async fn hint(&self, connection: &ConnectionId, hints: Vec<Hinted>) -> Result<(), Fault> {
        let order = Call {
            given: (self.schema(), connection.clone(), hints),
            run: |session, (schema, connection, hints)| {
                Box::pin(write::hint(session, schema, connection, hints))
            },
        };
        self.run(self.writer(connection), order).await
    }

    async fn hints(&self, connection: &ConnectionId, limit: usize) -> Result<Vec<Hinted>, Fault> {
        let order = Call {
            given: (self.schema(), connection.clone(), limit),
            run: |session, (schema, connection, limit)| {
                Box::pin(read::hints(session, schema, connection, *limit))
            },
        };
        self.run(&self.reader, order).await
    }

    async fn close(&self) -> Result<(), Fault> {
        for writer in &self.writers {
            writer.close().await?;
        }
        self.keeper.close().await?;
        self.reader.close().await
    }
}

impl std::fmt::Debug for PostgresState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresState")
            .field("server", &self.name)
            .finish_non_exhaustive()
    }
}
