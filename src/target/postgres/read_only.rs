//! A store that a daemon may be writing, only read: for commands beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::orders::order;
use super::{PostgresSettings, Schemas, read, read_held, review};
use crate::fault::Fault;
use crate::model::name::{ConnectionId, ObjectKey, ObjectName};
use crate::model::record_id::RecordId;
use crate::model::version::Version;
use crate::postgres::Server;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::postgres::worker::{Order, Worker};
use crate::target::beside::{HeldRow, Holder, StoreBeside};
use crate::target::port::review::{Binding, Review, Which};
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
    async fn is_made(&self) -> Result<bool, Fault> {
        let order = Made {
            schemas: Arc::clone(&self.schemas),
        };
        self.worker.run(order).await
    }

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
            connection: connection.clone(),
            object: object.clone(),
            record: record.clone(),
        };
        self.worker.run(order).await
    }

    async fn reviews(&self, which: &Which) -> Result<Vec<Review>, Fault> {
        let order = Reviews {
            schemas: Arc::clone(&self.schemas),
            which: which.clone(),
        };
        self.worker.run(order).await
    }

    async fn bindings(&self) -> Result<Vec<Binding>, Fault> {
        let order = Bindings {
            schemas: Arc::clone(&self.schemas),
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

/// Runs a read in one transaction that writes nothing.
macro_rules! read {
    ($session:ident, $call:expr) => {
        async move {
            $session.run(BEGIN).await?;
            let answer = $call.await?;
            $session.run("COMMIT").await?;
            Ok(answer)
        }
    };
}

order!(Made {} -> bool = |own, session| read!(session, read::is_made(session, &own.schemas)));
order!(Rows { table: String, page: RowsPage } -> Vec<StoredRow> =
    |own, session| read!(session, read::rows(session, &own.schemas, &own.table, &own.page)));
order!(Trace { connection: ConnectionId, object: ObjectName, record: RecordId } -> Vec<Traced> =
|own, session| read!(
    session,
    read::trace(session, &own.schemas, &own.connection, &own.object, &own.record)
));
order!(Reviews { which: Which } -> Vec<Review> =
    |own, session| read!(session, review::list(session, &own.schemas, &own.which)));
order!(Bindings {} -> Vec<Binding> =
    |own, session| read!(session, review::bindings(session, &own.schemas)));
order!(Held { key: ObjectKey, table: String, after: Option<RecordId>, limit: usize } -> Vec<HeldRow> =
|own, session| read!(
    session,
    read_held::held(session, &own.schemas, &own.key, &own.table, own.after.as_ref(), own.limit)
));
order!(Newest { key: ObjectKey } -> Option<Version> =
    |own, session| read!(session, read_held::newest(session, &own.schemas, &own.key)));
order!(Holders { table: String, gsids: Vec<Uuid> } -> BTreeMap<Uuid, Vec<Holder>> =
    |own, session| read!(session, read_held::holders(session, &own.schemas, &own.table, &own.gsids)));
