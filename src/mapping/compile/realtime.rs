//! `realtime_fields`: which columns a change moves at once, and which a full sync writes.

use std::collections::BTreeSet;

use crate::config::job::JobConfig;
use crate::config::problem::Problem;
use crate::mapping::plan::DestinationPlan;
use crate::model::name::FieldName;
use crate::model::stored::StoredType;

use super::nearest::nearest;
use super::{DeriveRule, Rules, Source};

/// Says in what currency a row's amounts are.
const CURRENCY: &str = "currency_iso_code";

/// Sets what of each destination is left to full syncs. What says which row a record is, a constant, and the row of a
/// sibling move with every change; a look-up as soon as one of its fields does.
pub(super) fn schedule(
    job: &JobConfig,
    fields: &[FieldName],
    destinations: &mut [(DestinationPlan, Rules)],
) -> Vec<Problem> {
    let listed = match &job.realtime_fields {
        Some(listed) => listed.as_slice(),
        None if job.realtime => return Vec::new(),
        None => &[],
    };
    let moved: BTreeSet<&str> = listed.iter().map(|field| field.value.as_str()).collect();
    let moves = |slot: usize| job.realtime && moved.contains(fields[slot].as_str());
    let mut mapped = BTreeSet::new();
    for (plan, rules) in destinations {
        let is_fixed = |column: &str| plan.identifiers.iter().any(|one| one.column == column);
        let amounts = plan.columns.iter().zip(&rules.columns);
        let mut amounts = amounts.filter(|(column, _)| column.ty == StoredType::Currency);
        let moves_amounts =
            amounts.any(|(_, rule)| matches!(rule.from, Source::Field(slot) if moves(slot)));
        let mut scheduled = BTreeSet::new();
        for (column, rule) in plan.columns.iter().zip(&rules.columns) {
            let Source::Field(slot) = rule.from else {
                continue;
            };
            mapped.insert(fields[slot].as_str());
            let goes_along = column.name == CURRENCY && moves_amounts;
            if !moves(slot) && !goes_along && !is_fixed(&column.name) {
                scheduled.insert(column.name.clone());
            }
        }
        for (derive, rule) in plan.derives.iter().zip(&rules.derives) {
            let DeriveRule::Match(keys) = rule else {
                continue;
            };
            mapped.extend(keys.iter().map(|(slot, _)| fields[*slot].as_str()));
            if !keys.iter().any(|(slot, _)| moves(*slot)) && !is_fixed(&derive.column) {
                scheduled.insert(derive.column.clone());
            }
        }
        plan.scheduled = scheduled;
    }
    let unknown = listed
        .iter()
        .filter(|field| !mapped.contains(field.value.as_str()));
    unknown
        .map(|field| {
            let remedy = nearest(&field.value, mapped.iter().copied()).map_or_else(
                || "name a field as `map` or `derive` of the job do".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            Problem::new(
                &field.spot,
                "no column of the job is filled from it",
                remedy,
            )
            .value(format!("`{}`", field.value))
        })
        .collect()
}
