//! Decoding: bitmaps of public samples, every kind of event, and the same events as over CometD.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, TimeZone, Utc};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use proptest::sample::subsequence;
use proptest::strategy::Strategy;
use serde_json::{Value as Json, json};

use crate::model::event::{Event, EventKind, GapCause};
use crate::model::position::Position;

use super::super::super::cometd::payload::read as read_json;
use super::super::super::decode::{Decoded, Names, Objects};
use super::super::super::describe::tests::described;
use super::super::bitmap::expand;
use super::super::payload::read;
use super::super::schema::EventSchema;
use super::events::{ACCOUNT, ID, bitmap, datum, header, schema};

fn account() -> (String, EventSchema) {
    let json = schema("AccountChangeEvent", &ACCOUNT);
    let parsed = EventSchema::parse(&json).unwrap();
    (json, parsed)
}

fn names(schema: &EventSchema, bitmaps: &[&str]) -> Option<Vec<String>> {
    let bitmaps: Vec<Cow<'_, str>> = bitmaps.iter().map(|text| Cow::Borrowed(*text)).collect();
    let found = expand(schema, &bitmaps).ok()?;
    let name = |(field, part): (usize, Option<usize>)| match part {
        Some(part) => schema.fields[field].parts[part].clone(),
        None => schema.fields[field].name.clone(),
    };
    Some(found.into_iter().map(name).collect())
}

#[test]
fn bitmaps_of_public_samples() {
    let (_, account) = account();
    for (bitmaps, expected) in [
        (
            vec!["0x400000", "4-0x01"],
            vec!["BillingAddress.Street", "LastModifiedDate"],
        ),
        (vec!["0x400080"], vec!["Fax", "LastModifiedDate"]),
        (vec!["0x400800"], vec!["Industry", "LastModifiedDate"]),
        (vec!["0x010000"], vec!["Description"]),
        // Only parts changed, the first number missing or zero.
        (
            vec!["4-0x03"],
            vec!["BillingAddress.Street", "BillingAddress.City"],
        ),
        (vec!["0x00", "5-0x01"], vec!["ShippingAddress.Street"]),
        (vec!["0x", "1-0x04"], vec!["Name.LastName"]),
        (vec![], vec![]),
    ] {
        assert_eq!(names(&account, &bitmaps).unwrap(), expected, "{bitmaps:?}");
    }
    // Bits 7 and 13 of a custom object's event.
    let fields: Vec<String> = (1..=14).map(|number| format!("F{number}__c")).collect();
    let fields: Vec<_> = fields
        .iter()
        .map(|name| (name.as_str(), "string"))
        .collect();
    let thing = EventSchema::parse(&schema("Thing__ChangeEvent", &fields)).unwrap();
    assert_eq!(names(&thing, &["0x2080"]).unwrap(), ["F7__c", "F13__c"]);
}

#[test]
fn bitmaps_go_beyond_64_bits() {
    let fields: Vec<String> = (1..=90).map(|number| format!("F{number}__c")).collect();
    let fields: Vec<_> = fields
        .iter()
        .map(|name| (name.as_str(), "string"))
        .collect();
    let wide = EventSchema::parse(&schema("Wide__ChangeEvent", &fields)).unwrap();
    assert_eq!(
        names(&wide, &["0x0400800000000000000000"]).unwrap(),
        ["F71__c", "F82__c"]
    );
    assert_eq!(
        names(&wide, &["0x100000000000800000"]).unwrap(),
        ["F23__c", "F68__c"]
    );
    assert_eq!(
        names(&wide, &["0x0100000000000000000000000"]),
        None,
        "there is no field 96"
    );
}

#[test]
fn bitmaps_that_fit_no_schema_are_no_bitmaps() {
    let (_, account) = account();
    for bitmap in [
        "0x01", "0x800000", "0xZZ", "400000", "Industry", "99-0x01", "4-0x100", "6-0x01", "0-0x01",
        "-0x01", "x-0x01", "4-", "4-01", "",
    ] {
        assert_eq!(names(&account, &[bitmap]), None, "{bitmap}");
    }
}

