//! What an owner writes: each call one transaction that compares the term first.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::lease::begin;
use super::read;
use super::schema::Schema;
use crate::fault::{Fault, FaultKind};
use crate::model::name::{ConnectionId, ObjectName};
use crate::model::position::Position;
use crate::model::record_id::RecordId;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::state::port::{
    Evidence, Hinted, HoleScope, NewHole, ObjectState, Owed, Progress, Settled, StoredPosition,
    insufficient, no_hole,
};

const POSITION: &str =
    "INSERT INTO {s}.position VALUES ($1, $2, $3) ON CONFLICT (connection) DO UPDATE
     SET position = excluded.position, confirmed_at = excluded.confirmed_at";
const SETTLE: &str = "DELETE FROM {s}.owed AS o
     USING unnest($2::text[], $3::text[], $4::timestamptz[]) AS done (object, record, stamp)
     WHERE o.connection = $1 AND o.object = done.object AND o.record = done.record AND o.stamp <= done.stamp";
/// Rows are locked in their order.
const OWE: &str = "INSERT INTO {s}.owed AS o
     SELECT $1, object, record, max(stamp) FROM unnest($2::text[], $3::text[], $4::timestamptz[])
        AS owed (object, record, stamp) GROUP BY object, record ORDER BY object, record
     ON CONFLICT (connection, object, record) DO UPDATE SET stamp = greatest(o.stamp, excluded.stamp)";
const REPUBLISHED: &str =
    "DELETE FROM {s}.republish AS r USING unnest($2::text[], $3::text[]) AS done (object, record)
     WHERE r.connection = $1 AND r.object = done.object AND r.record = done.record";
const OPEN: &str = "INSERT INTO {s}.hole (connection, object, cause, scope, state, opened_at)
     VALUES ($1, $2, $3, $4::text::jsonb, 'open', $5)
     ON CONFLICT (connection, object, cause, scope) WHERE state <> 'closed' DO NOTHING";
const REPAIRING: &str = "UPDATE {s}.hole SET state = 'repairing' WHERE id = $1 AND connection = $2";
const SCOPE: &str = "SELECT scope::text FROM {s}.hole WHERE id = $1 AND connection = $2 FOR UPDATE";
const CLOSE: &str = "UPDATE {s}.hole SET state = 'closed', closed_at = $2, evidence = $3::text::jsonb WHERE id = $1";
const OBJECT: &str = "INSERT INTO {s}.object VALUES ($1, $2, $3::text::jsonb)
     ON CONFLICT (connection, object) DO UPDATE SET state = excluded.state";
/// Rows are locked in their order.
const HINT: &str = "INSERT INTO {s}.hint AS h
     SELECT $1, object, record, max(at) FROM unnest($2::text[], $3::text[], $4::timestamptz[])
        AS told (object, record, at) GROUP BY object, record ORDER BY object, record
     ON CONFLICT (connection, object, record) DO UPDATE
     SET at = greatest(h.at + interval '1 microsecond', excluded.at)";
const MEET: &str = "DELETE FROM {s}.hint AS h
     USING unnest($2::text[], $3::text[], $4::timestamptz[]) AS met (object, record, at)
     WHERE h.connection = $1 AND h.object = met.object AND h.record = met.record AND h.at <= met.at";
const REQUEST: &str = "INSERT INTO {s}.republish VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";

/// Stores progress, all or nothing.
pub(super) async fn commit(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    term: u64,
    progress: &Progress,
) -> Result<(), OrderError> {
    begin(session, schema, connection, term).await?;
    if let Some(stored) = &progress.position {
        position(session, schema, connection, stored).await?;
    }
    if !progress.settle.is_empty() {
        settle(session, schema, connection, &progress.settle).await?;
    }
    if !progress.owe.is_empty() {
        owe(session, schema, connection, &progress.owe).await?;
    }
    if !progress.republished.is_empty() {
        republished(session, schema, connection, &progress.republished).await?;
    }
    if !progress.met.is_empty() {
        hinted(session, &schema.sql(MEET), connection, &progress.met).await?;
    }
    for hole in &progress.open {
        open(session, schema, connection, hole).await?;
    }
    session.run("COMMIT").await
}

async fn position(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    stored: &StoredPosition,
) -> Result<(), OrderError> {
    let position = stored.position.as_ref().map(Position::as_str);
    let sql = schema.sql(POSITION);
    session
        .execute(
            &sql,
            &[&connection.as_str(), &position, &stored.confirmed_at],
        )
        .await?;
    Ok(())
}

async fn settle(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    settled: &[Settled],
) -> Result<(), OrderError> {
    let objects: Vec<&str> = settled.iter().map(|done| done.object.as_str()).collect();
    let records: Vec<&str> = settled.iter().map(|done| done.record.as_str()).collect();
    let stamps: Vec<DateTime<Utc>> = settled.iter().map(|done| done.stamp).collect();
    let sql = schema.sql(SETTLE);
    session
        .execute(&sql, &[&connection.as_str(), &objects, &records, &stamps])
        .await?;
    Ok(())
}

