//! J5 in the memory target: what waited and may go on, and what waited too long.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::ledger::{
    Association, ChangeKey, Ledger, ParkedReference, ReferenceKey, Standing, WaitingChange,
};
use super::lookup::{self, Found};
use super::review;
use super::transaction::{Store, Transaction};
use crate::fault::Fault;
use crate::mapping::plan::Cell;
use crate::model::name::{ConnectionId, JobId};
use crate::target::port::{Expired, ParkedChange, ParkedKey, Released};

/// What an owner looks after: some partitions of a job.
#[derive(Clone, Copy)]
pub(super) struct Share<'a> {
    pub connection: &'a ConnectionId,
    pub job: &'a JobId,
    pub partitions: &'a [u32],
}

impl Share<'_> {
    fn holds(&self, connection: &ConnectionId, job: &JobId, place: (u32, u64)) -> bool {
        (self.connection, self.job) == (connection, job) && self.partitions.contains(&place.0)
    }
}

/// Fills parked references whose rows have come; the changes that may go on.
pub(super) fn release(store: &mut Store, share: Share, limit: usize) -> Result<Released, Fault> {
    let (filled, more) = fill(store, share.connection, limit)?;
    let (changes, more_changes) = changes(store, share, limit)?;
    Ok(Released {
        filled,
        changes,
        more: more || more_changes,
    })
}

/// What was parked before a date.
pub(super) fn expired(
    ledger: &Ledger,
    share: Share,
    older_than: DateTime<Utc>,
    limit: usize,
) -> Vec<Expired> {
    let references = ledger.references.iter().filter(|(key, parked)| {
        share.holds(&key.connection, &key.job, parked.place) && parked.since < older_than
    });
    let mut references: Vec<_> = references.collect();
    references.sort_by_key(|(_, parked)| parked.since);
    let references = references.into_iter().take(limit);
    let references = references.map(|(key, parked)| Expired {
        key: ParkedKey {
            record: key.record.clone(),
            reference: Some((key.table.to_string(), key.column.clone())),
            version: parked.version,
            place: parked.place,
        },
        waited_for: lookup::describe(&parked.derive, &parked.reference),
        image: None,
    });
    let changes = changes_of(ledger, share).into_iter();
    let changes =
        changes.filter(|(_, waiting)| waiting.since < older_than && waiting.ambiguity.is_none());
    let changes = changes.take(limit).map(|(key, waiting)| {
        let waits = waiting.waits.iter();
        let waits = waits.map(|(derive, reference)| lookup::describe(derive, reference));
        Expired {
            key: ParkedKey {
                record: key.record.clone(),
                reference: None,
                version: waiting.version,
                place: waiting.place,
            },
            waited_for: waits.collect::<Vec<_>>().join(", "),
            image: Some(waiting.image.clone()),
        }
    });
    references.chain(changes).collect()
}

/// Removes a parked thing if it is still the one that was told; how many.
pub(super) fn forget(
    ledger: &mut Ledger,
    connection: &ConnectionId,
    job: &JobId,
    parked: &ParkedKey,
) -> u64 {
    let (connection, job, record) = (connection.clone(), job.clone(), parked.record.clone());
    let told = (parked.version, parked.place);
    let removed = if let Some((table, column)) = &parked.reference {
        let key = ReferenceKey {
            connection,
            job,
            table: table.as_str().into(),
            record,
            column: column.clone(),
        };
        let held = ledger.references.get(&key);
        let is_same = held.is_some_and(|held| (held.version, held.place) == told);
        is_same && ledger.references.remove(&key).is_some()
    } else {
        let key = ChangeKey {
            connection,
            job,
            record,
        };
        let held = ledger.changes.get(&key);
        let is_same = held.is_some_and(|held| (held.version, held.place) == told);
        is_same && ledger.changes.remove(&key).is_some()
    };
    u64::from(removed)
}

/// The parked changes of a share, oldest first.
fn changes_of<'a>(ledger: &'a Ledger, share: Share) -> Vec<(&'a ChangeKey, &'a WaitingChange)> {
    let mut changes: Vec<_> = ledger
        .changes
        .iter()
        .filter(|(key, waiting)| share.holds(&key.connection, &key.job, waiting.place))
        .collect();
    changes.sort_by_key(|(_, waiting)| waiting.since);
    changes
}

fn fill(store: &mut Store, connection: &ConnectionId, limit: usize) -> Result<(u64, bool), Fault> {
    let of_connection = store
        .ledger
        .references
        .iter()
        .filter(|(key, _)| key.connection == *connection);
    let mut parked: Vec<_> = of_connection
        .map(|(key, parked)| (key.clone(), parked.clone()))
        .collect();
    parked.sort_by_key(|(_, parked)| parked.since);
    let now = store.now;
    let mut tx = Transaction::begin(store);
    let mut filled = 0;
    let mut room = limit;
    for (key, parked) in parked {
        let own = association(&key, &parked);
        let entry = tx.store.ledger.entries.get(&own);
        let row = entry
            .filter(|entry| entry.version == parked.version && entry.standing != Standing::Gone)
            .and_then(|entry| entry.gsid);
        let is_foreign = |row: &Uuid| {
            let holders = tx.store.ledger.holders.get(&(own.table.clone(), *row));
            let mut holders = holders.into_iter().flatten();
            holders.any(|holder| parked.owners.contains(&holder.connection))
        };
        let Some(row) = row.filter(|row| !is_foreign(row)) else {
            // A later version came by another job, or whoever the column belongs to came to the row.
            tx.put_reference(key, None);
            continue;
        };
        let found = lookup::find(tx.store, &own, &parked.derive, &parked.reference)?;
        let Found::Row(gsid) = found else { continue };
        if room == 0 {
            tx.commit();
            return Ok((filled, true));
        }
        room -= 1;
        let table = tx.store.table(&own.table)?;
        if let Some((mut cells, place)) = table
            .get(row)
            .cloned()
            .zip(table.position(&parked.derive.column))
        {
            cells[place] = Cell::Gsid(gsid);
            tx.write(&own.table, row, cells, now);
            filled += 1;
        }
        tx.put_reference(key, None);
    }
    tx.commit();
    Ok((filled, false))
}

fn changes(
    store: &mut Store,
    share: Share,
    limit: usize,
) -> Result<(Vec<ParkedChange>, bool), Fault> {
    let waiting: Vec<_> = changes_of(&store.ledger, share)
        .into_iter()
        .map(|(key, waiting)| (key.clone(), waiting.clone()))
        .collect();
    let mut released = Vec::new();
    for (key, waiting) in waiting {
        let entry = store.ledger.entries.get(&waiting.association);
        if entry.is_some_and(|entry| entry.version > waiting.version) {
            // A later version came by another job.
            store.ledger.changes.remove(&key);
            continue;
        }
        let mut ready = waiting.ambiguity.is_none() || review::is_decided(&store.ledger, &waiting);
        for (derive, reference) in &waiting.waits {
            let found = lookup::find(store, &waiting.association, derive, reference)?;
            ready &= matches!(found, Found::Row(_));
        }
        if !ready {
            continue;
        }
        if released.len() == limit {
            return Ok((released, true));
        }
        released.push(ParkedChange {
            record: key.record,
            version: waiting.version,
            place: waiting.place,
            image: waiting.image,
        });
    }
    Ok((released, false))
}

fn association(key: &ReferenceKey, parked: &ParkedReference) -> Association {
    Association {
        connection: key.connection.clone(),
        table: std::sync::Arc::clone(&key.table),
        record: key.record.clone(),
        object: parked.object.clone(),
    }
}
