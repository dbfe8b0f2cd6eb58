//! Who holds which rows, page by page.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Schemas;
use super::ledger::{parse_version, signed};
use super::read::{select, stored};
use super::schema::known_columns;
use crate::model::name::{ConnectionId, ObjectKey, ObjectName};
use crate::model::record_id::RecordId;
use crate::model::version::Version;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::target::beside::{HeldRow, Holder};
use crate::target::port::StoredRow;

/// A page of an object's entries in a table, by record.
pub(super) async fn held(
    session: &mut Session,
    schemas: &Schemas,
    key: &ObjectKey,
    table: &str,
    after: Option<&RecordId>,
    limit: usize,
) -> Result<Vec<HeldRow>, OrderError> {
    let sql = format!(
        "SELECT record, version, CASE WHEN gone THEN NULL ELSE gsid END FROM {}
         WHERE connection = $1 AND destination = $2 AND record > $3 AND object = $4 ORDER BY record LIMIT $5",
        schemas.ledger("crosswalk")
    );
    let entries = session
        .query(
            &sql,
            &[
                &key.connection.as_str(),
                &table,
                &after.map_or("", RecordId::as_str),
                &key.object.as_str(),
                &signed(limit as u64),
            ],
        )
        .await?;
    let mut gsids: Vec<Uuid> = Vec::with_capacity(entries.len());
    for entry in &entries {
        gsids.extend(entry.try_get::<_, Option<Uuid>>(2)?);
    }
    let rows = rows_of(session, schemas, table, &gsids).await?;
    let mut held = Vec::with_capacity(entries.len());
    for entry in entries {
        let gsid: Option<Uuid> = entry.try_get(2)?;
        held.push(HeldRow {
            record: RecordId::stored(entry.try_get::<_, String>(0)?),
            version: parse_version(entry.try_get(1)?)?,
            // Rows may be shared.
            row: gsid.and_then(|gsid| rows.get(&gsid).cloned()),
        });
    }
    Ok(held)
}

async fn rows_of(
    session: &mut Session,
    schemas: &Schemas,
    table: &str,
    gsids: &[Uuid],
) -> Result<HashMap<Uuid, StoredRow>, OrderError> {
    let columns = known_columns(session, schemas, table).await?;
    let sql = format!(
        "{} WHERE t.\"gsid\" = ANY($1)",
        select(schemas, table, &columns)
    );
    let mut found = HashMap::with_capacity(gsids.len());
    for row in session.query(&sql, &[&gsids]).await? {
        let row = stored(&row, &columns)?;
        found.insert(row.gsid, row);
    }
    Ok(found)
}

/// The newest version of an object's entries.
pub(super) async fn newest(
    session: &mut Session,
    schemas: &Schemas,
    key: &ObjectKey,
) -> Result<Option<Version>, OrderError> {
    let sql = format!(
        "SELECT max(version) FROM {} WHERE connection = $1 AND object = $2",
        schemas.ledger("crosswalk")
    );
    let params = [&key.connection.as_str() as _, &key.object.as_str() as _];
    let rows = session.query(&sql, &params).await?;
    let newest: Option<&str> = match rows.first() {
        Some(row) => row.try_get(0)?,
        None => None,
    };
    Ok(newest.map(parse_version).transpose()?)
}

/// The records that hold rows.
pub(super) async fn holders(
    session: &mut Session,
    schemas: &Schemas,
    table: &str,
    gsids: &[Uuid],
) -> Result<BTreeMap<Uuid, Vec<Holder>>, OrderError> {
    let sql = format!(
        "SELECT gsid, connection, object, record FROM {} WHERE gsid = ANY($1) AND destination = $2 AND NOT gone
         ORDER BY 1, 2, 3, 4",
        schemas.ledger("crosswalk")
    );
    let mut found: BTreeMap<Uuid, Vec<Holder>> = BTreeMap::new();
    for row in session.query(&sql, &[&gsids, &table]).await? {
        found.entry(row.try_get(0)?).or_default().push(Holder {
            connection: ConnectionId::new(row.try_get::<_, String>(1)?),
            object: ObjectName::new(row.try_get::<_, String>(2)?),
            record: RecordId::stored(row.try_get::<_, String>(3)?),
        });
    }
    Ok(found)
}

/// How many records hold a row, marked ones left out.
pub(super) async fn count(
    session: &mut Session,
    schemas: &Schemas,
    connection: &ConnectionId,
    object: &ObjectName,
    table: &str,
) -> Result<u64, OrderError> {
    let sql = format!(
        "SELECT count(*) FROM {} WHERE connection = $1 AND destination = $2 AND object = $3
            AND gsid IS NOT NULL AND NOT gone AND crm_state IS NULL",
        schemas.ledger("crosswalk")
    );
    let params: [&(dyn ToSql + Sync); 3] = [&connection.as_str(), &table, &object.as_str()];
    let rows = session.query(&sql, &params).await?;
    let count = rows
        .first()
        .map(|row| row.try_get::<_, i64>(0))
        .transpose()?;
    Ok(count.unwrap_or(0).cast_unsigned())
}
