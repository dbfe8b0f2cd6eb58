//! An object's schema as its CRM describes it to the signed-in user.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::name::{FieldName, ObjectName};

/// What a CRM says of one object; lists only the fields that the signed-in user may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectSchema {
    /// The API name.
    pub name: ObjectName,
    /// The label.
    pub label: String,
    /// Fields by API name.
    pub fields: BTreeMap<FieldName, FieldSchema>,
}

/// One field of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldSchema {
    /// The label.
    pub label: String,
    /// The kind of value.
    pub kind: FieldKind,
    /// Objects that a reference points to; more than one means polymorphic.
    pub references: Vec<ObjectName>,
    /// How the CRM names a parent through this reference (`Owner` of `OwnerId`), if it does.
    pub relationship: Option<String>,
    /// Formula, roll-up or otherwise derived: it changes without an event.
    pub calculated: bool,
    /// The compound field this is a component of (`BillingAddress` of `BillingCity`).
    pub compound: Option<FieldName>,
    /// Of `x@label`, what tells these labels from earlier ones, where the CRM's description has them: once it is another
    /// one, every record's label may be.
    pub edition: Option<String>,
}

/// Kinds of values, CRM-neutral.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldKind {
    /// The record's own id.
    Id,
    /// The id of another record.
    Reference,
    /// Text of any kind.
    Text,
    /// One of a list of values.
    Picklist,
    /// Several of a list of values.
    MultiPicklist,
    /// True or false.
    Boolean,
    /// A whole number.
    Integer,
    /// A decimal number.
    Decimal,
    /// A day without a time zone.
    Date,
    /// An instant.
    DateTime,
    /// A time of day.
    Time,
    /// Made of other fields; never selected itself.
    Compound,
    /// Bytes; never selected.
    Binary,
}

impl FieldKind {
    /// Whether a read may select it.
    #[must_use]
    pub const fn is_selectable(self) -> bool {
        !matches!(self, Self::Compound | Self::Binary)
    }
}
