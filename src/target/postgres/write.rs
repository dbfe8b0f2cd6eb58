//! What a destination came to, written: crosswalk first, then rows, in the order of their keys.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Schemas;
use super::facts::{Facts, Known};
use super::layout::Layout;
use super::ledger::{Entry, Mark};
use super::lookup::quote;
use super::value::{Array, Class};
use super::view::{Row, View};
use crate::model::record_id::RecordId;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::target::port::Batch;

/// Columns of a mask that one number holds.
const MASK: usize = 62;

/// Crosswalk entries, column by column.
#[derive(Default)]
struct Entries<'a> {
    records: Vec<&'a str>,
    gsids: Vec<Option<Uuid>>,
    versions: Vec<String>,
    gone: Vec<bool>,
    states: Vec<Option<&'static str>>,
    at: Vec<Option<DateTime<Utc>>>,
    /// Who wrote what was read.
    before: Vec<i64>,
}

impl<'a> Entries<'a> {
    fn push(&mut self, record: &'a RecordId, entry: &Entry, before: Option<&Known>) {
        self.records.push(record.as_str());
        self.gsids.push(entry.gsid);
        self.versions.push(entry.version.to_string());
        self.gone.push(entry.gone);
        self.states.push(entry.mark.map(|mark| mark.state.as_str()));
        self.at.push(entry.mark.map(|mark| mark.at));
        self.before.extend(before.map(|before| before.written_by));
    }
}

/// Writes the entries that changed, and holds those that were confirmed. What was read without a lock has to be
/// there still, or the batch is run again.
pub(super) async fn entries(
    session: &mut Session,
    schemas: &Schemas,
    batch: &Batch,
    facts: &Facts<'_>,
    view: &View<'_>,
) -> Result<(), OrderError> {
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
    let connection = batch.reader.connection.as_str();
    let (table, object) = (view.layout.plan.table.as_str(), batch.object.as_str());
    let own = "x.connection = $1 AND x.destination = $2 AND x.object = $3 AND x.record = s.record AND x.xmin::text::int8 = s.before";
    if !same.records.is_empty() {
        let sql = format!(
            "SELECT 1 FROM {crosswalk} x JOIN unnest($4::text[], $5::bigint[]) s(record, before) ON {own}
             ORDER BY x.record FOR NO KEY UPDATE OF x"
        );
        let params: [&(dyn ToSql + Sync); 5] =
            [&connection, &table, &object, &same.records, &same.before];
        let held = session.query(&sql, &params).await?;
        complete(held.len() as u64, same.records.len())?;
    }
    if !bumped.records.is_empty() {
        let sql = format!(
            "UPDATE {crosswalk} x SET version = s.version, gone = s.gone, crm_state = s.state, crm_state_at = s.at
             FROM unnest($4::text[], $5::bigint[], $6::text[], $7::boolean[], $8::text[], $9::timestamptz[],
                $10::uuid[]) s(record, before, version, gone, state, at, gsid)
             WHERE {own} AND x.gsid IS NOT DISTINCT FROM s.gsid"
        );
        let written = session
            .execute(
                &sql,
                &[
                    &connection,
                    &table,
                    &object,
                    &bumped.records,
                    &bumped.before,
                    &bumped.versions,
                    &bumped.gone,
                    &bumped.states,
                    &bumped.at,
                    &bumped.gsids,
                ],
            )
            .await?;
        complete(written, bumped.records.len())?;
    }
    if !moved.records.is_empty() {
        let sql = format!(
            "UPDATE {crosswalk} x SET version = s.version, gone = s.gone, crm_state = s.state, crm_state_at = s.at,
                gsid = s.gsid
             FROM unnest($4::text[], $5::bigint[], $6::text[], $7::boolean[], $8::text[], $9::timestamptz[],
                $10::uuid[]) s(record, before, version, gone, state, at, gsid)
             WHERE {own}"
        );
        let written = session
            .execute(
                &sql,
                &[
                    &connection,
                    &table,
                    &object,
                    &moved.records,
                    &moved.before,
                    &moved.versions,
                    &moved.gone,
                    &moved.states,
                    &moved.at,
                    &moved.gsids,
                ],
            )
            .await?;
        complete(written, moved.records.len())?;
    }
    if !new.records.is_empty() {
        let sql = format!(
            "INSERT INTO {crosswalk} (connection, destination, object, record, gsid, version, gone, crm_state,
                crm_state_at)
             SELECT $1, $2, $3, s.* FROM unnest($4::text[], $5::uuid[], $6::text[], $7::boolean[], $8::text[],
                $9::timestamptz[]) s
             ON CONFLICT DO NOTHING"
        );
        let written = session
            .execute(
                &sql,
                &[
                    &connection,
                    &table,
                    &object,
                    &new.records,
                    &new.gsids,
                    &new.versions,
                    &new.gone,
                    &new.states,
                    &new.at,
                ],
            )
            .await?;
        complete(written, new.records.len())?;
    }
    Ok(())
}

