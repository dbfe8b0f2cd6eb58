//! One pass over a destination's rows: which row a record is, and how that is written, marked and deleted.

use std::collections::{BTreeSet, HashMap};

use uuid::Uuid;

use super::derive::{Hindrance, Later, Meaning};
use super::facts::{Facts, Unknown};
use super::layout::Layout;
use super::ledger::{Entry, Mark, State};
use super::lookup::{Found, Key};
use super::parked::{Changes, Parking, Parkings};
use super::recall::Rows;
use super::review::Ambiguity;
use super::value::{Val, misfit};
use super::view::{View, Written};
use crate::fault::Fault;
use crate::mapping::plan::{Life, MappedRow};
use crate::model::policy::{OnEmptyIdentifier, OnExit};
use crate::model::record_id::RecordId;
use crate::target::port::review::{Bond, CANDIDATES};
use crate::target::port::{Batch, DestinationBatch, Outcome};

/// What a row comes to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Told {
    Is(Outcome),
    /// Updated or unchanged, as the statement that writes the row will tell.
    ByStatement(Uuid),
    /// Updated; the statement will tell whether a value was lost.
    Updated(Uuid),
    /// Something is not known yet.
    Open,
}

/// Why a row is not thought through to its end.
#[derive(Debug)]
pub(super) enum Stop {
    Unknown,
    Fault(Fault),
}

impl From<Unknown> for Stop {
    fn from(_: Unknown) -> Self {
        Self::Unknown
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// What a pass is made of, besides the facts.
pub(super) struct Given<'g, 'a> {
    pub batch: &'a Batch,
    pub part: &'a DestinationBatch,
    pub layout: &'g Layout<'a>,
    /// Records that an earlier destination kept out.
    pub settled: &'g HashMap<&'a RecordId, Outcome>,
    /// The GSIDs of rows that may be new, in their order.
    pub gsids: &'g [Option<Uuid>],
    /// Per derived column the rows by record id that need not be looked up.
    pub recalled: &'g [Option<&'g Rows>],
    /// Rows that a look-up into the own table keeps out.
    pub hindered: &'g HashMap<usize, Hindrance<'a>>,
}

/// A pass under way, and what it came to.
pub(super) struct Pass<'g, 'a> {
    pub given: Given<'g, 'a>,
    pub view: View<'g>,
    pub changes: Changes<'a>,
    pub parkings: Parkings<'a>,
    pub told: Vec<Told>,
    /// Rows for which others may wait.
    pub touched: BTreeSet<Uuid>,
    pub later: Later,
    /// Records whose undone decisions are done with.
    pub reopened: BTreeSet<&'a RecordId>,
    /// Rows that records are not any more.
    pub left: BTreeSet<Uuid>,
    /// Nothing leaves in this batch: a record id that is found stays found.
    pub nobody_leaves: bool,
}

/// Which row a record is that has none by the crosswalk.
enum Identity {
    New,
    Row(Uuid),
    Several(Ambiguity),
    /// An identifier is without a value, which matches nothing.
    Empty(String),
}

impl<'g, 'a: 'g> Pass<'g, 'a> {
    pub(super) fn new(given: Given<'g, 'a>, facts: &'g Facts<'a>, changes: Changes<'a>) -> Self {
        let rows = &given.part.rows;
        // Who is bound may move to another row, and who is to move as its identifiers do.
        let moves = given.batch.asks_anew(given.layout.plan);
        let nobody_leaves =
            facts.bonds.is_empty() && !moves && rows.iter().all(|row| row.life == Life::Present);
        let mut asked = vec![false; given.layout.shapes.len()];
        let new = |row: &MappedRow| {
            let entry = facts.entries.get(&row.record);
            let is_known = entry.is_some_and(|known| known.entry.gsid.is_some());
            let is_open = facts.bonds.get(&row.record) == Some(&Bond::Open);
            row.life == Life::Present && (!is_known || is_open || moves)
        };
        asked[0] = !given.layout.identifiers.parts.is_empty() && rows.iter().any(new);
        for (place, derive) in given.layout.derives.iter().enumerate() {
            if let super::layout::Reach::OwnTable {
                shape: Some(shape), ..
            } = derive.reach
            {
                asked[shape] |= rows.iter().any(|row| row.references[place].is_some());
            }
        }
        Self {
            view: View::new(given.layout, facts, asked, !nobody_leaves),
            told: Vec::with_capacity(rows.len()),
            given,
            changes,
            parkings: Parkings::new(),
            touched: BTreeSet::new(),
            later: Later::default(),
            reopened: BTreeSet::new(),
            left: BTreeSet::new(),
            nobody_leaves,
        }
    }

