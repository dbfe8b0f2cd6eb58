//! One destination of a batch: which row a record is, and how that is written, marked and deleted.

use uuid::{Timestamp, Uuid};

use super::apply::Run;
use super::cell::{Class, Stored, encode, instant};
use super::derive::{Derive, Hindrance, Later, Meaning};
use super::ledger::{Crosswalk, Entry};
use super::lookup::{Finder, Found, Lookup};
use super::parked::References;
use super::review::{Ambiguity, Bonds};
use super::rows::{Rows, Values, Written};
use super::stray;
use crate::fault::{Fault, FaultKind};
use crate::mapping::plan::{Cell, DestinationPlan, Life, MappedRow};
use crate::model::policy::{OnEmptyIdentifier, OnExit};
use crate::model::record_id::RecordId;
use crate::sqlite::error::JobError;
use crate::target::port::review::Bond;
use crate::target::port::{DestinationBatch, Outcome};

/// One destination under way.
pub(super) struct Destination<'a> {
    pub plan: &'a DestinationPlan,
    pub rows: Rows<'a>,
    pub references: References<'a>,
    pub derives: Vec<Derive<'a>>,
    /// Rows that were written: others may wait for them.
    pub touched: Vec<String>,
    /// Rows of which look-ups into the own table are open.
    pub later: Later,
    /// Nothing leaves in this batch: a record id that is found stays found.
    pub nobody_leaves: bool,
    crosswalk: Crosswalk<'a>,
    bonds: Bonds<'a>,
    identify: Finder<'a>,
}

/// One row of it.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub index: usize,
    pub row: &'a MappedRow,
    pub image: &'a [u8],
}

/// Which row a record is that has none by the crosswalk.
enum Identity {
    New,
    Row(String),
    Several(Ambiguity),
    /// An identifier is without a value, which matches nothing.
    Empty(String),
}

impl<'a> Destination<'a> {
    pub(super) fn new(run: &Run<'a>, batch: &'a DestinationBatch) -> Result<Self, JobError> {
        let (transaction, plan) = (run.transaction, &*batch.plan);
        for row in batch.rows.iter() {
            check_lengths(plan, row)?;
        }
        let identifiers = Lookup::of_identifiers(&plan.table, &plan.identifiers, &plan.columns);
        let bonds = Bonds::new(transaction, run.batch, &plan.table)?;
        let derives = plan.derives.iter();
        Ok(Self {
            plan,
            rows: Rows::new(transaction, plan, run.now, run.batch.asks_for_emptied()),
            references: References::new(transaction, run.batch, &plan.table)?,
            derives: derives
                .map(|derive| Derive::new(transaction, &plan.table, derive))
                .collect(),
            touched: Vec::new(),
            later: Later::default(),
            // Who is bound may move to another row, and who is to move as its identifiers do.
            nobody_leaves: !bonds.any
                && !run.batch.asks_anew(plan)
                && batch.rows.iter().all(|row| row.life == Life::Present),
            crosswalk: Crosswalk::new(transaction, run.batch, &plan.table)?,
            bonds,
            identify: Finder::new(transaction, identifiers),
        })
    }

    pub(super) fn begin_again(&mut self) {
        self.touched.clear();
        self.later.clear();
    }

    pub(super) fn entry(&mut self, record: &RecordId) -> Result<Option<Entry>, JobError> {
        self.crosswalk.get(record)
    }

