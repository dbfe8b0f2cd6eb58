//! Instants, days and times of day: every spelling that Salesforce uses, and the one that Tributary uses.
//!
//! REST says `2024-04-09T20:26:27.000+0000` (an offset without colon), CometD and Bulk say `…000Z`, old events
//! leave the milliseconds out, Avro counts milliseconds. One value must have one spelling, or a row and an event
//! that tell the same would differ.

use chrono::{
    DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc,
};

/// `YYYY-MM-DDTHH:MM:SS.mmmZ`.
#[must_use]
pub fn render(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Reads an instant: with or without a fraction, with `Z`, `+0000` or `+00:00` (any offset).
#[must_use]
pub fn instant(text: &str) -> Option<DateTime<Utc>> {
    let (local, offset) = split_offset(text)?;
    let local = NaiveDateTime::parse_from_str(local, "%Y-%m-%dT%H:%M:%S%.f").ok()?;
    offset
        .from_local_datetime(&local)
        .single()
        .map(|at| at.with_timezone(&Utc))
}

/// The one spelling of an instant's text.
#[must_use]
pub fn normal_instant(text: &str) -> Option<String> {
    if is_usual(text) {
        let mut normal = String::with_capacity(24);
        normal.push_str(&text[..23]);
        normal.push('Z');
        return Some(normal);
    }
    instant(text).map(render)
}

/// The instant of a count of milliseconds since 1970.
#[must_use]
pub fn from_millis(millis: i64) -> Option<DateTime<Utc>> {
    Utc.timestamp_millis_opt(millis).single()
}

/// The one spelling of a day, `YYYY-MM-DD`; an instant's text is cut to its day in UTC.
#[must_use]
pub fn normal_day(text: &str) -> Option<String> {
    let day = match NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        Ok(day) => day,
        Err(_) => instant(text)?.date_naive(),
    };
    Some(day.format("%Y-%m-%d").to_string())
}

/// The one spelling of a time of day, `HH:MM:SS.mmmZ`.
#[must_use]
pub fn normal_time(text: &str) -> Option<String> {
    let local = text
        .strip_suffix('Z')
        .or_else(|| text.strip_suffix("+00:00"))
        .or_else(|| text.strip_suffix("+0000"))
        .unwrap_or(text);
    NaiveTime::parse_from_str(local, "%H:%M:%S%.f")
        .ok()
        .map(render_time)
}

/// The time of day of a count of milliseconds since midnight.
#[must_use]
pub fn time_from_millis(millis: i64) -> Option<String> {
    let day = TimeDelta::days(1).num_milliseconds();
    if !(0..day).contains(&millis) {
        return None;
    }
    let (time, _) = NaiveTime::MIN.overflowing_add_signed(TimeDelta::milliseconds(millis));
    Some(render_time(time))
}

fn render_time(time: NaiveTime) -> String {
    time.format("%H:%M:%S%.3fZ").to_string()
}

fn split_offset(text: &str) -> Option<(&str, FixedOffset)> {
    if let Some(local) = text.strip_suffix(['Z', 'z']) {
        return Some((local, FixedOffset::east_opt(0)?));
    }
    // A minus also stands in the date: only what follows the time of day is an offset.
    let start = text.find('T')?;
    let at = start + text[start..].find(['+', '-'])?;
    let (local, offset) = text.split_at(at);
    let digits: String = offset[1..].chars().filter(|c| *c != ':').collect();
    if digits.len() != 4 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let hours: i32 = digits[..2].parse().ok()?;
    let minutes: i32 = digits[2..].parse().ok()?;
    if minutes > 59 {
        return None;
    }
    let seconds = hours * 3600 + minutes * 60;
    let seconds = if offset.starts_with('-') {
        -seconds
    } else {
        seconds
    };
    Some((local, FixedOffset::east_opt(seconds)?))
}

/// Whether it is REST's or the stream's usual spelling, which needs no parsing.
fn is_usual(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some((head, zone)) = bytes.split_at_checked(23) else {
        return false;
    };
    let shape = b"dddd-dd-ddTdd:dd:dd.ddd";
    let fits = head.iter().zip(shape).all(|(byte, shape)| match shape {
        b'd' => byte.is_ascii_digit(),
        other => byte == other,
    });
    let number = |from: usize| (head[from] - b'0') * 10 + (head[from + 1] - b'0');
    // Days past 28 may not be in their month: the parser decides.
    fits && matches!(zone, b"Z" | b"+0000" | b"+00:00")
        && (1..=12).contains(&number(5))
        && (1..=28).contains(&number(8))
        && number(11) < 24
        && number(14) < 60
        && number(17) < 60
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #[test]
        fn every_spelling_of_an_instant_is_one(millis in 0_i64..4_102_444_800_000, shift in -14_i32..=14) {
            let at = from_millis(millis).unwrap();
            let normal = render(at);
            let there = at.with_timezone(&FixedOffset::east_opt(shift * 3600).unwrap());
            for text in [
                normal.clone(),
                at.format("%Y-%m-%dT%H:%M:%S%.3f+0000").to_string(),
                at.format("%Y-%m-%dT%H:%M:%S%.3f+00:00").to_string(),
                at.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
                there.format("%Y-%m-%dT%H:%M:%S%.3f%z").to_string(),
                there.format("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string(),
            ] {
                prop_assert_eq!(normal_instant(&text), Some(normal.clone()), "{}", text);
                prop_assert_eq!(instant(&text), Some(at));
            }
        }

        #[test]
        fn the_quick_way_agrees_with_the_parser(text in "20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]\\.[0-9]{3}(Z|\\+0000|\\+00:00)") {
            if is_usual(&text) {
                prop_assert_eq!(normal_instant(&text), instant(&text).map(render));
            }
        }

        #[test]
        fn nothing_makes_it_panic(text in "\\PC{0,40}") {
            for normal in [normal_instant(&text), normal_day(&text), normal_time(&text)].into_iter().flatten() {
                prop_assert!(!normal.is_empty());
            }
        }

        #[test]
        fn times_of_day_are_one(millis in 0_i64..86_400_000) {
            let normal = time_from_millis(millis).unwrap();
            prop_assert_eq!(normal_time(&normal), Some(normal.clone()));
            prop_assert_eq!(normal_time(normal.trim_end_matches('Z')), Some(normal));
        }
    }

    #[test]
    fn old_events_have_no_milliseconds() {
        assert_eq!(
            normal_instant("2018-03-20T12:00:01Z").as_deref(),
            Some("2018-03-20T12:00:01.000Z")
        );
    }

    #[test]
    fn days_and_times() {
        assert_eq!(normal_day("2024-02-29").as_deref(), Some("2024-02-29"));
        assert_eq!(
            normal_day("2024-02-29T00:00:00.000Z").as_deref(),
            Some("2024-02-29")
        );
        assert_eq!(normal_time("09:05:00").as_deref(), Some("09:05:00.000Z"));
        assert_eq!(time_from_millis(86_400_000), None);
    }

    #[test]
    fn refuses_what_is_none() {
        for text in [
            "",
            "2024-02-30T00:00:00.000Z",
            "2023-02-29T00:00:00.000Z",
            "2024-02-29T24:00:00.000Z",
            "2024-02-29T00:00:00.000",
            "2024-02-29T00:00:00.000+00",
            "2024-02-29T00:00:00.000+0061",
            "yesterday",
        ] {
            assert_eq!(normal_instant(text), None, "{text}");
        }
    }
}
