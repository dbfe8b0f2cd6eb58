//! Tables of the memory target: rows by GSID, columns with a type, and an index per set of matched columns.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::fault::{Fault, FaultKind};
use crate::mapping::plan::Cell;
use crate::model::stored::{StoredObject, StoredType};
use crate::target::port::{RowsPage, StoredRow};

pub(super) const CREATED: usize = 0;
pub(super) const MODIFIED: usize = 1;
pub(super) const STATE: usize = 2;
pub(super) const STATE_AT: usize = 3;
/// Columns of every table besides `gsid`, which is the key.
const OWN: [(&str, StoredType); 4] = [
    ("created_date", StoredType::DateTime),
    ("modified_date", StoredType::DateTime),
    ("crm_state", StoredType::String),
    ("crm_state_at", StoredType::DateTime),
];
const DEFAULT_LIMIT: usize = 100;

/// One table.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<(String, StoredType)>,
    rows: BTreeMap<Uuid, Cells>,
    indexes: HashMap<Vec<KeyColumn>, HashMap<Vec<String>, BTreeSet<Uuid>>>,
}

/// A row's cells, in the order of the table's columns.
pub(super) type Cells = Vec<Cell>;

/// A column that takes part in a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct KeyColumn {
    pub position: usize,
    pub case_blind: bool,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            columns: OWN.map(|(name, ty)| (name.to_owned(), ty)).into(),
            rows: BTreeMap::new(),
            indexes: HashMap::new(),
        }
    }

    /// Refuses an object of which a column is there with another type.
    pub(super) fn check(&self, object: &StoredObject) -> Result<(), Fault> {
        for field in &object.fields {
            let held = self.columns.iter().find(|(name, _)| *name == field.column);
            if let Some((_, held)) = held.filter(|(_, held)| *held != field.ty) {
                let what = format!(
                    "column `{}` of table `{}` is {held:?}, not {:?}",
                    field.column, object.table, field.ty
                );
                let remedy = "give the field its old type, or the column another name";
                return Err(Fault::new(FaultKind::Config, what).remedy(remedy));
            }
        }
        Ok(())
    }

    /// Adds the columns that are missing; rows have null there.
    pub(super) fn extend(&mut self, object: &StoredObject) {
        for field in &object.fields {
            if self.position(&field.column).is_none() {
                self.columns.push((field.column.clone(), field.ty));
                self.rows.values_mut().for_each(|row| row.push(Cell::Null));
            }
        }
    }

    pub(super) fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|(name, _)| name == column)
    }

    /// A new row's cells.
    pub(super) fn blank(&self) -> Cells {
        vec![Cell::Null; self.columns.len()]
    }

    pub(super) fn get(&self, gsid: Uuid) -> Option<&Cells> {
        self.rows.get(&gsid)
    }

    /// Every row.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Uuid, &Cells)> {
        self.rows.iter()
    }

    /// Puts a row, or takes it away; the row before.
    pub(super) fn put(&mut self, gsid: Uuid, row: Option<Cells>) -> Option<Cells> {
        for (columns, index) in &mut self.indexes {
            if let Some(key) = self.rows.get(&gsid).and_then(|old| key_of(old, columns))
                && let Some(found) = index.get_mut(&key)
            {
                found.remove(&gsid);
                if found.is_empty() {
                    index.remove(&key);
                }
            }
            if let Some(key) = row.as_ref().and_then(|new| key_of(new, columns)) {
                index.entry(key).or_default().insert(gsid);
            }
        }
        match row {
            Some(row) => self.rows.insert(gsid, row),
            None => self.rows.remove(&gsid),
        }
    }

    /// The rows whose columns equal a key, all of them; the first look makes the index.
    pub(super) fn find(&mut self, columns: &[KeyColumn], key: &[String]) -> BTreeSet<Uuid> {
        if !self.indexes.contains_key(columns) {
            let mut index: HashMap<_, BTreeSet<_>> = HashMap::new();
            for (gsid, row) in &self.rows {
                if let Some(key) = key_of(row, columns) {
                    index.entry(key).or_default().insert(*gsid);
                }
            }
            self.indexes.insert(columns.to_vec(), index);
        }
        let index = self.indexes.get(columns);
        index
            .and_then(|index| index.get(key))
            .cloned()
            .unwrap_or_default()
    }

    /// A page of rows, newest first.
    pub(super) fn page(&self, name: &str, page: &RowsPage) -> Result<Vec<StoredRow>, Fault> {
        let mut filters = Vec::new();
        for (column, text) in &page.filter {
            // The key has no place among the cells.
            let place = match self.position(column) {
                None if column == "gsid" => None,
                None => return Err(missing_column(name, column)),
                place => place,
            };
            let is_number =
                place.is_some_and(|place| fits(&Cell::Number("0".into()), self.columns[place].1));
            let text = if is_number {
                plain_number(text)
            } else {
                text.clone()
            };
            filters.push((place, text));
        }
        let passes = |gsid: &Uuid, row: &Cells| {
            filters.iter().all(|(place, text)| match place {
                Some(place) => spelled(&row[*place]).is_some_and(|value| value == *text),
                None => gsid.to_string() == *text,
            })
        };
        let mut rows: Vec<_> = self
            .rows
            .iter()
            .filter(|(gsid, row)| passes(gsid, row))
            .collect();
        rows.sort_by_key(|(gsid, row)| std::cmp::Reverse((instant(&row[MODIFIED]), **gsid)));
        let limit = if page.limit == 0 {
            DEFAULT_LIMIT
        } else {
            page.limit
        };
        let chosen = rows.into_iter().skip(page.offset).take(limit);
        Ok(chosen.map(|(gsid, row)| self.stored(*gsid, row)).collect())
    }

    /// A row as the port shows it.
    pub(super) fn stored(&self, gsid: Uuid, row: &Cells) -> StoredRow {
        let names = self.columns.iter().map(|(name, _)| name.clone());
        let key = std::iter::once(("gsid".to_owned(), Cell::Gsid(gsid)));
        StoredRow {
            gsid,
            columns: key.chain(names.zip(row.iter().cloned())).collect(),
        }
    }
}

