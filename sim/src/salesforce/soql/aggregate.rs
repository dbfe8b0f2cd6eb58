//! Grouped queries: rows of a plain query, put into groups and summed up.
//!
//! Source: SOQL and SOSL Reference, "Aggregate Functions", "GROUP BY".

use std::cmp::Ordering;
use std::sync::Arc;

use serde_json::{Map, Number, Value as Json, json};

use super::super::store::Record;
use super::super::value::Value;
use super::SoqlError;
use super::evaluate::value;
use super::parser::{Item, Path, Query};
use super::plan::{Place, Plan};

/// What is done with a group's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Count,
    CountDistinct,
    Sum,
    Average,
    Least,
    Greatest,
}

impl Function {
    /// By its name in a query.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name.to_ascii_uppercase().as_str() {
            "COUNT" => Self::Count,
            "COUNT_DISTINCT" => Self::CountDistinct,
            "SUM" => Self::Sum,
            "AVG" => Self::Average,
            "MIN" => Self::Least,
            "MAX" => Self::Greatest,
            _ => return None,
        })
    }
}

/// A column of a grouped result.
#[derive(Debug)]
struct Shown {
    name: String,
    place: Place,
    /// A field that the rows are grouped by has none.
    function: Option<Function>,
}

/// How rows are grouped.
#[derive(Debug)]
pub(super) struct Grouping {
    keys: Vec<Place>,
    shown: Vec<Shown>,
    limit: usize,
    offset: usize,
}

/// The plain query whose rows are grouped: every field that is grouped by or summed up, once.
pub(super) fn plain(query: &Query) -> Query {
    let mut select: Vec<Path> = Vec::new();
    let fields = query.items.iter().map(Item::field).chain(&query.group);
    for path in fields {
        if !select.iter().any(|known| same(known, path)) {
            select.push(path.clone());
        }
    }
    Query {
        select,
        items: Vec::new(),
        group: Vec::new(),
        limit: None,
        offset: 0,
        ..query.clone()
    }
}

fn same(a: &Path, b: &Path) -> bool {
    a.parts.len() == b.parts.len()
        && a.parts
            .iter()
            .zip(&b.parts)
            .all(|(a, b)| a.eq_ignore_ascii_case(b))
}

/// Binds the grouping of a query to the plan of its plain query.
pub(super) fn bind(query: &Query, plan: &Plan, select: &[Path]) -> Result<Grouping, SoqlError> {
    let place = |path: &Path| {
        let at = select.iter().position(|known| same(known, path));
        at.and_then(|at| plan.selected.get(at))
            .map(|(_, place)| *place)
            .ok_or_else(|| SoqlError::malformed("empty field path"))
    };
    let mut shown = Vec::new();
    let mut unnamed = 0;
    for item in &query.items {
        let (function, alias, field) = match item {
            Item::Field(path) => {
                if !query.group.iter().any(|grouped| same(grouped, path)) {
                    return Err(SoqlError::at(
                        "MALFORMED_QUERY",
                        &query.text,
                        path.at,
                        &format!(
                            "Field must be grouped or aggregated: {}",
                            path.parts.join(".")
                        ),
                    ));
                }
                (None, path.parts.last().cloned(), path)
            }
            Item::Aggregate {
                function,
                field,
                alias,
            } => (Some(*function), alias.clone(), field),
        };
        let name = alias.unwrap_or_else(|| {
            unnamed += 1;
            format!("expr{}", unnamed - 1)
        });
        shown.push(Shown {
            name,
            place: place(field)?,
            function,
        });
    }
    for order in &query.order {
        if !query
            .group
            .iter()
            .any(|grouped| same(grouped, &order.field))
        {
            return Err(SoqlError::at(
                "MALFORMED_QUERY",
                &query.text,
                order.field.at,
                &format!(
                    "Ordering field must be grouped or aggregated: {}",
                    order.field.parts.join(".")
                ),
            ));
        }
    }
    for summed in &shown {
        if matches!(summed.function, Some(Function::Sum | Function::Average)) {
            let source = summed.place.source;
            let object = match source {
                0 => &plan.object,
                source => &plan.joins[source - 1].object,
            };
            let field = &object.fields[summed.place.field];
            if !field.kind.is_number() {
                return Err(SoqlError::malformed(format!(
                    "field {} does not support aggregate operator SUM or AVG",
                    field.name
                )));
            }
        }
    }
    Ok(Grouping {
        keys: query.group.iter().map(place).collect::<Result<_, _>>()?,
        shown,
        limit: query.limit.unwrap_or(usize::MAX),
        offset: query.offset,
    })
}

impl Grouping {
    /// What the rows are ordered by when the query does not say.
    pub fn keys(&self) -> &[Place] {
        &self.keys
    }

    /// The groups of these rows, in the order of their first rows.
    pub fn rows<'a>(&self, rows: impl Iterator<Item = &'a [Option<Arc<Record>>]>) -> Vec<Json> {
        let mut groups: Vec<Vec<&[Option<Arc<Record>>]>> = Vec::new();
        if self.keys.is_empty() {
            groups.push(rows.collect());
        } else {
            for row in rows {
                let like = groups.iter_mut().find(|group| {
                    group
                        .first()
                        .is_some_and(|first| self.keys.iter().all(|key| equal(first, row, *key)))
                });
                match like {
                    Some(group) => group.push(row),
                    None => groups.push(vec![row]),
                }
            }
        }
        groups
            .iter()
            .skip(self.offset)
            .take(self.limit)
            .map(|group| self.show(group))
            .collect()
    }

    fn show(&self, group: &[&[Option<Arc<Record>>]]) -> Json {
        let mut shown = Map::new();
        shown.insert("attributes".to_owned(), json!({"type": "AggregateResult"}));
        for column in &self.shown {
            let values = group.iter().map(|row| value(row, column.place));
            let told = match column.function {
                None => group
                    .first()
                    .map_or(Json::Null, |row| value(row, column.place).rest()),
                Some(function) => summed(function, values.filter(|value| !value.is_null())),
            };
            shown.insert(column.name.clone(), told);
        }
        Json::Object(shown)
    }
}

fn equal(a: &[Option<Arc<Record>>], b: &[Option<Arc<Record>>], key: Place) -> bool {
    let (a, b) = (value(a, key), value(b, key));
    a.is_null() && b.is_null() || a.compare(b) == Some(Ordering::Equal)
}

fn summed<'a>(function: Function, values: impl Iterator<Item = &'a Value>) -> Json {
    match function {
        Function::Count => json!(values.count()),
        Function::CountDistinct => {
            let mut distinct: Vec<&Value> = Vec::new();
            for value in values {
                let known = |known: &&Value| known.compare(value) == Some(Ordering::Equal);
                if !distinct.iter().any(known) {
                    distinct.push(value);
                }
            }
            json!(distinct.len())
        }
        Function::Sum | Function::Average => {
            let numbers: Vec<_> = values.filter_map(Value::as_number).collect();
            if numbers.is_empty() {
                return Json::Null;
            }
            let sum: f64 = numbers.iter().sum();
            #[allow(clippy::cast_precision_loss)]
            let told = match function {
                Function::Sum => sum,
                _ => sum / numbers.len() as f64,
            };
            Number::from_f64(told).map_or(Json::Null, Json::Number)
        }
        Function::Least | Function::Greatest => {
            let wanted = match function {
                Function::Least => Ordering::Less,
                _ => Ordering::Greater,
            };
            let best = values.reduce(|best, value| {
                if value.compare(best) == Some(wanted) {
                    value
                } else {
                    best
                }
            });
            best.map_or(Json::Null, Value::rest)
        }
    }
}
