//! Tables and columns: names, types, options, keys, and what may be done with them.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// The type of a column (`AttributeType`, told apart further where the wire does).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    String,
    Memo,
    Integer,
    BigInt,
    Double,
    Decimal,
    Money,
    Boolean,
    Picklist,
    State,
    Status,
    MultiSelectPicklist,
    DateTime,
    /// A date-time column of date-only behaviour.
    DateOnly,
    Lookup,
    Customer,
    Owner,
    Uniqueidentifier,
    EntityName,
}

impl Kind {
    /// Whether a row holds a reference, read as `_x_value`.
    #[must_use]
    pub fn is_lookup(self) -> bool {
        matches!(self, Self::Lookup | Self::Customer | Self::Owner)
    }

    /// Whether the values are numbers with labels.
    #[must_use]
    pub fn has_options(self) -> bool {
        matches!(
            self,
            Self::Picklist | Self::State | Self::Status | Self::MultiSelectPicklist
        )
    }

    /// The property's type in `$metadata`.
    #[must_use]
    pub fn edm(self) -> &'static str {
        match self {
            Self::String | Self::Memo | Self::EntityName | Self::MultiSelectPicklist => {
                "Edm.String"
            }
            Self::Integer | Self::Picklist | Self::State | Self::Status => "Edm.Int32",
            Self::BigInt => "Edm.Int64",
            Self::Double => "Edm.Double",
            Self::Decimal | Self::Money => "Edm.Decimal",
            Self::Boolean => "Edm.Boolean",
            Self::DateTime => "Edm.DateTimeOffset",
            Self::DateOnly => "Edm.Date",
            Self::Lookup | Self::Customer | Self::Owner | Self::Uniqueidentifier => "Edm.Guid",
        }
    }

    /// `AttributeType` and `AttributeTypeName/Value`.
    #[must_use]
    pub fn attribute_type(self) -> (&'static str, &'static str) {
        match self {
            Self::String => ("String", "StringType"),
            Self::Memo => ("Memo", "MemoType"),
            Self::Integer => ("Integer", "IntegerType"),
            Self::BigInt => ("BigInt", "BigIntType"),
            Self::Double => ("Double", "DoubleType"),
            Self::Decimal => ("Decimal", "DecimalType"),
            Self::Money => ("Money", "MoneyType"),
            Self::Boolean => ("Boolean", "BooleanType"),
            Self::Picklist => ("Picklist", "PicklistType"),
            Self::State => ("State", "StateType"),
            Self::Status => ("Status", "StatusType"),
            Self::MultiSelectPicklist => ("Virtual", "MultiSelectPicklistType"),
            Self::DateTime | Self::DateOnly => ("DateTime", "DateTimeType"),
            Self::Lookup => ("Lookup", "LookupType"),
            Self::Customer => ("Customer", "CustomerType"),
            Self::Owner => ("Owner", "OwnerType"),
            Self::Uniqueidentifier => ("Uniqueidentifier", "UniqueidentifierType"),
            Self::EntityName => ("EntityName", "EntityNameType"),
        }
    }

    /// The metadata type's name, `PicklistAttributeMetadata` and its like.
    #[must_use]
    pub fn metadata_type(self) -> &'static str {
        match self {
            Self::String => "StringAttributeMetadata",
            Self::Memo => "MemoAttributeMetadata",
            Self::Integer => "IntegerAttributeMetadata",
            Self::BigInt => "BigIntAttributeMetadata",
            Self::Double => "DoubleAttributeMetadata",
            Self::Decimal => "DecimalAttributeMetadata",
            Self::Money => "MoneyAttributeMetadata",
            Self::Boolean => "BooleanAttributeMetadata",
            Self::Picklist => "PicklistAttributeMetadata",
            Self::State => "StateAttributeMetadata",
            Self::Status => "StatusAttributeMetadata",
            Self::MultiSelectPicklist => "MultiSelectPicklistAttributeMetadata",
            Self::DateTime | Self::DateOnly => "DateTimeAttributeMetadata",
            // A Customer or Owner column is a lookup of several targets.
            Self::Lookup | Self::Customer | Self::Owner => "LookupAttributeMetadata",
            Self::Uniqueidentifier => "UniqueIdentifierAttributeMetadata",
            Self::EntityName => "EntityNameAttributeMetadata",
        }
    }
}

/// A choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    pub value: i32,
    pub label: String,
    /// The state that a status belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<i32>,
}

/// A table that a lookup may point to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub table: String,
    /// The navigation property by which the row is bound and expanded.
    pub navigation: String,
    /// The navigation property from the target back to these rows.
    pub back: String,
}

/// What the deletion of a referenced row does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDelete {
    /// The reference becomes null.
    #[default]
    RemoveLink,
    Cascade,
    Restrict,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub schema_name: String,
    pub label: String,
    pub kind: Kind,
    pub choices: Vec<Choice>,
    pub targets: Vec<Target>,
    pub max_length: u32,
    /// Digits after the point.
    pub precision: u32,
    pub required: bool,
    pub readable: bool,
    pub creatable: bool,
    pub updatable: bool,
    /// Hidden by column security: null to everyone but the platform.
    pub secured: bool,
    pub on_delete: OnDelete,
}

