//! The one record store: a table per object, every record a shared, immutable row.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::load::Loaded;
use super::schema::Object;
use super::value::Value;

/// A record's values, by the places of its object's fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    values: Vec<Value>,
}

impl Record {
    pub(crate) fn new(values: Vec<Value>) -> Self {
        Self { values }
    }

    /// A field's value; null for a field younger than the record.
    pub(crate) fn get(&self, place: usize) -> &Value {
        self.values.get(place).unwrap_or(&Value::Null)
    }

    pub(crate) fn values(&self) -> &[Value] {
        &self.values
    }

    pub(crate) fn set(&mut self, place: usize, value: Value) {
        if self.values.len() <= place {
            self.values.resize(place + 1, Value::Null);
        }
        self.values[place] = value;
    }
}

/// All tables.
#[derive(Debug, Default)]
pub(crate) struct Store {
    tables: BTreeMap<String, Table>,
    /// Object by lower-case name.
    names: HashMap<String, String>,
    /// Object by key prefix.
    prefixes: HashMap<String, String>,
    /// Records that an open transaction holds.
    pub locked: HashSet<Arc<str>>,
}

/// The records of an object.
#[derive(Debug)]
pub(crate) struct Table {
    pub object: Arc<Object>,
    rows: BTreeMap<Arc<str>, Slot>,
    /// Live and binned records by their stamp (unix seconds) and id.
    by_stamp: BTreeSet<(i64, Arc<str>)>,
    /// Records whose newest state reads don't see yet.
    lagging: BTreeSet<Arc<str>>,
    /// Records gone for good, and when they were deleted.
    purged: BTreeMap<Arc<str>, DateTime<Utc>>,
    serial: u64,
}

/// A record as it is, and as it was until some time ago.
#[derive(Debug, Default)]
struct Slot {
    head: Option<Arc<Record>>,
    past: Vec<Past>,
}

#[derive(Debug)]
struct Past {
    until: DateTime<Utc>,
    record: Option<Arc<Record>>,
}

impl Slot {
    fn at(&self, time: DateTime<Utc>) -> Option<&Arc<Record>> {
        self.past
            .iter()
            .find(|past| past.until > time)
            .map_or(self.head.as_ref(), |past| past.record.as_ref())
    }
}

impl Store {
    pub fn add(&mut self, loaded: Loaded) {
        let name = loaded.object.name.clone();
        self.names.insert(name.to_ascii_lowercase(), name.clone());
        self.prefixes
            .insert(loaded.object.key_prefix.clone(), name.clone());
        self.tables.insert(name, Table::new(loaded));
    }

    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.values()
    }

    /// A table by its object's name, without regard to case.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name).or_else(|| {
            self.names
                .get(&name.to_ascii_lowercase())
                .and_then(|name| self.tables.get(name))
        })
    }

    pub fn table_mut(&mut self, name: &str) -> Option<&mut Table> {
        let name = self.names.get(&name.to_ascii_lowercase())?;
        self.tables.get_mut(name)
    }

    /// The table that an id belongs to.
    pub fn table_of(&self, id: &str) -> Option<&Table> {
        self.tables.get(self.prefixes.get(id.get(..3)?)?)
    }

    /// The record of a reference, if its object is loaded and the record is there at `time`.
    pub fn parent(&self, id: &Value, time: DateTime<Utc>) -> Option<&Arc<Record>> {
        let id = id.as_text()?;
        let table = self.table_of(id)?;
        table
            .at(id, time)
            .filter(|record| !table.is_deleted(record))
    }
}

impl Table {
    fn new(loaded: Loaded) -> Self {
        let mut table = Self {
            serial: loaded.rows.len() as u64,
            object: Arc::new(loaded.object),
            rows: BTreeMap::new(),
            by_stamp: BTreeSet::new(),
            lagging: BTreeSet::new(),
            purged: BTreeMap::new(),
        };
        for row in loaded.rows {
            if let Some(id) = table.id(&row) {
                table.put(&id, Some(row), DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH);
            }
        }
        table
    }

    /// A record's own id.
    pub fn id(&self, record: &Record) -> Option<Arc<str>> {
        match record.get(self.object.system.id) {
            Value::Id(id) => Some(Arc::clone(id)),
            _ => None,
        }
    }

