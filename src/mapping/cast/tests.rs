//! The matrix of casts, cell by cell, and its edges.

use chrono::{NaiveDate, TimeZone, Utc};

use super::*;
use crate::model::value::Value;

mod conversions;

const TYPES: [StoredType; 13] = [
    StoredType::String,
    StoredType::Number,
    StoredType::Currency,
    StoredType::Percentage,
    StoredType::Boolean,
    StoredType::Date,
    StoredType::DateTime,
    StoredType::Picklist,
    StoredType::MultiSelect,
    StoredType::Gsid,
    StoredType::Email,
    StoredType::Url,
    StoredType::RichText,
];

fn text(text: &str) -> Option<Cell> {
    Some(Cell::Text(text.into()))
}

fn digits(text: &str) -> Option<Cell> {
    Some(Cell::Number(text.into()))
}

fn day(year: i32, month: u32, day: u32) -> Option<Cell> {
    NaiveDate::from_ymd_opt(year, month, day).map(Cell::Date)
}

fn at(text: &str) -> Option<Cell> {
    Some(Cell::DateTime(text.parse().unwrap()))
}

/// Kinds of source values, each with what every type (in the order of [`TYPES`]) makes of it.
fn matrix() -> Vec<(Value, [Option<Cell>; 13])> {
    let null = || Some(Cell::Null);
    let gsid = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b";
    let number = |text: &str| Value::number(text).unwrap();
    vec![
        (Value::Null, std::array::from_fn(|_| null())),
        (Value::from(""), std::array::from_fn(|_| null())),
        (
            Value::Bool(true),
            [
                text("true"),
                None,
                None,
                None,
                Some(Cell::Boolean(true)),
                None,
                None,
                text("true"),
                text("true"),
                None,
                None,
                None,
                text("true"),
            ],
        ),
        (
            number("1.50E3"),
            [
                text("1.50E3"),
                digits("1500"),
                digits("1500"),
                digits("1500"),
                None,
                day(1970, 1, 1),
                at("1970-01-01T00:00:01.5Z"),
                text("1.50E3"),
                text("1.50E3"),
                None,
                None,
                None,
                text("1.50E3"),
            ],
        ),
        (
            number("0.25"),
            [
                text("0.25"),
                digits("0.25"),
                digits("0.25"),
                digits("0.25"),
                None,
                None,
                None,
                text("0.25"),
                text("0.25"),
                None,
                None,
                None,
                text("0.25"),
            ],
        ),
        (
            Value::from(" 007.10 "),
            [
                text(" 007.10 "),
                digits("7.10"),
                digits("7.10"),
                digits("7.10"),
                None,
                None,
                None,
                text("007.10"),
                text("007.10"),
                None,
                None,
                text("007.10"),
                text(" 007.10 "),
            ],
        ),
        (
            Value::from(" Yes "),
            [
                text(" Yes "),
                None,
                None,
                None,
                Some(Cell::Boolean(true)),
                None,
                None,
                text("Yes"),
                text("Yes"),
                None,
                None,
                text("Yes"),
                text(" Yes "),
            ],
        ),
        (
            Value::from("2024-04-09"),
            [
                text("2024-04-09"),
                None,
                None,
                None,
                None,
                day(2024, 4, 9),
                at("2024-04-09T00:00:00Z"),
                text("2024-04-09"),
                text("2024-04-09"),
                None,
                None,
                text("2024-04-09"),
                text("2024-04-09"),
            ],
        ),
        (
            Value::from("2024-04-09T23:26:27.000-0100"),
            [
                text("2024-04-09T23:26:27.000-0100"),
                None,
                None,
                None,
                None,
                day(2024, 4, 10),
                at("2024-04-10T00:26:27Z"),
                text("2024-04-09T23:26:27.000-0100"),
                text("2024-04-09T23:26:27.000-0100"),
                None,
                None,
                text("2024-04-09T23:26:27.000-0100"),
                text("2024-04-09T23:26:27.000-0100"),
            ],
        ),
        (
            Value::from(" A ; ;B;"),
            [
                text(" A ; ;B;"),
                None,
                None,
                None,
                None,
                None,
                None,
                text("A ; ;B;"),
                text("A;B"),
                None,
                None,
                text("A ; ;B;"),
                text(" A ; ;B;"),
            ],
        ),
        (
            Value::from(gsid),
            [
                text(gsid),
                None,
                None,
                None,
                None,
                None,
                None,
                text(gsid),
                text(gsid),
                Some(Cell::Gsid(gsid.parse().unwrap())),
                None,
                text(gsid),
                text(gsid),
            ],
        ),
        (
            Value::from(" Ann@Acme.example "),
            [
                text(" Ann@Acme.example "),
                None,
                None,
                None,
                None,
                None,
                None,
                text("Ann@Acme.example"),
                text("Ann@Acme.example"),
                None,
                text("Ann@Acme.example"),
                text("Ann@Acme.example"),
                text(" Ann@Acme.example "),
            ],
        ),
    ]
}

