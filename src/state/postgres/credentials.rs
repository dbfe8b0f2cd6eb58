//! What signing in keeps, in tables of the state's schema.

use async_trait::async_trait;

use super::schema::Schema;
use super::{Call, PostgresState};
use crate::fault::Fault;
use crate::model::name::ConnectionId;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::state::credentials::{Credential, Credentials, PinnedOrg};
use crate::state::seal::Sealed;

const ORG: &str = "SELECT id, url FROM {s}.org WHERE connection = $1";
const PIN: &str = "INSERT INTO {s}.org VALUES ($1, $2, $3) ON CONFLICT (connection) DO NOTHING";
const CREDENTIAL: &str =
    "SELECT revision, key_id, sealed FROM {s}.credential WHERE connection = $1";
const FIRST: &str = "INSERT INTO {s}.credential VALUES ($1, $2::bigint + 1, $3, $4) ON CONFLICT (connection) DO NOTHING";
const NEXT: &str = "UPDATE {s}.credential SET revision = $2::bigint + 1, key_id = $3, sealed = $4
     WHERE connection = $1 AND revision = $2::bigint";

async fn org(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
) -> Result<Option<PinnedOrg>, OrderError> {
    let rows = session
        .query(&schema.sql(ORG), &[&connection.as_str()])
        .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    Ok(Some(PinnedOrg {
        id: row.try_get(0)?,
        url: row.try_get(1)?,
    }))
}

async fn pin(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    given: &PinnedOrg,
) -> Result<PinnedOrg, OrderError> {
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
        [&connection.as_str(), &given.id, &given.url];
    session.execute(&schema.sql(PIN), &params).await?;
    Ok(org(session, schema, connection)
        .await?
        .unwrap_or_else(|| given.clone()))
}

async fn credential(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
) -> Result<Credential, OrderError> {
    let rows = session
        .query(&schema.sql(CREDENTIAL), &[&connection.as_str()])
        .await?;
    let Some(row) = rows.first() else {
        return Ok(Credential::default());
    };
    let (key_id, bytes): (Option<String>, Option<Vec<u8>>) = (row.try_get(1)?, row.try_get(2)?);
    Ok(Credential {
        revision: row.try_get::<_, i64>(0)?.cast_unsigned(),
        sealed: key_id
            .zip(bytes)
            .map(|(key_id, bytes)| Sealed { key_id, bytes }),
    })
}

async fn replace(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    after: u64,
    sealed: Option<&Sealed>,
) -> Result<bool, OrderError> {
    let sql = schema.sql(if after == 0 { FIRST } else { NEXT });
    let (key_id, bytes) = (
        sealed.map(|sealed| &sealed.key_id),
        sealed.map(|sealed| &sealed.bytes),
    );
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&connection.as_str(), &after.cast_signed(), &key_id, &bytes];
    if session.execute(&sql, &params).await? == 1 {
        return Ok(true);
    }
    // Somebody else was quicker, or we were, and the reply was lost.
    let stored = credential(session, schema, connection).await?;
    Ok(stored.is_left_by(after, sealed))
}

#[async_trait]
impl Credentials for PostgresState {
    async fn org(&self, connection: &ConnectionId) -> Result<Option<PinnedOrg>, Fault> {
        let order = Call {
            given: (self.schema(), connection.clone()),
            run: |session, (schema, connection)| Box::pin(org(session, schema, connection)),
        };
        self.run(&self.reader, order).await
    }

    async fn pin_org(
        &self,
        connection: &ConnectionId,
        given: &PinnedOrg,
    ) -> Result<PinnedOrg, Fault> {
        let order = Call {
            given: (self.schema(), connection.clone(), given.clone()),
            run: |session, (schema, connection, given)| {
                Box::pin(pin(session, schema, connection, given))
            },
        };
        self.run(self.writer(connection), order).await
    }

    async fn credential(&self, connection: &ConnectionId) -> Result<Credential, Fault> {
        let order = Call {
            given: (self.schema(), connection.clone()),
            run: |session, (schema, connection)| Box::pin(credential(session, schema, connection)),
        };
        self.run(&self.reader, order).await
    }

    async fn replace(
        &self,
        connection: &ConnectionId,
        after: u64,
        sealed: Option<Sealed>,
    ) -> Result<bool, Fault> {
        let order = Call {
            given: (self.schema(), connection.clone(), after, sealed),
            run: |session, (schema, connection, after, sealed)| {
                Box::pin(replace(
                    session,
                    schema,
                    connection,
                    *after,
                    sealed.as_ref(),
                ))
            },
        };
        self.run(self.writer(connection), order).await
    }
}
