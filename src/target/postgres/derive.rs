//! Derived columns of a pass: what a row refers to, now or when the batch's other rows are in.

use std::collections::HashSet;

use uuid::Uuid;

use super::layout::Reach;
use super::lookup::{Found, Key, named};
use super::parked::{Parking, Wait};
use super::pass::{Pass, Stop, Told};
use super::value::{Val, fold};
use crate::fault::Fault;
use crate::mapping::plan::{Cell, MappedRow, Reference};
use crate::model::policy::{OnMultiple, OnNone};
use crate::target::port::Outcome;

/// What a reference comes to.
#[derive(Debug, Clone)]
pub(super) enum Meaning<'a> {
    /// The image lacks it: the column stays, and what waits goes on waiting.
    Absent,
    /// The value; null if it is empty.
    Value(Val<'static>),
    /// Null, and parked.
    Missing(Wait<'a>),
    /// Open until the batch's other rows are in.
    Later,
}

impl Meaning<'_> {
    /// The value to be written; `None` leaves the column as it is.
    pub(super) const fn value<'v>(&self) -> Option<Val<'v>> {
        match self {
            Self::Absent | Self::Later => None,
            Self::Value(Val::Gsid(gsid)) => Some(Val::Gsid(*gsid)),
            Self::Value(_) | Self::Missing(_) => Some(Val::Null),
        }
    }
}

/// Written rows of which look-ups into the own table are open, by offset.
#[derive(Debug, Default)]
pub(super) struct Later {
    rows: Vec<(usize, Uuid, Vec<usize>)>,
    gsids: HashSet<Uuid>,
}

/// What keeps a row from being written.
#[derive(Debug, Clone)]
pub(super) enum Hindrance<'a> {
    /// Derived columns whose rows are missing.
    Wait(Vec<Wait<'a>>),
    Skip,
    Reject(String),
}

/// What each derived column comes to, unless one keeps the row out.
type Derived<'a> = Result<Vec<Meaning<'a>>, Hindrance<'a>>;

