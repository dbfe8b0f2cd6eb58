//! J5: what waited too long: told first, forgotten when its letter is written.

use chrono::{DateTime, Utc};
use rusqlite::{Row, Transaction, params};

use super::ledger::{parse_version, signed};
use super::lookup::Lookup;
use super::release::Share;
use crate::model::name::{ConnectionId, JobId};
use crate::model::record_id::RecordId;
use crate::sqlite::error::JobError;
use crate::target::port::{Expired, ParkedKey};

/// What was parked before a date, oldest first.
pub(super) fn list(
    transaction: &Transaction<'_>,
    share: &Share,
    older_than: DateTime<Utc>,
    limit: usize,
) -> Result<Vec<Expired>, JobError> {
    let own = params![
        share.connection.as_str(),
        share.job.as_str(),
        older_than.timestamp_micros(),
        share.partitions,
        signed(limit as u64)
    ];
    let mut expired: Vec<Expired> = Vec::new();
    let mut references = transaction.prepare_cached(
        "SELECT record, version, partition, \"offset\", looked_up, lookup, key, destination, \"column\"
         FROM tributary_parked_reference
         WHERE connection = ?1 AND job = ?2 AND since < ?3 AND partition IN (SELECT value FROM json_each(?4))
         ORDER BY since, id LIMIT ?5",
    )?;
    let mut rows = references.query(own)?;
    while let Some(row) = rows.next()? {
        expired.push(Expired {
            key: key(row, Some((row.get(7)?, row.get(8)?)))?,
            waited_for: waited_for(row)?,
            image: None,
        });
    }
    let mut changes = transaction.prepare_cached(
        "SELECT p.record, p.version, p.partition, p.\"offset\", w.looked_up, w.lookup, w.key, p.image, p.id
         FROM (SELECT * FROM tributary_parked_change
            WHERE connection = ?1 AND job = ?2 AND since < ?3 AND partition IN (SELECT value FROM json_each(?4))
                AND EXISTS (SELECT 1 FROM tributary_parked_wait WHERE change = id)
            ORDER BY since, id LIMIT ?5) p
         JOIN tributary_parked_wait w ON w.change = p.id ORDER BY p.since, p.id, w.\"column\"",
    )?;
    let mut rows = changes.query(own)?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        let (id, waited_for): (i64, _) = (row.get(8)?, waited_for(row)?);
        if let Some(change) = expired.last_mut().filter(|_| last == Some(id)) {
            change.waited_for = format!("{}, {waited_for}", change.waited_for);
            continue;
        }
        last = Some(id);
        expired.push(Expired {
            key: key(row, None)?,
            waited_for,
            image: Some(row.get::<_, Vec<u8>>(7)?.into()),
        });
    }
    Ok(expired)
}

/// Removes what is still what was told; how many.
pub(super) fn forget(
    transaction: &Transaction<'_>,
    connection: &ConnectionId,
    job: &JobId,
    parked: &[ParkedKey],
) -> Result<u64, JobError> {
    const SAME: &str = "connection = ?1 AND job = ?2 AND record = ?3 AND version = ?4
        AND partition = ?5 AND \"offset\" = ?6";
    let mut references = transaction.prepare_cached(&format!(
        "DELETE FROM tributary_parked_reference WHERE {SAME} AND destination = ?7 AND \"column\" = ?8"
    ))?;
    let mut changes =
        transaction.prepare_cached(&format!("DELETE FROM tributary_parked_change WHERE {SAME}"))?;
    let mut removed = 0;
    for parked in parked {
        let (record, version) = (parked.record.as_str(), parked.version.to_string());
        let (partition, offset) = (parked.place.0, signed(parked.place.1));
        let (connection, job) = (connection.as_str(), job.as_str());
        removed += match &parked.reference {
            Some((table, column)) => references.execute(params![
                connection, job, record, version, partition, offset, table, column
            ])?,
            None => {
                changes.execute(params![connection, job, record, version, partition, offset])?
            }
        };
    }
    Ok(removed as u64)
}

fn key(row: &Row<'_>, reference: Option<(String, String)>) -> Result<ParkedKey, JobError> {
    Ok(ParkedKey {
        record: RecordId::stored(row.get::<_, String>(0)?),
        reference,
        version: parse_version(&row.get::<_, String>(1)?)?,
        place: (row.get(2)?, row.get::<_, i64>(3)?.cast_unsigned()),
    })
}

fn waited_for(row: &Row<'_>) -> Result<String, JobError> {
    let lookup = Lookup::parse(row.get(4)?, &row.get::<_, String>(5)?)?;
    Ok(lookup.describe(&Lookup::parse_key(&row.get::<_, String>(6)?)?))
}