fn objects() -> Objects {
    let address = |prefix: &'static str| {
        [
            "Street",
            "City",
            "State",
            "PostalCode",
            "Country",
            "Latitude",
            "Longitude",
        ]
        .map(|part| (format!("{prefix}{part}"), part, format!("{prefix}Address")))
    };
    let parts: Vec<_> = address("Billing")
        .into_iter()
        .chain(address("Shipping"))
        .collect();
    let mut fields = vec![
        ("Id", "id", None),
        ("Name", "string", None),
        ("BillingAddress", "address", None),
        ("ShippingAddress", "address", None),
        ("AnnualRevenue", "currency", None),
        ("NumberOfEmployees", "int", None),
        ("ParentId", "reference", None),
        ("OwnerId", "reference", None),
        ("CreatedById", "reference", None),
        ("CreatedDate", "datetime", None),
        ("LastModifiedDate", "datetime", None),
        ("Description", "textarea", None),
    ];
    for name in [
        "Type",
        "Phone",
        "Fax",
        "AccountNumber",
        "Website",
        "Sic",
        "Industry",
        "Ownership",
    ] {
        fields.push((name, "string", None));
    }
    for name in ["TickerSymbol", "Rating", "Site"] {
        fields.push((name, "string", None));
    }
    for (name, part, whole) in &parts {
        let kind = if part.ends_with("tude") {
            "double"
        } else {
            "string"
        };
        fields.push((name, kind, Some(whole.as_str())));
    }
    let mut objects = Objects::default();
    objects.insert("Account".into(), Arc::new(described("Account", &fields)));
    let person = described(
        "Contact",
        &[
            ("Name", "string", Some("Name")),
            ("FirstName", "string", Some("Name")),
            ("LastName", "string", Some("Name")),
            ("Birthdate", "date", None),
            ("Email", "email", None),
            ("Tags__c", "multipicklist", None),
            ("Alarm__c", "time", None),
            ("Active__c", "boolean", None),
            ("Home__c", "location", None),
            ("Home__Latitude__s", "double", Some("Home__c")),
            ("Home__Longitude__s", "double", Some("Home__c")),
        ],
    );
    objects.insert("Contact".into(), Arc::new(person));
    objects
}

const CONTACT: [(&str, &str); 7] = [
    ("Name", "name"),
    ("Birthdate", "long"),
    ("Email", "string"),
    ("Tags__c", "string"),
    ("Alarm__c", "long"),
    ("Active__c", "boolean"),
    ("Home__c", "place"),
];

fn arrived() -> DateTime<Utc> {
    Utc.timestamp_opt(1_760_000_100, 0).unwrap()
}

fn decode(schema: &str, header: &Json, fields: &Json) -> Decoded {
    let parsed = EventSchema::parse(schema).unwrap();
    let bytes = datum(schema, header, fields);
    let objects = objects();
    let payload = read(&parsed, &bytes, &objects).unwrap();
    objects.decode(Some(payload), &Position::new("pubsub:AAAB"), arrived())
}

fn one(change: &str, changed: &[&str], fields: &Json) -> Event {
    let mut header = header("Account", change);
    header["changedFields"] = json!(changed);
    let mut events = decode(&account().0, &header, fields).events;
    assert_eq!(events.len(), 1, "{events:?}");
    events.remove(0)
}

fn told(event: &Event) -> Json {
    serde_json::to_value(&event.fields).unwrap()
}

#[test]
fn an_update_tells_what_its_bitmap_says() {
    let changed = bitmap(&[3, 7, 11, 12, 13, 22]);
    let event = one(
        "UPDATE",
        &[&changed, "4-0x03"],
        &json!({
            "Name": "enriched", "Industry": "Energy", "Fax": null, "ParentId": "001A0000006Vm9u",
            "AnnualRevenue": 1054.5, "NumberOfEmployees": 7, "LastModifiedDate": 1_760_000_000_123_i64,
            "BillingAddress": {"Street": "Main St", "City": null, "Country": "unchanged"},
        }),
    );
    assert_eq!(event.kind, EventKind::Update);
    assert_eq!(event.committed_at.timestamp(), 1_760_000_000);
    assert_eq!(event.transaction.key, "000a-1");
    assert_eq!(event.transaction.client.as_deref(), Some("tributary"));
    assert_eq!(
        told(&event),
        json!({
            "Industry": "Energy", "Fax": null, "ParentId": ID, "AnnualRevenue": 1054.5, "NumberOfEmployees": 7,
            "LastModifiedDate": "2025-10-09T08:53:20.123Z", "BillingStreet": "Main St", "BillingCity": null,
        })
    );
}

