//! How a cell lies in PostgreSQL, how it travels there, and how it is read back.

use std::borrow::Cow;

use chrono::{DateTime, NaiveDate, SecondsFormat, SubsecRound, Utc};
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::mapping::plan::Cell;
use crate::model::stored::StoredType;
use crate::postgres::error::OrderError;

/// What a match leaves out at the ends of a text: ASCII white space.
const BLANKS: [char; 5] = [' ', '\t', '\n', '\u{c}', '\r'];

/// Digits that `numeric` takes before and after the point (PostgreSQL documentation, "Numeric Types").
const MAX_DIGITS: (usize, usize) = (131_072, 16_383);

/// What a column's values are; types of one class may stand for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

    /// The column's type, as `format_type()` spells it.
    pub(super) const fn declared(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Number => "numeric",
            Self::Boolean => "boolean",
            Self::Date => "date",
            Self::DateTime => "timestamp with time zone",
            Self::Gsid => "uuid",
        }
    }

    pub(super) fn parse(declared: &str) -> Option<Self> {
        [
            Self::Text,
            Self::Number,
            Self::Boolean,
            Self::Date,
            Self::DateTime,
            Self::Gsid,
        ]
        .into_iter()
        .find(|class| class.declared() == declared)
    }

    /// The type in which values travel: numbers as their digits.
    pub(super) const fn travels_as(self) -> &'static str {
        match self {
            Self::Number => "text",
            Self::DateTime => "timestamptz",
            other => other.declared(),
        }
    }

    /// A travelled value as the column's.
    pub(super) fn arrived(self, value: &str) -> String {
        match self {
            Self::Number => format!("{value}::numeric"),
            _ => value.to_owned(),
        }
    }
}

/// A value to be written; it lies in the batch or is a GSID that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Val<'a> {
    Null,
    Cell(&'a Cell),
    Gsid(Uuid),
}

static NULL: Cell = Cell::Null;

impl<'a> Val<'a> {
    /// Equal as PostgreSQL has it: numbers by value, instants by microsecond.
    pub(super) fn is(self, other: Val<'_>) -> bool {
        match (self, other) {
            (Val::Gsid(one), Val::Gsid(other)) => one == other,
            (Val::Gsid(one), Val::Cell(Cell::Gsid(other)))
            | (Val::Cell(Cell::Gsid(other)), Val::Gsid(one)) => one == *other,
            (Val::Gsid(_), _) | (_, Val::Gsid(_)) => false,
            (one, other) => same(one.cell(), other.cell()),
        }
    }

    fn cell(self) -> &'a Cell {
        match self {
            Val::Cell(cell) => cell,
            Val::Null | Val::Gsid(_) => &NULL,
        }
    }

    pub(super) fn is_null(self) -> bool {
        matches!(self, Val::Null | Val::Cell(Cell::Null))
    }
}

fn same(one: &Cell, other: &Cell) -> bool {
    match (one, other) {
        (Cell::Number(one), Cell::Number(other)) => {
            one == other || canonical(one) == canonical(other)
        }
        (Cell::DateTime(one), Cell::DateTime(other)) => {
            one.trunc_subsecs(6) == other.trunc_subsecs(6)
        }
        (one, other) => one == other,
    }
}

/// A part of a key: normalised, so that what PostgreSQL finds equal is equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Value<'a> {
    Text(Cow<'a, str>),
    Number(Cow<'a, str>),
    Boolean(bool),
    Date(NaiveDate),
    DateTime(DateTime<Utc>),
    Gsid(Uuid),
}

impl<'a> Value<'a> {
    /// A cell without folding; `None` if it is empty.
    pub(super) fn exact(cell: &'a Cell) -> Option<Self> {
        Some(match cell {
            Cell::Null => return None,
            Cell::Text(text) if text.is_empty() => return None,
            Cell::Text(text) => Self::Text(Cow::Borrowed(text)),
            Cell::Number(digits) => Self::Number(canonical(digits)?),
            Cell::Boolean(value) => Self::Boolean(*value),
            Cell::Date(date) => Self::Date(*date),
            Cell::DateTime(at) => Self::DateTime(at.trunc_subsecs(6)),
            Cell::Gsid(gsid) => Self::Gsid(*gsid),
        })
    }

    pub(super) fn into_owned(self) -> Value<'static> {
        match self {
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Self::Number(digits) => Value::Number(Cow::Owned(digits.into_owned())),
            Self::Boolean(value) => Value::Boolean(value),
            Self::Date(date) => Value::Date(date),
            Self::DateTime(at) => Value::DateTime(at),
            Self::Gsid(gsid) => Value::Gsid(gsid),
        }
    }

    /// As it stands in a parked key and in messages.
    pub(super) fn spelled(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) | Self::Number(text) => Cow::Borrowed(text),
            Self::Boolean(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
            Self::Date(date) => Cow::Owned(date.to_string()),
            Self::DateTime(at) => Cow::Owned(at.to_rfc3339_opts(SecondsFormat::Micros, true)),
            Self::Gsid(gsid) => Cow::Owned(gsid.hyphenated().to_string()),
        }
    }

    /// Reads [`Value::spelled`].
    pub(super) fn parse(class: Class, text: String) -> Option<Value<'static>> {
        Some(match class {
            Class::Text => Value::Text(Cow::Owned(text)),
            Class::Number => Value::Number(Cow::Owned(canonical(&text)?.into_owned())),
            Class::Boolean => Value::Boolean(text.parse().ok()?),
            Class::Date => Value::Date(text.parse().ok()?),
            Class::DateTime => Value::DateTime(parse_instant(&text)?),
            Class::Gsid => Value::Gsid(Uuid::try_parse(&text).ok()?),
        })
    }
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

