//! A batch of the memory target: destinations in order, rows by offset, all or nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::exit;
use super::identity::{self, Identity};
use super::layout::Layout;
use super::ledger::{
    Ambiguity, Association, ChangeKey, Entry, ParkedReference, ReferenceKey, Standing,
    WaitingChange,
};
use super::lookup::{self, Found};
use super::spared::Spared;
use super::tables::{CREATED, Cells, STATE, STATE_AT, fits, plain};
use super::transaction::{Store, Transaction};
use crate::fault::Fault;
use crate::mapping::plan::{Cell, DerivePlan, Life, MappedRow, Reference};
use crate::model::policy::{OnEmptyIdentifier, OnExit, OnNone};
use crate::model::record_id::RecordId;
use crate::model::version::Version;
use crate::target::port::review::Bond;
use crate::target::port::{Applied, Batch, DestinationBatch, Outcome};

/// Applies a batch; a fault or a rejected row leaves nothing behind.
pub(super) fn apply(store: &mut Store, batch: &Batch) -> Result<Applied, Fault> {
    store.ledger.check_owner(batch)?;
    store.now = store.now.max(batch.now);
    let mut run = Run {
        tx: Transaction::begin(store),
        batch,
        settled: HashMap::new(),
        timely: HashSet::new(),
        waited: HashMap::new(),
    };
    let mut outcomes = Vec::with_capacity(batch.destinations.len());
    for destination in &batch.destinations {
        outcomes.push(run.destination(destination)?);
    }
    let committed = batch.may_commit(&outcomes);
    if committed {
        run.tx.store.ledger.pass(batch);
        run.tx.commit();
    }
    Ok(Applied {
        committed,
        outcomes,
    })
}

/// A batch under way.
pub(super) struct Run<'a> {
    pub tx: Transaction<'a>,
    pub batch: &'a Batch,
    /// Records that an earlier destination kept out.
    settled: HashMap<RecordId, Outcome>,
    /// Records whose scheduled columns stay as they are.
    pub timely: HashSet<RecordId>,
    /// Since when a record's change waited before this batch.
    waited: HashMap<RecordId, (Version, DateTime<Utc>)>,
}

/// One row of a destination.
pub(super) struct Item<'a> {
    pub layout: &'a Layout<'a>,
    pub row: &'a MappedRow,
    pub image: bytes::Bytes,
    pub own: Association,
}

/// What keeps a row from being written.
#[derive(Debug, Clone)]
pub(super) enum Hindrance {
    Wait(Vec<(DerivePlan, Reference)>),
    Skip,
    Reject(String),
}

/// A derived column's new value; `None` leaves it.
type Derived = Vec<(usize, Option<Found>)>;

