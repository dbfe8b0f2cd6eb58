//! How the memory target finds the row that a derived mapping means.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::ledger::Association;
use super::tables::{KeyColumn, key_part, missing_column};
use super::transaction::Store;
use crate::fault::{Fault, FaultKind};
use crate::mapping::plan::{Cell, DeriveBy, DerivePlan, MatchKey, Reference};
use crate::model::policy::OnMultiple;
use crate::model::record_id::RecordId;

/// What a look-up came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// No reference.
    Empty,
    /// The row.
    Row(Uuid),
    /// A reference without a row.
    None,
    /// Several rows where that is an error.
    Several(BTreeSet<Uuid>),
}

/// Looks up what a record's reference means now.
pub(super) fn find(
    store: &mut Store,
    own: &Association,
    derive: &DerivePlan,
    reference: &Reference,
) -> Result<Found, Fault> {
    let rows = match (&derive.by, reference) {
        (_, Reference::Empty) => None,
        (DeriveBy::Sibling(table), _) => Some(sibling(store, own, table)),
        (DeriveBy::Match(keys), Reference::Values(values)) if keys.len() == values.len() => {
            matches(store, own, derive, keys, values)?
        }
        (DeriveBy::Match(keys), _) => {
            let what = format!(
                "derived column `{}` matches by {} values, {reference:?} came",
                derive.column,
                keys.len()
            );
            return Err(Fault::new(FaultKind::Corrupt, what));
        }
    };
    let Some(rows) = rows else {
        return Ok(Found::Empty);
    };
    // GSIDs are ordered: the first is the lowest.
    Ok(match rows.first() {
        None => Found::None,
        Some(lowest) if rows.len() == 1 || derive.on_multiple == OnMultiple::Any => {
            Found::Row(*lowest)
        }
        Some(_) => Found::Several(rows),
    })
}

/// Whether it looks into the table that it fills.
pub(super) fn is_self_lookup(derive: &DerivePlan, table: &str) -> bool {
    matches!(derive.by, DeriveBy::Match(_)) && derive.table == table
}

/// What a reference waits for, in words.
pub(super) fn describe(derive: &DerivePlan, reference: &Reference) -> String {
    let (DeriveBy::Match(keys), Reference::Values(values)) = (&derive.by, reference) else {
        return format!("its own row in `{}`", derive.table);
    };
    let pairs = keys.iter().zip(values).map(|(key, value)| {
        let name = match key {
            MatchKey::RecordId => "@id",
            MatchKey::Column { name, .. } => name,
        };
        format!("{name} = `{}`", key_part(value, false).unwrap_or_default())
    });
    let pairs: Vec<_> = pairs.collect();
    format!("a row of `{}` with {}", derive.table, pairs.join(" and "))
}

fn sibling(store: &Store, own: &Association, table: &str) -> BTreeSet<Uuid> {
    let key = Association {
        table: Arc::from(table),
        ..own.clone()
    };
    let entry = store.ledger.entries.get(&key);
    let held = entry.filter(|entry| entry.standing != super::ledger::Standing::Gone);
    held.and_then(|entry| entry.gsid).into_iter().collect()
}

/// The rows that all pairs match; `None` if a value is empty, which is no reference.
fn matches(
    store: &mut Store,
    own: &Association,
    derive: &DerivePlan,
    keys: &[MatchKey],
    values: &[Cell],
) -> Result<Option<BTreeSet<Uuid>>, Fault> {
    let (mut columns, mut parts) = (Vec::new(), Vec::new());
    let mut by_record: Option<BTreeSet<Uuid>> = None;
    let table: Arc<str> = Arc::from(derive.table.as_str());
    for (key, value) in keys.iter().zip(values) {
        let case_blind = matches!(
            key,
            MatchKey::Column {
                case_blind: true,
                ..
            }
        );
        let Some(part) = key_part(value, case_blind) else {
            return Ok(None);
        };
        match key {
            MatchKey::RecordId => {
                let record = RecordId::stored(&part);
                let rows = store
                    .ledger
                    .rows_of_record(&own.connection, &table, &record);
                by_record = Some(match by_record {
                    Some(others) => &others & &rows,
                    None => rows,
                });
            }
            MatchKey::Column { name, .. } => {
                let position = store.table(&table)?.position(name);
                columns.push(KeyColumn {
                    position: position.ok_or_else(|| missing_column(&table, name))?,
                    case_blind,
                });
                parts.push(part);
            }
        }
    }
    if columns.is_empty() {
        return Ok(Some(by_record.unwrap_or_default()));
    }
    let found = store.table_mut(&table)?.find(&columns, &parts);
    Ok(Some(match by_record {
        Some(rows) => &found & &rows,
        None => found,
    }))
}
