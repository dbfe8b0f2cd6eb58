//! J5: what waited and may go on.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::Schemas;
use super::ask::is_odd;
use super::ledger::parse_version;
use super::lookup::{Found, Key, Lookup, NAMED, quote};
use super::review::DECIDED;
use super::value::Array;
use super::wake::named;
use crate::model::name::{ConnectionId, JobId};
use crate::model::record_id::RecordId;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::target::port::ParkedChange;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// Woken things that are looked at at a time.
const CHUNK: i64 = 1_000;

/// What an owner looks after: some partitions of a job.
#[derive(Debug)]
pub(super) struct Share {
    pub connection: ConnectionId,
    pub job: JobId,
    pub partitions: Vec<i64>,
}

impl Share {
    pub(super) fn new(connection: &ConnectionId, job: &JobId, partitions: &[u32]) -> Self {
        Self {
            connection: connection.clone(),
            job: job.clone(),
            partitions: partitions.iter().copied().map(i64::from).collect(),
        }
    }
}

/// Rows by table that were filled.
pub(super) type Touched = BTreeMap<String, BTreeSet<Uuid>>;

/// A parked look-up.
#[derive(Debug, Clone)]
struct Waiting {
    any: bool,
    table: String,
    shape: String,
    key: String,
}

/// Where a chunk ended.
type Mark = (DateTime<Utc>, i64);

/// Before everything that waits.
const START: Mark = (DateTime::<Utc>::MIN_UTC, i64::MIN);

/// Looks at all that waits, as if it had been woken.
pub(super) async fn wake_all(session: &mut Session, schemas: &Schemas) -> Result<(), OrderError> {
    for table in ["{reference}", "{change}"] {
        let sql =
            format!("UPDATE {table} SET ready = 1, woken = woken + 1 WHERE ready NOT IN (1, 3)");
        session.execute(&named(schemas, &sql), &[]).await?;
    }
    Ok(())
}

/// Whether references were woken, and whether changes of the job were or are decided: after most batches neither, which
/// one look tells.
pub(super) async fn awake(
    session: &mut Session,
    schemas: &Schemas,
    share: &Share,
) -> Result<(bool, bool), OrderError> {
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM {{reference}} WHERE connection = $1 AND ready = 1),
            EXISTS (SELECT 1 FROM {{change}} WHERE connection = $1 AND job = $2 AND ready = 1)
            OR EXISTS (SELECT 1 FROM {{change}} p WHERE p.ready = 3 AND p.connection = $1 AND p.job = $2 AND {DECIDED})"
    );
    let params: [&(dyn ToSql + Sync); 2] = [&share.connection.as_str(), &share.job.as_str()];
    let rows = session.query(&named(schemas, &sql), &params).await?;
    let Some(row) = rows.first() else {
        return Ok((false, false));
    };
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// Fills the references that were woken and whose rows have come, in one transaction, oldest first. How many, whether
/// there may be more, and the rows that were filled.
pub(super) async fn references(
    session: &mut Session,
    schemas: &Schemas,
    connection: &ConnectionId,
    limit: usize,
    now: DateTime<Utc>,
) -> Result<(usize, bool, Touched), OrderError> {
    let (mut filled, mut more, mut touched, mut after) = (0, false, Touched::new(), START);
    let mut ambiguous = Vec::new();
    session.run("BEGIN").await?;
    loop {
        let chunk = woken(session, schemas, connection, after).await?;
        let Some(last) = chunk.last() else {
            break;
        };
        let is_last = chunk.len() < CHUNK as usize;
        after = *last;
        let ids: Vec<i64> = chunk.iter().map(|(_, id)| *id).collect();
        lock_entries(session, schemas, &ids).await?;
        lock_shared(session, schemas, &ids).await?;
        let references = reread(session, schemas, &ids).await?;
        let mut finds = find(session, schemas, references.iter().map(|one| &one.wait)).await?;
        let mut fills = Vec::new();
        let mut settled = Settled::default();
        for (reference, found) in references.into_iter().zip(finds.drain(..)) {
            match (reference.gsid, found) {
                // Its record has a later version, which another job wrote, or the column is another connection's.
                (None, _) => settled.gone.push(reference.id),
                (Some(_), Found::One(_)) if filled + fills.len() == limit => more = true,
                (Some(gsid), Found::One(row)) => fills.push((reference, gsid, row)),
                (_, Found::None) => settled.sleep(&reference, 0),
                (_, Found::Several(_)) => {
                    settled.sleep(&reference, 2);
                    ambiguous.push((reference.id, reference.wait));
                }
            }
        }
        filled += fills.len();
        fill(session, schemas, now, &fills, &mut touched).await?;
        settled
            .gone
            .extend(fills.iter().map(|(reference, ..)| reference.id));
        settled.write(session, schemas, "{reference}").await?;
        if is_last || more {
            break;
        }
    }
    session.run("COMMIT").await?;
    look_again(session, schemas, "{reference}", &ambiguous).await?;
    Ok((filled, more, touched))
}

