//! Builds an object from its columns: references, and the compounds that its field names spell.
//!
//! Rules (Object Reference, "Compound Fields"): `BillingCity` is a part of `BillingAddress`, `City` of `Address`,
//! `Geo__Latitude__s` of `Geo__c`, `LastName` of `Name`.

use super::super::schema::{Compound, CompoundKind, Field, FieldType, Object, Part};
use super::infer::Column;
use super::{Prefixes, Source, prefixes};

const ADDRESS_PARTS: [&str; 10] = [
    "Street",
    "City",
    "State",
    "PostalCode",
    "Country",
    "StateCode",
    "CountryCode",
    "Latitude",
    "Longitude",
    "GeocodeAccuracy",
];
const ADDRESSES: [&str; 7] = [
    "Billing",
    "Shipping",
    "Mailing",
    "Other",
    "PersonMailing",
    "PersonOther",
    "Permanent",
];
const NAME_PARTS: [&str; 5] = [
    "Salutation",
    "FirstName",
    "MiddleName",
    "LastName",
    "Suffix",
];

pub(super) fn object(source: &Source, prefixes: &Prefixes) -> Object {
    let prefix = prefixes
        .iter()
        .find(|(_, object)| **object == source.name)
        .map_or("a00", |(prefix, _)| prefix.as_str());
    let mut fields: Vec<_> = source
        .columns
        .iter()
        .map(|column| field(column, source, prefixes))
        .collect();
    for (name, note) in &source.sidecar.fields {
        if !fields.iter().any(|field| field.name == *name) {
            let mut field = Field::new(name, note.kind.unwrap_or(FieldType::String));
            note.apply(&mut field);
            fields.push(field);
        }
    }
    let compounds = compounds(&source.name, &mut fields);
    let mut object = Object::new(&source.name, prefix, fields, compounds);
    if let Some(label) = &source.sidecar.label {
        object.label.clone_from(label);
    }
    for stamp in &source.sidecar.without {
        object.hide(stamp.name());
    }
    object
}

fn field(column: &Column, source: &Source, prefixes: &Prefixes) -> Field {
    let note = source.sidecar.fields.get(&column.name);
    let kind = note
        .and_then(|note| note.kind)
        .unwrap_or_else(|| column.kind());
    let mut field = Field::new(&column.name, kind);
    if kind == FieldType::Textarea && column.name.ends_with("Street") {
        field.length = 255;
    }
    if kind.is_text() && column.longest > field.length as usize {
        field.length = column.length();
    }
    if kind == FieldType::Reference {
        field.reference_to = targets(column, prefixes);
    }
    let identifying = matches!(column.name.as_str(), "Name" | "LastName");
    field.nillable &= !identifying || column.gaps;
    if let Some(note) = note {
        note.apply(&mut field);
    }
    field
}

/// The objects that a reference's values point to; without values, the object that its name is made of.
fn targets(column: &Column, prefixes: &Prefixes) -> Vec<String> {
    let known = |prefix: &String| {
        prefixes
            .get(prefix)
            .map(String::as_str)
            .or_else(|| prefixes::standard_object(prefix))
            .map(str::to_owned)
    };
    let mut targets: Vec<_> = column.prefixes.iter().filter_map(known).collect();
    if targets.is_empty() {
        targets.push(match column.name.as_str() {
            "OwnerId" | "CreatedById" | "LastModifiedById" | "ManagerId" => "User".to_owned(),
            "ReportsToId" => "Contact".to_owned(),
            name => name
                .strip_suffix("Id")
                .filter(|stem| prefixes.values().any(|object| object == stem))
                .unwrap_or("Account")
                .to_owned(),
        });
    }
    targets
}

fn compounds(object: &str, fields: &mut Vec<Field>) -> Vec<Compound> {
    let mut compounds = Vec::new();
    if !object.ends_with("__c") {
        for prefix in ADDRESSES {
            let parts = parts(fields, |name| {
                ADDRESS_PARTS
                    .into_iter()
                    .find(|part| name.strip_prefix(prefix) == Some(*part))
            });
            add(
                fields,
                &mut compounds,
                format!("{prefix}Address"),
                CompoundKind::Address,
                parts,
            );
        }
        let plain = parts(fields, |name| {
            ADDRESS_PARTS.into_iter().find(|part| name == *part)
        });
        let has = |part: &str| plain.iter().any(|found| found.name == part);
        if matches!(object, "User" | "Lead") || has("Street") || has("City") {
            add(
                fields,
                &mut compounds,
                "Address".to_owned(),
                CompoundKind::Address,
                plain,
            );
        }
        let name = parts(fields, |name| {
            NAME_PARTS.into_iter().find(|part| name == *part)
        });
        if name.iter().any(|part| part.name == "LastName") {
            add_name(object, fields, &mut compounds, name);
        }
    }
    for stem in custom_stems(fields) {
        let parts = parts(fields, |name| {
            let part = name
                .strip_prefix(&stem)?
                .strip_prefix("__")?
                .strip_suffix("__s")?;
            ADDRESS_PARTS.into_iter().find(|known| *known == part)
        });
        let kind = if parts
            .iter()
            .any(|part| part.name == "Street" || part.name == "City")
        {
            CompoundKind::Address
        } else {
            CompoundKind::Location
        };
        add(fields, &mut compounds, format!("{stem}__c"), kind, parts);
    }
    compounds
}

/// `Geo` of `Geo__Latitude__s`.
fn custom_stems(fields: &[Field]) -> Vec<String> {
    let mut stems: Vec<String> = fields
        .iter()
        .filter_map(|field| field.name.strip_suffix("__s")?.rsplit_once("__"))
        .map(|(stem, _)| stem.to_owned())
        .collect();
    stems.sort();
    stems.dedup();
    stems
}

fn parts(fields: &[Field], part: impl Fn(&str) -> Option<&'static str>) -> Vec<Part> {
    fields
        .iter()
        .enumerate()
        .filter_map(|(place, field)| {
            part(&field.name).map(|name| Part {
                field: place,
                name: name.to_owned(),
            })
        })
        .collect()
}

fn add(
    fields: &mut Vec<Field>,
    compounds: &mut Vec<Compound>,
    name: String,
    kind: CompoundKind,
    parts: Vec<Part>,
) {
    if parts.is_empty() {
        return;
    }
    for part in &parts {
        fields[part.field].compound = Some(name.clone());
    }
    let field_type = match kind {
        CompoundKind::Location => FieldType::Location,
        _ => FieldType::Address,
    };
    if !fields.iter().any(|field| field.name == name) {
        fields.push(Field::new(&name, field_type));
    }
    compounds.push(Compound { name, kind, parts });
}

/// A person's `Name` is text that the org makes of its parts; an account's is that only for a person account.
fn add_name(
    object: &str,
    fields: &mut Vec<Field>,
    compounds: &mut Vec<Compound>,
    parts: Vec<Part>,
) {
    for part in &parts {
        fields[part.field].compound = Some("Name".to_owned());
    }
    let mut field = Field {
        length: 121,
        nillable: object == "Account",
        ..Field::new("Name", FieldType::String)
    };
    let editable = object == "Account";
    (field.createable, field.updateable) = (editable, editable);
    match fields.iter_mut().find(|field| field.name == "Name") {
        Some(given) => {
            (given.createable, given.updateable) = (editable, editable);
            given.nillable |= editable;
        }
        None => fields.push(field),
    }
    compounds.push(Compound {
        name: "Name".to_owned(),
        kind: CompoundKind::Name,
        parts,
    });
}
