//! `<Object>.json`: what the values of a CSV file don't tell about its fields.
//!
//! ```json
//! {"label": "Employee", "keyPrefix": "a0E",
//!  "without": ["SystemModstamp", "LastModifiedDate", "LastModifiedById"],
//!  "fields": {"Score__c": {"type": "double", "scale": 4, "calculated": true},
//!             "Grade__c": {"type": "picklist", "picklistValues": [{"value": "a", "label": "Very good"}]}}}
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;

use super::super::schema::{Choice, Field, FieldType};
use super::LoadError;

/// A description of an object; everything is optional.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Sidecar {
    pub label: Option<String>,
    pub key_prefix: Option<String>,
    /// What other objects have and this one has not.
    #[serde(default)]
    pub without: Vec<Stamp>,
    #[serde(default)]
    pub fields: BTreeMap<String, FieldNote>,
}

/// Fields that the org sets itself and that some objects lack (Object Reference, "System Fields").
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) enum Stamp {
    CreatedDate,
    CreatedById,
    LastModifiedDate,
    LastModifiedById,
    SystemModstamp,
}

impl Stamp {
    pub fn name(self) -> &'static str {
        match self {
            Self::CreatedDate => "CreatedDate",
            Self::CreatedById => "CreatedById",
            Self::LastModifiedDate => "LastModifiedDate",
            Self::LastModifiedById => "LastModifiedById",
            Self::SystemModstamp => "SystemModstamp",
        }
    }
}

/// What is said of a field, by the names of a describe.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FieldNote {
    #[serde(rename = "type")]
    pub kind: Option<FieldType>,
    label: Option<String>,
    length: Option<u32>,
    precision: Option<u32>,
    scale: Option<u32>,
    nillable: Option<bool>,
    calculated: Option<bool>,
    external_id: Option<bool>,
    unique: Option<bool>,
    reference_to: Option<Vec<String>>,
    relationship_name: Option<String>,
    compound_field_name: Option<String>,
    cascade_delete: Option<bool>,
    visible: Option<bool>,
    picklist_values: Option<Vec<Choice>>,
}

impl Sidecar {
    /// Reads the file; none says nothing.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => {
                return Err(LoadError::Io {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        serde_json::from_slice(&text).map_err(|source| LoadError::Sidecar {
            path: path.to_owned(),
            source,
        })
    }
}

impl FieldNote {
    /// Writes what is said over what was inferred.
    pub fn apply(&self, field: &mut Field) {
        fn set<T: Clone>(to: &mut T, from: Option<&T>) {
            if let Some(from) = from {
                to.clone_from(from);
            }
        }
        set(&mut field.label, self.label.as_ref());
        set(&mut field.length, self.length.as_ref());
        set(&mut field.precision, self.precision.as_ref());
        set(&mut field.scale, self.scale.as_ref());
        set(&mut field.nillable, self.nillable.as_ref());
        set(&mut field.external_id, self.external_id.as_ref());
        set(&mut field.unique, self.unique.as_ref());
        set(&mut field.reference_to, self.reference_to.as_ref());
        set(&mut field.cascade, self.cascade_delete.as_ref());
        set(&mut field.visible, self.visible.as_ref());
        set(&mut field.choices, self.picklist_values.as_ref());
        if let Some(calculated) = self.calculated {
            field.calculated = calculated;
            field.createable &= !calculated;
            field.updateable &= !calculated;
        }
        if self.relationship_name.is_some() {
            field.relationship.clone_from(&self.relationship_name);
        }
        if self.compound_field_name.is_some() {
            field.compound.clone_from(&self.compound_field_name);
        }
    }
}
