//! Dataverse's merge table: rows by their number, deaths by when they were told.
//!
//! A row tells everything that is selected, and its number orders it within its record; so a row is taken if its number
//! is not lower than the image's. Tombstones and missed reads carry no number: they are placed by time. A is when a
//! read was sent, less the lag: the read shows a state of A or later. C is when an answer of change tracking had
//! come: what it tells was committed before. `covered` is not needed for rows, which are never merged by parts, but
//! is honoured as for every table.
//!
//! A tombstone tells that a record died some time before C and that the previous question did not tell it; it may live
//! again since. Where a read or a row may have seen that, another read by id decides: those of the lag before the
//! previous question too, for questions may tell deaths late, and any at the beginning of a life (`poll.rs`).

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};

use crate::image::merge::{Covered, Image, Life, MergeTable, RowMark, Step, Verdict};
use crate::model::change::Op;
use crate::model::event::{Event, EventKind, Row, RowVersion};
use crate::model::name::FieldName;
use crate::model::value::Fields;
use crate::model::version::Version;

/// Dates of answers come in whole seconds, less a round trip.
pub(super) const ROUNDING: TimeDelta = TimeDelta::seconds(2);
/// How much later than its own time stamp a row may have been committed and told. Only images that were rebuilt from a
/// topic need it: they hold a row whose number is not known.
const UNKNOWN: TimeDelta = TimeDelta::minutes(15);

/// The table.
#[derive(Debug, Clone, Copy)]
pub struct DynamicsTable {
    lag: TimeDelta,
}

impl DynamicsTable {
    /// The table where reads may be `lag` behind.
    #[must_use]
    pub const fn new(lag: TimeDelta) -> Self {
        Self { lag }
    }

    /// When at the latest the image's read was sent.
    fn read_sent(&self, image: &Image) -> Option<DateTime<Utc>> {
        image.base.map(|base| base + self.lag + ROUNDING)
    }

    /// When at the latest the record was seen alive. Reads as of later can't show a state from before that.
    fn seen(&self, image: &Image) -> Option<DateTime<Utc>> {
        match image.row {
            Some(mark) => self.read_sent(image).max(mark.told),
            None => image
                .base
                .max(image.newest_touch())
                .map(|stamp| stamp + UNKNOWN),
        }
    }
}

impl MergeTable for DynamicsTable {
    fn event(&self, image: Option<Image>, event: &Event, _carried: &BTreeSet<FieldName>) -> Step {
        let c = event.committed_at;
        match event.kind {
            EventKind::Row { version, late, .. } => {
                let doubted = late.then_some(c);
                told(image, version, &event.fields, c, doubted)
            }
            EventKind::Tombstone { since, beside_row } => {
                self.tombstone(image, c, since, beside_row)
            }
            // Whatever else says that a record changed is a hint: a read decides.
            EventKind::Create
            | EventKind::Update
            | EventKind::Delete
            | EventKind::Undelete
            | EventKind::Gap
            | EventKind::ObjectGap(_) => decided_by_a_read(c),
        }
    }

    fn row(&self, image: Option<Image>, row: &Row, as_of: DateTime<Utc>, covered: Covered) -> Step {
        if covered.is_some_and(|covered| as_of < covered) {
            return Step::read_again();
        }
        let Some(image) = image else {
            return read(Image::partial(), row, as_of);
        };
        match image.life {
            // The row may be of before the death.
            Life::Dead if image.dead.is_some_and(|dead| dead >= as_of) => Step {
                owe: image.dead,
                ..Step::dropped()
            },
            Life::Dead | Life::Partial => read(image, row, as_of),
            Life::Live => self.live_row(image, row, as_of),
        }
    }

    fn absent(&self, image: Option<Image>, as_of: DateTime<Utc>, covered: Covered) -> Step {
        if covered.is_some_and(|covered| as_of < covered) {
            return Step::read_again();
        }
        let image = image.unwrap_or_else(Image::partial);
        if image.life == Life::Live
            && let Some(seen) = self.seen(&image).filter(|seen| as_of < *seen)
        {
            // It may be of before the record was there.
            return Step {
                owe: Some(seen),
                ..Step::dropped()
            };
        }
        bury(image, as_of)
    }
}

impl DynamicsTable {
    fn tombstone(
        &self,
        image: Option<Image>,
        c: DateTime<Utc>,
        since: DateTime<Utc>,
        beside_row: bool,
    ) -> Step {
        let image = image.unwrap_or_else(Image::partial);
        // A read or a row of since then may have seen it live again.
        let may_live =
            image.life == Life::Live && self.seen(&image).is_none_or(|seen| seen >= since);
        if beside_row || may_live {
            return decided_by_a_read(c);
        }
        bury(image, c)
    }

