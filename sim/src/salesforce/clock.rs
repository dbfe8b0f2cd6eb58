//! The org's time: it runs with the machine's, and can be moved, set and frozen by a test.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use tokio::sync::watch;
use tokio::time::Instant;

/// A clock that every part of one org shares; clones show the same time.
#[derive(Debug, Clone)]
pub struct SimClock {
    state: Arc<watch::Sender<State>>,
}

/// What the clock showed at `since`; while frozen, it still shows it.
#[derive(Debug, Clone, Copy)]
struct State {
    shown: DateTime<Utc>,
    since: Instant,
    frozen: bool,
}

impl State {
    fn now(&self) -> DateTime<Utc> {
        if self.frozen {
            return self.shown;
        }
        later(self.shown, self.since.elapsed())
    }

    fn show(&mut self, time: DateTime<Utc>) {
        self.shown = time;
        self.since = Instant::now();
    }
}

impl Default for SimClock {
    fn default() -> Self {
        Self::new(Utc::now())
    }
}

impl SimClock {
    /// A running clock that shows `now`.
    #[must_use]
    pub fn new(now: DateTime<Utc>) -> Self {
        Self {
            state: Arc::new(watch::Sender::new(State {
                shown: now,
                since: Instant::now(),
                frozen: false,
            })),
        }
    }

    /// The org's date.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.state.borrow().now()
    }

    /// The org's date in whole seconds, the precision of a record's stamps.
    #[must_use]
    pub fn second(&self) -> DateTime<Utc> {
        self.now().trunc_subsecs(0)
    }

    /// Moves the clock forward and wakes the sleepers whose time has come.
    pub fn advance(&self, time: Duration) {
        self.state.send_modify(|state| {
            let target = later(state.now(), time);
            state.show(target);
        });
    }

    /// Shows `time` from here on, earlier or later.
    pub fn set(&self, time: DateTime<Utc>) {
        self.state.send_modify(|state| state.show(time));
    }

    /// Stops the clock: only [`advance`](Self::advance) and [`set`](Self::set) move it.
    pub fn freeze(&self) {
        self.state.send_modify(|state| {
            let now = state.now();
            state.show(now);
            state.frozen = true;
        });
    }

    /// Whether the clock stands still.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.state.borrow().frozen
    }

    /// Lets the clock run again.
    pub fn thaw(&self) {
        self.state.send_modify(|state| {
            let now = state.now();
            state.show(now);
            state.frozen = false;
        });
    }

    /// Waits until `time` has passed on this clock, by running or by being moved. Cancel-safe.
    pub async fn sleep(&self, time: Duration) {
        self.sleep_until(later(self.now(), time)).await;
    }

    /// Waits until the clock shows `time` or later. Cancel-safe.
    pub async fn sleep_until(&self, time: DateTime<Utc>) {
        let mut moved = self.state.subscribe();
        loop {
            let state = *moved.borrow_and_update();
            let Some(left) = (time - state.now()).to_std().ok().filter(|d| !d.is_zero()) else {
                return;
            };
            if state.frozen {
                // The sender lives as long as `self`: this can't fail.
                if moved.changed().await.is_err() {
                    return;
                }
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                changed = moved.changed() => if changed.is_err() { return },
            }
        }
    }
}

fn later(time: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(by)
        .ok()
        .and_then(|by| time.checked_add_signed(by))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn advancing_wakes_a_sleeper() {
        let clock = SimClock::default();
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep(HOUR).await }
        });
        tokio::task::yield_now().await;
        clock.advance(HOUR / 2);
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(HOUR / 2);
        sleeper.await.unwrap();
    }

    #[tokio::test]
    async fn real_time_counts_unless_frozen() {
        let clock = SimClock::default();
        clock.sleep(Duration::from_millis(5)).await;
        clock.freeze();
        let frozen = clock.now();
        let woken = tokio::time::timeout(
            Duration::from_millis(30),
            clock.sleep(Duration::from_millis(5)),
        )
        .await;
        assert!(woken.is_err());
        assert_eq!(clock.now(), frozen);
        clock.thaw();
        clock.sleep(Duration::from_millis(5)).await;
        assert!(clock.now() > frozen);
    }

    #[tokio::test]
    async fn setting_back_lengthens_a_sleep() {
        let clock = SimClock::default();
        clock.freeze();
        let start = clock.now();
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep_until(start + TimeDelta::hours(1)).await }
        });
        clock.set(start - TimeDelta::hours(1));
        clock.advance(HOUR);
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(HOUR);
        sleeper.await.unwrap();
    }
}