#[test]
fn a_lone_compound_bitmap_is_an_update() {
    // Geocoding, as it was seen: no LastModifiedDate, nothing but two parts.
    let event = one(
        "UPDATE",
        &["4-0x60"],
        &json!({"BillingAddress": {"Street": "x", "Latitude": 1.25, "Longitude": -2.0}}),
    );
    assert_eq!(
        told(&event),
        json!({"BillingLatitude": 1.25, "BillingLongitude": -2.0})
    );
}

#[test]
fn a_compound_that_changed_as_a_whole() {
    let whole = bitmap(&[4]);
    let emptied = one("UPDATE", &[&whole], &json!({}));
    let parts: Vec<_> = told(&emptied)
        .as_object()
        .unwrap()
        .values()
        .cloned()
        .collect();
    assert_eq!(parts, vec![Json::Null; 7]);
    let filled = one(
        "UPDATE",
        &[&whole],
        &json!({"BillingAddress": {"City": "Bern"}}),
    );
    assert_eq!(filled.kind, EventKind::Update);
    assert_eq!(told(&filled)["BillingCity"], "Bern");
    assert_eq!(told(&filled)["BillingStreet"], Json::Null);
}

#[test]
fn what_is_told_to_be_empty_is_empty() {
    let mut head = header("Account", "UPDATE");
    head["changedFields"] = json!([bitmap(&[11])]);
    head["nulledFields"] = json!([bitmap(&[7, 11]), "4-0x02"]);
    let fields = json!({"BillingAddress": {"Street": "x"}});
    let events = decode(&account().0, &head, &fields).events;
    assert_eq!(
        told(&events[0]),
        json!({"Fax": null, "Industry": null, "BillingCity": null})
    );
    // A contradiction is no truth.
    let events = decode(&account().0, &head, &json!({"Fax": "1"})).events;
    assert_eq!(events[0].kind, EventKind::Gap);
}

#[test]
fn creates_tell_what_is_not_empty() {
    for (change, kind) in [
        ("CREATE", EventKind::Create),
        ("UNDELETE", EventKind::Undelete),
    ] {
        let event = one(
            change,
            &[],
            &json!({"Name": "Acme", "BillingAddress": {"City": "Bern"}, "ShippingAddress": {}, "AnnualRevenue": 5.0}),
        );
        assert_eq!(event.kind, kind);
        assert_eq!(
            told(&event),
            json!({"Name": "Acme", "BillingCity": "Bern", "AnnualRevenue": 5.0})
        );
    }
}

#[test]
fn gaps_deletes_and_the_rest() {
    for (change, kind) in [
        ("DELETE", EventKind::Delete),
        ("GAP_CREATE", EventKind::Gap),
        ("GAP_UPDATE", EventKind::Gap),
        ("GAP_DELETE", EventKind::Gap),
        ("GAP_UNDELETE", EventKind::Gap),
        ("SNAPSHOT", EventKind::Gap),
        ("GAP_OVERFLOW", EventKind::ObjectGap(GapCause::Overflow)),
    ] {
        let event = one(change, &[], &json!({}));
        assert_eq!(event.kind, kind, "{change}");
        assert!(event.fields.is_empty());
    }
    let mut merged = header("Account", "DELETE");
    merged["recordIds"] = json!([ID, "001A0000006Vm9vIAC"]);
    assert_eq!(
        decode(&account().0, &merged, &json!({})).events[0]
            .records
            .len(),
        2
    );
    merged["recordIds"] = json!(["001*"]);
    let wildcard = decode(&account().0, &merged, &json!({}));
    assert_eq!(
        wildcard.events[0].kind,
        EventKind::ObjectGap(GapCause::Wildcard)
    );
    assert_eq!(wildcard.stale, Some("Account".into()));
    merged["entityName"] = json!("Lead");
    assert!(decode(&account().0, &merged, &json!({})).events.is_empty());
}

