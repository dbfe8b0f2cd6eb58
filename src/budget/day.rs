//! What a day's calls are: as the org tells what is left of them, or as we count them against a number of our own.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};

use super::forecast::Forecast;
use super::priority::Priority;

/// After so long what the org told is no longer believed: one more call tells it anew.
const STALE: TimeDelta = TimeDelta::minutes(15);
/// A window of calls, the org's or ours.
const WINDOW: TimeDelta = TimeDelta::days(1);

/// What is left of a day's calls, and how many a day has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Left.
    pub left: u64,
    /// Of so many.
    pub limit: u64,
}

/// A day's calls.
pub(super) struct Day {
    /// How many percent of them are kept back.
    reserve: u8,
    /// Our own number, if there is one: days begin at midnight UTC.
    daily: Option<u32>,
    spent: (NaiveDate, u32),
    /// What the org told last: its window is the last 24 hours, and others call too.
    told: Option<(Usage, DateTime<Utc>)>,
    forecast: Forecast,
}

impl Day {
    pub fn new(reserve: u8, daily: Option<u32>, now: DateTime<Utc>) -> Self {
        Self {
            reserve,
            daily,
            spent: (now.date_naive(), 0),
            told: None,
            forecast: Forecast::default(),
        }
    }

    /// One call is made.
    pub fn spend(&mut self, now: DateTime<Utc>) {
        if self.spent.0 != now.date_naive() {
            self.spent = (now.date_naive(), 0);
            if self.daily.is_some() {
                self.forecast = Forecast::default();
            }
        }
        self.spent.1 = self.spent.1.saturating_add(1);
        if self.daily.is_some()
            && let Some(usage) = self.usage(now)
        {
            self.forecast.note(now, usage.left);
        }
    }

    /// The org told what is left.
    pub fn tell(&mut self, usage: Usage, now: DateTime<Utc>) {
        self.told = Some((usage, now));
        if self.daily.is_none() {
            self.forecast.note(now, usage.left);
        }
    }

    /// Calls made since midnight.
    pub fn spent(&self, now: DateTime<Utc>) -> u32 {
        if self.spent.0 == now.date_naive() {
            self.spent.1
        } else {
            0
        }
    }

    /// What is left, as far as is known.
    pub fn usage(&self, now: DateTime<Utc>) -> Option<Usage> {
        match self.daily {
            Some(daily) => Some(Usage {
                left: daily.saturating_sub(self.spent(now)).into(),
                limit: daily.into(),
            }),
            None => self.told.map(|(usage, _)| usage),
        }
    }

    /// What is kept back of so many calls.
    pub fn reserve(&self, limit: u64) -> u64 {
        limit.saturating_mul(self.reserve.into()) / 100
    }

    /// Whether a call of this priority may be made.
    ///
    /// # Errors
    /// How long until that is worth asking again, if no call tells more before.
    pub fn check(&self, priority: Priority, now: DateTime<Utc>) -> Result<(), Duration> {
        let Some(usage) = self.usage(now) else {
            return Ok(());
        };
        let kept = if priority.may_use_reserve() {
            0
        } else {
            self.reserve(usage.limit)
        };
        if usage.left > kept {
            return Ok(());
        }
        match (self.daily, self.told) {
            (Some(_), _) => Err(until_midnight(now)),
            // The org is the judge of its last calls, and tells how long to stay away.
            (None, Some((_, at))) if !priority.may_use_reserve() && now - at < STALE => {
                Err((at + STALE - now).to_std().unwrap_or_default())
            }
            (None, _) => Ok(()),
        }
    }

    /// When the calls end at the pace of the last hour; `None` if there will be new ones before.
    pub fn ends_at(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let renewed = match self.daily {
            Some(_) => now + until_midnight(now),
            None => now + WINDOW,
        };
        self.forecast
            .ends_at(now)
            .filter(|ends_at| *ends_at < renewed)
    }
}

fn until_midnight(now: DateTime<Utc>) -> Duration {
    let next = now.date_naive().succ_opt().unwrap_or(NaiveDate::MAX);
    let midnight = next.and_time(NaiveTime::MIN).and_utc();
    (midnight - now).to_std().unwrap_or(Duration::from_mins(15))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_day_of_ours_ends_at_midnight_and_its_last_tenth_is_for_repair() {
        let evening = at("2026-01-05T23:59:00Z");
        let mut day = Day::new(10, Some(20), evening);
        for _ in 0..18 {
            assert_eq!(day.check(Priority::Verify, evening), Ok(()));
            day.spend(evening);
        }
        let minute = Err(Duration::from_secs(60));
        for low in [Priority::Incremental, Priority::FullSync, Priority::Verify] {
            assert_eq!(day.check(low, evening), minute, "{low:?}");
        }
        for _ in 0..2 {
            assert_eq!(day.check(Priority::Repair, evening), Ok(()));
            day.spend(evening);
        }
        assert_eq!(day.check(Priority::Repair, evening), minute);
        let morning = evening + TimeDelta::seconds(61);
        assert_eq!(day.check(Priority::FullSync, morning), Ok(()));
        day.spend(morning);
        assert_eq!(day.spent(morning), 1);
    }

    #[test]
    fn what_the_org_told_holds_work_back_until_it_is_told_otherwise_or_old() {
        let now = at("2026-01-05T10:00:00Z");
        let mut day = Day::new(10, None, now);
        assert_eq!(day.check(Priority::Verify, now), Ok(()), "nothing is known");
        let usage = |left| Usage { left, limit: 5000 };
        day.tell(usage(501), now);
        assert_eq!(day.check(Priority::FullSync, now), Ok(()));
        day.tell(usage(500), now);
        let later = now + TimeDelta::minutes(5);
        let held = day.check(Priority::FullSync, later);
        assert_eq!(held, Err(Duration::from_mins(10)));
        assert_eq!(day.check(Priority::Repair, later), Ok(()));
        day.tell(usage(0), later);
        assert_eq!(day.check(Priority::Repair, later), Ok(()), "the org judges");
        // The window moves on, though nobody calls.
        let old = later + TimeDelta::minutes(15);
        assert_eq!(day.check(Priority::FullSync, old), Ok(()));
        day.tell(usage(600), old);
        assert_eq!(day.check(Priority::FullSync, old), Ok(()));
    }

    #[test]
    fn an_end_that_comes_after_new_calls_is_none() {
        let begin = at("2026-01-05T22:00:00Z");
        let mut day = Day::new(0, Some(1000), begin);
        for minute in 0..60 {
            for _ in 0..10 {
                day.spend(begin + TimeDelta::minutes(minute));
            }
        }
        let now = begin + TimeDelta::minutes(59);
        let ends_at = day.ends_at(now).unwrap();
        assert!(ends_at < at("2026-01-06T00:00:00Z"), "{ends_at}");
        let mut day = Day::new(0, None, begin);
        let usage = |left| Usage { left, limit: 5000 };
        day.tell(usage(4000), begin);
        day.tell(usage(3990), begin + TimeDelta::hours(1));
        assert_eq!(day.ends_at(begin + TimeDelta::hours(1)), None);
    }
}
