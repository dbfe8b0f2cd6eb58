//! What is read back: rows of a table, the rows of a record, counts of what waits.

use rusqlite::{OptionalExtension, Row, ToSql, Transaction, params};
use uuid::Uuid;

use super::cell::{Stored, decode, from_filter};
use super::ledger::{parse_version, signed};
use super::schema::{Column, missing_column, ordered_columns, quote};
use crate::fault::{Fault, FaultKind};
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::model::record_id::RecordId;
use crate::sqlite::error::JobError;
use crate::target::port::{RowsPage, StoredRow, Traced};

const DEFAULT_LIMIT: usize = 100;

/// Rows of a table, newest first.
pub(super) fn rows(
    transaction: &Transaction<'_>,
    table: &str,
    page: &RowsPage,
) -> Result<Vec<StoredRow>, JobError> {
    let columns = ordered_columns(transaction, table)?;
    let mut conditions = String::new();
    let mut values: Vec<Stored<'_>> = Vec::with_capacity(page.filter.len());
    for (name, text) in &page.filter {
        let column = columns.iter().find(|column| column.name == *name);
        let column = column.ok_or_else(|| missing_column(table, name))?;
        let Some(value) = from_filter(column.ty, text) else {
            return Ok(Vec::new());
        };
        values.push(value);
        conditions.push_str(&format!(" AND t.{} = ?{}", quote(name), values.len() + 2));
    }
    let limit = if page.limit == 0 {
        DEFAULT_LIMIT
    } else {
        page.limit
    };
    let mut statement = transaction.prepare(&format!(
        "{} WHERE 1{conditions} ORDER BY t.\"modified_date\" DESC, t.\"gsid\" DESC LIMIT ?1 OFFSET ?2",
        select(table, &columns)
    ))?;
    let (limit, offset) = (signed(limit as u64), signed(page.offset as u64));
    let mut bound: Vec<&dyn ToSql> = vec![&limit, &offset];
    bound.extend(values.iter().map(|value| value as &dyn ToSql));
    let mut rows = statement.query(&*bound)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(stored(row, table, &columns)?);
    }
    Ok(found)
}

/// The rows of one record, by table.
pub(super) fn trace(
    transaction: &Transaction<'_>,
    connection: &ConnectionId,
    object: &ObjectName,
    record: &RecordId,
) -> Result<Vec<Traced>, JobError> {
    let own = params![connection.as_str(), record.as_str(), object.as_str()];
    let mut entries = transaction.prepare_cached(
        "SELECT x.destination, x.gsid, x.version, x.gone
         FROM (SELECT DISTINCT \"table\" AS name FROM tributary_column) t CROSS JOIN tributary_crosswalk x
         WHERE x.connection = ?1 AND x.destination = t.name AND x.record = ?2 AND x.object = ?3
         ORDER BY x.destination",
    )?;
    let mut waits = transaction.prepare_cached(
        "SELECT DISTINCT \"column\" FROM tributary_parked_reference
         WHERE connection = ?1 AND record = ?2 AND object = ?3 AND destination = ?4 ORDER BY id",
    )?;
    let mut rows = entries.query(own)?;
    let mut traced = Vec::new();
    while let Some(row) = rows.next()? {
        let table: String = row.get(0)?;
        let gsid: Option<String> = row.get(1)?;
        let held = gsid.filter(|_| matches!(row.get(3), Ok(false)));
        let version: String = row.get(2)?;
        let parked = waits.query_map(
            params![connection.as_str(), record.as_str(), object.as_str(), table],
            |row| row.get(0),
        )?;
        traced.push(Traced {
            version: parse_version(&version)?,
            row: match held {
                Some(gsid) => row_of(transaction, &table, &gsid)?,
                None => None,
            },
            parked: parked.collect::<Result<_, _>>()?,
            table,
        });
    }
    Ok(traced)
}

pub(super) fn row_of(
    transaction: &Transaction<'_>,
    table: &str,
    gsid: &str,
) -> Result<Option<StoredRow>, JobError> {
    let columns = ordered_columns(transaction, table)?;
    let mut statement = transaction.prepare(&format!(
        "{} WHERE t.\"gsid\" = ?1",
        select(table, &columns)
    ))?;
    let row = statement.query_row([gsid], |row| Ok(stored(row, table, &columns)));
    row.optional()?.transpose()
}

/// How many references and changes wait, per job.
pub(super) fn parked(
    transaction: &Transaction<'_>,
) -> Result<Vec<(ConnectionId, JobId, u64)>, JobError> {
    let mut statement = transaction.prepare_cached(
        "SELECT connection, job, sum(waiting) FROM (
            SELECT connection, job, count(*) AS waiting FROM tributary_parked_reference GROUP BY 1, 2
            UNION ALL SELECT connection, job, count(*) FROM tributary_parked_change WHERE ready <> 3 GROUP BY 1, 2
         ) GROUP BY 1, 2 ORDER BY 1, 2",
    )?;
    let rows = statement.query_map([], |row| {
        Ok((
            ConnectionId::new(row.get::<_, String>(0)?),
            JobId::new(row.get::<_, String>(1)?),
            row.get::<_, i64>(2)?.cast_unsigned(),
        ))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn select(table: &str, columns: &[Column]) -> String {
    let names: Vec<_> = columns
        .iter()
        .map(|column| format!("t.{}", quote(&column.name)))
        .collect();
    format!(
        "SELECT {}, t.\"gsid\" FROM {} t",
        names.join(", "),
        quote(table)
    )
}

/// A row of [`select`].
fn stored(row: &Row<'_>, table: &str, columns: &[Column]) -> Result<StoredRow, JobError> {
    let gsid: String = row.get(columns.len())?;
    let gsid = Uuid::try_parse(&gsid).map_err(|error| {
        Fault::new(
            FaultKind::Corrupt,
            format!("reading GSID `{gsid}` of table `{table}`"),
        )
        .source(error)
    })?;
    let mut cells = Vec::with_capacity(columns.len());
    for (index, column) in columns.iter().enumerate() {
        cells.push((column.name.clone(), decode(column.ty, row.get_ref(index)?)));
    }
    Ok(StoredRow {
        gsid,
        columns: cells,
    })
}
