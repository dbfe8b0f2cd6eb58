//! What fields are compared with: values, patterns, and dates that move with the clock.

use std::cmp::Ordering;
use std::str::Chars;

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, Utc};

use crate::mapping::cast;
use crate::mapping::decimal;
use crate::mapping::instant::{self, Moment};
use crate::model::record_id::RecordId;
use crate::model::value::Scalar;

use super::lexer::Quoted;

/// The right side of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Null,
    Bool(bool),
    /// In plain notation.
    Number(Box<str>),
    Text {
        text: Box<str>,
        /// The text as an id of 18 characters, if it may be one of 15.
        id: Option<RecordId>,
    },
    Day(NaiveDate),
    Instant(DateTime<Utc>),
    Relative(Relative),
}

/// A date literal: some units of time, counted from the one that today lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Relative {
    unit: Unit,
    /// The first unit, 0 being today's.
    from: i32,
    /// The unit after the last.
    to: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

/// The pattern of a `LIKE`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pattern(Vec<Glyph>);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Glyph {
    /// In lower case.
    Char(char),
    One,
    Any,
}

/// Numbers after a literal's colon are at most this, so that no date leaves the calendar.
const MAX_COUNT: i32 = 9999;

/// CRMs keep no empty text.
pub(super) fn is_null(value: Scalar<'_>) -> bool {
    match value {
        Scalar::Null => true,
        Scalar::Text(text) => text.is_empty(),
        Scalar::Bool(_) | Scalar::Number(_) => false,
    }
}

impl Operand {
    pub(super) fn text(text: String) -> Self {
        let id = (text.len() == 15)
            .then(|| RecordId::salesforce(&text).ok())
            .flatten();
        Self::Text {
            text: text.into(),
            id,
        }
    }

    /// How a value that is not null compares with this; `None` if it has no reading of this kind.
    pub(super) fn order(&self, value: Scalar<'_>, now: DateTime<Utc>) -> Option<Ordering> {
        match self {
            Self::Null => None,
            Self::Bool(wanted) => cast::boolean(value).map(|found| found.cmp(wanted)),
            Self::Number(wanted) => {
                let digits = match value {
                    Scalar::Number(number) => number,
                    Scalar::Text(text) => text.trim(),
                    Scalar::Null | Scalar::Bool(_) => return None,
                };
                let found = decimal::plain(digits).ok()?;
                Some(decimal::compare(&found, wanted))
            }
            Self::Text { text, id } => text_order(value, text, id.as_ref()),
            Self::Day(day) => instant::moment(value).map(|found| found.day().cmp(day)),
            Self::Instant(at) => instant::moment(value).map(|found| found.instant().cmp(at)),
            Self::Relative(relative) => {
                let found = instant::moment(value).map(Moment::day)?;
                let (first, after) = relative.days(now.date_naive());
                Some(if found < first {
                    Ordering::Less
                } else if found < after {
                    Ordering::Equal
                } else {
                    Ordering::Greater
                })
            }
        }
    }
}

fn text_order(value: Scalar<'_>, wanted: &str, id: Option<&RecordId>) -> Option<Ordering> {
    match value {
        Scalar::Text(found) if id.is_some_and(|id| id.as_str() == found) => Some(Ordering::Equal),
        Scalar::Text(found) => Some(order(found, wanted)),
        Scalar::Number(number) => {
            let (found, wanted) = (decimal::plain(number), decimal::plain(wanted.trim()));
            Some(decimal::compare(&found.ok()?, &wanted.ok()?))
        }
        Scalar::Bool(found) => Some(order(if found { "true" } else { "false" }, wanted)),
        Scalar::Null => None,
    }
}

/// The order of two texts without case, character by character.
pub(super) fn order(left: &str, right: &str) -> Ordering {
    left.chars().map(fold).cmp(right.chars().map(fold))
}

/// The lower case of a character, where that is one character.
fn fold(character: char) -> char {
    if character.is_ascii() {
        return character.to_ascii_lowercase();
    }
    let mut lower = character.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(single), None) => single,
        _ => character,
    }
}

