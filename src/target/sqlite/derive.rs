//! Derived columns of one destination: what a row refers to, now or when the batch's other rows are in.

use std::collections::HashSet;

use rusqlite::Transaction;

use super::apply::Run;
use super::cell::Stored;
use super::destination::{Destination, Item};
use super::lookup::{Finder, Found, Key, Lookup, Part, named};
use super::parked::Wait;
use super::rows::Values;
use crate::mapping::plan::{DeriveBy, DerivePlan, MappedRow, Reference};
use crate::model::policy::{OnMultiple, OnNone};
use crate::sqlite::error::JobError;
use crate::target::port::{Batch, DestinationBatch, Outcome};

/// A derived column and its look-up.
pub(super) struct Derive<'a> {
    plan: &'a DerivePlan,
    finder: Finder<'a>,
    /// It looks into the table that it fills.
    own_table: bool,
}

/// What a reference comes to.
#[derive(Debug, Clone)]
pub(super) enum Meaning<'a> {
    /// The image lacks it: the column stays, and what waits goes on waiting.
    Absent,
    /// The value; null if it is empty.
    Value(Stored<'a>),
    /// Null, and parked.
    Missing(Key<'a>),
    /// Open until the batch's other rows are in.
    Later,
}

/// Written rows of which look-ups into the own table are open, by offset.
#[derive(Debug, Default)]
pub(super) struct Later {
    rows: Vec<Open>,
    gsids: HashSet<String>,
}

#[derive(Debug)]
struct Open {
    row: usize,
    gsid: String,
    derives: Vec<usize>,
}

impl Later {
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.gsids.clear();
    }
}

/// What keeps a row from being written.
#[derive(Debug, Clone)]
pub(super) enum Hindrance<'a> {
    /// Derived columns, by their place, whose rows are missing.
    Wait(Vec<(usize, Key<'a>)>),
    Skip,
    Reject(String),
}

/// What each derived column comes to, unless one keeps the row out.
type Derived<'a> = Result<Vec<Meaning<'a>>, Hindrance<'a>>;

impl<'a> Meaning<'a> {
    /// The value to be written; `None` leaves the column as it is.
    pub(super) fn value(&self) -> Option<Stored<'a>> {
        match self {
            Self::Absent | Self::Later => None,
            Self::Value(value) => Some(value.clone()),
            Self::Missing(_) => Some(Stored::Null),
        }
    }
}

/// What a look-up comes to.
enum Look<'a> {
    Is(Meaning<'a>),
    /// No row, and the change has to wait for it.
    Waits(Key<'a>),
    Skip,
    Reject(String),
}

impl<'a> Derive<'a> {
    pub(super) fn new(transaction: &'a Transaction<'a>, table: &str, plan: &'a DerivePlan) -> Self {
        let own_table = matches!(plan.by, DeriveBy::Match(_)) && plan.table == table;
        Self {
            plan,
            finder: Finder::new(transaction, Lookup::of_derive(plan)),
            own_table,
        }
    }

    /// Finds the row of a reference; `None` if it is no reference.
    fn find(
        &mut self,
        batch: &'a Batch,
        row: &'a MappedRow,
        reference: &'a Reference,
    ) -> Result<Option<(Key<'a>, Found)>, JobError> {
        let Some(key) = self.finder.lookup().key(batch, &row.record, reference)? else {
            return Ok(None);
        };
        let found = match self.finder.find(&key)? {
            // GSIDs ascend.
            Found::Several(mut gsids) if self.plan.on_multiple == OnMultiple::Any => {
                Found::One(gsids.swap_remove(0))
            }
            found => found,
        };
        Ok(Some((key, found)))
    }

    fn look(
        &mut self,
        batch: &'a Batch,
        row: &'a MappedRow,
        reference: &'a Reference,
    ) -> Result<Look<'a>, JobError> {
        let Some((key, found)) = self.find(batch, row, reference)? else {
            return Ok(Look::Is(Meaning::Value(Stored::Null)));
        };
        Ok(match (found, self.plan.on_none) {
            (Found::One(gsid), _) => Look::Is(Meaning::Value(Stored::text(gsid))),
            (Found::Several(gsids), _) => Look::Reject(format!(
                "`{}` is {}, and there are several: {}",
                self.plan.column,
                self.finder.lookup().describe(&key),
                named(&gsids)
            )),
            (Found::None, OnNone::Null) => Look::Is(Meaning::Missing(key)),
            (Found::None, OnNone::Default(gsid)) => Look::Is(Meaning::Value(Stored::gsid(gsid))),
            (Found::None, OnNone::Skip) => Look::Skip,
            (Found::None, OnNone::Reject) => Look::Waits(key),
        })
    }

    /// What a look-up into the own table comes to before the batch's other rows are in.
    fn look_early(
        &mut self,
        batch: &'a Batch,
        row: &'a MappedRow,
        reference: &'a Reference,
        nobody_leaves: bool,
    ) -> Result<Meaning<'a>, JobError> {
        if *reference == Reference::Empty {
            return Ok(Meaning::Value(Stored::Null));
        }
        // A record has one row, found once and for all; other keys may find another one later.
        if !nobody_leaves || self.finder.lookup().parts != [Part::Id] {
            return Ok(Meaning::Later);
        }
        Ok(match self.find(batch, row, reference)? {
            None => Meaning::Value(Stored::Null),
            Some((_, Found::One(gsid))) => Meaning::Value(Stored::text(gsid)),
            Some(_) => Meaning::Later,
        })
    }

    /// The row that is found by now, for an identifier.
    pub(super) fn row_as_yet(
        &mut self,
        batch: &'a Batch,
        row: &'a MappedRow,
        reference: Option<&'a Reference>,
    ) -> Result<Option<Stored<'a>>, JobError> {
        let Some(reference) = reference else {
            return Ok(None);
        };
        Ok(match self.find(batch, row, reference)? {
            Some((_, Found::One(gsid))) => Some(Stored::text(gsid)),
            _ => None,
        })
    }
}

