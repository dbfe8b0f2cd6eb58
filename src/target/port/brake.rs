//! How much a run may take away from the store: a batch that takes more is kept out. It is measured by what the store holds,
//! and not by what the run touches: a small day is all deletes now and then, and the store is the same.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Outcome;
use crate::config::job::Brakes;
use crate::mapping::plan::MappedRow;

/// What a run has taken, batches included that are about to be committed: those of several partitions take side by side.
#[derive(Debug)]
pub struct Gauge {
    limits: Brakes,
    inner: Mutex<Measured>,
}

#[derive(Debug, Default)]
struct Measured {
    /// With what the run took from it; unknown until a batch takes more than is let pass of any store.
    held: Option<Held>,
    took: Toll,
    /// What of it somebody said yes to.
    forgiven: Toll,
}

/// How many rows a job holds, over its destinations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Those that it may delete or mark.
    pub may_go: u64,
    /// All.
    pub all: u64,
}

/// The brake of one batch.
#[derive(Debug, Clone)]
pub struct Brake {
    gauge: Arc<Gauge>,
    /// Changes before this offset are not counted.
    from: u64,
    inner: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    toll: Toll,
    /// What it would have taken.
    crossed: Option<Toll>,
}

/// What batches take, as brakes count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Toll {
    /// Rows deleted or marked.
    pub gone: u64,
    /// Rows updated in which a mapped column lost its value.
    pub emptied: u64,
}

impl Brake {
    /// Of a batch of the gauge's run.
    #[must_use]
    pub fn new(gauge: Arc<Gauge>, from: u64) -> Self {
        Self {
            gauge,
            from,
            inner: Arc::default(),
        }
    }

    /// Whether it matters which of the updated rows lose a value.
    #[must_use]
    pub fn asks_for_emptied(&self) -> bool {
        self.gauge.limits.max_null_percent < 100
    }

    /// Takes what rows of these outcomes take, in place of what the batch took before; false, and nothing taken, if that
    /// crosses a line.
    pub fn take<'a>(&self, rows: impl Iterator<Item = (&'a MappedRow, &'a Outcome)>) -> bool {
        let (toll, _) = Toll::of(rows, self.from);
        let mut taken = lock(&self.inner);
        let mut measured = lock(&self.gauge.inner);
        measured.took = measured.took.less(taken.toll);
        let crosses = self.gauge.crossed(&measured, toll).is_some();
        taken.crossed = crosses.then_some(toll);
        taken.toll = if crosses { Toll::default() } else { toll };
        measured.took = measured.took.and(taken.toll);
        taken.crossed.is_none()
    }

    /// Gives back what the batch took: it was not committed.
    pub fn let_go(&self) {
        let mut taken = lock(&self.inner);
        let toll = std::mem::take(&mut taken.toll);
        let mut measured = lock(&self.gauge.inner);
        measured.took = measured.took.less(toll);
    }

    /// Takes note of how many rows there are now.
    pub fn measure(&self, now: Held) {
        self.gauge.measure(now);
    }

    /// Whether the batch crossed a line when it was taken last.
    #[must_use]
    pub fn is_crossed(&self) -> bool {
        lock(&self.inner).crossed.is_some()
    }

    /// The line that the batch crossed, in words, if it still does by what is known of the store now.
    #[must_use]
    pub fn crossed(&self) -> Option<String> {
        let toll = lock(&self.inner).crossed?;
        self.gauge.crossed(&lock(&self.gauge.inner), toll)
    }
}

impl Gauge {
    /// Of a run that has taken nothing yet.
    #[must_use]
    pub fn new(limits: Brakes) -> Self {
        Self {
            limits,
            inner: Mutex::default(),
        }
    }

    /// Adds what the run took before.
    pub fn add(&self, before: Toll) {
        let mut measured = lock(&self.inner);
        measured.took = measured.took.and(before);
    }

    /// What the run took.
    #[must_use]
    pub fn took(&self) -> Toll {
        lock(&self.inner).took
    }

    /// Somebody said yes to so much of what the run took: it counts anew, of the rows that are left.
    pub fn forgive(&self, forgiven: Toll) {
        let mut measured = lock(&self.inner);
        (measured.forgiven, measured.held) = (forgiven, None);
    }

    /// Takes note of how many rows there are now.
    pub fn measure(&self, now: Held) {
        let mut measured = lock(&self.inner);
        let gone = measured.took.less(measured.forgiven).gone;
        measured.held = Some(Held {
            may_go: now.may_go + gone,
            all: now.all + gone,
        });
    }