/// [`fold`] as an SQL expression on a column; in the collation `C`, `lower()` knows ASCII only.
pub(super) fn folded(column: &str, case_blind: bool) -> String {
    let trimmed = format!("btrim({column}, E' \\t\\n\\f\\r') COLLATE \"C\"");
    if case_blind {
        format!("lower({trimmed})")
    } else {
        format!("({trimmed})")
    }
}

/// A plain decimal number without needless zeros and sign; `None` for any other spelling.
pub(super) fn canonical(digits: &str) -> Option<Cow<'_, str>> {
    let (minus, body) = match digits.strip_prefix('-') {
        Some(body) => (true, body),
        None => (false, digits.strip_prefix('+').unwrap_or(digits)),
    };
    let (whole, fraction) = body.split_once('.').unwrap_or((body, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) || whole.len() + fraction.len() == 0 {
        return None;
    }
    if whole.len() > MAX_DIGITS.0 || fraction.len() > MAX_DIGITS.1 {
        return None;
    }
    let short = whole.trim_start_matches('0');
    let short = if short.is_empty() { "0" } else { short };
    let rest = fraction.trim_end_matches('0');
    let zero = short == "0" && rest.is_empty();
    let plain = short.len() == whole.len() && rest.len() == fraction.len() && !(zero && minus);
    if plain && body.contains('.') != rest.is_empty() && !digits.starts_with('+') {
        return Some(Cow::Borrowed(digits));
    }
    let sign = if minus && !zero { "-" } else { "" };
    Some(Cow::Owned(if rest.is_empty() {
        format!("{sign}{short}")
    } else {
        format!("{sign}{short}.{rest}")
    }))
}

/// Why PostgreSQL can't keep a cell in a column of a class, if it can't.
pub(super) fn misfit(cell: &Cell, class: Class) -> Option<&'static str> {
    // 4713 BC is the first year of both types; `timestamptz` ends in 294276 (and chrono before a `date` does).
    let in_reach = |date: NaiveDate| {
        let year = chrono::Datelike::year(&date);
        (-4712..=262_000).contains(&year)
    };
    match (cell, class) {
        (Cell::Null, _) | (Cell::Boolean(_), Class::Boolean) | (Cell::Gsid(_), Class::Gsid) => None,
        (Cell::Text(text), Class::Text) => text
            .contains('\0')
            .then_some("PostgreSQL keeps no text with the character U+0000"),
        (Cell::Number(digits), Class::Number) => canonical(digits)
            .is_none()
            .then_some("it is no plain decimal number that fits `numeric`"),
        (Cell::Date(date), Class::Date) => {
            (!in_reach(*date)).then_some("PostgreSQL keeps no date so far away")
        }
        (Cell::DateTime(at), Class::DateTime) => {
            (!in_reach(at.date_naive())).then_some("PostgreSQL keeps no date so far away")
        }
        _ => Some("it has another type"),
    }
}

/// A column of values on their way, as an array.
pub(super) enum Array<'a> {
    Text(Vec<Option<Cow<'a, str>>>),
    Boolean(Vec<Option<bool>>),
    Date(Vec<Option<NaiveDate>>),
    DateTime(Vec<Option<DateTime<Utc>>>),
    Gsid(Vec<Option<Uuid>>),
}

impl<'a> Array<'a> {
    pub(super) fn new(class: Class, capacity: usize) -> Self {
        match class {
            Class::Text | Class::Number => Self::Text(Vec::with_capacity(capacity)),
            Class::Boolean => Self::Boolean(Vec::with_capacity(capacity)),
            Class::Date => Self::Date(Vec::with_capacity(capacity)),
            Class::DateTime => Self::DateTime(Vec::with_capacity(capacity)),
            Class::Gsid => Self::Gsid(Vec::with_capacity(capacity)),
        }
    }

    pub(super) fn push_null(&mut self) {
        match self {
            Self::Text(values) => values.push(None),
            Self::Boolean(values) => values.push(None),
            Self::Date(values) => values.push(None),
            Self::DateTime(values) => values.push(None),
            Self::Gsid(values) => values.push(None),
        }
    }