fn complete(written: u64, due: usize) -> Result<(), OrderError> {
    if written == due as u64 {
        return Ok(());
    }
    Err(OrderError::Overtaken("a crosswalk entry"))
}

/// Rows of one kind of write, column by column.
struct Stage<'v> {
    gsids: Vec<Uuid>,
    states: Vec<Option<&'static str>>,
    at: Vec<Option<DateTime<Utc>>>,
    masks: Vec<Vec<i64>>,
    columns: Vec<Array<'v>>,
}

impl<'v> Stage<'v> {
    fn new(layout: &Layout<'_>, capacity: usize) -> Self {
        let columns = layout.columns.iter().take(layout.written);
        Self {
            gsids: Vec::with_capacity(capacity),
            states: Vec::with_capacity(capacity),
            at: Vec::with_capacity(capacity),
            masks: vec![Vec::with_capacity(capacity); layout.written.div_ceil(MASK)],
            columns: columns
                .map(|column| Array::new(column.class, capacity))
                .collect(),
        }
    }

    fn push(&mut self, gsid: Uuid, row: &Row<'v>) {
        self.gsids.push(gsid);
        let mark: Option<Mark> = row.mark.flatten();
        self.states.push(mark.map(|mark| mark.state.as_str()));
        self.at.push(mark.map(|mark| mark.at));
        for (number, places) in row.values.chunks(MASK).enumerate() {
            let bits = places.iter().enumerate();
            let bits = bits.filter(|(_, value)| value.is_some());
            self.masks[number].push(bits.map(|(bit, _)| 1_i64 << bit).sum());
        }
        for (array, value) in self.columns.iter_mut().zip(&row.values) {
            match value {
                Some(value) => array.push(*value),
                None => array.push_null(),
            }
        }
    }
}

/// Writes the rows of a destination; those that changed.
pub(super) async fn rows(
    session: &mut Session,
    schemas: &Schemas,
    batch: &Batch,
    view: &View<'_>,
) -> Result<HashSet<Uuid>, OrderError> {
    let layout = view.layout;
    let table = schemas.table(&layout.plan.table);
    let gone: Vec<Uuid> = view
        .rows
        .iter()
        .filter(|(_, row)| row.goes)
        .map(|(gsid, _)| *gsid)
        .collect();
    if !gone.is_empty() {
        let sql = format!("DELETE FROM {table} WHERE \"gsid\" = ANY($1)");
        session.execute(&sql, &[&gone]).await?;
    }
    let mut changed = Stage::new(layout, view.rows.len());
    let mut new = Stage::new(layout, 0);
    for (gsid, row) in &view.rows {
        if !row.is_there {
            continue;
        }
        if row.is_new {
            new.push(*gsid, row);
        } else if row.mark.is_some() || row.values.iter().any(Option::is_some) {
            changed.push(*gsid, row);
        }
    }
    let mut written = HashSet::new();
    if !changed.gsids.is_empty() {
        let sql = update_sql(layout, &table);
        let mut params: Vec<&(dyn ToSql + Sync)> =
            vec![&batch.now, &changed.gsids, &changed.states, &changed.at];
        params.extend(changed.masks.iter().map(|mask| mask as &(dyn ToSql + Sync)));
        params.extend(changed.columns.iter().map(Array::param));
        for row in session.query(&sql, &params).await? {
            written.insert(row.try_get(0)?);
        }
    }
    if !new.gsids.is_empty() {
        let sql = insert_sql(layout, &table);
        let mut params: Vec<&(dyn ToSql + Sync)> =
            vec![&batch.now, &new.gsids, &new.states, &new.at];
        params.extend(new.columns.iter().map(Array::param));
        let inserted = session.execute(&sql, &params).await?;
        // Another one brought back a row that several records share.
        if inserted != new.gsids.len() as u64 {
            return Err(OrderError::Overtaken("a row"));
        }
    }
    Ok(written)
}