impl Pattern {
    pub(super) fn new(quoted: &Quoted) -> Self {
        let glyph = |(at, character): (usize, char)| match character {
            _ if quoted.escaped.contains(&at) => Glyph::Char(character),
            '%' => Glyph::Any,
            '_' => Glyph::One,
            _ => Glyph::Char(fold(character)),
        };
        Self(quoted.text.char_indices().map(glyph).collect())
    }

    /// The pattern in other signs.
    pub(super) fn written(&self, any: &str, one: &str, escaped: impl Fn(char) -> String) -> String {
        let glyphs = self.0.iter().map(|glyph| match glyph {
            Glyph::Any => any.to_owned(),
            Glyph::One => one.to_owned(),
            Glyph::Char(c) => escaped(*c),
        });
        glyphs.collect()
    }

    /// The text that it holds between wildcards at its ends, and whether there are such; `None` for any other pattern.
    pub(super) fn within(&self) -> Option<(bool, String, bool)> {
        let (open, inner) = match self.0.as_slice() {
            [Glyph::Any, inner @ ..] => (true, inner),
            inner => (false, inner),
        };
        let (inner, ends_open) = match inner {
            [inner @ .., Glyph::Any] => (inner, true),
            inner => (inner, false),
        };
        let chars = inner.iter().map(|glyph| match glyph {
            Glyph::Char(c) => Some(*c),
            Glyph::One | Glyph::Any => None,
        });
        let text: String = chars.collect::<Option<_>>()?;
        (!text.is_empty()).then_some((open, text, ends_open))
    }

    /// Whether the whole text fits. Goes back to the last `%` only, so that the time is bounded by the product of
    /// the lengths.
    pub(super) fn matches(&self, text: &str) -> bool {
        let mut at = 0;
        let mut rest = text.chars();
        let mut retry: Option<(usize, Chars<'_>)> = None;
        loop {
            let fits = match self.0.get(at) {
                Some(Glyph::Any) => {
                    retry = Some((at + 1, rest.clone()));
                    true
                }
                Some(Glyph::One) => rest.next().is_some(),
                Some(Glyph::Char(wanted)) => rest.next().map(fold) == Some(*wanted),
                None if rest.as_str().is_empty() => return true,
                None => false,
            };
            if fits {
                at += 1;
                continue;
            }
            // The last `%` takes one character more.
            let Some((after, from)) = &mut retry else {
                return false;
            };
            if from.next().is_none() {
                return false;
            }
            at = *after;
            rest = from.clone();
        }
    }
}

impl Relative {
    /// A date literal by name, with the number after its colon (SOQL and SOSL Reference, "Date Formats and Date
    /// Literals in WHERE").
    ///
    /// # Errors
    /// Why the name and number are none; `Ok(None)` if the name is no literal's.
    pub(super) fn parse(name: &str, count: Option<&str>) -> Result<Option<Self>, &'static str> {
        let upper = name.to_ascii_uppercase();
        if upper.contains("_FISCAL_") {
            return Err(
                "literals of fiscal years depend on settings of the org and are not evaluated",
            );
        }
        let fixed = |unit, from, to| Ok(Some(Self { unit, from, to }));
        if let Some(counted) = Counted::parse(&upper) {
            let number = count.ok_or("this literal needs a number after a colon")?;
            let number = number
                .parse()
                .ok()
                .filter(|number| {
                    (0..=MAX_COUNT).contains(number)
                        && !count.is_some_and(|text| text.starts_with('+'))
                })
                .ok_or("the number after the colon must be a whole one from 0 to 9999")?;
            let (unit, from, to) = counted.range(number);
            return fixed(unit, from, to);
        }
        let (unit, from, to) = match &*upper {
            "YESTERDAY" => (Unit::Day, -1, 0),
            "TODAY" => (Unit::Day, 0, 1),
            "TOMORROW" => (Unit::Day, 1, 2),
            "LAST_90_DAYS" => (Unit::Day, -90, 1),
            "NEXT_90_DAYS" => (Unit::Day, 1, 91),
            _ => {
                let Some((word, unit)) = upper.split_once('_') else {
                    return Ok(None);
                };
                let Some(unit) = Unit::singular(unit) else {
                    return Ok(None);
                };
                match word {
                    "LAST" => (unit, -1, 0),
                    "THIS" => (unit, 0, 1),
                    "NEXT" => (unit, 1, 2),
                    _ => return Ok(None),
                }
            }
        };
        if count.is_some() {
            return Err("this literal takes no number");
        }
        fixed(unit, from, to)
    }

