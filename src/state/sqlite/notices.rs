//! Marks and letters, a row each.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rusqlite::{OptionalExtension, Transaction, params};

use super::{SqliteState, instant, micros, number};
use crate::fault::Fault;
use crate::sqlite::error::JobError;
use crate::state::notices::{LETTERS, Letter, Moved, Notices, Step, Taken};

/// The tables.
pub(super) const TABLES: &str = "
CREATE TABLE notice_mark (
    subject TEXT PRIMARY KEY, mark TEXT NOT NULL, at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE letter (
    id TEXT PRIMARY KEY, body TEXT NOT NULL, written INTEGER NOT NULL, due INTEGER NOT NULL, tries INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

const TAKE: &str = "UPDATE letter SET due = ?2, tries = tries + 1
     WHERE id IN (SELECT id FROM letter WHERE due <= ?1 ORDER BY due, id LIMIT ?3)
     RETURNING id, body, written, tries";
const KEEP: &str =
    "INSERT INTO letter SELECT ?1, ?2, ?3, ?3, 0 WHERE (SELECT count(*) FROM letter) < ?4
     ON CONFLICT DO NOTHING";

fn mark(transaction: &Transaction<'_>, subject: &str) -> Result<Option<String>, JobError> {
    let sql = "SELECT mark FROM notice_mark WHERE subject = ?1";
    Ok(transaction
        .query_row(sql, [subject], |row| row.get(0))
        .optional()?)
}

fn taken(row: &rusqlite::Row<'_>) -> Result<Taken, JobError> {
    Ok(Taken {
        letter: Letter {
            id: row.get(0)?,
            body: row.get(1)?,
        },
        written: instant(row.get(2)?)?,
        tries: row.get(3)?,
    })
}

#[async_trait]
impl Notices for SqliteState {
    async fn mark(&self, subject: &str) -> Result<Option<String>, Fault> {
        let subject = subject.to_owned();
        self.readers
            .read(move |transaction| mark(transaction, &subject))
            .await
    }

    async fn move_mark(&self, subject: &str, step: Step) -> Result<Moved, Fault> {
        let subject = subject.to_owned();
        self.writer
            .grouped(move |transaction| {
                let (moved, mut kept) = (mark(transaction, &subject)? == step.before, 0);
                if moved {
                    transaction.execute(
                        "INSERT INTO notice_mark VALUES (?1, ?2, ?3)
                         ON CONFLICT DO UPDATE SET mark = excluded.mark, at = excluded.at",
                        params![subject, step.after, micros(step.at)],
                    )?;
                    let most = number(LETTERS as u64);
                    for letter in &step.letters {
                        let row = params![letter.id, letter.body, micros(step.at), most];
                        kept += transaction.execute(KEEP, row)?;
                    }
                }
                Ok(Moved { moved, kept })
            })
            .await
    }

    async fn forget_marks(&self, before: DateTime<Utc>) -> Result<(), Fault> {
        self.writer
            .grouped(move |transaction| {
                let sql = "DELETE FROM notice_mark WHERE at < ?1";
                transaction.execute(sql, [micros(before)])?;
                Ok(())
            })
            .await
    }

    async fn take_letters(
        &self,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<Taken>, Fault> {
        self.writer
            .grouped(move |transaction| {
                let mut statement = transaction.prepare_cached(TAKE)?;
                let limit = number(limit as u64);
                let rows =
                    statement.query_and_then(params![micros(now), micros(until), limit], taken)?;
                rows.collect()
            })
            .await
    }

    async fn put_off(&self, letter: &str, until: DateTime<Utc>) -> Result<(), Fault> {
        let letter = letter.to_owned();
        self.writer
            .grouped(move |transaction| {
                let sql = "UPDATE letter SET due = ?2 WHERE id = ?1";
                transaction.execute(sql, params![letter, micros(until)])?;
                Ok(())
            })
            .await
    }

    async fn remove_letter(&self, letter: &str) -> Result<(), Fault> {
        let letter = letter.to_owned();
        self.writer
            .grouped(move |transaction| {
                transaction.execute("DELETE FROM letter WHERE id = ?1", [letter])?;
                Ok(())
            })
            .await
    }

    async fn letters(&self) -> Result<usize, Fault> {
        self.readers
            .read(|transaction| {
                let sql = "SELECT count(*) FROM letter";
                let count: i64 = transaction.query_row(sql, [], |row| row.get(0))?;
                Ok(usize::try_from(count).unwrap_or_default())
            })
            .await
    }
}
