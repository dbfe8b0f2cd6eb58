//! A store that a daemon may be writing, only read: for commands beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::{PostgresSettings, Schemas, read, read_held};
use crate::fault::Fault;
use crate::model::name::{ConnectionId, ObjectKey, ObjectName};
use crate::model::record_id::RecordId;
use crate::model::version::Version;
use crate::postgres::Server;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::postgres::worker::{Order, Worker};
use crate::target::beside::{HeldRow, Holder, StoreBeside};
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
}

#[async_trait]
impl StoreBeside for ReadOnlyDatabase {
    async fn rows(&self, table: &str, page: RowsPage) -> Result<Vec<StoredRow>, Fault> {
        let order = Rows {
            schemas: Arc::clone(&self.schemas),
            table: table.to_owned(),
            page,
        };
        self.worker.run(order).await
    }

    async fn trace(
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

    async fn held(
        &self,
        key: &ObjectKey,
        table: &str,
        after: Option<&RecordId>,
        limit: usize,
    ) -> Result<Vec<HeldRow>, Fault> {
        let order = Held {
            schemas: Arc::clone(&self.schemas),
            key: key.clone(),
            table: table.to_owned(),
            after: after.cloned(),
            limit,
        };
        self.worker.run(order).await
    }

    async fn newest(&self, key: &ObjectKey) -> Result<Option<Version>, Fault> {
        let order = Newest {
            schemas: Arc::clone(&self.schemas),
            key: key.clone(),
        };
        self.worker.run(order).await
    }

    async fn holders(
        &self,
        table: &str,
        gsids: &[Uuid],
    ) -> Result<BTreeMap<Uuid, Vec<Holder>>, Fault> {
        let order = Holders {
            schemas: Arc::clone(&self.schemas),
            table: table.to_owned(),
            gsids: gsids.to_vec(),
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

struct Held {
    schemas: Arc<Schemas>,
    key: ObjectKey,
    table: String,
    after: Option<RecordId>,
    limit: usize,
}

impl Order for Held {
    type Answer = Vec<HeldRow>;

    fn run<'a>(
        &'a mut self,
        session: &'a mut Session,
    ) -> BoxFuture<'a, Result<Self::Answer, OrderError>> {
        Box::pin(async move {
            let (key, after) = (&self.key, self.after.as_ref());
            session.run(BEGIN).await?;
            let held = read_held::held(session, &self.schemas, key, &self.table, after, self.limit)
                .await?;
            session.run("COMMIT").await?;
            Ok(held)
        })
    }
}

struct Holders {
    schemas: Arc<Schemas>,
    table: String,
    gsids: Vec<Uuid>,
}

impl Order for Holders {
    type Answer = BTreeMap<Uuid, Vec<Holder>>;

    fn run<'a>(
        &'a mut self,
        session: &'a mut Session,
    ) -> BoxFuture<'a, Result<Self::Answer, OrderError>> {
        Box::pin(async move {
            session.run(BEGIN).await?;
            let holders =
                read_held::holders(session, &self.schemas, &self.table, &self.gsids).await?;
            session.run("COMMIT").await?;
            Ok(holders)
        })
    }
}

struct Newest {
    schemas: Arc<Schemas>,
    key: ObjectKey,
}

impl Order for Newest {
    type Answer = Option<Version>;

    fn run<'a>(
        &'a mut self,
        session: &'a mut Session,
    ) -> BoxFuture<'a, Result<Self::Answer, OrderError>> {
        Box::pin(async move {
            session.run(BEGIN).await?;
            let newest = read_held::newest(session, &self.schemas, &self.key).await?;
            session.run("COMMIT").await?;
            Ok(newest)
        })
    }
}