async fn owe(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    owed: &[Owed],
) -> Result<(), OrderError> {
    let objects: Vec<&str> = owed.iter().map(|owed| owed.object.as_str()).collect();
    let records: Vec<&str> = owed.iter().map(|owed| owed.record.as_str()).collect();
    let stamps: Vec<DateTime<Utc>> = owed.iter().map(|owed| owed.stamp).collect();
    let sql = schema.sql(OWE);
    session
        .execute(&sql, &[&connection.as_str(), &objects, &records, &stamps])
        .await?;
    Ok(())
}

async fn republished(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    done: &[(ObjectName, RecordId)],
) -> Result<(), OrderError> {
    let objects: Vec<&str> = done.iter().map(|(object, _)| object.as_str()).collect();
    let records: Vec<&str> = done.iter().map(|(_, record)| record.as_str()).collect();
    let sql = schema.sql(REPUBLISHED);
    session
        .execute(&sql, &[&connection.as_str(), &objects, &records])
        .await?;
    Ok(())
}

async fn open(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    hole: &NewHole,
) -> Result<(), OrderError> {
    let (object, cause, scope) = (
        hole.object.as_str(),
        hole.cause.label(),
        render(&hole.scope)?,
    );
    let sql = schema.sql(OPEN);
    session
        .execute(
            &sql,
            &[
                &connection.as_str(),
                &object,
                &cause,
                &scope,
                &hole.opened_at,
            ],
        )
        .await?;
    Ok(())
}

/// Notes that a repair has begun.
pub(super) async fn repairing(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    term: u64,
    hole: i64,
) -> Result<(), OrderError> {
    begin(session, schema, connection, term).await?;
    let sql = schema.sql(REPAIRING);
    let noted = session
        .execute(&sql, &[&hole, &connection.as_str()])
        .await?;
    if noted == 0 {
        return Err(no_hole(hole).into());
    }
    session.run("COMMIT").await
}

/// A hole's end.
pub(super) struct Closing {
    pub term: u64,
    pub hole: i64,
    pub evidence: Evidence,
    pub now: DateTime<Utc>,
}

/// Closes a hole, if the evidence will do.
pub(super) async fn close_hole(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    closing: &Closing,
) -> Result<(), OrderError> {
    let Closing {
        term,
        hole,
        evidence,
        now,
    } = closing;
    begin(session, schema, connection, *term).await?;
    let found = session
        .query(&schema.sql(SCOPE), &[hole, &connection.as_str()])
        .await?;
    let found = found.first().ok_or_else(|| no_hole(*hole))?;
    let scope: HoleScope = read::parse(found.try_get(0)?)?;
    if evidence.as_of <= scope.end() {
        return Err(insufficient(*hole, evidence.as_of, scope.end()).into());
    }
    let evidence = render(evidence)?;
    session
        .execute(&schema.sql(CLOSE), &[hole, now, &evidence])
        .await?;
    session.run("COMMIT").await
}

/// Stores what is known of an object.
pub(super) async fn put_object(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    term: u64,
    object: &ObjectName,
    state: &ObjectState,
) -> Result<(), OrderError> {
    begin(session, schema, connection, term).await?;
    let state = render(state)?;
    session
        .execute(
            &schema.sql(OBJECT),
            &[&connection.as_str(), &object.as_str(), &state],
        )
        .await?;
    session.run("COMMIT").await
}

/// Asks the owner to publish a record again.
pub(super) async fn request(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    object: &ObjectName,
    record: &RecordId,
) -> Result<(), OrderError> {
    session
        .execute(
            &schema.sql(REQUEST),
            &[&connection.as_str(), &object.as_str(), &record.as_str()],
        )
        .await?;
    Ok(())
}

/// Notes hints.
pub(super) async fn hint(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    hints: &[Hinted],
) -> Result<(), OrderError> {
    hinted(session, &schema.sql(HINT), connection, hints).await
}

async fn hinted(
    session: &mut Session,
    sql: &str,
    connection: &ConnectionId,
    hints: &[Hinted],
) -> Result<(), OrderError> {
    let objects: Vec<&str> = hints.iter().map(|hint| hint.object.as_str()).collect();
    let records: Vec<&str> = hints.iter().map(|hint| hint.record.as_str()).collect();
    let instants: Vec<DateTime<Utc>> = hints.iter().map(|hint| hint.at).collect();
    session
        .execute(sql, &[&connection.as_str(), &objects, &records, &instants])
        .await?;
    Ok(())
}

pub(super) fn render<T: Serialize>(value: &T) -> Result<String, Fault> {
    serde_json::to_string(value)
        .map_err(|error| Fault::new(FaultKind::Corrupt, "encoding state").source(error))
}
