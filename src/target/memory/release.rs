//! J5 in the memory target: what waited and may go on, and what waited too long.

use chrono::{DateTime, Utc};

use super::ledger::{Association, ParkedReference, ReferenceKey, Standing};
use super::lookup::{self, Found};
use super::transaction::{Store, Transaction};
use crate::fault::Fault;
use crate::mapping::plan::Cell;
use crate::model::name::{ConnectionId, JobId};
use crate::target::port::{Expired, ParkedChange, Released};

/// Fills parked references whose rows have come; the changes that may go on.
pub(super) fn release(
    store: &mut Store,
    connection: &ConnectionId,
    limit: usize,
) -> Result<Released, Fault> {
    let (filled, more) = fill(store, connection, limit)?;
    let (changes, more_changes) = changes(store, connection, limit)?;
    Ok(Released {
        filled,
        changes,
        more: more || more_changes,
    })
}

/// Removes what was parked before a date.
pub(super) fn expire(
    store: &mut Store,
    connection: &ConnectionId,
    job: &JobId,
    older_than: DateTime<Utc>,
) -> Vec<Expired> {
    let ledger = &mut store.ledger;
    let references = ledger.references.extract_if(.., |key, parked| {
        (&key.connection, &key.job) == (connection, job) && parked.since < older_than
    });
    let mut expired: Vec<_> = references
        .map(|(key, parked)| Expired {
            record: key.record,
            waited_for: lookup::describe(&parked.derive, &parked.reference),
            place: parked.place,
            image: None,
        })
        .collect();
    let changes = ledger.changes.extract_if(.., |key, waiting| {
        (&key.connection, &key.job) == (connection, job) && waiting.since < older_than
    });
    expired.extend(changes.map(|(key, waiting)| {
        let waits = waiting.waits.iter();
        let waits = waits.map(|(derive, reference)| lookup::describe(derive, reference));
        Expired {
            record: key.record,
            waited_for: waits.collect::<Vec<_>>().join(", "),
            place: waiting.place,
            image: Some(waiting.image),
        }
    }));
    expired
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
        let Some(row) = row else {
            // A later version came by another job.
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
    connection: &ConnectionId,
    limit: usize,
) -> Result<(Vec<ParkedChange>, bool), Fault> {
    let of_connection = store
        .ledger
        .changes
        .iter()
        .filter(|(key, _)| key.connection == *connection);
    let mut waiting: Vec<_> = of_connection
        .map(|(key, waiting)| (key.clone(), waiting.clone()))
        .collect();
    waiting.sort_by_key(|(_, waiting)| waiting.since);
    let mut released = Vec::new();
    for (key, waiting) in waiting {
        let entry = store.ledger.entries.get(&waiting.association);
        if entry.is_some_and(|entry| entry.version > waiting.version) {
            // A later version came by another job.
            store.ledger.changes.remove(&key);
            continue;
        }
        let mut ready = true;
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
            job: key.job,
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
