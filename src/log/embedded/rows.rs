//! The embedded log's tables, and the statements that append and read.
//!
//! A record's row id is its partition's id shifted by 40 bits, plus its offset: a partition is a range of row ids,
//! appending writes one b-tree and no index, and reading is a range scan. Within a partition `at` never goes back,
//! so that a date is found by halving.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row as SqlRow, Transaction, params};
use uuid::Uuid;

use crate::fault::{Fault, FaultKind};
use crate::log::embedded::headers;
use crate::log::polling::Limit;
use crate::log::port::{Bounds, Place, Policy, Record, TopicSpec};
use crate::log::topic::check_position;
use crate::sqlite::error::JobError;

/// The schema, step by step.
pub const STEPS: &[&str] = &["
CREATE TABLE topic (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    generation TEXT NOT NULL,
    partitions INTEGER NOT NULL,
    policy TEXT NOT NULL CHECK (policy IN ('compact', 'delete')),
    -- compact: min lag and delete retention; delete: retention and 0
    first_ms INTEGER NOT NULL,
    second_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE topic_partition (
    id INTEGER PRIMARY KEY,
    topic INTEGER NOT NULL REFERENCES topic (id),
    partition INTEGER NOT NULL,
    -- offsets: the first that may be there, the next to be given, the first not compacted yet
    start INTEGER NOT NULL DEFAULT 0,
    next INTEGER NOT NULL DEFAULT 0,
    cleaned INTEGER NOT NULL DEFAULT 0,
    last_at INTEGER NOT NULL DEFAULT -9223372036854775808,
    UNIQUE (topic, partition)
) STRICT;
CREATE TABLE record (
    -- topic_partition.id << 40 | offset
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    key BLOB NOT NULL,
    headers BLOB,
    value BLOB
) STRICT;
CREATE INDEX tombstone ON record (id) WHERE value IS NULL;
CREATE VIEW readable AS
SELECT topic.name AS topic, place.partition, record.id & 1099511627775 AS \"offset\",
       strftime('%Y-%m-%dT%H:%M:%fZ', record.at / 1000.0, 'unixepoch') AS at,
       CAST(record.key AS TEXT) AS key, CAST(record.value AS TEXT) AS value
FROM topic
JOIN topic_partition AS place ON place.topic = topic.id
JOIN record ON record.id >= place.id << 40 AND record.id < (place.id + 1) << 40;
"];

/// Bits of a row id that hold the offset.
const OFFSET_BITS: u32 = 40;
const MAX_OFFSET: i64 = (1 << OFFSET_BITS) - 1;

/// A topic in the file.
#[derive(Debug, Clone)]
pub struct Stored {
    pub spec: TopicSpec,
    pub generation: String,
    /// The partitions' ids, in order.
    pub partitions: Vec<i64>,
}

/// A record to insert.
pub struct Row {
    /// Which of the topics touched by the call.
    pub topic: usize,
    pub partition: u32,
    pub partition_id: i64,
    pub key: Bytes,
    pub value: Option<Bytes>,
    pub headers: Option<Vec<u8>>,
}

/// What an append came to.
pub struct Appended {
    pub places: Vec<Place>,
    pub ends: Vec<End>,
}

/// A partition's new end.
pub struct End {
    pub topic: usize,
    pub partition: u32,
    pub next: u64,
}

/// The row id of an offset.
pub const fn row_id(partition_id: i64, offset: u64) -> i64 {
    let offset = if offset > MAX_OFFSET.cast_unsigned() {
        MAX_OFFSET
    } else {
        offset.cast_signed()
    };
    (partition_id << OFFSET_BITS) | offset
}

/// The offset of a row id.
pub const fn offset_of(row_id: i64) -> u64 {
    (row_id & MAX_OFFSET).cast_unsigned()
}

/// Limits the file's size and reads what topics there are.
pub fn set_up(
    connection: &mut Connection,
    max_bytes: Option<u64>,
) -> rusqlite::Result<Vec<(Stored, Vec<Bounds>)>> {
    if let Some(bytes) = max_bytes {
        let page: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
        connection.pragma_update(None, "max_page_count", pages.max(1))?;
    }
    let tx = connection.transaction()?;
    let mut statement = tx.prepare(
        "SELECT id, name, generation, partitions, policy, first_ms, second_ms FROM topic ORDER BY id",
    )?;
    let found = statement
        .query_map([], |row| Ok((row.get::<_, i64>(0)?, read_topic(row)?)))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut topics = Vec::with_capacity(found.len());
    for (id, mut stored) in found {
        let mut places = tx.prepare_cached(
            "SELECT id, start, next FROM topic_partition WHERE topic = ?1 ORDER BY partition",
        )?;
        let mut bounds = Vec::new();
        let mut rows = places.query([id])?;
        while let Some(row) = rows.next()? {
            stored.partitions.push(row.get(0)?);
            bounds.push(Bounds {
                start: get_offset(row, 1)?,
                end: get_offset(row, 2)?,
            });
        }
        topics.push((stored, bounds));
    }
    Ok(topics)
}

/// Makes a topic; `None` if it is there.
pub fn make_topic(tx: &Transaction<'_>, spec: TopicSpec) -> rusqlite::Result<Option<Stored>> {
    let (policy, first, second) = match spec.policy {
        Policy::Compact {
            min_lag,
            delete_retention,
        } => ("compact", min_lag, delete_retention),
        Policy::Delete { retention } => ("delete", retention, Duration::ZERO),
    };
    let generation = Uuid::now_v7().to_string();
    let made = tx.execute(
        "INSERT INTO topic (name, generation, partitions, policy, first_ms, second_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (name) DO NOTHING",
        params![
            spec.name,
            generation,
            spec.partitions,
            policy,
            to_ms(first),
            to_ms(second)
        ],
    )?;
    if made == 0 {
        return Ok(None);
    }
    let topic = tx.last_insert_rowid();
    let mut partitions = Vec::new();
    let mut insert =
        tx.prepare("INSERT INTO topic_partition (topic, partition) VALUES (?1, ?2)")?;
    for partition in 0..spec.partitions {
        partitions.push(insert.insert(params![topic, partition])?);
    }
    Ok(Some(Stored {
        spec,
        generation,
        partitions,
    }))
}

/// Inserts the rows, in order, at the ends of their partitions.
pub fn append(tx: &Transaction<'_>, rows: &[Row], now: i64) -> rusqlite::Result<Appended> {
    let mut ends: BTreeMap<i64, (End, i64)> = BTreeMap::new();
    let mut places = Vec::with_capacity(rows.len());
    let mut insert = tx.prepare_cached(
        "INSERT INTO record (id, at, key, headers, value) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for row in rows {
        let (end, at) = match ends.entry(row.partition_id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(read_end(tx, row, now)?),
        };
        insert.execute(params![
            row_id(row.partition_id, end.next),
            *at,
            &row.key[..],
            row.headers,
            row.value.as_deref()
        ])?;
        places.push(Place {
            partition: row.partition,
            offset: end.next,
        });
        end.next += 1;
    }
    let mut update =
        tx.prepare_cached("UPDATE topic_partition SET next = ?2, last_at = ?3 WHERE id = ?1")?;
    for (id, (end, at)) in &ends {
        update.execute(params![id, end.next.cast_signed(), at])?;
    }
    let ends = ends.into_values().map(|(end, _)| end).collect();
    Ok(Appended { places, ends })
}

/// The end of a row's partition, and the date that its next record gets.
fn read_end(tx: &Transaction<'_>, row: &Row, now: i64) -> rusqlite::Result<(End, i64)> {
    tx.prepare_cached("SELECT next, last_at FROM topic_partition WHERE id = ?1")?
        .query_row([row.partition_id], |found| {
            let end = End {
                topic: row.topic,
                partition: row.partition,
                next: get_offset(found, 0)?,
            };
            Ok((end, now.max(found.get(1)?)))
        })
}

/// The records of a partition (number and id) from `offset` on.
pub fn fetch(
    tx: &Transaction<'_>,
    topic: &str,
    (partition, id): (u32, i64),
    offset: u64,
    limit: Limit,
) -> Result<Vec<Record>, JobError> {
    // In the snapshot that is read: retention may have moved the start since the caller looked.
    check_position(topic, partition, offset, bounds(tx, id)?)?;
    let mut statement = tx.prepare_cached(
        "SELECT id, at, key, headers, value FROM record WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3",
    )?;
    let count = i64::try_from(limit.records).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![row_id(id, offset), row_id(id + 1, 0), count])?;
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let record = read_record(row, partition)?;
        let size = record.size();
        if !limit.admits(batch.len(), bytes, size) {
            break;
        }
        bytes += size;
        batch.push(record);
    }
    Ok(batch)
}

