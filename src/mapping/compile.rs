//! A compiled job: its plan for the target, and the rules that turn each change into rows.

mod compiler;
mod nearest;
pub mod owners;
mod realtime;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};

use crate::config::job::JobConfig;
use crate::config::problem::Problem;
use crate::mapping::cast::{self, cast, shorten, type_name};
use crate::mapping::decimal;
use crate::mapping::filter::Filter;
use crate::mapping::plan::{Cell, DestinationPlan, JobPlan, Life, MappedRow, Reference};
use crate::model::change::selected::{Selected, Selection};
use crate::model::change::{Change, InvalidChange, Origin};
use crate::model::name::FieldName;
use crate::model::record_id::RecordId;
use crate::model::stored::{StoredObject, StoredType};
use crate::model::value::Scalar;
use crate::model::version::Version;

/// A job's rules, checked against the stored objects.
#[derive(Debug, Clone)]
pub struct Mapping {
    plan: JobPlan,
    /// The plan's fields.
    selection: Selection,
    filter: Option<Bound>,
    /// One per destination of the plan.
    rules: Vec<Rules>,
}

/// What a change yields.
#[derive(Debug, Clone, PartialEq)]
pub enum Mapped {
    /// A row per destination, in the plan's order.
    Rows(Vec<MappedRow>),
    /// The image lacks these fields, which a filter, an identifier or a look-up needs: nothing is said about the
    /// record, and the completed change follows (I5).
    NotEvaluated(Vec<FieldName>),
    /// For the dead letters, with every reason.
    Rejected(String),
}

/// How a destination's cells come about.
#[derive(Debug, Clone)]
struct Rules {
    filter: Option<Bound>,
    /// One per column of the plan.
    columns: Vec<ColumnRule>,
    /// One per derived column of the plan.
    derives: Vec<DeriveRule>,
}

/// A filter, and where among the job's fields its own lie.
#[derive(Debug, Clone)]
struct Bound {
    filter: Filter,
    slots: Vec<usize>,
}

#[derive(Debug, Clone)]
struct ColumnRule {
    from: Source,
    values: Option<HashMap<Box<str>, Cell>>,
    /// Instead of null.
    default: Cell,
    identifier: bool,
}

#[derive(Debug, Clone)]
enum Source {
    /// A place among the job's fields.
    Field(usize),
    Constant(Cell),
}

#[derive(Debug, Clone)]
enum DeriveRule {
    /// Places among the job's fields, and what their values are cast to.
    Match(Vec<(usize, KeyType)>),
    Sibling,
}

#[derive(Debug, Clone, Copy)]
enum KeyType {
    RecordId,
    Column(StoredType),
}

/// The record's id on Salesforce; stream events don't carry it among their fields (Salesforce CDC Developer Guide).
const ID_FIELD: &str = "Id";

impl Mapping {
    /// Compiles a job.
    ///
    /// # Errors
    /// Every mistake of the job at once, each with its place.
    pub fn compile(
        job: &JobConfig,
        objects: &BTreeMap<String, StoredObject>,
    ) -> Result<Self, Vec<Problem>> {
        compiler::compile(job, objects)
    }

    /// What the target needs to know.
    #[must_use]
    pub const fn plan(&self) -> &JobPlan {
        &self.plan
    }

    /// Fields without which nothing is said about a record: those of filters, identifiers and look-ups.
    #[must_use]
    pub fn needed(&self) -> BTreeSet<FieldName> {
        let bound = |filter: &Option<Bound>| filter.as_ref().map(|filter| filter.slots.clone());
        let mut slots: Vec<usize> = bound(&self.filter).unwrap_or_default();
        for rules in &self.rules {
            slots.extend(bound(&rules.filter).unwrap_or_default());
            slots.extend(rules.columns.iter().filter_map(|rule| match rule.from {
                Source::Field(slot) if rule.identifier => Some(slot),
                _ => None,
            }));
            for derive in &rules.derives {
                if let DeriveRule::Match(keys) = derive {
                    slots.extend(keys.iter().map(|(slot, _)| *slot));
                }
            }
        }
        let fields = slots
            .into_iter()
            .filter_map(|slot| self.plan.fields.get(slot));
        fields.cloned().collect()
    }

    /// Maps a change that lies at `place` in its topic.
    ///
    /// A delete yields [`Life::Deleted`] rows with what the last image tells and is never rejected. A record that does
    /// not pass a filter yields a [`Life::Filtered`] row without cells.
    #[must_use]
    pub fn map(&self, change: &Change, place: (u32, u64), now: DateTime<Utc>) -> Mapped {
        let fields = self.plan.fields.iter();
        let values = fields.map(|field| change.fields.get(field).map(Scalar::from));
        let head = Head {
            id: &change.id,
            version: change.version,
            synced: synced(change.origin, change.version, change.synced),
            committed_at: change.committed_at,
            is_alive: change.is_alive(),
        };
        self.map_image(head, values, place, now)
    }

