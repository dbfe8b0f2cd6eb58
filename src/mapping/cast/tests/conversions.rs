//! The tables of `docs/conversions.md`: every type of either CRM, as its values come, cast to every stored type.

use super::*;

/// Stored types that take values alike, as the tables head their columns.
const COLUMNS: [(&str, &[StoredType]); 9] = [
    (
        "string, rich_text",
        &[StoredType::String, StoredType::RichText],
    ),
    ("picklist", &[StoredType::Picklist]),
    ("multi_select", &[StoredType::MultiSelect]),
    (
        "number, currency, percentage",
        &[
            StoredType::Number,
            StoredType::Currency,
            StoredType::Percentage,
        ],
    ),
    ("boolean", &[StoredType::Boolean]),
    ("date", &[StoredType::Date]),
    ("datetime", &[StoredType::DateTime]),
    ("email", &[StoredType::Email]),
    ("url", &[StoredType::Url]),
];

/// Types by their names in the Salesforce Object Reference ("Field Types"), and a value as an image holds it.
const SALESFORCE: [(&str, &str); 26] = [
    ("id, reference", r#""001A0000006Vm9uIAC""#),
    ("reference `@type`", r#""Account""#),
    ("string, encryptedstring, anyType", r#"" Acme ""#),
    ("string with digits", r#""012.50""#),
    ("string, blank", r#"" ""#),
    ("textarea", r#""two\nlines""#),
    ("phone", r#""+49 30 1234""#),
    ("url", r#""https://acme.example""#),
    ("email", r#""Ann@acme.example""#),
    ("picklist, combobox", r#""Energy""#),
    ("picklist, combobox `@label`", r#""Energie""#),
    ("multipicklist", r#""A;B C""#),
    ("multipicklist `@label`", r#""First;Second""#),
    ("boolean", "true"),
    ("int, long", "42"),
    ("int, 0", "0"),
    ("double", "12345678901234567890.10"),
    ("double, exponent", "1.50E3"),
    ("currency", "1234.50"),
    ("percent", "12.5"),
    ("date", r#""2026-01-31""#),
    ("datetime", r#""2026-01-31T23:30:00.000+0000""#),
    (
        "datetime, another offset",
        r#""2026-01-31T23:30:00.000-0500""#,
    ),
    ("time", r#""10:11:12.000Z""#),
    ("any, empty", "null"),
    ("any text, empty", r#""""#),
];

/// Types by their names in Dataverse's metadata (`AttributeTypeName`), and a value as an image holds it.
const DYNAMICS: [(&str, &str); 21] = [
    ("String", r#""Acme""#),
    ("Memo", r#""two\nlines""#),
    ("Integer", "42"),
    ("BigInt", "9007199254740993"),
    ("Decimal, Double", "0.1000000000"),
    ("Money", "1234.5000"),
    ("Boolean", "false"),
    ("Boolean `@label`", r#""Yes""#),
    ("DateTime, DateOnly", r#""2026-01-31""#),
    ("DateTime, UserLocal", r#""2026-01-31T23:30:00Z""#),
    ("DateTime, TimeZoneIndependent", r#""2026-01-31T23:30:00Z""#),
    ("Picklist, State, Status", "3"),
    ("Picklist, State, Status `@label`", r#""Accounting""#),
    ("MultiSelectPicklist", r#""1,2""#),
    ("MultiSelectPicklist `@label`", r#""A; B""#),
    (
        "Lookup, Customer, Owner",
        r#""0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b""#,
    ),
    ("Lookup, Customer, Owner `@type`", r#""account""#),
    (
        "Uniqueidentifier",
        r#""0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b""#,
    ),
    ("EntityName", r#""account""#),
    ("any, empty", "null"),
    ("any text, empty", r#""""#),
];

fn table(types: &[(&str, &str)]) -> String {
    let heads: Vec<&str> = COLUMNS.iter().map(|(head, _)| *head).collect();
    let mut text = format!(
        "| Type | Comes as | {} |\n|---|---|{}\n",
        heads.join(" | "),
        "---|".repeat(heads.len())
    );
    for (name, json) in types {
        let value = Value::from_json(json).unwrap();
        let cells = COLUMNS.map(|(_, stored)| {
            let casts: Vec<_> = stored.iter().map(|ty| cast(&value, *ty).ok()).collect();
            assert!(casts.windows(2).all(|pair| pair[0] == pair[1]), "{name}");
            match &casts[0] {
                None => "–".to_owned(),
                Some(Cell::Null) => "null".to_owned(),
                Some(cell) => format!("`{}`", cell.to_json()),
            }
        });
        text.push_str(&format!("| {name} | `{json}` | {} |\n", cells.join(" | ")));
    }
    text
}

/// GSIDs, of which CRMs have none but by look-up: a text that reads as a UUID, nothing else.
#[test]
fn ids_of_rows_are_uuids_alone() {
    for (name, json) in SALESFORCE.iter().chain(&DYNAMICS) {
        let value = Value::from_json(json).unwrap();
        let cell = cast(&value, StoredType::Gsid).ok();
        let text = value.as_text().unwrap_or_default();
        let expected = match uuid::Uuid::try_parse(text) {
            Ok(gsid) => Some(Cell::Gsid(gsid)),
            Err(_)
                if text.trim().is_empty()
                    && !matches!(value, Value::Bool(_) | Value::Number(_)) =>
            {
                Some(Cell::Null)
            }
            Err(_) => None,
        };
        assert_eq!(cell, expected, "{name}");
    }
}

#[test]
fn the_manuals_tables_are_what_is_done() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/conversions.md");
    let manual = std::fs::read_to_string(path).unwrap();
    for table in [table(&SALESFORCE), table(&DYNAMICS)] {
        assert!(
            manual.contains(&table),
            "docs/conversions.md lacks:\n{table}"
        );
    }
}

#[test]
fn texts_of_any_length_are_whole() {
    let long = "ü".repeat(1_000_000);
    for ty in [
        StoredType::String,
        StoredType::RichText,
        StoredType::Picklist,
        StoredType::Url,
    ] {
        assert_eq!(
            cast(&Value::from(&*long), ty),
            Ok(Cell::Text(long.as_str().into()))
        );
    }
}
