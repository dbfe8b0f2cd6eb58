//! What waits for a person, and what was decided.

use chrono::{DateTime, Utc};
use rusqlite::{CachedStatement, OptionalExtension, Row, Transaction, params};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::ledger::{parse_version, signed};
use super::read::row_of;
use super::release::Share;
use super::rows::Prepared;
use super::schema::{check_table, quote};
use crate::fault::{Fault, FaultKind};
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::model::record_id::RecordId;
use crate::sqlite::error::JobError;
use crate::target::port::Batch;
use crate::target::port::review::{
    Binding, Bond, Candidate, Decided, InReview, Review, Which, no_row,
};

/// `ready` of a change that waits for a person.
pub(super) const IN_REVIEW: i64 = 3;

/// A decision that ends the wait of the change `p`.
const DECIDED: &str = "EXISTS (SELECT 1 FROM tributary_binding b WHERE b.connection = p.connection
    AND b.destination = p.destination AND b.record = p.record AND b.object = p.object AND b.kind <> 'open')";

/// Several rows that have a record's identifiers; GSIDs ascend.
pub(super) struct Ambiguity {
    pub identifiers: Vec<(String, String)>,
    pub candidates: Vec<String>,
}

impl Ambiguity {
    /// Writes it beside the change that is parked for it.
    pub(super) fn write(&self, transaction: &Transaction<'_>, change: i64) -> Result<(), JobError> {
        let identifiers = encoded(&self.identifiers)?;
        let candidates = encoded(&self.candidates)?;
        transaction
            .prepare_cached("INSERT INTO tributary_review VALUES (?1, ?2, ?3)")?
            .execute(params![change, identifiers, candidates])?;
        Ok(())
    }
}

fn encoded(value: &impl serde::Serialize) -> Result<String, Fault> {
    serde_json::to_string(value)
        .map_err(|error| Fault::new(FaultKind::Corrupt, "encoding a review").source(error))
}

fn decoded<T: DeserializeOwned>(text: &str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|error| {
        Fault::new(FaultKind::Corrupt, format!("reading a review's `{text}`")).source(error)
    })
}

/// The decisions on one object and destination.
pub(super) struct Bonds<'tx> {
    /// Whether there are any: no row has to look otherwise.
    pub any: bool,
    key: [&'tx str; 3],
    get: Prepared<'tx>,
    remove: Prepared<'tx>,
}

impl<'tx> Bonds<'tx> {
    pub(super) fn new(
        transaction: &'tx Transaction<'tx>,
        batch: &'tx Batch,
        destination: &'tx str,
    ) -> Result<Self, JobError> {
        const OWN: &str = "FROM tributary_binding WHERE connection = ?1 AND destination = ?2";
        let connection = batch.reader.connection.as_str();
        let any = transaction
            .prepare_cached(&format!("SELECT EXISTS (SELECT 1 {OWN})"))?
            .query_row([connection, destination], |row| row.get(0))?;
        let one = |sql: &str| {
            let sql = format!("{sql} {OWN} AND record = ?4 AND object = ?3");
            Prepared::new(transaction, sql)
        };
        Ok(Self {
            any,
            key: [connection, destination, batch.object.as_str()],
            get: one("SELECT kind, gsid"),
            remove: one("DELETE"),
        })
    }

    pub(super) fn get(&mut self, record: &RecordId) -> Result<Option<Bond>, JobError> {
        if !self.any {
            return Ok(None);
        }
        let [connection, destination, object] = self.key;
        let found = self
            .get
            .get()?
            .query_row([connection, destination, object, record.as_str()], |row| {
                Ok(bond(row, 0))
            })
            .optional()?;
        found.transpose()
    }

    pub(super) fn remove(&mut self, record: &RecordId) -> Result<(), JobError> {
        let [connection, destination, object] = self.key;
        let own = [connection, destination, object, record.as_str()];
        self.remove.get()?.execute(own)?;
        Ok(())
    }
}

/// Kind and GSID from two columns.
fn bond(row: &Row<'_>, at: usize) -> Result<Bond, JobError> {
    let (kind, text): (String, Option<String>) = (row.get(at)?, row.get(at + 1)?);
    let gsid = text.as_deref().map(gsid).transpose()?;
    Ok(Bond::read(&kind, gsid)?)
}

fn gsid(text: &str) -> Result<Uuid, Fault> {
    Uuid::try_parse(text).map_err(|error| {
        Fault::new(FaultKind::Corrupt, format!("reading GSID `{text}`")).source(error)
    })
}