impl Run<'_> {
    /// Applies the rows; then their look-ups into the same table, which see all of them. A look-up that keeps
    /// its row out may be what another one finds: so begin again without it, until none does.
    fn destination(&mut self, destination: &DestinationBatch) -> Result<Vec<Outcome>, Fault> {
        let layout = Layout::of(self.tx.store, &destination.plan)?;
        let images = destination.images.iter().cloned();
        let images = images.chain(std::iter::repeat(bytes::Bytes::new()));
        let items: Vec<_> = destination
            .rows
            .iter()
            .zip(images)
            .map(|(row, image)| Item {
                layout: &layout,
                row,
                image,
                own: self.association(&layout, &row.record),
            })
            .collect();
        let savepoint = self.tx.savepoint();
        let mut hindered: HashMap<usize, Hindrance> = HashMap::new();
        let outcomes = loop {
            self.timely.clear();
            let mut outcomes = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                outcomes.push(self.row(item, hindered.get(&index))?);
            }
            let more = self.look_into_own_table(&items, &mut outcomes)?;
            if more.is_empty() {
                break outcomes;
            }
            self.tx.roll_back(savepoint);
            hindered.extend(more);
        };
        for (item, outcome) in items.iter().zip(&outcomes) {
            if matches!(
                outcome,
                Outcome::Parked | Outcome::Review | Outcome::Rejected(_)
            ) {
                self.settled
                    .insert(item.row.record.clone(), outcome.clone());
            }
        }
        Ok(outcomes)
    }

    fn row(&mut self, item: &Item, hindrance: Option<&Hindrance>) -> Result<Outcome, Fault> {
        if let Some(outcome) = self.settled.get(&item.row.record) {
            return Ok(outcome.clone());
        }
        let change = self.change_key(&item.row.record);
        let ledger = &self.tx.store.ledger;
        let entry = ledger.entries.get(&item.own).cloned();
        let waiting = ledger
            .changes
            .get(&change)
            .map(|held| (held.version, held.since));
        let held = entry.as_ref().map(|entry| entry.version);
        let held = held.max(waiting.map(|(version, _)| version));
        if let Some(held) = held.filter(|held| *held > item.row.version) {
            return Ok(Outcome::Stale(held));
        }
        if let Some(waiting) = waiting {
            self.waited
                .entry(item.row.record.clone())
                .or_insert(waiting);
            self.tx.put_change(change, None);
        }
        let plan = item.layout.plan;
        match item.row.life {
            Life::Present => self.present(item, entry, hindrance),
            Life::Deleted => Ok(exit::leave(
                self,
                item,
                entry,
                plan.on_delete,
                exit::DELETED,
            )),
            Life::Filtered => Ok(exit::leave(
                self,
                item,
                entry,
                plan.on_filter_exit,
                exit::FILTERED,
            )),
        }
    }

    fn present(
        &mut self,
        item: &Item,
        entry: Option<Entry>,
        hindrance: Option<&Hindrance>,
    ) -> Result<Outcome, Fault> {
        let binding = self.tx.store.ledger.bindings.get(&item.own);
        let bond = binding.map(|binding| binding.bond);
        if bond == Some(Bond::Ignored) {
            return Ok(Outcome::Skipped);
        }
        if let Some(reason) = item.misfit() {
            return Ok(Outcome::Rejected(reason));
        }
        let derived = match (self.derive(item, false)?, hindrance) {
            (Err(hindrance), _) => return Ok(self.hinder(item, hindrance)),
            (Ok(_), Some(hindrance)) => return Ok(self.hinder(item, hindrance.clone())),
            (Ok(derived), None) => derived,
        };
        let known = entry.as_ref().and_then(|entry| entry.gsid);
        let steady = entry.as_ref().is_some_and(|entry| {
            entry.standing == Standing::Present && item.row.spares_scheduled(entry.version)
        });
        let held = entry.filter(|entry| entry.standing != Standing::Gone);
        let held = held.and_then(|entry| entry.gsid);
        let gsid = match self.which(item, &derived, bond, known, held)? {
            Identity::Row(gsid) => gsid,
            Identity::Several(ambiguity) => return Ok(self.review(item, ambiguity)),
            Identity::Empty(reason)
                if item.layout.plan.on_empty_identifier == OnEmptyIdentifier::Reject =>
            {
                return Ok(Outcome::Rejected(reason));
            }
            Identity::None | Identity::Empty(_) => self.tx.store.next_gsid(),
        };
        if bond == Some(Bond::Open) {
            self.tx.put_binding(item.own.clone(), None);
        }
        self.associate(item, gsid, Standing::Present);
        if let Some(left) = known.filter(|known| *known != gsid) {
            self.tx.leave(item.own.connection.clone(), left);
        }
        if let Some(left) = held.filter(|held| *held != gsid) {
            // What was decided says that it never was that row.
            let policy = bond.map_or(item.layout.plan.on_delete, |_| OnExit::Delete);
            exit::let_go(self, item, left, policy);
        }
        let was_there = held == Some(gsid);
        let before = self.tx.store.table(&item.own.table)?.get(gsid).cloned();
        let inserted = before.is_none();
        if steady && was_there && !inserted {
            self.timely.insert(item.row.record.clone());
        }
        let spared = self.spared(item, gsid);
        let keys = |cells: &Cells| -> Vec<Cell> {
            let places = item.layout.keys.iter();
            places.map(|place| cells[*place].clone()).collect()
        };
        let found_by = before.as_ref().map(keys);
        let mut cells = self.write_cells(item, before.clone(), &spared)?;
        let emptied = before.is_some_and(|before| empties(item, &before, &cells));
        self.write_derived(item, &derived, &mut cells, &spared);
        if found_by.is_some_and(|before| before != keys(&cells)) {
            self.tx.leave(item.own.connection.clone(), gsid);
        }
        (cells[STATE], cells[STATE_AT]) = (Cell::Null, Cell::Null);
        let changed = self.tx.write(&item.own.table, gsid, cells, self.batch.now);
        Ok(match (inserted, was_there, changed) {
            (true, _, _) => Outcome::Inserted,
            (false, false, _) => Outcome::Associated,
            (false, true, true) if emptied && self.batch.asks_for_emptied() => Outcome::Emptied,
            (false, true, true) => Outcome::Updated,
            (false, true, false) => Outcome::Unchanged,
        })
    }

    /// Which row a record is: what was decided, else the one that it has, else what its identifiers say.
    fn which(
        &mut self,
        item: &Item,
        derived: &Derived,
        bond: Option<Bond>,
        known: Option<Uuid>,
        held: Option<Uuid>,
    ) -> Result<Identity, Fault> {
        if let Some(gsid) = bond.and_then(|bond| bond.gsid()) {
            return Ok(Identity::Row(gsid));
        }
        let (Some(known), None) = (known, bond) else {
            return identity::of(self, item, derived);
        };
        if !self.batch.asks_anew(item.layout.plan) || held.is_none() {
            return Ok(Identity::Row(known));
        }
        Ok(match identity::of(self, item, derived)? {
            Identity::Empty(_) => Identity::Row(known),
            Identity::Several(ambiguity) if ambiguity.candidates.contains(&known) => {
                Identity::Row(known)
            }
            moved => moved,
        })
    }

    /// Finds the rows of the derived columns: those that look into the table of their own, or the others.
    fn derive(
        &mut self,
        item: &Item,
        own_table: bool,
    ) -> Result<Result<Derived, Hindrance>, Fault> {
        let mut derived = Vec::new();
        let mut waits = Vec::new();
        let plan = item.layout.plan;
        for (index, derive) in plan.derives.iter().enumerate() {
            if lookup::is_self_lookup(derive, &plan.table) != own_table {
                continue;
            }
            let Some(reference) = item.row.references.get(index).and_then(Option::as_ref) else {
                derived.push((index, None));
                continue;
            };
            let mut found = lookup::find(self.tx.store, &item.own, derive, reference)?;
            match (&found, derive.on_none) {
                (Found::Several(rows), _) => {
                    let rows: Vec<_> = rows.iter().map(ToString::to_string).collect();
                    let reason = format!(
                        "`{}` is {}, and there are several: {}",
                        derive.column,
                        lookup::describe(derive, reference),
                        rows.join(", ")
                    );
                    return Ok(Err(Hindrance::Reject(reason)));
                }
                (Found::None, OnNone::Skip) => return Ok(Err(Hindrance::Skip)),
                (Found::None, OnNone::Reject) => waits.push((derive.clone(), reference.clone())),
                (Found::None, OnNone::Default(gsid)) => found = Found::Row(gsid),
                _ => {}
            }
            derived.push((index, Some(found)));
        }
        Ok(if waits.is_empty() {
            Ok(derived)
        } else {
            Err(Hindrance::Wait(waits))
        })
    }

    /// Look-ups of the written rows into the table they are in; the rows that these keep out.
    fn look_into_own_table(
        &mut self,
        items: &[Item],
        outcomes: &mut [Outcome],
    ) -> Result<Vec<(usize, Hindrance)>, Fault> {
        let mut hindered = Vec::new();
        for (index, (item, outcome)) in items.iter().zip(outcomes).enumerate() {
            let written = matches!(
                outcome,
                Outcome::Inserted
                    | Outcome::Associated
                    | Outcome::Updated
                    | Outcome::Emptied
                    | Outcome::Unchanged
            );
            if !written || item.row.life != Life::Present {
                continue;
            }
            let derived = match self.derive(item, true)? {
                Ok(derived) => derived,
                Err(hindrance) => {
                    hindered.push((index, hindrance));
                    continue;
                }
            };
            let entry = self.tx.store.ledger.entries.get(&item.own);
            let Some(gsid) = entry.and_then(|entry| entry.gsid) else {
                continue;
            };
            // A later row of the batch may have taken it away.
            let table = self.tx.store.table(&item.own.table)?;
            let Some(mut cells) = table.get(gsid).cloned() else {
                continue;
            };
            let spared = self.spared(item, gsid);
            self.write_derived(item, &derived, &mut cells, &spared);
            let changed = self.tx.write(&item.own.table, gsid, cells, self.batch.now);
            if changed && *outcome == Outcome::Unchanged {
                *outcome = Outcome::Updated;
            }
        }
        Ok(hindered)
    }

    fn hinder(&mut self, item: &Item, hindrance: Hindrance) -> Outcome {
        let waits = match hindrance {
            Hindrance::Skip => return Outcome::Skipped,
            Hindrance::Reject(reason) => return Outcome::Rejected(reason),
            Hindrance::Wait(waits) => waits,
        };
        self.park(item, waits, None);
        Outcome::Parked
    }

    /// Parks a change until a person says which row it is.
    fn review(&mut self, item: &Item, ambiguity: Ambiguity) -> Outcome {
        self.park(item, Vec::new(), Some(ambiguity));
        Outcome::Review
    }

    fn park(
        &mut self,
        item: &Item,
        waits: Vec<(DerivePlan, Reference)>,
        ambiguity: Option<Ambiguity>,
    ) {
        let before = self.waited.get(&item.row.record);
        let before = before.filter(|(version, _)| *version == item.row.version);
        let waiting = WaitingChange {
            association: item.own.clone(),
            version: item.row.version,
            since: before.map_or(self.batch.now, |(_, since)| *since),
            place: item.row.place,
            image: item.image.clone(),
            waits,
            ambiguity,
        };
        self.tx
            .put_change(self.change_key(&item.row.record), Some(waiting));
    }

    /// The mapped columns over what the row held.
    fn write_cells(
        &self,
        item: &Item,
        before: Option<Cells>,
        spared: &Spared,
    ) -> Result<Cells, Fault> {
        let is_new = before.is_none();
        let mut cells = match before {
            Some(cells) => cells,
            None => {
                let mut cells = self.tx.store.table(&item.own.table)?.blank();
                cells[CREATED] = Cell::DateTime(self.batch.now);
                cells
            }
        };
        let columns = item.layout.plan.columns.iter().zip(&item.layout.columns);
        for ((column, position), cell) in columns.zip(&item.row.cells) {
            let Some(cell) = cell else { continue };
            let kept = (column.keep_on_null && *cell == Cell::Null) || spared.has(&column.name);
            if kept || (column.insert_only && !is_new) {
                continue;
            }
            cells[*position] = plain(cell);
        }
        Ok(cells)
    }

    /// Derived columns, and what they wait for.
    fn write_derived(
        &mut self,
        item: &Item,
        derived: &Derived,
        cells: &mut Cells,
        spared: &Spared,
    ) {
        for (index, found) in derived {
            let derive = &item.layout.plan.derives[*index];
            let key = self.reference_key(item, &derive.column);
            if spared.foreign.contains(&derive.column) {
                self.tx.put_reference(key, None);
                continue;
            }
            let is_scheduled = spared.scheduled.contains(&derive.column);
            let found = found.as_ref().filter(|_| !is_scheduled);
            let held = self.tx.store.ledger.references.get(&key).cloned();
            let version = item.row.version;
            let (cell, parked) = match found {
                None => (None, held.map(|held| ParkedReference { version, ..held })),
                Some(Found::Row(gsid)) => (Some(Cell::Gsid(*gsid)), None),
                Some(Found::None) => {
                    let reference = item.row.references[*index].clone();
                    let reference = reference.unwrap_or(Reference::Empty);
                    let parked = self.wait_for(item, derive, reference, held);
                    (Some(Cell::Null), Some(parked))
                }
                Some(Found::Empty | Found::Several(_)) => (Some(Cell::Null), None),
            };
            if let Some(cell) = cell {
                cells[item.layout.derives[*index]] = cell;
            }
            self.tx.put_reference(key, parked);
        }
    }

    fn wait_for(
        &self,
        item: &Item,
        derive: &DerivePlan,
        reference: Reference,
        held: Option<ParkedReference>,
    ) -> ParkedReference {
        let same =
            held.filter(|held| held.version == item.row.version && held.reference == reference);
        ParkedReference {
            object: item.own.object.clone(),
            version: item.row.version,
            since: same.map_or(self.batch.now, |held| held.since),
            place: item.row.place,
            derive: derive.clone(),
            reference,
            owners: item
                .layout
                .plan
                .owners
                .get(&derive.column)
                .cloned()
                .unwrap_or_default(),
        }
    }

    /// Writes the record's crosswalk entry.
    pub(super) fn associate(&mut self, item: &Item, gsid: Uuid, standing: Standing) {
        let entry = Entry {
            gsid: Some(gsid),
            version: item.row.version,
            standing,
        };
        self.tx.put_entry(item.own.clone(), entry);
    }

    /// Forgets what the record's columns wait for.
    pub(super) fn clear_references(&mut self, item: &Item) {
        let key = self.reference_key(item, "");
        for (key, _) in self.tx.store.ledger.references_of(&key) {
            self.tx.put_reference(key, None);
        }
    }

    /// A row that stays goes on waiting for what its columns lack, at the new version.
    pub(super) fn carry_references(&mut self, item: &Item) {
        let (key, version) = (self.reference_key(item, ""), item.row.version);
        for (key, held) in self.tx.store.ledger.references_of(&key) {
            self.tx
                .put_reference(key, Some(ParkedReference { version, ..held }));
        }
    }

    fn association(&self, layout: &Layout, record: &RecordId) -> Association {
        Association {
            connection: self.batch.reader.connection.clone(),
            table: Arc::clone(&layout.table),
            record: record.clone(),
            object: self.batch.object.clone(),
        }
    }

    fn change_key(&self, record: &RecordId) -> ChangeKey {
        ChangeKey {
            connection: self.batch.reader.connection.clone(),
            job: self.batch.reader.job.clone(),
            record: record.clone(),
        }
    }

    fn reference_key(&self, item: &Item, column: &str) -> ReferenceKey {
        ReferenceKey {
            connection: self.batch.reader.connection.clone(),
            job: self.batch.reader.job.clone(),
            table: Arc::clone(&item.own.table),
            record: item.row.record.clone(),
            column: column.to_owned(),
        }
    }
}

impl Item<'_> {
    /// Why a cell does not fit its column, if one does not.
    fn misfit(&self) -> Option<String> {
        let plan = self.layout.plan;
        let cells = plan.columns.iter().zip(&self.row.cells);
        let mut misfits = cells.filter_map(|(column, cell)| {
            let cell = cell.as_ref().filter(|cell| !fits(cell, column.ty))?;
            Some(format!(
                "column `{}` of {} is {:?} and does not take `{}`",
                column.name,
                plan.label,
                column.ty,
                cell.to_json()
            ))
        });
        misfits.next()
    }
}

/// Whether a mapped column lost its value.
fn empties(item: &Item, before: &Cells, after: &Cells) -> bool {
    let mut mapped = item
        .layout
        .columns
        .iter()
        .take(item.layout.plan.columns.len());
    mapped.any(|position| before[*position] != Cell::Null && after[*position] == Cell::Null)
}
