//! How much a run may take away from the store: a batch that takes more is kept out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Outcome;
use crate::mapping::plan::MappedRow;

/// So many rows of a run stop nobody, whatever their share: a store that is small is not one that breaks.
const FLOOR: u64 = 20;

/// What a run has taken, batches included that are about to be committed: those of several partitions take side by side.
#[derive(Debug)]
pub struct Gauge {
    /// Of the rows that were there before the run took any, so many percent at most are deleted or marked; 100: any number.
    max_delete_percent: u8,
    /// Of the rows that the run updates, so many percent at most lose a value; 100: any number.
    max_null_percent: u8,
    inner: Mutex<Measured>,
}

#[derive(Debug)]
struct Measured {
    held: u64,
    took: Toll,
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
    crossed: Option<String>,
}

/// What batches take, as brakes count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Toll {
    /// Rows deleted or marked.
    pub gone: u64,
    /// Rows updated.
    pub updated: u64,
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
        self.gauge.max_null_percent < 100
    }

    /// Takes what rows of these outcomes take, in place of what the batch took before; false, and nothing taken, if that
    /// crosses a line.
    pub fn take<'a>(&self, rows: impl Iterator<Item = (&'a MappedRow, &'a Outcome)>) -> bool {
        let (toll, _) = Toll::of(rows, self.from);
        let mut taken = lock(&self.inner);
        let mut measured = lock(&self.gauge.inner);
        measured.took = measured.took.less(taken.toll);
        taken.crossed = self.gauge.crossed(&measured, toll);
        taken.toll = match taken.crossed {
            Some(_) => Toll::default(),
            None => toll,
        };
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

    /// The line that the batch crossed, in words.
    #[must_use]
    pub fn crossed(&self) -> Option<String> {
        lock(&self.inner).crossed.clone()
    }
}

impl Gauge {
    /// Of a run that has taken nothing yet, of no rows.
    #[must_use]
    pub const fn new(max_delete_percent: u8, max_null_percent: u8) -> Self {
        let took = Toll {
            gone: 0,
            updated: 0,
            emptied: 0,
        };
        Self {
            max_delete_percent,
            max_null_percent,
            inner: Mutex::new(Measured { held: 0, took }),
        }
    }

    /// Takes note of how many rows there are, before a batch takes any.
    pub fn measure(&self, held: u64) {
        let mut measured = lock(&self.inner);
        measured.held = held + measured.took.gone;
    }

    /// Adds what the run took before.
    pub fn add(&self, before: Toll) {
        let mut measured = lock(&self.inner);
        measured.held += before.gone;
        measured.took = measured.took.and(before);
    }

    fn crossed(&self, measured: &Measured, toll: Toll) -> Option<String> {
        let (all, held) = (measured.took.and(toll), measured.held);
        let (delete, null) = (self.max_delete_percent, self.max_null_percent);
        let (most_gone, most_emptied) = (line(delete, held), line(null, all.updated));
        if delete < 100 && toll.gone > 0 && all.gone > most_gone {
            return Some(format!(
                "would delete or mark {} of {held} rows: max_delete_percent = {delete} lets {most_gone} pass",
                all.gone
            ));
        }
        if null < 100 && toll.emptied > 0 && all.emptied > most_emptied {
            return Some(format!(
                "would empty a column of {} of {} updated rows: max_null_percent = {null} lets {most_emptied} pass",
                all.emptied, all.updated
            ));
        }
        None
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
                Outcome::Updated => toll.updated += 1,
                Outcome::Emptied => {
                    toll.updated += 1;
                    toll.emptied += 1;
                }
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
            updated: self.updated + other.updated,
            emptied: self.emptied + other.emptied,
        }
    }

    /// Without what is part of it.
    #[must_use]
    pub const fn less(self, part: Self) -> Self {
        Self {
            gone: self.gone.saturating_sub(part.gone),
            updated: self.updated.saturating_sub(part.updated),
            emptied: self.emptied.saturating_sub(part.emptied),
        }
    }
}

/// How many of `all` may be, by a percentage.
#[must_use]
pub fn line(percent: u8, all: u64) -> u64 {
    match percent {
        0 => 0,
        percent => FLOOR.max(all.saturating_mul(u64::from(percent)) / 100),
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
        assert_eq!(line(0, 1_000), 0);
        assert_eq!(line(10, 0), 20);
        assert_eq!(line(10, 150), 20);
        assert_eq!(line(10, 1_000), 100);
        assert_eq!(line(99, u64::MAX), u64::MAX / 100);
    }
}
