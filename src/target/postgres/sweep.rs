//! What a replay has not met: struck out record by record, until what is left has to leave.

use tokio_postgres::types::ToSql;

use super::Schemas;
use super::ledger::{parse_version, signed};
use crate::model::record_id::RecordId;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::target::port::sweep::{READER, SweepKey, Unmet};

/// Notes who holds rows of the tables. All entries of an object are looked at, however long that takes.
pub(super) async fn begin(
    session: &mut Session,
    schemas: &Schemas,
    of: &SweepKey,
    tables: &[String],
) -> Result<u64, OrderError> {
    let (connection, job, object) = (of.connection.as_str(), of.job.as_str(), of.object.as_str());
    session
        .run("BEGIN; SET LOCAL statement_timeout = 0")
        .await?;
    let sql = format!(
        "DELETE FROM {} WHERE connection = $1 AND job = $2 AND (replay < $3 OR replay = $4)",
        schemas.ledger("unmet")
    );
    let name = of.name();
    session
        .execute(&sql, &[&connection, &job, &of.replay, &name])
        .await?;
    let sql = format!(
        "DELETE FROM {} WHERE connection = $1 AND job = $2 AND reader >= $3 AND reader < $4",
        schemas.ledger("offset")
    );
    session
        .execute(&sql, &[&connection, &job, &READER, &of.readers_before()])
        .await?;
    let sql = format!(
        "INSERT INTO {} (connection, job, replay, record, destination, version)
         SELECT connection, $2, $5, record, destination, version FROM {}
         WHERE connection = $1 AND destination = ANY($3) AND object = $4
            AND gsid IS NOT NULL AND NOT gone AND crm_state IS NULL
         ON CONFLICT DO NOTHING",
        schemas.ledger("unmet"),
        schemas.ledger("crosswalk")
    );
    let params: [&(dyn ToSql + Sync); 5] = [&connection, &job, &tables, &object, &name];
    let noted = session.execute(&sql, &params).await?;
    session.run("COMMIT").await?;
    Ok(noted)
}

/// Strikes out records.
pub(super) async fn met(
    session: &mut Session,
    schemas: &Schemas,
    of: &SweepKey,
    records: &[RecordId],
) -> Result<(), OrderError> {
    let sql = format!(
        "DELETE FROM {} WHERE connection = $1 AND job = $2 AND replay = $4 AND record = ANY($3)",
        schemas.ledger("unmet")
    );
    // PostgreSQL keeps no such text, so nothing was noted of such a record.
    let records = records.iter().map(RecordId::as_str);
    let records: Vec<&str> = records.filter(|record| !record.contains('\0')).collect();
    let (connection, job) = (of.connection.as_str(), of.job.as_str());
    session
        .execute(&sql, &[&connection, &job, &records, &of.name()])
        .await?;
    Ok(())
}

/// What is left, by record.
pub(super) async fn unmet(
    session: &mut Session,
    schemas: &Schemas,
    of: &SweepKey,
    limit: usize,
) -> Result<Vec<Unmet>, OrderError> {
    let sql = format!(
        "SELECT record, destination, version FROM {} WHERE connection = $1 AND job = $2 AND replay = $4
         ORDER BY record, destination LIMIT $3",
        schemas.ledger("unmet")
    );
    let (connection, job) = (of.connection.as_str(), of.job.as_str());
    let (limit, name) = (signed(limit as u64), of.name());
    let mut unmet = Vec::new();
    let params: [&(dyn ToSql + Sync); 4] = [&connection, &job, &limit, &name];
    for row in session.query(&sql, &params).await? {
        unmet.push(Unmet {
            record: RecordId::stored(row.try_get::<_, String>(0)?),
            table: row.try_get(1)?,
            version: parse_version(row.try_get(2)?)?,
        });
    }
    Ok(unmet)
}

/// Strikes out what has left.
pub(super) async fn swept(
    session: &mut Session,
    schemas: &Schemas,
    of: &SweepKey,
    swept: &[Unmet],
) -> Result<(), OrderError> {
    let sql = format!(
        "DELETE FROM {} u USING unnest($3::text[], $4::text[]) s(record, destination)
         WHERE u.connection = $1 AND u.job = $2 AND u.replay = $5 AND u.record = s.record
            AND u.destination = s.destination",
        schemas.ledger("unmet")
    );
    let (connection, job) = (of.connection.as_str(), of.job.as_str());
    let records: Vec<&str> = swept.iter().map(|one| one.record.as_str()).collect();
    let name = of.name();
    let tables: Vec<&str> = swept.iter().map(|one| one.table.as_str()).collect();
    let params: [&(dyn ToSql + Sync); 5] = [&connection, &job, &records, &tables, &name];
    session.execute(&sql, &params).await?;
    Ok(())
}

/// Forgets a replay.
pub(super) async fn end(
    session: &mut Session,
    schemas: &Schemas,
    of: &SweepKey,
) -> Result<(), OrderError> {
    let (connection, job) = (of.connection.as_str(), of.job.as_str());
    for (table, column, name) in [
        ("unmet", "replay", of.name()),
        ("offset", "reader", of.reader()),
    ] {
        let sql = format!(
            "DELETE FROM {} WHERE connection = $1 AND job = $2 AND {column} = $3",
            schemas.ledger(table)
        );
        session.execute(&sql, &[&connection, &job, &name]).await?;
    }
    Ok(())
}