    /// Reads of a topic value what the job needs.
    ///
    /// # Errors
    /// [`InvalidChange`]; the bytes then belong into the dead letters.
    pub fn read<'a>(&self, bytes: &'a [u8]) -> Result<Selected<'a>, InvalidChange> {
        Selected::decode(bytes, &self.selection)
    }

    /// Maps what [`Mapping::read`] read, as [`Mapping::map`] does.
    #[must_use]
    pub fn map_selected(
        &self,
        change: &Selected<'_>,
        place: (u32, u64),
        now: DateTime<Utc>,
    ) -> Mapped {
        let head = Head {
            id: &change.id,
            version: change.version,
            synced: synced(change.origin, change.version, change.synced),
            committed_at: change.committed_at,
            is_alive: change.is_alive(),
        };
        self.map_image(head, change.values(), place, now)
    }

    fn map_image<'a>(
        &self,
        head: Head<'a>,
        values: impl Iterator<Item = Option<Scalar<'a>>>,
        place: (u32, u64),
        now: DateTime<Utc>,
    ) -> Mapped {
        let id = Scalar::Text(head.id.as_str());
        let fields = self.plan.fields.iter();
        let values = fields
            .zip(values)
            .map(|(field, value)| value.or_else(|| (field.as_str() == ID_FIELD).then_some(id)));
        let image = Image {
            values: values.collect(),
            head,
            place,
            now,
            fields: &self.plan.fields,
        };
        let mut flaws = Flaws::default();
        let passes = !image.head.is_alive || image.passes(self.filter.as_ref(), &mut flaws);
        let rows = self.rows(&image, passes, &mut flaws);
        if !flaws.missing.is_empty() {
            let name = |slot: usize| self.plan.fields[slot].clone();
            return Mapped::NotEvaluated(flaws.missing.into_iter().map(name).collect());
        }
        if !flaws.reasons.is_empty() {
            return Mapped::Rejected(flaws.reasons.join("; "));
        }
        Mapped::Rows(rows)
    }

    fn rows(&self, image: &Image<'_>, passes: bool, flaws: &mut Flaws) -> Vec<MappedRow> {
        let destinations = self.plan.destinations.iter().zip(&self.rules);
        destinations
            .map(|(plan, rules)| {
                if !image.head.is_alive {
                    // A delete must not be refused for a value that nobody will store.
                    return image.row(plan, rules, Life::Deleted, &mut Flaws::default());
                }
                if passes && image.passes(rules.filter.as_ref(), flaws) {
                    image.row(plan, rules, Life::Present, flaws)
                } else {
                    image.bare_row(plan)
                }
            })
            .collect()
    }
}

/// What a change says besides its fields.
struct Head<'a> {
    id: &'a RecordId,
    version: Version,
    synced: Option<Version>,
    committed_at: Option<DateTime<Utc>>,
    is_alive: bool,
}

/// A change on its way through the rules.
struct Image<'a> {
    head: Head<'a>,
    place: (u32, u64),
    now: DateTime<Utc>,
    fields: &'a [FieldName],
    /// One per field of the job; `None` where the image lacks it.
    values: Vec<Option<Scalar<'a>>>,
}

/// Why a change yields no rows.
#[derive(Default)]
struct Flaws {
    missing: Vec<usize>,
    reasons: Vec<String>,
}

impl Flaws {
    fn lack(&mut self, slot: usize) {
        if !self.missing.contains(&slot) {
            self.missing.push(slot);
        }
    }
}

