//! The query functions `Microsoft.Dynamics.CRM.…` that `$filter` may use.

use chrono::{DateTime, Datelike, Days, TimeDelta, Utc};
use serde_json::Value;

use super::super::cell::Cell;
use super::super::error::ApiError;
use super::super::guid::Guid;
use super::super::schema::Column;

/// A function over one column.
#[derive(Debug, Clone)]
pub(crate) enum Function {
    In(Vec<Cell>),
    NotIn(Vec<Cell>),
    Between(Cell, Cell),
    NotBetween(Cell, Cell),
    /// Any of these values, or none of them.
    Contain(Vec<i32>, bool),
    /// A span of time about now.
    When(Span),
    EqualUser(bool),
    EqualBusiness(bool),
    On(Cell),
    OnOrAfter(Cell),
    OnOrBefore(Cell),
}

/// A span of time, told from now.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Span {
    Last(TimeDelta),
    Next(TimeDelta),
    OlderThan(TimeDelta),
    /// Whole days from this many before today to so many after.
    Days(i64, i64),
    ThisMonth,
    ThisYear,
}

/// The column that a function is about.
pub(crate) fn property(name: &str, arguments: &[(String, String)]) -> Result<String, ApiError> {
    argument(name, arguments, "PropertyName").and_then(|text| unquoted(name, text))
}

/// Reads a function's other arguments.
pub(crate) fn read(
    name: &str,
    column: &Column,
    arguments: &[(String, String)],
) -> Result<Function, ApiError> {
    let values = || -> Result<Vec<Cell>, ApiError> {
        let text = argument(name, arguments, "PropertyValues")?;
        let wrong = || {
            ApiError::odata(format!(
                "The values of {name} are no list of quoted values: {text}"
            ))
        };
        let Value::Array(items) = serde_json::from_str(text).map_err(|_| wrong())? else {
            return Err(wrong());
        };
        let value = |item: &Value| match item {
            Value::String(text) => cell(column, text),
            _ => Err(wrong()),
        };
        items.iter().map(value).collect()
    };
    let pair = || match values()?.as_slice() {
        [low, high] => Ok((low.clone(), high.clone())),
        _ => Err(ApiError::odata(format!("{name} takes two values"))),
    };
    let one = || {
        let text = argument(name, arguments, "PropertyValue")?;
        cell(
            column,
            &unquoted(name, text).unwrap_or_else(|_| text.to_owned()),
        )
    };
    let amount = || {
        let text = argument(name, arguments, "PropertyValue")?;
        let number = text
            .parse::<i64>()
            .ok()
            .filter(|n| (1..100_000).contains(n));
        number.ok_or_else(|| ApiError::odata(format!("{name} takes a whole number, not {text}")))
    };
    Ok(match name {
        "In" => Function::In(values()?),
        "NotIn" => Function::NotIn(values()?),
        "Between" => pair().map(|(low, high)| Function::Between(low, high))?,
        "NotBetween" => pair().map(|(low, high)| Function::NotBetween(low, high))?,
        "ContainValues" | "DoesNotContainValues" => {
            let text = argument(name, arguments, "PropertyValues")?;
            let items: Vec<String> = serde_json::from_str(text).map_err(|_| {
                ApiError::odata(format!("The values of {name} are no list: {text}"))
            })?;
            let whole = |item: &String| {
                item.parse::<i32>()
                    .map_err(|_| ApiError::odata(format!("'{item}' is no choice")))
            };
            let items = items.iter().map(whole).collect::<Result<_, _>>()?;
            Function::Contain(items, name == "ContainValues")
        }
        "LastXHours" => Function::When(Span::Last(TimeDelta::hours(amount()?))),
        "LastXDays" => Function::When(Span::Last(TimeDelta::days(amount()?))),
        "LastXWeeks" => Function::When(Span::Last(TimeDelta::weeks(amount()?))),
        "NextXHours" => Function::When(Span::Next(TimeDelta::hours(amount()?))),
        "NextXDays" => Function::When(Span::Next(TimeDelta::days(amount()?))),
        "NextXWeeks" => Function::When(Span::Next(TimeDelta::weeks(amount()?))),
        "OlderThanXMinutes" => Function::When(Span::OlderThan(TimeDelta::minutes(amount()?))),
        "OlderThanXHours" => Function::When(Span::OlderThan(TimeDelta::hours(amount()?))),
        "OlderThanXDays" => Function::When(Span::OlderThan(TimeDelta::days(amount()?))),
        "OlderThanXWeeks" => Function::When(Span::OlderThan(TimeDelta::weeks(amount()?))),
        "Today" => Function::When(Span::Days(0, 0)),
        "Yesterday" => Function::When(Span::Days(1, -1)),
        "Tomorrow" => Function::When(Span::Days(-1, 1)),
        "Last7Days" => Function::When(Span::Days(7, 0)),
        "Next7Days" => Function::When(Span::Days(0, 7)),
        "ThisMonth" => Function::When(Span::ThisMonth),
        "ThisYear" => Function::When(Span::ThisYear),
        "EqualUserId" => Function::EqualUser(true),
        "NotEqualUserId" => Function::EqualUser(false),
        "EqualBusinessId" => Function::EqualBusiness(true),
        "NotEqualBusinessId" => Function::EqualBusiness(false),
        "On" => Function::On(one()?),
        "OnOrAfter" => Function::OnOrAfter(one()?),
        "OnOrBefore" => Function::OnOrBefore(one()?),
        _ => {
            return Err(ApiError::odata(format!(
                "The function Microsoft.Dynamics.CRM.{name} is unknown, or not simulated."
            )));
        }
    })
}

