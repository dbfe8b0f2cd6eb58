//! How a cell lies in SQLite, and how it is read back.

use std::borrow::Cow;

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};
use uuid::Uuid;

use crate::mapping::plan::Cell;
use crate::model::stored::StoredType;

/// What a match leaves out at the ends of a text: ASCII white space.
const BLANKS: [char; 5] = [' ', '\t', '\n', '\u{c}', '\r'];

/// A value as it is bound. A number has one form (integer, else real, else text), so that equal numbers are
/// equal values, and no digit is lost.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stored<'a> {
    /// Empty.
    Null,
    /// A whole number of 64 bits, or a boolean.
    Integer(i64),
    /// A number whose shortest text has all its digits.
    Real(f64),
    /// Everything else.
    Text(Cow<'a, str>),
}

/// What a column's values are; types of one class may stand for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Text,
    Number,
    Boolean,
    Date,
    DateTime,
    Gsid,
}

impl Class {
    pub(super) const fn of(ty: StoredType) -> Self {
        match ty {
            StoredType::String
            | StoredType::Picklist
            | StoredType::MultiSelect
            | StoredType::Email
            | StoredType::Url
            | StoredType::RichText => Self::Text,
            StoredType::Number | StoredType::Currency | StoredType::Percentage => Self::Number,
            StoredType::Boolean => Self::Boolean,
            StoredType::Date => Self::Date,
            StoredType::DateTime => Self::DateTime,
            StoredType::Gsid => Self::Gsid,
        }
    }

    /// The type in `CREATE TABLE … STRICT`. `ANY` alone keeps integers, reals and texts as they are bound.
    pub(super) const fn declared(self) -> &'static str {
        match self {
            Self::Number => "ANY",
            Self::Boolean => "INTEGER",
            Self::Text | Self::Date | Self::DateTime | Self::Gsid => "TEXT",
        }
    }
}

impl ToSql for Stored<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(value) => ValueRef::Integer(*value),
            Self::Real(value) => ValueRef::Real(*value),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

impl Stored<'_> {
    pub(super) fn text(text: impl Into<String>) -> Stored<'static> {
        Stored::Text(Cow::Owned(text.into()))
    }

    pub(super) fn gsid(gsid: Uuid) -> Stored<'static> {
        Stored::text(gsid.hyphenated().to_string())
    }
}

impl From<ValueRef<'_>> for Stored<'static> {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(value) => Self::Integer(value),
            ValueRef::Real(value) => Self::Real(value),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                Self::text(String::from_utf8_lossy(bytes))
            }
        }
    }
}

/// A cell as it is stored.
pub(super) fn encode(cell: &Cell) -> Stored<'_> {
    match cell {
        Cell::Null => Stored::Null,
        Cell::Boolean(value) => Stored::Integer(i64::from(*value)),
        Cell::Number(digits) => number(digits),
        Cell::Text(text) => Stored::Text(Cow::Borrowed(text)),
        Cell::Date(date) => Stored::text(date.to_string()),
        Cell::DateTime(at) => Stored::text(instant(*at)),
        Cell::Gsid(gsid) => Stored::gsid(*gsid),
    }
}

/// An instant as it is stored: milliseconds, or microseconds where there are any.
pub(super) fn instant(at: DateTime<Utc>) -> String {
    let format = if at.timestamp_subsec_micros().is_multiple_of(1_000) {
        SecondsFormat::Millis
    } else {
        SecondsFormat::Micros
    };
    at.to_rfc3339_opts(format, true)
}

/// The text that a match compares, `None` if nothing is left of it.
pub(super) fn fold(text: &str, case_blind: bool) -> Option<Cow<'_, str>> {
    let trimmed = text.trim_matches(BLANKS);
    if trimmed.is_empty() {
        return None;
    }
    let lower = case_blind && trimmed.bytes().any(|byte| byte.is_ascii_uppercase());
    Some(if lower {
        Cow::Owned(trimmed.to_ascii_lowercase())
    } else {
        Cow::Borrowed(trimmed)
    })
}

/// [`fold`] as an SQL expression on a column; `lower()` of SQLite knows ASCII only.
pub(super) fn folded(column: &str, case_blind: bool) -> String {
    let blanks: String = BLANKS.iter().collect();
    if case_blind {
        format!("lower(trim({column}, '{blanks}'))")
    } else {
        format!("trim({column}, '{blanks}')")
    }
}

fn number(digits: &str) -> Stored<'_> {
    if let Ok(whole) = digits.parse() {
        return Stored::Integer(whole);
    }
    let Some(plain) = canonical(digits) else {
        return Stored::Text(Cow::Borrowed(digits));
    };
    if let Ok(whole) = plain.parse() {
        return Stored::Integer(whole);
    }
    match plain.parse::<f64>() {
        Ok(real) if real.is_finite() && real.to_string() == plain => Stored::Real(real),
        _ => Stored::text(plain),
    }
}

