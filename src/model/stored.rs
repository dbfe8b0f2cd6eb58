//! Stored objects: the tables of the store, as data.

use serde::{Deserialize, Serialize};

/// A table of the store. Every one also has `gsid`, `created_date`, `modified_date`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// The table: the object file's stem (`company_person`).
    pub table: String,
    /// The label that jobs use (`Company Person`).
    pub label: String,
    /// Columns in the file's order.
    pub fields: Vec<StoredField>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredField {
    /// The column (`employees`).
    pub column: String,
    /// The label (`Employees`).
    pub label: String,
    /// The type.
    pub ty: StoredType,
    /// For [`StoredType::Gsid`]: the table it points to.
    pub references: Option<String>,
}

/// Column types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoredType {
    /// Text.
    String,
    /// A decimal number of any size.
    Number,
    /// An amount of money.
    Currency,
    /// A percentage.
    Percentage,
    /// True or false.
    Boolean,
    /// A day.
    Date,
    /// An instant, UTC.
    #[serde(rename = "datetime")]
    DateTime,
    /// One of a list.
    Picklist,
    /// Several of a list, `;` between them.
    MultiSelect,
    /// The id of a stored row.
    Gsid,
    /// An e-mail address, compared without case.
    Email,
    /// A URL.
    Url,
    /// Formatted text.
    RichText,
}

impl StoredObject {
    /// The column of that name.
    #[must_use]
    pub fn field(&self, column: &str) -> Option<&StoredField> {
        self.fields.iter().find(|field| field.column == column)
    }
}