/// A row's key, if none of its columns is without a value.
fn key_of(row: &Cells, columns: &[KeyColumn]) -> Option<Vec<String>> {
    columns
        .iter()
        .map(|column| key_part(row.get(column.position)?, column.case_blind))
        .collect()
}

/// A value as it is compared: `None` if it is empty.
pub(super) fn key_part(cell: &Cell, case_blind: bool) -> Option<String> {
    let text = spelled(cell)?;
    let trimmed = text.trim_matches(|c: char| c.is_ascii_whitespace());
    if trimmed.is_empty() {
        return None;
    }
    Some(if case_blind {
        trimmed.to_ascii_lowercase()
    } else {
        trimmed.to_owned()
    })
}

/// A cell as it is stored: a number without needless zeros, so that equal numbers are equal cells.
pub(super) fn plain(cell: &Cell) -> Cell {
    match cell {
        Cell::Number(digits) => Cell::Number(plain_number(digits).into()),
        other => other.clone(),
    }
}

fn plain_number(digits: &str) -> String {
    let (sign, body) = match digits.strip_prefix('-') {
        Some(body) => ("-", body),
        None => ("", digits),
    };
    let (whole, fraction) = body.split_once('.').unwrap_or((body, ""));
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    match (whole, fraction.trim_end_matches('0')) {
        ("0", "") => "0".to_owned(),
        (whole, "") => format!("{sign}{whole}"),
        (whole, fraction) => format!("{sign}{whole}.{fraction}"),
    }
}

/// A cell as text, as its JSON has it.
fn spelled(cell: &Cell) -> Option<String> {
    match (cell, cell.to_json()) {
        (Cell::Null, _) => None,
        (Cell::Number(digits), _) => Some(plain_number(digits)),
        (_, serde_json::Value::String(text)) => Some(text),
        (_, json) => Some(json.to_string()),
    }
}

fn instant(cell: &Cell) -> Option<DateTime<Utc>> {
    match cell {
        Cell::DateTime(at) => Some(*at),
        _ => None,
    }
}

/// Whether a column of that type takes the cell.
pub(super) const fn fits(cell: &Cell, ty: StoredType) -> bool {
    use StoredType as T;
    match cell {
        Cell::Null => true,
        Cell::Boolean(_) => matches!(ty, T::Boolean),
        Cell::Number(_) => matches!(ty, T::Number | T::Currency | T::Percentage),
        Cell::Date(_) => matches!(ty, T::Date),
        Cell::DateTime(_) => matches!(ty, T::DateTime),
        Cell::Gsid(_) => matches!(ty, T::Gsid),
        Cell::Text(_) => matches!(
            ty,
            T::String | T::Picklist | T::MultiSelect | T::Email | T::Url | T::RichText
        ),
    }
}

pub(super) fn missing_column(table: &str, column: &str) -> Fault {
    let what = format!("table `{table}` has no column `{column}`");
    Fault::new(FaultKind::Missing, what).remedy("declare it in the object's file")
}

pub(super) fn missing_table(table: &str) -> Fault {
    let what = format!("the store has no table `{table}`");
    Fault::new(FaultKind::Missing, what).remedy("declare it in the objects' folder")
}