impl Image<'_> {
    /// Whether the image passes a filter; what that can't be told for lack of is a flaw.
    fn passes(&self, filter: Option<&Bound>, flaws: &mut Flaws) -> bool {
        let Some(Bound { filter, slots }) = filter else {
            return true;
        };
        let mut complete = true;
        for slot in slots {
            if self.values[*slot].is_none() {
                flaws.lack(*slot);
                complete = false;
            }
        }
        if !complete {
            return false;
        }
        let value = |field: usize| self.values[slots[field]].unwrap_or(Scalar::Null);
        filter.holds(&value, self.now)
    }

    fn row(
        &self,
        plan: &DestinationPlan,
        rules: &Rules,
        life: Life,
        flaws: &mut Flaws,
    ) -> MappedRow {
        let mut cells = Vec::with_capacity(rules.columns.len());
        for (column, rule) in plan.columns.iter().zip(&rules.columns) {
            let cell = self.cell(rule, column.ty, flaws).unwrap_or_else(|why| {
                let ty = type_name(column.ty);
                let reason = format!(
                    "{why}, but column `{}` of {} is of type {ty}",
                    column.name, plan.label
                );
                flaws.reasons.push(reason);
                None
            });
            cells.push(cell);
        }
        let mut references = Vec::with_capacity(rules.derives.len());
        for (derive, rule) in plan.derives.iter().zip(&rules.derives) {
            let reference = self.reference(rule, flaws).unwrap_or_else(|why| {
                let reason = format!(
                    "{why}, but the look-up `{}` of {} compares it",
                    derive.column, plan.label
                );
                flaws.reasons.push(reason);
                None
            });
            references.push(reference);
        }
        self.with(life, cells, references)
    }

    fn cell(
        &self,
        rule: &ColumnRule,
        ty: StoredType,
        flaws: &mut Flaws,
    ) -> Result<Option<Cell>, String> {
        let slot = match &rule.from {
            Source::Constant(cell) => return Ok(Some(cell.clone())),
            Source::Field(slot) => *slot,
        };
        let Some(value) = self.values[slot] else {
            if rule.identifier {
                flaws.lack(slot);
            }
            return Ok(None);
        };
        let mut cell = match &rule.values {
            Some(_) if is_blank(value) => Cell::Null,
            Some(values) => translate(values, value)
                .cloned()
                .ok_or_else(|| self.told(slot, value, "is not among its `values`"))?,
            None => cast(value, ty)
                .map_err(|error| self.told(slot, value, &format!("is not {}", error.wanted)))?,
        };
        if rule.identifier {
            cell = cast::trimmed(cell);
        }
        Ok(Some(if cell == Cell::Null {
            rule.default.clone()
        } else {
            cell
        }))
    }

    fn reference(&self, rule: &DeriveRule, flaws: &mut Flaws) -> Result<Option<Reference>, String> {
        let DeriveRule::Match(keys) = rule else {
            return Ok(Some(Reference::Sibling));
        };
        let mut cells = Vec::with_capacity(keys.len());
        let mut complete = true;
        for (slot, ty) in keys {
            let Some(value) = self.values[*slot] else {
                flaws.lack(*slot);
                complete = false;
                continue;
            };
            let cell = match ty {
                KeyType::RecordId => record_id(value),
                KeyType::Column(ty) => cast(value, *ty).map_err(|error| {
                    self.told(*slot, value, &format!("is not {}", error.wanted))
                })?,
            };
            cells.push(cell);
        }
        if !complete {
            return Ok(None);
        }
        // One empty side is no reference, whatever the others say (J5).
        Ok(Some(if cells.contains(&Cell::Null) {
            Reference::Empty
        } else {
            Reference::Values(cells)
        }))
    }

    fn told(&self, slot: usize, value: Scalar<'_>, what: &str) -> String {
        format!(
            "field `{}` = `{}` {what}",
            self.fields[slot],
            shorten(&value.to_string())
        )
    }

    /// A row of a record that does not take part.
    fn bare_row(&self, plan: &DestinationPlan) -> MappedRow {
        self.with(
            Life::Filtered,
            vec![None; plan.columns.len()],
            vec![None; plan.derives.len()],
        )
    }

    fn with(
        &self,
        life: Life,
        cells: Vec<Option<Cell>>,
        references: Vec<Option<Reference>>,
    ) -> MappedRow {
        MappedRow {
            record: self.head.id.clone(),
            version: self.head.version,
            place: self.place,
            synced: self.head.synced,
            committed_at: self.head.committed_at,
            life,
            cells,
            references,
        }
    }
}

/// The newest version up to a change that a full sync told. What one told before a job had scheduled columns does not
/// say so itself.
fn synced(origin: Origin, version: Version, synced: Option<Version>) -> Option<Version> {
    match origin {
        Origin::Snapshot => Some(version),
        Origin::Stream | Origin::Hydrate | Origin::Reconcile => synced,
    }
}

fn is_blank(value: Scalar<'_>) -> bool {
    match value {
        Scalar::Null => true,
        Scalar::Text(text) => text.trim().is_empty(),
        Scalar::Bool(_) | Scalar::Number(_) => false,
    }
}

/// What `values` makes of a value; numbers are found by value (`1.0` as `1`), texts without outer blanks.
fn translate<'a>(values: &'a HashMap<Box<str>, Cell>, value: Scalar<'_>) -> Option<&'a Cell> {
    match value {
        Scalar::Null => None,
        Scalar::Bool(value) => values.get(if value { "true" } else { "false" }),
        Scalar::Text(text) => values.get(text).or_else(|| values.get(text.trim())),
        Scalar::Number(number) => values.get(number).or_else(|| {
            let plain = decimal::plain(number).ok()?;
            let whole = if plain.contains('.') {
                plain.trim_end_matches('0').trim_end_matches('.')
            } else {
                &plain
            };
            values.get(whole)
        }),
    }
}

/// A record's id in its one spelling. Images hold it so already; a text of another form is looked up as it is.
fn record_id<'a>(value: impl Into<Scalar<'a>>) -> Cell {
    let value = value.into();
    let Scalar::Text(text) = value else {
        return if value == Scalar::Null {
            Cell::Null
        } else {
            Cell::Text(value.to_string().into())
        };
    };
    let text = text.trim();
    let normalised = match text.len() {
        0 => return Cell::Null,
        15 => RecordId::salesforce(text).ok(),
        36 | 38
            if text
                .bytes()
                .any(|byte| byte.is_ascii_uppercase() || byte == b'{') =>
        {
            RecordId::guid(text).ok()
        }
        _ => None,
    };
    Cell::Text(normalised.as_ref().map_or(text, RecordId::as_str).into())
}

#[cfg(test)]
mod tests;
