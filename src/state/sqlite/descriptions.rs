//! Descriptions, one row an object.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rusqlite::{OptionalExtension, params};

use super::{SqliteState, instant, micros};
use crate::fault::Fault;
use crate::model::name::{ConnectionId, ObjectName};
use crate::state::descriptions::{Described, Descriptions};

/// The tables.
pub(super) const TABLES: &str = "
CREATE TABLE description (
    connection TEXT NOT NULL, object TEXT NOT NULL, read_at INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (connection, object)
) STRICT;
CREATE TABLE refresh_asked (connection TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT;
";

#[async_trait]
impl Descriptions for SqliteState {
    async fn description(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
    ) -> Result<Option<Described>, Fault> {
        let (connection, object) = (connection.clone(), object.clone());
        self.readers
            .read(move |transaction| {
                let stored: Option<(String, i64)> = transaction
                    .query_row(
                        "SELECT body, read_at FROM description WHERE connection = ?1 AND object = ?2",
                        params![connection.as_str(), object.as_str()],
                        |row| Ok((row.get(0)?, row.get(1)?)),
                    )
                    .optional()?;
                let Some((body, read_at)) = stored else {
                    return Ok(None);
                };
                Ok(Some(Described {
                    body,
                    read_at: instant(read_at)?,
                }))
            })
            .await
    }

    async fn described(
        &self,
        connection: &ConnectionId,
    ) -> Result<Vec<(ObjectName, DateTime<Utc>)>, Fault> {
        let connection = connection.clone();
        self.readers
            .read(move |transaction| {
                let mut statement = transaction.prepare_cached(
                    "SELECT object, read_at FROM description WHERE connection = ?1 ORDER BY object",
                )?;
                let mut rows = statement.query([connection.as_str()])?;
                let mut all = Vec::new();
                while let Some(row) = rows.next()? {
                    let object = ObjectName::new(row.get::<_, String>(0)?);
                    all.push((object, instant(row.get(1)?)?));
                }
                Ok(all)
            })
            .await
    }

    async fn put_description(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        described: Described,
    ) -> Result<(), Fault> {
        let (connection, object) = (connection.clone(), object.clone());
        self.writer
            .grouped(move |transaction| {
                transaction.execute(
                    "INSERT INTO description VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE
                     SET read_at = excluded.read_at, body = excluded.body",
                    params![
                        connection.as_str(),
                        object.as_str(),
                        micros(described.read_at),
                        described.body
                    ],
                )?;
                Ok(())
            })
            .await
    }

    async fn ask_refresh(&self, connection: &ConnectionId, at: DateTime<Utc>) -> Result<(), Fault> {
        let connection = connection.clone();
        self.writer
            .grouped(move |transaction| {
                transaction.execute(
                    "INSERT INTO refresh_asked VALUES (?1, ?2) ON CONFLICT DO UPDATE SET at = excluded.at",
                    params![connection.as_str(), micros(at)],
                )?;
                Ok(())
            })
            .await
    }

    async fn refresh_asked(
        &self,
        connection: &ConnectionId,
    ) -> Result<Option<DateTime<Utc>>, Fault> {
        let connection = connection.clone();
        self.readers
            .read(move |transaction| {
                let sql = "SELECT at FROM refresh_asked WHERE connection = ?1";
                let at: Option<i64> = transaction
                    .query_row(sql, [connection.as_str()], |row| row.get(0))
                    .optional()?;
                at.map(instant).transpose()
            })
            .await
    }
}
