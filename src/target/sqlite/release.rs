//! J5: what waited and may go on.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use rusqlite::{Transaction, params};

use super::cell::instant;
use super::ledger::parse_version;
use super::lookup::{Finder, Found, Lookup};
use super::parked::wake;
use super::review;
use super::rows::link_sql;
use crate::model::name::{ConnectionId, JobId};
use crate::model::record_id::RecordId;
use crate::sqlite::error::JobError;
use crate::target::port::{ParkedChange, Released};

/// Woken things that are read at a time.
const CHUNK: usize = 256;

/// What an owner looks after: some partitions of a job.
pub(super) struct Share {
    pub connection: ConnectionId,
    pub job: JobId,
    /// As a JSON array, which SQLite takes for a list.
    pub partitions: String,
}

impl Share {
    pub(super) fn new(connection: &ConnectionId, job: &JobId, partitions: &[u32]) -> Self {
        let list: Vec<String> = partitions.iter().map(u32::to_string).collect();
        Self {
            connection: connection.clone(),
            job: job.clone(),
            partitions: format!("[{}]", list.join(",")),
        }
    }
}

/// Fills what was woken, and says which changes may go on.
pub(super) fn release(
    transaction: &Transaction<'_>,
    share: &Share,
    limit: usize,
    now: DateTime<Utc>,
) -> Result<Released, JobError> {
    let mut release = Release {
        transaction,
        share,
        now: &instant(now),
        finders: HashMap::new(),
        touched: HashMap::new(),
    };
    let (filled, more) = release.references(limit)?;
    for (table, gsids) in &release.touched {
        wake(transaction, table, gsids)?;
    }
    review::wake_decided(transaction, share)?;
    let (changes, more_changes) = release.changes(limit)?;
    let woken_meanwhile = || -> Result<bool, JobError> {
        let woken = transaction
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM tributary_parked_reference WHERE connection = ?1 AND ready = 1)",
            )?
            .query_row([share.connection.as_str()], |row| row.get(0));
        Ok(woken?)
    };
    Ok(Released {
        filled,
        changes,
        more: more || more_changes || woken_meanwhile()?,
    })
}

struct Release<'a> {
    transaction: &'a Transaction<'a>,
    share: &'a Share,
    now: &'a str,
    finders: HashMap<(String, String), Finder<'a>>,
    touched: HashMap<String, Vec<String>>,
}

/// A parked reference that was woken.
struct Woken {
    id: i64,
    since: i64,
    destination: String,
    column: String,
    wait: Waiting,
    /// The record's row, if its version is still the parked one and nobody holds the row to whom the column belongs.
    gsid: Option<String>,
}

/// A parked look-up.
struct Waiting {
    any: bool,
    table: String,
    shape: String,
    key: String,
}

/// A parked change that was woken.
struct WokenChange {
    id: i64,
    since: i64,
    change: ParkedChange,
    /// The crosswalk has a later version, by another job.
    overtaken: bool,
}

impl<'a> Release<'a> {
    fn references(&mut self, limit: usize) -> Result<(u64, bool), JobError> {
        let (mut filled, mut after) = (0, (i64::MIN, i64::MIN));
        loop {
            let chunk = self.woken(after)?;
            let last_chunk = chunk.len() < CHUNK;
            for woken in chunk {
                after = (woken.since, woken.id);
                let Some(row) = self.row_for(&woken)? else {
                    continue;
                };
                if filled == limit {
                    return Ok((filled as u64, true));
                }
                self.fill(woken, &row)?;
                filled += 1;
            }
            if last_chunk {
                return Ok((filled as u64, false));
            }
        }
    }

