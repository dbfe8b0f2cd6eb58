//! Runs, two tables of the state's schema.

use async_trait::async_trait;

use super::read::parse;
use super::schema::Schema;
use super::write::render;
use super::{Call, PostgresState};
use crate::fault::Fault;
use crate::model::name::{ConnectionId, JobId};
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::state::runs::{Row, Run, RunHead, RunPart, Runs, RunsWanted, gathered};

/// Head and part in one statement, so in one transaction.
const NOTE: &str = "WITH head AS (
        INSERT INTO {s}.run VALUES ($1, $2, $3, $4, $5::text::jsonb)
        ON CONFLICT (connection, job, id) DO UPDATE SET body = excluded.body WHERE $6::bool
     )
     INSERT INTO {s}.run_part VALUES ($1, $2, $3, $7, $8::text::jsonb)
     ON CONFLICT (connection, job, id, writer) DO UPDATE SET body = excluded.body";
const LIST: &str = "SELECT r.connection, r.job, r.body::text, p.body::text FROM (
        SELECT * FROM {s}.run WHERE ($1::text IS NULL OR connection = $1) AND ($2::text IS NULL OR job = $2)
        ORDER BY began DESC, id DESC LIMIT $3
     ) AS r LEFT JOIN {s}.run_part AS p USING (connection, job, id)
     ORDER BY r.began DESC, r.id DESC, r.connection, r.job";
const FORGET: &str = "WITH old AS (
        DELETE FROM {s}.run WHERE connection = $1 AND job = $2 AND id IN (
            SELECT id FROM {s}.run WHERE connection = $1 AND job = $2 ORDER BY began DESC, id DESC OFFSET $3
        ) RETURNING id
     )
     DELETE FROM {s}.run_part AS p USING old WHERE p.connection = $1 AND p.job = $2 AND p.id = old.id";

type Name = (ConnectionId, JobId);

async fn note(
    session: &mut Session,
    schema: &Schema,
    (connection, job): &Name,
    head: &RunHead,
    writer: &str,
    part: &RunPart,
) -> Result<(), OrderError> {
    let (body, part) = (render(head)?, render(part)?);
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 8] = [
        &connection.as_str(),
        &job.as_str(),
        &head.id,
        &head.began,
        &body,
        &head.is_closed(),
        &writer,
        &part,
    ];
    session.execute(&schema.sql(NOTE), &params).await?;
    Ok(())
}

async fn list(
    session: &mut Session,
    schema: &Schema,
    wanted: &RunsWanted,
) -> Result<Vec<Run>, OrderError> {
    let connection = wanted.connection.as_ref().map(ConnectionId::as_str);
    let job = wanted.job.as_ref().map(JobId::as_str);
    let limit = i64::try_from(wanted.limit).unwrap_or(i64::MAX);
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&connection, &job, &limit];
    let rows = session.query(&schema.sql(LIST), &params).await?;
    gathered(rows.iter().map(row))
}

fn row(row: &tokio_postgres::Row) -> Result<Row, OrderError> {
    Ok((
        ConnectionId::new(row.try_get::<_, String>(0)?),
        JobId::new(row.try_get::<_, String>(1)?),
        parse(row.try_get(2)?)?,
        row.try_get::<_, Option<&str>>(3)?.map(parse).transpose()?,
    ))
}

async fn forget(
    session: &mut Session,
    schema: &Schema,
    (connection, job): &Name,
    keep: usize,
) -> Result<(), OrderError> {
    let keep = i64::try_from(keep).unwrap_or(i64::MAX);
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
        [&connection.as_str(), &job.as_str(), &keep];
    session.execute(&schema.sql(FORGET), &params).await?;
    Ok(())
}

#[async_trait]
impl Runs for PostgresState {
    async fn note_run(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        head: RunHead,
        writer: &str,
        part: RunPart,
    ) -> Result<(), Fault> {
        let name = (connection.clone(), job.clone());
        let order = Call {
            given: (self.schema(), name, head, writer.to_owned(), part),
            run: |session, (schema, name, head, writer, part)| {
                Box::pin(note(session, schema, name, head, writer, part))
            },
        };
        self.run(self.writer(connection), order).await
    }

    async fn runs(&self, wanted: RunsWanted) -> Result<Vec<Run>, Fault> {
        let order = Call {
            given: (self.schema(), wanted),
            run: |session, (schema, wanted)| Box::pin(list(session, schema, wanted)),
        };
        self.run(&self.reader, order).await
    }

    async fn forget_runs(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        keep: usize,
    ) -> Result<(), Fault> {
        let order = Call {
            given: (self.schema(), (connection.clone(), job.clone()), keep),
            run: |session, (schema, name, keep)| Box::pin(forget(session, schema, name, *keep)),
        };
        self.run(self.writer(connection), order).await
    }
}