    /// Writes a record that takes part.
    pub(super) fn present(
        &mut self,
        run: &mut Run<'a>,
        item: Item<'a>,
        entry: Option<&Entry>,
        hindrance: Option<&Hindrance<'a>>,
    ) -> Result<Outcome, JobError> {
        let row = item.row;
        let bond = self.bonds.get(&row.record)?;
        if bond == Some(Bond::Ignored) {
            return Ok(Outcome::Skipped);
        }
        if let Some(reason) = misfit(self.plan, row) {
            return Ok(Outcome::Rejected(reason));
        }
        let mut meanings = match (self.derive(run.batch, row)?, hindrance) {
            (Err(hindrance), _) => return self.hinder(run, item, &hindrance),
            (Ok(_), Some(hindrance)) => return self.hinder(run, item, hindrance),
            (Ok(meanings), None) => meanings,
        };
        let cells = row.cells.iter().map(|cell| cell.as_ref().map(encode));
        let mut values: Values<'a> = cells.chain(meanings.iter().map(Meaning::value)).collect();
        let there = match self.which(run, row, entry, bond, &values)? {
            Identity::Row(gsid) => Some(gsid),
            Identity::Several(ambiguity) => {
                let table = &self.plan.table;
                run.changes.put_review(table, row, item.image, &ambiguity)?;
                return Ok(Outcome::Review);
            }
            Identity::Empty(reason)
                if self.plan.on_empty_identifier == OnEmptyIdentifier::Reject =>
            {
                return Ok(Outcome::Rejected(reason));
            }
            Identity::New | Identity::Empty(_) => None,
        };
        let written = match &there {
            Some(gsid) => {
                self.leave_to_full_syncs(row, entry, gsid, &mut meanings, &mut values)?;
                self.wait_for_turn(gsid, &mut meanings, &mut values);
                self.leave_to_owners(gsid, &mut meanings, &mut values)?;
                if self.rows.moves(gsid, &values)? {
                    stray::note(run.transaction, &run.batch.reader.connection, gsid)?;
                }
                self.rows.update(gsid, &mut values)?
            }
            None => Written::Missing,
        };
        let gsid = there.unwrap_or_else(|| new_gsid(run));
        if written == Written::Missing {
            self.rows.insert(&gsid, &values)?;
        }
        let held = entry.and_then(Entry::held);
        let outcome = match (written, held == Some(&*gsid)) {
            (Written::Missing, _) => Outcome::Inserted,
            (_, false) => Outcome::Associated,
            (Written::Changed, true) => Outcome::Updated,
            (Written::Emptied, true) => Outcome::Emptied,
            (Written::Same, true) => Outcome::Unchanged,
        };
        let after = Entry {
            gsid: Some(gsid),
            version: row.version,
            gone: false,
            mark: None,
        };
        self.crosswalk.put(&row.record, entry, &after)?;
        if bond == Some(Bond::Open) {
            self.bonds.remove(&row.record)?;
        }
        let known = entry.and_then(|entry| entry.gsid.as_deref());
        if let Some(left) = known.filter(|known| Some(*known) != after.gsid.as_deref()) {
            stray::note(run.transaction, &run.batch.reader.connection, left)?;
        }
        let left = held.filter(|held| Some(*held) != after.gsid.as_deref());
        if let Some(left) = left {
            // What was decided says that it never was that row.
            let policy = bond.map_or(self.plan.on_delete, |_| OnExit::Delete);
            self.let_go(run, row, left, policy)?;
        }
        self.park(row, &meanings)?;
        if let Some(gsid) = after.gsid {
            self.look_later(item.index, &gsid, &meanings);
            if outcome != Outcome::Unchanged {
                self.touched.push(gsid);
            }
        }
        Ok(outcome)
    }

    /// Which row a record is: what was decided, else the one that it has, else what its identifiers say.
    fn which(
        &mut self,
        run: &Run<'a>,
        row: &'a MappedRow,
        entry: Option<&Entry>,
        bond: Option<Bond>,
        values: &Values<'a>,
    ) -> Result<Identity, JobError> {
        if let Some(gsid) = bond.and_then(|bond| bond.gsid()) {
            return Ok(Identity::Row(gsid.hyphenated().to_string()));
        }
        let known = entry.and_then(|entry| entry.gsid.clone());
        let (Some(known), None) = (known, bond) else {
            return self.identify(run, row, values);
        };
        if !run.batch.asks_anew(self.plan) || !entry.is_some_and(Entry::holds) {
            return Ok(Identity::Row(known));
        }
        Ok(match self.identify(run, row, values)? {
            Identity::Empty(_) => Identity::Row(known),
            Identity::Several(ambiguity) if ambiguity.candidates.contains(&known) => {
                Identity::Row(known)
            }
            moved => moved,
        })
    }

