//! How many calls a day may take, counted on our own clock: days begin at midnight UTC.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};

use crate::fault::{Fault, FaultKind};
use crate::runtime::clock::Clock;

/// What part of a day's calls may go to questions for changes; the rest is for reads.
const FOR_POLLS: f64 = 0.6;

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
    fn polls_leave_calls_for_reads() {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(DateTime::UNIX_EPOCH));
        let budget = Budget::new(Some(20_000), Arc::clone(&clock));
        let every = budget.shortest_poll(4).as_secs_f64();
        assert!(4.0 * 86_400.0 / every <= 12_001.0, "{every}");
        assert_eq!(Budget::new(None, clock).shortest_poll(4), Duration::ZERO);
    }
}
