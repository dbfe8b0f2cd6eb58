//! The Avro schema of an object's change events, built from its description.
//!
//! Sources: Change Data Capture Developer Guide, "Change Event Header Fields"; Apache Avro, "Parsing Canonical Form for
//! Schemas". The schema id is the MD5 of the canonical form in base64url without padding: it depends on names, types
//! and order only, so the same description has the same id for ever.

use std::collections::HashMap;
use std::fmt::Write;

use apache_avro::Schema;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use md5::Md5;

use super::super::schema::{Compound, CompoundKind, Field, FieldType, Object};

const HEADER: &str = concat!(
    r#"{"type":"record","name":"ChangeEventHeader","fields":[{"name":"entityName","type":"string"},"#,
    r#"{"name":"recordIds","type":{"type":"array","items":"string"}},"#,
    r#"{"name":"changeType","type":{"type":"enum","name":"ChangeType","symbols":["CREATE","UPDATE","DELETE","#,
    r#""UNDELETE","GAP_CREATE","GAP_UPDATE","GAP_DELETE","GAP_UNDELETE","GAP_OVERFLOW","SNAPSHOT"]}},"#,
    r#"{"name":"changeOrigin","type":"string"},{"name":"transactionKey","type":"string"},"#,
    r#"{"name":"sequenceNumber","type":"int"},{"name":"commitTimestamp","type":"long"},"#,
    r#"{"name":"commitNumber","type":"long"},{"name":"commitUser","type":"string"},"#,
    r#"{"name":"nulledFields","type":{"type":"array","items":"string"}},"#,
    r#"{"name":"diffFields","type":{"type":"array","items":"string"}},"#,
    r#"{"name":"changedFields","type":{"type":"array","items":"string"}}]}"#,
);

/// What an event's payload is written by.
#[derive(Debug)]
pub(crate) struct EventSchema {
    pub id: String,
    pub json: String,
    pub avro: Schema,
    /// In the schema's order, behind the header: field *i* here is bit *i* + 1.
    pub fields: Vec<EventField>,
    places: HashMap<String, usize>,
}

/// A field of an event.
#[derive(Debug)]
pub(crate) struct EventField {
    pub name: String,
    pub shape: Shape,
}

/// A field's place in the record.
#[derive(Debug)]
pub(crate) enum Shape {
    Plain(FieldType),
    Compound {
        parts: Vec<(&'static str, FieldType)>,
        /// Text may stand in the record's place: the name of a business account.
        or_text: bool,
    },
}

impl EventSchema {
    /// The schema of an object's events; an error tells of a name that Avro does not allow.
    pub fn of(object: &Object) -> Result<Self, Box<apache_avro::Error>> {
        let mut writer = SchemaWriter::new(object);
        // Custom fields follow the standard ones, and new fields their like: none moves another's bit but by its place.
        for custom in [false, true] {
            for field in object.fields.iter().filter(|field| field.custom == custom) {
                if field.in_schema() {
                    writer.field(field);
                }
            }
        }
        let (json, fields) = writer.finish();
        let avro = Schema::parse_str(&json).map_err(Box::new)?;
        let id = URL_SAFE_NO_PAD.encode(avro.fingerprint::<Md5>().bytes);
        let places = fields
            .iter()
            .enumerate()
            .map(|(place, field)| (field.name.clone(), place))
            .collect();
        Ok(Self {
            id,
            json,
            avro,
            fields,
            places,
        })
    }

    /// The bits of `Industry` or `BillingAddress.Street`: of the field, and of the part within it.
    pub fn bits(&self, name: &str) -> Option<(usize, Option<usize>)> {
        let (field, part) = match name.split_once('.') {
            Some((field, part)) => (field, Some(part)),
            None => (name, None),
        };
        let place = *self.places.get(field)?;
        let Some(part) = part else {
            return Some((place + 1, None));
        };
        match &self.fields.get(place)?.shape {
            Shape::Compound { parts, .. } => {
                let part = parts.iter().position(|(name, _)| *name == part)?;
                Some((place + 1, Some(part)))
            }
            Shape::Plain(_) => None,
        }
    }
}

/// The schema's text as it grows.
struct SchemaWriter<'a> {
    object: &'a Object,
    json: String,
    fields: Vec<EventField>,
    /// Records that are defined, and are named only from then on.
    defined: Vec<&'static str>,
    /// Whether addresses have codes beside their states and countries.
    codes: bool,
}

impl<'a> SchemaWriter<'a> {
    fn new(object: &'a Object) -> Self {
        let codes = object
            .compounds
            .iter()
            .flat_map(|compound| &compound.parts)
            .any(|part| part.name == "StateCode" || part.name == "CountryCode");
        let name = object.event_name();
        let json = format!(
            "{{\"type\":\"record\",\"name\":\"{name}\",\"namespace\":\"com.sforce.eventbus\",\"fields\":[\
             {{\"name\":\"ChangeEventHeader\",\"type\":{HEADER},\"doc\":\"Data:ComplexValueType\"}}"
        );
        Self {
            object,
            json,
            fields: Vec::with_capacity(object.fields.len()),
            defined: Vec::new(),
            codes,
        }
    }

    fn finish(mut self) -> (String, Vec<EventField>) {
        self.json.push_str("]}");
        (self.json, self.fields)
    }