    /// Matches a record by its identifiers; all have to have a value, and be equal.
    fn identify(
        &mut self,
        run: &Run<'a>,
        row: &'a MappedRow,
        values: &Values<'a>,
    ) -> Result<Identity, JobError> {
        let plan = self.plan;
        if plan.identifiers.is_empty() {
            return Ok(Identity::New);
        }
        let mut key = Vec::with_capacity(plan.identifiers.len());
        for (place, identifier) in plan.identifiers.iter().enumerate() {
            let mapped = plan
                .columns
                .iter()
                .position(|column| column.name == identifier.column);
            let derived = plan
                .derives
                .iter()
                .position(|derive| derive.column == identifier.column);
            let part = &self.identify.lookup().parts[place];
            let value = match (mapped, derived) {
                (Some(mapped), _) => row.cells[mapped].as_ref().and_then(|cell| part.value(cell)),
                (None, Some(derived)) => match &values[plan.columns.len() + derived] {
                    // A look-up into the own table that is open: as far as it has come.
                    None => {
                        let reference = row.references[derived].as_ref();
                        self.derives[derived].row_as_yet(run.batch, row, reference)?
                    }
                    found => found.clone().filter(|value| *value != Stored::Null),
                },
                (None, None) => None,
            };
            let Some(value) = value else {
                return Ok(Identity::Empty(format!(
                    "identifier `{}` of {} is empty",
                    identifier.column, plan.label
                )));
            };
            key.push(value);
        }
        Ok(match self.identify.find(&key)? {
            Found::None => Identity::New,
            Found::One(gsid) => Identity::Row(gsid),
            Found::Several(candidates) => Identity::Several(Ambiguity {
                identifiers: self.identify.lookup().pairs(&key),
                candidates,
            }),
        })
    }

    /// Leaves a row for another one.
    fn let_go(
        &mut self,
        run: &Run<'a>,
        row: &MappedRow,
        left: &str,
        policy: OnExit,
    ) -> Result<(), JobError> {
        match policy {
            OnExit::Keep => Ok(()),
            OnExit::Mark if self.crosswalk.standing(left)?.is_none() => {
                let at = row.committed_at.map_or_else(|| run.now.to_owned(), instant);
                self.rows.mark(left, Some(&("deleted".to_owned(), at)))
            }
            OnExit::Mark | OnExit::Delete => self.settle(left),
        }
    }