    /// Thinks all rows through. Rows that have to be kept out, if all is known.
    pub(super) fn run(&mut self) -> Result<Vec<(usize, Hindrance<'a>)>, Fault> {
        for index in 0..self.given.part.rows.len() {
            let told = match self.row(index) {
                Ok(told) => told,
                Err(Stop::Unknown) => Told::Open,
                Err(Stop::Fault(fault)) => return Err(fault),
            };
            self.told.push(told);
        }
        self.look_into_own_table()
    }

    /// Whether something is not known yet.
    pub(super) fn is_open(&self) -> bool {
        !self.view.needs.is_empty() || self.told.contains(&Told::Open)
    }

    fn row(&mut self, index: usize) -> Result<Told, Stop> {
        let row = &self.given.part.rows[index];
        if let Some(outcome) = self.given.settled.get(&row.record) {
            return Ok(Told::Is(outcome.clone()));
        }
        if row.record.as_str().contains('\0') {
            let reason = "PostgreSQL keeps no record id with the character U+0000";
            return Ok(Told::Is(Outcome::Rejected(reason.to_owned())));
        }
        let entry = self.view.entry(&row.record);
        let waiting = self.changes.version(&row.record);
        let held = entry.map(|entry| entry.version).max(waiting);
        if let Some(held) = held.filter(|held| *held > row.version) {
            return Ok(Told::Is(Outcome::Stale(held)));
        }
        if waiting.is_some() {
            self.changes.delete(&row.record);
        }
        let plan = self.given.layout.plan;
        match row.life {
            Life::Present => self.present(index, row, entry),
            Life::Deleted => self.leave(row, entry, plan.on_delete, State::Deleted),
            Life::Filtered => self.leave(row, entry, plan.on_filter_exit, State::Filtered),
        }
    }

    /// Writes a record that takes part.
    fn present(
        &mut self,
        index: usize,
        row: &'a MappedRow,
        before: Option<Entry>,
    ) -> Result<Told, Stop> {
        let bond = self.view.facts.bonds.get(&row.record).copied();
        if bond == Some(Bond::Ignored) {
            return Ok(Told::Is(Outcome::Skipped));
        }
        if let Some(reason) = self.refused(row) {
            return Ok(Told::Is(Outcome::Rejected(reason)));
        }
        let known = before.and_then(|entry| entry.gsid);
        let mut meanings = match self.derive(row) {
            Err(stop) => {
                if known.is_none() {
                    self.ask_early(row);
                }
                return Err(stop);
            }
            Ok(Err(hindrance)) => return Ok(Told::Is(self.hinder(index, row, hindrance))),
            Ok(Ok(meanings)) => match self.given.hindered.get(&index) {
                Some(hindrance) => {
                    let hindrance = hindrance.clone();
                    return Ok(Told::Is(self.hinder(index, row, hindrance)));
                }
                None => meanings,
            },
        };
        let cells = row.cells.iter().map(|cell| cell.as_ref().map(Val::Cell));
        let mut values: Vec<Option<Val<'g>>> =
            cells.chain(meanings.iter().map(Meaning::value)).collect();
        let there = match self.which(row, before, bond, &values)? {
            Identity::Row(gsid) => Some(gsid),
            Identity::Several(ambiguity) => {
                return Ok(Told::Is(self.review(index, row, ambiguity)));
            }
            Identity::Empty(reason)
                if self.given.layout.plan.on_empty_identifier == OnEmptyIdentifier::Reject =>
            {
                return Ok(Told::Is(Outcome::Rejected(reason)));
            }
            Identity::New | Identity::Empty(_) => None,
        };
        let (gsid, written) = match there {
            Some(gsid) => {
                self.view.touch(gsid, self.is_there(row, before, gsid))?;
                self.leave_to_full_syncs(row, before, gsid, &mut meanings, &mut values);
                self.wait_for_turn(gsid, &mut meanings, &mut values);
                self.leave_to_owners(gsid, &mut meanings, &mut values)?;
                (gsid, self.view.write(gsid, &values)?)
            }
            None => {
                let gsid = self.given.gsids[index].ok_or(Stop::Unknown)?;
                self.view.create(gsid, &values)?;
                (gsid, Written::Inserted)
            }
        };
        let after = Entry {
            gsid: Some(gsid),
            version: row.version,
            gone: false,
            mark: None,
        };
        self.view.put_entry(&row.record, after);
        if bond == Some(Bond::Open) {
            self.reopened.insert(&row.record);
        }
        self.left.extend(known.filter(|known| *known != gsid));
        let held = before.and_then(|entry| entry.held());
        if let Some(left) = held.filter(|held| *held != gsid) {
            // What was decided says that it never was that row.
            let policy = bond.map_or(self.given.layout.plan.on_delete, |_| OnExit::Delete);
            self.let_go(row, left, policy)?;
        }
        self.park(row, &meanings);
        self.look_later(index, gsid, &meanings);
        Ok(match (written, held == Some(gsid)) {
            (Written::Inserted, _) => self.tell(gsid, Outcome::Inserted),
            (_, false) => self.tell(gsid, Outcome::Associated),
            (Written::Changed, true) => {
                self.touched.insert(gsid);
                Told::Updated(gsid)
            }
            (Written::Same, true) => Told::Is(Outcome::Unchanged),
            (Written::StatementTells, true) => Told::ByStatement(gsid),
        })
    }

