//! What a destination came to, written: crosswalk first, then rows, in the order of their keys.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Schemas;
use super::facts::{Facts, Known};
use super::ledger::Entry;
use super::stage::{Kind, Stage};
use super::view::View;
use crate::model::record_id::RecordId;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::target::port::Batch;

/// Crosswalk entries, column by column.
#[derive(Default)]
struct Entries<'a> {
    records: Vec<&'a str>,
    gsids: Vec<Option<Uuid>>,
    versions: Vec<String>,
    gone: Vec<bool>,
    states: Vec<Option<&'static str>>,
    at: Vec<Option<DateTime<Utc>>>,
    /// Where that lies which was read, and who wrote it.
    places: Vec<&'a str>,
    written_by: Vec<i64>,
}

impl<'a> Entries<'a> {
    fn push(&mut self, record: &'a RecordId, entry: &Entry, before: Option<&'a Known>) {
        self.records.push(record.as_str());
        self.gsids.push(entry.gsid);
        self.versions.push(entry.version.to_string());
        self.gone.push(entry.gone);
        self.states.push(entry.mark.map(|mark| mark.state.as_str()));
        self.at.push(entry.mark.map(|mark| mark.at));
        self.places
            .extend(before.map(|before| before.place.as_str()));
        self.written_by
            .extend(before.map(|before| before.written_by));
    }
}

/// The very entries that were read: a row that moved or was written since has another `xmin`.
const AS_READ: &str = "x.ctid = s.place::tid AND x.xmin::text::int8 = s.written_by";

/// Writes the entries that changed, and holds those that were confirmed. What was read without a lock has to be
/// there still, or the batch is run again. Whether a record lets go of its row.
pub(super) async fn entries(
    session: &mut Session,
    schemas: &Schemas,
    batch: &Batch,
    facts: &Facts<'_>,
    view: &View<'_>,
) -> Result<bool, OrderError> {
    let mut lost = false;
    let (mut new, mut moved, mut bumped, mut same) = (
        Entries::default(),
        Entries::default(),
        Entries::default(),
        Entries::default(),
    );
    let mut changed: Vec<_> = view.entries.iter().collect();
    changed.sort_unstable_by_key(|(record, _)| record.as_str());
    for (record, entry) in changed {
        let before = facts.entries.get(record);
        let held = before.and_then(|before| before.entry.held());
        lost |= held.is_some() && held != entry.held();
        let kind = match before.map(|before| before.entry) {
            None => &mut new,
            Some(before) if before == *entry => &mut same,
            // Leaves the index on `gsid` alone.
            Some(before) if before.gsid == entry.gsid => &mut bumped,
            Some(_) => &mut moved,
        };
        kind.push(record, entry, before);
    }
    let crosswalk = schemas.ledger("crosswalk");
    if !same.records.is_empty() {
        let sql = format!(
            "SELECT 1 FROM unnest($1::text[], $2::bigint[]) s(place, written_by), {crosswalk} x WHERE {AS_READ}
             FOR NO KEY UPDATE OF x"
        );
        let held = session
            .query(&sql, &[&same.places, &same.written_by])
            .await?;
        complete(held.len() as u64, same.records.len())?;
    }
    for (kind, gsid) in [(&bumped, ""), (&moved, ", gsid = s.gsid")] {
        if kind.records.is_empty() {
            continue;
        }
        let sql = format!(
            "UPDATE {crosswalk} x SET version = s.version, gone = s.gone, crm_state = s.state, crm_state_at = s.at{gsid}
             FROM unnest($1::text[], $2::bigint[], $3::text[], $4::boolean[], $5::text[], $6::timestamptz[],
                $7::uuid[]) s(place, written_by, version, gone, state, at, gsid)
             WHERE {AS_READ}"
        );
        let params: [&(dyn ToSql + Sync); 7] = [
            &kind.places,
            &kind.written_by,
            &kind.versions,
            &kind.gone,
            &kind.states,
            &kind.at,
            &kind.gsids,
        ];
        complete(session.execute(&sql, &params).await?, kind.records.len())?;
    }
    if new.records.is_empty() {
        return Ok(lost);
    }
    let sql = format!(
        "INSERT INTO {crosswalk} (connection, destination, object, record, gsid, version, gone, crm_state,
            crm_state_at)
         SELECT $1, $2, $3, s.* FROM unnest($4::text[], $5::uuid[], $6::text[], $7::boolean[], $8::text[],
            $9::timestamptz[]) s
         ON CONFLICT DO NOTHING"
    );
    let params: [&(dyn ToSql + Sync); 9] = [
        &batch.reader.connection.as_str(),
        &view.layout.plan.table.as_str(),
        &batch.object.as_str(),
        &new.records,
        &new.gsids,
        &new.versions,
        &new.gone,
        &new.states,
        &new.at,
    ];
    complete(session.execute(&sql, &params).await?, new.records.len())?;
    Ok(lost)
}

fn complete(written: u64, due: usize) -> Result<(), OrderError> {
    if written == due as u64 {
        return Ok(());
    }
    Err(OrderError::Overtaken("a crosswalk entry"))
}

/// Rows that were changed.
#[derive(Default)]
pub(super) struct Written {
    /// And whether a column of theirs lost its value.
    pub changed: HashMap<Uuid, bool>,
    /// Those of them that others may find no more.
    pub moved: BTreeSet<Uuid>,
}

/// Writes the rows of a destination; those that changed.
pub(super) async fn rows(
    session: &mut Session,
    schemas: &Schemas,
    batch: &Batch,
    view: &View<'_>,
) -> Result<Written, OrderError> {
    let layout = view.layout;
    let table = schemas.table(&layout.plan.table);
    let gone = view.rows.iter().filter(|(_, row)| row.goes);
    let gone: Vec<Uuid> = gone.map(|(gsid, _)| *gsid).collect();
    if !gone.is_empty() {
        let sql = format!("DELETE FROM {table} WHERE \"gsid\" = ANY($1)");
        session.execute(&sql, &[&gone]).await?;
    }
    let update = Kind::Update {
        tells_emptied: batch.asks_for_emptied(),
    };
    let mut changed = Stage::new(layout, &table, update, view.rows.len());
    let mut new = Stage::new(layout, &table, Kind::Insert, 0);
    for (gsid, row) in view.rows.iter().filter(|(_, row)| row.is_there) {
        if row.is_new {
            new.push(*gsid, row);
        } else if row.mark.is_some() || row.values.iter().any(Option::is_some) {
            changed.push(*gsid, row);
        }
    }
    let mut written = Written::default();
    for row in changed.write(session, batch.now).await? {
        let gsid = row.try_get(0)?;
        written.changed.insert(gsid, row.try_get(1)?);
        if row.try_get(2)? {
            written.moved.insert(gsid);
        }
    }
    // Another one brought back a row that several records share.
    if new.write(session, batch.now).await?.len() != new.len() {
        return Err(OrderError::Overtaken("a row"));
    }
    Ok(written)
}
