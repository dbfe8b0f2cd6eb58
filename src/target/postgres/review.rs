//! What waits for a person, and what was decided.

use std::collections::{BTreeSet, HashMap};

use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Schemas;
use super::ledger::{parse_version, signed};
use super::read::row_of;
use super::release::Share;
use super::schema::known_columns;
use super::wake::named;
use crate::fault::{Fault, FaultKind};
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::model::record_id::RecordId;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::target::port::Batch;
use crate::target::port::review::{
    Binding, Bond, Candidate, Decided, InReview, Review, Which, no_row,
};

/// `ready` of a change that waits for a person.
pub(super) const IN_REVIEW: i16 = 3;

/// A decision that ends the wait of the change `p`.
pub(super) const DECIDED: &str = "EXISTS (SELECT 1 FROM {binding} b WHERE b.connection = p.connection
    AND b.destination = p.destination AND b.record = p.record AND b.object = p.object AND b.kind <> 'open')";

/// Several rows that have a record's identifiers; GSIDs ascend.
#[derive(Debug, Clone)]
pub(super) struct Ambiguity {
    pub identifiers: Vec<(String, String)>,
    pub candidates: Vec<Uuid>,
}

/// Writes why changes wait, beside them.
pub(super) async fn write(
    session: &mut Session,
    schemas: &Schemas,
    reviews: &[(i64, &Ambiguity)],
) -> Result<(), OrderError> {
    if reviews.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = reviews.iter().map(|(id, _)| *id).collect();
    let (mut identifiers, mut candidates) = (Vec::new(), Vec::new());
    for (_, ambiguity) in reviews {
        identifiers.push(encoded(&ambiguity.identifiers)?);
        candidates.push(encoded(&ambiguity.candidates)?);
    }
    let sql = format!(
        "INSERT INTO {} (change, identifiers, candidates)
         SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[])",
        schemas.ledger("review")
    );
    session
        .execute(&sql, &[&ids, &identifiers, &candidates])
        .await?;
    Ok(())
}

fn encoded(value: &impl serde::Serialize) -> Result<String, Fault> {
    serde_json::to_string(value)
        .map_err(|error| Fault::new(FaultKind::Corrupt, "encoding a review").source(error))
}

fn decoded<T: DeserializeOwned>(text: &str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|error| {
        Fault::new(FaultKind::Corrupt, format!("reading a review's `{text}`")).source(error)
    })
}

/// What was decided of a batch's records, by their spelling.
pub(super) async fn bonds<'a>(
    session: &mut Session,
    schemas: &Schemas,
    batch: &Batch,
    table: &str,
    records: &HashMap<&'a str, &'a RecordId>,
) -> Result<HashMap<&'a RecordId, Bond>, OrderError> {
    let sql = format!(
        "SELECT record, kind, gsid FROM {} WHERE connection = $1 AND destination = $2 AND object = $3
         AND record = ANY($4)",
        schemas.ledger("binding")
    );
    let names: Vec<&str> = records.keys().copied().collect();
    let (connection, object) = (batch.reader.connection.as_str(), batch.object.as_str());
    let params: [&(dyn ToSql + Sync); 4] = [&connection, &table, &object, &names];
    let mut bonds = HashMap::new();
    for row in session.query(&sql, &params).await? {
        if let Some(record) = records.get(row.try_get::<_, &str>(0)?) {
            bonds.insert(*record, bond(&row, 1)?);
        }
    }
    Ok(bonds)
}

/// Kind and GSID from two columns.
fn bond(row: &Row, at: usize) -> Result<Bond, OrderError> {
    Ok(Bond::read(row.try_get(at)?, row.try_get(at + 1)?)?)
}

/// Removes undone decisions of records whose identifiers have said which row they are.
pub(super) async fn done_with(
    session: &mut Session,
    schemas: &Schemas,
    batch: &Batch,
    table: &str,
    records: &BTreeSet<&RecordId>,
) -> Result<(), OrderError> {
    if records.is_empty() {
        return Ok(());
    }
    // What was decided meanwhile stays.
    let sql = format!(
        "DELETE FROM {} WHERE connection = $1 AND destination = $2 AND object = $3 AND record = ANY($4)
         AND kind = 'open'",
        schemas.ledger("binding")
    );
    let names: Vec<&str> = records.iter().map(|record| record.as_str()).collect();
    let (connection, object) = (batch.reader.connection.as_str(), batch.object.as_str());
    session
        .execute(&sql, &[&connection, &table, &object, &names])
        .await?;
    Ok(())
}

