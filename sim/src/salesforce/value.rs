//! A field's value, and its three spellings: CSV cell, REST JSON, CometD JSON.

use std::cmp::Ordering;
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, NaiveTime, SubsecRound, Utc};
use serde_json::Value as Json;

use super::schema::FieldType;

/// One value; stamps have whole seconds, as Salesforce stores them.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Arc<str>),
    /// 18 characters, compared with regard to case.
    Id(Arc<str>),
    Date(NaiveDate),
    DateTime(DateTime<Utc>),
    Time(NaiveTime),
}

impl Value {
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(Arc::from(text))
    }

    pub(crate) fn id(id: &str) -> Self {
        Self::Id(Arc::from(id))
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Id(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_datetime(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::DateTime(time) => Some(*time),
            _ => None,
        }
    }

    pub(crate) fn as_number(&self) -> Option<f64> {
        match self {
            #[allow(clippy::cast_precision_loss)]
            Self::Int(number) => Some(*number as f64),
            Self::Double(number) => Some(*number),
            _ => None,
        }
    }

    /// The value of a CSV cell; `None` if it is not of the type. An empty cell is null, but for a boolean.
    pub(crate) fn parse(kind: FieldType, cell: &str) -> Option<Self> {
        if cell.is_empty() {
            return Some(match kind {
                FieldType::Boolean => Self::Bool(false),
                _ => Self::Null,
            });
        }
        match kind {
            FieldType::Boolean => parse_bool(cell).map(Self::Bool),
            FieldType::Int => cell
                .parse::<i32>()
                .ok()
                .map(|number| Self::Int(number.into())),
            FieldType::Long => cell.parse().ok().map(Self::Int),
            FieldType::Double | FieldType::Currency | FieldType::Percent => cell
                .parse::<f64>()
                .ok()
                .filter(|number| number.is_finite())
                .map(Self::Double),
            FieldType::Date => cell.parse().ok().map(Self::Date),
            FieldType::DateTime => parse_datetime(cell).map(Self::DateTime),
            FieldType::Time => parse_time(cell).map(Self::Time),
            FieldType::Id | FieldType::Reference => {
                super::ids::normalise(cell).map(|id| Self::id(&id))
            }
            FieldType::Address | FieldType::Location => None,
            _ => Some(Self::text(cell)),
        }
    }

    /// The value of REST JSON; `None` if it is not of the type. An empty text is null, as Salesforce stores it.
    pub(crate) fn from_json(kind: FieldType, json: &Json) -> Option<Self> {
        match json {
            Json::Null if kind == FieldType::Boolean => None,
            Json::Null => Some(Self::Null),
            Json::Bool(value) => (kind == FieldType::Boolean).then_some(Self::Bool(*value)),
            Json::Number(number) if kind.is_number() => Self::parse(kind, &number.to_string()),
            Json::String(text) if text.is_empty() && kind != FieldType::Boolean => Some(Self::Null),
            Json::String(text) if text.trim().is_empty() && kind.is_text() => Some(Self::Null),
            Json::String(text) => Self::parse(kind, text),
            Json::Number(_) | Json::Array(_) | Json::Object(_) => None,
        }
    }

    /// As REST answers it: datetimes end in `+0000`, without a colon.
    pub(crate) fn rest(&self) -> Json {
        match self {
            Self::DateTime(time) => Json::from(rest_datetime(*time)),
            _ => self.plain(),
        }
    }

    /// As CometD sends it: datetimes end in `Z`.
    pub(crate) fn cometd(&self) -> Json {
        match self {
            Self::DateTime(time) => Json::from(cometd_datetime(*time)),
            _ => self.plain(),
        }
    }

    fn plain(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::from(*value),
            Self::Int(number) => Json::from(*number),
            Self::Double(number) => Json::from(*number),
            Self::Text(text) | Self::Id(text) => Json::from(&**text),
            Self::Date(date) => Json::from(date.to_string()),
            Self::DateTime(time) => Json::from(rest_datetime(*time)),
            Self::Time(time) => Json::from(time.format("%H:%M:%S%.3fZ").to_string()),
        }
    }

    /// The order of two values of one field, text without regard to case; `None` if one is null or of another type.
    pub(crate) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Date(a), Self::Date(b)) => Some(a.cmp(b)),
            (Self::DateTime(a), Self::DateTime(b)) => Some(a.cmp(b)),
            (Self::Time(a), Self::Time(b)) => Some(a.cmp(b)),
            (Self::Text(a), Self::Text(b)) => Some(compare_text(a, b)),
            (Self::Id(a), Self::Id(b)) => Some(a.cmp(b)),
            (a, b) => a.as_number()?.partial_cmp(&b.as_number()?),
        }
    }
}