#[test]
fn what_can_t_be_told_is_read() {
    for (changed, fields) in [
        (vec!["0x800000"], json!({})),
        (vec!["4-0x0100"], json!({})),
        (vec!["no"], json!({})),
        (vec!["0x400000"], json!({"LastModifiedDate": i64::MAX})),
        (vec!["0x08"], json!({"ParentId": "nonsense"})),
        (vec!["0x1000"], json!({"AnnualRevenue": f64::MAX})),
    ] {
        let event = one("UPDATE", &changed, &fields);
        let expected = if changed == ["0x1000"] {
            EventKind::Update
        } else {
            EventKind::Gap
        };
        assert_eq!(event.kind, expected, "{changed:?}");
    }
    let mut head = header("Account", "UPDATE");
    head["changedFields"] = json!([bitmap(&[16])]);
    head["diffFields"] = json!([bitmap(&[16])]);
    let events = decode(&account().0, &head, &json!({"Description": "--- \n+++ x"})).events;
    assert_eq!(
        events[0].kind,
        EventKind::Gap,
        "no difference in a form that is known"
    );
    let diff = format!(
        "--- \n+++ {}\n@@ -1 +1 @@\n-a\n+b",
        "0123456789abcdef".repeat(4)
    );
    let events = decode(&account().0, &head, &json!({"Description": diff})).events;
    assert_eq!(told(&events[0]), json!({"Description": diff}));
}

#[test]
fn a_body_that_is_cut_off_still_names_its_records() {
    let (json, parsed) = account();
    let mut head = header("Account", "UPDATE");
    head["changedFields"] = json!([bitmap(&[11])]);
    let bytes = datum(&json, &head, &json!({"Industry": "Energy"}));
    let objects = objects();
    let mut gaps = 0;
    for end in 0..bytes.len() {
        let Ok(payload) = read(&parsed, &bytes[..end], &objects) else {
            continue;
        };
        gaps += 1;
        let events = objects
            .decode(Some(payload), &Position::new("pubsub:AAAB"), arrived())
            .events;
        assert_eq!(events[0].kind, EventKind::Gap, "cut at {end}");
        assert_eq!(events[0].records.len(), 1);
    }
    assert!(gaps > 20);
    let mut longer = bytes.clone();
    longer.push(0);
    let payload = read(&parsed, &longer, &objects).unwrap();
    let events = objects
        .decode(Some(payload), &Position::new("pubsub:AAAB"), arrived())
        .events;
    assert_eq!(events[0].kind, EventKind::Gap, "bytes left over");
}

#[test]
fn times_have_the_spelling_of_their_kind() {
    let mut head = header("Contact", "CREATE");
    head["entityName"] = json!("Contact");
    let json = schema("ContactChangeEvent", &CONTACT);
    let fields = json!({
        "Name": {"LastName": "Ames"}, "Birthdate": 1_712_620_800_000_i64, "Tags__c": "a;b", "Alarm__c": 32_400_000,
        "Active__c": false, "Home__c": {"Latitude": 1.5, "Longitude": -2.0},
    });
    let events = decode(&json, &head, &fields).events;
    assert_eq!(
        told(&events[0]),
        json!({
            "LastName": "Ames", "Birthdate": "2024-04-09", "Tags__c": "a;b", "Alarm__c": "09:00:00.000Z",
            "Active__c": false, "Home__Latitude__s": 1.5, "Home__Longitude__s": -2.0,
        })
    );
}

/// The same change over CometD: only what is not empty, or what changed.
fn cometd(
    change: &str,
    changed: &[(usize, Option<usize>)],
    fields: &Json,
    schema: &EventSchema,
) -> Decoded {
    let mut header = header("Account", change);
    let head = header.as_object_mut().unwrap();
    head.remove("nulledFields");
    head.remove("diffFields");
    let name = |(field, part): &(usize, Option<usize>)| match part {
        Some(part) => schema.fields[*field].parts[*part].clone(),
        None => schema.fields[*field].name.clone(),
    };
    let names: Vec<String> = changed.iter().map(name).collect();
    let mut body = json!({});
    for field in schema.fields.iter().skip(1) {
        let whole = &fields[&field.name];
        let parts: Vec<&str> = names
            .iter()
            .filter_map(|name| name.split_once('.').filter(|(own, _)| *own == field.name))
            .map(|(_, part)| part)
            .collect();
        if names.contains(&field.name) {
            body[&field.name] = instant(&field.name, whole);
        } else if !parts.is_empty() {
            let mut told = json!({});
            for part in parts {
                told[part] = whole[part].clone();
            }
            body[&field.name] = told;
        } else if change == "CREATE" && !whole.is_null() {
            let mut whole = instant(&field.name, whole);
            if let Some(parts) = whole.as_object_mut() {
                parts.retain(|_, part| !part.is_null());
            }
            body[&field.name] = whole;
        }
    }
    head.insert("changedFields".to_owned(), json!(names));
    body["ChangeEventHeader"] = header;
    let raw = serde_json::value::to_raw_value(&body).unwrap();
    objects().decode(read_json(&raw), &Position::new("pubsub:AAAB"), arrived())
}

