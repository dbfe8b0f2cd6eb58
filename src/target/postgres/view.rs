//! A destination's rows and records as they are in the middle of a batch: the facts, and what earlier rows left.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use uuid::Uuid;

use super::facts::{Facts, Image, Needs, Unknown};
use super::layout::{Layout, Reach};
use super::ledger::{Entry, Mark};
use super::lookup::{Found, Key};
use super::value::Val;
use crate::model::record_id::RecordId;

/// One pass over a destination.
pub(super) struct View<'a> {
    pub layout: &'a Layout<'a>,
    pub facts: &'a Facts<'a>,
    pub needs: Needs<'a>,
    /// Entries that changed, or were confirmed.
    pub entries: HashMap<&'a RecordId, Entry>,
    /// Rows that were touched.
    pub rows: BTreeMap<Uuid, Row<'a>>,
    /// Touched rows by the key that they have now, per shape.
    index: Vec<HashMap<Key<'a>, BTreeSet<Uuid>>>,
    /// Whether rows are looked up by a shape in this batch.
    pub asked: Vec<bool>,
    /// Who of the batch's records holds a row; kept where records leave.
    holders: HashMap<Uuid, HashSet<&'a RecordId>>,
}

/// A touched row.
#[derive(Debug, Clone)]
pub(super) struct Row<'a> {
    /// It was there before.
    pub was_there: bool,
    pub is_there: bool,
    /// All of it comes from this batch.
    pub is_new: bool,
    /// It has to be deleted, even if it is new afterwards.
    pub goes: bool,
    /// A value per written column; `None` leaves it as it is.
    pub values: Vec<Option<Val<'a>>>,
    /// What `crm_state` and `crm_state_at` become; `None` leaves them as they are.
    pub mark: Option<Option<Mark>>,
    image: Option<&'a Image>,
    keys: Vec<Option<Key<'a>>>,
}

/// What a write of a row came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Inserted,
    Changed,
    Same,
    /// Nobody else writes the row and it was not read: the statement that writes it tells.
    StatementTells,
}

impl<'a> View<'a> {
    pub(super) fn new(
        layout: &'a Layout<'a>,
        facts: &'a Facts<'a>,
        asked: Vec<bool>,
        leaving: bool,
    ) -> Self {
        let mut holders: HashMap<Uuid, HashSet<&RecordId>> = HashMap::new();
        if leaving {
            for (record, known) in &facts.entries {
                if let Some(gsid) = known.entry.held() {
                    holders.entry(gsid).or_default().insert(record);
                }
            }
        }
        Self {
            layout,
            facts,
            needs: Needs::default(),
            entries: HashMap::new(),
            rows: BTreeMap::new(),
            index: layout.shapes.iter().map(|_| HashMap::new()).collect(),
            asked,
            holders,
        }
    }

    pub(super) fn entry(&self, record: &RecordId) -> Option<Entry> {
        let changed = self.entries.get(record);
        let known = || self.facts.entries.get(record).map(|known| known.entry);
        changed.copied().or_else(known)
    }

    pub(super) fn put_entry(&mut self, record: &'a RecordId, entry: Entry) {
        let before = self.entry(record).and_then(|entry| entry.held());
        let after = entry.held();
        if before != after {
            if let Some(holders) = before.and_then(|gsid| self.holders.get_mut(&gsid)) {
                holders.remove(record);
            }
            if let Some(gsid) = after {
                self.holders.entry(gsid).or_default().insert(record);
            }
        }
        self.entries.insert(record, entry);
    }

    /// What a row says of those who hold it: `None` if nobody does, no mark if one of them is present, else the
    /// newest mark.
    pub(super) fn standing(&mut self, gsid: Uuid) -> Result<Option<Option<Mark>>, Unknown> {
        let Some(others) = self.facts.standings.get(&gsid) else {
            // The row is locked first: who comes to hold it meanwhile does so too.
            if !self.facts.images.contains_key(&gsid) {
                self.needs.images.insert(gsid);
            }
            self.needs.standings.insert(gsid);
            return Err(Unknown);
        };
        let mut standing = *others;
        for record in self.holders.get(&gsid).into_iter().flatten() {
            let Some(entry) = self.entry(record) else {
                continue;
            };
            standing = Some(match (standing, entry.mark) {
                (None, mark) => mark,
                (Some(Some(one)), Some(other)) => Some(if one.rank() >= other.rank() {
                    one
                } else {
                    other
                }),
                _ => None,
            });
        }
        Ok(standing)
    }