    fn tell(&mut self, gsid: Uuid, outcome: Outcome) -> Told {
        self.touched.insert(gsid);
        Told::Is(outcome)
    }

    /// Leaves a row for another one.
    fn let_go(&mut self, row: &MappedRow, left: Uuid, policy: OnExit) -> Result<(), Stop> {
        match policy {
            OnExit::Keep => Ok(()),
            OnExit::Delete => self.settle(left),
            OnExit::Mark => {
                let at = row.committed_at.unwrap_or(self.given.batch.now);
                let at = chrono::SubsecRound::trunc_subsecs(at, 6);
                let state = State::Deleted;
                let standing = self.view.standing(left)?;
                let standing = standing.unwrap_or(Some(Mark { state, at }));
                self.view.touch(left, None)?;
                self.view.settle(left, Some(standing))?;
                self.touched.insert(left);
                Ok(())
            }
        }
    }

    /// Leaves the scheduled columns of a row alone that has what the last full sync told.
    fn leave_to_full_syncs(
        &self,
        row: &MappedRow,
        before: Option<Entry>,
        gsid: Uuid,
        meanings: &mut [Meaning<'a>],
        values: &mut [Option<Val<'g>>],
    ) {
        let plan = self.given.layout.plan;
        let is_steady = |entry: Entry| {
            entry.held() == Some(gsid)
                && entry.mark.is_none()
                && row.spares_scheduled(entry.version)
        };
        if plan.scheduled.is_empty() || !before.is_some_and(is_steady) || !self.view.is_there(gsid)
        {
            return;
        }
        plan.leave_scheduled(values, meanings, || Meaning::Absent);
    }

    /// Leaves the columns alone that are another connection's, since a record of it holds the row.
    fn leave_to_owners(
        &mut self,
        gsid: Uuid,
        meanings: &mut [Meaning<'a>],
        values: &mut [Option<Val<'g>>],
    ) -> Result<(), Stop> {
        let plan = self.given.layout.plan;
        if plan.owners.is_empty() {
            return Ok(());
        }
        let holders = self.view.connections(gsid)?;
        let is_foreign = |column: &str| {
            let owners = plan.owners.get(column).into_iter().flatten();
            owners
                .into_iter()
                .any(|owner| holders.contains(owner.as_str()))
        };
        let columns = plan.columns.iter().zip(values.iter_mut());
        for (_, value) in columns.filter(|(column, _)| is_foreign(&column.name)) {
            *value = None;
        }
        let derived = values.iter_mut().skip(plan.columns.len()).zip(meanings);
        for (derive, (value, meaning)) in plan.derives.iter().zip(derived) {
            if is_foreign(&derive.column) {
                // What it waited for is no matter of this record any more.
                (*value, *meaning) = (None, Meaning::Value(Val::Null));
            }
        }
        Ok(())
    }

    /// Has a row say what those who hold it are; it goes if nobody does.
    fn settle(&mut self, gsid: Uuid) -> Result<(), Stop> {
        let standing = self.view.standing(gsid)?;
        self.view.touch(gsid, None)?;
        self.view.settle(gsid, standing)?;
        self.touched.insert(gsid);
        Ok(())
    }

    /// Parks a change until a person says which row it is.
    fn review(&mut self, index: usize, row: &'a MappedRow, ambiguity: Ambiguity) -> Outcome {
        let part = self.given.part;
        let image = part.images.get(index).map_or(&[][..], |image| &image[..]);
        let (batch, table) = (self.given.batch, &part.plan.table);
        self.changes
            .put(batch, table, row, image, Vec::new(), Some(ambiguity));
        Outcome::Review
    }

    /// Whether a record's row is there. Who holds a row and is no news to it keeps others from deleting it, so
    /// what was read without a lock is true; all others have to lock the row.
    fn is_there(&self, row: &MappedRow, before: Option<Entry>, gsid: Uuid) -> Option<bool> {
        let entry = before?;
        if !self.given.layout.plan.owners.is_empty() {
            // Who else holds it matters, and is true under the row's lock only.
            return None;
        }
        let steady = entry.held() == Some(gsid) && entry.mark.is_none();
        let facts = self.view.facts.entries.get(&row.record);
        facts.filter(|_| steady).map(|known| known.is_there)
    }

    /// Why a row can't be stored.
    fn refused(&self, row: &MappedRow) -> Option<String> {
        let plan = self.given.layout.plan;
        let cells = self.given.layout.columns.iter().zip(&row.cells);
        cells
            .into_iter()
            .zip(&plan.columns)
            .find_map(|((column, cell), planned)| {
                let cell = cell.as_ref()?;
                let why = misfit(cell, column.class)?;
                let shown: String = cell.to_json().to_string().chars().take(100).collect();
                Some(format!(
                    "column `{}` of {} is {:?} and does not take `{shown}`: {why}",
                    planned.name, plan.label, planned.ty
                ))
            })
    }

    /// Asks for what identifying a record will need, while its derived columns are open.
    fn ask_early(&mut self, row: &'a MappedRow) {
        if self.given.layout.identifiers.parts.is_empty() {
            return;
        }
        let mapped = self.given.layout.plan.columns.len();
        let values: Vec<Option<Val<'g>>> = row
            .cells
            .iter()
            .map(|cell| cell.as_ref().map(Val::Cell))
            .collect();
        if let Some(Ok(key)) = self.identity_key(row, &values, mapped) {
            self.view.by_shape(0, &key).ok();
        }
    }

    /// The key of a record's identifiers: `None` if it takes columns past the first `known` ones, the name of an
    /// identifier that is empty otherwise.
    fn identity_key(
        &mut self,
        row: &'a MappedRow,
        values: &[Option<Val<'g>>],
        known: usize,
    ) -> Option<Result<Key<'g>, &'a str>> {
        let layout = self.given.layout;
        let mut key = Key::with_capacity(layout.identifiers.parts.len());
        for (part, identifier) in layout
            .identifiers
            .parts
            .iter()
            .zip(&layout.plan.identifiers)
        {
            let place = layout.place_of(&identifier.column);
            let value = match place {
                Some(place) if place >= known => return None,
                Some(place) => match values[place] {
                    // A look-up into the own table that is open: as far as it has come.
                    None if place >= layout.plan.columns.len() => {
                        match self.row_as_yet(row, place - layout.plan.columns.len()) {
                            Ok(found) => found.map(super::value::Value::Gsid),
                            Err(_) => return None,
                        }
                    }
                    None | Some(Val::Null) => None,
                    Some(Val::Gsid(gsid)) => Some(super::value::Value::Gsid(gsid)),
                    Some(Val::Cell(cell)) => part.value(cell),
                },
                None => None,
            };
            match value {
                Some(value) => key.push(value),
                None => return Some(Err(&identifier.column)),
            }
        }
        Some(Ok(key))
    }

    /// Which row a record is: what was decided, else the one that it has, else what its identifiers say.
    fn which(
        &mut self,
        row: &'a MappedRow,
        before: Option<Entry>,
        bond: Option<Bond>,
        values: &[Option<Val<'g>>],
    ) -> Result<Identity, Stop> {
        if let Some(gsid) = bond.and_then(|bond| bond.gsid()) {
            return Ok(Identity::Row(gsid));
        }
        let known = before.and_then(|entry| entry.gsid);
        let (Some(known), None) = (known, bond) else {
            return self.identify(row, values);
        };
        let holds = before.is_some_and(|entry| entry.held().is_some());
        let plan = self.given.layout.plan;
        if !self.given.batch.asks_anew(plan) || !holds {
            return Ok(Identity::Row(known));
        }
        Ok(match self.identify(row, values)? {
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
        row: &'a MappedRow,
        values: &[Option<Val<'g>>],
    ) -> Result<Identity, Stop> {
        let plan = self.given.layout.plan;
        if plan.identifiers.is_empty() {
            return Ok(Identity::New);
        }
        let key = match self.identity_key(row, values, values.len()) {
            None => return Err(Stop::Unknown),
            Some(Ok(key)) => key,
            Some(Err(column)) => {
                let reason = format!("identifier `{column}` of {} is empty", plan.label);
                return Ok(Identity::Empty(reason));
            }
        };
        Ok(match self.view.by_shape(0, &key)? {
            Found::None => Identity::New,
            Found::One(gsid) => Identity::Row(gsid),
            Found::Several(mut candidates) => {
                candidates.truncate(CANDIDATES);
                Identity::Several(Ambiguity {
                    identifiers: self.given.layout.identifiers.pairs(&key),
                    candidates,
                })
            }
        })
    }

    /// Applies a delete, or that a record does not pass the filter.
    fn leave(
        &mut self,
        row: &'a MappedRow,
        before: Option<Entry>,
        policy: OnExit,
        state: State,
    ) -> Result<Told, Stop> {
        let version = row.version;
        let Some((before, gsid)) = before.and_then(|entry| Some((entry, entry.held()?))) else {
            let never_stored = Entry {
                gsid: None,
                version,
                gone: true,
                mark: None,
            };
            let after = before.map_or(never_stored, |entry| Entry { version, ..entry });
            self.view.put_entry(&row.record, after);
            return Ok(Told::Is(Outcome::Ignored));
        };
        let mut after = Entry { version, ..before };
        match policy {
            OnExit::Keep => {}
            OnExit::Mark => {
                let held = before.mark.filter(|mark| mark.state == state);
                let at = row.committed_at.or(held.map(|mark| mark.at));
                let at = at.unwrap_or(self.given.batch.now);
                let at = chrono::SubsecRound::trunc_subsecs(at, 6);
                after.mark = Some(Mark { state, at });
            }
            OnExit::Delete => (after.gone, after.mark) = (true, None),
        }
        self.view.put_entry(&row.record, after);
        // A row that stays goes on waiting for what its columns lack.
        let waiting = self.view.facts.waiting.get(&row.record);
        for column in waiting.into_iter().flatten() {
            let parking = match policy {
                OnExit::Keep | OnExit::Mark => Parking::Carry(version),
                OnExit::Delete => Parking::Delete,
            };
            self.parkings.insert((&row.record, column.clone()), parking);
        }
        let outcome = match policy {
            OnExit::Keep => return Ok(Told::Is(Outcome::Ignored)),
            OnExit::Mark => Outcome::Marked,
            OnExit::Delete => Outcome::Deleted,
        };
        self.settle(gsid)?;
        if after.gone && self.given.layout.plan.is_looked_up {
            self.left.insert(gsid);
        }
        Ok(Told::Is(outcome))
    }
}