    /// Leaves the scheduled columns of a row alone that has what the last full sync told.
    fn leave_to_full_syncs(
        &mut self,
        row: &MappedRow,
        entry: Option<&Entry>,
        gsid: &str,
        meanings: &mut [Meaning<'a>],
        values: &mut Values<'a>,
    ) -> Result<(), JobError> {
        let plan = self.plan;
        let is_steady = |entry: &Entry| {
            entry.held() == Some(gsid)
                && entry.mark.is_none()
                && row.spares_scheduled(entry.version)
        };
        if plan.scheduled.is_empty() || !entry.is_some_and(is_steady) || !self.rows.has(gsid)? {
            return Ok(());
        }
        plan.leave_scheduled(values, meanings, || Meaning::Absent);
        Ok(())
    }

    /// Leaves the columns alone that are another connection's, since a record of it holds the row.
    fn leave_to_owners(
        &mut self,
        gsid: &str,
        meanings: &mut [Meaning<'a>],
        values: &mut Values<'a>,
    ) -> Result<(), JobError> {
        let plan = self.plan;
        if plan.owners.is_empty() {
            return Ok(());
        }
        let holders = self.crosswalk.connections(gsid)?;
        let is_foreign = |column: &str| {
            let owners = plan.owners.get(column).into_iter().flatten();
            owners
                .into_iter()
                .any(|owner| holders.iter().any(|holder| holder == owner.as_str()))
        };
        let columns = plan.columns.iter().zip(values.iter_mut());
        for (_, value) in columns.filter(|(column, _)| is_foreign(&column.name)) {
            *value = None;
        }
        let derived = values.iter_mut().skip(plan.columns.len()).zip(meanings);
        for (derive, (value, meaning)) in plan.derives.iter().zip(derived) {
            if is_foreign(&derive.column) {
                // What it waited for is no matter of this record any more.
                (*value, *meaning) = (None, Meaning::Value(Stored::Null));
            }
        }
        Ok(())
    }

    /// Has a row say what those who hold it are; it goes if nobody does.
    fn settle(&mut self, gsid: &str) -> Result<(), JobError> {
        match self.crosswalk.standing(gsid)? {
            Some(mark) => self.rows.mark(gsid, mark.as_ref())?,
            None => self.rows.delete(gsid)?,
        }
        self.touched.push(gsid.to_owned());
        Ok(())
    }

    /// Applies a delete, or that a record does not pass the filter.
    pub(super) fn leave(
        &mut self,
        run: &Run<'a>,
        row: &'a MappedRow,
        entry: Option<&Entry>,
        policy: OnExit,
        state: &str,
    ) -> Result<Outcome, JobError> {
        let version = row.version;
        let Some((before, gsid)) = entry.and_then(|entry| Some((entry, entry.held()?))) else {
            let never_stored = Entry {
                gsid: None,
                version,
                gone: true,
                mark: None,
            };
            let after = entry.map_or(never_stored, |entry| Entry {
                version,
                ..entry.clone()
            });
            self.crosswalk.put(&row.record, entry, &after)?;
            return Ok(Outcome::Ignored);
        };
        // A row that stays goes on waiting for what its columns lack.
        for column in self.references.of(&row.record)? {
            match policy {
                OnExit::Keep | OnExit::Mark => {
                    self.references.carry(&row.record, &column, version)?
                }
                OnExit::Delete => self.references.delete(&row.record, &column)?,
            }
        }
        let mut after = Entry {
            version,
            ..before.clone()
        };
        let outcome = match policy {
            OnExit::Keep => Outcome::Ignored,
            OnExit::Mark => {
                let held = before.mark.as_ref().filter(|(held, _)| held == state);
                let at = match (row.committed_at, held) {
                    (Some(at), _) => instant(at),
                    (None, Some((_, at))) => at.clone(),
                    (None, None) => run.now.to_owned(),
                };
                after.mark = Some((state.to_owned(), at));
                Outcome::Marked
            }
            OnExit::Delete => {
                (after.gone, after.mark) = (true, None);
                Outcome::Deleted
            }
        };
        self.crosswalk.put(&row.record, Some(before), &after)?;
        if outcome != Outcome::Ignored {
            self.settle(gsid)?;
        }
        if after.gone && self.plan.is_looked_up {
            stray::note(run.transaction, &run.batch.reader.connection, gsid)?;
        }
        Ok(outcome)
    }
}

/// GSIDs are UUIDv7 of the batch's date, in the order in which they are given: rows are appended.
fn new_gsid(run: &Run<'_>) -> String {
    let now = run.batch.now;
    let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
    let at = Timestamp::from_unix(run.gsids, seconds, now.timestamp_subsec_nanos());
    Uuid::new_v7(at).hyphenated().to_string()
}

fn check_lengths(plan: &DestinationPlan, row: &MappedRow) -> Result<(), Fault> {
    if row.cells.len() == plan.columns.len() && row.references.len() == plan.derives.len() {
        return Ok(());
    }
    Err(Fault::new(
        FaultKind::Corrupt,
        format!(
            "record {} does not have the columns of the plan for {}",
            row.record, plan.label
        ),
    ))
}

/// Why a cell does not fit its column, if one does not.
fn misfit(plan: &DestinationPlan, row: &MappedRow) -> Option<String> {
    let mut cells = plan.columns.iter().zip(&row.cells);
    cells.find_map(|(column, cell)| {
        let cell = cell.as_ref()?;
        let fits = matches!(
            (cell, Class::of(column.ty)),
            (Cell::Null, _)
                | (Cell::Boolean(_), Class::Boolean)
                | (Cell::Number(_), Class::Number)
                | (Cell::Text(_), Class::Text)
                | (Cell::Date(_), Class::Date)
                | (Cell::DateTime(_), Class::DateTime)
                | (Cell::Gsid(_), Class::Gsid)
        );
        (!fits).then(|| {
            format!(
                "column `{}` of {} is {:?} and does not take `{}`",
                column.name,
                plan.label,
                column.ty,
                cell.to_json()
            )
        })
    })
}
