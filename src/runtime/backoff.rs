//! The wait between attempts: exponential, spread by a seed, capped, and never shorter than the peer asked for.

use std::time::Duration;

/// How long to wait before attempt after attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait before the first repetition.
    pub first: Duration,
    /// No wait is longer than this, unless the peer asks for it.
    pub cap: Duration,
    /// A peer's request to wait is honoured up to this.
    pub hint_cap: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            cap: Duration::from_mins(1),
            hint_cap: Duration::from_hours(1),
        }
    }
}

impl Backoff {
    /// The wait after `attempt` failures (from 0): doubled each time up to the cap, then spread over its upper half
    /// by `seed`, so that many waiters do not come back together. A `hint` is the least wait.
    #[must_use]
    pub fn next(&self, attempt: u32, seed: u64, hint: Option<Duration>) -> Duration {
        let whole = 2_u32
            .checked_pow(attempt)
            .and_then(|factor| self.first.checked_mul(factor))
            .map_or(self.cap, |wait| wait.min(self.cap));
        let share = spread(seed, attempt);
        let wait = whole / 2 + (whole / 2).mul_f64(share);
        let Some(hint) = hint else { return wait };
        let hint = hint.min(self.hint_cap);
        // A peer that gave everybody the same hint must not meet everybody at its end.
        wait.max(hint + self.first.min(hint).mul_f64(share))
    }
}

/// A count of failures in a row, and the wait that follows each.
#[derive(Debug, Clone)]
pub struct Attempts {
    backoff: Backoff,
    seed: u64,
    failed: u32,
}

impl Attempts {
    /// None failed yet; `seed` spreads the waits.
    #[must_use]
    pub const fn new(backoff: Backoff, seed: u64) -> Self {
        Self {
            backoff,
            seed,
            failed: 0,
        }
    }

    /// Counts a failure; the wait before the next attempt.
    pub fn failed(&mut self, hint: Option<Duration>) -> Duration {
        let wait = self.backoff.next(self.failed, self.seed, hint);
        self.failed = self.failed.saturating_add(1);
        wait
    }

    /// Forgets the failures after a success.
    pub const fn succeeded(&mut self) {
        self.failed = 0;
    }

    /// Failures in a row.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.failed
    }
}

/// A number in 0..1 from a seed and an attempt (SplitMix64).
fn spread(seed: u64, attempt: u32) -> f64 {
    let mut z = seed.wrapping_add(u64::from(attempt).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    // The upper 32 bits: exact in a double.
    f64::from((z >> 32) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        first: Duration::from_secs(1),
        cap: Duration::from_mins(1),
        hint_cap: Duration::from_mins(10),
    };

    #[test]
    fn waits_double_up_to_the_cap() {
        for seed in 0..100 {
            for (attempt, whole) in [(0, 1), (1, 2), (5, 32), (6, 60), (40, 60), (u32::MAX, 60)] {
                let wait = BACKOFF.next(attempt, seed, None);
                let whole = Duration::from_secs(whole);
                assert!(
                    wait >= whole / 2 && wait <= whole,
                    "attempt {attempt}: {wait:?}"
                );
            }
        }
    }

    #[test]
    fn seeds_spread_the_waits() {
        let mut waits: Vec<_> = (0..50).map(|seed| BACKOFF.next(3, seed, None)).collect();
        waits.sort_unstable();
        waits.dedup();
        assert_eq!(waits.len(), 50);
    }

    #[test]
    fn a_hint_is_the_least_wait_within_its_own_cap() {
        let hint = Duration::from_mins(5);
        let wait = BACKOFF.next(0, 7, Some(hint));
        assert!(wait >= hint && wait <= hint + BACKOFF.first);
        let endless = BACKOFF.next(0, 7, Some(Duration::MAX));
        assert!(endless >= BACKOFF.hint_cap && endless <= BACKOFF.hint_cap + BACKOFF.first);
    }

    #[test]
    fn a_success_starts_over() {
        let mut attempts = Attempts::new(BACKOFF, 1);
        let first = attempts.failed(None);
        attempts.failed(None);
        attempts.succeeded();
        assert_eq!(attempts.count(), 0);
        assert_eq!(attempts.failed(None), first);
    }
}