/// What waits, oldest first.
pub(super) async fn list(
    session: &mut Session,
    schemas: &Schemas,
    which: &Which,
) -> Result<Vec<Review>, OrderError> {
    let sql = "SELECT p.connection, p.job, p.object, p.record, p.destination, p.version, p.since, r.identifiers,
            r.candidates
         FROM {change} p JOIN {review} r ON r.change = p.id
         WHERE p.ready = 3 AND ($1::text IS NULL OR p.connection = $1) AND ($2::text IS NULL OR p.job = $2)
            AND ($3::text IS NULL OR p.object = $3) AND ($4::text IS NULL OR p.record = $4)
         ORDER BY p.since, p.id LIMIT $5";
    let params: [&(dyn ToSql + Sync); 5] = [
        &which.connection.as_ref().map(ConnectionId::as_str),
        &which.job.as_ref().map(JobId::as_str),
        &which.object.as_ref().map(ObjectName::as_str),
        &which.record.as_ref().map(RecordId::as_str),
        &signed(which.most() as u64),
    ];
    let mut reviews = Vec::new();
    for row in session.query(&named(schemas, sql), &params).await? {
        let table: String = row.try_get(4)?;
        let gsids: Vec<Uuid> = decoded(row.try_get(8)?)?;
        let mut candidates = Vec::with_capacity(gsids.len());
        for gsid in gsids {
            let row = row_of(session, schemas, &table, gsid).await?;
            candidates.push(Candidate { gsid, row });
        }
        reviews.push(Review {
            connection: ConnectionId::new(row.try_get::<_, String>(0)?),
            job: JobId::new(row.try_get::<_, String>(1)?),
            object: ObjectName::new(row.try_get::<_, String>(2)?),
            record: RecordId::stored(row.try_get::<_, String>(3)?),
            table,
            version: parse_version(row.try_get(5)?)?,
            since: row.try_get(6)?,
            identifiers: decoded(row.try_get(7)?)?,
            candidates,
        });
    }
    Ok(reviews)
}

/// What was decided and holds.
pub(super) async fn bindings(
    session: &mut Session,
    schemas: &Schemas,
) -> Result<Vec<Binding>, OrderError> {
    let sql =
        "SELECT connection, object, record, destination, kind, gsid, author, at FROM {binding}
         WHERE kind <> 'open' ORDER BY 1, 2, 3, 4";
    let rows = session.query(&named(schemas, sql), &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(Binding {
                connection: ConnectionId::new(row.try_get::<_, String>(0)?),
                object: ObjectName::new(row.try_get::<_, String>(1)?),
                record: RecordId::stored(row.try_get::<_, String>(2)?),
                table: row.try_get(3)?,
                bond: bond(row, 4)?,
                by: row.try_get(6)?,
                at: row.try_get(7)?,
            })
        })
        .collect()
}

/// How much of a job waits, and how much of that is decided.
pub(super) async fn count(
    session: &mut Session,
    schemas: &Schemas,
    connection: &ConnectionId,
    job: &JobId,
) -> Result<InReview, OrderError> {
    let sql = format!(
        "SELECT count(*), count(*) FILTER (WHERE {DECIDED}) FROM {{change}} p
         WHERE p.ready = 3 AND p.connection = $1 AND p.job = $2"
    );
    let params: [&(dyn ToSql + Sync); 2] = [&connection.as_str(), &job.as_str()];
    let rows = session.query(&named(schemas, &sql), &params).await?;
    let Some(row) = rows.first() else {
        return Ok(InReview::default());
    };
    Ok(InReview {
        waiting: row.try_get::<_, i64>(0)?.cast_unsigned(),
        decided: row.try_get::<_, i64>(1)?.cast_unsigned(),
    })
}

/// Wakes what was decided.
pub(super) async fn wake_decided(
    session: &mut Session,
    schemas: &Schemas,
    share: &Share,
) -> Result<(), OrderError> {
    let sql = format!(
        "UPDATE {{change}} p SET ready = 1, woken = woken + 1
         WHERE p.ready = 3 AND p.connection = $1 AND p.job = $2 AND p.partition = ANY($3) AND {DECIDED}"
    );
    let params: [&(dyn ToSql + Sync); 3] = [
        &share.connection.as_str(),
        &share.job.as_str(),
        &share.partitions,
    ];
    session.execute(&named(schemas, &sql), &params).await?;
    Ok(())
}

/// Notes a decision in place of the one before.
pub(super) async fn decide(
    session: &mut Session,
    schemas: &Schemas,
    binding: &Binding,
) -> Result<Decided, OrderError> {
    let table = binding.table.as_str();
    known_columns(session, schemas, table).await?;
    session.run("BEGIN").await?;
    if let Bond::Row(gsid) = binding.bond {
        let sql = format!("SELECT 1 FROM {} WHERE \"gsid\" = $1", schemas.table(table));
        if session.query(&sql, &[&gsid]).await?.is_empty() {
            return Err(no_row(table, gsid).into());
        }
    }
    let key: [&(dyn ToSql + Sync); 4] = [
        &binding.connection.as_str(),
        &table,
        &binding.record.as_str(),
        &binding.object.as_str(),
    ];
    const OWN: &str = "connection = $1 AND destination = $2 AND record = $3 AND object = $4";
    let sql = format!("SELECT kind, gsid FROM {{binding}} WHERE {OWN} FOR UPDATE");
    let found = session.query(&named(schemas, &sql), &key).await?;
    let before = found.first().map(|row| bond(row, 0)).transpose()?;
    let sql = "INSERT INTO {binding} VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (connection, destination, record, object) DO UPDATE SET kind = excluded.kind, gsid = excluded.gsid,
            author = excluded.author, at = excluded.at";
    let (label, gsid) = (binding.bond.label(), binding.bond.gsid());
    let params: [&(dyn ToSql + Sync); 8] = [
        key[0],
        key[1],
        key[2],
        key[3],
        &label,
        &gsid,
        &binding.by,
        &binding.at,
    ];
    session.execute(&named(schemas, sql), &params).await?;
    let sql = format!("SELECT 1 FROM {{change}} WHERE {OWN} AND ready = 3");
    let waits = !session.query(&named(schemas, &sql), &key).await?.is_empty();
    session.run("COMMIT").await?;
    Ok(Decided { before, waits })
}
