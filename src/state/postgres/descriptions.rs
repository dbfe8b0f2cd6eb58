//! Descriptions, in tables of the state's schema.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::schema::Schema;
use super::{Call, PostgresState};
use crate::fault::Fault;
use crate::model::name::{ConnectionId, ObjectName};
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::state::descriptions::{Described, Descriptions};

const ONE: &str = "SELECT body, read_at FROM {s}.description WHERE connection = $1 AND object = $2";
const ALL: &str =
    "SELECT object, read_at FROM {s}.description WHERE connection = $1 ORDER BY object";
const PUT: &str = "INSERT INTO {s}.description VALUES ($1, $2, $3, $4)
     ON CONFLICT (connection, object) DO UPDATE SET read_at = excluded.read_at, body = excluded.body";
const ASK: &str = "INSERT INTO {s}.refresh_asked VALUES ($1, $2)
     ON CONFLICT (connection) DO UPDATE SET at = excluded.at";
const ASKED: &str = "SELECT at FROM {s}.refresh_asked WHERE connection = $1";

async fn one(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    object: &ObjectName,
) -> Result<Option<Described>, OrderError> {
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 2] =
        [&connection.as_str(), &object.as_str()];
    let rows = session.query(&schema.sql(ONE), &params).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    Ok(Some(Described {
        body: row.try_get(0)?,
        read_at: row.try_get(1)?,
    }))
}

async fn all(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
) -> Result<Vec<(ObjectName, DateTime<Utc>)>, OrderError> {
    let rows = session
        .query(&schema.sql(ALL), &[&connection.as_str()])
        .await?;
    let all = rows.iter().map(|row| {
        Ok((
            ObjectName::new(row.try_get::<_, String>(0)?),
            row.try_get(1)?,
        ))
    });
    all.collect()
}

async fn put(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    object: &ObjectName,
    described: &Described,
) -> Result<(), OrderError> {
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 4] = [
        &connection.as_str(),
        &object.as_str(),
        &described.read_at,
        &described.body,
    ];
    session.execute(&schema.sql(PUT), &params).await?;
    Ok(())
}

async fn ask(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    at: DateTime<Utc>,
) -> Result<(), OrderError> {
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&connection.as_str(), &at];
    session.execute(&schema.sql(ASK), &params).await?;
    Ok(())
}

async fn asked(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
) -> Result<Option<DateTime<Utc>>, OrderError> {
    let rows = session
        .query(&schema.sql(ASKED), &[&connection.as_str()])
        .await?;
    let at = rows.first().map(|row| row.try_get(0)).transpose()?;
    Ok(at)
}

#[async_trait]
impl Descriptions for PostgresState {
    async fn description(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
    ) -> Result<Option<Described>, Fault> {
        let order = Call {
            given: (self.schema(), connection.clone(), object.clone()),
            run: |session, (schema, connection, object)| {
                Box::pin(one(session, schema, connection, object))
            },
        };
        self.run(&self.reader, order).await
    }

    async fn described(
        &self,
        connection: &ConnectionId,
    ) -> Result<Vec<(ObjectName, DateTime<Utc>)>, Fault> {
        let order = Call {
            given: (self.schema(), connection.clone()),
            run: |session, (schema, connection)| Box::pin(all(session, schema, connection)),
        };
        self.run(&self.reader, order).await
    }

    async fn put_description(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        described: Described,
    ) -> Result<(), Fault> {
        let order = Call {
            given: (self.schema(), connection.clone(), object.clone(), described),
            run: |session, (schema, connection, object, described)| {
                Box::pin(put(session, schema, connection, object, described))
            },
        };
        self.run(self.writer(connection), order).await
    }

    async fn ask_refresh(&self, connection: &ConnectionId, at: DateTime<Utc>) -> Result<(), Fault> {
        let order = Call {
            given: (self.schema(), connection.clone(), at),
            run: |session, (schema, connection, at)| {
                Box::pin(ask(session, schema, connection, *at))
            },
        };
        self.run(self.writer(connection), order).await
    }

    async fn refresh_asked(
        &self,
        connection: &ConnectionId,
    ) -> Result<Option<DateTime<Utc>>, Fault> {
        let order = Call {
            given: (self.schema(), connection.clone()),
            run: |session, (schema, connection)| Box::pin(asked(session, schema, connection)),
        };
        self.run(&self.reader, order).await
    }
}
