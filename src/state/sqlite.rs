//! The SQLite engine of the state: `state.db`.

mod credentials;
mod descriptions;
mod hints;
mod holes;
mod notices;
mod orders;
mod runs;

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rusqlite::{OptionalExtension, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::fault::{Fault, FaultKind};
use crate::model::name::{ConnectionId, ObjectName};
use crate::model::position::Position;
use crate::model::record_id::RecordId;
use crate::sqlite::database::Database;
use crate::sqlite::error::JobError;
use crate::sqlite::lock::FileLock;
use crate::sqlite::readers::Readers;
use crate::sqlite::writer::Writer;
use crate::state::port::{
    Evidence, Hinted, Hole, HoleScope, ObjectState, Owed, Progress, State, StoredPosition, end_of,
    fenced, insufficient, next_term, no_hole,
};
use crate::state::runs::{Run, RunsWanted};

/// Its schema, step by step; steps are only ever added. Instants are microseconds since 1970, UTC.
const STEPS: &[&str] = &[
    "
CREATE TABLE lease (
    connection TEXT PRIMARY KEY, owner TEXT NOT NULL, term INTEGER NOT NULL, until INTEGER NOT NULL
) STRICT;
CREATE TABLE position (
    connection TEXT PRIMARY KEY, position TEXT, confirmed_at INTEGER NOT NULL
) STRICT;
CREATE TABLE owed (
    connection TEXT NOT NULL, object TEXT NOT NULL, record TEXT NOT NULL, stamp INTEGER NOT NULL,
    PRIMARY KEY (connection, object, record)
) STRICT, WITHOUT ROWID;
CREATE INDEX owed_by_age ON owed (connection, object, stamp);
CREATE TABLE hole (
    id INTEGER PRIMARY KEY AUTOINCREMENT, connection TEXT NOT NULL, object TEXT NOT NULL,
    cause TEXT NOT NULL, scope TEXT NOT NULL, state TEXT NOT NULL, opened_at INTEGER NOT NULL,
    closed_at INTEGER, evidence TEXT
) STRICT;
CREATE INDEX hole_open ON hole (connection, state);
CREATE TABLE object (
    connection TEXT NOT NULL, object TEXT NOT NULL, state TEXT NOT NULL,
    PRIMARY KEY (connection, object)
) STRICT, WITHOUT ROWID;
CREATE TABLE republish (
    connection TEXT NOT NULL, object TEXT NOT NULL, record TEXT NOT NULL,
    PRIMARY KEY (connection, object, record)
) STRICT, WITHOUT ROWID;
",
    hints::TABLE,
    "
CREATE TABLE org (connection TEXT PRIMARY KEY, id TEXT NOT NULL, url TEXT NOT NULL) STRICT;
CREATE TABLE credential (
    connection TEXT PRIMARY KEY, revision INTEGER NOT NULL, key_id TEXT, sealed BLOB
) STRICT;
",
    orders::TABLE,
    orders::SYNCS,
    descriptions::TABLES,
    runs::TABLES,
    notices::TABLES,
];
const READERS: usize = 2;

/// State in a SQLite file.
#[derive(Debug)]
pub struct SqliteState {
    writer: Writer,
    readers: Readers,
}

impl SqliteState {
    /// Opens `state.db` in `dir`, alone.
    ///
    /// # Errors
    /// `Config` while another process holds it, `Storage` or `Corrupt` if the file can't be used.
    pub async fn open(dir: &Path) -> Result<Self, Fault> {
        let lock = FileLock::take(&dir.join("state.lock"))?;
        let database = Database::new(dir.join("state.db"), STEPS);
        Ok(Self {
            writer: Writer::open(database.clone(), Some(lock)).await?,
            readers: Readers::new(database, READERS),
        })
    }

    async fn lease_until(
        &self,
        connection: &ConnectionId,
        term: u64,
        until: DateTime<Utc>,
    ) -> Result<(), Fault> {
        let connection = connection.clone();
        self.writer
            .grouped(move |transaction| {
                check(transaction, &connection, term)?;
                transaction.execute(
                    "UPDATE lease SET until = ?2 WHERE connection = ?1",
                    params![connection.as_str(), micros(until)],
                )?;
                Ok(())
            })
            .await
    }
}

/// Reads the hole ledger of a file that another process may be writing.
///
/// # Errors
/// `Storage` or `Corrupt` if the file can't be read.
pub async fn read_holes(
    dir: &Path,
    connection: Option<&ConnectionId>,
    all: bool,
) -> Result<Vec<Hole>, Fault> {
    holes::list(
        &Readers::new(Database::new(dir.join("state.db"), STEPS), 1),
        connection,
        all,
    )
    .await
}

/// Reads the runs of a file that another process may be writing.
///
/// # Errors
/// As [`read_holes`].
pub async fn read_runs(dir: &Path, wanted: RunsWanted) -> Result<Vec<Run>, Fault> {
    let readers = Readers::new(Database::new(dir.join("state.db"), STEPS), 1);
    runs::list(&readers, wanted).await
}

fn corrupt(what: impl Into<String>) -> Fault {
    Fault::new(FaultKind::Corrupt, what).remedy(
        "restore state.db from a backup, or delete it: positions are lost then, and holes are read",
    )
}

fn parse<T: DeserializeOwned>(json: &str) -> Result<T, JobError> {
    serde_json::from_str(json).map_err(|error| {
        corrupt(format!("reading stored state `{json}`"))
            .source(error)
            .into()
    })
}

fn render<T: Serialize>(value: &T) -> Result<String, JobError> {
    serde_json::to_string(value).map_err(|error| corrupt("encoding state").source(error).into())
}

fn instant(micros: i64) -> Result<DateTime<Utc>, JobError> {
    DateTime::from_timestamp_micros(micros)
        .ok_or_else(|| corrupt(format!("stored state holds the instant {micros}")).into())
}

fn micros(at: DateTime<Utc>) -> i64 {
    at.timestamp_micros()
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn check(
    transaction: &Transaction<'_>,
    connection: &ConnectionId,
    term: u64,
) -> Result<(), JobError> {
    let stored: Option<i64> = transaction
        .query_row(
            "SELECT term FROM lease WHERE connection = ?1",
            [connection.as_str()],
            |row| row.get(0),
        )
        .optional()?;
    let stored = stored.unwrap_or(0).cast_unsigned();
    if stored == term {
        Ok(())
    } else {
        Err(fenced(connection, term, stored).into())
    }
}

fn store(
    transaction: &Transaction<'_>,
    connection: &ConnectionId,
    progress: &Progress,
) -> Result<(), JobError> {
    if let Some(stored) = &progress.position {
        transaction.execute(
            "INSERT INTO position VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET position = excluded.position, confirmed_at = excluded.confirmed_at",
            params![
                connection.as_str(),
                stored.position.as_ref().map(Position::as_str),
                micros(stored.confirmed_at)
            ],
        )?;
    }
    let mut settle = transaction.prepare_cached(
        "DELETE FROM owed WHERE connection = ?1 AND object = ?2 AND record = ?3 AND stamp <= ?4",
    )?;
    for settled in &progress.settle {
        settle.execute(params![
            connection.as_str(),
            settled.object.as_str(),
            settled.record.as_str(),
            micros(settled.stamp)
        ])?;
    }
    let mut owe = transaction.prepare_cached(
        "INSERT INTO owed VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET stamp = max(stamp, excluded.stamp)",
    )?;
    for owed in &progress.owe {
        owe.execute(params![
            connection.as_str(),
            owed.object.as_str(),
            owed.record.as_str(),
            micros(owed.stamp)
        ])?;
    }
    let mut met = transaction.prepare_cached(
        "DELETE FROM republish WHERE connection = ?1 AND object = ?2 AND record = ?3",
    )?;
    for (object, record) in &progress.republished {
        met.execute(params![
            connection.as_str(),
            object.as_str(),
            record.as_str()
        ])?;
    }
    hints::meet(transaction, connection, &progress.met)?;
    for new in &progress.open {
        holes::open(transaction, connection, new)?;
    }
    Ok(())
}

#[async_trait]
impl State for SqliteState {
    async fn acquire(
        &self,
        connection: &ConnectionId,
        owner: &str,
        now: DateTime<Utc>,
        lease: Duration,
    ) -> Result<Option<u64>, Fault> {
        let (connection, owner) = (connection.clone(), owner.to_owned());
        self.writer
            .grouped(move |transaction| {
                let held: Option<(String, i64, i64)> = transaction
                    .query_row(
                        "SELECT owner, term, until FROM lease WHERE connection = ?1",
                        [connection.as_str()],
                        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
                    )
                    .optional()?;
                if held
                    .as_ref()
                    .is_some_and(|(by, _, until)| *by != owner && *until > micros(now))
                {
                    return Ok(None);
                }
                let stored = held.map_or(0, |(_, term, _)| term.cast_unsigned());
                let term = next_term(stored, now);
                transaction.execute(
                    "INSERT INTO lease VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE
                     SET owner = excluded.owner, term = excluded.term, until = excluded.until",
                    params![
                        connection.as_str(),
                        owner,
                        number(term),
                        micros(end_of(now, lease))
                    ],
                )?;
                Ok(Some(term))
            })
            .await
    }

    async fn renew(
        &self,
        connection: &ConnectionId,
        term: u64,
        now: DateTime<Utc>,
        lease: Duration,
    ) -> Result<(), Fault> {
        self.lease_until(connection, term, end_of(now, lease)).await
    }

    async fn release(&self, connection: &ConnectionId, term: u64) -> Result<(), Fault> {
        self.lease_until(connection, term, DateTime::UNIX_EPOCH)
            .await
    }

    async fn position(&self, connection: &ConnectionId) -> Result<Option<StoredPosition>, Fault> {
        let connection = connection.clone();
        self.readers
            .read(move |transaction| {
                let stored: Option<(Option<String>, i64)> = transaction
                    .query_row(
                        "SELECT position, confirmed_at FROM position WHERE connection = ?1",
                        [connection.as_str()],
                        |row| Ok((row.get(0)?, row.get(1)?)),
                    )
                    .optional()?;
                let Some((position, confirmed_at)) = stored else {
                    return Ok(None);
                };
                Ok(Some(StoredPosition {
                    position: position.map(Position::new),
                    confirmed_at: instant(confirmed_at)?,
                }))
            })
            .await
    }

    async fn commit(
        &self,
        connection: &ConnectionId,
        term: u64,
        progress: Progress,
    ) -> Result<(), Fault> {
        let connection = connection.clone();
        self.writer
            .grouped(move |transaction| {
                check(transaction, &connection, term)?;
                store(transaction, &connection, &progress)
            })
            .await
    }

    async fn owed(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        limit: usize,
    ) -> Result<Vec<Owed>, Fault> {
        let (connection, object) = (connection.clone(), object.clone());
        self.readers
            .read(move |transaction| {
                let mut statement = transaction.prepare_cached(
                    "SELECT record, stamp FROM owed WHERE connection = ?1 AND object = ?2
                     ORDER BY stamp LIMIT ?3",
                )?;
                let limit = i64::try_from(limit).unwrap_or(i64::MAX);
                let mut rows =
                    statement.query(params![connection.as_str(), object.as_str(), limit])?;
                let mut owed = Vec::new();
                while let Some(row) = rows.next()? {
                    owed.push(Owed {
                        object: object.clone(),
                        record: RecordId::stored(row.get::<_, String>(0)?),
                        stamp: instant(row.get(1)?)?,
                    });
                }
                Ok(owed)
            })
            .await
    }

    async fn owed_counts(
        &self,
        connection: &ConnectionId,
    ) -> Result<Vec<(ObjectName, u64)>, Fault> {
        let connection = connection.clone();
        self.readers
            .read(move |transaction| {
                let mut statement = transaction.prepare_cached(
                    "SELECT object, count(*) FROM owed WHERE connection = ?1 GROUP BY object ORDER BY object",
                )?;
                let rows = statement.query_map([connection.as_str()], |row| {
                    Ok((ObjectName::new(row.get::<_, String>(0)?), row.get::<_, i64>(1)?.cast_unsigned()))
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    async fn holes(
        &self,
        connection: Option<&ConnectionId>,
        all: bool,
    ) -> Result<Vec<Hole>, Fault> {
        holes::list(&self.readers, connection, all).await
    }

    async fn repairing(
        &self,
        connection: &ConnectionId,
        term: u64,
        hole: i64,
    ) -> Result<(), Fault> {
        let connection = connection.clone();
        self.writer
            .grouped(move |transaction| {
                check(transaction, &connection, term)?;
                let sql = "UPDATE hole SET state = '\"repairing\"' WHERE id = ?1";
                if transaction.execute(sql, [hole])? == 0 {
                    return Err(no_hole(hole).into());
                }
                Ok(())
            })
            .await
    }

    async fn close_hole(
        &self,
        connection: &ConnectionId,
        term: u64,
        hole: i64,
        evidence: Evidence,
        now: DateTime<Utc>,
    ) -> Result<(), Fault> {
        let connection = connection.clone();
        self.writer
            .grouped(move |transaction| {
                check(transaction, &connection, term)?;
                let scope: Option<String> = transaction
                    .query_row("SELECT scope FROM hole WHERE id = ?1", [hole], |row| row.get(0))
                    .optional()?;
                let scope: HoleScope = parse(&scope.ok_or_else(|| no_hole(hole))?)?;
                if evidence.as_of <= scope.end() {
                    return Err(insufficient(hole, evidence.as_of, scope.end()).into());
                }
                transaction.execute(
                    "UPDATE hole SET state = '\"closed\"', closed_at = ?2, evidence = ?3 WHERE id = ?1",
                    params![hole, micros(now), render(&evidence)?],
                )?;
                Ok(())
            })
            .await
    }

    async fn object(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
    ) -> Result<ObjectState, Fault> {
        let (connection, object) = (connection.clone(), object.clone());
        self.readers
            .read(move |transaction| {
                let state: Option<String> = transaction
                    .query_row(
                        "SELECT state FROM object WHERE connection = ?1 AND object = ?2",
                        params![connection.as_str(), object.as_str()],
                        |row| row.get(0),
                    )
                    .optional()?;
                state.map_or_else(|| Ok(ObjectState::default()), |json| parse(&json))
            })
            .await
    }

    async fn objects(
        &self,
        connection: &ConnectionId,
    ) -> Result<Vec<(ObjectName, ObjectState)>, Fault> {
        let connection = connection.clone();
        self.readers
            .read(move |transaction| {
                let mut statement = transaction.prepare_cached(
                    "SELECT object, state FROM object WHERE connection = ?1 ORDER BY object",
                )?;
                let mut rows = statement.query([connection.as_str()])?;
                let mut objects = Vec::new();
                while let Some(row) = rows.next()? {
                    let state = parse(&row.get::<_, String>(1)?)?;
                    objects.push((ObjectName::new(row.get::<_, String>(0)?), state));
                }
                Ok(objects)
            })
            .await
    }

    async fn put_object(
        &self,
        connection: &ConnectionId,
        term: u64,
        object: &ObjectName,
        state: ObjectState,
    ) -> Result<(), Fault> {
        let (connection, object) = (connection.clone(), object.clone());
        self.writer
            .grouped(move |transaction| {
                check(transaction, &connection, term)?;
                transaction.execute(
                    "INSERT INTO object VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET state = excluded.state",
                    params![connection.as_str(), object.as_str(), render(&state)?],
                )?;
                Ok(())
            })
            .await
    }

    async fn request_republish(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        record: &RecordId,
    ) -> Result<(), Fault> {
        let (connection, object, record) = (connection.clone(), object.clone(), record.clone());
        self.writer
            .grouped(move |transaction| {
                transaction.execute(
                    "INSERT INTO republish VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                    params![connection.as_str(), object.as_str(), record.as_str()],
                )?;
                Ok(())
            })
            .await
    }

    async fn to_republish(
        &self,
        connection: &ConnectionId,
        limit: usize,
    ) -> Result<Vec<(ObjectName, RecordId)>, Fault> {
        let connection = connection.clone();
        self.readers
            .read(move |transaction| {
                let mut statement = transaction.prepare_cached(
                    "SELECT object, record FROM republish WHERE connection = ?1
                     ORDER BY object, record LIMIT ?2",
                )?;
                let limit = i64::try_from(limit).unwrap_or(i64::MAX);
                let rows = statement.query_map(params![connection.as_str(), limit], |row| {
                    Ok((
                        ObjectName::new(row.get::<_, String>(0)?),
                        RecordId::stored(row.get::<_, String>(1)?),
                    ))
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    async fn hint(&self, connection: &ConnectionId, hints: Vec<Hinted>) -> Result<(), Fault> {
        let connection = connection.clone();
        let note =
            move |transaction: &Transaction<'_>| hints::note(transaction, &connection, &hints);
        self.writer.grouped(note).await
    }

    async fn hints(&self, connection: &ConnectionId, limit: usize) -> Result<Vec<Hinted>, Fault> {
        let connection = connection.clone();
        let list =
            move |transaction: &Transaction<'_>| hints::list(transaction, &connection, limit);
        self.readers.read(list).await
    }

    async fn close(&self) -> Result<(), Fault> {
        self.readers.close();
        self.writer.close().await
    }
}
