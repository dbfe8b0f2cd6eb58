//! What is read of the state; whoever reads owns nothing.

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use tokio_postgres::Row;

use super::schema::Schema;
use crate::fault::{Fault, FaultKind};
use crate::model::name::{ConnectionId, ObjectName};
use crate::model::position::Position;
use crate::model::record_id::RecordId;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::state::port::{
    Evidence, Hinted, Hole, HoleCause, HoleScope, HoleState, ObjectState, Owed, StoredPosition,
};

const POSITION: &str = "SELECT position, confirmed_at FROM {s}.position WHERE connection = $1";
const OWED: &str = "SELECT record, stamp FROM {s}.owed WHERE connection = $1 AND object = $2
     ORDER BY stamp, record LIMIT $3";
const COUNTS: &str = "SELECT object, count(*) FROM {s}.owed WHERE connection = $1
     GROUP BY object ORDER BY object";
const HOLES: &str = "SELECT id, connection, object, cause, scope::text, state, opened_at, closed_at, evidence::text
     FROM {s}.hole WHERE ($1::text IS NULL OR connection = $1) AND ($2 OR state <> 'closed') ORDER BY id DESC";
const OBJECT: &str = "SELECT state::text FROM {s}.object WHERE connection = $1 AND object = $2";
const OBJECTS: &str = "SELECT object, state::text FROM {s}.object WHERE connection = $1
     ORDER BY object";
const REPUBLISH: &str = "SELECT object, record FROM {s}.republish WHERE connection = $1
     ORDER BY object, record LIMIT $2";
const HINTS: &str = "SELECT object, record, at FROM {s}.hint WHERE connection = $1
     ORDER BY at LIMIT $2";

/// Where the stream goes on.
pub(super) async fn position(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
) -> Result<Option<StoredPosition>, OrderError> {
    let rows = session
        .query(&schema.sql(POSITION), &[&connection.as_str()])
        .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    Ok(Some(StoredPosition {
        position: row.try_get::<_, Option<String>>(0)?.map(Position::new),
        confirmed_at: row.try_get(1)?,
    }))
}

/// Records that owe a read, oldest first.
pub(super) async fn owed(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    object: &ObjectName,
    limit: usize,
) -> Result<Vec<Owed>, OrderError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = session
        .query(
            &schema.sql(OWED),
            &[&connection.as_str(), &object.as_str(), &limit],
        )
        .await?;
    let owed = rows.iter().map(|row| {
        Ok(Owed {
            object: object.clone(),
            record: RecordId::stored(row.try_get::<_, String>(0)?),
            stamp: row.try_get(1)?,
        })
    });
    owed.collect()
}

/// How many reads are owed, per object.
pub(super) async fn owed_counts(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
) -> Result<Vec<(ObjectName, u64)>, OrderError> {
    let rows = session
        .query(&schema.sql(COUNTS), &[&connection.as_str()])
        .await?;
    let counts = rows.iter().map(|row| {
        let object = ObjectName::new(row.try_get::<_, String>(0)?);
        Ok((object, row.try_get::<_, i64>(1)?.cast_unsigned()))
    });
    counts.collect()
}

/// The hole ledger, newest first.
pub(super) async fn holes(
    session: &mut Session,
    schema: &Schema,
    connection: Option<&ConnectionId>,
    all: bool,
) -> Result<Vec<Hole>, OrderError> {
    let connection = connection.map(ConnectionId::as_str);
    let rows = session
        .query(&schema.sql(HOLES), &[&connection, &all])
        .await?;
    rows.iter().map(hole).collect()
}

fn hole(row: &Row) -> Result<Hole, OrderError> {
    let cause: &str = row.try_get(3)?;
    let state: &str = row.try_get(5)?;
    let evidence: Option<&str> = row.try_get(8)?;
    let known = HoleCause::ALL
        .into_iter()
        .find(|known| known.label() == cause);
    Ok(Hole {
        id: row.try_get(0)?,
        connection: ConnectionId::new(row.try_get::<_, String>(1)?),
        object: ObjectName::new(row.try_get::<_, String>(2)?),
        cause: known.ok_or_else(|| corrupt(format!("the hole ledger holds a cause `{cause}`")))?,
        scope: parse::<HoleScope>(row.try_get(4)?)?,
        state: match state {
            "open" => HoleState::Open,
            "repairing" => HoleState::Repairing,
            "closed" => HoleState::Closed,
            other => {
                return Err(corrupt(format!("the hole ledger holds a state `{other}`")).into());
            }
        },
        opened_at: row.try_get(6)?,
        closed_at: row.try_get::<_, Option<DateTime<Utc>>>(7)?,
        evidence: evidence.map(parse::<Evidence>).transpose()?,
    })
}

/// What is known of an object.
pub(super) async fn object(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    object: &ObjectName,
) -> Result<ObjectState, OrderError> {
    let rows = session
        .query(
            &schema.sql(OBJECT),
            &[&connection.as_str(), &object.as_str()],
        )
        .await?;
    match rows.first() {
        Some(row) => Ok(parse(row.try_get(0)?)?),
        None => Ok(ObjectState::default()),
    }
}

/// Every known object, by name.
pub(super) async fn objects(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
) -> Result<Vec<(ObjectName, ObjectState)>, OrderError> {
    let rows = session
        .query(&schema.sql(OBJECTS), &[&connection.as_str()])
        .await?;
    let objects = rows.iter().map(|row| {
        let object = ObjectName::new(row.try_get::<_, String>(0)?);
        Ok((object, parse(row.try_get(1)?)?))
    });
    objects.collect()
}

/// Records that jobs asked for.
pub(super) async fn to_republish(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    limit: usize,
) -> Result<Vec<(ObjectName, RecordId)>, OrderError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = session
        .query(&schema.sql(REPUBLISH), &[&connection.as_str(), &limit])
        .await?;
    let asked = rows.iter().map(|row| {
        let object = ObjectName::new(row.try_get::<_, String>(0)?);
        Ok((object, RecordId::stored(row.try_get::<_, String>(1)?)))
    });
    asked.collect()
}

/// Records that are said to have changed, oldest first.
pub(super) async fn hints(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    limit: usize,
) -> Result<Vec<Hinted>, OrderError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = session
        .query(&schema.sql(HINTS), &[&connection.as_str(), &limit])
        .await?;
    let hints = rows.iter().map(|row| {
        Ok(Hinted {
            object: ObjectName::new(row.try_get::<_, String>(0)?),
            record: RecordId::stored(row.try_get::<_, String>(1)?),
            at: row.try_get(2)?,
        })
    });
    hints.collect()
}

/// Reads stored JSON.
pub(super) fn parse<T: DeserializeOwned>(json: &str) -> Result<T, Fault> {
    serde_json::from_str(json)
        .map_err(|error| corrupt(format!("reading stored state `{json}`")).source(error))
}

fn corrupt(what: String) -> Fault {
    Fault::new(FaultKind::Corrupt, what).remedy(
        "restore the state's schema from a backup, or drop it: positions are lost then, and holes are read",
    )
}