    fn woken(&self, after: (i64, i64)) -> Result<Vec<Woken>, JobError> {
        let mut statement = self.transaction.prepare_cached(
            "SELECT p.id, p.since, p.destination, p.\"column\", p.any, p.looked_up, p.lookup, p.key, x.gsid
             FROM tributary_parked_reference p
             LEFT JOIN tributary_crosswalk x ON x.connection = p.connection AND x.destination = p.destination
                AND x.record = p.record AND x.object = p.object AND x.version = p.version AND x.gone = 0
                AND (p.owners = '[]' OR NOT EXISTS (
                    SELECT 1 FROM tributary_crosswalk o WHERE o.gsid = x.gsid AND o.destination = x.destination
                        AND o.gone = 0 AND o.connection IN (SELECT value FROM json_each(p.owners))))
             WHERE p.connection = ?1 AND p.ready = 1 AND (p.since, p.id) > (?2, ?3)
             ORDER BY p.since, p.id LIMIT ?4",
        )?;
        let rows = statement.query_map(
            params![
                self.share.connection.as_str(),
                after.0,
                after.1,
                CHUNK as i64
            ],
            |row| {
                Ok(Woken {
                    id: row.get(0)?,
                    since: row.get(1)?,
                    destination: row.get(2)?,
                    column: row.get(3)?,
                    wait: Waiting {
                        any: row.get(4)?,
                        table: row.get(5)?,
                        shape: row.get(6)?,
                        key: row.get(7)?,
                    },
                    gsid: row.get(8)?,
                })
            },
        )?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The row that a reference waited for. If there is none it goes on waiting, or is forgotten if its record
    /// has a later version, which another job wrote, or if the column is another connection's by now.
    fn row_for(&mut self, woken: &Woken) -> Result<Option<String>, JobError> {
        let settle = if woken.gsid.is_none() {
            "DELETE FROM tributary_parked_reference WHERE id = ?1"
        } else {
            match self.find(&woken.wait)? {
                Found::One(row) => return Ok(Some(row)),
                Found::None => "UPDATE tributary_parked_reference SET ready = 0 WHERE id = ?1",
                Found::Several(_) => {
                    "UPDATE tributary_parked_reference SET ready = 2 WHERE id = ?1"
                }
            }
        };
        self.transaction
            .prepare_cached(settle)?
            .execute([woken.id])?;
        Ok(None)
    }

    fn fill(&mut self, woken: Woken, row: &str) -> Result<(), JobError> {
        let gsid = woken.gsid.unwrap_or_default();
        let changed = self
            .transaction
            .prepare_cached(&link_sql(&woken.destination, &woken.column))?
            .execute(params![gsid, row, self.now])?;
        self.transaction
            .prepare_cached("DELETE FROM tributary_parked_reference WHERE id = ?1")?
            .execute([woken.id])?;
        if changed > 0 {
            self.touched
                .entry(woken.destination)
                .or_default()
                .push(gsid);
        }
        Ok(())
    }

    fn find(&mut self, waiting: &Waiting) -> Result<Found, JobError> {
        let shape = (waiting.table.clone(), waiting.shape.clone());
        let finder = match self.finders.entry(shape) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => {
                let lookup = Lookup::parse(waiting.table.clone(), &waiting.shape)?;
                new.insert(Finder::new(self.transaction, lookup))
            }
        };
        Ok(match finder.find(&Lookup::parse_key(&waiting.key)?)? {
            Found::Several(mut gsids) if waiting.any => Found::One(gsids.swap_remove(0)),
            found => found,
        })
    }

    fn changes(&mut self, limit: usize) -> Result<(Vec<ParkedChange>, bool), JobError> {
        let (mut released, mut after) = (Vec::new(), (i64::MIN, i64::MIN));
        loop {
            let chunk = self.woken_changes(after)?;
            let last_chunk = chunk.len() < CHUNK;
            for woken in chunk {
                after = (woken.since, woken.id);
                if !self.may_go_on(&woken)? {
                    continue;
                }
                if released.len() == limit {
                    return Ok((released, true));
                }
                released.push(woken.change);
            }
            if last_chunk {
                return Ok((released, false));
            }
        }
    }

    fn woken_changes(&self, after: (i64, i64)) -> Result<Vec<WokenChange>, JobError> {
        let mut statement = self.transaction.prepare_cached(
            "SELECT p.id, p.since, p.record, p.version, p.partition, p.\"offset\", p.image,
                coalesce(x.version > p.version, 0)
             FROM tributary_parked_change p
             LEFT JOIN tributary_crosswalk x ON x.connection = p.connection AND x.destination = p.destination
                AND x.record = p.record AND x.object = p.object
             WHERE p.connection = ?1 AND p.job = ?2 AND p.ready = 1 AND (p.since, p.id) > (?3, ?4)
                AND p.partition IN (SELECT value FROM json_each(?5))
             ORDER BY p.since, p.id LIMIT ?6",
        )?;
        let mut rows = statement.query(params![
            self.share.connection.as_str(),
            self.share.job.as_str(),
            after.0,
            after.1,
            self.share.partitions,
            CHUNK as i64
        ])?;
        let mut woken = Vec::new();
        while let Some(row) = rows.next()? {
            woken.push(WokenChange {
                id: row.get(0)?,
                since: row.get(1)?,
                change: ParkedChange {
                    record: RecordId::stored(row.get::<_, String>(2)?),
                    version: parse_version(&row.get::<_, String>(3)?)?,
                    place: (row.get(4)?, row.get::<_, i64>(5)?.cast_unsigned()),
                    image: row.get::<_, Vec<u8>>(6)?.into(),
                },
                overtaken: row.get(7)?,
            });
        }
        Ok(woken)
    }

    /// Whether all that a change waits for has come. If not it goes on waiting, or is forgotten if its record has
    /// a later version.
    fn may_go_on(&mut self, woken: &WokenChange) -> Result<bool, JobError> {
        if woken.overtaken {
            self.transaction
                .prepare_cached("DELETE FROM tributary_parked_change WHERE id = ?1")?
                .execute([woken.id])?;
            return Ok(false);
        }
        let mut ready = 1;
        for wait in self.waits(woken.id)? {
            match self.find(&wait)? {
                Found::One(_) => {}
                Found::None => ready = 0,
                Found::Several(_) if ready == 1 => ready = 2,
                Found::Several(_) => {}
            }
        }
        if ready == 1 {
            return Ok(true);
        }
        self.transaction
            .prepare_cached("UPDATE tributary_parked_change SET ready = ?2 WHERE id = ?1")?
            .execute([woken.id, ready])?;
        Ok(false)
    }

    fn waits(&self, change: i64) -> Result<Vec<Waiting>, JobError> {
        let mut statement = self.transaction.prepare_cached(
            "SELECT any, looked_up, lookup, key FROM tributary_parked_wait WHERE change = ?1",
        )?;
        let rows = statement.query_map([change], |row| {
            Ok(Waiting {
                any: row.get(0)?,
                table: row.get(1)?,
                shape: row.get(2)?,
                key: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