fn instant(field: &str, value: &Json) -> Json {
    match value.as_i64() {
        Some(millis) if field.ends_with("Date") => {
            let at = Utc.timestamp_millis_opt(millis).unwrap();
            json!(at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
        }
        _ => value.clone(),
    }
}

proptest! {
    #[test]
    fn the_same_events_as_over_cometd(
        texts in proptest::collection::vec(any::<Option<String>>(), 22),
        number in any::<Option<f64>>().prop_map(|number| number.filter(|number| number.is_finite())),
        count in any::<Option<i32>>(), millis in 0_i64..4_000_000_000_000,
        fields in subsequence((1..=22_usize).collect::<Vec<_>>(), 1..=8),
        parts in subsequence((0..7_usize).collect::<Vec<_>>(), 0..=7),
        is_create in any::<bool>(),
    ) {
        let (json, parsed) = account();
        let mut values = json!({});
        for (index, (name, kind)) in ACCOUNT.iter().enumerate() {
            values[*name] = match *kind {
                "double" => json!(number),
                "int" => json!(count),
                "long" => json!(millis),
                "address" => json!({
                    "Street": texts[index], "City": texts[(index + 1) % 22], "State": null, "PostalCode": texts[0],
                    "Country": texts[1], "Latitude": number, "Longitude": null,
                }),
                _ if name.ends_with("Id") => json!(texts[index].as_ref().map(|_| ID)),
                _ => json!(texts[index]),
            };
        }
        // Addresses change by their parts, or as a whole.
        let whole: Vec<usize> = fields.iter().copied().filter(|field| !matches!(field, 4 | 5)).collect();
        let mut changed: Vec<(usize, Option<usize>)> = whole.iter().map(|field| (*field, None)).collect();
        changed.extend(parts.iter().map(|part| (4, Some(*part))));
        let change = if is_create { "CREATE" } else { "UPDATE" };
        let mut head = header("Account", change);
        if is_create {
            changed.clear();
        } else {
            head["changedFields"] = json!([bitmap(&whole), format!("4-{}", bitmap(&parts))]);
        }
        let bytes = datum(&json, &head, &values);
        let objects = objects();
        let payload = read(&parsed, &bytes, &objects).unwrap();
        if let Names::Listed(names) = &payload.header.changed {
            let distinct: BTreeSet<_> = names.iter().collect();
            prop_assert_eq!(distinct.len(), names.len());
        }
        let ours = objects.decode(Some(payload), &Position::new("pubsub:AAAB"), arrived()).events;
        let theirs = cometd(change, &changed, &values, &parsed).events;
        let spelled = |events: &[Event]| -> Vec<String> {
            events.iter().map(|event| serde_json::to_string(&event.fields).unwrap()).collect()
        };
        prop_assert_eq!(spelled(&ours), spelled(&theirs));
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn no_bytes_make_it_panic_or_skip(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0_usize..200, with in any::<u8>()) {
        let (json, parsed) = account();
        let objects = objects();
        read(&parsed, &bytes, &objects).ok();
        let mut head = header("Account", "UPDATE");
        head["changedFields"] = json!([bitmap(&[11, 22]), "4-0x03"]);
        let mut real = datum(&json, &head, &json!({"Industry": "Energy", "BillingAddress": {"Street": "x"}}));
        let at = at % real.len();
        real[at] = with;
        if let Ok(payload) = read(&parsed, &real, &objects)
            && payload.header.entity.as_deref() == Some("Account")
        {
            let events = objects.decode(Some(payload), &Position::new("pubsub:AAAB"), arrived()).events;
            prop_assert!(!events.is_empty());
        }
    }

    #[test]
    fn bitmaps_come_back(bits in subsequence((1..=22_usize).collect::<Vec<_>>(), 0..=22), text in "[0-9xA-Za-z-]{0,12}") {
        let (_, account) = account();
        let found = expand(&account, &[bitmap(&bits).into()]).unwrap();
        let expected: Vec<_> = bits.iter().map(|bit| (*bit, None)).collect();
        prop_assert_eq!(found, expected);
        expand(&account, &[text.into()]).ok();
    }
}
