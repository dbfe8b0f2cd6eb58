//! Records that refer to a row which another one has left.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Schemas;
use super::lookup::quote;
use crate::model::name::{ConnectionId, ObjectName};
use crate::model::record_id::RecordId;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::target::port::{Batch, Strays};

/// Rows that are told at a time.
const SOME: i64 = 1000;

/// Notes that records of a batch have left rows.
pub(super) async fn note(
    session: &mut Session,
    schemas: &Schemas,
    batch: &Batch,
    left: &BTreeSet<Uuid>,
) -> Result<(), OrderError> {
    if left.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "INSERT INTO {} (connection, gsid) SELECT $1, unnest($2::uuid[])",
        schemas.ledger("stray")
    );
    let left: Vec<Uuid> = left.iter().copied().collect();
    let connection = batch.reader.connection.as_str();
    session.execute(&sql, &[&connection, &left]).await?;
    Ok(())
}

/// The oldest rows that a connection's records have left, and the records that refer to them.
pub(super) async fn list(
    session: &mut Session,
    schemas: &Schemas,
    connection: &ConnectionId,
) -> Result<Strays, OrderError> {
    let sql = format!(
        "SELECT id, gsid FROM {} WHERE connection = $1 ORDER BY id LIMIT $2",
        schemas.ledger("stray")
    );
    let (mut marks, mut left) = (Vec::new(), BTreeSet::new());
    for row in session.query(&sql, &[&connection.as_str(), &SOME]).await? {
        marks.push(row.try_get::<_, i64>(0)?.cast_unsigned());
        left.insert(row.try_get::<_, Uuid>(1)?);
    }
    if marks.is_empty() {
        return Ok(Strays::default());
    }
    let left: Vec<Uuid> = left.into_iter().collect();
    let mut records = BTreeSet::new();
    for (table, columns) in references(session, schemas).await? {
        let refers = columns
            .iter()
            .map(|column| format!("t.{} = ANY($1)", quote(column)));
        let refers: Vec<String> = refers.collect();
        let sql = format!(
            "SELECT x.connection, x.object, x.record FROM {} t
             JOIN {} x ON x.gsid = t.\"gsid\" AND x.destination = $2 AND NOT x.gone
             WHERE {}",
            schemas.table(&table),
            schemas.ledger("crosswalk"),
            refers.join(" OR ")
        );
        let params: [&(dyn ToSql + Sync); 2] = [&left, &table];
        for row in session.query(&sql, &params).await? {
            records.insert((
                ConnectionId::new(row.try_get::<_, String>(0)?),
                ObjectName::new(row.try_get::<_, String>(1)?),
                RecordId::stored(row.try_get::<_, String>(2)?),
            ));
        }
    }
    Ok(Strays {
        marks,
        records: records.into_iter().collect(),
    })
}

/// Forgets rows that were left.
pub(super) async fn forget(
    session: &mut Session,
    schemas: &Schemas,
    marks: &[u64],
) -> Result<(), OrderError> {
    let sql = format!("DELETE FROM {} WHERE id = ANY($1)", schemas.ledger("stray"));
    let marks: Vec<i64> = marks.iter().map(|mark| mark.cast_signed()).collect();
    session.execute(&sql, &[&marks]).await?;
    Ok(())
}

/// The columns that refer to rows, by table.
async fn references(
    session: &mut Session,
    schemas: &Schemas,
) -> Result<BTreeMap<String, BTreeSet<String>>, OrderError> {
    let sql = "SELECT c.relname::text, a.attname::text FROM pg_attribute a
         JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p')
         JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = $1::text
         WHERE a.atttypid = 'uuid'::regtype AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> 'gsid'";
    let mut columns: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in session.query(sql, &[&schemas.store]).await? {
        let of = columns.entry(row.try_get(0)?).or_default();
        of.insert(row.try_get(1)?);
    }
    Ok(columns)
}
