//! A transaction of the memory target: every write keeps what was there, until it is committed or undone.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::ledger::{
    Association, ChangeKey, Entry, Ledger, ParkedReference, ReferenceKey, Standing, WaitingChange,
};
use super::tables::{Cells, MODIFIED, Table, missing_table};
use crate::fault::Fault;
use crate::mapping::plan::Cell;
use crate::model::name::ConnectionId;
use crate::target::port::review::Binding;

/// What a restart sees.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub tables: BTreeMap<Arc<str>, Table>,
    pub ledger: Ledger,
    /// The newest date a batch brought.
    pub now: DateTime<Utc>,
    gsids: u64,
    marks: u64,
}

impl Store {
    pub(super) fn table(&self, name: &str) -> Result<&Table, Fault> {
        self.tables.get(name).ok_or_else(|| missing_table(name))
    }

    pub(super) fn table_mut(&mut self, name: &str) -> Result<&mut Table, Fault> {
        self.tables.get_mut(name).ok_or_else(|| missing_table(name))
    }

    /// The next GSID: UUIDv7 of the newest date and a counter, so that runs repeat.
    pub(super) fn next_gsid(&mut self) -> Uuid {
        self.gsids += 1;
        let millis = u64::try_from(self.now.timestamp_millis()).unwrap_or_default();
        let mut tail = [0; 10];
        tail[2..].copy_from_slice(&self.gsids.to_be_bytes());
        uuid::Builder::from_unix_timestamp_millis(millis, &tail).into_uuid()
    }

    fn put_row(&mut self, table: &Arc<str>, gsid: Uuid, row: Option<Cells>) -> Option<Cells> {
        self.tables.get_mut(table)?.put(gsid, row)
    }

    fn put_entry(&mut self, key: &Association, entry: Option<Entry>) -> Option<Entry> {
        let row = |entry: Option<&Entry>| {
            let held = entry.filter(|entry| entry.standing != Standing::Gone)?;
            Some((Arc::clone(&key.table), held.gsid?))
        };
        let (old, new) = (row(self.ledger.entries.get(key)), row(entry.as_ref()));
        if old != new {
            if let Some(old) = old
                && let Some(holders) = self.ledger.holders.get_mut(&old)
            {
                holders.remove(key);
                if holders.is_empty() {
                    self.ledger.holders.remove(&old);
                }
            }
            if let Some(new) = new {
                self.ledger
                    .holders
                    .entry(new)
                    .or_default()
                    .insert(key.clone());
            }
        }
        put(&mut self.ledger.entries, key, entry)
    }
}

fn put<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, key: &K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key.clone(), value),
        None => map.remove(key),
    }
}

enum Undo {
    Row(Arc<str>, Uuid, Option<Cells>),
    Entry(Association, Option<Entry>),
    Reference(ReferenceKey, Option<ParkedReference>),
    Change(ChangeKey, Option<WaitingChange>),
    Binding(Association, Option<Binding>),
    Left(u64),
}

/// Writes that are undone when it is dropped without [`Transaction::commit`].
pub(super) struct Transaction<'a> {
    pub store: &'a mut Store,
    undo: Vec<Undo>,
}

impl<'a> Transaction<'a> {
    pub(super) fn begin(store: &'a mut Store) -> Self {
        Self {
            store,
            undo: Vec::new(),
        }
    }

    pub(super) fn commit(mut self) {
        self.undo.clear();
    }

    /// How far the transaction has come, for [`Transaction::roll_back`].
    pub(super) fn savepoint(&self) -> usize {
        self.undo.len()
    }

    pub(super) fn roll_back(&mut self, savepoint: usize) {
        while self.undo.len() > savepoint {
            match self.undo.pop() {
                Some(Undo::Row(table, gsid, row)) => drop(self.store.put_row(&table, gsid, row)),
                Some(Undo::Entry(key, entry)) => drop(self.store.put_entry(&key, entry)),
                Some(Undo::Reference(key, parked)) => {
                    drop(put(&mut self.store.ledger.references, &key, parked));
                }
                Some(Undo::Change(key, waiting)) => {
                    drop(put(&mut self.store.ledger.changes, &key, waiting));
                }
                Some(Undo::Binding(key, binding)) => {
                    drop(put(&mut self.store.ledger.bindings, &key, binding));
                }
                Some(Undo::Left(mark)) => drop(self.store.ledger.left.remove(&mark)),
                None => {}
            }
        }
    }

    /// Writes a row if it would change, and its `modified_date` then; whether it did.
    pub(super) fn write(
        &mut self,
        table: &Arc<str>,
        gsid: Uuid,
        mut row: Cells,
        now: DateTime<Utc>,
    ) -> bool {
        let before = self.store.tables.get(table).and_then(|held| held.get(gsid));
        if before == Some(&row) {
            return false;
        }
        row[MODIFIED] = Cell::DateTime(now);
        self.put_row(table, gsid, Some(row));
        true
    }

    pub(super) fn put_row(&mut self, table: &Arc<str>, gsid: Uuid, row: Option<Cells>) {
        let before = self.store.put_row(table, gsid, row);
        self.undo.push(Undo::Row(Arc::clone(table), gsid, before));
    }

    pub(super) fn put_entry(&mut self, key: Association, entry: Entry) {
        let before = self.store.put_entry(&key, Some(entry));
        self.undo.push(Undo::Entry(key, before));
    }

    pub(super) fn put_reference(&mut self, key: ReferenceKey, parked: Option<ParkedReference>) {
        let before = put(&mut self.store.ledger.references, &key, parked);
        self.undo.push(Undo::Reference(key, before));
    }

    pub(super) fn put_change(&mut self, key: ChangeKey, waiting: Option<WaitingChange>) {
        let before = put(&mut self.store.ledger.changes, &key, waiting);
        self.undo.push(Undo::Change(key, before));
    }

    /// Notes that a record has left a row, or has changed what finds it.
    pub(super) fn leave(&mut self, connection: ConnectionId, gsid: Uuid) {
        self.store.marks += 1;
        let mark = self.store.marks;
        self.store.ledger.left.insert(mark, (connection, gsid));
        self.undo.push(Undo::Left(mark));
    }

    pub(super) fn put_binding(&mut self, key: Association, binding: Option<Binding>) {
        let before = put(&mut self.store.ledger.bindings, &key, binding);
        self.undo.push(Undo::Binding(key, before));
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        self.roll_back(0);
    }
}