    fn live_row(&self, mut image: Image, row: &Row, a: DateTime<Utc>) -> Step {
        let (Some(held), Some(version)) = (image.row, row.version) else {
            // Which row the image holds is not known: only a read of long after it is surely newer.
            return match self.seen(&image).filter(|seen| a < *seen) {
                Some(seen) => Step {
                    owe: Some(seen),
                    ..Step::dropped()
                },
                None => read(image, row, a),
            };
        };
        if version >= held.version {
            return read(image, row, a);
        }
        if self.seen(&image).is_some_and(|seen| a < seen) {
            // The read is behind.
            return Step {
                owe: still_owed(&image, a),
                ..Step::dropped()
            };
        }
        // The read is of after the newer row was told and shows an older one. Once more, to be sure.
        if image.needs.is_some_and(|needs| a > needs) {
            return Step {
                verdict: Verdict::Restored,
                ..Step::dropped()
            };
        }
        image.needs = image.needs.max(Some(a));
        let owe = image.needs;
        Step {
            image: Some(image),
            verdict: Verdict::Keep,
            owe,
            changed: Vec::new(),
        }
    }
}

const fn decided_by_a_read(c: DateTime<Utc>) -> Step {
    Step {
        image: None,
        verdict: Verdict::Keep,
        owe: Some(c),
        changed: Vec::new(),
    }
}

/// A row of change tracking: created or changed, and as it is now. Where the end of the life it begins may have been
/// told already, a read of `doubted` or later decides.
fn told(
    image: Option<Image>,
    version: RowVersion,
    fields: &Fields,
    c: DateTime<Utc>,
    doubted: Option<DateTime<Utc>>,
) -> Step {
    let image = image.unwrap_or_else(Image::partial);
    if image.life == Life::Live && image.row.is_some_and(|held| version < held.version) {
        // A read was quicker, or the org was restored: a read by id tells which.
        return Step {
            owe: Some(c),
            ..Step::dropped()
        };
    }
    let op = match image.life {
        Life::Live => Op::Update,
        Life::Dead if image.version > Version::default() => Op::Undelete,
        Life::Dead | Life::Partial => Op::Create,
    };
    let mark = RowMark {
        version,
        told: image.row.and_then(|held| held.told).max(Some(c)),
    };
    let owe = doubted.filter(|_| image.life != Life::Live);
    Step {
        owe,
        ..take(image, mark, fields, op)
    }
}

/// A row of a read as of `a` that is not older than the image's.
fn read(mut image: Image, row: &Row, a: DateTime<Utc>) -> Step {
    let mark = row.version.map(|version| RowMark {
        version,
        told: image.row.and_then(|held| held.told),
    });
    image.base = image.base.max(Some(a));
    let Some(mark) = mark else {
        // The table numbers no rows: reads as of later are newer.
        image.row = None;
        return overwrite(image, &row.fields, Op::Snapshot);
    };
    take(image, mark, &row.fields, Op::Snapshot)
}

fn take(mut image: Image, mark: RowMark, fields: &Fields, op: Op) -> Step {
    image.row = Some(mark);
    overwrite(image, fields, op)
}

fn overwrite(mut image: Image, fields: &Fields, op: Op) -> Step {
    let was_live = image.life == Life::Live;
    let mut changed = Vec::new();
    for (field, value) in fields {
        if image.set(field, value) {
            changed.push(field.clone());
        }
    }
    image.life = Life::Live;
    image.needs = None;
    image.touched.clear();
    let verdict = if was_live && changed.is_empty() {
        Verdict::Keep
    } else {
        Verdict::Publish(op)
    };
    Step {
        image: Some(image),
        verdict,
        owe: None,
        changed,
    }
}

fn bury(mut image: Image, at: DateTime<Utc>) -> Step {
    // Also one that the topic has as alive though this side never knew it.
    let was_live = image.life == Life::Live
        || (image.life == Life::Partial && image.version > Version::default());
    image.life = Life::Dead;
    image.dead = image.dead.max(Some(at));
    image.needs = None;
    image.touched.clear();
    let verdict = if was_live {
        Verdict::Publish(Op::Delete)
    } else {
        Verdict::Keep
    };
    Step {
        image: Some(image),
        verdict,
        owe: None,
        changed: Vec::new(),
    }
}

fn still_owed(image: &Image, a: DateTime<Utc>) -> Option<DateTime<Utc>> {
    image.needs.filter(|needs| a <= *needs)
}

#[cfg(test)]
mod tests;
