//! The ledger beside the tables: offsets, and the crosswalk from records to rows.

use rusqlite::{CachedStatement, OptionalExtension, Row, Transaction, params};

use crate::fault::{Fault, FaultKind};
use crate::model::record_id::RecordId;
use crate::model::version::Version;
use crate::sqlite::error::JobError;
use crate::target::port::{Assignment, Batch, ReaderKey};

/// The ledger's schema, step by step; steps are only ever added. `tributary_column` keeps the types that SQLite's
/// own do not tell apart. `since` is in microseconds since 1970. `ready` is 1 when a row was written that may be the
/// awaited one, 2 when several were found where that is an error, 3 when a person is waited for; so a release looks at
/// nothing that waits in vain. `owners` are the connections, as JSON, to which the column belongs where they hold the row.
/// `tributary_left` has the rows that records are not any more, until what refers to them was asked for again.
/// `tributary_unmet` has who held a row when a replay into the live tables began, and was not met since.
pub(super) const STEPS: &[&str] = &["
CREATE TABLE tributary_column (
    \"table\" TEXT NOT NULL, \"column\" TEXT NOT NULL, type TEXT NOT NULL,
    PRIMARY KEY (\"table\", \"column\")
) STRICT, WITHOUT ROWID;
CREATE TABLE tributary_offset (
    connection TEXT NOT NULL, job TEXT NOT NULL, reader TEXT NOT NULL, generation TEXT NOT NULL,
    partition INTEGER NOT NULL, next INTEGER NOT NULL, epoch INTEGER NOT NULL,
    PRIMARY KEY (connection, job, reader, generation, partition)
) STRICT, WITHOUT ROWID;
CREATE TABLE tributary_crosswalk (
    connection TEXT NOT NULL, destination TEXT NOT NULL, record TEXT NOT NULL, object TEXT NOT NULL,
    gsid TEXT, version TEXT NOT NULL, gone INTEGER NOT NULL, crm_state TEXT, crm_state_at TEXT,
    PRIMARY KEY (connection, destination, record, object)
) STRICT, WITHOUT ROWID;
CREATE INDEX tributary_crosswalk_by_gsid ON tributary_crosswalk (gsid);
CREATE TABLE tributary_parked_reference (
    id INTEGER PRIMARY KEY, connection TEXT NOT NULL, job TEXT NOT NULL, destination TEXT NOT NULL,
    record TEXT NOT NULL, \"column\" TEXT NOT NULL, object TEXT NOT NULL, version TEXT NOT NULL,
    partition INTEGER NOT NULL, \"offset\" INTEGER NOT NULL, any INTEGER NOT NULL, lookup TEXT NOT NULL,
    looked_up TEXT NOT NULL, key TEXT NOT NULL, since INTEGER NOT NULL, ready INTEGER NOT NULL DEFAULT 0,
    UNIQUE (connection, job, destination, record, \"column\")
) STRICT;
CREATE INDEX tributary_parked_reference_waits ON tributary_parked_reference (looked_up, lookup, key);
CREATE INDEX tributary_parked_reference_since ON tributary_parked_reference (connection, job, since);
CREATE INDEX tributary_parked_reference_ready ON tributary_parked_reference (connection, since, id)
    WHERE ready = 1;
CREATE INDEX tributary_parked_reference_several ON tributary_parked_reference (looked_up) WHERE ready = 2;
CREATE TABLE tributary_parked_change (
    id INTEGER PRIMARY KEY, connection TEXT NOT NULL, job TEXT NOT NULL, destination TEXT NOT NULL,
    record TEXT NOT NULL, object TEXT NOT NULL, version TEXT NOT NULL,
    partition INTEGER NOT NULL, \"offset\" INTEGER NOT NULL, image BLOB NOT NULL,
    since INTEGER NOT NULL, ready INTEGER NOT NULL DEFAULT 0,
    UNIQUE (connection, job, record)
) STRICT;
CREATE INDEX tributary_parked_change_since ON tributary_parked_change (connection, job, since);
CREATE INDEX tributary_parked_change_ready ON tributary_parked_change (connection, since, id) WHERE ready = 1;
CREATE INDEX tributary_parked_change_several ON tributary_parked_change (id) WHERE ready = 2;
CREATE TABLE tributary_parked_wait (
    change INTEGER NOT NULL REFERENCES tributary_parked_change (id) ON DELETE CASCADE,
    \"column\" TEXT NOT NULL, any INTEGER NOT NULL, lookup TEXT NOT NULL, looked_up TEXT NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (change, \"column\")
) STRICT, WITHOUT ROWID;
CREATE INDEX tributary_parked_wait_waits ON tributary_parked_wait (looked_up, lookup, key);
", "
DROP INDEX tributary_parked_change_ready;
CREATE INDEX tributary_parked_change_ready ON tributary_parked_change (connection, job, since, id) WHERE ready = 1;
", "
CREATE TABLE tributary_review (
    change INTEGER PRIMARY KEY NOT NULL REFERENCES tributary_parked_change (id) ON DELETE CASCADE,
    identifiers TEXT NOT NULL, candidates TEXT NOT NULL
) STRICT;
CREATE INDEX tributary_parked_change_review ON tributary_parked_change (connection, job, since, id) WHERE ready = 3;
CREATE TABLE tributary_binding (
    connection TEXT NOT NULL, destination TEXT NOT NULL, record TEXT NOT NULL, object TEXT NOT NULL,
    kind TEXT NOT NULL, gsid TEXT, author TEXT, at INTEGER NOT NULL,
    PRIMARY KEY (connection, destination, record, object)
) STRICT, WITHOUT ROWID;
", "
ALTER TABLE tributary_parked_reference ADD COLUMN owners TEXT NOT NULL DEFAULT '[]';
CREATE TABLE tributary_left (
    id INTEGER PRIMARY KEY AUTOINCREMENT, connection TEXT NOT NULL, gsid TEXT NOT NULL
) STRICT;
CREATE INDEX tributary_left_of ON tributary_left (connection, id);
", "
CREATE TABLE tributary_unmet (
    connection TEXT NOT NULL, job TEXT NOT NULL, replay TEXT NOT NULL, record TEXT NOT NULL,
    destination TEXT NOT NULL, version TEXT NOT NULL,
    PRIMARY KEY (connection, job, replay, record, destination)
) STRICT, WITHOUT ROWID;
"];

/// The compare-and-set of (epoch, next): the first statement of a batch.
///
/// # Errors
/// `Fenced` if another owner has taken over, or the offset was passed.
pub(super) fn advance(transaction: &Transaction<'_>, batch: &Batch) -> Result<(), JobError> {
    let ReaderKey {
        connection,
        job,
        reader,
        generation,
    } = &batch.reader;
    let moved = transaction
        .prepare_cached(
            "UPDATE tributary_offset SET next = ?8 WHERE connection = ?1 AND job = ?2 AND reader = ?3
             AND generation = ?4 AND partition = ?5 AND epoch = ?6 AND next = ?7",
        )?
        .execute(params![
            connection.as_str(),
            job.as_str(),
            reader,
            generation,
            batch.partition,
            signed(batch.epoch),
            signed(batch.expect),
            signed(batch.next)
        ])?;
    if moved == 1 {
        return Ok(());
    }
    let what = format!(
        "partition {} of {connection}/{job} ({reader}) is not at epoch {} and offset {} any more",
        batch.partition, batch.epoch, batch.expect
    );
    Err(Fault::new(FaultKind::Fenced, what)
        .remedy("another owner writes: assign the partition again")
        .into())
}

/// Raises the epoch of a partition.
pub(super) fn assign(
    transaction: &Transaction<'_>,
    reader: &ReaderKey,
    partition: u32,
) -> Result<Assignment, JobError> {
    let assignment = transaction
        .prepare_cached(
            "INSERT INTO tributary_offset VALUES (?1, ?2, ?3, ?4, ?5, 0, 1)
             ON CONFLICT DO UPDATE SET epoch = epoch + 1 RETURNING next, epoch",
        )?
        .query_row(
            params![
                reader.connection.as_str(),
                reader.job.as_str(),
                reader.reader,
                reader.generation,
                partition
            ],
            |row| {
                Ok(Assignment {
                    next: row.get::<_, i64>(0)?.cast_unsigned(),
                    epoch: row.get::<_, i64>(1)?.cast_unsigned(),
                })
            },
        )?;
    Ok(assignment)
}

/// A number as SQLite keeps it.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Reads a version that the ledger keeps.
pub(super) fn parse_version(text: &str) -> Result<Version, Fault> {
    text.parse().map_err(|error| {
        Fault::new(FaultKind::Corrupt, "reading the target's ledger")
            .source(error)
            .remedy("restore the target's file from a backup")
    })
}

/// What the crosswalk holds of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// `None` for a record that was deleted or filtered before it was stored.
    pub gsid: Option<String>,
    pub version: Version,
    /// It left its row for good.
    pub gone: bool,
    /// `crm_state` and `crm_state_at`, where the record is marked.
    pub mark: Option<(String, String)>,
}

impl Entry {
    /// The row that it holds.
    pub(super) fn held(&self) -> Option<&str> {
        self.gsid.as_deref().filter(|_| !self.gone)
    }

    /// Whether it holds a row.
    pub(super) const fn holds(&self) -> bool {
        self.gsid.is_some() && !self.gone
    }
}

/// The crosswalk of one object and destination.
pub(super) struct Crosswalk<'tx> {
    key: [&'tx str; 3],
    get: CachedStatement<'tx>,
    insert: CachedStatement<'tx>,
    bind: CachedStatement<'tx>,
    change: CachedStatement<'tx>,
    holders: CachedStatement<'tx>,
    connections: CachedStatement<'tx>,
}

impl<'tx> Crosswalk<'tx> {
    pub(super) fn new(
        transaction: &'tx Transaction<'tx>,
        batch: &'tx Batch,
        destination: &'tx str,
    ) -> Result<Self, JobError> {
        const KEY: &str = "connection = ?1 AND destination = ?2 AND record = ?4 AND object = ?3";
        let prepare = |sql: &str| transaction.prepare_cached(sql);
        Ok(Self {
            key: [
                batch.reader.connection.as_str(),
                destination,
                batch.object.as_str(),
            ],
            get: prepare(&format!(
                "SELECT gsid, version, gone, crm_state, crm_state_at FROM tributary_crosswalk WHERE {KEY}"
            ))?,
            insert: prepare(
                "INSERT INTO tributary_crosswalk VALUES (?1, ?2, ?4, ?3, ?9, ?5, ?6, ?7, ?8)",
            )?,
            bind: prepare(&format!(
                "UPDATE tributary_crosswalk SET version = ?5, gone = ?6, crm_state = ?7, crm_state_at = ?8,
                 gsid = ?9 WHERE {KEY}"
            ))?,
            // Leaves the index on `gsid` alone.
            change: prepare(&format!(
                "UPDATE tributary_crosswalk SET version = ?5, gone = ?6, crm_state = ?7, crm_state_at = ?8
                 WHERE {KEY}"
            ))?,
            holders: prepare(
                "SELECT crm_state, crm_state_at FROM tributary_crosswalk
                 WHERE gsid = ?1 AND destination = ?2 AND gone = 0
                 ORDER BY crm_state_at IS NULL DESC, crm_state_at DESC, crm_state DESC LIMIT 1",
            )?,
            connections: prepare(
                "SELECT DISTINCT connection FROM tributary_crosswalk
                 WHERE gsid = ?1 AND destination = ?2 AND gone = 0",
            )?,
        })
    }

    pub(super) fn get(&mut self, record: &RecordId) -> Result<Option<Entry>, JobError> {
        let [connection, destination, object] = self.key;
        let found = self
            .get
            .query_row(
                params![connection, destination, object, record.as_str()],
                |row| Ok(entry(row)),
            )
            .optional()?;
        found.transpose()
    }

    /// Stores an entry where it differs from the one that was there.
    pub(super) fn put(
        &mut self,
        record: &RecordId,
        before: Option<&Entry>,
        entry: &Entry,
    ) -> Result<(), JobError> {
        if before == Some(entry) {
            return Ok(());
        }
        let same_row = before.is_some_and(|before| before.gsid == entry.gsid);
        let statement = match before {
            None => &mut self.insert,
            Some(_) if same_row => &mut self.change,
            Some(_) => &mut self.bind,
        };
        let [connection, destination, object] = self.key;
        statement.raw_bind_parameter(1, connection)?;
        statement.raw_bind_parameter(2, destination)?;
        statement.raw_bind_parameter(3, object)?;
        statement.raw_bind_parameter(4, record.as_str())?;
        statement.raw_bind_parameter(5, entry.version.to_string())?;
        statement.raw_bind_parameter(6, entry.gone)?;
        statement.raw_bind_parameter(7, entry.mark.as_ref().map(|(state, _)| state))?;
        statement.raw_bind_parameter(8, entry.mark.as_ref().map(|(_, at)| at))?;
        if !same_row {
            statement.raw_bind_parameter(9, entry.gsid.as_ref())?;
        }
        statement.raw_execute()?;
        Ok(())
    }

    /// The connections of those who hold a row.
    pub(super) fn connections(&mut self, gsid: &str) -> Result<Vec<String>, JobError> {
        let [_, destination, _] = self.key;
        let rows = self
            .connections
            .query_map([gsid, destination], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What a row says of those who hold it: `None` if nobody does, no mark if one of them is present, else
    /// the newest mark.
    pub(super) fn standing(
        &mut self,
        gsid: &str,
    ) -> Result<Option<Option<(String, String)>>, JobError> {
        let [_, destination, _] = self.key;
        let standing = self.holders.query_row([gsid, destination], |row| {
            let (state, at) = (
                row.get::<_, Option<String>>(0)?,
                row.get::<_, Option<String>>(1)?,
            );
            Ok(state.zip(at))
        });
        Ok(standing.optional()?)
    }
}

fn entry(row: &Row<'_>) -> Result<Entry, JobError> {
    let (state, at): (Option<String>, Option<String>) = (row.get(3)?, row.get(4)?);
    Ok(Entry {
        gsid: row.get(0)?,
        version: parse_version(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?)?,
        gone: row.get(2)?,
        mark: state.zip(at),
    })
}