    /// The other connections whose records hold a row.
    pub(super) fn connections(&mut self, gsid: Uuid) -> Result<&'a BTreeSet<String>, Unknown> {
        let facts = self.facts;
        match facts.connections.get(&gsid) {
            Some(connections) => Ok(connections),
            None => {
                // The row is locked first: who comes to hold it meanwhile does so too.
                if !facts.images.contains_key(&gsid) {
                    self.needs.images.insert(gsid);
                }
                self.needs.connections.insert(gsid);
                Err(Unknown)
            }
        }
    }

    /// A row to be written. `known` says whether it is there, where that is safe to say without a lock.
    pub(super) fn touch(&mut self, gsid: Uuid, known: Option<bool>) -> Result<(), Unknown> {
        let image = self.facts.images.get(&gsid);
        if let Some(row) = self.rows.get(&gsid) {
            // Of two that write a row each is told what it changed: that takes the row itself.
            if row.is_there && !row.is_new && row.image.is_none() {
                self.needs.images.insert(gsid);
                return Err(Unknown);
            }
            return Ok(());
        }
        let is_there = match (image, known) {
            (Some(image), _) => image.is_some(),
            (None, Some(known)) => known,
            (None, None) => {
                self.needs.images.insert(gsid);
                return Err(Unknown);
            }
        };
        let row = Row {
            was_there: is_there,
            is_there,
            is_new: false,
            goes: false,
            values: vec![None; self.layout.written],
            mark: None,
            image: image.and_then(Option::as_ref),
            keys: vec![None; self.layout.shapes.len()],
        };
        self.rows.insert(gsid, row);
        Ok(())
    }

    /// Whether a touched row is there.
    pub(super) fn is_there(&self, gsid: Uuid) -> bool {
        self.rows.get(&gsid).is_some_and(|row| row.is_there)
    }

    /// A row that nobody knows yet.
    pub(super) fn create(&mut self, gsid: Uuid, values: &[Option<Val<'a>>]) -> Result<(), Unknown> {
        self.touch(gsid, Some(false))?;
        self.write(gsid, values).map(drop)
    }

    /// Writes a touched row: inserts it if it is not there, else changes what differs; a mark goes.
    pub(super) fn write(
        &mut self,
        gsid: Uuid,
        values: &[Option<Val<'a>>],
    ) -> Result<Written, Unknown> {
        let layout = self.layout;
        let Some(row) = self.rows.get_mut(&gsid) else {
            return Err(Unknown);
        };
        let written = if row.is_there {
            let mut changed = row.is_marked().unwrap_or(true);
            let tells = row.is_new || row.image.is_some();
            for (place, value) in values.iter().enumerate() {
                let (column, Some(value)) = (&layout.columns[place], *value) else {
                    continue;
                };
                if column.insert_only || (column.keep_on_null && value.is_null()) {
                    continue;
                }
                changed |= tells && !row.value(place).is_some_and(|held| held.is(value));
                row.values[place] = Some(value);
            }
            row.mark = Some(None);
            match (tells, changed) {
                (false, _) => Written::StatementTells,
                (true, true) => Written::Changed,
                (true, false) => Written::Same,
            }
        } else {
            row.values = values.to_vec();
            row.mark = Some(None);
            (row.is_there, row.is_new, row.image) = (true, true, None);
            Written::Inserted
        };
        self.reindex(gsid)?;
        Ok(written)
    }

    /// Sets one column of a row, if it is there; whether that changed it, where the statement does not tell.
    pub(super) fn link(
        &mut self,
        gsid: Uuid,
        place: usize,
        value: Val<'a>,
    ) -> Result<bool, Unknown> {
        let Some(row) = self.rows.get_mut(&gsid).filter(|row| row.is_there) else {
            return Ok(false);
        };
        let tells = row.is_new || row.image.is_some();
        let changed = tells && !row.value(place).is_some_and(|held| held.is(value));
        row.values[place] = Some(value);
        self.reindex(gsid)?;
        Ok(changed)
    }

    /// Says on a touched row what those who hold it are, or deletes it if nobody does.
    pub(super) fn settle(
        &mut self,
        gsid: Uuid,
        standing: Option<Option<Mark>>,
    ) -> Result<(), Unknown> {
        let Some(row) = self.rows.get_mut(&gsid).filter(|row| row.is_there) else {
            return Ok(());
        };
        match standing {
            Some(mark) => row.mark = Some(mark),
            None => {
                row.goes |= row.was_there;
                (row.is_there, row.is_new, row.image, row.mark) = (false, false, None, None);
            }
        }
        self.reindex(gsid)
    }

    fn reindex(&mut self, gsid: Uuid) -> Result<(), Unknown> {
        for (place, shape) in self.layout.shapes.iter().enumerate() {
            if !self.asked[place] {
                continue;
            }
            let Some(row) = self.rows.get_mut(&gsid) else {
                continue;
            };
            let key = if row.is_there {
                let values: Option<Vec<_>> = shape.places.iter().map(|at| row.value(*at)).collect();
                let Some(values) = values else {
                    self.needs.images.insert(gsid);
                    return Err(Unknown);
                };
                shape.key(values.into_iter())
            } else {
                None
            };
            if row.keys[place] == key {
                continue;
            }
            let before = std::mem::replace(&mut row.keys[place], key.clone());
            if let Some(gsids) = before.and_then(|before| self.index[place].get_mut(&before)) {
                gsids.remove(&gsid);
            }
            if let Some(key) = key {
                self.index[place].entry(key).or_default().insert(gsid);
            }
        }
        Ok(())
    }

    /// Rows of the own table that have a shape's key now.
    pub(super) fn by_shape(&mut self, shape: usize, key: &Key<'a>) -> Result<Found, Unknown> {
        let Some(stored) = self.facts.by_shape[shape].get(key) else {
            let needs = self.needs.by_shape.entry(shape).or_default();
            needs.insert(key.clone());
            return Err(Unknown);
        };
        let stored = stored.iter().copied();
        let untouched = stored
            .filter(|gsid| !self.rows.contains_key(gsid) && self.still_has(*gsid, shape, key));
        let touched = self.index[shape].get(key).into_iter().flatten().copied();
        Ok(Found::of(untouched.chain(touched).collect()))
    }

    /// Whether a row that was found before it was locked has the key still.
    fn still_has(&self, gsid: Uuid, shape: usize, key: &Key<'a>) -> bool {
        match self.facts.images.get(&gsid) {
            None => true,
            Some(None) => false,
            Some(Some(image)) => {
                let shape = &self.layout.shapes[shape];
                let cells = shape
                    .places
                    .iter()
                    .map(|place| Val::Cell(&image.cells[*place]));
                shape.key(cells).as_ref() == Some(key)
            }
        }
    }

    /// The rows of the own table that a record holds now, whatever its object.
    fn by_record(&mut self, record: &str) -> Result<Vec<Uuid>, Unknown> {
        let Some(others) = self.facts.by_record.get(record) else {
            self.needs.by_record.insert(record.to_owned());
            return Err(Unknown);
        };
        let mut gsids = others.clone();
        let own = RecordId::stored(record);
        gsids.extend(self.entry(&own).and_then(|entry| entry.held()));
        Ok(gsids)
    }

    /// What a derived column's key finds now.
    pub(super) fn find(&mut self, derive: usize, key: &Key<'a>) -> Result<Found, Unknown> {
        match self.layout.derives[derive].reach {
            Reach::Elsewhere => match self.facts.elsewhere[derive].get(key) {
                Some(gsids) => Ok(Found::of(gsids.clone())),
                None => {
                    let needs = self.needs.elsewhere.entry(derive).or_default();
                    needs.insert(key.clone());
                    Err(Unknown)
                }
            },
            Reach::OwnTable {
                id: false,
                shape: Some(shape),
            } => self.by_shape(shape, key),
            Reach::OwnTable { shape: None, .. } => self.held_by(derive, key).map(Found::of),
            Reach::OwnTable {
                shape: Some(shape), ..
            } => {
                let wanted = self.columns_of(derive, key);
                let mut found = Vec::new();
                for gsid in self.held_by(derive, key)? {
                    if self.has(gsid, shape, &wanted)? {
                        found.push(gsid);
                    }
                }
                Ok(Found::of(found))
            }
        }
    }

    /// The rows that all records of a key's `@id`s hold.
    fn held_by(&mut self, derive: usize, key: &Key<'a>) -> Result<Vec<Uuid>, Unknown> {
        let records = self.records_of(derive, key);
        let mut held: Option<Vec<Uuid>> = None;
        for record in records {
            let gsids = self.by_record(&record)?;
            held = Some(match held {
                None => gsids,
                Some(held) => held
                    .into_iter()
                    .filter(|gsid| gsids.contains(gsid))
                    .collect(),
            });
        }
        Ok(held.unwrap_or_default())
    }

    fn records_of(&self, derive: usize, key: &Key<'a>) -> Vec<String> {
        let mut values = key.iter();
        let mut records = Vec::new();
        for part in &self.layout.derives[derive].lookup.parts {
            if part.column_name().is_some() {
                values.next();
            } else if let Some(record) = values.nth(1) {
                records.push(record.spelled().into_owned());
            }
        }
        records
    }

    fn columns_of(&self, derive: usize, key: &Key<'a>) -> Key<'a> {
        let mut values = key.iter();
        let mut columns = Key::new();
        for part in &self.layout.derives[derive].lookup.parts {
            if part.column_name().is_some() {
                columns.extend(values.next().cloned());
            } else {
                values.nth(1);
            }
        }
        columns
    }

    fn has(&mut self, gsid: Uuid, shape: usize, key: &Key<'a>) -> Result<bool, Unknown> {
        if let Some(row) = self.rows.get(&gsid) {
            return Ok(row.keys[shape].as_ref() == Some(key));
        }
        if !self.facts.images.contains_key(&gsid) {
            self.needs.images.insert(gsid);
            return Err(Unknown);
        }
        Ok(self.still_has(gsid, shape, key))
    }
}

impl<'a> Row<'a> {
    /// A column's value now; `None` if it is not known.
    fn value(&self, place: usize) -> Option<Val<'a>> {
        if let Some(Some(value)) = self.values.get(place) {
            return Some(*value);
        }
        if self.is_new {
            return Some(Val::Null);
        }
        Some(Val::Cell(&self.image?.cells[place]))
    }

    fn is_marked(&self) -> Option<bool> {
        match self.mark {
            Some(mark) => Some(mark.is_some()),
            None if self.is_new => Some(false),
            None => Some(self.image?.is_marked),
        }
    }
}