    pub fn is_deleted(&self, record: &Record) -> bool {
        *record.get(self.object.system.is_deleted) == Value::Bool(true)
    }

    /// When the record last changed.
    pub fn stamp(&self, record: &Record) -> DateTime<Utc> {
        record
            .get(self.object.system.stamp)
            .as_datetime()
            .unwrap_or_default()
    }

    /// The record as it is.
    pub fn head(&self, id: &str) -> Option<&Arc<Record>> {
        self.rows.get(id)?.head.as_ref()
    }

    /// The record as reads see it at `time`.
    pub fn at(&self, id: &str, time: DateTime<Utc>) -> Option<&Arc<Record>> {
        self.rows.get(id)?.at(time)
    }

    /// Every record as it is, deleted ones too, by id.
    pub fn heads(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.rows.values().filter_map(|slot| slot.head.as_ref())
    }

    /// Every record as reads see it at `time`, by id.
    pub fn all_at(&self, time: DateTime<Utc>) -> impl Iterator<Item = &Arc<Record>> {
        self.rows.values().filter_map(move |slot| slot.at(time))
    }

    /// The records from a place in the index on, by (stamp in unix seconds, id); `None` if reads at `time` would see
    /// others.
    pub fn since(
        &self,
        from: (i64, Arc<str>),
        time: DateTime<Utc>,
    ) -> Option<impl DoubleEndedIterator<Item = &Arc<Record>>> {
        let late = |id: &Arc<str>| {
            self.rows
                .get(id)
                .is_some_and(|slot| slot.past.iter().any(|past| past.until > time))
        };
        if self.lagging.iter().any(late) {
            return None;
        }
        Some(
            self.by_stamp
                .range((Bound::Included(from), Bound::Unbounded))
                .filter_map(|(_, id)| self.head(id)),
        )
    }

    /// Records gone for good, and when they were deleted.
    pub fn purged(&self) -> &BTreeMap<Arc<str>, DateTime<Utc>> {
        &self.purged
    }

    /// Sets a record, or removes it for good at `now`; reads see what was there before until `visible`.
    pub fn put(
        &mut self,
        id: &Arc<str>,
        record: Option<Arc<Record>>,
        now: DateTime<Utc>,
        visible: DateTime<Utc>,
    ) {
        let before = self.rows.get(id).and_then(|slot| slot.head.clone());
        if let Some(before) = &before {
            self.by_stamp
                .remove(&(self.stamp(before).timestamp(), Arc::clone(id)));
        }
        match &record {
            Some(record) => {
                self.by_stamp
                    .insert((self.stamp(record).timestamp(), Arc::clone(id)));
                self.purged.remove(id);
            }
            None => {
                let binned = before
                    .as_ref()
                    .filter(|before| self.is_deleted(before))
                    .map(|before| self.stamp(before));
                self.purged.insert(Arc::clone(id), binned.unwrap_or(now));
            }
        }
        let slot = self.rows.entry(Arc::clone(id)).or_default();
        slot.head = record;
        if visible > now {
            slot.past.push(Past {
                until: visible,
                record: before,
            });
            self.lagging.insert(Arc::clone(id));
            self.settle(now);
        } else if slot.head.is_none() && slot.past.is_empty() {
            self.rows.remove(id);
        }
    }

    /// Forgets what no read will see any more.
    fn settle(&mut self, now: DateTime<Utc>) {
        let rows = &mut self.rows;
        self.lagging.retain(|id| {
            let Some(slot) = rows.get_mut(id) else {
                return false;
            };
            slot.past.retain(|past| past.until > now);
            if slot.head.is_none() && slot.past.is_empty() {
                rows.remove(id);
                return false;
            }
            !slot.past.is_empty()
        });
    }

    /// A new id.
    pub fn draw_id(&mut self) -> Arc<str> {
        loop {
            self.serial += 1;
            let id = super::ids::nth(&self.object.key_prefix, self.serial);
            if !self.rows.contains_key(&*id) && !self.purged.contains_key(&*id) {
                return Arc::from(id);
            }
        }
    }

    /// Takes a changed description of the object.
    pub fn describe_as(&mut self, object: Object) {
        self.object = Arc::new(object);
    }
}
