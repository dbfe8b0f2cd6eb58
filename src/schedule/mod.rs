//! When what a schedule names is due: pure, given the date and the time zone.

use std::str::FromStr;

use chrono::{DateTime, Timelike, Utc};
use chrono_tz::Tz;
use croner::Cron;

use crate::config::schedule::Schedule;

/// A schedule in its time zone.
#[derive(Debug, Clone, PartialEq)]
pub struct Timetable {
    zone: Tz,
    cron: Cron,
}

/// A cron pattern that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("reading the cron pattern `{pattern}`")]
pub struct InvalidPattern {
    pattern: String,
    source: croner::errors::CronError,
}

impl Timetable {
    /// The times of `schedule` on the clocks of `zone`.
    ///
    /// # Errors
    /// [`InvalidPattern`] for a cron pattern that names no times.
    pub fn new(schedule: &Schedule, zone: Tz) -> Result<Self, InvalidPattern> {
        let pattern = pattern(schedule);
        match Cron::from_str(&pattern) {
            Ok(cron) => Ok(Self { zone, cron }),
            Err(source) => Err(InvalidPattern { pattern, source }),
        }
    }

    /// The first time later than `date`; `None` if there is none (the 30th of February).
    #[must_use]
    pub fn next_after(&self, date: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let local = date.with_timezone(&self.zone);
        let next = self.cron.find_next_occurrence(&local, false).ok()?;
        Some(next.with_timezone(&Utc))
    }
}

/// The schedule as a cron pattern of five fields.
fn pattern(schedule: &Schedule) -> String {
    let at = |time: &chrono::NaiveTime| format!("{} {}", time.minute(), time.hour());
    match schedule {
        Schedule::Daily(time) => format!("{} * * *", at(time)),
        Schedule::Weekdays(time) => format!("{} * * 1-5", at(time)),
        Schedule::Weekly(day, time) => {
            format!("{} * * {}", at(time), day.num_days_from_sunday())
        }
        Schedule::Monthly(day, time) => format!("{} {day} * *", at(time)),
        Schedule::Cron(pattern) => pattern.clone(),
    }
}

#[cfg(test)]
mod tests {
    use chrono::{Datelike, NaiveTime, TimeZone, Weekday};

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn next(schedule: &Schedule, zone: Tz, after: &str) -> String {
        let table = Timetable::new(schedule, zone).unwrap();
        table.next_after(at(after)).unwrap().to_rfc3339()
    }

    fn time(hour: u32, minute: u32) -> NaiveTime {
        NaiveTime::from_hms_opt(hour, minute, 0).unwrap()
    }

    #[test]
    fn every_kind_of_schedule_has_its_next_time() {
        let wednesday = "2026-11-25T03:00:00Z";
        for (schedule, expected) in [
            (Schedule::Daily(time(3, 0)), "2026-11-26T03:00:00+00:00"),
            (Schedule::Weekdays(time(2, 30)), "2026-11-26T02:30:00+00:00"),
            (
                Schedule::Weekly(Weekday::Sun, time(2, 0)),
                "2026-11-29T02:00:00+00:00",
            ),
            (
                Schedule::Monthly(1, time(2, 0)),
                "2026-12-01T02:00:00+00:00",
            ),
            (
                Schedule::Cron("*/15 * * * *".to_owned()),
                "2026-11-25T03:15:00+00:00",
            ),
        ] {
            assert_eq!(
                next(&schedule, Tz::UTC, wednesday),
                expected,
                "{schedule:?}"
            );
        }
        let friday = "2026-11-27T12:00:00Z";
        let monday = next(&Schedule::Weekdays(time(2, 30)), Tz::UTC, friday);
        assert_eq!(monday, "2026-11-30T02:30:00+00:00");
    }

    #[test]
    fn local_clocks_decide_and_may_be_put_forward() {
        let daily = Schedule::Daily(time(3, 0));
        let berlin = chrono_tz::Europe::Berlin;
        assert_eq!(
            next(&daily, berlin, "2026-07-01T00:00:00Z"),
            "2026-07-01T01:00:00+00:00"
        );
        // 02:30 does not exist on the day that clocks are put forward; the day is not skipped for it.
        let gap = Schedule::Daily(time(2, 30));
        let table = Timetable::new(&gap, berlin).unwrap();
        let before = berlin
            .with_ymd_and_hms(2026, 3, 28, 12, 0, 0)
            .unwrap()
            .with_timezone(&Utc);
        let next = table.next_after(before).unwrap();
        assert!(next < before + chrono::TimeDelta::hours(24), "{next}");
    }

    #[test]
    fn a_year_may_end_before_the_next_time() {
        let monthly = Schedule::Monthly(1, time(0, 0));
        let table = Timetable::new(&monthly, Tz::UTC).unwrap();
        assert_eq!(
            table.next_after(at("2026-12-15T00:00:00Z")).unwrap().year(),
            2027
        );
    }

    #[test]
    fn times_that_never_come_are_none() {
        let never = Schedule::Cron("0 0 30 2 *".to_owned());
        match Timetable::new(&never, Tz::UTC) {
            Ok(table) => assert_eq!(table.next_after(at("2026-01-01T00:00:00Z")), None),
            Err(refused) => assert!(refused.to_string().contains("0 0 30 2 *")),
        }
    }
}
