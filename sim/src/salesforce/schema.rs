//! What the org knows of an object: fields, types, compounds, relationships.

use std::collections::HashMap;

use serde::Deserialize;

/// A field's type, by the names of a describe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    Id,
    Reference,
    String,
    Textarea,
    Phone,
    Email,
    Url,
    Picklist,
    Multipicklist,
    Combobox,
    EncryptedString,
    Boolean,
    Int,
    Long,
    Double,
    Currency,
    Percent,
    Date,
    DateTime,
    Time,
    Address,
    Location,
}

impl FieldType {
    /// The name in a describe.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Reference => "reference",
            Self::String => "string",
            Self::Textarea => "textarea",
            Self::Phone => "phone",
            Self::Email => "email",
            Self::Url => "url",
            Self::Picklist => "picklist",
            Self::Multipicklist => "multipicklist",
            Self::Combobox => "combobox",
            Self::EncryptedString => "encryptedstring",
            Self::Boolean => "boolean",
            Self::Int => "int",
            Self::Long => "long",
            Self::Double => "double",
            Self::Currency => "currency",
            Self::Percent => "percent",
            Self::Date => "date",
            Self::DateTime => "datetime",
            Self::Time => "time",
            Self::Address => "address",
            Self::Location => "location",
        }
    }

    pub(crate) fn is_number(self) -> bool {
        matches!(
            self,
            Self::Int | Self::Long | Self::Double | Self::Currency | Self::Percent
        )
    }

    pub(crate) fn is_picklist(self) -> bool {
        matches!(self, Self::Picklist | Self::Multipicklist | Self::Combobox)
    }

    pub(crate) fn is_compound(self) -> bool {
        matches!(self, Self::Address | Self::Location)
    }

    pub(crate) fn is_text(self) -> bool {
        matches!(
            self,
            Self::String
                | Self::Textarea
                | Self::Phone
                | Self::Email
                | Self::Url
                | Self::Picklist
                | Self::Multipicklist
                | Self::Combobox
                | Self::EncryptedString
        )
    }

    /// The SOAP type of a describe.
    pub(crate) fn soap(self) -> &'static str {
        match self {
            Self::Id | Self::Reference => "tns:ID",
            Self::Boolean => "xsd:boolean",
            Self::Int => "xsd:int",
            Self::Long => "xsd:long",
            Self::Double | Self::Currency | Self::Percent => "xsd:double",
            Self::Date => "xsd:date",
            Self::DateTime => "xsd:dateTime",
            Self::Time => "xsd:time",
            Self::Address => "urn:address",
            Self::Location => "urn:location",
            _ => "xsd:string",
        }
    }
}

/// A field, with the attributes of a describe that matter.
#[derive(Debug, Clone)]
pub struct Field {
    pub name: String,
    pub label: String,
    pub kind: FieldType,
    /// The longest text, in characters; 0 for other types.
    pub length: u32,
    pub precision: u32,
    pub scale: u32,
    pub nillable: bool,
    /// A formula or roll-up: changes without a stamp and without an event.
    pub calculated: bool,
    pub custom: bool,
    pub createable: bool,
    pub updateable: bool,
    pub external_id: bool,
    pub unique: bool,
    /// The objects a reference may point to.
    pub reference_to: Vec<String>,
    /// The name of the parent in a field path: `Owner` for `OwnerId`.
    pub relationship: Option<String>,
    /// A delete of the record it points to takes this one along.
    pub cascade: bool,
    /// The compound that this field is a part of.
    pub compound: Option<String>,
    /// Whether the running user may see it.
    pub visible: bool,
    /// Entries of the picklist, beside the values that records have.
    pub choices: Vec<Choice>,
}

/// An entry of a picklist.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    pub value: String,
    pub label: String,
    #[serde(default = "yes")]
    pub active: bool,
}

const fn yes() -> bool {
    true
}

