//! How quickly calls may follow each other: an even pace, of which a minute's worth may be spent at once.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::runtime::clock::Clock;

type Limiter = RateLimiter<NotKeyed, InMemoryState, OurClock, NoOpMiddleware<Nanos>>;

/// Our clock, as governor reads one.
#[derive(Clone)]
struct OurClock(Arc<dyn Clock>);

impl GovernorClock for OurClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        let nanos = self.0.now().timestamp_nanos_opt().unwrap_or_default();
        Nanos::from(u64::try_from(nanos).unwrap_or_default())
    }
}

/// The pace of one connection.
pub(super) struct Pace {
    quota: Quota,
    clock: Arc<dyn Clock>,
    limiter: Limiter,
    /// The latest time at which it was asked.
    asked: DateTime<Utc>,
}

impl Pace {
    /// So many calls a second.
    pub fn new(per_second: NonZeroU32, clock: Arc<dyn Clock>) -> Self {
        const MINUTE: NonZeroU32 = NonZeroU32::MIN.saturating_add(59);
        let quota = Quota::per_second(per_second).allow_burst(per_second.saturating_mul(MINUTE));
        Self {
            quota,
            limiter: limiter(quota, &clock),
            asked: clock.now(),
            clock,
        }
    }

    /// Takes leave for one call.
    ///
    /// # Errors
    /// How long until there is one.
    pub fn take(&mut self) -> Result<(), Duration> {
        let now = self.clock.now();
        if now < self.asked {
            // Somebody set the clock back: what was spent lies in its future and would hold calls up till then.
            self.limiter = limiter(self.quota, &self.clock);
        }
        self.asked = now;
        self.limiter.check().map_err(|not_until| {
            let clock = OurClock(Arc::clone(&self.clock));
            not_until.wait_time_from(clock.now())
        })
    }
}

fn limiter(quota: Quota, clock: &Arc<dyn Clock>) -> Limiter {
    RateLimiter::direct_with_clock(quota, OurClock(Arc::clone(clock)))
}

#[cfg(test)]
mod tests {
    use crate::runtime::clock::ManualClock;

    use super::*;

    const TWO: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);

    fn spent(pace: &mut Pace) -> (usize, Duration) {
        let mut taken = 0;
        loop {
            match pace.take() {
                Ok(()) => taken += 1,
                Err(wait) => return (taken, wait),
            }
        }
    }

    #[test]
    fn a_minutes_worth_goes_at_once_and_then_the_pace_holds() {
        let start = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let clock = Arc::new(ManualClock::new(start));
        let mut pace = Pace::new(TWO, Arc::clone(&clock) as _);
        let (taken, wait) = spent(&mut pace);
        assert_eq!((taken, wait), (120, Duration::from_millis(500)));
        clock.advance(Duration::from_secs(3));
        assert_eq!(spent(&mut pace).0, 6);
    }

    #[test]
    fn a_clock_set_back_holds_nothing_up() {
        let start = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let clock = Arc::new(ManualClock::new(start));
        let mut pace = Pace::new(TWO, Arc::clone(&clock) as _);
        spent(&mut pace);
        clock.set(start - Duration::from_secs(3600));
        assert_eq!(spent(&mut pace).0, 120);
    }
}
