//! Service protection limits: three, for each user, in a sliding window of five minutes.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use axum::http::StatusCode;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::guid::Guid;
use crate::salesforce::lock::lock;

/// The window.
const WINDOW: TimeDelta = TimeDelta::seconds(300);

/// What a user may do in the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub requests: u64,
    pub execution_ms: i64,
    pub concurrency: usize,
    /// Added to the execution time of every request.
    pub cost_ms: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests: 6000,
            execution_ms: 1_200_000,
            concurrency: 52,
            cost_ms: 0,
        }
    }
}

#[derive(Debug, Default)]
struct Usage {
    /// Arrivals, those that were refused too, so that hammering lengthens the wait.
    arrivals: VecDeque<DateTime<Utc>>,
    /// Ends and execution times.
    spent: VecDeque<(DateTime<Utc>, i64)>,
    running: usize,
}

impl Usage {
    fn forget(&mut self, now: DateTime<Utc>) {
        while self.arrivals.front().is_some_and(|at| now - *at >= WINDOW) {
            self.arrivals.pop_front();
        }
        while self
            .spent
            .front()
            .is_some_and(|(at, _)| now - *at >= WINDOW)
        {
            self.spent.pop_front();
        }
    }

    fn spent_ms(&self) -> i64 {
        self.spent.iter().map(|(_, ms)| ms).sum()
    }
}

/// The limits and what is used of them.
#[derive(Debug, Default)]
pub struct Throttle {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    limits: Limits,
    users: HashMap<Guid, Usage>,
}

/// A request that runs, until it is given back by [`Throttle::leave`].
#[derive(Debug)]
pub struct Admitted {
    user: Guid,
    at: DateTime<Utc>,
    /// What is left of requests and of milliseconds.
    pub left: (u64, i64),
}

impl Throttle {
    pub fn set(&self, limits: Limits) {
        lock(&self.state).limits = limits;
    }

    #[must_use]
    pub fn limits(&self) -> Limits {
        lock(&self.state).limits
    }

    /// Forgets what was used.
    pub fn relax(&self) {
        for usage in lock(&self.state).users.values_mut() {
            usage.arrivals.clear();
            usage.spent.clear();
        }
    }

    /// Lets a user's request in, or says when to come again.
    pub fn enter(&self, user: Guid, now: DateTime<Utc>) -> Result<Admitted, ApiError> {
        let mut state = lock(&self.state);
        let limits = state.limits;
        let usage = state.users.entry(user).or_default();
        usage.forget(now);
        usage.arrivals.push_back(now);
        let used = usage.arrivals.len() as u64;
        if used > limits.requests {
            // Room is there when enough arrivals have left the window.
            let first = usize::try_from(used - limits.requests).unwrap_or(usize::MAX) - 1;
            let free = usage.arrivals.get(first).map_or(now, |at| *at + WINDOW);
            let message = format!(
                "Number of requests exceeded the limit of {} over time window of 300 seconds.",
                limits.requests
            );
            return Err(refused("0x80072322", message, free - now));
        }
        let spent = usage.spent_ms();
        if spent >= limits.execution_ms {
            let free = usage.spent.front().map_or(now, |(at, _)| *at + WINDOW);
            let message = format!(
                "Combined execution time of incoming requests exceeded limit of {} milliseconds over time window of 300 seconds. Decrease number of concurrent requests or reduce the duration of requests and try again later.",
                limits.execution_ms
            );
            return Err(refused("0x80072321", message, free - now));
        }
        if usage.running >= limits.concurrency {
            let message = format!(
                "Number of concurrent requests exceeded the limit of {}.",
                limits.concurrency
            );
            return Err(refused("0x80072326", message, TimeDelta::seconds(2)));
        }
        usage.running += 1;
        let left = (
            limits.requests.saturating_sub(used),
            limits.execution_ms - spent,
        );
        Ok(Admitted {
            user,
            at: now,
            left,
        })
    }

    /// Ends a request.
    pub fn leave(&self, admitted: &Admitted, now: DateTime<Utc>) {
        let mut state = lock(&self.state);
        let cost = state.limits.cost_ms;
        if let Some(usage) = state.users.get_mut(&admitted.user) {
            usage.running = usage.running.saturating_sub(1);
            let took = (now - admitted.at).num_milliseconds().max(0) + cost;
            usage.spent.push_back((now, took));
        }
    }
}

fn refused(code: &str, message: String, wait: TimeDelta) -> ApiError {
    let mut error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, code, message);
    let seconds = u64::try_from(wait.num_milliseconds().max(0))
        .unwrap_or(0)
        .div_ceil(1000);
    error.retry_after = Some(seconds.max(1));
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_slides_and_hammering_lengthens_the_wait() {
        let throttle = Throttle::default();
        throttle.set(Limits {
            requests: 2,
            ..Limits::default()
        });
        let (user, start) = (Guid::named(1, "u"), Utc::now());
        let at = |seconds: i64| start + TimeDelta::seconds(seconds);
        for second in [0, 100] {
            let admitted = throttle.enter(user, at(second)).unwrap();
            throttle.leave(&admitted, at(second));
        }
        let wait = |second: i64| throttle.enter(user, at(second)).unwrap_err().retry_after;
        assert_eq!(wait(200), Some(100));
        assert_eq!(wait(201), Some(199), "the refused one counts too");
        assert!(throttle.enter(Guid::named(1, "other"), at(201)).is_ok());
        assert!(throttle.enter(user, at(501)).is_ok());
    }
}
