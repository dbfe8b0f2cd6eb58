//! A store that a daemon may be writing, only read: for commands beside it.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{PostgresSettings, Schemas, read};
use crate::fault::Fault;
use crate::model::name::{ConnectionId, ObjectName};
use crate::model::record_id::RecordId;
use crate::postgres::Server;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::postgres::worker::{Order, Worker};
use crate::target::port::{RowsPage, StoredRow, Traced};

/// One state of everything, and nothing is written whatever a statement tries (PostgreSQL documentation, "SET
/// TRANSACTION").
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";

/// Rows and ledger in a PostgreSQL database, in transactions that write nothing. Connects at the first call.
#[derive(Debug)]
pub struct ReadOnlyDatabase {
    schemas: Arc<Schemas>,
    worker: Worker,
}

impl ReadOnlyDatabase {
    /// # Errors
    /// `Config` for settings that make no sense.
    pub fn new(settings: PostgresSettings) -> Result<Self, Fault> {
        Ok(Self {
            worker: Worker::start(Arc::new(Server::new(&settings.server)?)),
            schemas: Arc::new(settings.into_schemas()),
        })
    }

    /// As [`crate::target::port::Target::rows`].
    ///
    /// # Errors
    /// `Missing` for an unknown table or column, else as the server says.
    pub async fn rows(&self, table: &str, page: RowsPage) -> Result<Vec<StoredRow>, Fault> {
        let order = Rows {
            schemas: Arc::clone(&self.schemas),
            table: table.to_owned(),
            page,
        };
        self.worker.run(order).await
    }

    /// As [`crate::target::port::Target::trace`].
    ///
    /// # Errors
    /// `Missing` where no daemon has made its ledger yet, else as the server says.
    pub async fn trace(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        record: &RecordId,
    ) -> Result<Vec<Traced>, Fault> {
        let order = Trace {
            schemas: Arc::clone(&self.schemas),
            key: (connection.clone(), object.clone(), record.clone()),
        };
        self.worker.run(order).await
    }
}

struct Rows {
    schemas: Arc<Schemas>,
    table: String,
    page: RowsPage,
}

impl Order for Rows {
    type Answer = Vec<StoredRow>;

    fn run<'a>(
        &'a mut self,
        session: &'a mut Session,
    ) -> BoxFuture<'a, Result<Self::Answer, OrderError>> {
        Box::pin(async move {
            session.run(BEGIN).await?;
            let rows = read::rows(session, &self.schemas, &self.table, &self.page).await?;
            session.run("COMMIT").await?;
            Ok(rows)
        })
    }
}

struct Trace {
    schemas: Arc<Schemas>,
    key: (ConnectionId, ObjectName, RecordId),
}

impl Order for Trace {
    type Answer = Vec<Traced>;

    fn run<'a>(
        &'a mut self,
        session: &'a mut Session,
    ) -> BoxFuture<'a, Result<Self::Answer, OrderError>> {
        Box::pin(async move {
            let (connection, object, record) = &self.key;
            session.run(BEGIN).await?;
            let traced = read::trace(session, &self.schemas, connection, object, record).await?;
            session.run("COMMIT").await?;
            Ok(traced)
        })
    }
}