fn argument<'a>(
    function: &str,
    arguments: &'a [(String, String)],
    name: &str,
) -> Result<&'a str, ApiError> {
    let found = arguments.iter().find(|(known, _)| known == name);
    found
        .map(|(_, value)| value.as_str())
        .ok_or_else(|| ApiError::odata(format!("{function} needs the parameter {name}")))
}

fn unquoted(function: &str, text: &str) -> Result<String, ApiError> {
    let inner = text
        .strip_prefix('\'')
        .and_then(|text| text.strip_suffix('\''));
    inner.map(|inner| inner.replace("''", "'")).ok_or_else(|| {
        ApiError::odata(format!(
            "{function} takes a text in single quotes, not {text}"
        ))
    })
}

fn cell(column: &Column, text: &str) -> Result<Cell, ApiError> {
    Cell::parse(column, text).or_else(|_| match column.kind.has_options() {
        // A value that is no choice is asked for, and found nowhere.
        true => text.parse().map(Cell::Int).map_err(|_| bad(column, text)),
        false => Err(bad(column, text)),
    })
}

fn bad(column: &Column, text: &str) -> ApiError {
    ApiError::odata(format!(
        "'{text}' is no value of the column {}",
        column.name
    ))
}

/// Who and when a function is evaluated for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub now: DateTime<Utc>,
    pub user: Guid,
    pub business_unit: Guid,
}

impl Function {
    /// Whether it holds for a value.
    pub fn holds(&self, value: &Cell, moment: &Moment) -> bool {
        let equal = |other: &Cell| value.compare(other).is_some_and(std::cmp::Ordering::is_eq);
        let within = |low: &Cell, high: &Cell| {
            let not_below = value.compare(low).is_some_and(std::cmp::Ordering::is_ge);
            !value.is_null()
                && not_below
                && value.compare(high).is_some_and(std::cmp::Ordering::is_le)
        };
        match self {
            Self::In(values) => !value.is_null() && values.iter().any(equal),
            Self::NotIn(values) => !value.is_null() && !values.iter().any(equal),
            Self::Between(low, high) => within(low, high),
            Self::NotBetween(low, high) => !value.is_null() && !within(low, high),
            Self::Contain(values, wanted) => match value {
                Cell::Choices(held) => values.iter().any(|v| held.contains(v)) == *wanted,
                _ => !wanted,
            },
            Self::EqualUser(wanted) => (value.id() == Some(moment.user)) == *wanted,
            Self::EqualBusiness(wanted) => (value.id() == Some(moment.business_unit)) == *wanted,
            Self::When(span) => time_of(value).is_some_and(|time| span.holds(time, moment.now)),
            Self::On(day) => days(value, day).is_some_and(|(a, b)| a == b),
            Self::OnOrAfter(day) => days(value, day).is_some_and(|(a, b)| a >= b),
            Self::OnOrBefore(day) => days(value, day).is_some_and(|(a, b)| a <= b),
        }
    }
}

fn time_of(value: &Cell) -> Option<DateTime<Utc>> {
    match value {
        Cell::Time(time) => Some(*time),
        Cell::Date(date) => Some(date.and_time(chrono::NaiveTime::MIN).and_utc()),
        _ => None,
    }
}

fn days(a: &Cell, b: &Cell) -> Option<(chrono::NaiveDate, chrono::NaiveDate)> {
    Some((time_of(a)?.date_naive(), time_of(b)?.date_naive()))
}

impl Span {
    fn holds(self, time: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        let today = now.date_naive();
        match self {
            Self::Last(by) => now - by <= time && time <= now,
            Self::Next(by) => now <= time && time <= now + by,
            Self::OlderThan(by) => time < now - by,
            Self::Days(before, after) => {
                let moved = |by: i64| {
                    let days = Days::new(by.unsigned_abs());
                    if by < 0 {
                        today.checked_sub_days(days)
                    } else {
                        today.checked_add_days(days)
                    }
                };
                let day = time.date_naive();
                moved(-before).is_some_and(|low| low <= day)
                    && moved(after).is_some_and(|high| day <= high)
            }
            Self::ThisMonth => (time.year(), time.month()) == (now.year(), now.month()),
            Self::ThisYear => time.year() == now.year(),
        }
    }
}
