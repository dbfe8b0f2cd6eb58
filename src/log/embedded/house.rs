//! The embedded log's housekeeping: retention, compaction, and giving free pages back to the disk, all in pieces small
//! enough that appends get in between.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Transaction, params};

use crate::fault::{Fault, FaultKind};
use crate::log::embedded::rows::{bounds, first_at, offset_of, row_id};
use crate::log::embedded::{EmbeddedLog, Topic};
use crate::log::port::Policy;
use crate::log::topic::cutoff;
use crate::runtime::shutdown::StopSignal;

/// Rows deleted in one commit.
const CHUNK: usize = 1_000;
/// Rows looked at in one read.
const LOOK: i64 = 5_000;
/// Keys that a pass remembers at most; a longer stretch takes several passes.
const KEYS: usize = 500_000;
/// Free pages that stay in the file for the records to come.
const SPARE_PAGES: i64 = 512;
/// Pages given back in one commit.
const VACUUM_PAGES: i64 = 500;

/// A partition at work.
#[derive(Clone, Copy)]
struct Place {
    partition: usize,
    id: i64,
}

impl EmbeddedLog {
    /// Keeps house every so often until told to stop. A fault is logged and met again the next time: an append
    /// that needs the space fails by itself.
    ///
    /// # Errors
    /// `Stopping` if the log is closed under it.
    pub async fn keep_house(&self, stop: &StopSignal, every: Duration) -> Result<(), Fault> {
        while stop.or(self.clock.sleep(every)).await.is_ok() {
            match self.maintain().await {
                Ok(removed) => tracing::debug!(removed, "kept house in the log"),
                Err(fault) if fault.kind() == FaultKind::Stopping => return Err(fault),
                Err(fault) => {
                    tracing::warn!(error = %fault.report(), "keeping house in the log failed")
                }
            }
        }
        Ok(())
    }

    /// Applies retention and compaction as of the clock's date and gives free pages back; answers with the number
    /// of records removed. A call that is dropped or fails half-way leaves every promise of the port kept.
    ///
    /// # Errors
    /// `Storage`, `Corrupt`; `Stopping` once closed.
    pub async fn maintain(&self) -> Result<u64, Fault> {
        let now = self.clock.now();
        let mut removed = 0;
        for topic in self.all_topics() {
            for (partition, id) in topic.stored.partitions.iter().enumerate() {
                let place = Place { partition, id: *id };
                removed += match topic.stored.spec.policy {
                    Policy::Delete { retention } => {
                        self.retain(&topic, place, cutoff(now, retention)).await?
                    }
                    Policy::Compact {
                        min_lag,
                        delete_retention,
                    } => {
                        let forgettable = cutoff(now, min_lag.saturating_add(delete_retention));
                        self.compact(place, cutoff(now, min_lag)).await?
                            + self.forget(place, forgettable).await?
                    }
                };
            }
        }
        self.give_back().await?;
        Ok(removed)
    }

    /// Removes the records up to a date and moves the start along, in the same commits.
    async fn retain(&self, topic: &Arc<Topic>, place: Place, cutoff: i64) -> Result<u64, Fault> {
        let (end, mut start) = self
            .readers
            .read(move |tx| {
                let end = first_at(tx, place.id, cutoff.saturating_add(1))?;
                Ok((end, bounds(tx, place.id)?.start))
            })
            .await?;
        let mut removed = 0;
        while start < end {
            let topic = Arc::clone(topic);
            let cut = move |tx: &Transaction<'_>| Ok(cut_start(tx, place.id, start, end)?);
            let show = move |cut: &(u64, u64)| {
                topic
                    .bounds
                    .send_modify(|bounds| bounds[place.partition].start = cut.1);
            };
            let (deleted, next) = self.writer.grouped_then(cut, show).await?;
            removed += deleted;
            start = next;
        }
        Ok(removed)
    }

    /// Removes the records that a later one of the same key follows, both from `cutoff` or before.
    async fn compact(&self, place: Place, cutoff: i64) -> Result<u64, Fault> {
        let mut removed = 0;
        loop {
            let (from, to) = self
                .readers
                .read(move |tx| {
                    Ok((
                        cleaned(tx, place.id)?,
                        first_at(tx, place.id, cutoff.saturating_add(1))?,
                    ))
                })
                .await?;
            if from >= to {
                return Ok(removed);
            }
            let (newest, to) = self.newest_by_key(place, from, to).await?;
            removed += self.remove_superseded(place, newest, to).await?;
            // Only now: a pass that was cut short is made again.
            self.writer
                .grouped(move |tx| {
                    tx.execute(
                        "UPDATE topic_partition SET cleaned = ?2 WHERE id = ?1",
                        params![place.id, to.cast_signed()],
                    )?;
                    Ok(())
                })
                .await?;
        }
    }

