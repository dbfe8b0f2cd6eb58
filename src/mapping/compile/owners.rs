//! What jobs have to know of one another: whose a column is that two connections fill (it belongs to the one listed first
//! that maps it), and whose rows others look up, by which columns.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::mapping::compile::Mapping;
use crate::mapping::plan::{DeriveBy, DestinationPlan, MatchKey};
use crate::model::name::ConnectionId;

/// Tells each job which of its columns connections listed before its own map too, and which are looked up.
pub fn settle(mappings: &mut [Mapping], order: &[ConnectionId]) {
    settle_keys(mappings);
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

fn settle_keys(mappings: &mut [Mapping]) {
    let (mut tables, mut looked_up) = (BTreeSet::new(), BTreeSet::new());
    for plan in mappings.iter().map(Mapping::plan) {
        let derives = plan.destinations.iter().flat_map(|plan| &plan.derives);
        for derive in derives {
            tables.insert(derive.table.clone());
            let DeriveBy::Match(keys) = &derive.by else {
                continue;
            };
            looked_up.extend(keys.iter().filter_map(|key| match key {
                MatchKey::Column { name, .. } => Some((derive.table.clone(), name.clone())),
                MatchKey::RecordId => None,
            }));
        }
    }
    let written = |plan: &DestinationPlan, column: &str| {
        plan.columns.iter().any(|one| one.name == *column)
            || plan.derives.iter().any(|one| one.column == *column)
    };
    for plan in mappings.iter_mut().map(|mapping| &mut mapping.plan) {
        for destination in &mut plan.destinations {
            let destination = Arc::make_mut(destination);
            let keys = looked_up.iter().filter(|(table, column)| {
                *table == destination.table && written(destination, column)
            });
            destination.keys = keys.map(|(_, column)| column.clone()).collect();
            destination.is_looked_up = tables.contains(&destination.table);
        }
    }
}