impl Field {
    /// An editable field with what its name and type imply.
    pub(crate) fn new(name: &str, kind: FieldType) -> Self {
        let custom = name.ends_with("__c") || name.ends_with("__s");
        let (length, precision, scale) = match kind {
            FieldType::Id | FieldType::Reference => (18, 0, 0),
            FieldType::Textarea => (32_000, 0, 0),
            FieldType::Email => (80, 0, 0),
            FieldType::Phone => (40, 0, 0),
            FieldType::Multipicklist => (4099, 0, 0),
            _ if kind.is_text() => (255, 0, 0),
            FieldType::Double | FieldType::Currency | FieldType::Percent => (0, 18, 2),
            _ => (0, 0, 0),
        };
        Self {
            name: name.to_owned(),
            label: label(name),
            kind,
            length,
            precision,
            scale,
            nillable: kind != FieldType::Boolean,
            calculated: false,
            custom,
            createable: !kind.is_compound(),
            updateable: !kind.is_compound(),
            external_id: false,
            unique: false,
            reference_to: Vec::new(),
            relationship: (kind == FieldType::Reference).then(|| relationship(name)),
            cascade: false,
            compound: None,
            visible: true,
            choices: Vec::new(),
        }
    }

    /// A field that only the org sets.
    pub(crate) fn system(name: &str, kind: FieldType) -> Self {
        Self {
            nillable: false,
            createable: false,
            updateable: false,
            ..Self::new(name, kind)
        }
    }

    /// Whether a query may filter and sort by it: not a compound, not a long text.
    pub(crate) fn filterable(&self) -> bool {
        !(self.kind.is_compound() || self.kind == FieldType::Textarea && self.length > 255)
    }

    /// Whether change events may carry it.
    pub(crate) fn in_events(&self) -> bool {
        self.visible && self.in_schema()
    }

    /// Whether the schema of change events lists it, also where the running user may not see it.
    pub(crate) fn in_schema(&self) -> bool {
        !self.kind.is_compound()
            && !matches!(
                self.name.as_str(),
                "Id" | "IsDeleted"
                    | "SystemModstamp"
                    | "LastActivityDate"
                    | "LastViewedDate"
                    | "LastReferencedDate"
            )
    }
}

/// How a compound's parts are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompoundKind {
    Address,
    Location,
    /// A person's name: text in REST, a record in events.
    Name,
}

/// A compound field and its parts.
#[derive(Debug, Clone)]
pub struct Compound {
    pub name: String,
    pub kind: CompoundKind,
    pub parts: Vec<Part>,
}

/// One part of a compound.
#[derive(Debug, Clone)]
pub struct Part {
    /// The place of its field in the object.
    pub field: usize,
    /// Its name in events: `Street`.
    pub name: String,
}

/// An object.
#[derive(Debug, Clone)]
pub struct Object {
    pub name: String,
    pub label: String,
    pub key_prefix: String,
    pub custom: bool,
    pub fields: Vec<Field>,
    pub compounds: Vec<Compound>,
    places: HashMap<String, usize>,
    pub(crate) system: SystemFields,
}

/// Where the fields that the org sets itself lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SystemFields {
    pub id: usize,
    pub is_deleted: usize,
    pub created_date: usize,
    pub created_by: usize,
    pub modified_date: usize,
    pub modified_by: usize,
    pub stamp: usize,
}

/// Names and types of the fields that every object has.
pub(crate) const SYSTEM_FIELDS: [(&str, FieldType); 7] = [
    ("Id", FieldType::Id),
    ("IsDeleted", FieldType::Boolean),
    ("CreatedDate", FieldType::DateTime),
    ("CreatedById", FieldType::Reference),
    ("LastModifiedDate", FieldType::DateTime),
    ("LastModifiedById", FieldType::Reference),
    ("SystemModstamp", FieldType::DateTime),
];

impl Object {
    /// An object of these fields; those that every object has are added where missing.
    pub(crate) fn new(
        name: &str,
        key_prefix: &str,
        mut fields: Vec<Field>,
        compounds: Vec<Compound>,
    ) -> Self {
        for (name, kind) in SYSTEM_FIELDS {
            let mut field = Field::system(name, kind);
            if kind == FieldType::Reference {
                field.reference_to = vec!["User".to_owned()];
            }
            match fields
                .iter_mut()
                .find(|field| field.name.eq_ignore_ascii_case(name))
            {
                Some(given) => *given = field,
                None => fields.push(field),
            }
        }
        let places: HashMap<_, _> = fields
            .iter()
            .enumerate()
            .map(|(place, field)| (field.name.to_ascii_lowercase(), place))
            .collect();
        let place = |name: &str| places.get(&name.to_ascii_lowercase()).copied().unwrap_or(0);
        let system = SystemFields {
            id: place("Id"),
            is_deleted: place("IsDeleted"),
            created_date: place("CreatedDate"),
            created_by: place("CreatedById"),
            modified_date: place("LastModifiedDate"),
            modified_by: place("LastModifiedById"),
            stamp: place("SystemModstamp"),
        };
        Self {
            name: name.to_owned(),
            label: label(name),
            key_prefix: key_prefix.to_owned(),
            custom: name.ends_with("__c"),
            fields,
            compounds,
            places,
            system,
        }
    }

