//! A Pub/Sub event's datum: read as `apache_avro` reads it, and never passed over if it may be of a known object.
#![no_main]

use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use chrono::DateTime;
use libfuzzer_sys::fuzz_target;
use tributary::crm::salesforce::pubsub::decoder::Decoder;
use tributary::crm::salesforce::pubsub::fuzz::{Cell, EventSchema, cells};
use tributary::model::position::Position;
use tributary_fuzz::{OBJECT, describe, schema};

struct Known {
    decoder: Decoder,
    ours: EventSchema,
    theirs: Schema,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    // Lengths that no input has are refused, not allocated.
    apache_avro::util::max_allocation_bytes(16 << 20);
    Known {
        decoder: Decoder::of(&[describe().as_bytes()], &[("known", &schema())]).unwrap(),
        ours: EventSchema::parse(&schema()).unwrap(),
        // Written alike; we read 64 bits of either.
        theirs: Schema::parse_str(&schema().replace("\"int\"", "\"long\"")).unwrap(),
    }
});

fuzz_target!(|datum: &[u8]| {
    let (own, ended) = cells(&KNOWN.ours, datum);
    let reader = GenericDatumReader::builder(&KNOWN.theirs).build().unwrap();
    let theirs = reader.read_value(&mut &datum[..]);
    match (ended, theirs) {
        (Ok(()), Ok(value)) => {
            assert!(is_record(&own, &value), "{own:?}\n{value:?}");
            let again = written(value.clone()).expect("what was read can be written");
            let (own, ended) = cells(&KNOWN.ours, &again);
            assert!(
                ended.is_ok() && is_record(&own, &value),
                "{own:?}\n{value:?}"
            );
        }
        (Ok(()), Err(error)) => panic!("{own:?} is refused by the other: {error}"),
        // They let pass what no writer writes: numbers past 64 bits, a text cut short, what follows the last field.
        (Err(malformed), Ok(value)) => {
            assert!(
                written(value).is_none_or(|again| again != datum),
                "{malformed}"
            );
        }
        (Err(_), Err(_)) => {}
    }
    decoded(datum, own.first());
});

/// What the decoder makes of it: a datum that can't be read may be of any object.
fn decoded(datum: &[u8], header: Option<&Cell<'_>>) {
    let position = Position::new("pubsub:AAAAAAAAAAEAAA");
    let decode = |schema| {
        KNOWN
            .decoder
            .decode(Some((schema, datum)), &position, DateTime::UNIX_EPOCH)
            .events
    };
    let events = decode("known");
    let is_of_another = match header {
        Some(Cell::Parts(header)) => {
            matches!(header.get("entityName"), Some(Cell::Text(name)) if !name.eq_ignore_ascii_case(OBJECT))
        }
        _ => false,
    };
    assert_eq!(events.is_empty(), is_of_another);
    assert!(events.iter().all(|event| event.object.as_str() == OBJECT));
    assert_eq!(decode("unknown").len(), 1);
}

fn written(value: Value) -> Option<Vec<u8>> {
    let writer = GenericDatumWriter::builder(&KNOWN.theirs).build().unwrap();
    writer.write_value_to_vec(value).ok()
}

fn is_record(cells: &[Cell<'_>], value: &Value) -> bool {
    let Value::Record(fields) = value else {
        return false;
    };
    cells.len() == fields.len()
        && cells
            .iter()
            .zip(fields)
            .all(|(cell, (_, value))| is_same(cell, value))
}

fn is_same(cell: &Cell<'_>, value: &Value) -> bool {
    match (cell, value) {
        (_, Value::Union(_, value)) => is_same(cell, value),
        (Cell::Null, Value::Null) => true,
        (Cell::Bool(own), Value::Boolean(other)) => own == other,
        (Cell::Whole(own), Value::Long(other)) => own == other,
        (Cell::Double(own), Value::Double(other)) => own.to_bits() == other.to_bits(),
        (Cell::Text(own), Value::String(other) | Value::Enum(_, other)) => own == other,
        (Cell::List(own), Value::Array(other)) => {
            own.len() == other.len()
                && own
                    .iter()
                    .zip(other)
                    .all(|(cell, value)| is_same(cell, value))
        }
        (Cell::Parts(own), Value::Record(other)) => {
            let mut pairs = own.0.iter().zip(other);
            own.0.len() == other.len()
                && pairs.all(|((name, cell), (other, value))| name == other && is_same(cell, value))
        }
        _ => false,
    }
}
