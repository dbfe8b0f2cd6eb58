//! What waits for rows: references (the column is null meanwhile) and whole changes, as a batch leaves them.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::Schemas;
use super::ledger::{parse_version, signed};
use super::lookup::{Key, Lookup, digest, spelled};
use super::review::{self, Ambiguity};
use crate::fault::Fault;
use crate::mapping::plan::{DerivePlan, DestinationPlan, MappedRow};
use crate::model::policy::OnMultiple;
use crate::model::record_id::RecordId;
use crate::model::version::Version;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::target::port::Batch;

/// A look-up that waits for its row.
#[derive(Debug, Clone)]
pub(super) struct Wait<'a> {
    pub column: &'a str,
    takes_any: bool,
    looked_up: String,
    lookup: String,
    key: String,
    digest: Uuid,
    /// As JSON.
    owners: String,
}

impl<'a> Wait<'a> {
    pub(super) fn new(
        plan: &DestinationPlan,
        derive: &'a DerivePlan,
        lookup: &Lookup,
        key: &Key<'_>,
    ) -> Result<Self, Fault> {
        let key = spelled(key)?;
        Ok(Self {
            column: &derive.column,
            takes_any: derive.on_multiple == OnMultiple::Any,
            looked_up: lookup.table.clone(),
            lookup: lookup.shape()?,
            digest: digest(&key),
            key,
            owners: serde_json::Value::from(plan.owners_of(&derive.column)).to_string(),
        })
    }
}

/// What becomes of a column that waits, or waited.
#[derive(Debug, Clone)]
pub(super) enum Parking<'a> {
    /// It waits, in place of what it waited for.
    Put(&'a MappedRow, Wait<'a>),
    /// It goes on waiting at a later version.
    Carry(Version),
    Delete,
}

/// By record and column.
pub(super) type Parkings<'a> = BTreeMap<(&'a RecordId, String), Parking<'a>>;

/// A change that waits.
#[derive(Debug, Clone)]
struct Parked<'a> {
    destination: &'a str,
    row: &'a MappedRow,
    image: &'a [u8],
    since: DateTime<Utc>,
    waits: Vec<Wait<'a>>,
    /// A person is waited for.
    ambiguity: Option<Ambiguity>,
}

/// The parked changes of a batch's records.
#[derive(Debug, Clone, Default)]
pub(super) struct Changes<'a> {
    /// Version and date of those that waited before the batch.
    waited: HashMap<&'a RecordId, (Version, DateTime<Utc>)>,
    /// What became of them, and which are new.
    now: BTreeMap<&'a RecordId, Option<Parked<'a>>>,
}

