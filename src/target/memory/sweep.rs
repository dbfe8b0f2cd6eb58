//! What a replay has not met.

use std::collections::BTreeMap;

use super::ledger::{Ledger, Standing};
use crate::model::record_id::RecordId;
use crate::model::version::Version;
use crate::target::port::sweep::{READER, SweepKey, Unmet};

/// By record and table, of one replay.
pub(super) type Noted = BTreeMap<(RecordId, String), Version>;

/// Notes who holds rows of the tables.
pub(super) fn begin(ledger: &mut Ledger, of: &SweepKey, tables: &[String]) -> u64 {
    ledger.unmet.retain(|held, _| {
        (&held.connection, &held.job) != (&of.connection, &of.job) || held.replay >= of.replay
    });
    ledger.forget_offsets(&of.connection, &of.job, |reader| {
        reader.starts_with(READER) && *reader < *of.readers_before()
    });
    let held = ledger.entries.iter().filter(|(key, entry)| {
        (&key.connection, &key.object) == (&of.connection, &of.object)
            && tables.iter().any(|table| **table == *key.table)
            && entry.gsid.is_some()
            && entry.standing == Standing::Present
    });
    let noted: Noted = held
        .map(|(key, entry)| ((key.record.clone(), key.table.to_string()), entry.version))
        .collect();
    let count = noted.len() as u64;
    ledger.unmet.insert(of.clone(), noted);
    count
}

/// Strikes out records.
pub(super) fn met(ledger: &mut Ledger, of: &SweepKey, records: &[RecordId]) {
    if let Some(noted) = ledger.unmet.get_mut(of) {
        noted.retain(|(record, _), _| !records.contains(record));
    }
}

/// What is left, by record.
pub(super) fn unmet(ledger: &Ledger, of: &SweepKey, limit: usize) -> Vec<Unmet> {
    let noted = ledger.unmet.get(of).into_iter().flatten();
    let unmet = noted.map(|((record, table), version)| Unmet {
        record: record.clone(),
        table: table.clone(),
        version: *version,
    });
    unmet.take(limit).collect()
}

/// Strikes out what has left.
pub(super) fn swept(ledger: &mut Ledger, of: &SweepKey, swept: &[Unmet]) {
    if let Some(noted) = ledger.unmet.get_mut(of) {
        for one in swept {
            noted.remove(&(one.record.clone(), one.table.clone()));
        }
    }
}

/// Forgets a replay.
pub(super) fn end(ledger: &mut Ledger, of: &SweepKey) {
    ledger.unmet.remove(of);
    ledger.forget_offsets(&of.connection, &of.job, |reader| *reader == *of.reader());
}