/// The next references that were woken.
async fn woken(
    session: &mut Session,
    schemas: &Schemas,
    connection: &ConnectionId,
    after: Mark,
) -> Result<Vec<Mark>, OrderError> {
    let sql = format!(
        "SELECT since, id FROM {{reference}} WHERE connection = $1 AND ready = 1
         AND (since, id) > (coalesce($2::timestamptz, '-infinity'), $3) ORDER BY since, id LIMIT {CHUNK}"
    );
    let since = (after != START).then_some(after.0);
    let rows = session
        .query(
            &named(schemas, &sql),
            &[&connection.as_str(), &since, &after.1],
        )
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

/// Locks the entries of records that wait: whoever writes such a record writes its entry first.
async fn lock_entries(
    session: &mut Session,
    schemas: &Schemas,
    ids: &[i64],
) -> Result<(), OrderError> {
    let sql = "SELECT 1 FROM (
            SELECT * FROM {reference} WHERE id = ANY($1) ORDER BY destination, record, object OFFSET 0) p
         CROSS JOIN LATERAL (
            SELECT 1 FROM {crosswalk} x WHERE x.connection = p.connection AND x.destination = p.destination
                AND x.record = p.record AND x.object = p.object FOR NO KEY UPDATE) x";
    session.query(&named(schemas, sql), &[&ids]).await?;
    Ok(())
}

/// Locks the rows of columns that may be another connection's: whoever comes to a row locks it first, and who holds it
/// is read then.
async fn lock_shared(
    session: &mut Session,
    schemas: &Schemas,
    ids: &[i64],
) -> Result<(), OrderError> {
    let sql = "SELECT DISTINCT x.destination, x.gsid FROM {reference} p
         JOIN {crosswalk} x ON x.connection = p.connection AND x.destination = p.destination AND x.record = p.record
            AND x.object = p.object AND NOT x.gone
         WHERE p.id = ANY($1) AND p.owners <> '[]'";
    let mut shared: BTreeMap<String, BTreeSet<Uuid>> = BTreeMap::new();
    for row in session.query(&named(schemas, sql), &[&ids]).await? {
        let rows = shared.entry(row.try_get(0)?).or_default();
        rows.insert(row.try_get(1)?);
    }
    for (table, gsids) in shared {
        let sql = format!(
            "SELECT 1 FROM {} WHERE \"gsid\" = ANY($1) ORDER BY \"gsid\" FOR UPDATE",
            schemas.table(&table)
        );
        let gsids: Vec<Uuid> = gsids.into_iter().collect();
        session.query(&sql, &[&gsids]).await?;
    }
    Ok(())
}

/// A parked reference under lock.
struct Reference {
    id: i64,
    woken: i64,
    destination: String,
    column: String,
    wait: Waiting,
    /// The record's row, if its version is still the parked one and nobody holds the row to whom the column belongs.
    gsid: Option<Uuid>,
}