    /// Adds a value; one of another type (checked before) is null.
    pub(super) fn push(&mut self, value: Val<'a>) {
        match (self, value) {
            (Self::Gsid(values), Val::Gsid(gsid)) => values.push(Some(gsid)),
            (Self::Gsid(values), Val::Cell(Cell::Gsid(gsid))) => values.push(Some(*gsid)),
            (Self::Text(values), Val::Cell(Cell::Text(text) | Cell::Number(text))) => {
                values.push(Some(Cow::Borrowed(text)));
            }
            (Self::Boolean(values), Val::Cell(Cell::Boolean(value))) => values.push(Some(*value)),
            (Self::Date(values), Val::Cell(Cell::Date(date))) => values.push(Some(*date)),
            (Self::DateTime(values), Val::Cell(Cell::DateTime(at))) => values.push(Some(*at)),
            (array, _) => array.push_null(),
        }
    }

    /// Adds a part of a key.
    pub(super) fn push_part(&mut self, value: &Value<'a>) {
        match (self, value) {
            (Self::Text(values), Value::Text(text) | Value::Number(text)) => {
                values.push(Some(text.clone()));
            }
            (Self::Boolean(values), Value::Boolean(value)) => values.push(Some(*value)),
            (Self::Date(values), Value::Date(date)) => values.push(Some(*date)),
            (Self::DateTime(values), Value::DateTime(at)) => values.push(Some(*at)),
            (Self::Gsid(values), Value::Gsid(gsid)) => values.push(Some(*gsid)),
            (array, _) => array.push_null(),
        }
    }

    pub(super) fn param(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Text(values) => values,
            Self::Boolean(values) => values,
            Self::Date(values) => values,
            Self::DateTime(values) => values,
            Self::Gsid(values) => values,
        }
    }
}

/// What a column is selected as, so that [`decode`] can read it.
pub(super) fn selected(column: &str, class: Option<Class>) -> String {
    match class {
        Some(Class::Number) | None => format!("{column}::text"),
        Some(_) => column.to_owned(),
    }
}

/// A selected value; of a column that another program made, its text.
pub(super) fn decode(row: &Row, place: usize, class: Option<Class>) -> Result<Cell, OrderError> {
    let cell = match class {
        Some(Class::Boolean) => row.try_get::<_, Option<bool>>(place)?.map(Cell::Boolean),
        Some(Class::Date) => row.try_get::<_, Option<NaiveDate>>(place)?.map(Cell::Date),
        Some(Class::DateTime) => row
            .try_get::<_, Option<DateTime<Utc>>>(place)?
            .map(Cell::DateTime),
        Some(Class::Gsid) => row.try_get::<_, Option<Uuid>>(place)?.map(Cell::Gsid),
        Some(Class::Number) => row
            .try_get::<_, Option<String>>(place)?
            .map(|digits| Cell::Number(digits.into())),
        Some(Class::Text) | None => row
            .try_get::<_, Option<String>>(place)?
            .map(|text| Cell::Text(text.into())),
    };
    Ok(cell.unwrap_or(Cell::Null))
}

/// A value of a column in the spelling of [`Cell::to_json`]; `None` if no row can have it.
pub(super) fn from_filter(class: Option<Class>, text: &str) -> Option<Value<'static>> {
    if text.contains('\0') {
        return None;
    }
    Value::parse(class.unwrap_or(Class::Text), text.to_owned())
}

fn parse_instant(text: &str) -> Option<DateTime<Utc>> {
    let at = DateTime::parse_from_rfc3339(text).ok()?;
    Some(at.with_timezone(&Utc).trunc_subsecs(6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_form() {
        for (digits, plain) in [
            ("10", "10"),
            ("10.0", "10"),
            ("10.", "10"),
            ("-0.00", "0"),
            ("-0", "0"),
            ("+7", "7"),
            ("007.50", "7.5"),
            (".5", "0.5"),
            ("0.5", "0.5"),
            ("-12.5", "-12.5"),
            ("9223372036854775808", "9223372036854775808"),
        ] {
            assert_eq!(canonical(digits).as_deref(), Some(plain), "{digits}");
        }
        for other in ["", "-", ".", "1e5", "NaN", " 1", "1 ", "1.2.3", "--1"] {
            assert_eq!(canonical(other), None, "{other}");
        }
        assert!(canonical(&"9".repeat(131_072)).is_some());
        assert!(canonical(&"9".repeat(131_073)).is_none());
    }

    #[test]
    fn a_part_comes_back_as_it_was_spelled() {
        let at = parse_instant("2026-01-05T10:11:12.000345Z").unwrap();
        for (class, value) in [
            (Class::Text, Value::Text("a \"b\"\n".into())),
            (Class::Number, Value::Number("0.1".into())),
            (Class::Boolean, Value::Boolean(true)),
            (Class::Date, Value::Date("2026-01-05".parse().unwrap())),
            (Class::DateTime, Value::DateTime(at)),
            (Class::Gsid, Value::Gsid(Uuid::from_u128(7))),
        ] {
            let text = value.spelled().into_owned();
            assert_eq!(Value::parse(class, text), Some(value));
        }
    }
}
