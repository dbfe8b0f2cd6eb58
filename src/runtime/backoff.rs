//! Waits between tries: doubling, capped, never shorter than what the peer asked for.

use std::time::Duration;

/// The waits of one thing that is tried again until it works.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    tries: u32,
}

impl Backoff {
    /// Waits `first`, then twice that, up to `cap`.
    #[must_use]
    pub const fn new(first: Duration, cap: Duration) -> Self {
        Self {
            first,
            cap,
            tries: 0,
        }
    }

    /// The next wait; `hint` is what the peer asked for. Spread by a fifth, so that many clients of one peer
    /// that fail together don't come back together; `spread` is any number.
    pub fn wait(&mut self, hint: Option<Duration>, spread: u32) -> Duration {
        let doubled = self
            .first
            .saturating_mul(2_u32.saturating_pow(self.tries.min(20)))
            .min(self.cap);
        self.tries = self.tries.saturating_add(1);
        let wait = doubled + doubled.mul_f64(f64::from(spread % 1000) / 5000.0);
        hint.map_or(wait, |hint| wait.max(hint))
    }

    /// It worked: begin anew next time.
    pub const fn reset(&mut self) {
        self.tries = 0;
    }

    /// How many waits there were since it worked.
    #[must_use]
    pub const fn tries(&self) -> u32 {
        self.tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_cap_and_honours_hints() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<_> = (0..6).map(|_| backoff.wait(None, 0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(
            backoff.wait(Some(Duration::from_secs(9)), 0),
            Duration::from_secs(9)
        );
        backoff.reset();
        assert!(backoff.wait(None, 999) <= Duration::from_millis(120));
    }
}
