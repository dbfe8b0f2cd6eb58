//! Who holds which rows, page by page.

use std::collections::BTreeMap;

use rusqlite::{Transaction, params};
use uuid::Uuid;

use super::ledger::{parse_version, signed};
use super::read::row_of;
use crate::model::name::{ConnectionId, ObjectKey, ObjectName};
use crate::model::record_id::RecordId;
use crate::model::version::Version;
use crate::sqlite::error::JobError;
use crate::target::beside::{HeldRow, Holder};

/// A page of an object's entries in a table, by record.
pub(super) fn held(
    transaction: &Transaction<'_>,
    key: &ObjectKey,
    table: &str,
    after: Option<&RecordId>,
    limit: usize,
) -> Result<Vec<HeldRow>, JobError> {
    let mut entries = transaction.prepare_cached(
        "SELECT record, version, gsid, gone FROM tributary_crosswalk
         WHERE connection = ?1 AND destination = ?2 AND record > ?3 AND object = ?4 ORDER BY record LIMIT ?5",
    )?;
    let mut rows = entries.query(params![
        key.connection.as_str(),
        table,
        after.map_or("", RecordId::as_str),
        key.object.as_str(),
        signed(limit as u64)
    ])?;
    let mut held = Vec::new();
    while let Some(row) = rows.next()? {
        let (record, version): (String, String) = (row.get(0)?, row.get(1)?);
        let gsid: Option<String> = row.get(2)?;
        let gone: bool = row.get(3)?;
        held.push(HeldRow {
            record: RecordId::stored(record),
            version: parse_version(&version)?,
            row: match gsid.filter(|_| !gone) {
                Some(gsid) => row_of(transaction, table, &gsid)?,
                None => None,
            },
        });
    }
    Ok(held)
}

/// The newest version of an object's entries.
pub(super) fn newest(
    transaction: &Transaction<'_>,
    key: &ObjectKey,
) -> Result<Option<Version>, JobError> {
    let newest: Option<String> = transaction
        .prepare_cached(
            "SELECT max(version) FROM tributary_crosswalk WHERE connection = ?1 AND object = ?2",
        )?
        .query_row([key.connection.as_str(), key.object.as_str()], |row| {
            row.get(0)
        })?;
    Ok(newest.as_deref().map(parse_version).transpose()?)
}

/// The records that hold rows.
pub(super) fn holders(
    transaction: &Transaction<'_>,
    table: &str,
    gsids: &[Uuid],
) -> Result<BTreeMap<Uuid, Vec<Holder>>, JobError> {
    let mut statement = transaction.prepare_cached(
        "SELECT connection, object, record FROM tributary_crosswalk
         WHERE gsid = ?1 AND destination = ?2 AND gone = 0 ORDER BY 1, 2, 3",
    )?;
    let mut found = BTreeMap::new();
    for gsid in gsids {
        let holders = statement.query_map(params![gsid.to_string(), table], |row| {
            Ok(Holder {
                connection: ConnectionId::new(row.get::<_, String>(0)?),
                object: ObjectName::new(row.get::<_, String>(1)?),
                record: RecordId::stored(row.get::<_, String>(2)?),
            })
        })?;
        let holders: Vec<Holder> = holders.collect::<Result<_, _>>()?;
        if !holders.is_empty() {
            found.insert(*gsid, holders);
        }
    }
    Ok(found)
}

/// How many records hold a row, marked ones left out.
pub(super) fn count(
    transaction: &Transaction<'_>,
    connection: &ConnectionId,
    object: &ObjectName,
    table: &str,
) -> Result<u64, JobError> {
    let mut statement = transaction.prepare_cached(
        "SELECT count(*) FROM tributary_crosswalk WHERE connection = ?1 AND destination = ?2 AND object = ?3
            AND gsid IS NOT NULL AND NOT gone AND crm_state IS NULL",
    )?;
    let count: i64 = statement.query_row([connection.as_str(), table, object.as_str()], |row| {
        row.get(0)
    })?;
    Ok(count.cast_unsigned())
}
