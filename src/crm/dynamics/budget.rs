//! How many calls a day may take, counted on our own clock: days begin at midnight UTC.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Timelike, Utc};

use crate::fault::{Fault, FaultKind};
use crate::runtime::clock::Clock;

/// What part of a day's calls may go to questions for changes; the rest is for reads.
const FOR_POLLS: f64 = 0.6;
/// What part of a day's calls may be spent before their time.
const HEAD_START: f64 = 0.1;

/// Counts calls.
pub struct Budget {
    limit: Option<u32>,
    clock: Arc<dyn Clock>,
    spent: Mutex<(NaiveDate, u32)>,
}

impl Budget {
    /// At most `limit` calls a day, if there is one.
    pub fn new(limit: Option<u32>, clock: Arc<dyn Clock>) -> Self {
        let today = clock.now().date_naive();
        Self {
            limit,
            clock,
            spent: Mutex::new((today, 0)),
        }
    }

    /// Takes one call.
    ///
    /// # Errors
    /// `Throttled` until midnight once the day's calls are spent.
    pub fn take(&self) -> Result<(), Fault> {
        let Some(limit) = self.limit else {
            return Ok(());
        };
        let now = self.clock.now();
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if spent.0 != now.date_naive() {
            *spent = (now.date_naive(), 0);
        }
        if spent.1 >= limit {
            let what = format!("the day's {limit} calls are spent");
            return Err(Fault::new(FaultKind::Throttled, what)
                .retry_after(until_midnight(now))
                .remedy("raise `daily_requests` if the tenant has more, or select fewer objects"));
        }
        spent.1 += 1;
        Ok(())
    }

    /// Whether records that were pushed may be read one by one: while the day's calls are not spent faster than the day
    /// goes by, but for a head start. Else they are left to the questions for changes.
    #[must_use]
    pub fn affords_hints(&self) -> bool {
        const DAY: f64 = 86_400.0;
        let Some(limit) = self.limit else {
            return true;
        };
        let now = self.clock.now();
        let spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let today = if spent.0 == now.date_naive() {
            spent.1
        } else {
            0
        };
        let gone = f64::from(now.num_seconds_from_midnight()) / DAY;
        f64::from(today) < f64::from(limit) * (HEAD_START + (1.0 - HEAD_START) * gone)
    }

    /// The shortest time between two questions for the changes of one of `tables`.
    #[must_use]
    pub fn shortest_poll(&self, tables: usize) -> Duration {
        const DAY: f64 = 86_400.0;
        self.limit.map_or(Duration::ZERO, |limit| {
            Duration::from_secs_f64(tables as f64 * DAY / (f64::from(limit.max(1)) * FOR_POLLS))
        })
    }
}

fn until_midnight(now: DateTime<Utc>) -> Duration {
    let next = now.date_naive().succ_opt().unwrap_or(NaiveDate::MAX);
    let midnight = next.and_time(chrono::NaiveTime::MIN).and_utc();
    (midnight - now).to_std().unwrap_or(Duration::from_mins(15))
}

#[cfg(test)]
mod tests {
    use crate::runtime::clock::ManualClock;

    use super::*;

    #[test]
    fn a_day_has_its_calls_and_no_more() {
        let evening: DateTime<Utc> = "2026-01-05T23:59:00Z".parse().unwrap();
        let clock = Arc::new(ManualClock::new(evening));
        let budget = Budget::new(Some(2), Arc::clone(&clock) as _);
        budget.take().unwrap();
        budget.take().unwrap();
        let fault = budget.take().unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Throttled);
        assert_eq!(fault.wait_hint(), Some(Duration::from_secs(60)));
        clock.advance(Duration::from_secs(61));
        budget.take().unwrap();
    }

    #[test]
    fn hints_spend_no_more_than_the_day_has_given() {
        let morning: DateTime<Utc> = "2026-01-05T06:00:00Z".parse().unwrap();
        let clock = Arc::new(ManualClock::new(morning));
        let budget = Budget::new(Some(1000), Arc::clone(&clock) as _);
        let mut calls = 0;
        while budget.affords_hints() {
            budget.take().unwrap();
            calls += 1;
        }
        assert_eq!(calls, 325, "a tenth, and a quarter of the rest");
        clock.advance(Duration::from_secs(60 * 60));
        assert!(budget.affords_hints());
        // The next day begins with its head start.
        clock.advance(Duration::from_secs(17 * 60 * 60));
        assert!(budget.affords_hints());
        let none = Budget::new(None, clock);
        assert!(none.affords_hints());
    }

    #[test]
    fn polls_leave_calls_for_reads() {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(DateTime::UNIX_EPOCH));
        let budget = Budget::new(Some(20_000), Arc::clone(&clock));
        let every = budget.shortest_poll(4).as_secs_f64();
        assert!(4.0 * 86_400.0 / every <= 12_001.0, "{every}");
        assert_eq!(Budget::new(None, clock).shortest_poll(4), Duration::ZERO);
    }
}
