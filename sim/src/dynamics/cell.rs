//! The value of a row's column: read from JSON or CSV, compared, shown.

use std::cmp::Ordering;
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use serde_json::Value;
use serde_json::value::RawValue;

use super::decimal::Decimal;
use super::guid::Guid;
use super::node::Node;
use super::schema::{Column, Kind};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Null,
    Text(Arc<str>),
    Int(i64),
    Double(f64),
    Decimal(Decimal),
    Bool(bool),
    Time(DateTime<Utc>),
    Date(NaiveDate),
    Id(Guid),
    /// The values of a multi-select column, in their own order.
    Choices(Arc<[i32]>),
    /// A row of a table.
    Ref(Arc<str>, Guid),
}

/// Why a column does not take a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// Not of the column's type.
    Type,
    TooLong,
    /// No choice of the column.
    Choice,
    Range,
}

impl Cell {
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Text(Arc::from(text))
    }

    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The id of an id or a reference.
    #[must_use]
    pub fn id(&self) -> Option<Guid> {
        match self {
            Self::Id(id) | Self::Ref(_, id) => Some(*id),
            _ => None,
        }
    }

    /// A column's value from JSON; a lookup's is set by binding, not by this.
    pub fn from_json(column: &Column, raw: &RawValue) -> Result<Self, Unfit> {
        let digits = raw.get().trim();
        if digits == "null" {
            return Ok(Self::Null);
        }
        let value: Value = serde_json::from_str(digits).map_err(|_| Unfit::Type)?;
        match (column.kind, &value) {
            (Kind::Decimal | Kind::Money, Value::Number(_))
            | (Kind::Integer | Kind::BigInt | Kind::Double, Value::Number(_))
            | (Kind::Picklist | Kind::State | Kind::Status, Value::Number(_))
            | (Kind::Boolean, Value::Bool(_)) => Self::parse(column, digits),
            (
                Kind::String
                | Kind::Memo
                | Kind::EntityName
                | Kind::MultiSelectPicklist
                | Kind::DateTime
                | Kind::DateOnly
                | Kind::Uniqueidentifier,
                Value::String(text),
            ) => Self::parse(column, text),
            _ => Err(Unfit::Type),
        }
    }

    /// A column's value from its text, as a CSV file or a JSON number holds it.
    pub fn parse(column: &Column, text: &str) -> Result<Self, Unfit> {
        Ok(match column.kind {
            Kind::String | Kind::Memo | Kind::EntityName => {
                if text.encode_utf16().count() > column.max_length as usize {
                    return Err(Unfit::TooLong);
                }
                Self::text(text)
            }
            Kind::Integer => Self::Int(i64::from(text.parse::<i32>().map_err(|_| Unfit::Range)?)),
            Kind::BigInt => Self::Int(text.parse().map_err(|_| Unfit::Range)?),
            Kind::Double => {
                let value: f64 = text.parse().map_err(|_| Unfit::Type)?;
                if !value.is_finite() {
                    return Err(Unfit::Range);
                }
                Self::Double(value)
            }
            Kind::Decimal | Kind::Money => {
                let value = Decimal::parse(text).ok_or(Unfit::Type)?;
                Self::Decimal(value.rounded(column.precision).ok_or(Unfit::Range)?)
            }
            Kind::Boolean => match text.to_ascii_lowercase().as_str() {
                "true" | "1" => Self::Bool(true),
                "false" | "0" => Self::Bool(false),
                _ => return Err(Unfit::Type),
            },
            Kind::Picklist | Kind::State | Kind::Status => {
                let value = i64::from(text.parse::<i32>().map_err(|_| Unfit::Type)?);
                column.choice(value).ok_or(Unfit::Choice)?;
                Self::Int(value)
            }
            Kind::MultiSelectPicklist => {
                let values = text
                    .split(',')
                    .filter(|part| !part.trim().is_empty())
                    .map(|part| {
                        let value = part.trim().parse::<i32>().map_err(|_| Unfit::Type)?;
                        column.choice(i64::from(value)).ok_or(Unfit::Choice)?;
                        Ok(value)
                    });
                let values = values.collect::<Result<Vec<_>, Unfit>>()?;
                if values.is_empty() {
                    return Ok(Self::Null);
                }
                Self::Choices(values.into())
            }
            Kind::DateTime => Self::Time(time(text).ok_or(Unfit::Type)?),
            Kind::DateOnly => Self::Date(date(text).ok_or(Unfit::Type)?),
            Kind::Uniqueidentifier => Self::Id(text.parse().map_err(|_| Unfit::Type)?),
            Kind::Lookup | Kind::Customer | Kind::Owner => {
                let id = text.parse().map_err(|_| Unfit::Type)?;
                let target = column.targets.first().ok_or(Unfit::Type)?;
                Self::Ref(Arc::from(target.table.as_str()), id)
            }
        })
    }

    /// The JSON of a row.
    #[must_use]
    pub fn json(&self) -> Node {
        match self {
            Self::Null => Node::Value(Value::Null),
            Self::Text(text) => Node::from(text.to_string()),
            Self::Int(value) => Node::from(*value),
            Self::Double(value) => Node::from(*value),
            Self::Decimal(value) => Node::Number(value.to_string()),
            Self::Bool(value) => Node::from(*value),
            Self::Time(time) => Node::from(time.to_rfc3339_opts(SecondsFormat::Secs, true)),
            Self::Date(date) => Node::from(date.to_string()),
            Self::Id(id) | Self::Ref(_, id) => Node::from(id.to_string()),
            Self::Choices(values) => {
                let values: Vec<_> = values.iter().map(i32::to_string).collect();
                Node::from(values.join(","))
            }
        }
    }

    /// The formatted value, in the caller's locale (en-US); `None` where a type has none.
    #[must_use]
    pub fn formatted(&self, column: &Column) -> Option<String> {
        Some(match (self, column.kind) {
            (Self::Int(value), kind) if kind.has_options() => column.choice(*value)?.label.clone(),
            (Self::Int(value), Kind::Integer | Kind::BigInt) => {
                Decimal::parse(&value.to_string())?.grouped()
            }
            (Self::Double(value), _) => Decimal::parse(&format!("{value:.2}"))?.grouped(),
            (Self::Decimal(value), Kind::Money) => format!("${}", value.grouped()),
            (Self::Decimal(value), _) => value.grouped(),
            (Self::Bool(true), _) => "Yes".to_owned(),
            (Self::Bool(false), _) => "No".to_owned(),
            (Self::Time(time), _) => time.format("%-m/%-d/%Y %-I:%M %p").to_string(),
            (Self::Date(date), _) => date.format("%-m/%-d/%Y").to_string(),
            (Self::Choices(values), _) => {
                let label = |value: &i32| column.choice(i64::from(*value)).map(|c| c.label.clone());
                values
                    .iter()
                    .filter_map(label)
                    .collect::<Vec<_>>()
                    .join("; ")
            }
            _ => return None,
        })
    }

    /// Compares like values, null first, texts without regard to case; `None` between unlike types.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        Some(match (self, other) {
            (Self::Null, Self::Null) => Ordering::Equal,
            (Self::Null, _) => Ordering::Less,
            (_, Self::Null) => Ordering::Greater,
            (Self::Text(a), Self::Text(b)) => folded(a).cmp(&folded(b)),
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Time(a), Self::Time(b)) => a.cmp(b),
            (Self::Date(a), Self::Date(b)) => a.cmp(b),
            (Self::Choices(a), Self::Choices(b)) => a.cmp(b),
            (Self::Decimal(a), Self::Decimal(b)) => a.cmp(b),
            (Self::Double(a), Self::Double(b)) => a.total_cmp(b),
            _ => match (self.id(), other.id()) {
                (Some(a), Some(b)) => a.cmp(&b),
                _ => match (self.exact(), other.exact()) {
                    (Some(a), Some(b)) => a.cmp(&b),
                    _ => return None,
                },
            },
        })
    }

    /// The number of a numeric value, whatever its type.
    fn exact(&self) -> Option<Decimal> {
        match self {
            Self::Int(value) => Decimal::parse(&value.to_string()),
            Self::Double(value) => Decimal::parse(&value.to_string()),
            Self::Decimal(value) => Some(*value),
            _ => None,
        }
    }
}

/// A text as comparisons see it.
pub(crate) fn folded(text: &str) -> String {
    text.trim_end().to_lowercase()
}

/// A date-time of ISO 8601; whole seconds are kept, as Dataverse keeps them.
pub(crate) fn time(text: &str) -> Option<DateTime<Utc>> {
    use chrono::SubsecRound;
    let exact = DateTime::parse_from_rfc3339(text)
        .ok()
        .map(|time| time.to_utc())
        .or_else(|| Some(date(text)?.and_hms_opt(0, 0, 0)?.and_utc()))?;
    Some(exact.trunc_subsecs(0))
}

fn date(text: &str) -> Option<NaiveDate> {
    (text.len() == 10).then(|| text.parse().ok()).flatten()
}
