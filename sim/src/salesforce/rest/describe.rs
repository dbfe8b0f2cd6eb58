//! Describes: the objects, and an object's fields.

use std::collections::BTreeSet;

use axum::extract::{Path, State};
use axum::http::header::{IF_MODIFIED_SINCE, LAST_MODIFIED};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::super::org::Org;
use super::super::schema::{Field, FieldType, Object};
use super::super::store::{Store, Table};
use super::error::ApiError;
use super::{Caught, Shared, http_date, parse_http_date};

/// Values of a picklist that a describe lists.
const MOST_VALUES: usize = 1000;

/// `GET sobjects`.
pub(super) async fn global(
    State(org): Shared,
    Extension(caller): Caught,
    headers: HeaderMap,
) -> Response {
    unless_fresh(&org, &headers, || {
        let objects: Vec<_> = org
            .objects()
            .iter()
            .map(|object| summary(object, &caller.version))
            .collect();
        json!({"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": objects})
    })
}

/// `GET sobjects/{object}`.
pub(super) async fn basic(
    State(org): Shared,
    Extension(caller): Caught,
    Path((_, object)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    org.object(&object)
        .map(|object| {
            Json(json!({"objectDescribe": summary(&object, &caller.version), "recentItems": []}))
        })
        .ok_or_else(ApiError::not_found)
}

/// `GET sobjects/{object}/describe`.
pub(super) async fn object(
    State(org): Shared,
    Extension(caller): Caught,
    Path((_, object)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let store = org.store();
    let table = store.table(&object).ok_or_else(ApiError::not_found)?;
    Ok(unless_fresh(&org, &headers, || {
        whole(&store, table, &caller.version)
    }))
}

/// 304 if nothing has changed since the caller last asked.
fn unless_fresh(org: &Org, headers: &HeaderMap, answer: impl FnOnce() -> Value) -> Response {
    let changed = org.described();
    let fresh = headers
        .get(IF_MODIFIED_SINCE)
        .and_then(|value| value.to_str().ok())
        .and_then(parse_http_date)
        .is_some_and(|since| changed <= since);
    if fresh {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    ([(LAST_MODIFIED, http_date(changed))], Json(answer())).into_response()
}

fn summary(object: &Object, version: &str) -> Value {
    let base = format!("/services/data/v{version}/sobjects/{}", object.name);
    json!({
        "name": object.name,
        "label": object.label,
        "labelPlural": format!("{}s", object.label),
        "keyPrefix": object.key_prefix,
        "custom": object.custom,
        "customSetting": false,
        "activateable": false,
        "queryable": true,
        "replicateable": true,
        "retrieveable": true,
        "searchable": true,
        "createable": true,
        "updateable": true,
        "deletable": true,
        "undeletable": true,
        "mergeable": false,
        "layoutable": true,
        "triggerable": true,
        "feedEnabled": false,
        "deprecatedAndHidden": false,
        "urls": {
            "sobject": base,
            "describe": format!("{base}/describe"),
            "rowTemplate": format!("{base}/{{ID}}"),
        },
    })
}

fn whole(store: &Store, table: &Table, version: &str) -> Value {
    let object = &*table.object;
    let mut described = summary(object, version);
    let fields: Vec<_> = object
        .fields
        .iter()
        .enumerate()
        .filter(|(_, field)| field.visible)
        .map(|(place, of)| field(table, place, of))
        .collect();
    described["fields"] = json!(fields);
    described["childRelationships"] = json!(children(store, object));
    described["recordTypeInfos"] = json!([{
        "active": true,
        "available": true,
        "defaultRecordTypeMapping": true,
        "developerName": "Master",
        "master": true,
        "name": "Master",
        "recordTypeId": "012000000000000AAA",
    }]);
    described
}

fn field(table: &Table, place: usize, field: &Field) -> Value {
    let values = if field.kind.is_picklist() {
        picklist_values(table, place, field)
    } else {
        Vec::new()
    };
    let digits = if field.kind == FieldType::Int { 8 } else { 0 };
    json!({
        "name": field.name,
        "label": field.label,
        "type": field.kind.name(),
        "soapType": field.kind.soap(),
        "length": field.length,
        "byteLength": field.length * 3,
        "precision": field.precision,
        "scale": field.scale,
        "digits": digits,
        "nillable": field.nillable,
        "calculated": field.calculated,
        "autoNumber": false,
        "custom": field.custom,
        "createable": field.createable,
        "updateable": field.updateable,
        "defaultedOnCreate": field.kind == FieldType::Boolean || field.name == "OwnerId" || !field.createable,
        "externalId": field.external_id,
        "idLookup": field.kind == FieldType::Id || field.external_id,
        "unique": field.unique,
        "caseSensitive": false,
        "referenceTo": field.reference_to,
        "relationshipName": field.relationship,
        "polymorphicForeignKey": field.reference_to.len() > 1,
        "compoundFieldName": field.compound,
        "nameField": field.name == "Name",
        "picklistValues": values,
        "restrictedPicklist": false,
        "encrypted": field.kind == FieldType::EncryptedString,
        "filterable": field.filterable(),
        "sortable": field.filterable(),
        "groupable": field.filterable() && !field.kind.is_number(),
        "deprecatedAndHidden": false,
        "permissionable": field.createable,
    })
}

/// The entries that are set, then the values that records have beside them.
fn picklist_values(table: &Table, place: usize, field: &Field) -> Vec<Value> {
    let mut values = BTreeSet::new();
    for record in table.heads() {
        if let Some(text) = record.get(place).as_text() {
            values.extend(text.split(';'));
        }
        if values.len() >= MOST_VALUES {
            break;
        }
    }
    let entry = |active: bool, label: &str, value: &str| {
        json!({
            "active": active, "defaultValue": false, "label": label, "validFor": null, "value": value,
        })
    };
    let set = field.choices.iter();
    let set = set.map(|choice| entry(choice.active, &choice.label, &choice.value));
    let is_set = |value: &str| field.choices.iter().any(|choice| choice.value == value);
    let others = values.into_iter().filter(|value| !is_set(value));
    set.chain(others.map(|value| entry(true, value, value)))
        .collect()
}

fn children(store: &Store, parent: &Object) -> Vec<Value> {
    let mut children = Vec::new();
    for table in store.tables() {
        for field in &table.object.fields {
            if field.visible && field.reference_to.contains(&parent.name) {
                children.push(json!({
                    "childSObject": table.object.name,
                    "field": field.name,
                    "cascadeDelete": field.cascade,
                    "deprecatedAndHidden": false,
                    "restrictedDelete": false,
                    "relationshipName": null,
                }));
            }
        }
    }
    children
}
