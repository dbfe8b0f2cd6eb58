//! A record's shapes: a person's composed name, REST's compounds, and the bodies of change events.

use serde_json::{Map, Value as Json};

use super::schema::{Compound, CompoundKind, Object};
use super::store::Record;
use super::value::Value;

/// A person's `Name` from its parts (without the salutation); `None` for an object that has no such compound, or for
/// a business account.
pub(crate) fn person_name(object: &Object, values: &[Value]) -> Option<Value> {
    let compound = object.compound("Name")?;
    if object.name == "Account" && !is_person_account(object, values) {
        return None;
    }
    let words: Vec<_> = ["FirstName", "MiddleName", "LastName", "Suffix"]
        .into_iter()
        .filter_map(|name| compound.parts.iter().find(|part| part.name == name))
        .filter_map(|part| values.get(part.field)?.as_text())
        .collect();
    Some(if words.is_empty() {
        Value::Null
    } else {
        Value::text(&words.join(" "))
    })
}

fn is_person_account(object: &Object, values: &[Value]) -> bool {
    object
        .place("IsPersonAccount")
        .and_then(|place| values.get(place))
        .is_some_and(|value| *value == Value::Bool(true))
}

/// A compound as REST answers it: lower camel case, every part, null when all are empty.
pub(crate) fn rest_compound(compound: &Compound, record: &Record) -> Json {
    let mut parts = Map::new();
    let mut empty = true;
    for part in &compound.parts {
        let value = record.get(part.field);
        empty &= value.is_null();
        parts.insert(lower_camel(&part.name), value.rest());
    }
    if empty {
        return Json::Null;
    }
    let always: &[&str] = match compound.kind {
        CompoundKind::Address => &[
            "city",
            "country",
            "geocodeAccuracy",
            "latitude",
            "longitude",
            "postalCode",
            "state",
            "street",
        ],
        _ => &["latitude", "longitude"],
    };
    for name in always {
        parts.entry((*name).to_owned()).or_insert(Json::Null);
    }
    Json::Object(parts)
}

fn lower_camel(name: &str) -> String {
    let mut name = name.to_owned();
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    name
}

/// The body of a create or undelete: every field that is not empty, compounds nested.
pub(crate) fn whole_body(object: &Object, record: &Record) -> Map<String, Json> {
    let mut body = Map::new();
    for place in event_places(object, record) {
        let value = record.get(place);
        if !value.is_null() {
            insert(&mut body, object, record, place, value.cometd());
        }
    }
    body
}

/// What an update tells: the changed fields by their event names, and their values, null where emptied.
pub(crate) fn changed_body(
    object: &Object,
    before: &Record,
    after: &Record,
) -> (Vec<String>, Map<String, Json>) {
    let mut changed = Vec::new();
    let mut body = Map::new();
    for place in event_places(object, after) {
        let field = &object.fields[place];
        let geolocation = both_parts_change(object, place, before, after);
        let differs = before.get(place) != after.get(place) || geolocation;
        // A formula's change tells nobody; the date of the change is told always.
        let told = differs && !field.calculated || field.name == "LastModifiedDate";
        if told {
            changed.push(event_name(object, after, place));
            insert(&mut body, object, after, place, after.get(place).cometd());
        }
    }
    (changed, body)
}

/// A custom geolocation is told with both its parts even if one changed.
fn both_parts_change(object: &Object, place: usize, before: &Record, after: &Record) -> bool {
    part_of(object, after, place).is_some_and(|(compound, _)| {
        compound.kind == CompoundKind::Location
            && compound
                .parts
                .iter()
                .any(|part| before.get(part.field) != after.get(part.field))
    })
}

/// The fields an event of this record may carry: a composed name gives way to its parts.
fn event_places<'a>(object: &'a Object, record: &'a Record) -> impl Iterator<Item = usize> + 'a {
    let composed = object.compound("Name").is_some()
        && (object.name != "Account" || is_person_account(object, record.values()));
    object
        .fields
        .iter()
        .enumerate()
        .filter(move |(_, field)| field.in_events() && !(composed && field.name == "Name"))
        .map(|(place, _)| place)
}

fn part_of<'a>(
    object: &'a Object,
    record: &Record,
    place: usize,
) -> Option<(&'a Compound, &'a str)> {
    let name = object.fields[place].compound.as_deref()?;
    let compound = object.compound(name)?;
    if compound.kind == CompoundKind::Name
        && object.name == "Account"
        && !is_person_account(object, record.values())
    {
        return None;
    }
    let part = compound.parts.iter().find(|part| part.field == place)?;
    Some((compound, &part.name))
}

fn event_name(object: &Object, record: &Record, place: usize) -> String {
    match part_of(object, record, place) {
        Some((compound, part)) => format!("{}.{part}", compound.name),
        None => object.fields[place].name.clone(),
    }
}

fn insert(
    body: &mut Map<String, Json>,
    object: &Object,
    record: &Record,
    place: usize,
    json: Json,
) {
    match part_of(object, record, place) {
        Some((compound, part)) => {
            let nested = body
                .entry(compound.name.clone())
                .or_insert_with(|| Json::Object(Map::new()));
            if let Json::Object(nested) = nested {
                nested.insert(part.to_owned(), json);
            }
        }
        None => {
            body.insert(object.fields[place].name.clone(), json);
        }
    }
}