/// What waits, oldest first.
pub(super) fn list(transaction: &Transaction<'_>, which: &Which) -> Result<Vec<Review>, JobError> {
    let mut statement = transaction.prepare_cached(
        "SELECT p.connection, p.job, p.object, p.record, p.destination, p.version, p.since, r.identifiers, r.candidates
         FROM tributary_parked_change p JOIN tributary_review r ON r.change = p.id
         WHERE p.ready = 3 AND (?1 IS NULL OR p.connection = ?1) AND (?2 IS NULL OR p.job = ?2)
            AND (?3 IS NULL OR p.object = ?3) AND (?4 IS NULL OR p.record = ?4)
         ORDER BY p.since, p.id LIMIT ?5",
    )?;
    let mut rows = statement.query(params![
        which.connection.as_ref().map(ConnectionId::as_str),
        which.job.as_ref().map(JobId::as_str),
        which.object.as_ref().map(ObjectName::as_str),
        which.record.as_ref().map(RecordId::as_str),
        signed(which.most() as u64)
    ])?;
    let mut reviews = Vec::new();
    while let Some(row) = rows.next()? {
        let table: String = row.get(4)?;
        let gsids: Vec<String> = decoded(&row.get::<_, String>(8)?)?;
        let mut candidates = Vec::with_capacity(gsids.len());
        for text in gsids {
            candidates.push(Candidate {
                gsid: gsid(&text)?,
                row: row_of(transaction, &table, &text)?,
            });
        }
        reviews.push(Review {
            connection: ConnectionId::new(row.get::<_, String>(0)?),
            job: JobId::new(row.get::<_, String>(1)?),
            object: ObjectName::new(row.get::<_, String>(2)?),
            record: RecordId::stored(row.get::<_, String>(3)?),
            table,
            version: parse_version(&row.get::<_, String>(5)?)?,
            since: date(row.get(6)?),
            identifiers: decoded(&row.get::<_, String>(7)?)?,
            candidates,
        });
    }
    Ok(reviews)
}

fn date(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or_default()
}

/// What was decided and holds.
pub(super) fn bindings(transaction: &Transaction<'_>) -> Result<Vec<Binding>, JobError> {
    let mut statement: CachedStatement<'_> = transaction.prepare_cached(
        "SELECT connection, object, record, destination, kind, gsid, author, at FROM tributary_binding
         WHERE kind <> 'open' ORDER BY 1, 2, 3, 4",
    )?;
    let mut rows = statement.query([])?;
    let mut bindings = Vec::new();
    while let Some(row) = rows.next()? {
        bindings.push(Binding {
            connection: ConnectionId::new(row.get::<_, String>(0)?),
            object: ObjectName::new(row.get::<_, String>(1)?),
            record: RecordId::stored(row.get::<_, String>(2)?),
            table: row.get(3)?,
            bond: bond(row, 4)?,
            by: row.get(6)?,
            at: date(row.get(7)?),
        });
    }
    Ok(bindings)
}

/// How much of a job waits, and how much of that is decided.
pub(super) fn count(
    transaction: &Transaction<'_>,
    connection: &ConnectionId,
    job: &JobId,
) -> Result<InReview, JobError> {
    let sql = format!(
        "SELECT count(*), coalesce(sum({DECIDED}), 0) FROM tributary_parked_change p
         WHERE p.ready = 3 AND p.connection = ?1 AND p.job = ?2"
    );
    let counted = transaction.prepare_cached(&sql)?.query_row(
        [connection.as_str(), job.as_str()],
        |row| {
            Ok(InReview {
                waiting: row.get::<_, i64>(0)?.cast_unsigned(),
                decided: row.get::<_, i64>(1)?.cast_unsigned(),
            })
        },
    )?;
    Ok(counted)
}

/// Wakes what was decided.
pub(super) fn wake_decided(transaction: &Transaction<'_>, share: &Share) -> Result<(), JobError> {
    let sql = format!(
        "UPDATE tributary_parked_change AS p SET ready = 1
         WHERE p.ready = 3 AND p.connection = ?1 AND p.job = ?2
            AND p.partition IN (SELECT value FROM json_each(?3)) AND {DECIDED}"
    );
    transaction.prepare_cached(&sql)?.execute(params![
        share.connection.as_str(),
        share.job.as_str(),
        share.partitions
    ])?;
    Ok(())
}

/// Notes a decision in place of the one before.
pub(super) fn decide(
    transaction: &Transaction<'_>,
    binding: &Binding,
) -> Result<Decided, JobError> {
    let table = &binding.table;
    check_table(transaction, table)?;
    if let Bond::Row(gsid) = binding.bond {
        let sql = format!("SELECT 1 FROM {} WHERE \"gsid\" = ?1", quote(table));
        if !transaction.prepare(&sql)?.exists([gsid.to_string()])? {
            return Err(no_row(table, gsid).into());
        }
    }
    let key = params![
        binding.connection.as_str(),
        table,
        binding.record.as_str(),
        binding.object.as_str()
    ];
    let before = transaction
        .prepare_cached(
            "SELECT kind, gsid FROM tributary_binding
             WHERE connection = ?1 AND destination = ?2 AND record = ?3 AND object = ?4",
        )?
        .query_row(key, |row| Ok(bond(row, 0)))
        .optional()?;
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO tributary_binding VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            binding.connection.as_str(),
            table,
            binding.record.as_str(),
            binding.object.as_str(),
            binding.bond.label(),
            binding.bond.gsid().map(|gsid| gsid.to_string()),
            binding.by,
            binding.at.timestamp_micros()
        ])?;
    let waits = transaction
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM tributary_parked_change WHERE ready = 3
                AND connection = ?1 AND destination = ?2 AND record = ?3 AND object = ?4)",
        )?
        .query_row(key, |row| row.get(0))?;
    Ok(Decided {
        before: before.transpose()?,
        waits,
    })
}
