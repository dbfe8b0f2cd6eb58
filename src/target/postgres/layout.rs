//! A destination's plan, laid out: columns by place, and the look-ups that have to be asked for.

use super::lookup::{Key, Lookup, Part};
use super::value::{Class, Val};
use crate::mapping::plan::{Cell, DeriveBy, DerivePlan, DestinationPlan};
use crate::model::policy::{OnMultiple, OnNone};

/// A destination's columns and look-ups.
pub(super) struct Layout<'a> {
    pub plan: &'a DestinationPlan,
    /// The plan's columns, then its derived ones, then others that look-ups into the own table compare.
    pub columns: Vec<Column<'a>>,
    /// How many of them the plan writes.
    pub written: usize,
    pub identifiers: Lookup,
    pub derives: Vec<Derive<'a>>,
    /// By which columns rows of the own table are looked up; the first is that of the identifiers.
    pub shapes: Vec<Shape>,
}

/// A column of the table.
pub(super) struct Column<'a> {
    pub name: &'a str,
    pub class: Class,
    pub insert_only: bool,
    pub keep_on_null: bool,
}

/// A derived column and its look-up.
pub(super) struct Derive<'a> {
    pub plan: &'a DerivePlan,
    pub lookup: Lookup,
    pub reach: Reach,
}

/// Where a look-up goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Into what this destination does not change.
    Elsewhere,
    /// Into the table that it fills: by the records that hold a row (`@id`), by a shape of columns, by both.
    OwnTable { id: bool, shape: Option<usize> },
}

/// Columns that make up a key.
pub(super) struct Shape {
    pub lookup: Lookup,
    pub places: Vec<usize>,
}

impl<'a> Layout<'a> {
    pub(super) fn new(plan: &'a DestinationPlan) -> Self {
        let mapped = plan.columns.iter().map(|column| Column {
            name: &column.name,
            class: Class::of(column.ty),
            insert_only: column.insert_only,
            keep_on_null: column.keep_on_null,
        });
        let derived = plan.derives.iter().map(|derive| Column {
            name: &derive.column,
            class: Class::Gsid,
            insert_only: false,
            keep_on_null: false,
        });
        let mut layout = Self {
            plan,
            columns: mapped.chain(derived).collect(),
            written: plan.columns.len() + plan.derives.len(),
            identifiers: Lookup::of_identifiers(&plan.table, &plan.identifiers, &plan.columns),
            derives: Vec::with_capacity(plan.derives.len()),
            shapes: Vec::new(),
        };
        layout.shape(layout.identifiers.parts.clone(), &[]);
        for derive in &plan.derives {
            let lookup = Lookup::of_derive(derive);
            let own = matches!(derive.by, DeriveBy::Match(_)) && derive.table == plan.table;
            let reach = if own {
                let parts = lookup
                    .parts
                    .iter()
                    .filter(|part| part.column_name().is_some());
                let parts: Vec<_> = parts.cloned().collect();
                let id = parts.len() < lookup.parts.len();
                let shape = (!parts.is_empty()).then(|| layout.shape(parts, &plan.derives));
                Reach::OwnTable { id, shape }
            } else {
                Reach::Elsewhere
            };
            layout.derives.push(Derive {
                plan: derive,
                lookup,
                reach,
            });
        }
        layout
    }

    /// A shape's place; columns that the plan does not write are added.
    fn shape(&mut self, parts: Vec<Part>, derives: &'a [DerivePlan]) -> usize {
        let lookup = Lookup {
            table: self.plan.table.clone(),
            parts,
        };
        if let Some(known) = self.shapes.iter().position(|shape| shape.lookup == lookup) {
            return known;
        }
        let mut places = Vec::with_capacity(lookup.parts.len());
        for part in &lookup.parts {
            let name = part.column_name().unwrap_or_default();
            let known = self.columns.iter().position(|column| column.name == name);
            places.push(known.unwrap_or_else(|| {
                self.columns.extend(foreign(derives, part));
                self.columns.len() - 1
            }));
        }
        self.shapes.push(Shape { lookup, places });
        self.shapes.len() - 1
    }

    /// The place of a column that the plan writes.
    pub(super) fn place_of(&self, name: &str) -> Option<usize> {
        let mut written = self.columns.iter().take(self.written);
        written.position(|column| column.name == name)
    }

    /// Whether a look-up into the own table may keep its row out.
    pub(super) fn may_be_hindered(&self) -> bool {
        self.derives.iter().any(|derive| {
            derive.reach != Reach::Elsewhere
                && (matches!(derive.plan.on_none, OnNone::Skip | OnNone::Reject)
                    || derive.plan.on_multiple == OnMultiple::Error)
        })
    }
}

/// A column that only a look-up knows; its name lies in the plan.
fn foreign<'a>(derives: &'a [DerivePlan], part: &Part) -> Option<Column<'a>> {
    use crate::mapping::plan::MatchKey;
    let keys = derives.iter().flat_map(|derive| match &derive.by {
        DeriveBy::Match(keys) => &keys[..],
        DeriveBy::Sibling(_) => &[],
    });
    let mut names = keys.filter_map(|key| match key {
        MatchKey::Column { name, .. } => Some(name.as_str()),
        MatchKey::RecordId => None,
    });
    let name = names.find(|name| Some(*name) == part.column_name())?;
    Some(Column {
        name,
        class: part.class(),
        insert_only: false,
        keep_on_null: false,
    })
}

impl Derive<'_> {
    /// Whether it finds rows of another table by record ids alone.
    pub(super) fn is_by_record(&self) -> bool {
        self.reach == Reach::Elsewhere && self.lookup.parts == [Part::Id]
    }
}

impl Shape {
    /// The key that values have; `None` if one of them is empty.
    pub(super) fn key<'a>(&self, values: impl Iterator<Item = Val<'a>>) -> Option<Key<'a>> {
        use super::value::Value;
        let parts = self.lookup.parts.iter().zip(values);
        parts
            .map(|(part, value)| match value {
                Val::Null | Val::Cell(Cell::Null) => None,
                Val::Gsid(gsid) => Some(Value::Gsid(gsid)),
                Val::Cell(cell) => part.value(cell),
            })
            .collect()
    }
}
