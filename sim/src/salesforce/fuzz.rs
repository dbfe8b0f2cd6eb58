//! Ways in for the fuzz targets under `fuzz/`: a query on a small org.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::Value as Json;

use super::ids;
use super::load::Loaded;
use super::schema::{Field, FieldType, Object};
use super::soql;
use super::store::{Record, Store};
use super::value::Value;

/// A small org.
pub struct Org(Store);

/// An org of a few `Thing`s, each but the first with the one before as its parent.
#[must_use]
pub fn org() -> Org {
    let mut parent = Field::new("ParentId", FieldType::Reference);
    parent.reference_to = vec!["Thing".to_owned()];
    let fields = vec![
        Field::new("Name", FieldType::String),
        Field::new("Size", FieldType::Double),
        Field::new("Flag", FieldType::Boolean),
        Field::new("Day", FieldType::Date),
        Field::new("Tags__c", FieldType::Multipicklist),
        parent,
    ];
    let object = Object::new("Thing", "a01", fields, Vec::new());
    let rows = (1..=4_u32).map(|number| {
        let mut record = Record::new(vec![Value::Null; object.fields.len()]);
        let mut set = |name: &str, value: Value| {
            if let Some(place) = object.place(name) {
                record.set(place, value);
            }
        };
        set("Id", Value::id(&ids::nth("a01", number.into())));
        set("Size", Value::Double(number.into()));
        set("Flag", Value::Bool(number % 2 == 0));
        set("IsDeleted", Value::Bool(number == 4));
        if number > 1 {
            set("Name", Value::text(&format!("thing {number}")));
            set(
                "ParentId",
                Value::id(&ids::nth("a01", u64::from(number) - 1)),
            );
        }
        Arc::new(record)
    });
    let rows = rows.collect();
    let mut store = Store::default();
    store.add(Loaded { object, rows });
    Org(store)
}

/// The rows that a query finds; the code of the error where the org refuses it.
///
/// # Errors
/// The error's code.
pub fn rows(org: &Org, query: &str, now: DateTime<Utc>) -> Result<Vec<Json>, &'static str> {
    let results = soql::run(&org.0, query, true, now).map_err(|error| error.code)?;
    let mut rows = results.page(0, usize::MAX, "66.0");
    rows.push(results.len().into());
    Ok(rows)
}

/// A query as the org understands it, if it does.
#[must_use]
pub fn printed(query: &str) -> Option<String> {
    soql::printed(query).ok()
}
