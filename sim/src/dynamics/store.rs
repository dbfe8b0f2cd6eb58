//! Rows, the one row-version counter over all tables, and the tombstones of deleted rows.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::cell::{Cell, folded};
use super::guid::Guid;
use super::schema::{Key, Table};

/// A row as it is after its last write.
#[derive(Debug, Clone)]
pub struct Row {
    /// The value of `versionnumber`, of the ETag and of the delta token.
    pub version: i64,
    /// By the places of the table's columns; columns added later are not in old rows.
    pub cells: Vec<Cell>,
}

impl Row {
    /// The cell of a column.
    #[must_use]
    pub fn cell(&self, place: usize) -> &Cell {
        self.cells.get(place).unwrap_or(&Cell::Null)
    }
}

/// That a row was deleted, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tombstone {
    pub version: i64,
    pub at: DateTime<Utc>,
}

/// A table and its rows.
#[derive(Debug, Clone)]
pub struct Rows {
    pub table: Arc<Table>,
    /// The row version at which the definition last changed: older delta tokens are refused.
    pub described: i64,
    rows: BTreeMap<Guid, Arc<Row>>,
    versions: BTreeMap<i64, Guid>,
    tombstones: BTreeMap<i64, (Guid, DateTime<Utc>)>,
    buried: HashMap<Guid, i64>,
    /// The row of a key's values, for each alternate key.
    keyed: Vec<HashMap<String, Guid>>,
}

impl Rows {
    fn new(table: Table) -> Self {
        Self {
            keyed: vec![HashMap::new(); table.keys.len()],
            table: Arc::new(table),
            described: 0,
            rows: BTreeMap::new(),
            versions: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            buried: HashMap::new(),
        }
    }

    #[must_use]
    pub fn row(&self, id: Guid) -> Option<&Arc<Row>> {
        self.rows.get(&id)
    }

    /// Every row, by id.
    pub fn rows(&self) -> impl Iterator<Item = (Guid, &Arc<Row>)> {
        self.rows.iter().map(|(id, row)| (*id, row))
    }

    /// The rows after an id.
    pub fn rows_after(&self, id: Option<Guid>) -> impl Iterator<Item = (Guid, &Arc<Row>)> {
        let from = id.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.rows.range((from, Bound::Unbounded));
        rows.map(|(id, row)| (*id, row))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows of versions above `after` and up to `until`, in their order.
    pub fn changed(&self, after: i64, until: i64) -> impl Iterator<Item = (Guid, &Arc<Row>)> {
        let ids = span(&self.versions, after, until);
        ids.filter_map(|(_, id)| Some((*id, self.rows.get(id)?)))
    }

    /// The tombstones of versions above `after` and up to `until`, in their order.
    pub fn deleted(&self, after: i64, until: i64) -> impl Iterator<Item = (i64, Guid)> {
        span(&self.tombstones, after, until).map(|(version, (id, _))| (*version, *id))
    }

    /// The row of an alternate key's values.
    #[must_use]
    pub fn keyed(&self, key: &Key, cells: &[(usize, Cell)]) -> Option<Guid> {
        let place = self
            .table
            .keys
            .iter()
            .position(|known| known.name == key.name)?;
        let text = key_text(&self.table, key, |column| {
            cells
                .iter()
                .find(|(at, _)| *at == column)
                .map(|(_, cell)| cell)
        })?;
        self.keyed.get(place)?.get(&text).copied()
    }

    /// The alternate key that another row than `id` holds already.
    #[must_use]
    pub fn clash(&self, id: Guid, cells: &[Cell]) -> Option<&Key> {
        let keys = self.table.keys.iter().zip(&self.keyed);
        keys.filter(|(key, _)| key.active).find_map(|(key, rows)| {
            let text = key_text(&self.table, key, |column| cells.get(column))?;
            rows.get(&text)
                .is_some_and(|holder| *holder != id)
                .then_some(key)
        })
    }

    fn tombstone(&self, id: Guid) -> Option<Tombstone> {
        let version = *self.buried.get(&id)?;
        let (_, at) = self.tombstones.get(&version)?;
        Some(Tombstone { version, at: *at })
    }

    /// Makes a row and its tombstone exactly so.
    fn set(&mut self, id: Guid, row: Option<Arc<Row>>, tombstone: Option<Tombstone>) {
        if let Some(version) = self.buried.remove(&id) {
            self.tombstones.remove(&version);
        }
        if let Some(tombstone) = tombstone {
            self.tombstones
                .insert(tombstone.version, (id, tombstone.at));
            self.buried.insert(id, tombstone.version);
        }
        if let Some(old) = self.rows.remove(&id) {
            self.versions.remove(&old.version);
            self.unkey(id, &old);
        }
        if let Some(row) = row {
            self.versions.insert(row.version, id);
            for (key, rows) in self.table.keys.iter().zip(&mut self.keyed) {
                if let Some(text) = key_text(&self.table, key, |column| row.cells.get(column)) {
                    rows.insert(text, id);
                }
            }
            self.rows.insert(id, row);
        }
    }

    fn unkey(&mut self, id: Guid, row: &Row) {
        for (key, rows) in self.table.keys.iter().zip(&mut self.keyed) {
            if let Some(text) = key_text(&self.table, key, |column| row.cells.get(column))
                && rows.get(&text) == Some(&id)
            {
                rows.remove(&text);
            }
        }
    }

    fn redefine(&mut self, table: Table, version: i64) {
        self.keyed = vec![HashMap::new(); table.keys.len()];
        self.table = Arc::new(table);
        self.described = version;
        for (id, row) in &self.rows {
            for (key, rows) in self.table.keys.iter().zip(&mut self.keyed) {
                if let Some(text) = key_text(&self.table, key, |column| row.cells.get(column)) {
                    rows.insert(text, *id);
                }
            }
        }
    }
}

fn span<T>(map: &BTreeMap<i64, T>, after: i64, until: i64) -> impl Iterator<Item = (&i64, &T)> {
    let bounds = (
        Bound::Excluded(after),
        Bound::Included(until.max(after.saturating_add(1))),
    );
    map.range(bounds)
        .filter(move |(version, _)| **version <= until)
}

/// The values of a key as one text; `None` if one of them is null, which no key holds.
fn key_text<'a>(
    table: &Table,
    key: &Key,
    cell: impl Fn(usize) -> Option<&'a Cell>,
) -> Option<String> {
    let mut text = String::new();
    for column in &key.columns {
        let cell = cell(table.place(column)?).filter(|cell| !cell.is_null())?;
        let value = match cell {
            Cell::Text(text) => folded(text),
            other => other.json().text(),
        };
        text.push_str(&format!("{}:{value};", value.len()));
    }
    Some(text)
}