    /// The first day, and the day after the last.
    pub(super) fn days(self, today: NaiveDate) -> (NaiveDate, NaiveDate) {
        (
            self.unit.begin(today, self.from),
            self.unit.begin(today, self.to),
        )
    }
}

/// A literal with a number: `LAST_N_DAYS:n`, `NEXT_N_DAYS:n`, `N_DAYS_AGO:n`, and so on.
enum Counted {
    Last(Unit),
    Next(Unit),
    Ago(Unit),
}

impl Counted {
    fn parse(name: &str) -> Option<Self> {
        if let Some(unit) = name.strip_prefix("LAST_N_") {
            return Unit::plural(unit).map(Self::Last);
        }
        if let Some(unit) = name.strip_prefix("NEXT_N_") {
            return Unit::plural(unit).map(Self::Next);
        }
        let unit = name.strip_prefix("N_")?.strip_suffix("_AGO")?;
        Unit::plural(unit).map(Self::Ago)
    }

    /// `LAST_N_DAYS` includes today; the last weeks, months, quarters and years don't include the current one.
    const fn range(&self, count: i32) -> (Unit, i32, i32) {
        match self {
            Self::Last(Unit::Day) => (Unit::Day, -count, 1),
            Self::Last(unit) => (*unit, -count, 0),
            Self::Next(unit) => (*unit, 1, count + 1),
            Self::Ago(unit) => (*unit, -count, 1 - count),
        }
    }
}

impl Unit {
    fn singular(name: &str) -> Option<Self> {
        Some(match name {
            "WEEK" => Self::Week,
            "MONTH" => Self::Month,
            "QUARTER" => Self::Quarter,
            "YEAR" => Self::Year,
            _ => return None,
        })
    }

    fn plural(name: &str) -> Option<Self> {
        match name {
            "DAYS" => Some(Self::Day),
            _ => Self::singular(name.strip_suffix('S')?),
        }
    }

    /// The first day of the unit that lies `count` units after today's.
    fn begin(self, today: NaiveDate, count: i32) -> NaiveDate {
        let month = |start: u32, months: i32| {
            let first = NaiveDate::from_ymd_opt(today.year(), start, 1);
            shift_months(first.unwrap_or(today), months)
        };
        match self {
            Self::Day => shift_days(today, count),
            Self::Week => {
                let since_sunday = today.weekday().num_days_from_sunday();
                let sunday = today.checked_sub_days(Days::new(since_sunday.into()));
                shift_days(sunday.unwrap_or(today), count * 7)
            }
            Self::Month => month(today.month(), count),
            Self::Quarter => month(today.month0() / 3 * 3 + 1, count * 3),
            Self::Year => month(1, count * 12),
        }
    }
}

fn shift_days(day: NaiveDate, count: i32) -> NaiveDate {
    let days = Days::new(count.unsigned_abs().into());
    let shifted = if count < 0 {
        day.checked_sub_days(days)
    } else {
        day.checked_add_days(days)
    };
    shifted.unwrap_or(if count < 0 {
        NaiveDate::MIN
    } else {
        NaiveDate::MAX
    })
}

fn shift_months(day: NaiveDate, count: i32) -> NaiveDate {
    let months = Months::new(count.unsigned_abs());
    let shifted = if count < 0 {
        day.checked_sub_months(months)
    } else {
        day.checked_add_months(months)
    };
    shifted.unwrap_or(if count < 0 {
        NaiveDate::MIN
    } else {
        NaiveDate::MAX
    })
}
