//! What a replay has not met: struck out record by record, until what is left has to leave.

use rusqlite::{Transaction, params};

use super::ledger::{parse_version, signed};
use crate::model::record_id::RecordId;
use crate::sqlite::error::JobError;
use crate::target::port::sweep::{READER, SweepKey, Unmet};

/// Notes who holds rows of the tables.
pub(super) fn begin(
    transaction: &Transaction<'_>,
    of: &SweepKey,
    tables: &[String],
) -> Result<u64, JobError> {
    let (connection, job) = (of.connection.as_str(), of.job.as_str());
    transaction
        .prepare_cached(
            "DELETE FROM tributary_unmet WHERE connection = ?1 AND job = ?2 AND (replay < ?3 OR replay = ?4)",
        )?
        .execute([connection, job, &of.replay, &of.name()])?;
    transaction
        .prepare_cached(
            "DELETE FROM tributary_offset WHERE connection = ?1 AND job = ?2 AND reader >= ?3 AND reader < ?4",
        )?
        .execute([connection, job, READER, &of.readers_before()])?;
    let mut insert = transaction.prepare_cached(
        "INSERT OR IGNORE INTO tributary_unmet (connection, job, replay, record, destination, version)
         SELECT connection, ?2, ?5, record, destination, version FROM tributary_crosswalk
         WHERE connection = ?1 AND destination = ?3 AND object = ?4
            AND gsid IS NOT NULL AND gone = 0 AND crm_state IS NULL",
    )?;
    let (mut noted, name) = (0, of.name());
    for table in tables {
        noted += insert.execute([connection, job, table, of.object.as_str(), &name])?;
    }
    Ok(noted as u64)
}

/// Strikes out records.
pub(super) fn met(
    transaction: &Transaction<'_>,
    of: &SweepKey,
    records: &[RecordId],
) -> Result<(), JobError> {
    let mut delete = transaction.prepare_cached(
        "DELETE FROM tributary_unmet WHERE connection = ?1 AND job = ?2 AND replay = ?3 AND record = ?4",
    )?;
    let (connection, job) = (of.connection.as_str(), of.job.as_str());
    let name = of.name();
    for record in records {
        delete.execute([connection, job, &name, record.as_str()])?;
    }
    Ok(())
}

/// What is left, by record.
pub(super) fn unmet(
    transaction: &Transaction<'_>,
    of: &SweepKey,
    limit: usize,
) -> Result<Vec<Unmet>, JobError> {
    let mut select = transaction.prepare_cached(
        "SELECT record, destination, version FROM tributary_unmet WHERE connection = ?1 AND job = ?2 AND replay = ?3
         ORDER BY record, destination LIMIT ?4",
    )?;
    let (connection, job) = (of.connection.as_str(), of.job.as_str());
    let mut rows = select.query(params![connection, job, of.name(), signed(limit as u64)])?;
    let mut unmet = Vec::new();
    while let Some(row) = rows.next()? {
        unmet.push(Unmet {
            record: RecordId::stored(row.get::<_, String>(0)?),
            table: row.get(1)?,
            version: parse_version(&row.get::<_, String>(2)?)?,
        });
    }
    Ok(unmet)
}

/// Strikes out what has left.
pub(super) fn swept(
    transaction: &Transaction<'_>,
    of: &SweepKey,
    swept: &[Unmet],
) -> Result<(), JobError> {
    let mut delete = transaction.prepare_cached(
        "DELETE FROM tributary_unmet WHERE connection = ?1 AND job = ?2 AND replay = ?3 AND record = ?4
            AND destination = ?5",
    )?;
    let (connection, job) = (of.connection.as_str(), of.job.as_str());
    let name = of.name();
    for one in swept {
        delete.execute([connection, job, &name, one.record.as_str(), &one.table])?;
    }
    Ok(())
}

/// Forgets a replay.
pub(super) fn end(transaction: &Transaction<'_>, of: &SweepKey) -> Result<(), JobError> {
    let (connection, job) = (of.connection.as_str(), of.job.as_str());
    transaction
        .prepare_cached(
            "DELETE FROM tributary_unmet WHERE connection = ?1 AND job = ?2 AND replay = ?3",
        )?
        .execute([connection, job, &of.name()])?;
    transaction
        .prepare_cached(
            "DELETE FROM tributary_offset WHERE connection = ?1 AND job = ?2 AND reader = ?3",
        )?
        .execute([connection, job, &of.reader()])?;
    Ok(())
}