/// Reads references as they are under the lock.
async fn reread(
    session: &mut Session,
    schemas: &Schemas,
    ids: &[i64],
) -> Result<Vec<Reference>, OrderError> {
    let sql = "SELECT p.id, p.woken, p.destination, p.\"column\", p.takes_any, p.looked_up, p.lookup, p.key, x.gsid
         FROM {reference} p
         LEFT JOIN LATERAL (
            SELECT gsid FROM {crosswalk} x WHERE x.connection = p.connection AND x.destination = p.destination
                AND x.record = p.record AND x.object = p.object AND x.version = p.version AND NOT x.gone
                AND (p.owners = '[]' OR NOT EXISTS (
                    SELECT 1 FROM {crosswalk} o WHERE o.gsid = x.gsid AND o.destination = x.destination AND NOT o.gone
                        AND jsonb_exists(p.owners, o.connection))) OFFSET 0) x
            ON true
         WHERE p.id = ANY($1) ORDER BY p.since, p.id";
    let rows = session.query(&named(schemas, sql), &[&ids]).await?;
    rows.iter()
        .map(|row| {
            Ok(Reference {
                id: row.try_get(0)?,
                woken: row.try_get(1)?,
                destination: row.try_get(2)?,
                column: row.try_get(3)?,
                wait: Waiting {
                    any: row.try_get(4)?,
                    table: row.try_get(5)?,
                    shape: row.try_get(6)?,
                    key: row.try_get(7)?,
                },
                gsid: row.try_get(8)?,
            })
        })
        .collect()
}

/// What is not to be looked at again, and what is no more.
#[derive(Default)]
struct Settled {
    gone: Vec<i64>,
    asleep: Vec<i64>,
    woken: Vec<i64>,
    ready: Vec<i16>,
}

impl Settled {
    fn sleep(&mut self, reference: &Reference, ready: i16) {
        self.put(reference.id, reference.woken, ready);
    }

    fn put(&mut self, id: i64, woken: i64, ready: i16) {
        self.asleep.push(id);
        self.woken.push(woken);
        self.ready.push(ready);
    }

    async fn write(
        &self,
        session: &mut Session,
        schemas: &Schemas,
        table: &str,
    ) -> Result<(), OrderError> {
        if !self.gone.is_empty() {
            let sql = format!("DELETE FROM {table} WHERE id = ANY($1)");
            session
                .execute(&named(schemas, &sql), &[&self.gone])
                .await?;
        }
        if !self.asleep.is_empty() {
            // What was woken since it was read stays awake.
            let sql = format!(
                "UPDATE {table} p SET ready = s.ready
                 FROM unnest($1::bigint[], $2::bigint[], $3::smallint[]) s(id, woken, ready)
                 WHERE p.id = ANY(ARRAY[s.id]) AND p.woken = s.woken"
            );
            session
                .execute(
                    &named(schemas, &sql),
                    &[&self.asleep, &self.woken, &self.ready],
                )
                .await?;
        }
        Ok(())
    }
}

/// Wakes what several rows were found for if that is no longer so: one may have left before it was known that they
/// keep something waiting.
async fn look_again(
    session: &mut Session,
    schemas: &Schemas,
    table: &str,
    ambiguous: &[(i64, Waiting)],
) -> Result<(), OrderError> {
    let finds = find(session, schemas, ambiguous.iter().map(|(_, wait)| wait)).await?;
    let clear = ambiguous.iter().zip(finds);
    let still: BTreeSet<i64> = clear
        .filter(|(_, found)| matches!(found, Found::Several(_)))
        .map(|((id, _), _)| *id)
        .collect();
    let woken = ambiguous.iter().map(|(id, _)| *id);
    let woken: Vec<i64> = woken.filter(|id| !still.contains(id)).collect();
    if !woken.is_empty() {
        let sql = format!("UPDATE {table} SET ready = 1, woken = woken + 1 WHERE id = ANY($1)");
        session.execute(&named(schemas, &sql), &[&woken]).await?;
    }
    Ok(())
}

