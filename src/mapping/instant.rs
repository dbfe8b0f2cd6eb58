//! Days and instants as CRMs spell them, read without guessing a time zone.

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, TimeDelta, Utc};

use crate::mapping::decimal;
use crate::model::value::Scalar;

/// What a value says of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A day, without a time zone.
    Day(NaiveDate),
    /// An instant, to the microsecond (as PostgreSQL keeps it).
    Instant(DateTime<Utc>),
}

impl Moment {
    /// The day; of an instant, its day in UTC.
    #[must_use]
    pub fn day(self) -> NaiveDate {
        match self {
            Self::Day(day) => day,
            Self::Instant(at) => at.date_naive(),
        }
    }

    /// The instant; of a day, its beginning in UTC.
    #[must_use]
    pub fn instant(self) -> DateTime<Utc> {
        match self {
            Self::Day(day) => day.and_time(NaiveTime::MIN).and_utc(),
            Self::Instant(at) => at,
        }
    }
}

/// Reads a day, an instant or a number of milliseconds since 1970.
///
/// Texts: `YYYY-MM-DD`, or that with `T` (or a space) and a time with an offset: `Z`, `+0000` (Salesforce REST API
/// Developer Guide), `+00:00` or `+00`; seconds and their fraction may be missing. Numbers: what Salesforce's
/// Pub/Sub API sends for dates. Years 1 to 9999; nothing without an offset, since its instant would be a guess.
#[must_use]
pub fn moment<'a>(value: impl Into<Scalar<'a>>) -> Option<Moment> {
    match value.into() {
        Scalar::Text(text) => parse(text.trim()),
        Scalar::Number(number) => epoch_millis(number).map(Moment::Instant),
        Scalar::Null | Scalar::Bool(_) => None,
    }
}

/// Reads a text as [`moment`] does.
#[must_use]
pub fn parse(text: &str) -> Option<Moment> {
    let day = day(text.get(..10)?)?;
    let rest = &text[10..];
    if rest.is_empty() {
        return Some(Moment::Day(day));
    }
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (time, offset) = split_offset(rest)?;
    let at = day.and_time(time_of_day(time)?).and_utc();
    in_range(at.checked_sub_signed(offset)?).map(Moment::Instant)
}

/// Two digits and two digits and two digits, in a form that chrono checks.
fn day(text: &str) -> Option<NaiveDate> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let year = number(text.get(..4)?)?;
    let date = NaiveDate::from_ymd_opt(
        i32::try_from(year).ok()?,
        number(text.get(5..7)?)?,
        number(text.get(8..10)?)?,
    )?;
    (date.year() >= 1).then_some(date)
}

/// The time before the offset, and the offset.
fn split_offset(text: &str) -> Option<(&str, TimeDelta)> {
    if let Some(time) = text.strip_suffix(['Z', 'z']) {
        return Some((time, TimeDelta::zero()));
    }
    let at = text.rfind(['+', '-'])?;
    let (time, offset) = text.split_at(at);
    let (sign, digits) = offset.split_at(1);
    let (hours, minutes) = match digits.len() {
        2 => (digits, "00"),
        4 => (digits.get(..2)?, digits.get(2..)?),
        5 => digits.split_once(':')?,
        _ => return None,
    };
    let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = i64::from(hours * 3600 + minutes * 60);
    Some((
        time,
        TimeDelta::seconds(if sign == "-" { -seconds } else { seconds }),
    ))
}

/// `hh:mm`, `hh:mm:ss` or `hh:mm:ss.fraction`.
fn time_of_day(text: &str) -> Option<NaiveTime> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = clock.split(':');
    let hours = two_digits(parts.next()?)?;
    let minutes = two_digits(parts.next()?)?;
    let seconds = match parts.next() {
        Some(seconds) => two_digits(seconds)?,
        // A fraction of a minute is no spelling of any CRM.
        None if text.contains('.') => return None,
        None => 0,
    };
    if parts.next().is_some() {
        return None;
    }
    NaiveTime::from_hms_micro_opt(hours, minutes, seconds, micros(fraction)?)
}

