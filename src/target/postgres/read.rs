//! What is read back: rows of a table, the rows of a record, counts of what waits.

use std::collections::HashMap;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Schemas;
use super::ledger::{parse_version, signed};
use super::lookup::quote;
use super::schema::{Column, known_columns, missing_column};
use super::value::{Array, Class, decode, from_filter, selected};
use crate::fault::{Fault, FaultKind};
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::model::record_id::RecordId;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::target::port::{RowsPage, StoredRow, Traced};

const DEFAULT_LIMIT: usize = 100;

/// Whether both schemas are there; if not, the user must be allowed to make them.
pub(super) async fn is_made(session: &mut Session, schemas: &Schemas) -> Result<bool, OrderError> {
    let names = [schemas.store.as_str(), schemas.ledger.as_str()];
    let sql =
        "SELECT s.name, n.oid IS NOT NULL, coalesce(has_schema_privilege(n.oid, 'USAGE'), false),
               has_database_privilege(current_database(), 'CREATE')
               FROM unnest($1::text[]) s(name) LEFT JOIN pg_namespace n ON n.nspname = s.name";
    let found = session.query(sql, &[&names.as_slice()]).await?;
    let mut all = true;
    for row in &found {
        let name: String = row.try_get(0)?;
        let (is_there, may_use, may_make): (bool, bool, bool) =
            (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        all &= is_there;
        if is_there && !may_use {
            let what = format!("the user may not use schema `{name}`");
            return Err(Fault::new(FaultKind::Permission, what)
                .remedy(format!(
                    "GRANT USAGE, CREATE ON SCHEMA {} TO …",
                    quote(&name)
                ))
                .into());
        }
        if !is_there && !may_make {
            let what = format!("schema `{name}` is not there, and the user may not make it");
            return Err(Fault::new(FaultKind::Permission, what)
                .remedy(format!("CREATE SCHEMA {} AUTHORIZATION …", quote(&name)))
                .into());
        }
    }
    Ok(all)
}

/// Rows of a table, newest first.
pub(super) async fn rows(
    session: &mut Session,
    schemas: &Schemas,
    table: &str,
    page: &RowsPage,
) -> Result<Vec<StoredRow>, OrderError> {
    let columns = known_columns(session, schemas, table).await?;
    let mut conditions = String::new();
    let mut values = Vec::with_capacity(page.filter.len());
    for (place, (name, text)) in page.filter.iter().enumerate() {
        let column = columns.iter().find(|column| column.name == *name);
        let column = column.ok_or_else(|| missing_column(table, name))?;
        let Some(value) = from_filter(column.class(), text) else {
            return Ok(Vec::new());
        };
        let class = column.class().unwrap_or(Class::Text);
        let mut array = Array::new(class, 1);
        array.push_part(&value);
        values.push(array);
        let name = selected_for_filter(column);
        let given = class.arrived(&format!("(${}::{}[])[1]", place + 3, class.travels_as()));
        conditions.push_str(&format!(" AND {name} = {given}"));
    }
    let limit = if page.limit == 0 {
        DEFAULT_LIMIT
    } else {
        page.limit
    };
    let sql = format!(
        "{} WHERE true{conditions} ORDER BY t.\"modified_date\" DESC, t.\"gsid\" DESC LIMIT $1 OFFSET $2",
        select(schemas, table, &columns)
    );
    let (limit, offset) = (signed(limit as u64), signed(page.offset as u64));
    let mut params: Vec<&(dyn ToSql + Sync)> = vec![&limit, &offset];
    params.extend(values.iter().map(Array::param));
    let found = session.query(&sql, &params).await?;
    found.iter().map(|row| stored(row, &columns)).collect()
}

fn selected_for_filter(column: &Column) -> String {
    let name = format!("t.{}", quote(&column.name));
    match column.class() {
        None => format!("{name}::text"),
        Some(_) => name,
    }
}

/// The rows of one record, by table.
pub(super) async fn trace(
    session: &mut Session,
    schemas: &Schemas,
    connection: &ConnectionId,
    object: &ObjectName,
    record: &RecordId,
) -> Result<Vec<Traced>, OrderError> {
    if record.as_str().contains('\0') {
        return Ok(Vec::new());
    }
    let own: [&(dyn ToSql + Sync); 3] = [&connection.as_str(), &record.as_str(), &object.as_str()];
    let waits = format!(
        "SELECT destination, \"column\" FROM {} WHERE connection = $1 AND record = $2 AND object = $3
         ORDER BY id",
        schemas.ledger("parked_reference")
    );
    let mut parked: HashMap<String, Vec<String>> = HashMap::new();
    for row in session.query(&waits, &own).await? {
        let columns = parked.entry(row.try_get(0)?).or_default();
        let column: String = row.try_get(1)?;
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
    let entries = format!(
        "SELECT x.* FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = $4::text
         CROSS JOIN LATERAL (
            SELECT destination, gsid, version, gone FROM {}
            WHERE connection = $1 AND destination = c.relname::text COLLATE \"C\" AND record = $2 AND object = $3
            OFFSET 0) x
         WHERE c.relkind IN ('r', 'p') ORDER BY x.destination",
        schemas.ledger("crosswalk")
    );
    let found = session
        .query(&entries, &[own[0], own[1], own[2], &schemas.store])
        .await?;
    let mut traced = Vec::with_capacity(found.len());
    for entry in found {
        let table: String = entry.try_get(0)?;
        let gsid: Option<Uuid> = entry.try_get(1)?;
        let gone: bool = entry.try_get(3)?;
        let row = match gsid.filter(|_| !gone) {
            Some(gsid) => row_of(session, schemas, &table, gsid).await?,
            None => None,
        };
        traced.push(Traced {
            version: parse_version(entry.try_get(2)?)?,
            row,
            parked: parked.remove(&table).unwrap_or_default(),
            table,
        });
    }
    Ok(traced)
}

pub(super) async fn row_of(
    session: &mut Session,
    schemas: &Schemas,
    table: &str,
    gsid: Uuid,
) -> Result<Option<StoredRow>, OrderError> {
    let columns = known_columns(session, schemas, table).await?;
    let sql = format!("{} WHERE t.\"gsid\" = $1", select(schemas, table, &columns));
    let rows = session.query(&sql, &[&gsid]).await?;
    rows.first().map(|row| stored(row, &columns)).transpose()
}

/// How many references and changes wait, per job.
pub(super) async fn parked(
    session: &mut Session,
    schemas: &Schemas,
) -> Result<Vec<(ConnectionId, JobId, u64)>, OrderError> {
    let sql = format!(
        "SELECT connection, job, sum(waiting)::bigint FROM (
            SELECT connection, job, count(*) AS waiting FROM {} GROUP BY 1, 2
            UNION ALL SELECT connection, job, count(*) FROM {} WHERE ready <> 3 GROUP BY 1, 2
         ) s GROUP BY 1, 2 ORDER BY 1, 2",
        schemas.ledger("parked_reference"),
        schemas.ledger("parked_change")
    );
    let mut counts = Vec::new();
    for row in session.query(&sql, &[]).await? {
        counts.push((
            ConnectionId::new(row.try_get::<_, String>(0)?),
            JobId::new(row.try_get::<_, String>(1)?),
            row.try_get::<_, i64>(2)?.cast_unsigned(),
        ));
    }
    Ok(counts)
}

pub(super) fn select(schemas: &Schemas, table: &str, columns: &[Column]) -> String {
    let names: Vec<_> = columns
        .iter()
        .map(|column| selected(&format!("t.{}", quote(&column.name)), column.class()))
        .collect();
    format!(
        "SELECT {}, t.\"gsid\" FROM {} t",
        names.join(", "),
        schemas.table(table)
    )
}

/// A row of [`select`].
pub(super) fn stored(row: &Row, columns: &[Column]) -> Result<StoredRow, OrderError> {
    let mut cells = Vec::with_capacity(columns.len());
    for (place, column) in columns.iter().enumerate() {
        cells.push((column.name.clone(), decode(row, place, column.class())?));
    }
    Ok(StoredRow {
        gsid: row.try_get(columns.len())?,
        columns: cells,
    })
}
