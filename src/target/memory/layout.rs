//! Where a plan's columns lie in a table of the memory target.

use std::sync::Arc;

use super::tables::{KeyColumn, missing_column};
use super::transaction::Store;
use crate::fault::Fault;
use crate::mapping::plan::DestinationPlan;

/// A plan and the places of its columns.
pub(super) struct Layout<'a> {
    pub plan: &'a DestinationPlan,
    pub table: Arc<str>,
    /// Of the plan's columns.
    pub columns: Vec<usize>,
    /// Of its derived columns.
    pub derives: Vec<usize>,
    /// Of its identifiers.
    pub identifiers: Vec<KeyColumn>,
    /// Of its columns by which others find its rows.
    pub keys: Vec<usize>,
}

impl<'a> Layout<'a> {
    /// Finds the columns; a table or column that is not there is `Missing`.
    pub(super) fn of(store: &Store, plan: &'a DestinationPlan) -> Result<Self, Fault> {
        let table = store.table(&plan.table)?;
        let place = |column: &str| {
            table
                .position(column)
                .ok_or_else(|| missing_column(&plan.table, column))
        };
        let columns = plan.columns.iter().map(|column| place(&column.name));
        let derives = plan.derives.iter().map(|derive| place(&derive.column));
        let identifiers = plan.identifiers.iter().map(|identifier| {
            Ok(KeyColumn {
                position: place(&identifier.column)?,
                case_blind: identifier.case_blind,
            })
        });
        let keys = plan.keys.iter().map(|column| place(column));
        Ok(Self {
            keys: keys.collect::<Result<_, Fault>>()?,
            plan,
            table: Arc::from(plan.table.as_str()),
            columns: columns.collect::<Result<_, Fault>>()?,
            derives: derives.collect::<Result<_, Fault>>()?,
            identifiers: identifiers.collect::<Result<_, Fault>>()?,
        })
    }
}
