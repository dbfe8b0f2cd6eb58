//! The date: production code asks a [`Clock`] for it, so that tests decide what time it is.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;
use tokio::time::Instant;

/// Tells the date and waits.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The date.
    fn now(&self) -> DateTime<Utc>;

    /// Waits until `time` has passed on this clock. Cancel-safe.
    async fn sleep(&self, time: Duration);
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock {
    now: watch::Sender<DateTime<Utc>>,
}

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn new(now: DateTime<Utc>) -> Self {
        Self {
            now: watch::Sender::new(now),
        }
    }

    /// Moves the clock forward and wakes the sleepers whose time has come.
    pub fn advance(&self, time: Duration) {
        self.now.send_modify(|now| *now = later(*now, time));
    }

    /// Shows `now` from here on, earlier or later.
    pub fn set(&self, now: DateTime<Utc>) {
        self.now.send_replace(now);
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        *self.now.borrow()
    }

    async fn sleep(&self, time: Duration) {
        let until = later(self.now(), time);
        let mut moved = self.now.subscribe();
        // The sender lives as long as `self`, so the wait ends only by the time being reached.
        moved.wait_for(|now| *now >= until).await.ok();
    }
}

/// A clock that starts at a given date and moves with tokio's time, also when that is paused.
#[derive(Debug, Clone, Copy)]
pub struct VirtualClock {
    start: DateTime<Utc>,
    began: Instant,
}

impl VirtualClock {
    /// A clock that shows `start` at this moment of tokio's time.
    #[must_use]
    pub fn new(start: DateTime<Utc>) -> Self {
        Self {
            start,
            began: Instant::now(),
        }
    }
}

#[async_trait]
impl Clock for VirtualClock {
    fn now(&self) -> DateTime<Utc> {
        later(self.start, self.began.elapsed())
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// `date` plus `time`, held at the last date there is.
fn later(date: DateTime<Utc>, time: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(time)
        .ok()
        .and_then(|delta| date.checked_add_signed(delta))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn a_manual_clock_wakes_sleepers_when_moved_far_enough() {
        let clock = ManualClock::new(DateTime::UNIX_EPOCH);
        let mut sleep = clock.sleep(Duration::from_secs(10));
        assert!((&mut sleep).now_or_never().is_none());
        clock.advance(Duration::from_secs(9));
        assert!((&mut sleep).now_or_never().is_none());
        clock.advance(Duration::from_secs(1));
        sleep.await;
        assert_eq!(clock.now().timestamp(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_virtual_clock_follows_paused_time() {
        let clock = VirtualClock::new(DateTime::UNIX_EPOCH);
        clock.sleep(Duration::from_secs(86_400)).await;
        assert_eq!(clock.now().timestamp(), 86_400);
    }

    #[test]
    fn a_date_too_far_away_is_held() {
        let clock = ManualClock::new(DateTime::UNIX_EPOCH);
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), DateTime::<Utc>::MAX_UTC);
    }
}
