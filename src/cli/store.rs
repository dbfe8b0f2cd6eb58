//! The store as commands beside the daemon read it: whichever `[target]` names, and nothing is written.

use crate::app;
use crate::config::Config;
use crate::config::target::TargetConfig;
use crate::fault::Fault;
use crate::model::name::{ConnectionId, ObjectName};
use crate::model::record_id::RecordId;
use crate::target::port::{RowsPage, StoredRow, Traced};
use crate::target::postgres::read_only::ReadOnlyDatabase;
use crate::target::sqlite::{ReadOnlyStore, SqliteTarget};

pub(super) enum Store {
    Sqlite(ReadOnlyStore),
    Postgres(ReadOnlyDatabase),
}

impl Store {
    /// Opens nothing yet.
    pub(super) fn open(config: &Config) -> Result<Self, Fault> {
        Ok(match &config.target {
            TargetConfig::Sqlite { file } => Self::Sqlite(SqliteTarget::read_only(file)),
            TargetConfig::Postgres(target) => {
                Self::Postgres(ReadOnlyDatabase::new(app::postgres::target(target)?)?)
            }
        })
    }

    pub(super) async fn rows(&self, table: &str, page: RowsPage) -> Result<Vec<StoredRow>, Fault> {
        match self {
            Self::Sqlite(store) => store.rows(table, page).await,
            Self::Postgres(store) => store.rows(table, page).await,
        }
    }

    pub(super) async fn trace(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        record: &RecordId,
    ) -> Result<Vec<Traced>, Fault> {
        match self {
            Self::Sqlite(store) => store.trace(connection, object, record).await,
            Self::Postgres(store) => store.trace(connection, object, record).await,
        }
    }
}
