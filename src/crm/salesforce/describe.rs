//! What Salesforce says of an object, and what follows from it for reads and events.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::crm::port::shelf::{Known, Shelf};
use crate::fault::{Fault, FaultKind};
use crate::model::name::{FieldName, ObjectName};
use crate::model::schema::{FieldKind, FieldSchema, ObjectSchema};

use super::labels::{self, Choice, Labels};
use super::prefixes::Prefixes;
use super::rest::Rest;
use super::soql;

/// An object as described.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// The schema, without fields that are being removed, and with what follows from a field: `X@type` and `X:Object` of a
    /// reference, `X@label` of a picklist.
    pub schema: ObjectSchema,
    /// The column by which changes are found: `SystemModstamp`, else `LastModifiedDate`, else `CreatedDate`.
    pub stamp: Option<FieldName>,
    /// Whether the CRM keeps logs of its updates and deletes.
    pub replicateable: bool,
    /// Components by the compound field they belong to.
    pub parts: HashMap<FieldName, Vec<FieldName>>,
    /// Labels by picklist, of values that are called otherwise.
    pub labels: BTreeMap<FieldName, Labels>,
}

/// How old a description may be of which labels are taken: nothing tells that one moved.
const YOUNG: TimeDelta = TimeDelta::minutes(10);

/// How long key prefixes are taken for true: an object keeps its own, and a new object has one more.
const PREFIXES_KEPT: Duration = Duration::from_hours(1);

/// Columns by which changes can be found, best first (SOAP API Developer Guide, "Data Replication").
const STAMPS: [&str; 3] = ["SystemModstamp", "LastModifiedDate", "CreatedDate"];

