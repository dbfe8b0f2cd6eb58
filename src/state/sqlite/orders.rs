//! Orders to jobs, one row each.

use async_trait::async_trait;
use rusqlite::{OptionalExtension, Transaction, params};

use super::{SqliteState, number, parse, render};
use crate::fault::Fault;
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::sqlite::error::JobError;
use crate::state::orders::{Asked, Order, Orders, Standing, Wish};

/// The table.
pub(super) const TABLE: &str = "
CREATE TABLE job_order (
    connection TEXT NOT NULL, job TEXT NOT NULL, revision INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (connection, job)
) STRICT, WITHOUT ROWID;
";

/// The table of syncs: how often each was asked for, and how many of these were done.
pub(super) const SYNCS: &str = "
CREATE TABLE sync_asked (
    connection TEXT NOT NULL, object TEXT NOT NULL, asked INTEGER NOT NULL, done INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (connection, object)
) STRICT, WITHOUT ROWID;
";

fn standing(
    transaction: &Transaction<'_>,
    connection: &ConnectionId,
    job: &JobId,
) -> Result<Standing, JobError> {
    let mut statement = transaction.prepare_cached(
        "SELECT revision, body FROM job_order WHERE connection = ?1 AND job = ?2",
    )?;
    let stored: Option<(i64, String)> = statement
        .query_row(params![connection.as_str(), job.as_str()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    stored.map_or_else(|| Ok(Standing::default()), read)
}

fn read((revision, body): (i64, String)) -> Result<Standing, JobError> {
    Ok(Standing {
        revision: revision.cast_unsigned(),
        order: parse(&body)?,
    })
}

#[async_trait]
impl Orders for SqliteState {
    async fn standing(&self, connection: &ConnectionId, job: &JobId) -> Result<Standing, Fault> {
        let (connection, job) = (connection.clone(), job.clone());
        self.readers
            .read(move |transaction| standing(transaction, &connection, &job))
            .await
    }

    async fn all_standing(&self) -> Result<Vec<(ConnectionId, JobId, Standing)>, Fault> {
        self.readers
            .read(move |transaction| {
                let mut statement = transaction.prepare_cached(
                    "SELECT connection, job, revision, body FROM job_order ORDER BY connection, job",
                )?;
                let mut rows = statement.query([])?;
                let mut all = Vec::new();
                while let Some(row) = rows.next()? {
                    all.push((
                        ConnectionId::new(row.get::<_, String>(0)?),
                        JobId::new(row.get::<_, String>(1)?),
                        read((row.get(2)?, row.get(3)?))?,
                    ));
                }
                Ok(all)
            })
            .await
    }

    async fn give(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        after: u64,
        order: Order,
    ) -> Result<bool, Fault> {
        let (connection, job) = (connection.clone(), job.clone());
        self.writer
            .grouped(move |transaction| {
                let stored = standing(transaction, &connection, &job)?;
                if stored.revision != after {
                    return Ok(stored.is_left_by(after, &order));
                }
                transaction.execute(
                    "INSERT INTO job_order VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE
                     SET revision = excluded.revision, body = excluded.body",
                    params![
                        connection.as_str(),
                        job.as_str(),
                        number(after + 1),
                        render(&order)?
                    ],
                )?;
                Ok(true)
            })
            .await
    }

    async fn ask_sync(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        wish: Wish,
    ) -> Result<(), Fault> {
        let (connection, object) = (connection.clone(), object.clone());
        self.writer
            .grouped(move |transaction| {
                transaction.execute(
                    "INSERT INTO sync_asked VALUES (?1, ?2, 1, 0, ?3)
                     ON CONFLICT DO UPDATE SET asked = asked + 1, body = excluded.body",
                    params![connection.as_str(), object.as_str(), render(&wish)?],
                )?;
                Ok(())
            })
            .await
    }

    async fn asked_syncs(
        &self,
        connection: &ConnectionId,
    ) -> Result<Vec<(ObjectName, Asked)>, Fault> {
        let connection = connection.clone();
        self.readers
            .read(move |transaction| {
                let mut statement = transaction.prepare_cached(
                    "SELECT object, asked, body FROM sync_asked WHERE connection = ?1 AND asked > done
                     ORDER BY object",
                )?;
                let mut rows = statement.query([connection.as_str()])?;
                let mut all = Vec::new();
                while let Some(row) = rows.next()? {
                    let asked = Asked {
                        number: row.get::<_, i64>(1)?.cast_unsigned(),
                        wish: parse(&row.get::<_, String>(2)?)?,
                    };
                    all.push((ObjectName::new(row.get::<_, String>(0)?), asked));
                }
                Ok(all)
            })
            .await
    }

    async fn sync_done(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        done: u64,
    ) -> Result<(), Fault> {
        let (connection, object) = (connection.clone(), object.clone());
        self.writer
            .grouped(move |transaction| {
                transaction.execute(
                    "UPDATE sync_asked SET done = max(done, ?3) WHERE connection = ?1 AND object = ?2",
                    params![connection.as_str(), object.as_str(), number(done)],
                )?;
                Ok(())
            })
            .await
    }
}