impl<'a> Changes<'a> {
    /// Reads what waits of a batch's records.
    pub(super) async fn read(
        session: &mut Session,
        schemas: &Schemas,
        batch: &'a Batch,
    ) -> Result<Self, OrderError> {
        let rows = batch.destinations.iter().flat_map(|part| part.rows.iter());
        let records: HashMap<&str, &RecordId> = rows
            .filter(|row| !row.record.as_str().contains('\0'))
            .map(|row| (row.record.as_str(), &row.record))
            .collect();
        let names: Vec<&str> = records.keys().copied().collect();
        let sql = format!(
            "SELECT record, version, since FROM {} WHERE connection = $1 AND job = $2 AND record = ANY($3)",
            schemas.ledger("parked_change")
        );
        let reader = &batch.reader;
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&reader.connection.as_str(), &reader.job.as_str(), &names];
        let mut changes = Self::default();
        for row in session.query(&sql, &params).await? {
            if let Some(record) = records.get(row.try_get::<_, &str>(0)?) {
                let version = parse_version(row.try_get(1)?)?;
                changes.waited.insert(record, (version, row.try_get(2)?));
            }
        }
        Ok(changes)
    }

    /// The version of a record's change that waits.
    pub(super) fn version(&self, record: &RecordId) -> Option<Version> {
        match self.now.get(record) {
            Some(now) => now.as_ref().map(|parked| parked.row.version),
            None => self.waited.get(record).map(|(version, _)| *version),
        }
    }

    pub(super) fn delete(&mut self, record: &'a RecordId) {
        self.now.insert(record, None);
    }

    /// Parks a change; its time to live goes on at the same version.
    pub(super) fn put(
        &mut self,
        batch: &Batch,
        destination: &'a str,
        row: &'a MappedRow,
        image: &'a [u8],
        waits: Vec<Wait<'a>>,
        ambiguity: Option<Ambiguity>,
    ) {
        let before = self.waited.get(&row.record);
        let since = before.filter(|(version, _)| *version == row.version);
        let parked = Parked {
            destination,
            row,
            image,
            since: since.map_or(batch.now, |(_, since)| *since),
            waits,
            ambiguity,
        };
        self.now.insert(&row.record, Some(parked));
    }

    /// Writes what became of the batch's changes.
    pub(super) async fn write(
        &self,
        session: &mut Session,
        schemas: &Schemas,
        batch: &Batch,
    ) -> Result<(), OrderError> {
        let (connection, job) = (batch.reader.connection.as_str(), batch.reader.job.as_str());
        let gone = self
            .now
            .keys()
            .filter(|record| self.waited.contains_key(*record));
        let gone: Vec<&str> = gone.map(|record| record.as_str()).collect();
        if !gone.is_empty() {
            let sql = format!(
                "DELETE FROM {} WHERE connection = $1 AND job = $2 AND record = ANY($3)",
                schemas.ledger("parked_change")
            );
            session.execute(&sql, &[&connection, &job, &gone]).await?;
        }
        let parked: Vec<&Parked<'_>> = self.now.values().flatten().collect();
        if parked.is_empty() {
            return Ok(());
        }
        let ids = self.insert(session, schemas, batch, &parked).await?;
        let mut waits = Waits::default();
        let mut reviews = Vec::new();
        for parked in &parked {
            let Some(id) = ids.get(parked.row.record.as_str()) else {
                continue;
            };
            for wait in &parked.waits {
                waits.ids.push(*id);
                waits.push(wait);
            }
            reviews.extend(parked.ambiguity.as_ref().map(|ambiguity| (*id, ambiguity)));
        }
        review::write(session, schemas, &reviews).await?;
        let sql = format!(
            "INSERT INTO {} (change, \"column\", takes_any, lookup, looked_up, key, digest)
             SELECT * FROM unnest($1::bigint[], $2::text[], $3::boolean[], $4::text[], $5::text[], $6::text[], $7::uuid[])",
            schemas.ledger("parked_wait")
        );
        session
            .execute(
                &sql,
                &[
                    &waits.ids,
                    &waits.columns,
                    &waits.any,
                    &waits.lookups,
                    &waits.looked_up,
                    &waits.keys,
                    &waits.digests,
                ],
            )
            .await?;
        Ok(())
    }

    async fn insert(
        &self,
        session: &mut Session,
        schemas: &Schemas,
        batch: &Batch,
        parked: &[&Parked<'_>],
    ) -> Result<HashMap<String, i64>, OrderError> {
        let sql = format!(
            "INSERT INTO {} (connection, job, object, destination, record, version, partition, \"offset\", image, since,
                ready)
             SELECT $1, $2, $3, s.* FROM unnest($4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[],
                $9::bytea[], $10::timestamptz[], $11::smallint[]) s
             RETURNING record, id",
            schemas.ledger("parked_change")
        );
        let collect = |text: fn(&Parked<'_>) -> String| -> Vec<String> {
            parked.iter().map(|parked| text(parked)).collect()
        };
        let destinations = collect(|parked| parked.destination.to_owned());
        let records = collect(|parked| parked.row.record.as_str().to_owned());
        let versions = collect(|parked| parked.row.version.to_string());
        let partitions: Vec<i64> = parked
            .iter()
            .map(|parked| i64::from(parked.row.place.0))
            .collect();
        let offsets: Vec<i64> = parked
            .iter()
            .map(|parked| signed(parked.row.place.1))
            .collect();
        let images: Vec<&[u8]> = parked.iter().map(|parked| parked.image).collect();
        let since: Vec<DateTime<Utc>> = parked.iter().map(|parked| parked.since).collect();
        let ready = parked.iter().map(|parked| parked.ambiguity.is_some());
        let ready: Vec<i16> = ready
            .map(|ambiguous| if ambiguous { review::IN_REVIEW } else { 1 })
            .collect();
        let rows = session
            .query(
                &sql,
                &[
                    &batch.reader.connection.as_str(),
                    &batch.reader.job.as_str(),
                    &batch.object.as_str(),
                    &destinations,
                    &records,
                    &versions,
                    &partitions,
                    &offsets,
                    &images,
                    &since,
                    &ready,
                ],
            )
            .await?;
        let mut ids = HashMap::with_capacity(rows.len());
        for row in rows {
            ids.insert(row.try_get(0)?, row.try_get(1)?);
        }
        Ok(ids)
    }
}

/// Columns of waits.
#[derive(Default)]
struct Waits<'a> {
    ids: Vec<i64>,
    columns: Vec<&'a str>,
    any: Vec<bool>,
    lookups: Vec<&'a str>,
    looked_up: Vec<&'a str>,
    keys: Vec<&'a str>,
    digests: Vec<Uuid>,
}

impl<'a> Waits<'a> {
    fn push(&mut self, wait: &'a Wait<'_>) {
        self.columns.push(wait.column);
        self.any.push(wait.takes_any);
        self.lookups.push(&wait.lookup);
        self.looked_up.push(&wait.looked_up);
        self.keys.push(&wait.key);
        self.digests.push(wait.digest);
    }
}

