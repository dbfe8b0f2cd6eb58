//! How a day's calls are shared where they are counted: between questions for changes, pushed records and reads.

use std::sync::Arc;
use std::time::Duration;

use chrono::Timelike;

use crate::budget::Budget;
use crate::runtime::clock::Clock;

/// What part of a day's calls may go to questions for changes; the rest is for reads.
const FOR_POLLS: f64 = 0.6;
/// What part of a day's calls may be spent before their time.
const HEAD_START: f64 = 0.1;
const DAY: f64 = 86_400.0;

/// Shares the calls of a budget.
pub struct Pace {
    budget: Arc<Budget>,
    clock: Arc<dyn Clock>,
}

impl Pace {
    /// Shares the calls of `budget`.
    pub const fn new(budget: Arc<Budget>, clock: Arc<dyn Clock>) -> Self {
        Self { budget, clock }
    }

    /// Whether records that were pushed may be read one by one: while the day's calls are not spent faster than the day
    /// goes by, but for a head start. Else they are left to the questions for changes.
    #[must_use]
    pub fn affords_hints(&self) -> bool {
        let (spent, Some(daily)) = self.budget.spent() else {
            return true;
        };
        let gone = f64::from(self.clock.now().num_seconds_from_midnight()) / DAY;
        f64::from(spent) < f64::from(daily) * (HEAD_START + (1.0 - HEAD_START) * gone)
    }

    /// The shortest time between two questions for the changes of one of `tables`.
    #[must_use]
    pub fn shortest_poll(&self, tables: usize) -> Duration {
        self.budget.spent().1.map_or(Duration::ZERO, |daily| {
            Duration::from_secs_f64(tables as f64 * DAY / (f64::from(daily.max(1)) * FOR_POLLS))
        })
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};
    use futures_util::FutureExt;

    use crate::budget::Limits;
    use crate::runtime::clock::ManualClock;
    use crate::telemetry::metrics::Metrics;

    use super::*;

    fn pace(daily: Option<u32>, clock: &Arc<ManualClock>) -> Pace {
        let limits = Limits {
            daily,
            ..Limits::default()
        };
        let connection = "contoso".into();
        let clock = Arc::clone(clock) as Arc<dyn Clock>;
        let budget = Budget::new(&connection, limits, Arc::clone(&clock), &Metrics::none());
        Pace::new(budget, clock)
    }

    #[test]
    fn hints_spend_no_more_than_the_day_has_given() {
        let morning: DateTime<Utc> = "2026-01-05T06:00:00Z".parse().unwrap();
        let clock = Arc::new(ManualClock::new(morning));
        let pace_of_a_day = pace(Some(1000), &clock);
        let mut calls = 0;
        while pace_of_a_day.affords_hints() {
            drop(
                pace_of_a_day
                    .budget
                    .grant()
                    .now_or_never()
                    .unwrap()
                    .unwrap(),
            );
            calls += 1;
        }
        assert_eq!(calls, 325, "a tenth, and a quarter of the rest");
        clock.advance(Duration::from_secs(60 * 60));
        assert!(pace_of_a_day.affords_hints());
        // The next day begins with its head start.
        clock.advance(Duration::from_secs(17 * 60 * 60));
        assert!(pace_of_a_day.affords_hints());
        assert!(pace(None, &clock).affords_hints());
    }

    #[test]
    fn polls_leave_calls_for_reads() {
        let clock = Arc::new(ManualClock::new(DateTime::UNIX_EPOCH));
        let every = pace(Some(20_000), &clock).shortest_poll(4).as_secs_f64();
        assert!(4.0 * 86_400.0 / every <= 12_001.0, "{every}");
        assert_eq!(pace(None, &clock).shortest_poll(4), Duration::ZERO);
    }
}
