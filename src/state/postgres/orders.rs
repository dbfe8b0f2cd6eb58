//! Orders to jobs, a table of the state's schema.

use async_trait::async_trait;

use super::read::parse;
use super::schema::Schema;
use super::write::render;
use super::{Call, PostgresState};
use crate::fault::Fault;
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::state::orders::{Asked, Order, Orders, Standing, Wish};

const STANDING: &str =
    "SELECT revision, body::text FROM {s}.job_order WHERE connection = $1 AND job = $2";
const ALL: &str = "SELECT connection, job, revision, body::text FROM {s}.job_order
     ORDER BY connection, job";
const FIRST: &str = "INSERT INTO {s}.job_order VALUES ($1, $2, $3::bigint + 1, $4::text::jsonb)
     ON CONFLICT (connection, job) DO NOTHING";
const NEXT: &str = "UPDATE {s}.job_order SET revision = $3::bigint + 1, body = $4::text::jsonb
     WHERE connection = $1 AND job = $2 AND revision = $3::bigint";

const ASK: &str = "INSERT INTO {s}.sync_asked AS s VALUES ($1, $2, 1, 0, $3::text::jsonb)
     ON CONFLICT (connection, object) DO UPDATE SET asked = s.asked + 1, body = excluded.body";
const ASKED: &str = "SELECT object, asked, body::text FROM {s}.sync_asked
     WHERE connection = $1 AND asked > done ORDER BY object";
const DONE: &str = "UPDATE {s}.sync_asked SET done = greatest(done, $3::bigint)
     WHERE connection = $1 AND object = $2";

async fn standing(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    job: &JobId,
) -> Result<Standing, OrderError> {
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 2] =
        [&connection.as_str(), &job.as_str()];
    let rows = session.query(&schema.sql(STANDING), &params).await?;
    let Some(row) = rows.first() else {
        return Ok(Standing::default());
    };
    Ok(Standing {
        revision: row.try_get::<_, i64>(0)?.cast_unsigned(),
        order: parse(row.try_get(1)?)?,
    })
}

async fn all(
    session: &mut Session,
    schema: &Schema,
) -> Result<Vec<(ConnectionId, JobId, Standing)>, OrderError> {
    let rows = session.query(&schema.sql(ALL), &[]).await?;
    let all = rows.iter().map(|row| {
        let standing = Standing {
            revision: row.try_get::<_, i64>(2)?.cast_unsigned(),
            order: parse(row.try_get(3)?)?,
        };
        Ok((
            ConnectionId::new(row.try_get::<_, String>(0)?),
            JobId::new(row.try_get::<_, String>(1)?),
            standing,
        ))
    });
    all.collect()
}

async fn give(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    job: &JobId,
    after: u64,
    order: &Order,
) -> Result<bool, OrderError> {
    let (sql, body) = (if after == 0 { FIRST } else { NEXT }, render(order)?);
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 4] = [
        &connection.as_str(),
        &job.as_str(),
        &after.cast_signed(),
        &body,
    ];
    if session.execute(&schema.sql(sql), &params).await? == 1 {
        return Ok(true);
    }
    // Somebody else was quicker, or we were, and the reply was lost.
    let stored = standing(session, schema, connection, job).await?;
    Ok(stored.is_left_by(after, order))
}

async fn ask(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    object: &ObjectName,
    wish: &Wish,
) -> Result<(), OrderError> {
    let body = render(wish)?;
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
        [&connection.as_str(), &object.as_str(), &body];
    session.execute(&schema.sql(ASK), &params).await?;
    Ok(())
}

async fn asked(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
) -> Result<Vec<(ObjectName, Asked)>, OrderError> {
    let rows = session
        .query(&schema.sql(ASKED), &[&connection.as_str()])
        .await?;
    let all = rows.iter().map(|row| {
        let asked = Asked {
            number: row.try_get::<_, i64>(1)?.cast_unsigned(),
            wish: parse(row.try_get(2)?)?,
        };
        Ok((ObjectName::new(row.try_get::<_, String>(0)?), asked))
    });
    all.collect()
}

async fn done(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    object: &ObjectName,
    number: u64,
) -> Result<(), OrderError> {
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [
        &connection.as_str(),
        &object.as_str(),
        &number.cast_signed(),
    ];
    session.execute(&schema.sql(DONE), &params).await?;
    Ok(())
}

#[async_trait]
impl Orders for PostgresState {
    async fn standing(&self, connection: &ConnectionId, job: &JobId) -> Result<Standing, Fault> {
        let order = Call {
            given: (self.schema(), connection.clone(), job.clone()),
            run: |session, (schema, connection, job)| {
                Box::pin(standing(session, schema, connection, job))
            },
        };
        self.run(&self.reader, order).await
    }

    async fn all_standing(&self) -> Result<Vec<(ConnectionId, JobId, Standing)>, Fault> {
        let order = Call {
            given: self.schema(),
            run: |session, schema| Box::pin(all(session, schema)),
        };
        self.run(&self.reader, order).await
    }

    async fn give(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        after: u64,
        order: Order,
    ) -> Result<bool, Fault> {
        let order = Call {
            given: (self.schema(), connection.clone(), job.clone(), after, order),
            run: |session, (schema, connection, job, after, order)| {
                Box::pin(give(session, schema, connection, job, *after, order))
            },
        };
        self.run(self.writer(connection), order).await
    }

    async fn ask_sync(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        wish: Wish,
    ) -> Result<(), Fault> {
        let order = Call {
            given: (self.schema(), connection.clone(), object.clone(), wish),
            run: |session, (schema, connection, object, wish)| {
                Box::pin(ask(session, schema, connection, object, wish))
            },
        };
        self.run(self.writer(connection), order).await
    }

    async fn asked_syncs(
        &self,
        connection: &ConnectionId,
    ) -> Result<Vec<(ObjectName, Asked)>, Fault> {
        let order = Call {
            given: (self.schema(), connection.clone()),
            run: |session, (schema, connection)| Box::pin(asked(session, schema, connection)),
        };
        self.run(&self.reader, order).await
    }

    async fn sync_done(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        number: u64,
    ) -> Result<(), Fault> {
        let order = Call {
            given: (self.schema(), connection.clone(), object.clone(), number),
            run: |session, (schema, connection, object, number)| {
                Box::pin(done(session, schema, connection, object, *number))
            },
        };
        self.run(self.writer(connection), order).await
    }
}