/// A partition's ends.
pub fn bounds(tx: &Transaction<'_>, id: i64) -> rusqlite::Result<Bounds> {
    tx.prepare_cached("SELECT start, next FROM topic_partition WHERE id = ?1")?
        .query_row([id], |row| {
            Ok(Bounds {
                start: get_offset(row, 0)?,
                end: get_offset(row, 1)?,
            })
        })
}

/// The first offset whose record is of `at` or later; the end if there is none.
pub fn first_at(tx: &Transaction<'_>, id: i64, at: i64) -> rusqlite::Result<u64> {
    let Bounds { start, end } = bounds(tx, id)?;
    let mut statement = tx.prepare_cached(
        "SELECT id, at FROM record WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT 1",
    )?;
    let (mut low, mut high, mut found) = (start, end, end);
    while low < high {
        let middle = low + (high - low) / 2;
        let next: Option<(i64, i64)> = statement
            .query_row(params![row_id(id, middle), row_id(id, high)], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        match next {
            Some((row, date)) if date < at => low = offset_of(row) + 1,
            Some((row, _)) => {
                found = offset_of(row);
                high = middle;
            }
            None => high = middle,
        }
    }
    Ok(found)
}

fn read_record(row: &SqlRow<'_>, partition: u32) -> Result<Record, JobError> {
    let id: i64 = row.get(0)?;
    let at: i64 = row.get(1)?;
    let offset = offset_of(id);
    let torn = |error| rusqlite::Error::FromSqlConversionFailure(3, Type::Blob, Box::new(error));
    let headers = row.get_ref(3)?.as_blob_or_null().map_err(torn)?;
    let headers = headers::decode(headers).map_err(|fault| {
        fault.context(format_args!(
            "reading offset {offset} of partition {partition}"
        ))
    })?;
    Ok(Record {
        partition,
        offset,
        at: DateTime::from_timestamp_millis(at).ok_or_else(|| {
            Fault::new(
                FaultKind::Corrupt,
                format!("the record at offset {offset} of partition {partition} has the impossible date {at}"),
            )
        })?,
        key: Bytes::from(row.get::<_, Vec<u8>>(2)?),
        value: row.get::<_, Option<Vec<u8>>>(4)?.map(Bytes::from),
        headers,
    })
}

fn read_topic(row: &SqlRow<'_>) -> rusqlite::Result<Stored> {
    let policy: String = row.get(4)?;
    let (first, second) = (from_ms(row, 5)?, from_ms(row, 6)?);
    Ok(Stored {
        spec: TopicSpec {
            name: row.get(1)?,
            partitions: row.get(3)?,
            policy: if policy == "compact" {
                Policy::Compact {
                    min_lag: first,
                    delete_retention: second,
                }
            } else {
                Policy::Delete { retention: first }
            },
        },
        generation: row.get(2)?,
        partitions: Vec::new(),
    })
}

fn get_offset(row: &SqlRow<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Integer, Box::new(error))
    })
}

fn to_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn from_ms(row: &SqlRow<'_>, column: usize) -> rusqlite::Result<Duration> {
    get_offset(row, column).map(Duration::from_millis)
}
