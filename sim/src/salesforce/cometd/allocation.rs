//! The event delivery allocation: how many events all clients together may be sent in a rolling day.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};

/// What was delivered in the last 24 hours, and how much may be.
#[derive(Debug)]
pub(super) struct Allocation {
    /// The org's own.
    usual: usize,
    limit: usize,
    /// By the minute.
    day: VecDeque<(DateTime<Utc>, usize)>,
    used: usize,
}

impl Allocation {
    pub fn new(usual: usize) -> Self {
        Self {
            usual,
            limit: usual,
            day: VecDeque::new(),
            used: 0,
        }
    }

    /// Sets the limit; `None` is the org's own.
    pub fn limit(&mut self, limit: Option<usize>) {
        self.limit = limit.unwrap_or(self.usual);
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

    /// What is used and what may be.
    pub fn usage(&mut self, now: DateTime<Utc>) -> (usize, usize) {
        self.left(now);
        (self.used, self.limit)
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
        let mut allocation = Allocation::new(50);
        assert_eq!(allocation.left(start), 50);
        allocation.limit(Some(10));
        allocation.use_up(4, start);
        allocation.use_up(6, start + TimeDelta::hours(1));
        assert_eq!(allocation.left(start + TimeDelta::hours(2)), 0);
        assert_eq!(allocation.left(start + TimeDelta::hours(24)), 4);
        assert_eq!(allocation.left(start + TimeDelta::hours(25)), 10);
    }
}