    /// The newest row of each key between two offsets, and how far that went.
    async fn newest_by_key(
        &self,
        place: Place,
        mut from: u64,
        to: u64,
    ) -> Result<(HashMap<Vec<u8>, i64>, u64), Fault> {
        let mut newest = HashMap::new();
        while from < to && newest.len() < KEYS {
            let keys = self.keys(place, from, to).await?;
            from = keys.last().map_or(to, |(row, _)| offset_of(*row) + 1);
            newest.extend(keys.into_iter().map(|(row, key)| (key, row)));
        }
        Ok((newest, from))
    }

    /// Removes every record before `to` that is not its key's newest.
    async fn remove_superseded(
        &self,
        place: Place,
        newest: HashMap<Vec<u8>, i64>,
        to: u64,
    ) -> Result<u64, Fault> {
        let (mut from, mut removed) = (0, 0);
        loop {
            let keys = self.keys(place, from, to).await?;
            let Some((last, _)) = keys.last() else {
                return Ok(removed);
            };
            from = offset_of(*last) + 1;
            let superseded: Vec<i64> = keys
                .into_iter()
                .filter(|(row, key)| newest.get(key).is_some_and(|newer| newer > row))
                .map(|(row, _)| row)
                .collect();
            removed += self.delete(superseded).await?;
        }
    }

    /// Removes tombstones from `cutoff` or before, all of whose older records are gone; never the newest record.
    async fn forget(&self, place: Place, cutoff: i64) -> Result<u64, Fault> {
        let tombstones = self
            .readers
            .read(move |tx| {
                let end = bounds(tx, place.id)?.end;
                let to = cleaned(tx, place.id)?.min(end.saturating_sub(1));
                let mut found = tx.prepare_cached(
                    "SELECT id FROM record INDEXED BY tombstone
                     WHERE value IS NULL AND id >= ?1 AND id < ?2 AND at <= ?3",
                )?;
                let rows = found.query_map(
                    params![row_id(place.id, 0), row_id(place.id, to), cutoff],
                    |row| row.get(0),
                )?;
                Ok(rows.collect::<rusqlite::Result<Vec<i64>>>()?)
            })
            .await?;
        self.delete(tombstones).await
    }

    async fn keys(&self, place: Place, from: u64, to: u64) -> Result<Vec<(i64, Vec<u8>)>, Fault> {
        self.readers
            .read(move |tx| {
                let mut found = tx.prepare_cached(
                    "SELECT id, key FROM record WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3",
                )?;
                let rows = found.query_map(
                    params![row_id(place.id, from), row_id(place.id, to), LOOK],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )?;
                Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
            })
            .await
    }

    async fn delete(&self, rows: Vec<i64>) -> Result<u64, Fault> {
        for chunk in rows.chunks(CHUNK) {
            let chunk = chunk.to_vec();
            self.writer
                .grouped(move |tx| {
                    let mut delete = tx.prepare_cached("DELETE FROM record WHERE id = ?1")?;
                    for row in chunk {
                        delete.execute([row])?;
                    }
                    Ok(())
                })
                .await?;
        }
        Ok(rows.len() as u64)
    }

    /// Gives free pages back to the disk, but for a few.
    async fn give_back(&self) -> Result<(), Fault> {
        loop {
            let given = self
                .writer
                .alone(|tx| {
                    let free: i64 = tx.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
                    let pages = (free - SPARE_PAGES).clamp(0, VACUUM_PAGES);
                    if pages > 0 {
                        let mut vacuum =
                            tx.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
                        let mut steps = vacuum.query([])?;
                        while steps.next()?.is_some() {}
                    }
                    Ok(pages)
                })
                .await?;
            if given == 0 {
                return Ok(());
            }
        }
    }
}

/// Deletes up to a chunk of rows between two offsets; answers with how many, and with the partition's new start.
fn cut_start(tx: &Transaction<'_>, id: i64, from: u64, to: u64) -> rusqlite::Result<(u64, u64)> {
    let last: Option<i64> = tx
        .prepare_cached(
            "SELECT max(id) FROM (SELECT id FROM record WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3)",
        )?
        .query_row(
            params![row_id(id, from), row_id(id, to), i64::try_from(CHUNK).unwrap_or(i64::MAX)],
            |row| row.get(0),
        )?;
    let start = last.map_or(to, |row| offset_of(row) + 1);
    let deleted = tx
        .prepare_cached("DELETE FROM record WHERE id >= ?1 AND id < ?2")?
        .execute(params![row_id(id, from), row_id(id, start)])?;
    tx.prepare_cached("UPDATE topic_partition SET start = ?2 WHERE id = ?1")?
        .execute(params![id, start.cast_signed()])?;
    Ok((deleted as u64, start))
}

/// The first offset that no compaction has reached yet.
fn cleaned(tx: &Transaction<'_>, id: i64) -> rusqlite::Result<u64> {
    let cleaned: i64 = tx
        .prepare_cached("SELECT cleaned FROM topic_partition WHERE id = ?1")?
        .query_row([id], |row| row.get(0))?;
    Ok(cleaned.max(0).cast_unsigned())
}