/// Fields that Salesforce derives from other records and that no change event carries.
const DERIVED: [&str; 3] = ["LastActivityDate", "LastReferencedDate", "LastViewedDate"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    name: String,
    #[serde(default)]
    label: String,
    #[serde(default)]
    replicateable: bool,
    fields: Vec<WireField>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireField {
    name: String,
    #[serde(default)]
    label: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    calculated: bool,
    #[serde(default)]
    reference_to: Vec<String>,
    relationship_name: Option<String>,
    compound_field_name: Option<String>,
    #[serde(default = "yes")]
    filterable: bool,
    #[serde(default)]
    deprecated_and_hidden: bool,
    picklist_values: Option<Vec<Choice>>,
}

#[derive(Deserialize)]
struct Global {
    sobjects: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

const fn yes() -> bool {
    true
}

impl Description {
    /// Reads a describe answer.
    ///
    /// # Errors
    /// A JSON error.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let wire: Wire = serde_json::from_slice(json)?;
        let stamp = STAMPS
            .iter()
            .find(|stamp| {
                wire.fields
                    .iter()
                    .any(|field| field.name == **stamp && field.filterable)
            })
            .map(FieldName::new);
        let mut parts: HashMap<FieldName, Vec<FieldName>> = HashMap::new();
        let (mut fields, mut labels) = (BTreeMap::new(), BTreeMap::new());
        for field in wire.fields {
            if field.deprecated_and_hidden {
                continue;
            }
            let name = FieldName::new(&field.name);
            // `Name` of a person says that it is a part of itself.
            let compound = field
                .compound_field_name
                .filter(|compound| *compound != field.name)
                .map(FieldName::new);
            if let Some(compound) = &compound {
                parts
                    .entry(compound.clone())
                    .or_default()
                    .push(name.clone());
            }
            let mut edition = None;
            if let "picklist" | "combobox" | "multipicklist" = &*field.kind {
                let own = labels::of(field.picklist_values.unwrap_or_default());
                edition = Some(labels::edition(&own));
                if !own.is_empty() {
                    labels.insert(name.clone(), own);
                }
            }
            let schema = FieldSchema {
                label: field.label,
                kind: kind_of(&field.kind),
                references: field.reference_to.iter().map(ObjectName::new).collect(),
                relationship: field.relationship_name,
                calculated: field.calculated || DERIVED.contains(&field.name.as_str()),
                compound,
                edition: None,
            };
            fields.extend(following(&name, &schema, edition));
            fields.insert(name, schema);
        }
        for whole in parts.keys() {
            if let Some(field) = fields.get_mut(whole)
                && field.kind != FieldKind::Compound
            {
                // Text that the CRM puts together from its parts (a person's `Name`): events tell the parts.
                field.calculated = true;
            }
        }
        Ok(Self {
            schema: ObjectSchema {
                name: ObjectName::new(wire.name),
                label: wire.label,
                fields,
            },
            stamp,
            replicateable: wire.replicateable,
            parts,
            labels,
        })
    }

    /// The column that moves with every change of a record, if there is one: `CreatedDate` moves with none.
    #[must_use]
    pub fn change_stamp(&self) -> Option<&FieldName> {
        let stamp = self.stamp.as_ref();
        stamp.filter(|stamp| stamp.as_str() != "CreatedDate")
    }

    /// Whether `field` is text that the CRM puts together from parts, as a person's `Name` is.
    #[must_use]
    pub fn is_composed(&self, field: &str) -> bool {
        self.parts.contains_key(field)
            && self
                .schema
                .fields
                .get(field)
                .is_some_and(|field| field.kind != FieldKind::Compound)
    }
}

/// What follows from a field; it moves when the field does.
fn following(
    name: &FieldName,
    field: &FieldSchema,
    edition: Option<String>,
) -> Vec<(FieldName, FieldSchema)> {
    let follows = |kind, references, edition| FieldSchema {
        label: String::new(),
        kind,
        references,
        relationship: None,
        calculated: field.calculated,
        compound: None,
        edition,
    };
    let mut found = Vec::new();
    if edition.is_some() {
        let label = FieldName::new(format!("{name}@label"));
        found.push((label, follows(FieldKind::Text, Vec::new(), edition)));
    }
    if field.kind == FieldKind::Reference {
        let kind = FieldName::new(format!("{name}@type"));
        found.push((kind, follows(FieldKind::Text, Vec::new(), None)));
        found.extend(field.references.iter().map(|object| {
            let of = FieldName::new(format!("{name}:{object}"));
            let to = vec![object.clone()];
            (of, follows(FieldKind::Reference, to, None))
        }));
    }
    found
}

/// The kind of a describe type (SOAP API Developer Guide, "Field Types"); an unknown type is text.
fn kind_of(name: &str) -> FieldKind {
    match name {
        "id" => FieldKind::Id,
        "reference" => FieldKind::Reference,
        "boolean" => FieldKind::Boolean,
        "int" | "long" => FieldKind::Integer,
        "double" | "currency" | "percent" => FieldKind::Decimal,
        "date" => FieldKind::Date,
        "datetime" => FieldKind::DateTime,
        "time" => FieldKind::Time,
        "picklist" | "combobox" => FieldKind::Picklist,
        "multipicklist" => FieldKind::MultiPicklist,
        "base64" => FieldKind::Binary,
        "address" | "location" => FieldKind::Compound,
        _ => FieldKind::Text,
    }
}

/// Descriptions by object, read once and again when they are old or prove stale.
pub struct Describer {
    rest: Arc<Rest>,
    known: Known<Description>,
    prefixes: Mutex<Option<(Arc<Prefixes>, Instant)>>,
}

impl Describer {
    /// Descriptions by `rest`, kept on `shelf`.
    pub fn new(rest: Arc<Rest>, shelf: Arc<Shelf>) -> Self {
        Self {
            rest,
            known: Known::new(shelf),
            prefixes: Mutex::default(),
        }
    }

    /// The description, read if none is known that can be taken for true.
    ///
    /// # Errors
    /// `Missing` for an object there is not, or that the user may not see.
    pub async fn get(&self, object: &ObjectName) -> Result<Arc<Description>, Fault> {
        self.known.get(object, self.read(object)).await
    }

    /// The description, read anew if it is older than ten minutes.
    ///
    /// # Errors
    /// As [`Describer::get`].
    pub async fn young(&self, object: &ObjectName) -> Result<Arc<Description>, Fault> {
        self.known.younger(object, YOUNG, self.read(object)).await
    }

    /// Reads the description anew; the known one stays if that fails.
    ///
    /// # Errors
    /// As [`Describer::get`].
    pub async fn fetch(&self, object: &ObjectName) -> Result<Arc<Description>, Fault> {
        self.known.renew(object, self.read(object)).await
    }

    /// Forgets what proved stale.
    pub fn forget(&self, object: &ObjectName) {
        self.known.forget(object);
    }

    /// The description if it is known, without a call.
    #[must_use]
    pub fn known(&self, object: &ObjectName) -> Option<Arc<Description>> {
        self.known.known(object)
    }

    async fn read(&self, object: &ObjectName) -> Result<Description, Fault> {
        let name = soql::identifier(object.as_str())?;
        let read = self.rest.get(&format!("/sobjects/{name}/describe/")).await;
        let answer = read.map_err(|refused| {
            let missing = refused.status == 404;
            let fault = refused.fault.context(format_args!("describing {object}"));
            if missing {
                fault.remedy(format!(
                    "check the spelling of `{object}` (API name), and that the connection's user may read it"
                ))
            } else {
                fault
            }
        })?;
        Description::parse(answer.body()).map_err(|error| {
            Fault::new(
                FaultKind::Protocol,
                format!("describing {object}: the answer can't be read"),
            )
            .source(error)
        })
    }

    /// The key prefixes of all objects that the user may see, read anew if they are older than an hour.
    ///
    /// # Errors
    /// As for any call.
    pub async fn prefixes(&self) -> Result<Arc<Prefixes>, Fault> {
        let held = || self.prefixes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = held().clone();
        if let Some((known, read_at)) = known
            && read_at.elapsed() < PREFIXES_KEPT
        {
            return Ok(known);
        }
        let read_at = Instant::now();
        let answer = self.rest.get("/sobjects/").await?;
        let read = Prefixes::parse(answer.body()).map_err(|error| {
            let what = "the key prefixes of the objects can't be read";
            Fault::new(FaultKind::Protocol, what).source(error)
        })?;
        let read = Arc::new(read);
        *held() = Some((Arc::clone(&read), read_at));
        Ok(read)
    }

    /// The names of all objects that the user may see.
    ///
    /// # Errors
    /// As for any call.
    pub async fn names(&self) -> Result<Vec<String>, Fault> {
        let answer = self.rest.get("/sobjects/").await?;
        let told: Global = serde_json::from_slice(answer.body()).map_err(|error| {
            let what = "the list of objects can't be read";
            Fault::new(FaultKind::Protocol, what).source(error)
        })?;
        Ok(told
            .sobjects
            .into_iter()
            .map(|object| object.name)
            .collect())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A described object of the given fields: name, type, and the compound field it belongs to.
    pub fn described(object: &str, fields: &[(&str, &str, Option<&str>)]) -> Description {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, kind, compound)| {
                serde_json::json!({"name": name, "label": name, "type": kind, "compoundFieldName": compound})
            })
            .collect();
        let json = serde_json::json!({
            "name": object, "label": object, "replicateable": true, "fields": fields
        });
        Description::parse(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn what_follows_from_a_field_is_described_with_it() {
        let json = serde_json::json!({"name": "Case", "label": "Case", "fields": [
            {"name": "OwnerId", "type": "reference", "referenceTo": ["Group", "User"], "relationshipName": "Owner"},
            {"name": "Status", "type": "picklist", "picklistValues": [
                {"value": "New", "label": "Neu", "active": true}, {"value": "Odd", "label": "Odd", "active": true}]},
            {"name": "Kind__c", "type": "picklist", "calculated": true, "picklistValues": null},
            {"name": "Subject", "type": "string", "picklistValues": []},
        ]});
        let parse = |json: &serde_json::Value| Description::parse(json.to_string().as_bytes());
        let description = parse(&json).unwrap();
        let fields = &description.schema.fields;
        let names: Vec<&str> = fields.keys().map(FieldName::as_str).collect();
        assert_eq!(
            names,
            [
                "Kind__c",
                "Kind__c@label",
                "OwnerId",
                "OwnerId:Group",
                "OwnerId:User",
                "OwnerId@type",
                "Status",
                "Status@label",
                "Subject"
            ]
        );
        let user = &fields["OwnerId:User"];
        assert_eq!(user.kind, FieldKind::Reference);
        assert_eq!(user.references, ["User".into()]);
        assert_eq!(user.relationship, None, "it is followed by itself");
        assert!(fields["Kind__c@label"].calculated);
        assert!(!fields["Status@label"].calculated);
        assert_eq!(
            description.labels["Status"].len(),
            1,
            "what is called as it is"
        );
        let mut relabelled = json.clone();
        relabelled["fields"][1]["picklistValues"][1]["label"] = "Selten".into();
        let relabelled = parse(&relabelled).unwrap();
        let edition = |of: &Description| of.schema.fields["Status@label"].edition.clone();
        assert!(edition(&description).is_some());
        assert_ne!(edition(&description), edition(&relabelled));
        let stored = serde_json::to_string(&description).unwrap();
        assert_eq!(
            serde_json::from_str::<Description>(&stored).unwrap(),
            description
        );
    }

    #[test]
    fn kinds_follow_the_describe_types() {
        let description = described(
            "Thing__c",
            &[
                ("Id", "id", None),
                ("OwnerId", "reference", None),
                ("Amount__c", "currency", None),
                ("Count__c", "int", None),
                ("Tags__c", "multipicklist", None),
                ("Body", "base64", None),
                ("BillingAddress", "address", None),
                ("Odd__c", "junctionidlist", None),
            ],
        );
        let own = description.schema.fields.iter();
        let own = own.filter(|(name, _)| !name.as_str().contains('@'));
        let kinds: Vec<_> = own.map(|(_, field)| field.kind).collect();
        assert_eq!(
            kinds,
            [
                FieldKind::Decimal,
                FieldKind::Compound,
                FieldKind::Binary,
                FieldKind::Integer,
                FieldKind::Id,
                FieldKind::Text,
                FieldKind::Reference,
                FieldKind::MultiPicklist,
            ]
        );
    }

    #[test]
    fn the_best_stamp_is_taken() {
        let stamp = |fields: &[&str]| {
            let fields: Vec<_> = fields.iter().map(|f| (*f, "datetime", None)).collect();
            described("X", &fields).stamp.map(|s| s.as_str().to_owned())
        };
        assert_eq!(
            stamp(&["CreatedDate", "LastModifiedDate", "SystemModstamp"]).as_deref(),
            Some("SystemModstamp")
        );
        assert_eq!(
            stamp(&["CreatedDate", "LastModifiedDate"]).as_deref(),
            Some("LastModifiedDate")
        );
        assert_eq!(stamp(&["CreatedDate"]).as_deref(), Some("CreatedDate"));
        assert_eq!(stamp(&["Other__c"]), None);
    }

    #[test]
    fn a_persons_name_is_put_together_by_the_crm() {
        let person = described(
            "Contact",
            &[
                ("Name", "string", Some("Name")),
                ("FirstName", "string", Some("Name")),
                ("LastName", "string", Some("Name")),
                ("MailingAddress", "address", None),
                ("MailingCity", "string", Some("MailingAddress")),
            ],
        );
        assert!(person.schema.fields["Name"].calculated);
        assert_eq!(person.schema.fields["Name"].compound, None);
        assert!(person.is_composed("Name"));
        assert!(!person.is_composed("MailingAddress"));
        let company = described("Account", &[("Name", "string", None)]);
        assert!(!company.schema.fields["Name"].calculated);
        assert!(!company.is_composed("Name"));
    }
}
