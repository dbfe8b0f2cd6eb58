//! The hole ledger's rows.

use rusqlite::{Transaction, params};

use super::{instant, micros, parse, render};
use crate::fault::Fault;
use crate::model::name::{ConnectionId, ObjectName};
use crate::sqlite::error::JobError;
use crate::sqlite::readers::Readers;
use crate::state::port::{Evidence, Hole, HoleCause, HoleScope, HoleState, NewHole};

/// The ledger, newest first.
pub(super) async fn list(
    readers: &Readers,
    connection: Option<&ConnectionId>,
    all: bool,
) -> Result<Vec<Hole>, Fault> {
    let connection = connection.cloned();
    readers
        .read(move |transaction| {
            let mut statement = transaction.prepare_cached(
                "SELECT id, connection, object, cause, scope, state, opened_at, closed_at, evidence
                 FROM hole WHERE (?1 IS NULL OR connection = ?1) AND (?2 OR state <> '\"closed\"')
                 ORDER BY id DESC",
            )?;
            let mut rows =
                statement.query(params![connection.as_ref().map(ConnectionId::as_str), all])?;
            let mut holes = Vec::new();
            while let Some(row) = rows.next()? {
                holes.push(hole(row)?);
            }
            Ok(holes)
        })
        .await
}

fn hole(row: &rusqlite::Row<'_>) -> Result<Hole, JobError> {
    let evidence: Option<String> = row.get(8)?;
    Ok(Hole {
        id: row.get(0)?,
        connection: ConnectionId::new(row.get::<_, String>(1)?),
        object: ObjectName::new(row.get::<_, String>(2)?),
        cause: parse::<HoleCause>(&row.get::<_, String>(3)?)?,
        scope: parse::<HoleScope>(&row.get::<_, String>(4)?)?,
        state: parse::<HoleState>(&row.get::<_, String>(5)?)?,
        opened_at: instant(row.get(6)?)?,
        closed_at: row.get::<_, Option<i64>>(7)?.map(instant).transpose()?,
        evidence: evidence.as_deref().map(parse::<Evidence>).transpose()?,
    })
}

/// Opens a hole, unless one equal to it is open.
pub(super) fn open(
    transaction: &Transaction<'_>,
    connection: &ConnectionId,
    new: &NewHole,
) -> Result<(), JobError> {
    transaction.execute(
        "INSERT INTO hole (connection, object, cause, scope, state, opened_at)
         SELECT ?1, ?2, ?3, ?4, '\"open\"', ?5 WHERE NOT EXISTS (
             SELECT 1 FROM hole WHERE connection = ?1 AND object = ?2 AND cause = ?3 AND scope = ?4
             AND state <> '\"closed\"')",
        params![
            connection.as_str(),
            new.object.as_str(),
            render(&new.cause)?,
            render(&new.scope)?,
            micros(new.opened_at)
        ],
    )?;
    Ok(())
}