    /// A visible field by name, without regard to case, and its place.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<(usize, &Field)> {
        self.place(name)
            .map(|place| (place, &self.fields[place]))
            .filter(|(_, field)| field.visible)
    }

    /// A field's place, visible or not.
    pub(crate) fn place(&self, name: &str) -> Option<usize> {
        match self.places.get(name) {
            Some(place) => Some(*place),
            None => self.places.get(&name.to_ascii_lowercase()).copied(),
        }
    }

    /// The reference field behind a relationship name: `Owner` → `OwnerId`.
    pub(crate) fn relationship(&self, name: &str) -> Option<(usize, &Field)> {
        self.fields.iter().enumerate().find(|(_, field)| {
            field.visible
                && field
                    .relationship
                    .as_deref()
                    .is_some_and(|relationship| relationship.eq_ignore_ascii_case(name))
        })
    }

    /// The compound of this name.
    pub(crate) fn compound(&self, name: &str) -> Option<&Compound> {
        self.compounds.iter().find(|compound| compound.name == name)
    }

    /// The event name and topic of the object: `AccountChangeEvent`, `Employee__ChangeEvent`.
    #[must_use]
    pub fn event_name(&self) -> String {
        match self.name.strip_suffix("__c") {
            Some(stem) => format!("{stem}__ChangeEvent"),
            None => format!("{}ChangeEvent", self.name),
        }
    }

    /// Takes a field from everybody's sight. The org itself goes by it still, as its logs of changes do.
    pub(crate) fn hide(&mut self, name: &str) {
        if let Some(place) = self.place(name) {
            self.fields[place].visible = false;
        }
    }

    /// The same object with one field more, at the end.
    pub(crate) fn with_field(&self, field: Field) -> Self {
        let mut object = self.clone();
        object
            .places
            .insert(field.name.to_ascii_lowercase(), object.fields.len());
        object.fields.push(field);
        object
    }
}

fn relationship(name: &str) -> String {
    match name.strip_suffix("__c") {
        Some(stem) => format!("{stem}__r"),
        None => name.strip_suffix("Id").unwrap_or(name).to_owned(),
    }
}

/// `BillingCity` → `Billing City`, `Renewal_Date__c` → `Renewal Date`.
fn label(name: &str) -> String {
    let stem = name
        .strip_suffix("__c")
        .or_else(|| name.strip_suffix("__s"))
        .unwrap_or(name);
    let mut label = String::with_capacity(stem.len() + 4);
    let mut before = ' ';
    for c in stem.chars() {
        if c == '_' {
            if before != ' ' {
                label.push(' ');
            }
            before = ' ';
            continue;
        }
        if c.is_uppercase() && before.is_lowercase() {
            label.push(' ');
        }
        label.push(c);
        before = c;
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_objects_kind() {
        assert_eq!(label("BillingPostalCode"), "Billing Postal Code");
        assert_eq!(label("Renewal_Date__c"), "Renewal Date");
        assert_eq!(relationship("OwnerId"), "Owner");
        assert_eq!(relationship("Parent__c"), "Parent__r");
        let custom = Object::new("Employee__c", "a00", vec![], vec![]);
        assert_eq!(custom.event_name(), "Employee__ChangeEvent");
        assert!(custom.custom && custom.fields.len() == 7);
    }

    #[test]
    fn fields_are_found_without_case_and_hidden_ones_not_at_all() {
        let mut secret = Field::new("Secret__c", FieldType::String);
        secret.visible = false;
        let object = Object::new("Account", "001", vec![secret], vec![]);
        assert_eq!(
            object.field("systemmodstamp").unwrap().1.name,
            "SystemModstamp"
        );
        assert!(object.field("Secret__c").is_none());
        assert_eq!(
            object.relationship("createdby").unwrap().1.name,
            "CreatedById"
        );
    }
}
