//! A field's value as the CRM said it: null, boolean, number with its digits, or text.

use std::fmt;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::model::field_map::FieldMap;

/// A record's fields. Null means empty at the source; absent means not selected or not readable.
pub type Fields = FieldMap<Value>;

/// A scalar. Compound values never get this far: connectors take their components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Empty at the source.
    Null,
    /// True or false.
    Bool(bool),
    /// A number, digits kept.
    Number(Number),
    /// Text; dates, times and ids are text until a mapping casts them.
    Text(Arc<str>),
}

/// A JSON number in its own digits: equal by value (`1054` = `1054.0`), printed as it came.
#[derive(Clone, Debug)]
pub struct Number(Arc<str>);

/// A value that lies elsewhere: in a [`Value`], or in a change's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar<'a> {
    /// Empty at the source.
    Null,
    /// True or false.
    Bool(bool),
    /// A number in its own digits.
    Number(&'a str),
    /// Text.
    Text(&'a str),
}

impl<'a> Scalar<'a> {
    /// The text, if it is one.
    #[must_use]
    pub const fn as_text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(digits) => f.write_str(digits),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl<'a> From<&'a Value> for Scalar<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => Self::Number(number.as_str()),
            Value::Text(text) => Self::Text(text),
        }
    }
}

impl Value {
    /// A text value.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(text.into())
    }

    /// A number from its JSON spelling; `None` if it is none.
    #[must_use]
    pub fn number(text: &str) -> Option<Self> {
        Number::parse(text).map(Self::Number)
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is empty at the source.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Scalar::from(self).fmt(f)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Number(Number(value.to_string().into()))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl Number {
    /// Parses JSON's number grammar, nothing looser.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let starts_well = digits.starts_with(|c: char| c.is_ascii_digit());
        if !starts_well || serde_json::from_str::<&RawValue>(text).is_err() {
            return None;
        }
        Some(Self(text.into()))
    }

    /// The digits as they came.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Sign, significant digits without outer zeros, and the power of ten of the last digit.
    fn canonical(&self) -> (bool, String, i64) {
        let (negative, body) = match self.0.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, &*self.0),
        };
        let (mantissa, exponent) = match body.split_once(['e', 'E']) {
            // An exponent past i64 is not a number any CRM keeps; saturating keeps this total.
            Some((mantissa, power)) => (mantissa, saturating_exponent(power)),
            None => (body, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut power = exponent.saturating_sub(i64::try_from(fraction.len()).unwrap_or(i64::MAX));
        let digits = format!("{whole}{fraction}");
        let trimmed = digits.trim_start_matches('0');
        let significant = trimmed.trim_end_matches('0');
        if significant.is_empty() {
            return (false, String::new(), 0);
        }
        let dropped = trimmed.len() - significant.len();
        power = power.saturating_add(i64::try_from(dropped).unwrap_or(i64::MAX));
        (negative, significant.to_owned(), power)
    }
}

fn saturating_exponent(text: &str) -> i64 {
    text.parse().unwrap_or(if text.starts_with('-') {
        i64::MIN
    } else {
        i64::MAX
    })
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || self.canonical() == other.canonical()
    }
}

impl Eq for Number {}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(number) => {
                let raw: &RawValue =
                    serde_json::from_str(&number.0).map_err(serde::ser::Error::custom)?;
                raw.serialize(serializer)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Raw, because serde_json's own numbers lose digits past f64.
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::from_json(raw.get()).map_err(D::Error::custom)
    }
}

impl Value {
    /// Reads one JSON scalar.
    ///
    /// # Errors
    /// A text for an object, an array or broken JSON.
    pub fn from_json(json: &str) -> Result<Self, String> {
        match json.as_bytes().first() {
            Some(b'n') => Ok(Self::Null),
            Some(b't') => Ok(Self::Bool(true)),
            Some(b'f') => Ok(Self::Bool(false)),
            Some(b'"') => serde_json::from_str::<String>(json)
                .map(|text| Self::Text(text.into()))
                .map_err(|error| error.to_string()),
            Some(b'-' | b'0'..=b'9') => {
                Self::number(json).ok_or_else(|| format!("`{json}` is not a number"))
            }
            _ => Err("a field holds one value, not an object or a list".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_survive() {
        for json in [
            "123456789012345678",
            "0.10",
            "-1.5e300",
            "12345678901234567890.123456789",
        ] {
            let value: Value = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&value).unwrap(), json);
        }
    }

    #[test]
    fn numbers_are_equal_by_value() {
        let number = |text| Value::number(text).unwrap();
        assert_eq!(number("1054"), number("1054.0"));
        assert_eq!(number("1e3"), number("1000"));
        assert_eq!(number("-0.0"), number("0"));
        assert_ne!(number("0.1"), number("0.10000000000000001"));
        assert_ne!(number("-1"), number("1"));
    }

    #[test]
    fn refuses_what_is_no_scalar() {
        for json in ["{}", "[1]", "{\"a\":1}"] {
            assert!(serde_json::from_str::<Value>(json).is_err(), "{json}");
        }
        for text in ["", "abc", "01", "1.", "+1", " 1", "NaN"] {
            assert!(Value::number(text).is_none(), "{text}");
        }
    }
}
