//! Whose columns: two connections may fill one row, and a column belongs to the one listed first that maps it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::mapping::compile::Mapping;
use crate::model::name::ConnectionId;

/// Tells each job which of its columns connections listed before its own map too.
pub fn settle(mappings: &mut [Mapping], order: &[ConnectionId]) {
    let place = |of: &ConnectionId| order.iter().position(|listed| listed == of);
    let mut mapped = BTreeSet::new();
    for plan in mappings.iter().map(Mapping::plan) {
        for destination in &plan.destinations {
            let direct = destination.columns.iter().map(|column| &column.name);
            let derived = destination.derives.iter().map(|derive| &derive.column);
            mapped.extend(direct.chain(derived).map(|column| {
                let (table, column) = (destination.table.clone(), column.clone());
                (table, column, plan.connection.clone())
            }));
        }
    }
    for plan in mappings.iter_mut().map(|mapping| &mut mapping.plan) {
        let own = place(&plan.connection);
        for destination in &mut plan.destinations {
            let destination = Arc::make_mut(destination);
            let direct = destination.columns.iter().map(|column| &column.name);
            let derived = destination.derives.iter().map(|derive| &derive.column);
            let columns: BTreeSet<&String> = direct.chain(derived).collect();
            let earlier = mapped.iter().filter(|(table, column, connection)| {
                *table == destination.table && columns.contains(column) && place(connection) < own
            });
            for (_, column, connection) in earlier {
                let owners = destination.owners.entry(column.clone()).or_default();
                owners.insert(connection.clone());
            }
        }
    }
}
