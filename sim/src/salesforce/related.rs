//! Writes that find their records by others: an upsert by an external id, and what a delete takes along.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value as Json};

use super::schema::Object;
use super::store::{Record, Store, Table};
use super::transaction::{Operation, Prepared, RowError, Verb};
use super::value::Value;

impl Prepared {
    /// Creates the record of an external id, or updates the one that has it.
    pub(super) fn upsert(
        &mut self,
        store: &mut Store,
        object: &Object,
        operation: &Operation,
        now: DateTime<Utc>,
    ) -> Result<String, RowError> {
        let (name, json) = operation
            .external_id
            .as_ref()
            .ok_or_else(|| RowError::new("MISSING_ARGUMENT", "external id not specified"))?;
        let (place, value) = key(object, name, json)?;
        let spelled = format!("{}.{name}.{value:?}", object.name);
        if !self.keys.insert(spelled) {
            let message = format!("Duplicate external id specified: {json}");
            return Err(RowError::new("DUPLICATE_VALUE", message));
        }
        let ids = match store.table(&object.name) {
            Some(table) => having(table, place, &value),
            None => Vec::new(),
        };
        let by_id = place == object.system.id;
        let mut fields = operation.fields.clone();
        let (verb, id) = match ids.as_slice() {
            [] if by_id || operation.update_only => {
                return Err(RowError::new(
                    "NOT_FOUND",
                    "Provided external ID field does not exist or is not accessible",
                ));
            }
            [] => {
                fields.insert(name.clone(), json.clone());
                (Verb::Create, None)
            }
            [one] => (Verb::Update, Some(one.to_string())),
            several => {
                let message = format!(
                    "{name}: more than one record found for external id field: [{}]",
                    several.join(", ")
                );
                return Err(RowError::new("DUPLICATE_EXTERNAL_ID", message));
            }
        };
        let found = Operation {
            verb,
            object: object.name.clone(),
            id,
            fields,
            unmodified_since: None,
            external_id: None,
            update_only: false,
        };
        self.statement(store, &found, now)
    }

    /// Deletes what belongs to a deleted record, or brings back what went with it.
    pub(super) fn cascade(
        &mut self,
        store: &Store,
        parent: &str,
        then: DateTime<Utc>,
        verb: Verb,
        now: DateTime<Utc>,
    ) -> Result<(), RowError> {
        for table in store.tables() {
            for (id, record) in children(table, parent) {
                let deleted = table.is_deleted(&record);
                let concerned = match verb {
                    Verb::Delete => !deleted,
                    // What was deleted on its own stays in the bin.
                    _ => deleted && table.stamp(&record) == then,
                };
                if !concerned || self.is_staged(&id) {
                    continue;
                }
                let operation = Operation {
                    verb,
                    object: table.object.name.clone(),
                    id: Some(id.to_string()),
                    fields: Map::new(),
                    unmodified_since: None,
                    external_id: None,
                    update_only: false,
                };
                let after = self.change(store, table, &record, &operation, now)?;
                self.stage(
                    Arc::clone(&table.object),
                    Arc::clone(&id),
                    record,
                    after,
                    verb,
                );
                self.cascade(store, &id, then, verb, now)?;
            }
        }
        Ok(())
    }
}

/// The records of a table that a delete of this parent takes along.
fn children(table: &Table, parent: &str) -> Vec<(Arc<str>, Arc<Record>)> {
    let places: Vec<_> = table
        .object
        .fields
        .iter()
        .enumerate()
        .filter(|(_, field)| field.cascade)
        .map(|(place, _)| place)
        .collect();
    if places.is_empty() {
        return Vec::new();
    }
    table
        .heads()
        .filter(|record| {
            places
                .iter()
                .any(|place| record.get(*place).as_text() == Some(parent))
        })
        .filter_map(|record| Some((table.id(record)?, Arc::clone(record))))
        .collect()
}

/// The field of an external id, and the value it is to have.
pub(super) fn key(object: &Object, name: &str, json: &Json) -> Result<(usize, Value), RowError> {
    let unfit = || {
        let message = format!("{name} is no external ID field of {}", object.name);
        RowError::new("INVALID_FIELD", message)
    };
    let (place, field) = object.field(name).ok_or_else(unfit)?;
    if !field.external_id && place != object.system.id {
        return Err(unfit());
    }
    // A path spells every value as text.
    let value = Value::from_json(field.kind, json)
        .or_else(|| Value::parse(field.kind, json.as_str()?))
        .filter(|value| !value.is_null());
    let missing = || RowError::on("MISSING_ARGUMENT", format!("{name} not specified"), name);
    Ok((place, value.ok_or_else(missing)?))
}

/// The living records that have this value.
pub(super) fn having(table: &Table, place: usize, value: &Value) -> Vec<Arc<str>> {
    table
        .heads()
        .filter(|record| !table.is_deleted(record))
        .filter(|record| record.get(place).compare(value) == Some(std::cmp::Ordering::Equal))
        .filter_map(|record| table.id(record))
        .collect()
}