#[test]
fn every_cell_of_the_matrix() {
    for (value, row) in matrix() {
        for (ty, expected) in TYPES.into_iter().zip(row) {
            assert_eq!(
                cast(&value, ty).ok(),
                expected,
                "{value:?} as {}",
                type_name(ty)
            );
        }
    }
}

#[test]
fn truth_values() {
    for (value, expected) in [
        (Value::from("TRUE"), Some(true)),
        (Value::from("no"), Some(false)),
        (Value::from("0"), Some(false)),
        (Value::from("1"), Some(true)),
        (Value::from("False"), Some(false)),
        (Value::from(1), Some(true)),
        (Value::number("0.0").unwrap(), Some(false)),
        (Value::from(2), None),
        (Value::from("y"), None),
        (Value::from("wahr"), None),
        (Value::Bool(false), Some(false)),
        (Value::Null, None),
    ] {
        assert_eq!(boolean(&value), expected, "{value:?}");
    }
}

#[test]
fn blank_text_is_null_where_text_is_not_kept_as_it_is() {
    for ty in TYPES {
        let kept = matches!(ty, StoredType::String | StoredType::RichText);
        let expected = if kept {
            Cell::Text(" ".into())
        } else {
            Cell::Null
        };
        assert_eq!(
            cast(&Value::from(" "), ty),
            Ok(expected),
            "{}",
            type_name(ty)
        );
    }
    assert_eq!(
        cast(&Value::from(" ; "), StoredType::MultiSelect),
        Ok(Cell::Null)
    );
}

#[test]
fn numbers_are_never_rounded_and_never_endless() {
    let exact = "-12345678901234567890.12345678901234567890";
    assert_eq!(
        cast(&Value::from(exact), StoredType::Currency).ok(),
        digits(exact)
    );
    for value in [
        Value::number("1e400").unwrap(),
        Value::from(&*"1".repeat(401)),
    ] {
        let refused = cast(&value, StoredType::Number).unwrap_err();
        assert_eq!(refused.wanted, "a number of at most 400 digits");
        assert!(
            refused.value.chars().count() <= SHOWN + 1,
            "{}",
            refused.value
        );
    }
}

#[test]
fn dates_out_of_range_are_refused() {
    for value in [
        Value::from("10000-01-01"),
        Value::from("2024-02-30"),
        Value::from("2024-04-09T20:26:27"),
        Value::number("1e15").unwrap(),
    ] {
        assert!(cast(&value, StoredType::Date).is_err(), "{value:?}");
        assert!(cast(&value, StoredType::DateTime).is_err(), "{value:?}");
    }
    let last = Utc.with_ymd_and_hms(9999, 12, 31, 23, 59, 59).unwrap();
    assert_eq!(
        cast(&Value::from("9999-12-31T23:59:59Z"), StoredType::DateTime),
        Ok(Cell::DateTime(last))
    );
}

#[test]
fn placeholders_are_no_addresses() {
    for address in ["n/a", "none", "@", "a@", "@b", "a b@c", "a@b c", "-"] {
        assert!(
            cast(&Value::from(address), StoredType::Email).is_err(),
            "{address}"
        );
    }
    for address in ["a@b", "\"x@y\"@z.example", "ä@ö.example"] {
        assert!(
            cast(&Value::from(address), StoredType::Email).is_ok(),
            "{address}"
        );
    }
}

#[test]
fn values_are_shortened_at_a_character() {
    let refused = cast(&Value::from(&*"ü".repeat(100)), StoredType::Date).unwrap_err();
    assert_eq!(refused.value, format!("{}…", "ü".repeat(60)));
    assert_eq!(shorten(&"x".repeat(60)), "x".repeat(60));
}

#[test]
fn type_names_are_those_of_configs() {
    for ty in TYPES {
        assert_eq!(
            serde_json::to_value(ty).unwrap(),
            serde_json::Value::from(type_name(ty))
        );
    }
}