/// Finds what many parked look-ups wait for: a statement per shape.
async fn find(
    session: &mut Session,
    schemas: &Schemas,
    waits: impl Iterator<Item = &Waiting>,
) -> Result<Vec<Found>, OrderError> {
    let mut found = Vec::new();
    let mut shapes: BTreeMap<(&str, &str), Vec<(usize, &Waiting)>> = BTreeMap::new();
    for (place, wait) in waits.enumerate() {
        found.push(Found::None);
        let shape = shapes.entry((&wait.table, &wait.shape)).or_default();
        shape.push((place, wait));
    }
    for ((table, shape), waits) in shapes {
        let lookup = Lookup::parse(table.to_owned(), shape)?;
        let mut keys: Vec<(usize, bool, Key<'static>)> = Vec::with_capacity(waits.len());
        for (place, wait) in waits {
            let key = lookup.parse_key(&wait.key)?;
            if !is_odd(&key) {
                keys.push((place, wait.any, key));
            }
        }
        let wanted: Vec<&Key<'static>> = keys.iter().map(|(_, _, key)| key).collect();
        let arrays = lookup.arrays(&wanted);
        let limit = (NAMED + 1) as i64;
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![&limit];
        params.extend(arrays.iter().map(Array::param));
        let mut rows: HashMap<usize, Vec<Uuid>> = HashMap::new();
        for row in session.query(&lookup.sql(schemas), &params).await? {
            let place = usize::try_from(row.try_get::<_, i32>(0)?).unwrap_or_default();
            rows.entry(place).or_default().push(row.try_get(1)?);
        }
        for (n, (place, any, _)) in keys.iter().enumerate() {
            let gsids = rows.remove(&(n + 1)).unwrap_or_default();
            found[*place] = Found::of(gsids).any(*any);
        }
    }
    Ok(found)
}

/// Sets columns to the rows that have come, of two on one row the later; a statement per column.
async fn fill(
    session: &mut Session,
    schemas: &Schemas,
    now: DateTime<Utc>,
    fills: &[(Reference, Uuid, Uuid)],
    touched: &mut Touched,
) -> Result<(), OrderError> {
    let mut columns: BTreeMap<(&str, &str), BTreeMap<Uuid, Uuid>> = BTreeMap::new();
    for (reference, gsid, row) in fills {
        let column = (reference.destination.as_str(), reference.column.as_str());
        columns.entry(column).or_default().insert(*gsid, *row);
    }
    for ((table, column), values) in columns {
        let (name, quoted) = (schemas.table(table), quote(column));
        let sql = format!(
            "UPDATE {name} t SET {quoted} = s.v, \"modified_date\" = $1 FROM unnest($2::uuid[], $3::uuid[]) s(g, v)
             WHERE t.\"gsid\" = ANY(ARRAY[s.g]) AND t.{quoted} IS DISTINCT FROM s.v RETURNING t.\"gsid\""
        );
        let (gsids, rows): (Vec<Uuid>, Vec<Uuid>) = values.into_iter().unzip();
        for row in session.query(&sql, &[&now, &gsids, &rows]).await? {
            let rows = touched.entry(table.to_owned()).or_default();
            rows.insert(row.try_get(0)?);
        }
    }
    Ok(())
}

/// The changes that were woken and may go on, oldest first, and whether there may be more.
pub(super) async fn changes(
    session: &mut Session,
    schemas: &Schemas,
    share: &Share,
    limit: usize,
) -> Result<(Vec<ParkedChange>, bool), OrderError> {
    let (mut released, mut after) = (Vec::new(), START);
    loop {
        let chunk = woken_changes(session, schemas, share, after).await?;
        let is_last = chunk.len() < CHUNK as usize;
        let ids: Vec<i64> = chunk.iter().map(|change| change.id).collect();
        let waits = waits(session, schemas, &ids).await?;
        let finds = find(session, schemas, waits.iter().map(|(_, wait)| wait)).await?;
        let mut missing: HashMap<i64, i16> = HashMap::new();
        for ((change, _), found) in waits.iter().zip(finds) {
            let ready = missing.entry(*change).or_insert(1);
            match found {
                Found::One(_) => {}
                Found::None => *ready = 0,
                Found::Several(_) if *ready == 1 => *ready = 2,
                Found::Several(_) => {}
            }
        }
        let mut settled = Settled::default();
        let mut more = false;
        for woken in chunk {
            after = (woken.since, woken.id);
            let ready = missing.get(&woken.id).copied().unwrap_or(1);
            if woken.is_overtaken {
                settled.gone.push(woken.id);
            } else if ready != 1 {
                settled.put(woken.id, woken.woken, ready);
            } else if released.len() == limit {
                more = true;
                break;
            } else {
                released.push(woken.change);
            }
        }
        forget_overtaken(session, schemas, &mut settled).await?;
        settled.write(session, schemas, "{change}").await?;
        let ambiguous: Vec<_> = waits
            .into_iter()
            .filter(|(change, _)| missing.get(change) == Some(&2))
            .collect();
        look_again(session, schemas, "{change}", &ambiguous).await?;
        if is_last || more {
            return Ok((released, more));
        }
    }
}

/// Forgets changes whose record has a later version, as long as that is true.
async fn forget_overtaken(
    session: &mut Session,
    schemas: &Schemas,
    settled: &mut Settled,
) -> Result<(), OrderError> {
    let gone = std::mem::take(&mut settled.gone);
    if gone.is_empty() {
        return Ok(());
    }
    let sql = "DELETE FROM {change} p WHERE p.id = ANY($1) AND EXISTS (
            SELECT 1 FROM {crosswalk} x WHERE x.connection = p.connection AND x.destination = p.destination
                AND x.record = p.record AND x.object = p.object AND x.version > p.version OFFSET 0)";
    session.execute(&named(schemas, sql), &[&gone]).await?;
    Ok(())
}

