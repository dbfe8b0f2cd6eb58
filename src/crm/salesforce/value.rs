//! A field's value from JSON, in the one spelling that its kind has.

use crate::model::record_id::RecordId;
use crate::model::schema::FieldKind;
use crate::model::value::Value;

use super::stamp;

/// JSON that is no value of the field's kind.
#[derive(Debug, thiserror::Error)]
#[error("`{json}` is no {kind:?}")]
pub struct Unfit {
    kind: FieldKind,
    json: String,
}

impl Unfit {
    /// What does not fit; the beginning of it is shown.
    #[must_use]
    pub fn new(kind: FieldKind, json: &str) -> Self {
        Self {
            kind,
            json: json.chars().take(60).collect(),
        }
    }
}

/// The value of a field of `kind`. Empty text is null (Salesforce keeps none), instants, days, times and ids
/// have one spelling, numbers keep their digits.
///
/// # Errors
/// [`Unfit`] for JSON that the kind can't be read from.
pub fn read(kind: FieldKind, json: &str) -> Result<Value, Unfit> {
    let value = Value::from_json(json).map_err(|_| Unfit::new(kind, json))?;
    fit(kind, value).ok_or_else(|| Unfit::new(kind, json))
}

/// The value in the one spelling of its kind, `None` if it does not fit.
#[must_use]
pub fn fit(kind: FieldKind, value: Value) -> Option<Value> {
    match (kind, value) {
        (_, Value::Null) => Some(Value::Null),
        (FieldKind::Compound | FieldKind::Binary, _) => None,
        (_, Value::Text(text)) if text.is_empty() => Some(Value::Null),
        (FieldKind::Id | FieldKind::Reference, Value::Text(text)) => RecordId::salesforce(&text)
            .ok()
            .map(|id| Value::text(id.as_str())),
        (FieldKind::Boolean, Value::Text(text)) => match &*text {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            _ => None,
        },
        (FieldKind::Integer | FieldKind::Decimal, Value::Text(text)) => Value::number(&text),
        (FieldKind::DateTime, Value::Text(text)) => {
            stamp::normal_instant(&text).map(Value::text)
        }
        (FieldKind::Date, Value::Text(text)) => stamp::normal_day(&text).map(Value::text),
        (FieldKind::Time, Value::Text(text)) => stamp::normal_time(&text).map(Value::text),
        (FieldKind::DateTime, Value::Number(number)) => millis(number.as_str())
            .and_then(stamp::from_millis)
            .map(|at| Value::text(stamp::render(at))),
        (FieldKind::Date, Value::Number(number)) => millis(number.as_str())
            .and_then(stamp::from_millis)
            .map(|at| Value::text(at.date_naive().to_string())),
        (FieldKind::Time, Value::Number(number)) => millis(number.as_str())
            .and_then(stamp::time_from_millis)
            .map(Value::text),
        (FieldKind::Boolean, value @ Value::Bool(_))
        | (FieldKind::Integer | FieldKind::Decimal, value @ Value::Number(_))
        // `anyType` fields may hold any scalar.
        | (FieldKind::Text | FieldKind::Picklist | FieldKind::MultiPicklist, value) => Some(value),
        _ => None,
    }
}

/// The value of a row's field; what doesn't fit its kind is kept as the CRM said it, for a mapping to judge:
/// one odd value must not stop a full sync.
#[must_use]
pub fn read_row(kind: FieldKind, json: &str) -> Value {
    read(kind, json)
        .or_else(|_| Value::from_json(json))
        .unwrap_or_else(|_| Value::text(json))
}

/// The value of a cell, equal to what [`read_row`] makes of the same value's JSON. CSV has one spelling for null and
/// for empty text.
#[must_use]
pub fn read_cell(kind: FieldKind, cell: &str) -> Value {
    fit(kind, Value::text(cell)).unwrap_or_else(|| Value::text(cell))
}

fn millis(digits: &str) -> Option<i64> {
    digits.strip_suffix(".0").unwrap_or(digits).parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    fn json(kind: FieldKind, json: &str) -> String {
        serde_json::to_string(&read(kind, json).unwrap()).unwrap()
    }

    #[test]
    fn one_value_has_one_spelling() {
        let at = "\"2024-04-09T20:26:27.000Z\"";
        for text in [
            at,
            "\"2024-04-09T20:26:27.000+0000\"",
            "\"2024-04-09T20:26:27Z\"",
            "\"2024-04-09T22:26:27.000+02:00\"",
            "1712694387000",
        ] {
            assert_eq!(json(FieldKind::DateTime, text), at, "{text}");
        }
        assert_eq!(
            json(FieldKind::Reference, "\"001A0000006Vm9u\""),
            "\"001A0000006Vm9uIAC\""
        );
        assert_eq!(json(FieldKind::Date, "1712620800000"), "\"2024-04-09\"");
        assert_eq!(json(FieldKind::Time, "\"09:00:00Z\""), "\"09:00:00.000Z\"");
        assert_eq!(json(FieldKind::Time, "32400000"), "\"09:00:00.000Z\"");
    }

    #[test]
    fn empty_text_is_null() {
        for kind in [
            FieldKind::Text,
            FieldKind::Id,
            FieldKind::DateTime,
            FieldKind::Decimal,
        ] {
            assert_eq!(json(kind, "\"\""), "null");
            assert_eq!(json(kind, "null"), "null");
        }
    }

    #[test]
    fn digits_stay() {
        let digits = "12345678901234567890.1234567890";
        assert_eq!(json(FieldKind::Decimal, digits), digits);
        assert_eq!(json(FieldKind::Decimal, &format!("\"{digits}\"")), digits);
        assert_eq!(json(FieldKind::Text, "\"0012\""), "\"0012\"");
    }

    #[test]
    fn what_does_not_fit_is_told_by_events_and_kept_by_rows() {
        for (kind, text) in [
            (FieldKind::DateTime, "\"soon\""),
            (FieldKind::Boolean, "\"yes\""),
            (FieldKind::Integer, "true"),
            (FieldKind::Reference, "\"001A0000006Vm9uXXX\""),
            (FieldKind::Text, "{\"a\":1}"),
            (FieldKind::Compound, "\"x\""),
        ] {
            assert!(read(kind, text).is_err(), "{kind:?} {text}");
        }
        assert_eq!(
            read_row(FieldKind::DateTime, "\"soon\""),
            Value::text("soon")
        );
        assert_eq!(
            read_row(FieldKind::Text, "{\"a\":1}"),
            Value::text("{\"a\":1}")
        );
    }

    proptest! {
        #[test]
        fn reading_twice_changes_nothing(text in any::<String>()) {
            let source = serde_json::to_string(&text).unwrap();
            for kind in [FieldKind::Text, FieldKind::DateTime, FieldKind::Date, FieldKind::Time, FieldKind::Id] {
                let once = read_row(kind, &source);
                let again = read_row(kind, &serde_json::to_string(&once).unwrap());
                prop_assert_eq!(once, again);
            }
        }
    }
}