/// A fraction of a second, cut after the microsecond.
fn micros(fraction: &str) -> Option<u32> {
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let kept = &fraction[..fraction.len().min(6)];
    let places = u32::try_from(6 - kept.len()).ok()?;
    Some(kept.parse::<u32>().ok()? * 10_u32.pow(places))
}

fn two_digits(text: &str) -> Option<u32> {
    (text.len() == 2).then(|| number(text)).flatten()
}

fn number(text: &str) -> Option<u32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn epoch_millis(digits: &str) -> Option<DateTime<Utc>> {
    let plain = decimal::plain(digits).ok()?;
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    if !fraction.bytes().all(|byte| byte == b'0') {
        return None;
    }
    in_range(DateTime::from_timestamp_millis(whole.parse().ok()?)?)
}

fn in_range(at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    (1..=9999).contains(&at.year()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::value::Value;

    fn shown(text: &str) -> Option<String> {
        match parse(text)? {
            Moment::Day(day) => Some(day.to_string()),
            Moment::Instant(at) => Some(at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)),
        }
    }

    #[test]
    fn spellings_of_crms_are_read() {
        for (text, expected) in [
            ("2024-04-09", "2024-04-09"),
            ("2024-02-29", "2024-02-29"),
            ("2024-04-09T20:26:27.000+0000", "2024-04-09T20:26:27Z"),
            ("2024-04-09T20:26:27.000Z", "2024-04-09T20:26:27Z"),
            ("2024-04-09T20:26:27Z", "2024-04-09T20:26:27Z"),
            ("2024-04-09T20:26Z", "2024-04-09T20:26:00Z"),
            ("2024-04-09 20:26:27z", "2024-04-09T20:26:27Z"),
            ("2024-04-09T22:26:27+02:00", "2024-04-09T20:26:27Z"),
            ("2024-04-09T15:26:27.5-0530", "2024-04-09T20:56:27.500Z"),
            ("2024-12-31T23:30:00-01", "2025-01-01T00:30:00Z"),
            (
                "2024-04-09T20:26:27.1234567Z",
                "2024-04-09T20:26:27.123456Z",
            ),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "2024",
            "2024-4-9",
            "2024-02-30",
            "2024-13-01",
            "0000-01-01",
            "20240409",
            "2024-04-09T20:26:27",
            "2024-04-09T",
            "2024-04-09Z",
            "2024-04-09T24:00:00Z",
            "2024-04-09T20:60:00Z",
            "2024-04-09T23:59:60Z",
            "2024-04-09T20Z",
            "2024-04-09T20:26.5Z",
            "2024-04-09T20:26:27.Z",
            "2024-04-09T20:26:27+24:00",
            "2024-04-09T20:26:27+0:00",
            "2024-04-09T20:26:27+000",
            "2024-04-09x20:26:27Z",
            "2024-04-09T20:26:27 UTC",
            "0001-01-01T00:00:00+01:00",
            "９９９９-01-01",
            "+024-04-09",
        ] {
            assert_eq!(shown(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_milliseconds() {
        let read = |digits: &str| moment(&Value::number(digits).unwrap());
        let at = |millis| {
            Some(Moment::Instant(
                DateTime::from_timestamp_millis(millis).unwrap(),
            ))
        };
        assert_eq!(read("1767607872123"), at(1_767_607_872_123));
        assert_eq!(read("1.767607872E12"), at(1_767_607_872_000));
        assert_eq!(read("-1000.0"), at(-1000));
        assert_eq!(read("1.5"), None);
        assert_eq!(read("9e18"), None);
        assert_eq!(read("253402300800000"), None, "year 10000");
    }

    #[test]
    fn days_and_instants_meet_in_utc() {
        let late = parse("2024-04-09T23:30:00-02:00").unwrap();
        assert_eq!(late.day().to_string(), "2024-04-10");
        let day = parse("2024-04-09").unwrap();
        assert_eq!(day.instant().to_rfc3339(), "2024-04-09T00:00:00+00:00");
    }
}
