//! What signing in keeps, in `state.db`.

use async_trait::async_trait;
use rusqlite::{OptionalExtension, Transaction, params};

use super::{SqliteState, number};
use crate::fault::Fault;
use crate::model::name::ConnectionId;
use crate::sqlite::error::JobError;
use crate::state::credentials::{Credential, Credentials, PinnedOrg};
use crate::state::seal::Sealed;

fn org(
    transaction: &Transaction<'_>,
    connection: &ConnectionId,
) -> Result<Option<PinnedOrg>, JobError> {
    let sql = "SELECT id, url FROM org WHERE connection = ?1";
    Ok(transaction
        .query_row(sql, [connection.as_str()], |row| {
            Ok(PinnedOrg {
                id: row.get(0)?,
                url: row.get(1)?,
            })
        })
        .optional()?)
}

fn credential(
    transaction: &Transaction<'_>,
    connection: &ConnectionId,
) -> Result<Credential, JobError> {
    let sql = "SELECT revision, key_id, sealed FROM credential WHERE connection = ?1";
    let stored = transaction
        .query_row(sql, [connection.as_str()], |row| {
            let (key_id, bytes): (Option<String>, Option<Vec<u8>>) = (row.get(1)?, row.get(2)?);
            Ok(Credential {
                revision: row.get::<_, i64>(0)?.cast_unsigned(),
                sealed: key_id
                    .zip(bytes)
                    .map(|(key_id, bytes)| Sealed { key_id, bytes }),
            })
        })
        .optional()?;
    Ok(stored.unwrap_or_default())
}

#[async_trait]
impl Credentials for SqliteState {
    async fn org(&self, connection: &ConnectionId) -> Result<Option<PinnedOrg>, Fault> {
        let connection = connection.clone();
        self.readers
            .read(move |transaction| org(transaction, &connection))
            .await
    }

    async fn pin_org(
        &self,
        connection: &ConnectionId,
        given: &PinnedOrg,
    ) -> Result<PinnedOrg, Fault> {
        let (connection, given) = (connection.clone(), given.clone());
        self.writer
            .grouped(move |transaction| {
                transaction.execute(
                    "INSERT INTO org VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                    params![connection.as_str(), given.id, given.url],
                )?;
                Ok(org(transaction, &connection)?.unwrap_or_else(|| given.clone()))
            })
            .await
    }

    async fn credential(&self, connection: &ConnectionId) -> Result<Credential, Fault> {
        let connection = connection.clone();
        self.readers
            .read(move |transaction| credential(transaction, &connection))
            .await
    }

    async fn replace(
        &self,
        connection: &ConnectionId,
        after: u64,
        sealed: Option<Sealed>,
    ) -> Result<bool, Fault> {
        let connection = connection.clone();
        self.writer
            .grouped(move |transaction| {
                let stored = credential(transaction, &connection)?;
                if stored.revision != after {
                    return Ok(stored.is_left_by(after, sealed.as_ref()));
                }
                transaction.execute(
                    "INSERT INTO credential VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE
                     SET revision = excluded.revision, key_id = excluded.key_id, sealed = excluded.sealed",
                    params![
                        connection.as_str(),
                        number(after + 1),
                        sealed.as_ref().map(|sealed| &sealed.key_id),
                        sealed.as_ref().map(|sealed| &sealed.bytes)
                    ],
                )?;
                Ok(true)
            })
            .await
    }
}