    fn field(&mut self, field: &Field) {
        let name = match &field.compound {
            Some(compound) => compound,
            None => &field.name,
        };
        if self.fields.iter().any(|known| known.name == *name) {
            return;
        }
        let name = name.clone();
        match self.object.compound(&name) {
            Some(compound) => self.compound(name, compound),
            None => {
                self.write(&name, &format!("\"{}\"", plain(field.kind)), &doc(field));
                self.fields.push(EventField {
                    name,
                    shape: Shape::Plain(field.kind),
                });
            }
        }
    }

    fn compound(&mut self, name: String, compound: &Compound) {
        let or_text = compound.kind == CompoundKind::Name && self.object.name == "Account";
        let record = match compound.kind {
            CompoundKind::Address => "Address",
            CompoundKind::Location => "Location",
            CompoundKind::Name if or_text => "Switchable_PersonName",
            CompoundKind::Name => "PersonName",
        };
        let parts = parts(compound, self.codes);
        let mut kind = String::new();
        if or_text {
            kind.push_str("\"string\",");
        }
        if self.defined.contains(&record) {
            kind.push_str(&format!("\"{record}\""));
        } else {
            kind.push_str(&format!(
                "{{\"type\":\"record\",\"name\":\"{record}\",\"fields\":["
            ));
            for (place, (part, of)) in parts.iter().enumerate() {
                let comma = if place == 0 { "" } else { "," };
                kind.push_str(&format!(
                    "{comma}{{\"name\":\"{part}\",\"type\":[\"null\",\"{}\"],\"default\":null}}",
                    plain(*of)
                ));
            }
            kind.push_str("]}");
            self.defined.push(record);
        }
        let mut doc = format!("Data:{record}");
        custom_id(&name, &mut doc);
        self.write(&name, &kind, &doc);
        self.fields.push(EventField {
            name,
            shape: Shape::Compound { parts, or_text },
        });
    }

    fn write(&mut self, name: &str, kind: &str, doc: &str) {
        self.json.push_str(&format!(
            ",{{\"name\":\"{name}\",\"type\":[\"null\",{kind}],\"doc\":\"{doc}\",\"default\":null}}"
        ));
    }
}

/// Every part that the record has, whether or not this object's compound does; one definition serves all of a kind.
fn parts(compound: &Compound, codes: bool) -> Vec<(&'static str, FieldType)> {
    const TEXT: FieldType = FieldType::String;
    const NUMBER: FieldType = FieldType::Double;
    match compound.kind {
        CompoundKind::Location => vec![("Latitude", NUMBER), ("Longitude", NUMBER)],
        CompoundKind::Address => {
            let mut parts = vec![
                ("Street", TEXT),
                ("City", TEXT),
                ("State", TEXT),
                ("PostalCode", TEXT),
                ("Country", TEXT),
            ];
            if codes {
                parts.extend([("StateCode", TEXT), ("CountryCode", TEXT)]);
            }
            parts.extend([
                ("Latitude", NUMBER),
                ("Longitude", NUMBER),
                ("GeocodeAccuracy", TEXT),
            ]);
            parts
        }
        CompoundKind::Name => {
            let mut parts = vec![
                ("Salutation", TEXT),
                ("FirstName", TEXT),
                ("LastName", TEXT),
            ];
            for optional in ["MiddleName", "Suffix"] {
                if compound.parts.iter().any(|part| part.name == optional) {
                    parts.push((optional, TEXT));
                }
            }
            parts
        }
    }
}

fn plain(kind: FieldType) -> &'static str {
    match kind {
        FieldType::Boolean => "boolean",
        FieldType::Int => "int",
        FieldType::Double | FieldType::Currency | FieldType::Percent => "double",
        FieldType::Long | FieldType::Date | FieldType::DateTime | FieldType::Time => "long",
        _ => "string",
    }
}

/// The one hint at what a value means.
fn doc(field: &Field) -> String {
    let kind = match field.kind {
        FieldType::Id | FieldType::Reference => return "ForeignKey:EntityId".to_owned(),
        FieldType::DateTime if field.name == "CreatedDate" => {
            return "CreatedDate:DateTime".to_owned();
        }
        FieldType::Textarea if field.length > 255 => "StringPlusClob",
        FieldType::Textarea => "MultiLineText",
        FieldType::Phone => "Phone",
        FieldType::Email => "Email",
        FieldType::Url => "Url",
        FieldType::Picklist => "DynamicEnum",
        FieldType::Multipicklist => "MultiEnum",
        FieldType::EncryptedString => "EncryptedText",
        FieldType::Boolean => "Boolean",
        FieldType::Int | FieldType::Long => "Integer",
        FieldType::Double => "Double",
        FieldType::Currency => "Currency",
        FieldType::Percent => "Percent",
        FieldType::Date => "DateOnly",
        FieldType::DateTime => "DateTime",
        FieldType::Time => "TimeOnly",
        FieldType::Address => "Address",
        FieldType::Location => "Location",
        FieldType::String | FieldType::Combobox => "Text",
    };
    let mut doc = format!("Data:{kind}");
    custom_id(&field.name, &mut doc);
    doc
}

/// A custom field's 15-character id, made of its name.
fn custom_id(name: &str, doc: &mut String) {
    if !name.ends_with("__c") {
        return;
    }
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let id = super::super::ids::nth("00N", hash % 62_u64.pow(9));
    // Writing to a string can't fail.
    if write!(doc, ":{}", &id[..15]).is_err() {
        doc.push(':');
    }
}