/// A parked change that was woken.
struct WokenChange {
    id: i64,
    woken: i64,
    since: DateTime<Utc>,
    change: ParkedChange,
    /// The crosswalk has a later version, by another job.
    is_overtaken: bool,
}

async fn woken_changes(
    session: &mut Session,
    schemas: &Schemas,
    share: &Share,
    after: Mark,
) -> Result<Vec<WokenChange>, OrderError> {
    let sql = format!(
        "SELECT p.id, p.woken, p.since, coalesce(x.version > p.version, false), p.record, p.version,
            p.partition, p.\"offset\", p.image
         FROM {{change}} p
         LEFT JOIN LATERAL (
            SELECT version FROM {{crosswalk}} x WHERE x.connection = p.connection AND x.destination = p.destination
                AND x.record = p.record AND x.object = p.object OFFSET 0) x ON true
         WHERE p.connection = $1 AND p.job = $2 AND p.ready = 1
            AND (p.since, p.id) > (coalesce($3::timestamptz, '-infinity'), $4) AND p.partition = ANY($5)
         ORDER BY p.since, p.id LIMIT {CHUNK}"
    );
    let since = (after != START).then_some(after.0);
    let params: [&(dyn ToSql + Sync); 5] = [
        &share.connection.as_str(),
        &share.job.as_str(),
        &since,
        &after.1,
        &share.partitions,
    ];
    let rows = session.query(&named(schemas, &sql), &params).await?;
    rows.iter()
        .map(|row| {
            Ok(WokenChange {
                id: row.try_get(0)?,
                woken: row.try_get(1)?,
                since: row.try_get(2)?,
                is_overtaken: row.try_get(3)?,
                change: ParkedChange {
                    record: RecordId::stored(row.try_get::<_, String>(4)?),
                    version: parse_version(row.try_get(5)?)?,
                    place: place(row, 6)?,
                    image: row.try_get::<_, Vec<u8>>(8)?.into(),
                },
            })
        })
        .collect()
}

/// Partition and offset.
pub(super) fn place(row: &Row, at: usize) -> Result<(u32, u64), OrderError> {
    let (partition, offset): (i64, i64) = (row.try_get(at)?, row.try_get(at + 1)?);
    Ok((
        u32::try_from(partition).unwrap_or(u32::MAX),
        offset.cast_unsigned(),
    ))
}

async fn waits(
    session: &mut Session,
    schemas: &Schemas,
    changes: &[i64],
) -> Result<Vec<(i64, Waiting)>, OrderError> {
    let sql = "SELECT change, takes_any, looked_up, lookup, key FROM {wait} WHERE change = ANY($1)
         ORDER BY change, \"column\"";
    let rows = session.query(&named(schemas, sql), &[&changes]).await?;
    rows.iter()
        .map(|row| {
            let wait = Waiting {
                any: row.try_get(1)?,
                table: row.try_get(2)?,
                shape: row.try_get(3)?,
                key: row.try_get(4)?,
            };
            Ok((row.try_get(0)?, wait))
        })
        .collect()
}
