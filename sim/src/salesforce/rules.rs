//! What a written row must obey: known and writable fields, types, lengths, required and unique values.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::schema::{Field, FieldType, Object};
use super::store::{Record, Store};
use super::transaction::{RowError, Verb};
use super::value::Value;

/// A new record's values before anything is set.
pub(crate) fn blank(object: &Object, user: &str) -> Vec<Value> {
    object
        .fields
        .iter()
        .map(|field| match field.kind {
            FieldType::Boolean => Value::Bool(false),
            FieldType::Reference if field.name == "OwnerId" => Value::id(user),
            _ => Value::Null,
        })
        .collect()
}

/// The values of a row by their places, each of its field's type.
pub(crate) fn checked(
    object: &Object,
    fields: &Map<String, Json>,
    verb: Verb,
) -> Result<Vec<(usize, Value)>, RowError> {
    let mut values = Vec::with_capacity(fields.len());
    for (name, json) in fields {
        let (place, field) = object.field(name).ok_or_else(|| {
            RowError::new(
                "INVALID_FIELD",
                format!("No such column '{name}' on sobject of type {}", object.name),
            )
        })?;
        let writable = match verb {
            Verb::Create => field.createable,
            Verb::Recalculate => field.calculated,
            _ => field.updateable,
        };
        if !writable {
            return Err(not_writable(field));
        }
        values.push((place, checked_value(field, json)?));
    }
    Ok(values)
}

fn not_writable(field: &Field) -> RowError {
    RowError::on(
        "INVALID_FIELD_FOR_INSERT_UPDATE",
        format!(
            "Unable to create/update fields: {}. Please check the security settings of this field and verify that \
             it is read/write for your profile or permission set.",
            field.name
        ),
        &field.name,
    )
}

fn checked_value(field: &Field, json: &Json) -> Result<Value, RowError> {
    let shown = || match json {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    let Some(value) = Value::from_json(field.kind, json) else {
        if field.kind == FieldType::Reference && json.is_string() {
            return Err(RowError::on(
                "MALFORMED_ID",
                format!("{}: id value of incorrect type: {}", field.label, shown()),
                &field.name,
            ));
        }
        return Err(RowError::on(
            "INVALID_TYPE_ON_FIELD_IN_RECORD",
            format!("{}: value not of required type: {}", field.label, shown()),
            &field.name,
        ));
    };
    if let Some(text) = value.as_text()
        && field.kind.is_text()
        && text.chars().count() > field.length as usize
    {
        let begin: String = text.chars().take(255).collect();
        return Err(RowError::on(
            "STRING_TOO_LONG",
            format!(
                "{}: data value too large: {begin} (max length={})",
                field.label, field.length
            ),
            &field.name,
        ));
    }
    Ok(value)
}

/// Every field that may not be empty has a value.
pub(crate) fn check_required(object: &Object, record: &Record) -> Result<(), RowError> {
    let missing: Vec<_> = object
        .fields
        .iter()
        .enumerate()
        .filter(|(place, field)| {
            !field.nillable && field.createable && record.get(*place).is_null()
        })
        .map(|(_, field)| field.name.clone())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(RowError {
        code: "REQUIRED_FIELD_MISSING",
        message: format!("Required fields are missing: [{}]", missing.join(", ")),
        fields: missing,
    })
}

/// No other living record has the value of a unique field.
pub(crate) fn check_unique(
    store: &Store,
    object: &Object,
    place: usize,
    value: &Value,
    own: Option<&Arc<Record>>,
) -> Result<(), RowError> {
    let field = &object.fields[place];
    let Some(table) = store.table(&object.name).filter(|_| field.unique) else {
        return Ok(());
    };
    let taken = table.heads().find(|record| {
        !table.is_deleted(record)
            && record.get(place).compare(value) == Some(std::cmp::Ordering::Equal)
            && own.is_none_or(|own| own.get(object.system.id) != record.get(object.system.id))
    });
    match taken.and_then(|record| table.id(record)) {
        None => Ok(()),
        Some(id) => Err(RowError::on(
            "DUPLICATE_VALUE",
            format!(
                "duplicate value found: {} duplicates value on record with id: {id}",
                field.name
            ),
            &field.name,
        )),
    }
}