    fn crossed(&self, measured: &Measured, toll: Toll) -> Option<String> {
        let all = measured.took.less(measured.forgiven).and(toll);
        let (lines, held) = (self.lines(measured), measured.held.unwrap_or_default());
        let (delete, null) = (self.limits.max_delete_percent, self.limits.max_null_percent);
        if delete < 100 && toll.gone > 0 && all.gone > lines.gone {
            return Some(format!(
                "would delete or mark {} of {} rows: max_delete_percent = {delete} lets {} pass",
                all.gone, held.may_go, lines.gone
            ));
        }
        if null < 100 && toll.emptied > 0 && all.emptied > lines.emptied {
            return Some(format!(
                "would empty a column of {} of {} rows: max_null_percent = {null} lets {} pass",
                all.emptied, held.all, lines.emptied
            ));
        }
        None
    }

    /// How much may be taken, as far as is known.
    fn lines(&self, measured: &Measured) -> Toll {
        let held = measured.held.unwrap_or_default();
        Toll {
            gone: line(self.limits, self.limits.max_delete_percent, held.may_go),
            emptied: line(self.limits, self.limits.max_null_percent, held.all),
        }
    }
}

impl Toll {
    /// What rows of these outcomes take: of changes at an offset or later, and of those before it.
    pub fn of<'a>(
        rows: impl Iterator<Item = (&'a MappedRow, &'a Outcome)>,
        from: u64,
    ) -> (Self, Self) {
        let (mut counted, mut free) = (Self::default(), Self::default());
        for (row, outcome) in rows {
            let toll = if row.place.1 < from {
                &mut free
            } else {
                &mut counted
            };
            match outcome {
                Outcome::Deleted | Outcome::Marked => toll.gone += 1,
                Outcome::Emptied => toll.emptied += 1,
                _ => {}
            }
        }
        (counted, free)
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            gone: self.gone + other.gone,
            emptied: self.emptied + other.emptied,
        }
    }

    /// Without what is part of it.
    #[must_use]
    pub const fn less(self, part: Self) -> Self {
        Self {
            gone: self.gone.saturating_sub(part.gone),
            emptied: self.emptied.saturating_sub(part.emptied),
        }
    }
}

/// How many of `all` may be, by a percentage: a few may, whatever their share, but where none may.
#[must_use]
pub fn line(limits: Brakes, percent: u8, all: u64) -> u64 {
    match percent {
        0 => 0,
        percent => {
            let share = u128::from(all) * u128::from(percent) / 100;
            limits
                .min_rows
                .max(u64::try_from(share).unwrap_or(u64::MAX))
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_records_stop_nobody_but_where_none_may_go() {
        let limits = Brakes::default();
        assert_eq!(line(limits, 0, 100_000), 0);
        assert_eq!(line(limits, 10, 0), 100);
        assert_eq!(line(limits, 10, 999), 100);
        assert_eq!(line(limits, 10, 100_000), 10_000);
        assert_eq!(
            line(limits, 99, u64::MAX),
            u64::MAX / 100 * 99 + 15 * 99 / 100
        );
        let strict = Brakes {
            min_rows: 0,
            ..limits
        };
        assert_eq!(line(strict, 10, 9), 0);
    }

    #[test]
    fn rows_are_counted_when_a_line_is_met_and_again_when_it_is_met_again() {
        let gauge = Gauge::new(Brakes::default());
        let gone = |gone| Toll { gone, emptied: 0 };
        let held = |all| Held { may_go: all, all };
        let crosses = |toll| gauge.crossed(&lock(&gauge.inner), toll).is_some();
        gauge.add(gone(100));
        assert!(crosses(gone(1)), "of an unknown store none but the few");
        gauge.measure(held(1_900));
        assert!(!crosses(gone(100)), "a tenth of 2,000");
        assert!(crosses(gone(101)));
        // Rows have come since.
        gauge.measure(held(9_900));
        assert!(!crosses(gone(900)));
        gauge.forgive(gone(100));
        assert!(!crosses(gone(100)));
        assert!(crosses(gone(101)), "what is left counts, and is not known");
        gauge.measure(held(1_500));
        assert!(!crosses(gone(150)));
        assert!(crosses(gone(151)));
        assert!(!crosses(Toll::default()), "what takes nothing passes");
    }
}