/// What a look-up comes to.
enum Look<'a> {
    Is(Meaning<'a>),
    /// No row, and the change has to wait for it.
    Waits(Wait<'a>),
    Skip,
    Reject(String),
}

impl<'g, 'a: 'g> Pass<'g, 'a> {
    /// Finds the row of a reference; `None` if it is no reference.
    fn find(
        &mut self,
        place: usize,
        row: &'a MappedRow,
        reference: &'a Reference,
    ) -> Result<Option<(Key<'g>, Found)>, Stop> {
        let derive = &self.given.layout.derives[place];
        let Some(key) = derive
            .lookup
            .key(self.given.batch, &row.record, reference)?
        else {
            return Ok(None);
        };
        let found = self.view.find(place, &key)?;
        let any = derive.plan.on_multiple == OnMultiple::Any;
        Ok(Some((key, found.any(any))))
    }

    /// The row of a record id that an earlier batch has looked up.
    fn recall(&self, place: usize, reference: &Reference) -> Option<Uuid> {
        let (rows, Reference::Values(cells)) = (self.given.recalled[place]?, reference) else {
            return None;
        };
        let [Cell::Text(record)] = &cells[..] else {
            return None;
        };
        rows.get(&*fold(record, false)?).copied()
    }

    fn look(
        &mut self,
        place: usize,
        row: &'a MappedRow,
        reference: &'a Reference,
    ) -> Result<Look<'a>, Stop> {
        if let Some(gsid) = self.recall(place, reference) {
            return Ok(Look::Is(Meaning::Value(Val::Gsid(gsid))));
        }
        let Some((key, found)) = self.find(place, row, reference)? else {
            return Ok(Look::Is(Meaning::Value(Val::Null)));
        };
        let derive = &self.given.layout.derives[place];
        let plan = self.given.layout.plan;
        let wait = || Wait::new(plan, derive.plan, &derive.lookup, &key);
        Ok(match (found, derive.plan.on_none) {
            (Found::One(gsid), _) => Look::Is(Meaning::Value(Val::Gsid(gsid))),
            (Found::Several(gsids), _) => Look::Reject(format!(
                "`{}` is {}, and there are several: {}",
                derive.plan.column,
                derive.lookup.describe(&key),
                named(&gsids)
            )),
            (Found::None, OnNone::Null) => Look::Is(Meaning::Missing(wait()?)),
            (Found::None, OnNone::Default(gsid)) => Look::Is(Meaning::Value(Val::Gsid(gsid))),
            (Found::None, OnNone::Skip) => Look::Skip,
            (Found::None, OnNone::Reject) => Look::Waits(wait()?),
        })
    }

    /// What a look-up into the own table comes to before the batch's other rows are in.
    fn look_early(
        &mut self,
        place: usize,
        row: &'a MappedRow,
        reference: &'a Reference,
    ) -> Result<Meaning<'a>, Stop> {
        if *reference == Reference::Empty {
            return Ok(Meaning::Value(Val::Null));
        }
        let by_id = Reach::OwnTable {
            id: true,
            shape: None,
        };
        // A record has one row, found once and for all; other keys may find another one later.
        let once = self.nobody_leaves
            && self.given.layout.derives[place].reach == by_id
            && self.given.layout.derives[place].lookup.parts.len() == 1;
        Ok(match self.find(place, row, reference) {
            Ok(None) => Meaning::Value(Val::Null),
            Ok(Some((_, Found::One(gsid)))) if once => Meaning::Value(Val::Gsid(gsid)),
            Ok(Some(_)) => Meaning::Later,
            // What it needs later is asked for now.
            Err(Stop::Unknown) if !once => Meaning::Later,
            Err(stop) => return Err(stop),
        })
    }

    /// The row that is found by now, for an identifier.
    pub(super) fn row_as_yet(
        &mut self,
        row: &'a MappedRow,
        place: usize,
    ) -> Result<Option<Uuid>, Stop> {
        let Some(reference) = &row.references[place] else {
            return Ok(None);
        };
        Ok(match self.find(place, row, reference)? {
            Some((_, Found::One(gsid))) => Some(gsid),
            _ => None,
        })
    }

    /// What the derived columns of a row come to.
    pub(super) fn derive(&mut self, row: &'a MappedRow) -> Result<Derived<'a>, Stop> {
        let mut meanings = Vec::with_capacity(row.references.len());
        let (mut waits, mut unknown) = (Vec::new(), false);
        for (place, reference) in row.references.iter().enumerate() {
            let Some(reference) = reference else {
                meanings.push(Meaning::Absent);
                continue;
            };
            let looked = match self.given.layout.derives[place].reach {
                Reach::OwnTable { .. } => self.look_early(place, row, reference).map(Look::Is),
                Reach::Elsewhere => self.look(place, row, reference),
            };
            match looked {
                // All that is needed is asked for at once.
                Err(Stop::Unknown) => unknown = true,
                Err(stop) => return Err(stop),
                Ok(_) if unknown => {}
                Ok(Look::Is(meaning)) => meanings.push(meaning),
                Ok(Look::Waits(wait)) => waits.push(wait),
                Ok(Look::Skip) => return Ok(Err(Hindrance::Skip)),
                Ok(Look::Reject(reason)) => return Ok(Err(Hindrance::Reject(reason))),
            }
        }
        if unknown {
            return Err(Stop::Unknown);
        }
        Ok(if waits.is_empty() {
            Ok(meanings)
        } else {
            Err(Hindrance::Wait(waits))
        })
    }

    /// What becomes of a row that is kept out.
    pub(super) fn hinder(
        &mut self,
        index: usize,
        row: &'a MappedRow,
        hindrance: Hindrance<'a>,
    ) -> Outcome {
        let waits = match hindrance {
            Hindrance::Skip => return Outcome::Skipped,
            Hindrance::Reject(reason) => return Outcome::Rejected(reason),
            Hindrance::Wait(waits) => waits,
        };
        let part = self.given.part;
        let image = part.images.get(index).map_or(&[][..], |image| &image[..]);
        self.changes
            .put(self.given.batch, &part.plan.table, row, image, waits, None);
        Outcome::Parked
    }

    /// Parks what is missing, and forgets what the record waited for before.
    pub(super) fn park(&mut self, row: &'a MappedRow, meanings: &[Meaning<'a>]) {
        for (place, meaning) in meanings.iter().enumerate() {
            self.park_one(row, place, meaning);
        }
    }

    fn park_one(&mut self, row: &'a MappedRow, place: usize, meaning: &Meaning<'a>) {
        let column = &self.given.layout.derives[place].plan.column;
        let waiting = self.view.facts.waiting.get(&row.record);
        let waited = waiting.is_some_and(|columns| columns.contains(column));
        let parking = match meaning {
            Meaning::Later => return,
            Meaning::Missing(wait) => Parking::Put(row, wait.clone()),
            Meaning::Absent if waited => Parking::Carry(row.version),
            Meaning::Value(_) if waited => Parking::Delete,
            Meaning::Absent | Meaning::Value(_) => return,
        };
        self.parkings.insert((&row.record, column.clone()), parking);
    }

    /// Notes what of a written row is open.
    pub(super) fn look_later(&mut self, row: usize, gsid: Uuid, meanings: &[Meaning<'a>]) {
        let open = meanings.iter().enumerate();
        let open = open.filter(|(_, meaning)| matches!(meaning, Meaning::Later));
        let derives: Vec<_> = open.map(|(place, _)| place).collect();
        if !derives.is_empty() {
            self.later.gsids.insert(gsid);
            self.later.rows.push((row, gsid, derives));
        }
    }

    /// Of two that write one row the later one's cells stay: where an earlier one has look-ups open, this one's
    /// are open too.
    pub(super) fn wait_for_turn(
        &self,
        gsid: Uuid,
        meanings: &mut [Meaning<'a>],
        values: &mut [Option<Val<'g>>],
    ) {
        if !self.later.gsids.contains(&gsid) {
            return;
        }
        let layout = self.given.layout;
        let derived = values.iter_mut().skip(layout.plan.columns.len());
        for ((derive, meaning), value) in layout.derives.iter().zip(meanings).zip(derived) {
            if derive.reach != Reach::Elsewhere && matches!(meaning, Meaning::Value(_)) {
                (*meaning, *value) = (Meaning::Later, None);
            }
        }
    }

    /// Looks up what is open, now that all rows are in; the rows that this keeps out.
    pub(super) fn look_into_own_table(&mut self) -> Result<Vec<(usize, Hindrance<'a>)>, Fault> {
        let mut hindered = Vec::new();
        for (index, gsid, derives) in std::mem::take(&mut self.later).rows {
            match self.fill(&self.given.part.rows[index], gsid, &derives) {
                Ok(Ok(true)) if self.told[index] == Told::Is(Outcome::Unchanged) => {
                    self.told[index] = Told::Is(Outcome::Updated);
                    self.touched.insert(gsid);
                }
                Ok(Ok(_)) => {}
                Ok(Err(hindrance)) => hindered.push((index, hindrance)),
                Err(Stop::Unknown) => self.told[index] = Told::Open,
                Err(Stop::Fault(fault)) => return Err(fault),
            }
        }
        Ok(hindered)
    }

    /// Fills the open columns of a row; whether one changed.
    fn fill(
        &mut self,
        row: &'a MappedRow,
        gsid: Uuid,
        open: &[usize],
    ) -> Result<Result<bool, Hindrance<'a>>, Stop> {
        let first = self.given.layout.plan.columns.len();
        let (mut changed, mut waits) = (false, Vec::new());
        for place in open {
            let Some(reference) = &row.references[*place] else {
                continue;
            };
            match self.look(*place, row, reference)? {
                Look::Is(meaning) => {
                    if let Some(value) = meaning.value() {
                        changed |= self.view.link(gsid, first + place, value)?;
                    }
                    self.park_one(row, *place, &meaning);
                }
                Look::Waits(wait) => waits.push(wait),
                Look::Skip => return Ok(Err(Hindrance::Skip)),
                Look::Reject(reason) => return Ok(Err(Hindrance::Reject(reason))),
            }
        }
        Ok(if waits.is_empty() {
            Ok(changed)
        } else {
            Err(Hindrance::Wait(waits))
        })
    }
}
