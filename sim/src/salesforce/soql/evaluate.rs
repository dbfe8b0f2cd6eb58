//! Runs a plan over the store and keeps what it found, for pages to be made of.

use std::cmp::Ordering;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value as Json, json};

use super::super::schema::Object;
use super::super::shape;
use super::super::store::{Record, Store, Table};
use super::super::value::Value;
use super::aggregate::Grouping;
use super::plan::{Column, Place, Plan, Sort, Test};

/// The rows of a query as they were when it ran: each the record and its parents.
#[derive(Debug)]
pub(crate) struct ResultSet {
    plan: Plan,
    /// `1 + joins` records a row.
    records: Vec<Option<Arc<Record>>>,
    counted: usize,
    /// The rows of a grouped query, instead of `records`.
    grouped: Option<Vec<Json>>,
}

/// Runs the plan on what reads see at `now`.
pub(super) fn evaluate(store: &Store, plan: Plan, all_rows: bool, now: DateTime<Utc>) -> ResultSet {
    let mut results = ResultSet {
        plan,
        records: Vec::new(),
        counted: 0,
        grouped: None,
    };
    let Some(table) = store.table(&results.plan.object.name) else {
        return results;
    };
    let own = |field| Place { source: 0, field };
    let system = table.object.system;
    let from = results
        .plan
        .filter
        .as_ref()
        .and_then(|test| test.earliest(own(system.stamp), own(system.id)));
    let in_order = is_stamp_order(&results.plan.order, table);
    let index = if from.is_some() || in_order {
        table.since(from.unwrap_or_else(|| (i64::MIN, Arc::from(""))), now)
    } else {
        None
    };
    let sorted = results.plan.order.is_empty() || in_order && index.is_some();
    // What comes sorted can end at the limit; anything else must see all rows.
    let enough = match results.plan.limit {
        Some(limit) if sorted => results.plan.offset.saturating_add(limit),
        _ => usize::MAX,
    };
    let candidates: Box<dyn Iterator<Item = &Arc<Record>>> = match index {
        Some(index) => Box::new(index),
        None => Box::new(table.all_at(now)),
    };
    let mut row = Vec::with_capacity(1 + results.plan.joins.len());
    for record in candidates {
        if results.counted >= enough {
            break;
        }
        if !all_rows && table.is_deleted(record) {
            continue;
        }
        join(store, &results.plan, record, now, &mut row);
        let passes = |test: &Test| holds(test, &row);
        if results.plan.filter.as_ref().is_none_or(passes) {
            results.counted += 1;
            if !results.plan.columns.is_empty() {
                results.records.append(&mut row);
            }
        }
    }
    results.arrange(!sorted);
    results
}

/// Whether the order is that of the index: by (SystemModstamp, Id), upwards.
fn is_stamp_order(order: &[Sort], table: &Table) -> bool {
    let system = table.object.system;
    let is = |sort: &Sort, field| !sort.descending && sort.place == Place { source: 0, field };
    match order {
        [stamp] => is(stamp, system.stamp),
        [stamp, id] => is(stamp, system.stamp) && is(id, system.id),
        _ => false,
    }
}

fn join(
    store: &Store,
    plan: &Plan,
    record: &Arc<Record>,
    now: DateTime<Utc>,
    row: &mut Vec<Option<Arc<Record>>>,
) {
    row.clear();
    row.push(Some(Arc::clone(record)));
    for join in &plan.joins {
        let parent = row[join.child]
            .as_ref()
            .and_then(|child| store.parent(child.get(join.reference), now))
            .cloned();
        row.push(parent);
    }
}

fn holds(test: &Test, row: &[Option<Arc<Record>>]) -> bool {
    match test {
        Test::And(all) => all.iter().all(|test| holds(test, row)),
        Test::Or(any) => any.iter().any(|test| holds(test, row)),
        Test::Not(inner) => !holds(inner, row),
        Test::Field(place, predicate) => predicate.holds(value(row, *place)),
    }
}

pub(super) fn value(row: &[Option<Arc<Record>>], place: Place) -> &Value {
    row.get(place.source)
        .and_then(Option::as_ref)
        .map_or(&Value::Null, |record| record.get(place.field))
}

impl ResultSet {
    /// Sorts if need be, ties by id, and cuts by OFFSET and LIMIT.
    fn arrange(&mut self, sort: bool) {
        let (offset, limit) = (self.plan.offset, self.plan.limit.unwrap_or(usize::MAX));
        self.counted = self.counted.saturating_sub(offset).min(limit);
        if self.plan.columns.is_empty() {
            return;
        }
        let width = self.width();
        let mut rows: Vec<_> = self.records.chunks(width).collect();
        if sort {
            let id = Place {
                source: 0,
                field: self.plan.object.system.id,
            };
            rows.sort_by(|a, b| {
                compare(&self.plan.order, a, b)
                    .then_with(|| compare_keys(value(a, id), value(b, id)))
            });
        }
        let kept: Vec<_> = rows
            .into_iter()
            .skip(offset)
            .take(limit)
            .flatten()
            .cloned()
            .collect();
        self.records = kept;
    }

