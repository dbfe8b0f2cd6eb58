//! Records of the memory target that refer to a row which another one has left.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::transaction::Store;
use crate::mapping::plan::Cell;
use crate::model::name::ConnectionId;
use crate::target::port::Strays;

/// Who left rows of a connection's records, and which records refer to them.
pub(super) fn list(store: &Store, connection: &ConnectionId) -> Strays {
    let left = store.ledger.left.iter();
    let left = left.filter(|(_, (of, _))| of == connection);
    let (marks, rows): (Vec<u64>, BTreeSet<Uuid>) =
        left.map(|(mark, (_, gsid))| (*mark, *gsid)).unzip();
    let mut records = BTreeSet::new();
    for (name, table) in &store.tables {
        for (gsid, cells) in table.all() {
            let refers = |cell: &Cell| matches!(cell, Cell::Gsid(to) if rows.contains(to));
            if !cells.iter().any(refers) {
                continue;
            }
            let holders = store.ledger.holders.get(&(Arc::clone(name), *gsid));
            records.extend(holders.into_iter().flatten().map(|holder| {
                (
                    holder.connection.clone(),
                    holder.object.clone(),
                    holder.record.clone(),
                )
            }));
        }
    }
    Strays {
        marks,
        records: records.into_iter().collect(),
    }
}
