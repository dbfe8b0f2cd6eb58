//! J4 in the memory target: which row a record without a crosswalk entry is, by its identifiers.

use uuid::Uuid;

use super::apply::{Item, Run};
use super::ledger::Ambiguity;
use super::lookup::{self, Found};
use super::tables::key_part;
use crate::fault::Fault;
use crate::mapping::plan::{Cell, IdentifierPlan};
use crate::target::port::review::CANDIDATES;

/// What the identifiers came to.
pub(super) enum Identity {
    /// No row has them.
    None,
    /// This row has them.
    Row(Uuid),
    /// Several have them.
    Several(Ambiguity),
    /// One is without a value, which matches nothing.
    Empty(String),
}

/// Matches a record by its identifiers, given its derived columns.
pub(super) fn of(
    run: &mut Run,
    item: &Item,
    derived: &[(usize, Option<Found>)],
) -> Result<Identity, Fault> {
    let plan = item.layout.plan;
    if plan.identifiers.is_empty() {
        return Ok(Identity::None);
    }
    let mut key = Vec::with_capacity(plan.identifiers.len());
    for identifier in &plan.identifiers {
        let value = value(run, item, derived, identifier)?;
        match key_part(&value, identifier.case_blind) {
            Some(part) => key.push(part),
            None => {
                let reason = format!(
                    "identifier `{}` of {} is empty",
                    identifier.column, plan.label
                );
                return Ok(Identity::Empty(reason));
            }
        }
    }
    let table = run.tx.store.table_mut(&plan.table)?;
    let rows = table.find(&item.layout.identifiers, &key);
    Ok(match (rows.first(), rows.len()) {
        (None, _) => Identity::None,
        (Some(row), 1) => Identity::Row(*row),
        (Some(_), _) => {
            let columns = plan.identifiers.iter();
            let columns = columns.map(|identifier| identifier.column.clone());
            Identity::Several(Ambiguity {
                identifiers: columns.zip(key).collect(),
                candidates: rows.into_iter().take(CANDIDATES).collect(),
            })
        }
    })
}

fn value(
    run: &mut Run,
    item: &Item,
    derived: &[(usize, Option<Found>)],
    identifier: &IdentifierPlan,
) -> Result<Cell, Fault> {
    let plan = item.layout.plan;
    let direct = plan
        .columns
        .iter()
        .position(|column| column.name == identifier.column);
    if let Some(direct) = direct {
        let cell = item.row.cells.get(direct).cloned().flatten();
        return Ok(cell.unwrap_or(Cell::Null));
    }
    let derive = plan
        .derives
        .iter()
        .position(|derive| derive.column == identifier.column);
    let Some(index) = derive else {
        return Ok(Cell::Null);
    };
    let known = derived.iter().find(|(other, _)| *other == index);
    let found = match (known, &item.row.references[index]) {
        (Some((_, found)), _) => found.clone(),
        // A look-up into the own table: as far as it has come.
        (None, Some(reference)) => {
            let derive = &plan.derives[index];
            Some(lookup::find(run.tx.store, &item.own, derive, reference)?)
        }
        (None, None) => None,
    };
    Ok(match found {
        Some(Found::Row(gsid)) => Cell::Gsid(gsid),
        _ => Cell::Null,
    })
}
