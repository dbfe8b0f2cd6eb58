//! Date literals: names of days, weeks, months, quarters and years around a day, in UTC; weeks begin on Sunday.

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveTime, Utc};

/// The days from the first to before the second; `LAST_N_DAYS` ends with today.
pub(super) type Span = (NaiveDate, NaiveDate);

const PLAIN: [&str; 17] = [
    "YESTERDAY",
    "TODAY",
    "TOMORROW",
    "LAST_WEEK",
    "THIS_WEEK",
    "NEXT_WEEK",
    "LAST_MONTH",
    "THIS_MONTH",
    "NEXT_MONTH",
    "LAST_90_DAYS",
    "NEXT_90_DAYS",
    "LAST_QUARTER",
    "THIS_QUARTER",
    "NEXT_QUARTER",
    "LAST_YEAR",
    "THIS_YEAR",
    "NEXT_YEAR",
];
const COUNTED: [&str; 16] = [
    "LAST_N_DAYS",
    "NEXT_N_DAYS",
    "N_DAYS_AGO",
    "LAST_N_WEEKS",
    "NEXT_N_WEEKS",
    "N_WEEKS_AGO",
    "LAST_N_MONTHS",
    "NEXT_N_MONTHS",
    "N_MONTHS_AGO",
    "LAST_N_QUARTERS",
    "NEXT_N_QUARTERS",
    "N_QUARTERS_AGO",
    "LAST_N_YEARS",
    "NEXT_N_YEARS",
    "N_YEARS_AGO",
    "N_DAYS_FROM_NOW",
];

/// Whether the upper-case word is a literal.
pub(super) fn is_literal(word: &str) -> bool {
    PLAIN.contains(&word) || COUNTED.contains(&word)
}

/// What a literal means on the day of `now`; `None` if it lacks its number, has one too many, or leaves the calendar.
pub(super) fn span(word: &str, count: Option<u32>, now: DateTime<Utc>) -> Option<Span> {
    if COUNTED.contains(&word) != count.is_some() {
        return None;
    }
    let today = now.date_naive();
    let n = i64::from(count.unwrap_or(0));
    match word {
        "LAST_90_DAYS" => return Some((days(today, -90)?, days(today, 1)?)),
        "NEXT_90_DAYS" => return Some((days(today, 1)?, days(today, 91)?)),
        "LAST_N_DAYS" => return Some((days(today, -n)?, days(today, 1)?)),
        "NEXT_N_DAYS" => return Some((days(today, 1)?, days(today, n + 1)?)),
        _ => {}
    }
    let unit = Unit::of(word)?;
    let (from, to) = if word.starts_with("LAST_N_") {
        (-n, 0)
    } else if word.starts_with("NEXT_N_") {
        (1, n + 1)
    } else if word.ends_with("_AGO") {
        (-n, 1 - n)
    } else if word.ends_with("_FROM_NOW") {
        (n, n + 1)
    } else if word.starts_with("LAST_") || word == "YESTERDAY" {
        (-1, 0)
    } else if word.starts_with("NEXT_") || word == "TOMORROW" {
        (1, 2)
    } else {
        (0, 1)
    };
    let start = unit.start(today)?;
    Some((unit.step(start, from)?, unit.step(start, to)?))
}

/// A day's beginning.
pub(super) fn midnight(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

#[derive(Clone, Copy)]
enum Unit {
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

impl Unit {
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "YESTERDAY" | "TODAY" | "TOMORROW" => Self::Day,
            _ if word.contains("DAY") => Self::Day,
            _ if word.contains("WEEK") => Self::Week,
            _ if word.contains("MONTH") => Self::Month,
            _ if word.contains("QUARTER") => Self::Quarter,
            _ if word.contains("YEAR") => Self::Year,
            _ => return None,
        })
    }

    /// The first day of the unit that holds `day`.
    fn start(self, day: NaiveDate) -> Option<NaiveDate> {
        match self {
            Self::Day => Some(day),
            Self::Week => days(day, -i64::from(day.weekday().num_days_from_sunday())),
            Self::Month => day.with_day(1),
            Self::Quarter => day.with_day(1)?.with_month(day.month0() / 3 * 3 + 1),
            Self::Year => NaiveDate::from_ymd_opt(day.year(), 1, 1),
        }
    }

    fn step(self, start: NaiveDate, count: i64) -> Option<NaiveDate> {
        match self {
            Self::Day => days(start, count),
            Self::Week => days(start, count * 7),
            Self::Month => months(start, count),
            Self::Quarter => months(start, count * 3),
            Self::Year => months(start, count * 12),
        }
    }
}

fn days(day: NaiveDate, count: i64) -> Option<NaiveDate> {
    let by = Days::new(count.unsigned_abs());
    if count < 0 {
        day.checked_sub_days(by)
    } else {
        day.checked_add_days(by)
    }
}

fn months(day: NaiveDate, count: i64) -> Option<NaiveDate> {
    let by = Months::new(u32::try_from(count.unsigned_abs()).ok()?);
    if count < 0 {
        day.checked_sub_months(by)
    } else {
        day.checked_add_months(by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_name_the_days_around_today() {
        let now = "2024-05-15T10:00:00Z".parse().unwrap();
        let cases = [
            ("TODAY", None, "2024-05-15", "2024-05-16"),
            ("YESTERDAY", None, "2024-05-14", "2024-05-15"),
            ("TOMORROW", None, "2024-05-16", "2024-05-17"),
            ("THIS_WEEK", None, "2024-05-12", "2024-05-19"),
            ("LAST_WEEK", None, "2024-05-05", "2024-05-12"),
            ("NEXT_MONTH", None, "2024-06-01", "2024-07-01"),
            ("THIS_QUARTER", None, "2024-04-01", "2024-07-01"),
            ("LAST_YEAR", None, "2023-01-01", "2024-01-01"),
            ("LAST_N_DAYS", Some(3), "2024-05-12", "2024-05-16"),
            ("NEXT_N_DAYS", Some(3), "2024-05-16", "2024-05-19"),
            ("N_DAYS_AGO", Some(2), "2024-05-13", "2024-05-14"),
            ("LAST_N_MONTHS", Some(2), "2024-03-01", "2024-05-01"),
            ("N_YEARS_AGO", Some(1), "2023-01-01", "2024-01-01"),
        ];
        for (word, count, from, to) in cases {
            assert!(is_literal(word));
            let expected = (from.parse().unwrap(), to.parse().unwrap());
            assert_eq!(span(word, count, now), Some(expected), "{word}");
        }
        assert_eq!(span("LAST_N_DAYS", None, now), None);
        assert_eq!(span("TODAY", Some(1), now), None);
        assert!(!is_literal("SOMEDAY"));
    }
}
