//! Records that refer to a row which another one has left.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Transaction, params};

use super::schema::{quote, type_name};
use crate::model::name::{ConnectionId, ObjectName};
use crate::model::record_id::RecordId;
use crate::model::stored::StoredType;
use crate::sqlite::error::JobError;
use crate::target::port::Strays;

/// Rows that are told at a time.
const SOME: i64 = 1000;

/// Notes that a record of a connection has left a row, or has changed what finds it.
pub(super) fn note(
    transaction: &Transaction<'_>,
    connection: &ConnectionId,
    gsid: &str,
) -> Result<(), JobError> {
    transaction
        .prepare_cached("INSERT INTO tributary_left (connection, gsid) VALUES (?1, ?2)")?
        .execute([connection.as_str(), gsid])?;
    Ok(())
}

/// The oldest rows that a connection's records have left, and the records that refer to them.
pub(super) fn list(
    transaction: &Transaction<'_>,
    connection: &ConnectionId,
) -> Result<Strays, JobError> {
    let mut statement = transaction.prepare_cached(
        "SELECT id, gsid FROM tributary_left WHERE connection = ?1 ORDER BY id LIMIT ?2",
    )?;
    let left = statement.query_map(params![connection.as_str(), SOME], |row| {
        Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?))
    })?;
    let left: Vec<(u64, String)> = left.collect::<Result<_, _>>()?;
    if left.is_empty() {
        return Ok(Strays::default());
    }
    let (marks, rows): (Vec<u64>, BTreeSet<String>) = left.into_iter().unzip();
    let rows = serde_json::Value::from_iter(rows).to_string();
    let mut records = BTreeSet::new();
    for (table, columns) in references(transaction)? {
        let refers = columns.iter().map(|column| {
            let column = quote(column);
            format!("t.{column} IN (SELECT value FROM json_each(?1))")
        });
        let refers: Vec<String> = refers.collect();
        let mut statement = transaction.prepare(&format!(
            "SELECT x.connection, x.object, x.record FROM {} t
             JOIN tributary_crosswalk x ON x.gsid = t.\"gsid\" AND x.destination = ?2 AND x.gone = 0
             WHERE {}",
            quote(&table),
            refers.join(" OR ")
        ))?;
        let found = statement.query_map(params![rows, table], |row| {
            Ok((
                ConnectionId::new(row.get::<_, String>(0)?),
                ObjectName::new(row.get::<_, String>(1)?),
                RecordId::stored(row.get::<_, String>(2)?),
            ))
        })?;
        for record in found {
            records.insert(record?);
        }
    }
    Ok(Strays {
        marks,
        records: records.into_iter().collect(),
    })
}

/// Forgets rows that were left.
pub(super) fn forget(transaction: &Transaction<'_>, marks: &[u64]) -> Result<(), JobError> {
    let mut delete = transaction.prepare_cached("DELETE FROM tributary_left WHERE id = ?1")?;
    for mark in marks {
        delete.execute([mark.cast_signed()])?;
    }
    Ok(())
}

/// The columns that refer to rows, by table.
fn references(
    transaction: &Transaction<'_>,
) -> Result<BTreeMap<String, BTreeSet<String>>, JobError> {
    let mut statement = transaction
        .prepare_cached("SELECT \"table\", \"column\" FROM tributary_column WHERE type = ?1")?;
    let found = statement.query_map([type_name(StoredType::Gsid)], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    let mut columns: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for column in found {
        let (table, column) = column?;
        columns.entry(table).or_default().insert(column);
    }
    Ok(columns)
}