    fn width(&self) -> usize {
        1 + self.plan.joins.len()
    }

    /// Puts the rows into groups.
    pub(super) fn group(&mut self, grouping: &Grouping) {
        let groups = grouping.rows(self.records.chunks(self.width()));
        self.counted = groups.len();
        self.grouped = Some(groups);
        self.records.clear();
    }

    /// Whether the query asked for the number only.
    pub fn counts_only(&self) -> bool {
        self.plan.columns.is_empty()
    }

    /// How many rows were found.
    pub fn len(&self) -> usize {
        self.counted
    }

    /// Rows `from..from + count` in REST's shape.
    pub fn page(&self, from: usize, count: usize, version: &str) -> Vec<Json> {
        if let Some(groups) = &self.grouped {
            return groups.iter().skip(from).take(count).cloned().collect();
        }
        self.records
            .chunks(self.width())
            .skip(from)
            .take(count)
            .map(|row| self.render(&self.plan.columns, &self.plan.object, 0, row, version))
            .collect()
    }

    /// The object that is read.
    pub fn object(&self) -> &str {
        &self.plan.object.name
    }

    /// The selected paths, in their order.
    pub fn headings(&self) -> impl Iterator<Item = &str> {
        self.plan.selected.iter().map(|(path, _)| path.as_str())
    }

    /// Whether a compound field is selected as a whole.
    pub fn has_compounds(&self) -> bool {
        self.plan.selected.iter().any(|(_, place)| {
            let object = match place.source {
                0 => &self.plan.object,
                source => &self.plan.joins[source - 1].object,
            };
            object.fields[place.field].kind.is_compound()
        })
    }

    /// Rows `from..from + count` as texts in the order of the headings; null is empty.
    pub fn cells(&self, from: usize, count: usize) -> impl Iterator<Item = Vec<String>> {
        let rows = self.records.chunks(self.width()).skip(from).take(count);
        rows.map(|row| {
            let places = self.plan.selected.iter();
            places
                .map(|(_, place)| match value(row, *place).cometd() {
                    Json::Null => String::new(),
                    Json::String(text) => text,
                    other => other.to_string(),
                })
                .collect()
        })
    }

    fn render(
        &self,
        columns: &[Column],
        object: &Object,
        source: usize,
        row: &[Option<Arc<Record>>],
        version: &str,
    ) -> Json {
        let Some(record) = row.get(source).and_then(Option::as_ref) else {
            return Json::Null;
        };
        let mut shown = Map::new();
        shown.insert("attributes".to_owned(), attributes(object, record, version));
        for column in columns {
            match column {
                Column::Field { place } => {
                    let name = object.fields[place.field].name.clone();
                    shown.insert(name, rest_value(object, record, place.field));
                }
                Column::Parent {
                    name,
                    source,
                    columns,
                } => {
                    let parent = &self.plan.joins[*source - 1].object;
                    let parent = self.render(columns, parent, *source, row, version);
                    shown.insert(name.clone(), parent);
                }
            }
        }
        Json::Object(shown)
    }
}

/// A field in REST's shape, compounds put together.
pub(crate) fn rest_value(object: &Object, record: &Record, place: usize) -> Json {
    let field = &object.fields[place];
    match object.compound(&field.name) {
        Some(compound) if field.kind.is_compound() => shape::rest_compound(compound, record),
        _ => record.get(place).rest(),
    }
}

/// What every record of an answer carries: its type and address.
pub(crate) fn attributes(object: &Object, record: &Record, version: &str) -> Json {
    let id = record.get(object.system.id).as_text().unwrap_or_default();
    json!({
        "type": object.name,
        "url": format!("/services/data/v{version}/sobjects/{}/{id}", object.name),
    })
}

/// Nulls come first unless asked otherwise, whatever the direction.
fn compare(order: &[Sort], a: &[Option<Arc<Record>>], b: &[Option<Arc<Record>>]) -> Ordering {
    for sort in order {
        let (a, b) = (value(a, sort.place), value(b, sort.place));
        let ordering = match (a.is_null(), b.is_null()) {
            (true, true) => Ordering::Equal,
            (a_null, b_null) if a_null || b_null => {
                if a_null == sort.nulls_last {
                    Ordering::Greater
                } else {
                    Ordering::Less
                }
            }
            _ => {
                let ordering = compare_keys(a, b);
                if sort.descending {
                    ordering.reverse()
                } else {
                    ordering
                }
            }
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
    Ordering::Equal
}

fn compare_keys(a: &Value, b: &Value) -> Ordering {
    a.compare(b).unwrap_or(Ordering::Equal)
}
