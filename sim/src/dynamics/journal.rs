//! The journal: every transaction as a JSON line, so that an organization survives a restart with its row versions.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::cell::{Cell, time};
use super::guid::Guid;
use super::schema::{Column, Kind, Table};
use super::store::{Row, Store, Tombstone, Undo};
use crate::salesforce::lock::lock;

/// What the journal could not do.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("accessing the journal {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "reading line {line} of the journal {path}; if the file was cut off there, remove that line"
    )]
    Line {
        path: PathBuf,
        line: usize,
        #[source]
        source: serde_json::Error,
    },
    #[error("writing a line of the journal")]
    Encode(#[source] serde_json::Error),
    #[error(
        "replaying the journal: {table} {id} does not fit the loaded data; use the data it began with"
    )]
    Unfit { table: String, id: Guid },
}

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Line {
    /// The first line: what a restart must not draw again.
    Born { at: DateTime<Utc> },
    /// Rows as they are after a transaction or a restore, and the version counter.
    Rows {
        at: DateTime<Utc>,
        version: i64,
        rows: Vec<Image>,
    },
    /// A table defined anew, at this version.
    Defined {
        at: DateTime<Utc>,
        version: i64,
        table: Box<Table>,
    },
}

/// A row after a transaction: cells by column, `null` left out, references as `table:id`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Image {
    table: String,
    id: Guid,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    cells: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    buried: Option<(i64, DateTime<Utc>)>,
}

impl Image {
    /// What a row and its tombstone are.
    pub fn of(store: &Store, table: &str, id: Guid) -> Option<Self> {
        let state = store.image(table, id)?;
        let table = Arc::clone(&store.table(table)?.table);
        let cells = |row: &Arc<Row>| {
            let named = table.columns.iter().enumerate();
            let full = named.filter(|(place, _)| !row.cell(*place).is_null());
            full.map(|(place, column)| (column.name.clone(), text(row.cell(place))))
                .collect()
        };
        Some(Self {
            table: table.name.clone(),
            id,
            version: state.row.as_ref().map(|row| row.version),
            cells: state.row.as_ref().map(cells).unwrap_or_default(),
            buried: state
                .tombstone
                .map(|tombstone| (tombstone.version, tombstone.at)),
        })
    }

    /// Puts it into the store.
    pub fn put(self, store: &mut Store) -> Result<(), JournalError> {
        let unfit = || JournalError::Unfit {
            table: self.table.clone(),
            id: self.id,
        };
        let table = store
            .table(&self.table)
            .map(|rows| Arc::clone(&rows.table))
            .ok_or_else(unfit)?;
        let row = match self.version {
            None => None,
            Some(version) => {
                let mut cells = vec![Cell::Null; table.columns.len()];
                for (name, text) in &self.cells {
                    let place = table.place(name).ok_or_else(unfit)?;
                    cells[place] = read(&table.columns[place], text).ok_or_else(unfit)?;
                }
                Some(Arc::new(Row { version, cells }))
            }
        };
        store.restore(Undo {
            table: self.table.clone(),
            id: self.id,
            row,
            tombstone: self.buried.map(|(version, at)| Tombstone { version, at }),
        });
        Ok(())
    }
}

fn text(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => text.to_string(),
        Cell::Ref(table, id) => format!("{table}:{id}"),
        Cell::Time(time) => time.to_rfc3339(),
        Cell::Null | Cell::Int(_) | Cell::Double(_) | Cell::Decimal(_) | Cell::Bool(_) => {
            cell.json().text()
        }
        Cell::Date(_) | Cell::Id(_) | Cell::Choices(_) => {
            cell.json().text().trim_matches('"').to_owned()
        }
    }
}

fn read(column: &Column, text: &str) -> Option<Cell> {
    match column.kind {
        kind if kind.is_lookup() => {
            let (table, id) = text.split_once(':')?;
            Some(Cell::Ref(Arc::from(table), id.parse().ok()?))
        }
        Kind::DateTime => Some(Cell::Time(time(text)?)),
        // The options may have been others then.
        Kind::Picklist | Kind::State | Kind::Status => Some(Cell::Int(text.parse().ok()?)),
        _ => Cell::parse(column, text).ok(),
    }
}

/// A file of lines, or nothing.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    file: Option<(PathBuf, Mutex<File>)>,
}

impl Journal {
    /// Opens the file, made if need be, and hands back the lines it holds.
    pub fn open(path: &Path) -> Result<(Self, Vec<Line>), JournalError> {
        let failed = |source| JournalError::Io {
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(path)
            .map_err(failed)?;
        let mut lines = Vec::new();
        for (number, text) in BufReader::new(&file).lines().enumerate() {
            let text = text.map_err(failed)?;
            let line = serde_json::from_str(&text).map_err(|source| JournalError::Line {
                path: path.to_owned(),
                line: number + 1,
                source,
            })?;
            lines.push(line);
        }
        let journal = Self {
            file: Some((path.to_owned(), Mutex::new(file))),
        };
        Ok((journal, lines))
    }

    /// Whether lines are kept at all.
    pub fn is_kept(&self) -> bool {
        self.file.is_some()
    }

    /// Appends a line; it survives the process, not a power cut.
    pub fn write(&self, line: &Line) -> Result<(), JournalError> {
        let Some((path, file)) = &self.file else {
            return Ok(());
        };
        let mut text = serde_json::to_vec(line).map_err(JournalError::Encode)?;
        text.push(b'\n');
        let written = lock(file).write_all(&text);
        written.map_err(|source| JournalError::Io {
            path: path.clone(),
            source,
        })
    }
}