/// A plain decimal number without needless zeros and sign; `None` for any other spelling.
fn canonical(digits: &str) -> Option<String> {
    let (sign, body) = match digits.strip_prefix('-') {
        Some(body) => ("-", body),
        None => ("", digits.strip_prefix('+').unwrap_or(digits)),
    };
    let (whole, fraction) = body.split_once('.').unwrap_or((body, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) || whole.len() + fraction.len() == 0 {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(match (whole, fraction) {
        ("0", "") => "0".to_owned(),
        (whole, "") => format!("{sign}{whole}"),
        (whole, fraction) => format!("{sign}{whole}.{fraction}"),
    })
}

/// A stored value as a cell of a column's type; a value that another program put there is shown as it is.
pub(super) fn decode(ty: Option<StoredType>, value: ValueRef<'_>) -> Cell {
    let class = ty.map(Class::of);
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(value) if class == Some(Class::Boolean) => Cell::Boolean(value != 0),
        ValueRef::Integer(value) => Cell::Number(value.to_string().into()),
        ValueRef::Real(value) => Cell::Number(value.to_string().into()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            let text = String::from_utf8_lossy(bytes);
            typed(class, &text).unwrap_or_else(|| Cell::Text(text.into()))
        }
    }
}

fn typed(class: Option<Class>, text: &str) -> Option<Cell> {
    match class? {
        Class::Number => Some(Cell::Number(text.into())),
        Class::Date => text.parse::<NaiveDate>().ok().map(Cell::Date),
        Class::DateTime => parse_instant(text).map(Cell::DateTime),
        Class::Gsid => Uuid::try_parse(text).ok().map(Cell::Gsid),
        Class::Text | Class::Boolean => None,
    }
}

fn parse_instant(text: &str) -> Option<DateTime<Utc>> {
    let at = DateTime::parse_from_rfc3339(text).ok()?;
    Some(at.with_timezone(&Utc))
}

/// A value of a column in the spelling of [`Cell::to_json`], as it is stored; `None` if no row can have it.
pub(super) fn from_filter(ty: Option<StoredType>, text: &str) -> Option<Stored<'_>> {
    let Some(ty) = ty else {
        return Some(Stored::Text(Cow::Borrowed(text)));
    };
    match Class::of(ty) {
        Class::Number => Some(number(text)),
        Class::Boolean => text
            .parse()
            .ok()
            .map(|value: bool| Stored::Integer(value.into())),
        Class::DateTime => parse_instant(text).map(|at| Stored::text(instant(at))),
        Class::Gsid => Uuid::try_parse(text).ok().map(Stored::gsid),
        Class::Text | Class::Date => Some(Stored::Text(Cow::Borrowed(text))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;

    fn back(digits: &str) -> String {
        let stored = number(digits);
        let ToSqlOutput::Borrowed(value) = stored.to_sql().unwrap() else {
            panic!("{stored:?} is not borrowed");
        };
        match decode(Some(StoredType::Number), value) {
            Cell::Number(digits) => digits.into(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_number_has_one_form_and_all_its_digits() {
        for (digits, stored) in [
            ("10", Stored::Integer(10)),
            ("10.0", Stored::Integer(10)),
            ("-0.00", Stored::Integer(0)),
            ("9223372036854775807", Stored::Integer(i64::MAX)),
            ("9223372036854775808", Stored::text("9223372036854775808")),
            ("0.10", Stored::Real(0.1)),
            ("-12.5", Stored::Real(-12.5)),
            ("100000000000000000000", Stored::Real(1e20)),
            (
                "0.1000000000000000055",
                Stored::text("0.1000000000000000055"),
            ),
            (
                "123456789012345678.25",
                Stored::text("123456789012345678.25"),
            ),
            ("1e5", Stored::text("1e5")),
        ] {
            assert_eq!(number(digits), stored, "{digits}");
        }
    }

    proptest! {
        #[test]
        fn digits_survive(whole in "0|[1-9][0-9]{0,30}", fraction in "[0-9]{0,20}[1-9]", minus: bool) {
            let sign = if minus { "-" } else { "" };
            let digits = format!("{sign}{whole}.{fraction}");
            prop_assert_eq!(back(&digits), digits.clone());
            // Zeros at the end are another spelling of the same number.
            let longer = format!("{digits}00");
            prop_assert_eq!(number(&longer), number(&digits));
        }

        #[test]
        fn instants_survive(micros in 0_i64..4_000_000_000_000_000) {
            let at = DateTime::from_timestamp_micros(micros).unwrap();
            let text = instant(at);
            prop_assert_eq!(typed(Some(Class::DateTime), &text), Some(Cell::DateTime(at)));
        }
    }

    #[test]
    fn matches_look_past_blanks_and_case() {
        assert_eq!(fold(" A b\t\r\n", true).as_deref(), Some("a b"));
        assert_eq!(fold("A", false).as_deref(), Some("A"));
        assert_eq!(fold(" \u{c} ", false), None);
        // Another white space is a character like any other.
        assert_eq!(fold("\u{a0}", true).as_deref(), Some("\u{a0}"));
    }
}
