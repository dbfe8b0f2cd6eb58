//! J5: wakes what waits for rows that were written, after their commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use uuid::Uuid;

use super::Schemas;
use super::lookup::{Key, Lookup, digest, spelled};
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;

/// How often a statement that others are in the way of is tried.
const ATTEMPTS: usize = 3;

/// Wakes; if it can't, notes that all that waits has to be looked at.
pub(super) async fn wake_or_note(
    session: &mut Session,
    schemas: &Schemas,
    touched: &BTreeMap<&str, BTreeSet<Uuid>>,
    missed: &AtomicBool,
) {
    let mut attempt = 1;
    loop {
        match wake(session, schemas, touched).await {
            Ok(()) => return,
            Err(error) if error.is_passing() && attempt < ATTEMPTS => attempt += 1,
            Err(error) => {
                tracing::warn!(%error, "what waits for rows is looked at as a whole");
                missed.store(true, Ordering::Relaxed);
                return;
            }
        }
    }
}

/// Wakes what waits for rows as these are now. Whoever parked before their commit is seen by these statements; what
/// is parked after it is looked at once by itself.
async fn wake(
    session: &mut Session,
    schemas: &Schemas,
    touched: &BTreeMap<&str, BTreeSet<Uuid>>,
) -> Result<(), OrderError> {
    let tables: Vec<&str> = touched.keys().copied().collect();
    if tables.is_empty() {
        return Ok(());
    }
    let mut several = Vec::new();
    for row in session.query(&awaited_sql(schemas), &[&tables]).await? {
        let (table, shape): (String, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
        let (Some(rows), Some(shape)) = (touched.get(table.as_str()), shape) else {
            several.push(table);
            continue;
        };
        let keys = keys_of(session, schemas, &table, &shape, rows).await?;
        if keys.is_empty() {
            continue;
        }
        for sql in [
            "UPDATE {reference} SET ready = 1, woken = woken + 1 WHERE looked_up = $1 AND lookup = $2 AND digest = ANY($3)",
            "UPDATE {change} SET ready = 1, woken = woken + 1 WHERE id = ANY(ARRAY(
                SELECT change FROM {wait} WHERE looked_up = $1 AND lookup = $2 AND digest = ANY($3)))",
        ] {
            let sql = named(schemas, sql);
            session.execute(&sql, &[&table, &shape, &keys]).await?;
        }
    }
    // Of several rows one may have left.
    for table in several {
        for sql in [
            "UPDATE {reference} SET ready = 1, woken = woken + 1 WHERE ready = 2 AND looked_up = $1",
            "UPDATE {change} SET ready = 1, woken = woken + 1 WHERE ready = 2
             AND EXISTS (SELECT 1 FROM {wait} WHERE change = id AND looked_up = $1 OFFSET 0)",
        ] {
            session.execute(&named(schemas, sql), &[&table]).await?;
        }
    }
    Ok(())
}

/// `{reference}`, `{change}`, `{wait}` and the ledger's others as tables.
pub(super) fn named(schemas: &Schemas, sql: &str) -> String {
    sql.replace("{reference}", &schemas.ledger("parked_reference"))
        .replace("{change}", &schemas.ledger("parked_change"))
        .replace("{wait}", &schemas.ledger("parked_wait"))
        .replace("{crosswalk}", &schemas.ledger("crosswalk"))
        .replace("{review}", &schemas.ledger("review"))
        .replace("{binding}", &schemas.ledger("binding"))
}

/// The shapes by which rows of the tables `$1` are awaited: one step in the index for each. A null shape stands for
/// what found several.
fn awaited_sql(schemas: &Schemas) -> String {
    let steps = |waiting: &str| {
        format!(
            "SELECT k.looked_up, s.lookup FROM unnest($1::text[]) k(looked_up) CROSS JOIN LATERAL (
                WITH RECURSIVE s AS (
                    (SELECT lookup FROM {waiting} p WHERE p.looked_up = k.looked_up ORDER BY lookup LIMIT 1)
                    UNION ALL
                    SELECT n.lookup FROM s CROSS JOIN LATERAL (SELECT lookup FROM {waiting} p
                        WHERE p.looked_up = k.looked_up AND p.lookup > s.lookup ORDER BY lookup LIMIT 1) n
                ) SELECT lookup FROM s) s"
        )
    };
    let several = "SELECT k.looked_up, NULL FROM unnest($1::text[]) k(looked_up)
        WHERE EXISTS (SELECT 1 FROM {reference} WHERE ready = 2 AND looked_up = k.looked_up)
            OR EXISTS (SELECT 1 FROM {change} c WHERE c.ready = 2 AND EXISTS (
                SELECT 1 FROM {wait} w WHERE w.change = c.id AND w.looked_up = k.looked_up OFFSET 0))";
    let sql = format!(
        "{} UNION {} UNION {several}",
        steps("{reference}"),
        steps("{wait}")
    );
    named(schemas, &sql)
}

/// The digests of the keys that rows have.
async fn keys_of(
    session: &mut Session,
    schemas: &Schemas,
    table: &str,
    shape: &str,
    rows: &BTreeSet<Uuid>,
) -> Result<Vec<Uuid>, OrderError> {
    let lookup = Lookup::parse(table.to_owned(), shape)?;
    let gsids: Vec<Uuid> = rows.iter().copied().collect();
    let sql = lookup.keys_of_rows(schemas);
    let mut keys = BTreeSet::new();
    for row in session.query(&sql, &[&gsids]).await? {
        let texts: Result<Vec<Option<String>>, _> =
            (0..row.len()).map(|place| row.try_get(place)).collect();
        let key: Option<Key<'_>> = lookup.key_of_row(texts?);
        if let Some(key) = key {
            keys.insert(digest(&spelled(&key)?));
        }
    }
    Ok(keys.into_iter().collect())
}
