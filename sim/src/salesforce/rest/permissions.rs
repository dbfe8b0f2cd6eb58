//! What users are granted, as rows that queries read: one permission set assigned to everybody, one to nobody.
//!
//! Source: Object Reference, "PermissionSet", "PermissionSetAssignment", "ObjectPermissions", "FieldPermissions". Only who
//! has "View Setup and Configuration" may query them.

use std::sync::Arc;

use super::super::ids;
use super::super::load::Loaded;
use super::super::org::Org;
use super::super::schema::{Field, FieldType, Object};
use super::super::sessions::User;
use super::super::store::{Record, Store};
use super::super::value::Value as Cell;
use super::error::ApiError;

const OBJECTS: [&str; 4] = [
    "FieldPermissions",
    "ObjectPermissions",
    "PermissionSet",
    "PermissionSetAssignment",
];

/// Whether a query of this object is one of what is granted.
pub(super) fn is_about(object: &str) -> bool {
    OBJECTS
        .iter()
        .any(|known| known.eq_ignore_ascii_case(object))
}

/// The refusal of an object that the user may not see.
pub(super) fn unsupported(object: &str) -> ApiError {
    ApiError::bad_request(
        "INVALID_TYPE",
        format!("sObject type '{object}' is not supported."),
    )
}

/// What is granted, as tables.
pub(super) fn tables(org: &Org, user: &User) -> Store {
    let own = ids::nth("0PS", 1);
    let others = ids::nth("0PS", 2);
    let forbidden = org.streaming.forbidden();
    // Without it no change of the entity is told.
    let sees_all = |entity: &str| user.view_all_data && !forbidden.contains(entity);
    let mut store = Store::default();
    store.add(table(
        "PermissionSetAssignment",
        "0Pa",
        &[
            ("AssigneeId", FieldType::String),
            ("PermissionSetId", FieldType::String),
        ],
        vec![vec![Cell::text(&user.id), Cell::text(&own)]],
    ));
    let set = |id: &str, name: &str, users: bool| {
        vec![
            Cell::id(id),
            Cell::text(name),
            Cell::Bool(false),
            Cell::Bool(users),
        ]
    };
    store.add(with_ids(
        "PermissionSet",
        "0PS",
        &[
            ("Name", FieldType::String),
            ("PermissionsViewAllData", FieldType::Boolean),
            ("PermissionsViewAllUsers", FieldType::Boolean),
        ],
        vec![
            set(&own, "Tributary", sees_all("User")),
            set(&others, "Others", true),
        ],
    ));
    let (mut of_objects, mut of_fields) = (Vec::new(), Vec::new());
    for object in org.objects() {
        of_objects.push(vec![
            Cell::text(&own),
            Cell::text(&object.name),
            Cell::Bool(true),
            Cell::Bool(sees_all(&object.name)),
        ]);
        for field in object.fields.iter().filter(|field| field.createable) {
            // A hidden field is there for others.
            let parent = if field.visible { &own } else { &others };
            of_fields.push(vec![
                Cell::text(parent),
                Cell::text(&object.name),
                Cell::text(&format!("{}.{}", object.name, field.name)),
                Cell::Bool(true),
            ]);
        }
    }
    store.add(table(
        "ObjectPermissions",
        "110",
        &[
            ("ParentId", FieldType::String),
            ("SobjectType", FieldType::String),
            ("PermissionsRead", FieldType::Boolean),
            ("PermissionsViewAllRecords", FieldType::Boolean),
        ],
        of_objects,
    ));
    store.add(table(
        "FieldPermissions",
        "01k",
        &[
            ("ParentId", FieldType::String),
            ("SobjectType", FieldType::String),
            ("Field", FieldType::String),
            ("PermissionsRead", FieldType::Boolean),
        ],
        of_fields,
    ));
    store
}

/// A table whose rows are numbered.
fn table(name: &str, prefix: &str, fields: &[(&str, FieldType)], rows: Vec<Vec<Cell>>) -> Loaded {
    let rows = (1..).zip(rows).map(|(serial, mut cells)| {
        cells.insert(0, Cell::id(&ids::nth(prefix, serial)));
        cells
    });
    with_ids(name, prefix, fields, rows.collect())
}

/// A table of an id and these fields, whose rows begin with the id.
pub(super) fn with_ids(
    name: &str,
    prefix: &str,
    fields: &[(&str, FieldType)],
    rows: Vec<Vec<Cell>>,
) -> Loaded {
    let mut all = vec![Field::system("Id", FieldType::Id)];
    all.extend(fields.iter().map(|(name, kind)| Field::new(name, *kind)));
    let object = Object::new(name, prefix, all, Vec::new());
    let rows = rows
        .into_iter()
        .map(|cells| {
            let mut values = vec![Cell::Null; object.fields.len()];
            for (place, cell) in cells.into_iter().enumerate() {
                values[place] = cell;
            }
            values[object.system.is_deleted] = Cell::Bool(false);
            Arc::new(Record::new(values))
        })
        .collect();
    Loaded { object, rows }
}
