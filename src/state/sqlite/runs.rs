//! Runs, a row each, and a row for what each writer did for it.

use async_trait::async_trait;
use rusqlite::params;

use super::{SqliteState, micros, parse, render};
use crate::fault::Fault;
use crate::model::name::{ConnectionId, JobId};
use crate::sqlite::error::JobError;
use crate::sqlite::readers::Readers;
use crate::state::runs::{Row, Run, RunHead, RunPart, Runs, RunsWanted, gathered};

/// The tables.
pub(super) const TABLES: &str = "
CREATE TABLE run (
    connection TEXT NOT NULL, job TEXT NOT NULL, id TEXT NOT NULL, began INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (connection, job, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX run_by_age ON run (began, id);
CREATE TABLE run_part (
    connection TEXT NOT NULL, job TEXT NOT NULL, id TEXT NOT NULL, writer TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (connection, job, id, writer)
) STRICT, WITHOUT ROWID;
";

const LIST: &str = "SELECT r.connection, r.job, r.body, p.body FROM (
        SELECT * FROM run WHERE (?1 IS NULL OR connection = ?1) AND (?2 IS NULL OR job = ?2)
        ORDER BY began DESC, id DESC LIMIT ?3
     ) AS r LEFT JOIN run_part AS p USING (connection, job, id)
     ORDER BY r.began DESC, r.id DESC, r.connection, r.job";
const OLD: &str = "SELECT id FROM run WHERE connection = ?1 AND job = ?2
     ORDER BY began DESC, id DESC LIMIT -1 OFFSET ?3";

/// Runs, those that began last first.
pub(super) async fn list(readers: &Readers, wanted: RunsWanted) -> Result<Vec<Run>, Fault> {
    readers
        .read(move |transaction| {
            let mut statement = transaction.prepare_cached(LIST)?;
            let limit = i64::try_from(wanted.limit).unwrap_or(i64::MAX);
            let rows = statement.query_and_then(
                params![
                    wanted.connection.as_ref().map(ConnectionId::as_str),
                    wanted.job.as_ref().map(JobId::as_str),
                    limit
                ],
                row,
            )?;
            gathered(rows)
        })
        .await
}

fn row(row: &rusqlite::Row<'_>) -> Result<Row, JobError> {
    let part: Option<String> = row.get(3)?;
    Ok((
        ConnectionId::new(row.get::<_, String>(0)?),
        JobId::new(row.get::<_, String>(1)?),
        parse(&row.get::<_, String>(2)?)?,
        part.as_deref().map(parse).transpose()?,
    ))
}

#[async_trait]
impl Runs for SqliteState {
    async fn note_run(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        head: RunHead,
        writer: &str,
        part: RunPart,
    ) -> Result<(), Fault> {
        let (connection, job, writer) = (connection.clone(), job.clone(), writer.to_owned());
        self.writer
            .grouped(move |transaction| {
                let name = (connection.as_str(), job.as_str(), head.id.as_str());
                transaction.execute(
                    "INSERT INTO run VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT DO UPDATE SET body = excluded.body WHERE ?6",
                    params![
                        name.0,
                        name.1,
                        name.2,
                        micros(head.began),
                        render(&head)?,
                        head.is_closed()
                    ],
                )?;
                transaction.execute(
                    "INSERT INTO run_part VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT DO UPDATE SET body = excluded.body",
                    params![name.0, name.1, name.2, writer, render(&part)?],
                )?;
                Ok(())
            })
            .await
    }

    async fn runs(&self, wanted: RunsWanted) -> Result<Vec<Run>, Fault> {
        list(&self.readers, wanted).await
    }

    async fn forget_runs(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        keep: usize,
    ) -> Result<(), Fault> {
        let (connection, job) = (connection.clone(), job.clone());
        let keep = i64::try_from(keep).unwrap_or(i64::MAX);
        self.writer
            .grouped(move |transaction| {
                let mut old = transaction.prepare_cached(OLD)?;
                let ids: Vec<String> = old
                    .query_map(params![connection.as_str(), job.as_str(), keep], |row| {
                        row.get(0)
                    })?
                    .collect::<Result<_, _>>()?;
                for id in ids {
                    let name = params![connection.as_str(), job.as_str(), id];
                    for table in ["run", "run_part"] {
                        transaction.execute(
                            &format!(
                                "DELETE FROM {table} WHERE connection = ?1 AND job = ?2 AND id = ?3"
                            ),
                            name,
                        )?;
                    }
                }
                Ok(())
            })
            .await
    }
}