/// Writes what became of a destination's references.
pub(super) async fn write_references(
    session: &mut Session,
    schemas: &Schemas,
    batch: &Batch,
    destination: &str,
    parkings: &Parkings<'_>,
) -> Result<(), OrderError> {
    let table = schemas.ledger("parked_reference");
    let (connection, job) = (batch.reader.connection.as_str(), batch.reader.job.as_str());
    let own = format!(
        "SELECT id FROM {table} WHERE connection = $1 AND job = $2 AND destination = $3 AND record = s.record
         AND \"column\" = s.c OFFSET 0"
    );
    let (mut gone, mut carried, mut versions) = ((vec![], vec![]), (vec![], vec![]), vec![]);
    let mut put = Vec::new();
    for ((record, column), parking) in parkings {
        match parking {
            Parking::Delete => {
                gone.0.push(record.as_str());
                gone.1.push(column.as_str());
            }
            Parking::Carry(version) => {
                carried.0.push(record.as_str());
                carried.1.push(column.as_str());
                versions.push(version.to_string());
            }
            Parking::Put(row, wait) => put.push((*row, wait)),
        }
    }
    if !gone.0.is_empty() {
        let sql = format!(
            "DELETE FROM {table} WHERE id = ANY(ARRAY(
                SELECT p.id FROM unnest($4::text[], $5::text[]) s(record, c) CROSS JOIN LATERAL ({own}) p))"
        );
        session
            .execute(&sql, &[&connection, &job, &destination, &gone.0, &gone.1])
            .await?;
    }
    if !carried.0.is_empty() {
        let sql = format!(
            "UPDATE {table} t SET version = s.version FROM (
                SELECT p.id, s.version FROM unnest($4::text[], $5::text[], $6::text[]) s(record, c, version)
                CROSS JOIN LATERAL ({own}) p OFFSET 0) s
             WHERE t.id = ANY(ARRAY[s.id])"
        );
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 6] = [
            &connection,
            &job,
            &destination,
            &carried.0,
            &carried.1,
            &versions,
        ];
        session.execute(&sql, &params).await?;
    }
    if put.is_empty() {
        return Ok(());
    }
    put_references(session, schemas, batch, destination, &put).await
}

async fn put_references(
    session: &mut Session,
    schemas: &Schemas,
    batch: &Batch,
    destination: &str,
    put: &[(&MappedRow, &Wait<'_>)],
) -> Result<(), OrderError> {
    let sql = format!(
        "INSERT INTO {} AS p (connection, job, destination, object, since, record, version, partition, \"offset\",
            \"column\", takes_any, lookup, looked_up, key, digest, owners)
         SELECT $1, $2, $3, $4, $5, s.record, s.version, s.partition, s.place, s.\"column\", s.takes_any, s.lookup,
            s.looked_up, s.key, s.digest, s.owners::jsonb
         FROM unnest($6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::text[], $11::boolean[], $12::text[],
            $13::text[], $14::text[], $15::uuid[], $16::text[])
            s(record, version, partition, place, \"column\", takes_any, lookup, looked_up, key, digest, owners)
         ON CONFLICT (connection, job, destination, record, \"column\") DO UPDATE SET object = excluded.object,
            partition = excluded.partition, \"offset\" = excluded.\"offset\", takes_any = excluded.takes_any,
            lookup = excluded.lookup, looked_up = excluded.looked_up, key = excluded.key, digest = excluded.digest,
            owners = excluded.owners, ready = 1, woken = p.woken + 1, version = excluded.version,
            since = CASE WHEN p.version = excluded.version THEN p.since ELSE excluded.since END",
        schemas.ledger("parked_reference")
    );
    let mut waits = Waits::default();
    for (_, wait) in put {
        waits.push(wait);
    }
    let records: Vec<&str> = put.iter().map(|(row, _)| row.record.as_str()).collect();
    let versions: Vec<String> = put.iter().map(|(row, _)| row.version.to_string()).collect();
    let owners: Vec<&str> = put.iter().map(|(_, wait)| wait.owners.as_str()).collect();
    let partitions: Vec<i64> = put.iter().map(|(row, _)| i64::from(row.place.0)).collect();
    let offsets: Vec<i64> = put.iter().map(|(row, _)| signed(row.place.1)).collect();
    session
        .execute(
            &sql,
            &[
                &batch.reader.connection.as_str(),
                &batch.reader.job.as_str(),
                &destination,
                &batch.object.as_str(),
                &batch.now,
                &records,
                &versions,
                &partitions,
                &offsets,
                &waits.columns,
                &waits.any,
                &waits.lookups,
                &waits.looked_up,
                &waits.keys,
                &waits.digests,
                &owners,
            ],
        )
        .await?;
    Ok(())
}
