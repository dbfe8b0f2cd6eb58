//! A change event as a bare Avro datum: the header with its bitmaps, then every field of the schema.
//!
//! Source: Salesforce Developers, "Pub/Sub API", "Event Deserialization Considerations". Unchanged fields of an update are
//! null like emptied ones: only the bitmaps tell them apart.

use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use chrono::{NaiveTime, Timelike};
use serde_json::{Map, Value as Json};

use super::super::cometd::{DataMessage, Garble};
use super::super::commits::{ChangeEvent, ChangeType};
use super::super::schema::FieldType;
use super::super::value::Value;
use super::bitmap;
use super::schema::{EventField, EventSchema, Shape};

/// No payload begins so: a text whose length is said to be negative.
const GARBAGE: &[u8] = b"\x01\xff\xfe\xfd";
const TYPES: [(ChangeType, &str); 9] = [
    (ChangeType::Create, "CREATE"),
    (ChangeType::Update, "UPDATE"),
    (ChangeType::Delete, "DELETE"),
    (ChangeType::Undelete, "UNDELETE"),
    (ChangeType::GapCreate, "GAP_CREATE"),
    (ChangeType::GapUpdate, "GAP_UPDATE"),
    (ChangeType::GapDelete, "GAP_DELETE"),
    (ChangeType::GapUndelete, "GAP_UNDELETE"),
    (ChangeType::GapOverflow, "GAP_OVERFLOW"),
];

/// Writes the payload of a message by its event's schema.
pub(super) fn encode(
    message: &DataMessage,
    schema: &EventSchema,
) -> Result<Vec<u8>, Box<apache_avro::Error>> {
    match message.garble {
        Some(Garble::TextPayload) => return Ok(GARBAGE.to_vec()),
        // The header's record ends in the middle.
        Some(Garble::NoHeader) => return Ok(vec![0x0e, b'A', b'c', b'c']),
        _ => {}
    }
    let event = &message.event.event;
    let header = header(message, event, schema);
    let mut fields = Vec::with_capacity(schema.fields.len() + 1);
    fields.push(("ChangeEventHeader".to_owned(), header));
    for field in &schema.fields {
        let enriched = || {
            let mut added = message.enriched.iter();
            added.find_map(|(name, value)| (*name == field.name).then_some(value))
        };
        let json = event.body.get(&field.name).or_else(enriched);
        fields.push((field.name.clone(), value(field, json)));
    }
    GenericDatumWriter::builder(&schema.avro)
        .build()
        .and_then(|writer| writer.write_value_to_vec(Avro::Record(fields)))
        .map_err(Box::new)
}

fn header(message: &DataMessage, event: &ChangeEvent, schema: &EventSchema) -> Avro {
    let records = match (message.garble, message.record) {
        (Some(Garble::NoRecordIds), _) => &[],
        (_, Some(record)) => event.record_ids.get(record..=record).unwrap_or_default(),
        (_, None) => event.record_ids.as_slice(),
    };
    let updates = event.change_type == ChangeType::Update;
    let changed = || {
        let names = event.changed.iter().filter(|_| updates);
        names.map(String::as_str)
    };
    let told = |name: &str| told(&event.body, name);
    let nulled = changed().filter(|name| told(name).is_none_or(Json::is_null));
    let diffs = changed().filter(|name| told(name).is_some_and(|value| diff(value).is_some()));
    let texts = |texts: Vec<String>| Avro::Array(texts.into_iter().map(Avro::String).collect());
    let number = i64::try_from(event.commit_number).unwrap_or(i64::MAX);
    let sequence = i32::try_from(event.sequence).unwrap_or(i32::MAX);
    let fields = [
        ("entityName", Avro::String(event.entity.clone())),
        ("recordIds", texts(records.to_vec())),
        ("changeType", change_type(event, message.garble)),
        ("changeOrigin", Avro::String(event.change_origin.clone())),
        (
            "transactionKey",
            Avro::String(event.transaction_key.clone()),
        ),
        ("sequenceNumber", Avro::Int(sequence)),
        (
            "commitTimestamp",
            Avro::Long(event.commit_timestamp.timestamp_millis()),
        ),
        ("commitNumber", Avro::Long(number)),
        ("commitUser", Avro::String(event.commit_user.clone())),
        ("nulledFields", texts(bitmap::elements(schema, nulled))),
        ("diffFields", texts(bitmap::elements(schema, diffs))),
        ("changedFields", texts(bitmap::elements(schema, changed()))),
    ];
    Avro::Record(
        fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

/// A change type that is spoiled is the reserved one, which no reader expects.
fn change_type(event: &ChangeEvent, garble: Option<Garble>) -> Avro {
    if garble == Some(Garble::ChangeType) {
        return Avro::Enum(9, "SNAPSHOT".to_owned());
    }
    let place = TYPES
        .iter()
        .position(|(known, _)| *known == event.change_type);
    let place = place.unwrap_or_default();
    Avro::Enum(
        u32::try_from(place).unwrap_or_default(),
        TYPES[place].1.to_owned(),
    )
}

/// What the body says of `Industry` or `BillingAddress.Street`.
fn told<'a>(body: &'a Map<String, Json>, name: &str) -> Option<&'a Json> {
    match name.split_once('.') {
        Some((field, part)) => body.get(field)?.get(part),
        None => body.get(name),
    }
}

/// The text of a value that is told by its difference.
fn diff(value: &Json) -> Option<&str> {
    value.get("diff")?.as_str()
}

fn value(field: &EventField, json: Option<&Json>) -> Avro {
    let null = || Avro::Union(0, Box::new(Avro::Null));
    let Some(json) = json.filter(|json| !json.is_null()) else {
        return null();
    };
    match &field.shape {
        Shape::Plain(kind) => plain(*kind, json).map_or_else(null, |value| branch(1, value)),
        Shape::Compound { or_text: true, .. } if json.is_string() => {
            plain(FieldType::String, json).map_or_else(null, |value| branch(1, value))
        }
        Shape::Compound { parts, or_text } => {
            let parts = parts.iter().map(|(name, kind)| {
                let part = json.get(*name).filter(|part| !part.is_null());
                let part = part.and_then(|part| plain(*kind, part));
                (
                    (*name).to_owned(),
                    part.map_or_else(null, |part| branch(1, part)),
                )
            });
            branch(1 + u32::from(*or_text), Avro::Record(parts.collect()))
        }
    }
}

fn branch(place: u32, value: Avro) -> Avro {
    Avro::Union(place, Box::new(value))
}

/// A value of the body, which has CometD's spelling; dates and times are milliseconds.
fn plain(kind: FieldType, json: &Json) -> Option<Avro> {
    if let Some(diff) = diff(json) {
        return Some(Avro::String(diff.to_owned()));
    }
    Some(match Value::from_json(kind, json)? {
        Value::Null => return None,
        Value::Bool(value) => Avro::Boolean(value),
        Value::Int(number) if kind == FieldType::Int => Avro::Int(i32::try_from(number).ok()?),
        Value::Int(number) => Avro::Long(number),
        Value::Double(number) => Avro::Double(number),
        Value::Text(text) | Value::Id(text) => Avro::String(text.to_string()),
        Value::Date(date) => Avro::Long(date.and_time(NaiveTime::MIN).and_utc().timestamp_millis()),
        Value::DateTime(time) => Avro::Long(time.timestamp_millis()),
        Value::Time(time) => Avro::Long(
            i64::from(time.num_seconds_from_midnight()) * 1000
                + i64::from(time.nanosecond() / 1_000_000),
        ),
    })
}
