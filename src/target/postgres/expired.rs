//! J5: what waited too long: told first, forgotten when its letter is written.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::Schemas;
use super::ledger::{parse_version, signed};
use super::lookup::Lookup;
use super::release::{Share, place};
use super::wake::named;
use crate::model::name::{ConnectionId, JobId};
use crate::model::record_id::RecordId;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::target::port::{Expired, ParkedKey};

/// What was parked before a date, oldest first.
pub(super) async fn list(
    session: &mut Session,
    schemas: &Schemas,
    share: &Share,
    older_than: DateTime<Utc>,
    limit: usize,
) -> Result<Vec<Expired>, OrderError> {
    const OWN: &str =
        "connection = $1 AND job = $2 AND since < $3 AND partition = ANY($4) AND ready <> 3
        ORDER BY since, id LIMIT $5";
    let limit = signed(limit as u64);
    let own: [&(dyn ToSql + Sync); 5] = [
        &share.connection.as_str(),
        &share.job.as_str(),
        &older_than,
        &share.partitions,
        &limit,
    ];
    let mut expired: Vec<Expired> = Vec::new();
    let sql = format!(
        "SELECT record, version, partition, \"offset\", looked_up, lookup, key, destination, \"column\"
         FROM {{reference}} WHERE {OWN}"
    );
    for row in session.query(&named(schemas, &sql), &own).await? {
        expired.push(Expired {
            key: key(&row, Some((row.try_get(7)?, row.try_get(8)?)))?,
            waited_for: waited_for(&row)?,
            image: None,
        });
    }
    let sql = format!(
        "SELECT p.record, p.version, p.partition, p.\"offset\", w.looked_up, w.lookup, w.key, p.image, p.id
         FROM (SELECT * FROM {{change}} WHERE {OWN}) p
         CROSS JOIN LATERAL (SELECT * FROM {{wait}} WHERE change = p.id OFFSET 0) w
         ORDER BY p.since, p.id, w.\"column\""
    );
    let mut last = None;
    for row in session.query(&named(schemas, &sql), &own).await? {
        let (id, waited_for): (i64, _) = (row.try_get(8)?, waited_for(&row)?);
        if let Some(change) = expired.last_mut().filter(|_| last == Some(id)) {
            change.waited_for = format!("{}, {waited_for}", change.waited_for);
            continue;
        }
        last = Some(id);
        expired.push(Expired {
            key: key(&row, None)?,
            waited_for,
            image: Some(row.try_get::<_, Vec<u8>>(7)?.into()),
        });
    }
    Ok(expired)
}

/// Removes what is still what was told; how many. A statement each for references and changes.
pub(super) async fn forget(
    session: &mut Session,
    schemas: &Schemas,
    connection: &ConnectionId,
    job: &JobId,
    parked: &[ParkedKey],
) -> Result<u64, OrderError> {
    let (mut references, mut changes) = (Keys::default(), Keys::default());
    for key in parked {
        if key.reference.is_some() {
            references.push(key);
        } else {
            changes.push(key);
        }
    }
    let mut removed = 0;
    for (table, keys, same_column) in [
        (
            "{reference}",
            references,
            "AND destination = s.destination AND \"column\" = s.c",
        ),
        ("{change}", changes, ""),
    ] {
        if keys.records.is_empty() {
            continue;
        }
        let sql = format!(
            "DELETE FROM {table} p USING (
                SELECT q.id, s.version, s.partition, s.at
                FROM unnest($3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::text[], $8::text[])
                    s(record, version, partition, at, destination, c)
                CROSS JOIN LATERAL (SELECT id FROM {table} WHERE connection = $1 AND job = $2
                    AND record = s.record {same_column} OFFSET 0) q OFFSET 0) s
             WHERE p.id = ANY(ARRAY[s.id]) AND p.version = s.version AND p.partition = s.partition
                AND p.\"offset\" = s.at"
        );
        let params: [&(dyn ToSql + Sync); 8] = [
            &connection.as_str(),
            &job.as_str(),
            &keys.records,
            &keys.versions,
            &keys.partitions,
            &keys.offsets,
            &keys.tables,
            &keys.columns,
        ];
        removed += session.execute(&named(schemas, &sql), &params).await?;
    }
    Ok(removed)
}

/// Keys, column by column.
#[derive(Default)]
struct Keys<'a> {
    records: Vec<&'a str>,
    versions: Vec<String>,
    partitions: Vec<i64>,
    offsets: Vec<i64>,
    tables: Vec<Option<&'a str>>,
    columns: Vec<Option<&'a str>>,
}

impl<'a> Keys<'a> {
    fn push(&mut self, key: &'a ParkedKey) {
        let reference = key.reference.as_ref();
        self.records.push(key.record.as_str());
        self.versions.push(key.version.to_string());
        self.partitions.push(i64::from(key.place.0));
        self.offsets.push(signed(key.place.1));
        self.tables.push(reference.map(|(table, _)| table.as_str()));
        self.columns
            .push(reference.map(|(_, column)| column.as_str()));
    }
}

fn key(row: &Row, reference: Option<(String, String)>) -> Result<ParkedKey, OrderError> {
    Ok(ParkedKey {
        record: RecordId::stored(row.try_get::<_, String>(0)?),
        reference,
        version: parse_version(row.try_get(1)?)?,
        place: place(row, 2)?,
    })
}

/// What a parked look-up waits for, from its table, shape and key.
fn waited_for(row: &Row) -> Result<String, OrderError> {
    let lookup = Lookup::parse(row.try_get(4)?, row.try_get(5)?)?;
    let key = lookup.parse_key(row.try_get(6)?)?;
    Ok(lookup.describe(&key))
}
