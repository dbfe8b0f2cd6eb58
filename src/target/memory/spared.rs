//! Which columns of a row a record leaves alone: another connection's, and those that full syncs write.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::apply::{Item, Run};
use crate::model::name::ConnectionId;

/// Columns of a row that a record leaves alone.
pub(super) struct Spared {
    /// Another connection's, since a record of it holds the row.
    pub foreign: BTreeSet<String>,
    /// Written by full syncs.
    pub scheduled: BTreeSet<String>,
}

impl Spared {
    pub(super) fn has(&self, column: &str) -> bool {
        self.foreign.contains(column) || self.scheduled.contains(column)
    }
}

impl Run<'_> {
    /// The columns of a row that the record leaves alone.
    pub(super) fn spared(&self, item: &Item, gsid: Uuid) -> Spared {
        let plan = item.layout.plan;
        let is_timely = self.timely.contains(&item.row.record);
        Spared {
            foreign: self.foreign(item, gsid),
            scheduled: if is_timely {
                plan.scheduled.clone()
            } else {
                BTreeSet::new()
            },
        }
    }

    fn foreign(&self, item: &Item, gsid: Uuid) -> BTreeSet<String> {
        let owners = &item.layout.plan.owners;
        if owners.is_empty() {
            return BTreeSet::new();
        }
        let row = (Arc::clone(&item.own.table), gsid);
        let holders = self.tx.store.ledger.holders.get(&row);
        let holds = |connection: &ConnectionId| {
            let mut holders = holders.into_iter().flatten();
            holders.any(|holder| holder.connection == *connection)
        };
        let foreign = owners.iter().filter(|(_, owners)| owners.iter().any(holds));
        foreign.map(|(column, _)| column.clone()).collect()
    }
}
