//! Events delivered in the last 24 hours: an org allows so many, to all its subscribers together.

use std::collections::VecDeque;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};

use super::day::Usage;

/// The org's window.
const WINDOW: TimeDelta = TimeDelta::hours(24);

/// Deliveries of one connection, hour by hour.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    hours: VecDeque<(DateTime<Utc>, u64)>,
    /// What the org says of all subscribers.
    pub told: Option<Usage>,
}

impl Deliveries {
    /// So many came.
    pub fn add(&mut self, now: DateTime<Utc>, events: u64) {
        let hour = now.duration_trunc(TimeDelta::hours(1)).unwrap_or(now);
        match self.hours.back_mut() {
            Some((last, sum)) if *last >= hour => *sum += events,
            _ => self.hours.push_back((hour, events)),
        }
        while self
            .hours
            .front()
            .is_some_and(|(hour, _)| now - *hour > WINDOW)
        {
            self.hours.pop_front();
        }
    }

    /// Ours of the last 24 hours, since the start at most.
    pub fn ours(&self, now: DateTime<Utc>) -> u64 {
        let counted = self.hours.iter().filter(|(hour, _)| now - *hour <= WINDOW);
        counted.map(|(_, sum)| sum).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_counted_and_what_is_older_forgotten() {
        let begin: DateTime<Utc> = "2026-01-05T10:30:00Z".parse().unwrap();
        let mut deliveries = Deliveries::default();
        for hour in 0..48 {
            deliveries.add(begin + TimeDelta::hours(hour), 10);
        }
        let now = begin + TimeDelta::hours(47);
        assert_eq!(deliveries.ours(now), 240);
        assert!(deliveries.hours.len() <= 25);
        assert_eq!(deliveries.ours(now + TimeDelta::days(2)), 0);
    }
}
