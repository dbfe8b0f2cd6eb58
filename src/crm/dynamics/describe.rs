//! What Dataverse says of a table: its set, its key, its columns; never guessed from names.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::crm::port::shelf::{Known, Shelf};
use crate::fault::{Fault, FaultKind};
use crate::http::answer::Answer;
use crate::model::name::{FieldName, ObjectName};
use crate::model::schema::{FieldKind, FieldSchema, ObjectSchema};

use super::labels::{Choice, Labels};
use super::rest::{Refused, Rest};

/// A table as described.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// The schema: columns by logical name, `Id` for the key whatever it is called, and what follows from a column:
    /// `x@type` and `x:table` of a look-up, `x@label` of a choice.
    pub schema: ObjectSchema,
    /// The entity set: the table's name in addresses.
    pub set: String,
    /// The key's column.
    pub key: String,
    /// Whether the table tells its changes.
    pub tracked: bool,
    /// Columns that hold ids which are no look-ups.
    pub guids: BTreeSet<String>,
    /// Columns of choices.
    pub choices: BTreeMap<String, Choice>,
}

/// The key under the name that all CRMs share.
pub const ID: &str = "Id";
/// When a row was last changed.
pub const MODIFIED: &str = "modifiedon";
/// A row's place in its order.
pub const VERSION: &str = "versionnumber";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wire {
    logical_name: String,
    entity_set_name: Option<String>,
    primary_id_attribute: Option<String>,
    #[serde(default)]
    change_tracking_enabled: Option<bool>,
    display_name: Option<Label>,
    #[serde(default)]
    attributes: Vec<WireColumn>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireColumn {
    logical_name: String,
    attribute_type: Option<String>,
    attribute_type_name: Option<TypeName>,
    attribute_of: Option<String>,
    is_valid_for_read: Option<bool>,
    display_name: Option<Label>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TypeName {
    value: Option<String>,
}

/// A text in the languages of the environment.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Label {
    user_localized_label: Option<Localized>,
    #[serde(default)]
    localized_labels: Vec<Localized>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Localized {
    label: Option<String>,
    language_code: Option<u32>,
}

#[derive(Deserialize)]
struct Targets {
    value: Vec<WireTargets>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireTargets {
    logical_name: String,
    #[serde(default)]
    targets: Vec<String>,
}

impl Label {
    /// The text in `language`, else in the user's own.
    pub(super) fn text(&self, language: u32) -> Option<&str> {
        let wanted = self
            .localized_labels
            .iter()
            .find(|label| label.language_code == Some(language));
        wanted
            .or(self.user_localized_label.as_ref())
            .and_then(|label| label.label.as_deref())
    }
}

impl Description {
    fn of(wire: Wire, targets: HashMap<String, Vec<String>>, language: u32) -> Option<Self> {
        let label = |label: &Option<Label>, name: &str| {
            let text = label.as_ref().and_then(|label| label.text(language));
            text.unwrap_or(name).to_owned()
        };
        let (set, key) = (wire.entity_set_name?, wire.primary_id_attribute?);
        if set.is_empty() || key.is_empty() {
            return None;
        }
        let mut fields = BTreeMap::new();
        let (mut guids, mut choices) = (BTreeSet::new(), BTreeMap::new());
        for column in &wire.attributes {
            // What belongs to another column (a look-up's name) can't be selected.
            if column.is_valid_for_read == Some(false) || column.attribute_of.is_some() {
                continue;
            }
            let Some(kind) = kind_of(column) else {
                continue;
            };
            let references = targets.get(&column.logical_name);
            let schema = FieldSchema {
                label: label(&column.display_name, &column.logical_name),
                kind,
                references: references
                    .into_iter()
                    .flatten()
                    .map(ObjectName::new)
                    .collect(),
                relationship: None,
                calculated: false,
                compound: None,
                edition: None,
            };
            let name = &column.logical_name;
            if column.attribute_type.as_deref() == Some("Uniqueidentifier") {
                guids.insert(name.clone());
            }
            if let Some(choice) = choice_of(column) {
                choices.insert(name.clone(), choice);
                fields.insert(
                    FieldName::new(format!("{name}@label")),
                    follows(FieldKind::Text),
                );
            }
            if kind == FieldKind::Reference {
                fields.insert(
                    FieldName::new(format!("{name}@type")),
                    follows(FieldKind::Text),
                );
                for target in &schema.references {
                    let of = FieldSchema {
                        references: vec![target.clone()],
                        ..follows(FieldKind::Reference)
                    };
                    fields.insert(FieldName::new(format!("{name}:{target}")), of);
                }
            }
            fields.insert(FieldName::new(name), schema);
        }
        fields.insert(FieldName::new(ID), follows(FieldKind::Id));
        Some(Self {
            schema: ObjectSchema {
                label: label(&wire.display_name, &wire.logical_name),
                name: ObjectName::new(wire.logical_name),
                fields,
            },
            set,
            key,
            tracked: wire.change_tracking_enabled == Some(true),
            guids,
            choices,
        })
    }

    /// Whether the table has a column.
    #[must_use]
    pub fn has(&self, column: &str) -> bool {
        self.schema.fields.contains_key(column)
    }
}

/// A field that follows from a column.
const fn follows(kind: FieldKind) -> FieldSchema {
    FieldSchema {
        label: String::new(),
        kind,
        references: Vec::new(),
        relationship: None,
        calculated: false,
        compound: None,
        edition: None,
    }
}

fn choice_of(column: &WireColumn) -> Option<Choice> {
    match column.attribute_type.as_deref()? {
        "Picklist" => Some(Choice::Picklist),
        "State" => Some(Choice::State),
        "Status" => Some(Choice::Status),
        "Boolean" => Some(Choice::Boolean),
        "Virtual" => Some(Choice::Several),
        _ => None,
    }
}

/// The kind of a column's type (Web API reference, "AttributeTypeCode"); `None` for what no row tells.
fn kind_of(column: &WireColumn) -> Option<FieldKind> {
    let kind = match column.attribute_type.as_deref()? {
        "Boolean" => FieldKind::Boolean,
        "Customer" | "Lookup" | "Owner" => FieldKind::Reference,
        "DateTime" => FieldKind::DateTime,
        "Decimal" | "Double" | "Money" => FieldKind::Decimal,
        "Integer" | "BigInt" => FieldKind::Integer,
        "Memo" | "String" | "Uniqueidentifier" => FieldKind::Text,
        "Picklist" | "State" | "Status" => FieldKind::Picklist,
        // Choices are a kind of virtual column; images and files are the others.
        "Virtual" => {
            let name = column.attribute_type_name.as_ref()?.value.as_deref()?;
            (name == "MultiSelectPicklistType").then_some(FieldKind::MultiPicklist)?
        }
        _ => return None,
    };
    Some(kind)
}

/// Descriptions by table, read once and again when they are old or prove stale.
pub struct Describer {
    rest: Arc<Rest>,
    known: Known<Description>,
    labels: Mutex<KnownLabels>,
}

/// Labels by table and columns, with when they were read.
type KnownLabels = HashMap<(ObjectName, Vec<String>), (Arc<Labels>, Instant)>;

/// How old labels may be.
const FRESH: Duration = Duration::from_mins(10);

impl Describer {
    /// Descriptions by `rest`, kept on `shelf`.
    pub fn new(rest: Arc<Rest>, shelf: Arc<Shelf>) -> Self {
        Self {
            rest,
            known: Known::new(shelf),
            labels: Mutex::default(),
        }
    }

    /// The labels of some choices of a table, read anew if they are older than ten minutes.
    ///
    /// # Errors
    /// The fault of a call.
    pub async fn labels(
        &self,
        table: &Description,
        columns: Vec<String>,
    ) -> Result<Arc<Labels>, Fault> {
        let key = (table.schema.name.clone(), columns);
        let known = self.labels_held().get(&key).cloned();
        if let Some((known, read_at)) = known
            && read_at.elapsed() < FRESH
        {
            return Ok(known);
        }
        let read = Labels::read(&self.rest, table, &key.1).await;
        let labels = read
            .map_err(|fault| fault.context(format_args!("reading labels of {}", key.0)))
            .map(Arc::new)?;
        self.labels_held()
            .insert(key, (Arc::clone(&labels), Instant::now()));
        Ok(labels)
    }

    /// The description, read if none is known that can be taken for true.
    ///
    /// # Errors
    /// `Missing` for a table there is not, or that the user may not see.
    pub async fn get(&self, table: &ObjectName) -> Result<Arc<Description>, Fault> {
        let described = self.known.get(table, self.read(table)).await;
        described.map_err(|fault| fault.context(format_args!("describing {table}")))
    }

    /// Reads the description anew; the known one stays if that fails.
    ///
    /// # Errors
    /// As [`Describer::get`].
    pub async fn fetch(&self, table: &ObjectName) -> Result<Arc<Description>, Fault> {
        let described = self.known.renew(table, self.read(table)).await;
        described.map_err(|fault| fault.context(format_args!("describing {table}")))
    }

    /// Forgets what proved stale.
    pub fn forget(&self, table: &ObjectName) {
        self.known.forget(table);
    }

    async fn read(&self, table: &ObjectName) -> Result<Description, Fault> {
        let name = logical_name(table.as_str())?;
        let entity = format!("/EntityDefinitions(LogicalName='{name}')");
        let answer = self.definition(&entity).await.map_err(|refused| {
            if refused.status == 404 {
                return Fault::new(FaultKind::Missing, format!("there is no table `{name}`")).remedy(
                    "write the table's logical name (`account`, not `accounts` or `Account`), and check that its app \
                     is installed",
                );
            }
            refused.fault
        })?;
        let unreadable =
            |error| Fault::new(FaultKind::Protocol, "the answer can't be read").source(error);
        let wire: Wire = serde_json::from_slice(answer.body()).map_err(unreadable)?;
        let path = format!(
            "{entity}/Attributes/Microsoft.Dynamics.CRM.LookupAttributeMetadata?$select=LogicalName,Targets"
        );
        let answer = self.rest.get(&path, None).await?;
        let targets: Targets = serde_json::from_slice(answer.body()).map_err(unreadable)?;
        let targets = targets
            .value
            .into_iter()
            .map(|column| (column.logical_name, column.targets))
            .collect();
        Description::of(wire, targets, self.rest.settings().language).ok_or_else(|| {
            let what = format!("table `{name}` has no entity set or no key");
            Fault::new(FaultKind::Missing, what)
        })
    }

    /// The table's definition. `AttributeOf` tells which columns belong to others and can't be selected; where the
    /// metadata does not know it, such columns are not told as columns.
    async fn definition(&self, entity: &str) -> Result<Answer, Refused> {
        let path = |more: &str| {
            format!(
                "{entity}?$select=LogicalName,EntitySetName,PrimaryIdAttribute,ChangeTrackingEnabled,DisplayName\
                 &$expand=Attributes($select=LogicalName,AttributeType,AttributeTypeName,IsValidForRead,DisplayName{more})"
            )
        };
        match self.rest.get(&path(",AttributeOf"), None).await {
            Err(refused) if refused.status == 400 => self.rest.get(&path(""), None).await,
            answer => answer,
        }
    }

    fn labels_held(&self) -> MutexGuard<'_, KnownLabels> {
        self.labels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A table's or column's name that may stand in an address.
///
/// # Errors
/// `Missing` for what is no logical name.
pub fn logical_name(name: &str) -> Result<&str, Fault> {
    let good = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if good {
        return Ok(name);
    }
    Err(
        Fault::new(FaultKind::Missing, format!("`{name}` is no logical name"))
            .remedy("logical names are lower case: `account`, `new_plan`, `parentcustomerid`"),
    )
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A table of the given columns: name and type. A customer is an account or a contact.
    pub fn described(table: &str, columns: &[(&str, &str)]) -> Description {
        let attributes: Vec<_> = columns
            .iter()
            .map(|(name, kind)| json!({"LogicalName": name, "AttributeType": kind}))
            .collect();
        let wire = json!({
            "LogicalName": table, "EntitySetName": format!("{table}s"), "PrimaryIdAttribute": columns[0].0,
            "ChangeTrackingEnabled": true, "Attributes": attributes
        });
        let customers = columns.iter().filter(|(_, kind)| *kind == "Customer");
        let targets = customers
            .map(|(name, _)| {
                (
                    (*name).to_owned(),
                    vec!["account".to_owned(), "contact".to_owned()],
                )
            })
            .collect();
        Description::of(serde_json::from_value(wire).unwrap(), targets, 1033).unwrap()
    }

    #[test]
    fn kinds_follow_the_column_types() {
        let wire = json!({
            "LogicalName": "task", "EntitySetName": "tasks", "PrimaryIdAttribute": "activityid",
            "ChangeTrackingEnabled": false, "DisplayName": {
                "UserLocalizedLabel": {"Label": "Task", "LanguageCode": 1033},
                "LocalizedLabels": [{"Label": "Aufgabe", "LanguageCode": 1031}]},
            "Attributes": [
                {"LogicalName": "activityid", "AttributeType": "Uniqueidentifier"},
                {"LogicalName": "ownerid", "AttributeType": "Owner"},
                {"LogicalName": "owneridname", "AttributeType": "String", "AttributeOf": "ownerid"},
                {"LogicalName": "owneridtype", "AttributeType": "EntityName"},
                {"LogicalName": "cost", "AttributeType": "Money"},
                {"LogicalName": "done", "AttributeType": "Boolean"},
                {"LogicalName": "hidden", "AttributeType": "String", "IsValidForRead": false},
                {"LogicalName": "tags", "AttributeType": "Virtual",
                 "AttributeTypeName": {"Value": "MultiSelectPicklistType"}},
                {"LogicalName": "photo", "AttributeType": "Virtual", "AttributeTypeName": {"Value": "ImageType"}},
                {"LogicalName": "statecode", "AttributeType": "State"},
                {"LogicalName": "versionnumber", "AttributeType": "BigInt"}
            ]
        });
        let targets = HashMap::from([(
            "ownerid".to_owned(),
            vec!["systemuser".to_owned(), "team".to_owned()],
        )]);
        let wire: Wire = serde_json::from_value(wire).unwrap();
        let description = Description::of(wire, targets, 1031).unwrap();
        assert_eq!(
            (&*description.set, &*description.key),
            ("tasks", "activityid")
        );
        assert_eq!(description.schema.label, "Aufgabe");
        assert!(!description.tracked);
        let kinds: Vec<_> = description
            .schema
            .fields
            .iter()
            .map(|(name, field)| (name.as_str(), field.kind))
            .collect();
        assert_eq!(
            kinds,
            [
                ("Id", FieldKind::Id),
                ("activityid", FieldKind::Text),
                ("cost", FieldKind::Decimal),
                ("done", FieldKind::Boolean),
                ("done@label", FieldKind::Text),
                ("ownerid", FieldKind::Reference),
                ("ownerid:systemuser", FieldKind::Reference),
                ("ownerid:team", FieldKind::Reference),
                ("ownerid@type", FieldKind::Text),
                ("statecode", FieldKind::Picklist),
                ("statecode@label", FieldKind::Text),
                ("tags", FieldKind::MultiPicklist),
                ("tags@label", FieldKind::Text),
                ("versionnumber", FieldKind::Integer),
            ]
        );
        assert_eq!(description.schema.fields["ownerid"].references.len(), 2);
        assert_eq!(description.choices["tags"], Choice::Several);
        assert!(description.guids.contains("activityid"));
    }

    #[test]
    fn names_may_stand_in_addresses() {
        for name in ["account", "new_plan", "address1_city"] {
            assert_eq!(logical_name(name).unwrap(), name);
        }
        for name in ["", "Account", "_x_value", "a'b", "a b", "a/b", "größe"] {
            assert!(logical_name(name).is_err(), "{name}");
        }
    }
}
