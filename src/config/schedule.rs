//! Schedules as config writes them: `daily 03:00`, `weekly sun 02:00`, `cron 0 2 * * *`.

use chrono::{NaiveTime, Weekday};

use crate::config::problem::{Located, Problem};
use crate::config::reader::{Reader, shown};

/// When something is due, in the daemon's time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// `daily HH:MM`.
    Daily(NaiveTime),
    /// `weekdays HH:MM`: Monday to Friday.
    Weekdays(NaiveTime),
    /// `weekly DAY HH:MM`.
    Weekly(Weekday, NaiveTime),
    /// `monthly DAY HH:MM`, day 1 to 28, which every month has.
    Monthly(u32, NaiveTime),
    /// `cron M H D MON DOW`: five fields of numbers, `*`, ranges, lists and steps.
    Cron(String),
}

const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Mon),
    ("tue", Weekday::Tue),
    ("wed", Weekday::Wed),
    ("thu", Weekday::Thu),
    ("fri", Weekday::Fri),
    ("sat", Weekday::Sat),
    ("sun", Weekday::Sun),
];

impl Schedule {
    /// `daily 03:00`: when a full sync runs unless the job says otherwise.
    #[must_use]
    pub fn nightly() -> Self {
        Self::Daily(NaiveTime::from_hms_opt(3, 0, 0).unwrap_or(NaiveTime::MIN))
    }

    /// Reads a schedule at `key`.
    pub(super) fn read(reader: &mut Reader<'_>, key: &'static str) -> Option<Located<Self>> {
        let text = reader.text(key)?;
        let schedule = Self::from_text(&text.value);
        if schedule.is_none() {
            let problem = Problem::new(
                &text.spot,
                "no schedule",
                "write \"daily 03:00\", \"weekdays 03:00\", \"weekly sun 02:00\", \"monthly 1 02:00\" (day 1 to 28) or \
                 \"cron 0 2 * * *\"",
            );
            reader.report.add(problem.value(shown(&text.value)));
        }
        Some(Located::new(schedule?, text.spot))
    }

    fn from_text(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            ["daily", at] => Some(Self::Daily(time(at)?)),
            ["weekdays", at] => Some(Self::Weekdays(time(at)?)),
            ["weekly", day, at] => {
                let (_, day) = DAYS.iter().find(|(name, _)| name == day)?;
                Some(Self::Weekly(*day, time(at)?))
            }
            ["monthly", day, at] => {
                let day = number(day).filter(|day| (1..=28).contains(day))?;
                Some(Self::Monthly(day, time(at)?))
            }
            ["cron", fields @ ..] if is_cron(fields) => Some(Self::Cron(fields.join(" "))),
            _ => None,
        }
    }
}

fn time(text: &str) -> Option<NaiveTime> {
    let (hour, minute) = text.split_once(':')?;
    if hour.len() != 2 || minute.len() != 2 {
        return None;
    }
    NaiveTime::from_hms_opt(number(hour)?, number(minute)?, 0)
}

fn number(text: &str) -> Option<u32> {
    let digits = text.chars().all(|c| c.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

fn is_cron(fields: &[&str]) -> bool {
    const BOUNDS: [(u32, u32); 5] = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];
    fields.len() == BOUNDS.len()
        && fields
            .iter()
            .zip(BOUNDS)
            .all(|(field, bounds)| field.split(',').all(|part| is_cron_part(part, bounds)))
}

fn is_cron_part(part: &str, (least, most): (u32, u32)) -> bool {
    let (range, step) = match part.split_once('/') {
        Some((range, step)) => (range, number(step)),
        None => (part, Some(1)),
    };
    if !step.is_some_and(|step| (1..=most).contains(&step)) {
        return false;
    }
    let within = |text| number(text).filter(|value| (least..=most).contains(value));
    match range.split_once('-') {
        Some((from, to)) => {
            matches!((within(from), within(to)), (Some(from), Some(to)) if from <= to)
        }
        None => range == "*" || within(range).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_the_manual_lists() {
        let at = NaiveTime::from_hms_opt(2, 30, 0).unwrap();
        for (text, schedule) in [
            ("daily 02:30", Schedule::Daily(at)),
            ("weekdays 02:30", Schedule::Weekdays(at)),
            ("weekly sun 02:30", Schedule::Weekly(Weekday::Sun, at)),
            ("monthly 28 02:30", Schedule::Monthly(28, at)),
            ("cron 0 2 * * *", Schedule::Cron("0 2 * * *".to_owned())),
            (
                "cron  */15 8-18/2 1,15 * 1-5",
                Schedule::Cron("*/15 8-18/2 1,15 * 1-5".to_owned()),
            ),
        ] {
            assert_eq!(Schedule::from_text(text), Some(schedule), "{text}");
        }
        assert_eq!(
            Schedule::from_text("daily 03:00"),
            Some(Schedule::nightly())
        );
    }

    #[test]
    fn takes_nothing_else() {
        for text in [
            "",
            "daily",
            "daily 3:00",
            "daily 24:00",
            "daily 02:60",
            "daily +2:00",
            "hourly",
            "weekly 02:00",
            "weekly sunday 02:00",
            "monthly 0 02:00",
            "monthly 29 02:00",
            "cron",
            "cron * * * *",
            "cron 60 * * * *",
            "cron * * 0 * *",
            "cron 5-1 * * * *",
            "cron */0 * * * *",
            "cron a * * * *",
            "cron * * * * * *",
            "cron 1, * * * *",
        ] {
            assert_eq!(Schedule::from_text(text), None, "{text}");
        }
    }
}
