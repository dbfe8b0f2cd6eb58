//! When a day's calls end if they go on as in the last hour.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};

/// How far back the pace is taken from.
const LOOK_BACK: TimeDelta = TimeDelta::hours(1);
/// How far apart what is kept of it lies.
const APART: TimeDelta = TimeDelta::minutes(1);

/// What was left, minute by minute.
#[derive(Debug, Default)]
pub(super) struct Forecast {
    kept: VecDeque<(DateTime<Utc>, u64)>,
    latest: Option<(DateTime<Utc>, u64)>,
}

impl Forecast {
    /// So much was left.
    pub fn note(&mut self, at: DateTime<Utc>, left: u64) {
        // A clock that was set back tells no pace.
        if self.latest.is_some_and(|(latest, _)| at < latest) {
            self.kept.clear();
        }
        self.latest = Some((at, left));
        while self
            .kept
            .front()
            .is_some_and(|(kept, _)| at - *kept > LOOK_BACK)
        {
            self.kept.pop_front();
        }
        if self.kept.back().is_none_or(|(kept, _)| at - *kept >= APART) {
            self.kept.push_back((at, left));
        }
    }

    /// When nothing is left at this pace; `None` if it does not get less, or too little is known.
    pub fn ends_at(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let ((first, before), (latest, left)) = (*self.kept.front()?, self.latest?);
        // Calls that stopped do not go on: the pace is that of the time up to now.
        let time = now.max(latest) - first;
        let gone = before.checked_sub(left).filter(|gone| *gone > 0)?;
        if time < APART {
            return None;
        }
        let seconds = left as f64 * time.as_seconds_f64() / gone as f64;
        // Further away than a month is never.
        let most = TimeDelta::days(31);
        let wait = TimeDelta::try_milliseconds((seconds * 1000.0) as i64).unwrap_or(most);
        Some(now + wait.min(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_follows_the_pace_of_the_last_hour() {
        let begin: DateTime<Utc> = "2026-01-05T10:00:00Z".parse().unwrap();
        let mut forecast = Forecast::default();
        forecast.note(begin, 10_000);
        assert_eq!(forecast.ends_at(begin), None, "no pace yet");
        // A hundred a minute.
        for minute in 1..=90 {
            let at = begin + TimeDelta::minutes(minute);
            forecast.note(at, 10_000 - 100 * minute as u64);
        }
        let now = begin + TimeDelta::minutes(90);
        assert_eq!(forecast.ends_at(now), Some(now + TimeDelta::minutes(10)));
        assert!(forecast.kept.len() <= 61);
        // An hour of rest halves it.
        let later = now + TimeDelta::hours(1);
        assert_eq!(
            forecast.ends_at(later),
            Some(later + TimeDelta::minutes(20))
        );
    }

    #[test]
    fn what_gets_more_has_no_end() {
        let begin: DateTime<Utc> = "2026-01-05T10:00:00Z".parse().unwrap();
        let mut forecast = Forecast::default();
        for minute in 0..30 {
            forecast.note(begin + TimeDelta::minutes(minute), 100 + minute as u64);
        }
        assert_eq!(forecast.ends_at(begin + TimeDelta::minutes(30)), None);
        forecast.note(begin - TimeDelta::hours(1), 5);
        assert_eq!(forecast.ends_at(begin), None, "the clock was set back");
    }
}
