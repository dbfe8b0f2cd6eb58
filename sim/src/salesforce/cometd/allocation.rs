//! The event delivery allocation: how many events all clients together may be sent in a rolling day.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};

/// Events in 24 hours of an Unlimited Edition org.
const DAILY: usize = 50_000;

/// What was delivered in the last 24 hours, and how much may be.
#[derive(Debug)]
pub(super) struct Allocation {
    limit: usize,
    /// By the minute.
    day: VecDeque<(DateTime<Utc>, usize)>,
    used: usize,
}

impl Default for Allocation {
    fn default() -> Self {
        Self {
            limit: DAILY,
            day: VecDeque::new(),
            used: 0,
        }
    }
}

impl Allocation {
    /// Sets the limit; `None` is the edition's.
    pub fn limit(&mut self, limit: Option<usize>) {
        self.limit = limit.unwrap_or(DAILY);
    }

    /// Events that may still be sent.
    pub fn left(&mut self, now: DateTime<Utc>) -> usize {
        while let Some((_, count)) = self
            .day
            .front()
            .filter(|(minute, _)| now - *minute >= TimeDelta::hours(24))
        {
            self.used -= count;
            self.day.pop_front();
        }
        self.limit.saturating_sub(self.used)
    }

    pub fn use_up(&mut self, events: usize, now: DateTime<Utc>) {
        if events == 0 {
            return;
        }
        self.used += events;
        match self.day.back_mut() {
            Some((minute, count)) if now - *minute < TimeDelta::minutes(1) => *count += events,
            _ => self.day.push_back((now, events)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_falls_after_a_day() {
        let start = DateTime::UNIX_EPOCH;
        let mut allocation = Allocation::default();
        assert_eq!(allocation.left(start), DAILY);
        allocation.limit(Some(10));
        allocation.use_up(4, start);
        allocation.use_up(6, start + TimeDelta::hours(1));
        assert_eq!(allocation.left(start + TimeDelta::hours(2)), 0);
        assert_eq!(allocation.left(start + TimeDelta::hours(24)), 4);
        assert_eq!(allocation.left(start + TimeDelta::hours(25)), 10);
    }
}
