//! Records that are said to have changed, one row each.

use rusqlite::{Transaction, params};

use super::{instant, micros};
use crate::model::name::{ConnectionId, ObjectName};
use crate::model::record_id::RecordId;
use crate::sqlite::error::JobError;
use crate::state::port::Hinted;

/// The table.
pub(super) const TABLE: &str = "
CREATE TABLE hint (
    connection TEXT NOT NULL, object TEXT NOT NULL, record TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (connection, object, record)
) STRICT, WITHOUT ROWID;
CREATE INDEX hint_by_age ON hint (connection, at);
";

/// Notes hints; a record's next one is later than its last.
pub(super) fn note(
    transaction: &Transaction<'_>,
    connection: &ConnectionId,
    hints: &[Hinted],
) -> Result<(), JobError> {
    let mut note = transaction.prepare_cached(
        "INSERT INTO hint VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET at = max(at + 1, excluded.at)",
    )?;
    for hint in hints {
        note.execute(params![
            connection.as_str(),
            hint.object.as_str(),
            hint.record.as_str(),
            micros(hint.at)
        ])?;
    }
    Ok(())
}

/// Forgets hints that were met, unless a newer one came.
pub(super) fn meet(
    transaction: &Transaction<'_>,
    connection: &ConnectionId,
    met: &[Hinted],
) -> Result<(), JobError> {
    let mut meet = transaction.prepare_cached(
        "DELETE FROM hint WHERE connection = ?1 AND object = ?2 AND record = ?3 AND at <= ?4",
    )?;
    for hint in met {
        meet.execute(params![
            connection.as_str(),
            hint.object.as_str(),
            hint.record.as_str(),
            micros(hint.at)
        ])?;
    }
    Ok(())
}

/// Hints, oldest first.
pub(super) fn list(
    transaction: &Transaction<'_>,
    connection: &ConnectionId,
    limit: usize,
) -> Result<Vec<Hinted>, JobError> {
    let mut statement = transaction.prepare_cached(
        "SELECT object, record, at FROM hint WHERE connection = ?1 ORDER BY at LIMIT ?2",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![connection.as_str(), limit])?;
    let mut hints = Vec::new();
    while let Some(row) = rows.next()? {
        hints.push(Hinted {
            object: ObjectName::new(row.get::<_, String>(0)?),
            record: RecordId::stored(row.get::<_, String>(1)?),
            at: instant(row.get(2)?)?,
        });
    }
    Ok(hints)
}
