//! Makes events: schemas of Salesforce's shape, and data written by `apache_avro`.

use apache_avro::types::Value as Avro;
use serde_json::{Value as Json, json};

pub const ID: &str = "001A0000006Vm9uIAC";

/// The order of an Account without record types, as the bitmaps of public samples count it.
pub const ACCOUNT: [(&str, &str); 22] = [
    ("Name", "switch"),
    ("Type", "string"),
    ("ParentId", "string"),
    ("BillingAddress", "address"),
    ("ShippingAddress", "address"),
    ("Phone", "string"),
    ("Fax", "string"),
    ("AccountNumber", "string"),
    ("Website", "string"),
    ("Sic", "string"),
    ("Industry", "string"),
    ("AnnualRevenue", "double"),
    ("NumberOfEmployees", "int"),
    ("Ownership", "string"),
    ("TickerSymbol", "string"),
    ("Description", "string"),
    ("Rating", "string"),
    ("Site", "string"),
    ("OwnerId", "string"),
    ("CreatedDate", "long"),
    ("CreatedById", "string"),
    ("LastModifiedDate", "long"),
];

const ADDRESS: [(&str, &str); 8] = [
    ("Street", "string"),
    ("City", "string"),
    ("State", "string"),
    ("PostalCode", "string"),
    ("Country", "string"),
    ("Latitude", "double"),
    ("Longitude", "double"),
    ("Xyz", "string"),
];
const NAME: [(&str, &str); 3] = [
    ("Salutation", "string"),
    ("FirstName", "string"),
    ("LastName", "string"),
];
const PLACE: [(&str, &str); 2] = [("Latitude", "double"), ("Longitude", "double")];
const CHANGES: [&str; 10] = [
    "CREATE",
    "UPDATE",
    "DELETE",
    "UNDELETE",
    "GAP_CREATE",
    "GAP_UPDATE",
    "GAP_DELETE",
    "GAP_UNDELETE",
    "GAP_OVERFLOW",
    "SNAPSHOT",
];

/// The schema of an event with fields of the given types.
pub fn schema(name: &str, fields: &[(&str, &str)]) -> String {
    let mut all = vec![json!({"name": "ChangeEventHeader", "type": header_schema()})];
    let mut defined = Vec::new();
    for (name, kind) in fields {
        let part = |name: &str, parts: &[(&str, &str)], defined: &mut Vec<String>| {
            if defined.iter().any(|known| known == name) {
                return json!(name);
            }
            defined.push(name.to_owned());
            let parts: Vec<Json> = parts
                .iter()
                .map(|(name, kind)| json!({"name": name, "type": ["null", kind], "default": null}))
                .collect();
            json!({"type": "record", "name": name, "fields": parts})
        };
        let branches = match *kind {
            "address" => json!(["null", part("Address", &ADDRESS, &mut defined)]),
            "place" => json!(["null", part("Location", &PLACE, &mut defined)]),
            "name" => json!(["null", part("PersonName", &NAME, &mut defined)]),
            "switch" => json!([
                "null",
                "string",
                part("Switchable_PersonName", &NAME, &mut defined)
            ]),
            kind => json!(["null", kind]),
        };
        all.push(json!({"name": name, "type": branches, "default": null, "doc": "Data:Text:00N"}));
    }
    json!({"type": "record", "name": name, "namespace": "com.sforce.eventbus", "fields": all})
        .to_string()
}

fn header_schema() -> Json {
    let texts = json!({"type": "array", "items": "string"});
    json!({"type": "record", "name": "ChangeEventHeader", "fields": [
        {"name": "entityName", "type": "string"},
        {"name": "recordIds", "type": texts},
        {"name": "changeType", "type": {"type": "enum", "name": "ChangeType", "symbols": CHANGES}},
        {"name": "changeOrigin", "type": "string"},
        {"name": "transactionKey", "type": "string"},
        {"name": "sequenceNumber", "type": "int"},
        {"name": "commitTimestamp", "type": "long"},
        {"name": "commitNumber", "type": "long"},
        {"name": "commitUser", "type": "string"},
        {"name": "nulledFields", "type": texts},
        {"name": "diffFields", "type": texts},
        {"name": "changedFields", "type": texts},
    ]})
}

/// A header of `entity`; bitmaps are added by key.
pub fn header(entity: &str, change: &str) -> Json {
    json!({
        "entityName": entity, "recordIds": [ID], "changeType": change,
        "changeOrigin": "com/salesforce/api/rest/66.0;client=tributary", "transactionKey": "000a-1",
        "sequenceNumber": 2, "commitTimestamp": 1_760_000_000_000_i64, "commitNumber": 7_000_000_000_000_000_001_i64,
        "commitUser": "005A0000006Vm9uIAC", "nulledFields": [], "diffFields": [], "changedFields": [],
    })
}