impl Column {
    /// The name in a row's JSON: `_x_value` for lookups.
    #[must_use]
    pub fn property(&self) -> String {
        if self.kind.is_lookup() {
            format!("_{}_value", self.name)
        } else {
            self.name.clone()
        }
    }

    /// The label of a choice.
    #[must_use]
    pub fn choice(&self, value: i64) -> Option<&Choice> {
        self.choices
            .iter()
            .find(|choice| i64::from(choice.value) == value)
    }
}

/// An alternate key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub name: String,
    pub columns: Vec<String>,
    /// Only an active key can be used.
    pub active: bool,
}

/// Who owns a table's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ownership {
    UserOwned,
    BusinessOwned,
    OrganizationOwned,
    None,
}

impl Ownership {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UserOwned => "UserOwned",
            Self::BusinessOwned => "BusinessOwned",
            Self::OrganizationOwned => "OrganizationOwned",
            Self::None => "None",
        }
    }
}

/// A table's definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub name: String,
    pub set: String,
    pub schema_name: String,
    pub label: String,
    pub primary_id: String,
    pub primary_name: String,
    pub ownership: Ownership,
    pub tracked: bool,
    pub can_be_tracked: bool,
    pub optimistic: bool,
    /// Whether CreateMultiple and its kin are there.
    pub bulk: bool,
    pub columns: Vec<Column>,
    pub keys: Vec<Key>,
    #[serde(skip)]
    places: HashMap<String, usize>,
    #[serde(skip)]
    properties: HashMap<String, usize>,
}

impl Table {
    /// A table of no columns.
    #[must_use]
    pub fn new(name: &str, set: &str) -> Self {
        Self {
            name: name.to_owned(),
            set: set.to_owned(),
            schema_name: name.to_owned(),
            label: name.to_owned(),
            primary_id: format!("{name}id"),
            primary_name: String::new(),
            ownership: Ownership::UserOwned,
            tracked: true,
            can_be_tracked: true,
            optimistic: true,
            bulk: true,
            columns: Vec::new(),
            keys: Vec::new(),
            places: HashMap::new(),
            properties: HashMap::new(),
        }
    }

    /// The name of a privilege on the table: `prv`, the verb, the schema name; some tables are called otherwise there.
    #[must_use]
    pub fn privilege(&self, verb: &str) -> String {
        let named = match self.name.as_str() {
            "businessunit" => "BusinessUnit".to_owned(),
            "systemuser" => "User".to_owned(),
            "transactioncurrency" => "TransactionCurrency".to_owned(),
            _ if self.primary_id == "activityid" => "Activity".to_owned(),
            _ if self.schema_name.contains('_') => self.schema_name.clone(),
            name => {
                let (first, rest) = name.split_at(1.min(name.len()));
                format!("{}{rest}", first.to_ascii_uppercase())
            }
        };
        format!("prv{verb}{named}")
    }

    /// Builds the look-ups by name again; to be called when columns changed.
    pub fn index(&mut self) {
        let named = |by: fn(&Column) -> String| {
            let all = self.columns.iter().enumerate();
            all.map(|(place, column)| (by(column), place)).collect()
        };
        self.places = named(|column| column.name.clone());
        self.properties = named(Column::property);
    }

    /// The place of a column by its logical name.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    /// The place of a readable column by its name in a row's JSON.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<usize> {
        let place = self.properties.get(name).copied()?;
        self.columns[place].readable.then_some(place)
    }

    /// The lookup and the target behind a navigation property.
    #[must_use]
    pub fn navigation(&self, name: &str) -> Option<(usize, &[Target])> {
        self.columns.iter().enumerate().find_map(|(place, column)| {
            // An owner's two targets share one property, a customer's have one each.
            let hit = column
                .targets
                .iter()
                .position(|target| target.navigation == name)?;
            let end = column.targets[hit..]
                .iter()
                .take_while(|target| target.navigation == name)
                .count();
            Some((place, &column.targets[hit..hit + end]))
        })
    }

    /// The place of the primary key.
    #[must_use]
    pub fn id_place(&self) -> usize {
        self.place(&self.primary_id).unwrap_or(0)
    }

    /// An active alternate key of exactly these columns.
    #[must_use]
    pub fn key(&self, columns: &[&str]) -> Option<&Key> {
        self.keys.iter().find(|key| {
            key.active
                && key.columns.len() == columns.len()
                && key
                    .columns
                    .iter()
                    .all(|column| columns.contains(&column.as_str()))
        })
    }

    /// The type's qualified name.
    #[must_use]
    pub fn type_name(&self) -> String {
        format!("Microsoft.Dynamics.CRM.{}", self.name)
    }
}
