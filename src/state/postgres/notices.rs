//! Marks and letters, two tables of the state's schema.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::schema::Schema;
use super::{Call, PostgresState};
use crate::fault::Fault;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::state::notices::{LETTERS, Letter, Moved, Notices, Step, Taken};

const MARK: &str = "SELECT mark FROM {s}.notice_mark WHERE subject = $1";
const FIRST: &str = "INSERT INTO {s}.notice_mark VALUES ($1, $2, $3) ON CONFLICT (subject) DO NOTHING RETURNING $7::text";
const NEXT: &str =
    "UPDATE {s}.notice_mark SET mark = $2, at = $3 WHERE subject = $1 AND mark = $7 RETURNING mark";
/// Mark and letters in one statement, so in one transaction.
const KEEP: &str = "WITH moved AS ({move}), kept AS (
        INSERT INTO {s}.letter SELECT l.id, l.body, $3, $3, 0
        FROM moved, unnest($4::text[], $5::text[]) WITH ORDINALITY AS l(id, body, place)
        WHERE (SELECT count(*) FROM {s}.letter) + l.place <= $6::bigint
        ON CONFLICT (id) DO NOTHING RETURNING 1
     )
     SELECT (SELECT count(*) FROM moved), (SELECT count(*) FROM kept)";
const FORGET: &str = "DELETE FROM {s}.notice_mark WHERE at < $1";
const TAKE: &str = "UPDATE {s}.letter SET due = $2, tries = tries + 1 WHERE id IN (
        SELECT id FROM {s}.letter WHERE due <= $1 ORDER BY due, id LIMIT $3 FOR UPDATE SKIP LOCKED
     ) RETURNING id, body, written, tries";
const PUT_OFF: &str = "UPDATE {s}.letter SET due = $2 WHERE id = $1";
const REMOVE: &str = "DELETE FROM {s}.letter WHERE id = $1";
const COUNT: &str = "SELECT count(*) FROM {s}.letter";

async fn mark(
    session: &mut Session,
    schema: &Schema,
    subject: &str,
) -> Result<Option<String>, OrderError> {
    let rows = session.query(&schema.sql(MARK), &[&subject]).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
}

async fn move_mark(
    session: &mut Session,
    schema: &Schema,
    subject: &str,
    step: &Step,
) -> Result<Moved, OrderError> {
    let first = step.before.is_none();
    let sql = KEEP.replace("{move}", if first { FIRST } else { NEXT });
    let letters = step.letters.iter();
    let (ids, bodies): (Vec<&str>, Vec<&str>) = letters
        .map(|letter| (letter.id.as_str(), letter.body.as_str()))
        .unzip();
    let most = i64::try_from(LETTERS).unwrap_or(i64::MAX);
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 7] = [
        &subject,
        &step.after,
        &step.at,
        &ids,
        &bodies,
        &most,
        &step.before,
    ];
    let rows = session.query(&schema.sql(&sql), &params).await?;
    let Some(row) = rows.first() else {
        return Ok(Moved {
            moved: false,
            kept: 0,
        });
    };
    Ok(Moved {
        moved: row.try_get::<_, i64>(0)? > 0,
        kept: usize::try_from(row.try_get::<_, i64>(1)?).unwrap_or_default(),
    })
}

async fn take(
    session: &mut Session,
    schema: &Schema,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
    limit: usize,
) -> Result<Vec<Taken>, OrderError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&now, &until, &limit];
    let rows = session.query(&schema.sql(TAKE), &params).await?;
    let taken = rows.iter().map(|row| {
        Ok(Taken {
            letter: Letter {
                id: row.try_get(0)?,
                body: row.try_get(1)?,
            },
            written: row.try_get(2)?,
            tries: row.try_get::<_, i32>(3)?.cast_unsigned(),
        })
    });
    taken.collect()
}

async fn change(
    session: &mut Session,
    schema: &Schema,
    sql: &str,
    letter: Option<&str>,
    at: Option<DateTime<Utc>>,
) -> Result<(), OrderError> {
    let sql = schema.sql(sql);
    match (letter, at) {
        (Some(letter), Some(at)) => session.execute(&sql, &[&letter, &at]).await?,
        (Some(letter), None) => session.execute(&sql, &[&letter]).await?,
        (None, at) => session.execute(&sql, &[&at]).await?,
    };
    Ok(())
}

async fn count(session: &mut Session, schema: &Schema) -> Result<usize, OrderError> {
    let rows = session.query(&schema.sql(COUNT), &[]).await?;
    let count: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
    Ok(usize::try_from(count).unwrap_or_default())
}

impl PostgresState {
    async fn change_notices(
        &self,
        sql: &str,
        letter: Option<&str>,
        at: Option<DateTime<Utc>>,
    ) -> Result<(), Fault> {
        let order = Call {
            given: (self.schema(), sql.to_owned(), letter.map(str::to_owned), at),
            run: |session, (schema, sql, letter, at)| {
                Box::pin(change(session, schema, sql, letter.as_deref(), *at))
            },
        };
        self.run(&self.reader, order).await
    }
}

/// None of it is any connection's, so that it goes where the reads go, which are short.
#[async_trait]
impl Notices for PostgresState {
    async fn mark(&self, subject: &str) -> Result<Option<String>, Fault> {
        let order = Call {
            given: (self.schema(), subject.to_owned()),
            run: |session, (schema, subject)| Box::pin(mark(session, schema, subject)),
        };
        self.run(&self.reader, order).await
    }

    async fn move_mark(&self, subject: &str, step: Step) -> Result<Moved, Fault> {
        let order = Call {
            given: (self.schema(), subject.to_owned(), step),
            run: |session, (schema, subject, step)| {
                Box::pin(move_mark(session, schema, subject, step))
            },
        };
        self.run(&self.reader, order).await
    }

    async fn forget_marks(&self, before: DateTime<Utc>) -> Result<(), Fault> {
        self.change_notices(FORGET, None, Some(before)).await
    }

    async fn take_letters(
        &self,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<Taken>, Fault> {
        let order = Call {
            given: (self.schema(), now, until, limit),
            run: |session, (schema, now, until, limit)| {
                Box::pin(take(session, schema, *now, *until, *limit))
            },
        };
        self.run(&self.reader, order).await
    }

    async fn put_off(&self, letter: &str, until: DateTime<Utc>) -> Result<(), Fault> {
        self.change_notices(PUT_OFF, Some(letter), Some(until))
            .await
    }

    async fn remove_letter(&self, letter: &str) -> Result<(), Fault> {
        self.change_notices(REMOVE, Some(letter), None).await
    }

    async fn letters(&self) -> Result<usize, Fault> {
        let order = Call {
            given: self.schema(),
            run: |session, schema| Box::pin(count(session, schema)),
        };
        self.run(&self.reader, order).await
    }
}