/// An event's datum: `fields` that are left out are null.
pub fn datum(schema: &str, header: &Json, fields: &Json) -> Vec<u8> {
    let schema = apache_avro::Schema::parse_str(schema).unwrap();
    let apache_avro::Schema::Record(record) = &schema else {
        unreachable!("an event is a record")
    };
    let text = |key: &str| Avro::String(header[key].as_str().unwrap().to_owned());
    let texts = |key: &str| {
        let texts = header[key].as_array().unwrap().iter();
        Avro::Array(
            texts
                .map(|text| Avro::String(text.as_str().unwrap().to_owned()))
                .collect(),
        )
    };
    let change = header["changeType"].as_str().unwrap();
    let at = CHANGES.iter().position(|known| *known == change).unwrap();
    let own = Avro::Record(vec![
        ("entityName".to_owned(), text("entityName")),
        ("recordIds".to_owned(), texts("recordIds")),
        (
            "changeType".to_owned(),
            Avro::Enum(u32::try_from(at).unwrap(), change.to_owned()),
        ),
        ("changeOrigin".to_owned(), text("changeOrigin")),
        ("transactionKey".to_owned(), text("transactionKey")),
        (
            "sequenceNumber".to_owned(),
            Avro::Int(i32::try_from(header["sequenceNumber"].as_i64().unwrap()).unwrap()),
        ),
        (
            "commitTimestamp".to_owned(),
            Avro::Long(header["commitTimestamp"].as_i64().unwrap()),
        ),
        (
            "commitNumber".to_owned(),
            Avro::Long(header["commitNumber"].as_i64().unwrap()),
        ),
        ("commitUser".to_owned(), text("commitUser")),
        ("nulledFields".to_owned(), texts("nulledFields")),
        ("diffFields".to_owned(), texts("diffFields")),
        ("changedFields".to_owned(), texts("changedFields")),
    ]);
    let mut all = vec![("ChangeEventHeader".to_owned(), own)];
    for field in record.fields.iter().skip(1) {
        let kind = match &field.schema {
            apache_avro::Schema::Union(union) => union.variants().last().unwrap(),
            _ => unreachable!("every field may be null"),
        };
        let value = optional(kind, &fields[&field.name]);
        all.push((field.name.clone(), value));
    }
    apache_avro::writer::datum::GenericDatumWriter::builder(&schema)
        .build()
        .unwrap()
        .write_value_to_vec(Avro::Record(all))
        .unwrap()
}

/// A value of the union of null and `kind`, or of the three-way one.
fn optional(kind: &apache_avro::Schema, json: &Json) -> Avro {
    use apache_avro::Schema;
    let name = match kind {
        Schema::Record(record) => record.name.name(),
        Schema::Ref { name } => name.name(),
        _ => "",
    };
    let parts: &[(&str, &str)] = match name {
        "Address" => &ADDRESS,
        "Location" => &PLACE,
        "" => &[],
        _ => &NAME,
    };
    let is_switch = name == "Switchable_PersonName";
    let branch = |at, value| Avro::Union(at, Box::new(value));
    match (json, kind) {
        (Json::Null, _) => branch(0, Avro::Null),
        (Json::Object(told), _) => {
            let parts = parts.iter().map(|(part, kind)| {
                let value = told.get(*part).cloned().unwrap_or_default();
                let kind = if *kind == "double" {
                    Schema::Double
                } else {
                    Schema::String
                };
                ((*part).to_owned(), optional(&kind, &value))
            });
            branch(if is_switch { 2 } else { 1 }, Avro::Record(parts.collect()))
        }
        (Json::String(text), _) => branch(1, Avro::String(text.clone())),
        (Json::Bool(flag), _) => branch(1, Avro::Boolean(*flag)),
        (number, Schema::Double) => branch(1, Avro::Double(number.as_f64().unwrap())),
        (number, Schema::Int) => branch(
            1,
            Avro::Int(i32::try_from(number.as_i64().unwrap()).unwrap()),
        ),
        (number, _) => branch(1, Avro::Long(number.as_i64().unwrap())),
    }
}

/// Bitmaps as the server writes them: whole bytes, upper case.
pub fn bitmap(bits: &[usize]) -> String {
    let mut bytes = vec![0_u8; bits.iter().max().map_or(1, |most| most / 8 + 1)];
    for bit in bits {
        bytes[bit / 8] |= 1 << (bit % 8);
    }
    let digits: String = bytes
        .iter()
        .rev()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    format!("0x{digits}")
}