impl<'a> Destination<'a> {
    /// What the derived columns of a row come to.
    pub(super) fn derive(
        &mut self,
        batch: &'a Batch,
        row: &'a MappedRow,
    ) -> Result<Derived<'a>, JobError> {
        let mut meanings = Vec::with_capacity(self.derives.len());
        let mut waits = Vec::new();
        for (place, (derive, reference)) in self.derives.iter_mut().zip(&row.references).enumerate()
        {
            let Some(reference) = reference else {
                meanings.push(Meaning::Absent);
                continue;
            };
            if derive.own_table {
                meanings.push(derive.look_early(batch, row, reference, self.nobody_leaves)?);
                continue;
            }
            match derive.look(batch, row, reference)? {
                Look::Is(meaning) => meanings.push(meaning),
                Look::Waits(key) => waits.push((place, key)),
                Look::Skip => return Ok(Err(Hindrance::Skip)),
                Look::Reject(reason) => return Ok(Err(Hindrance::Reject(reason))),
            }
        }
        Ok(if waits.is_empty() {
            Ok(meanings)
        } else {
            Err(Hindrance::Wait(waits))
        })
    }

    /// Whether a look-up into the own table may keep its row out.
    pub(super) fn may_be_hindered(&self) -> bool {
        self.derives.iter().any(|derive| {
            derive.own_table
                && (matches!(derive.plan.on_none, OnNone::Skip | OnNone::Reject)
                    || derive.plan.on_multiple == OnMultiple::Error)
        })
    }

    /// What becomes of a row that is kept out.
    pub(super) fn hinder(
        &self,
        run: &mut Run<'a>,
        item: Item<'a>,
        hindrance: &Hindrance<'a>,
    ) -> Result<Outcome, JobError> {
        let waits = match hindrance {
            Hindrance::Skip => return Ok(Outcome::Skipped),
            Hindrance::Reject(reason) => return Ok(Outcome::Rejected(reason.clone())),
            Hindrance::Wait(waits) => waits,
        };
        let waits: Vec<_> = waits
            .iter()
            .map(|(place, key)| self.wait(*place, key))
            .collect();
        run.changes
            .put(&self.plan.table, item.row, item.image, &waits)?;
        Ok(Outcome::Parked)
    }

    /// Parks what is missing, and forgets what the record waited for before.
    pub(super) fn park(
        &mut self,
        row: &MappedRow,
        meanings: &[Meaning<'a>],
    ) -> Result<(), JobError> {
        let waited: HashSet<String> = self.references.of(&row.record)?.into_iter().collect();
        for (place, meaning) in meanings.iter().enumerate() {
            self.park_one(row, place, meaning, &waited)?;
        }
        Ok(())
    }

    fn park_one(
        &mut self,
        row: &MappedRow,
        place: usize,
        meaning: &Meaning<'a>,
        waited: &HashSet<String>,
    ) -> Result<(), JobError> {
        let derive = &self.derives[place];
        let column = &derive.plan.column;
        match meaning {
            Meaning::Later => Ok(()),
            Meaning::Missing(key) => {
                let wait = Wait {
                    plan: self.plan,
                    derive: derive.plan,
                    lookup: derive.finder.lookup(),
                    key,
                };
                self.references.put(row, &wait)
            }
            _ if !waited.contains(column) => Ok(()),
            Meaning::Absent => self.references.carry(&row.record, column, row.version),
            Meaning::Value(_) => self.references.delete(&row.record, column),
        }
    }

    fn wait<'b>(&'b self, place: usize, key: &'b Key<'a>) -> Wait<'b> {
        let derive = &self.derives[place];
        Wait {
            plan: self.plan,
            derive: derive.plan,
            lookup: derive.finder.lookup(),
            key,
        }
    }

    /// Notes what of a written row is open.
    pub(super) fn look_later(&mut self, row: usize, gsid: &str, meanings: &[Meaning<'a>]) {
        let open = meanings.iter().enumerate();
        let open = open.filter(|(_, meaning)| matches!(meaning, Meaning::Later));
        let derives: Vec<_> = open.map(|(place, _)| place).collect();
        if !derives.is_empty() {
            self.later.gsids.insert(gsid.to_owned());
            self.later.rows.push(Open {
                row,
                gsid: gsid.to_owned(),
                derives,
            });
        }
    }

    /// Of two that write one row the later one's cells stay: where an earlier one has look-ups open, this one's
    /// are open too.
    pub(super) fn wait_for_turn(
        &self,
        gsid: &str,
        meanings: &mut [Meaning<'a>],
        values: &mut Values<'a>,
    ) {
        if !self.later.gsids.contains(gsid) {
            return;
        }
        let derived = values.iter_mut().skip(self.plan.columns.len());
        for ((derive, meaning), value) in self.derives.iter().zip(meanings).zip(derived) {
            if derive.own_table && matches!(meaning, Meaning::Value(_)) {
                (*meaning, *value) = (Meaning::Later, None);
            }
        }
    }

    /// Looks up what is open, now that all rows are in; the rows that this keeps out.
    pub(super) fn look_into_own_table(
        &mut self,
        run: &Run<'a>,
        batch: &'a DestinationBatch,
        outcomes: &mut [Outcome],
    ) -> Result<Vec<(usize, Hindrance<'a>)>, JobError> {
        let mut hindered = Vec::new();
        for open in std::mem::take(&mut self.later).rows {
            match self.fill(run, &batch.rows[open.row], &open)? {
                Ok(true) if outcomes[open.row] == Outcome::Unchanged => {
                    outcomes[open.row] = Outcome::Updated;
                    self.touched.push(open.gsid);
                }
                Ok(_) => {}
                Err(hindrance) => hindered.push((open.row, hindrance)),
            }
        }
        Ok(hindered)
    }

    /// Fills the open columns of a row; whether one changed.
    fn fill(
        &mut self,
        run: &Run<'a>,
        row: &'a MappedRow,
        open: &Open,
    ) -> Result<Result<bool, Hindrance<'a>>, JobError> {
        let waited: HashSet<String> = self.references.of(&row.record)?.into_iter().collect();
        let (mut changed, mut waits) = (false, Vec::new());
        for place in &open.derives {
            let Some(reference) = &row.references[*place] else {
                continue;
            };
            match self.derives[*place].look(run.batch, row, reference)? {
                Look::Is(meaning) => {
                    if let Some(value) = meaning.value() {
                        changed |= self.rows.link(*place, &open.gsid, &value)?;
                    }
                    self.park_one(row, *place, &meaning, &waited)?;
                }
                Look::Waits(key) => waits.push((*place, key)),
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
