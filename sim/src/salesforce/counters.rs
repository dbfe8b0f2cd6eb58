//! What the org counts: API calls by resource and in the rolling day, and delivered events.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};

use super::lock::lock;

/// The org's counters.
#[derive(Debug)]
pub struct Counters {
    calls: Mutex<Calls>,
    delivered: AtomicU64,
    api_limit: AtomicU64,
    /// [`Counters::api_limit`] at the start.
    default_limit: u64,
}

#[derive(Debug, Default)]
struct Calls {
    by_resource: BTreeMap<String, u64>,
    /// Calls of the last day, by the minute of their arrival.
    day: VecDeque<(DateTime<Utc>, u64)>,
    used: u64,
}

impl Counters {
    pub(crate) fn new(api_limit: u64) -> Self {
        Self {
            calls: Mutex::new(Calls::default()),
            delivered: AtomicU64::new(0),
            api_limit: AtomicU64::new(api_limit),
            default_limit: api_limit,
        }
    }

    /// Counts a call, and tells how many of the rolling 24 hours are used, it included.
    pub fn call(&self, resource: &str, now: DateTime<Utc>) -> u64 {
        let mut calls = lock(&self.calls);
        *calls.by_resource.entry(resource.to_owned()).or_default() += 1;
        calls.forget(now);
        match calls.day.back_mut() {
            Some((minute, count)) if now - *minute < TimeDelta::minutes(1) => *count += 1,
            _ => calls.day.push_back((now, 1)),
        }
        calls.used += 1;
        calls.used
    }

    /// Counts a request that is no API call.
    pub fn note(&self, resource: &str) {
        let mut calls = lock(&self.calls);
        *calls.by_resource.entry(resource.to_owned()).or_default() += 1;
    }

    /// Calls of the rolling 24 hours.
    pub fn used(&self, now: DateTime<Utc>) -> u64 {
        let mut calls = lock(&self.calls);
        calls.forget(now);
        calls.used
    }

    /// Calls allowed in 24 hours.
    #[must_use]
    pub fn api_limit(&self) -> u64 {
        self.api_limit.load(Ordering::Relaxed)
    }

    /// Allows so many from here on.
    pub(crate) fn limit_calls(&self, calls: u64) {
        self.api_limit.store(calls, Ordering::Relaxed);
    }

    /// Allows as many as at the start.
    pub(crate) fn relax(&self) {
        self.limit_calls(self.default_limit);
    }

    /// All calls since the start, by resource.
    #[must_use]
    pub fn by_resource(&self) -> BTreeMap<String, u64> {
        lock(&self.calls).by_resource.clone()
    }

    /// Counts events delivered to a subscriber.
    pub fn deliver(&self, events: u64) {
        self.delivered.fetch_add(events, Ordering::Relaxed);
    }

    /// Events delivered since the start.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }
}

impl Calls {
    fn forget(&mut self, now: DateTime<Utc>) {
        while let Some((_, count)) = self
            .day
            .front()
            .filter(|(minute, _)| now - *minute >= TimeDelta::hours(24))
        {
            self.used -= count;
            self.day.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_fall_out_of_the_rolling_day() {
        let counters = Counters::new(10);
        let start = Utc::now();
        assert_eq!(counters.call("query", start), 1);
        assert_eq!(counters.call("query", start + TimeDelta::hours(12)), 2);
        assert_eq!(counters.call("limits", start + TimeDelta::hours(24)), 2);
        assert_eq!(counters.used(start + TimeDelta::hours(48)), 0);
        assert_eq!(counters.by_resource()["query"], 2);
    }
}