/// What a write replaced, so that it can be taken back.
#[derive(Debug, Clone)]
pub struct Undo {
    pub table: String,
    pub id: Guid,
    pub row: Option<Arc<Row>>,
    pub tombstone: Option<Tombstone>,
}

/// Every table of the org.
#[derive(Debug, Clone, Default)]
pub struct Store {
    tables: BTreeMap<String, Rows>,
    sets: HashMap<String, String>,
    /// The newest row version.
    pub version: i64,
    /// Counts the changes of definitions.
    pub metadata: u64,
}

impl Store {
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&Rows> {
        self.tables.get(name)
    }

    pub fn table_mut(&mut self, name: &str) -> Option<&mut Rows> {
        self.tables.get_mut(name)
    }

    /// A table by the name of its entity set.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<&Rows> {
        self.tables.get(self.sets.get(name)?)
    }

    /// Every table, by name.
    pub fn tables(&self) -> impl Iterator<Item = &Rows> {
        self.tables.values()
    }

    /// Adds a table, or defines it anew under the rows it has.
    pub fn define(&mut self, mut table: Table) {
        table.index();
        self.metadata += 1;
        self.sets.insert(table.set.clone(), table.name.clone());
        match self.tables.get_mut(&table.name) {
            Some(rows) => {
                self.version += 1;
                rows.redefine(table, self.version);
            }
            None => {
                self.tables.insert(table.name.clone(), Rows::new(table));
            }
        }
    }

    /// Writes a row under the next version, or buries it.
    pub fn put(
        &mut self,
        table: &str,
        id: Guid,
        cells: Option<Vec<Cell>>,
        at: DateTime<Utc>,
    ) -> Option<Undo> {
        self.version += 1;
        let version = self.version;
        let rows = self.tables.get_mut(table)?;
        let undo = Undo {
            table: table.to_owned(),
            id,
            row: rows.rows.get(&id).cloned(),
            tombstone: rows.tombstone(id),
        };
        match cells {
            Some(mut cells) => {
                let stamp = rows.table.place("versionnumber");
                if let Some(cell) = stamp.and_then(|place| cells.get_mut(place)) {
                    *cell = Cell::Int(version);
                }
                rows.set(id, Some(Arc::new(Row { version, cells })), None);
            }
            None => rows.set(id, None, Some(Tombstone { version, at })),
        }
        Some(undo)
    }

    /// Makes a row exactly what it was.
    pub fn restore(&mut self, undo: Undo) {
        if let Some(rows) = self.tables.get_mut(&undo.table) {
            rows.set(undo.id, undo.row, undo.tombstone);
        }
    }

    /// What a row and its tombstone are now.
    #[must_use]
    pub fn image(&self, table: &str, id: Guid) -> Option<Undo> {
        let rows = self.tables.get(table)?;
        Some(Undo {
            table: table.to_owned(),
            id,
            row: rows.rows.get(&id).cloned(),
            tombstone: rows.tombstone(id),
        })
    }
}