fn classes<'l>(layout: &'l Layout<'_>) -> impl Iterator<Item = (usize, &'l str, Class)> {
    let columns = layout.columns.iter().take(layout.written).enumerate();
    columns.map(|(place, column)| (place, column.name, column.class))
}

/// `$1` now, `$2` GSIDs, `$3` and `$4` marks, then the columns.
fn insert_sql(layout: &Layout<'_>, table: &str) -> String {
    let (mut names, mut arrays, mut values, mut staged) =
        (String::new(), String::new(), String::new(), String::new());
    for (place, name, class) in classes(layout) {
        names.push_str(&format!(", {}", quote(name)));
        arrays.push_str(&format!(", ${}::{}[]", place + 5, class.travels_as()));
        staged.push_str(&format!(", c{place}"));
        values.push_str(&format!(", {}", class.arrived(&format!("s.c{place}"))));
    }
    format!(
        "INSERT INTO {table} (\"gsid\", \"created_date\", \"modified_date\", \"crm_state\", \"crm_state_at\"{names})
         SELECT s.g, $1, $1, s.state, s.at{values}
         FROM unnest($2::uuid[], $3::text[], $4::timestamptz[]{arrays}) s(g, state, at{staged})
         ON CONFLICT (\"gsid\") DO NOTHING"
    )
}

/// `$1` now, `$2` GSIDs, `$3` and `$4` marks, then masks of the columns to be written, then the columns.
fn update_sql(layout: &Layout<'_>, table: &str) -> String {
    let masks = layout.written.div_ceil(MASK);
    let (mut arrays, mut staged) = (String::new(), String::new());
    for mask in 0..masks {
        arrays.push_str(&format!(", ${}::bigint[]", mask + 5));
        staged.push_str(&format!(", m{mask}"));
    }
    let (mut set, mut differs) = (String::new(), String::new());
    for (place, name, class) in classes(layout) {
        arrays.push_str(&format!(
            ", ${}::{}[]",
            place + masks + 5,
            class.travels_as()
        ));
        staged.push_str(&format!(", c{place}"));
        let (name, value) = (quote(name), class.arrived(&format!("s.c{place}")));
        let given = format!("s.m{} & {} <> 0", place / MASK, 1_i64 << (place % MASK));
        set.push_str(&format!(
            ", {name} = CASE WHEN {given} THEN {value} ELSE t.{name} END"
        ));
        differs.push_str(&format!(
            " OR ({given} AND t.{name} IS DISTINCT FROM {value})"
        ));
    }
    format!(
        "UPDATE {table} t SET \"modified_date\" = $1, \"crm_state\" = s.state, \"crm_state_at\" = s.at{set}
         FROM unnest($2::uuid[], $3::text[], $4::timestamptz[]{arrays}) s(g, state, at{staged})
         WHERE t.\"gsid\" = s.g AND (t.\"crm_state\" IS DISTINCT FROM s.state
            OR t.\"crm_state_at\" IS DISTINCT FROM s.at{differs})
         RETURNING t.\"gsid\""
    )
}