/// Text order without regard to case.
pub(crate) fn compare_text(a: &str, b: &str) -> Ordering {
    if a.is_ascii() && b.is_ascii() {
        let fold = |byte: u8| byte.to_ascii_lowercase();
        return a.bytes().map(fold).cmp(b.bytes().map(fold));
    }
    let fold = |c: char| c.to_lowercase();
    a.chars().flat_map(fold).cmp(b.chars().flat_map(fold))
}

/// `2024-04-09T20:26:27.000+0000`.
pub(crate) fn rest_datetime(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S%.3f+0000").to_string()
}

/// `2024-04-09T20:26:27.000Z`.
pub(crate) fn cometd_datetime(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// A datetime with an offset (`Z`, `+00:00` or `+0000`), cut to whole seconds.
pub(crate) fn parse_datetime(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z"))
        .ok()
        .filter(|_| text.contains('T'))
        .map(|time| time.with_timezone(&Utc).trunc_subsecs(0))
}

fn parse_time(text: &str) -> Option<NaiveTime> {
    text.strip_suffix('Z')
        .and_then(|time| NaiveTime::parse_from_str(time, "%H:%M:%S%.f").ok())
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_datetime_has_two_spellings() {
        for text in [
            "2024-04-09T20:26:27.000+0000",
            "2024-04-09T20:26:27Z",
            "2024-04-09T22:26:27.900+02:00",
        ] {
            let value = Value::parse(FieldType::DateTime, text).unwrap();
            assert_eq!(value.rest(), json!("2024-04-09T20:26:27.000+0000"));
            assert_eq!(value.cometd(), json!("2024-04-09T20:26:27.000Z"));
        }
        assert_eq!(parse_datetime("2024-04-09"), None);
        assert_eq!(parse_datetime("2024-04-09T20:26:27"), None);
    }

    #[test]
    fn json_must_be_of_the_fields_type() {
        let bad = [
            (FieldType::Int, json!("abc")),
            (FieldType::Int, json!(1.5)),
            (FieldType::Int, json!(3_000_000_000_u64)),
            (FieldType::Boolean, json!(null)),
            (FieldType::Boolean, json!(1)),
            (FieldType::String, json!(5)),
            (FieldType::String, json!({"a": 1})),
            (FieldType::Date, json!("2024-13-01")),
            (FieldType::DateTime, json!("2024-01-01")),
            (FieldType::Reference, json!("no-id")),
        ];
        for (kind, json) in bad {
            assert_eq!(Value::from_json(kind, &json), None, "{kind:?} {json}");
        }
        assert_eq!(
            Value::from_json(FieldType::Double, &json!(5)),
            Some(Value::Double(5.0))
        );
        assert_eq!(
            Value::from_json(FieldType::String, &json!("  ")),
            Some(Value::Null)
        );
    }

    #[test]
    fn text_compares_without_case_and_null_compares_with_nothing() {
        assert_eq!(
            Value::text("acme").compare(&Value::text("ACME")),
            Some(Ordering::Equal)
        );
        assert_eq!(
            Value::text("straße").compare(&Value::text("STRAßE")),
            Some(Ordering::Equal)
        );
        assert_eq!(Value::Null.compare(&Value::Null), None);
        assert_eq!(
            Value::Int(5).compare(&Value::Double(5.5)),
            Some(Ordering::Less)
        );
    }
}
