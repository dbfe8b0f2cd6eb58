//! Loads a directory of `<table>.csv` into tables and rows, standard ones and such that the code has never seen.
//!
//! The header holds logical names, or `_x_value` for a lookup; an empty cell is null. A lookup of several targets holds
//! `table:id`, or an id that is looked for in its targets. Unknown columns get types from their values; a `<table>.json`
//! beside the file may say more (see [`definition`]).

pub(crate) mod definition;
mod infer;
pub(crate) mod standard;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use self::definition::{Definition, DefinitionError};
use self::infer::Guess;
use super::cell::Cell;
use super::guid::Guid;
use super::options::SimOptions;
use super::schema::{Kind, Table};
use super::store::Store;
use crate::salesforce::random::Random;

/// Why data could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("reading {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("reading {path} as CSV")]
    Csv {
        path: PathBuf,
        #[source]
        source: csv::Error,
    },
    #[error("{path}, line {line}, column {column}: `{value}` {problem}")]
    Cell {
        path: PathBuf,
        line: u64,
        column: String,
        value: String,
        problem: &'static str,
    },
    #[error(transparent)]
    Definition(#[from] DefinitionError),
}

struct Source {
    table: String,
    path: PathBuf,
    /// Column names, lookups by their logical ones.
    header: Vec<String>,
    definition: Definition,
    guesses: Vec<Guess>,
}

/// Defines the standard tables and those of a directory, and loads their rows.
pub(crate) fn directory(
    store: &mut Store,
    options: &SimOptions,
    at: DateTime<Utc>,
) -> Result<(), LoadError> {
    for table in standard::tables()? {
        store.define(table);
    }
    let Some(dir) = &options.data else {
        return Ok(());
    };
    let sources = sources(dir)?;
    // Whose id a column of ids holds.
    let mut owners: HashMap<Guid, String> = HashMap::new();
    for source in &sources {
        let id = source.id_column(store);
        let Some(place) = source.header.iter().position(|name| *name == id) else {
            continue;
        };
        each(&source.path, |_, record| {
            if let Ok(id) = record.get(place).unwrap_or_default().parse() {
                owners.insert(id, source.table.clone());
            }
            Ok(())
        })?;
    }
    for source in &sources {
        let table = source.table(store, &owners)?;
        store.define(table);
    }
    for source in &sources {
        source.rows(store, &owners, options.seed, at)?;
    }
    Ok(())
}

fn sources(dir: &Path) -> Result<Vec<Source>, LoadError> {
    let failed = |source| LoadError::Io {
        path: dir.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "csv") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.into_iter().map(source).collect()
}

fn source(path: PathBuf) -> Result<Source, LoadError> {
    let table = path
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    let beside = path.with_extension("json");
    let definition = match fs::read_to_string(&beside) {
        Ok(text) => Definition::read(&table, &text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Definition::default(),
        Err(source) => {
            return Err(LoadError::Io {
                path: beside,
                source,
            });
        }
    };
    let mut reader = csv::Reader::from_path(&path).map_err(|source| LoadError::Csv {
        path: path.clone(),
        source,
    })?;
    let names = reader.headers().map_err(|source| LoadError::Csv {
        path: path.clone(),
        source,
    })?;
    let header: Vec<String> = names
        .iter()
        .map(|name| {
            let inner = name
                .strip_prefix('_')
                .and_then(|name| name.strip_suffix("_value"));
            inner.unwrap_or(name).trim().to_owned()
        })
        .collect();
    let mut guesses: Vec<Guess> = header.iter().map(|_| Guess::new()).collect();
    each(&path, |_, record| {
        for (guess, cell) in guesses.iter_mut().zip(record) {
            guess.see(cell);
        }
        Ok(())
    })?;
    Ok(Source {
        table,
        path,
        header,
        definition,
        guesses,
    })
}

fn each(
    path: &Path,
    mut row: impl FnMut(u64, &csv::StringRecord) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let failed = |source| LoadError::Csv {
        path: path.to_owned(),
        source,
    };
    let mut reader = csv::Reader::from_path(path).map_err(failed)?;
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(failed)? {
        let line = record.position().map_or(0, csv::Position::line);
        row(line, &record)?;
    }
    Ok(())
}

impl Source {
    fn id_column(&self, store: &Store) -> String {
        let known = store
            .table(&self.table)
            .map(|rows| rows.table.primary_id.clone());
        let said = self.definition.id.clone().or(known);
        said.unwrap_or_else(|| format!("{}id", self.table))
    }

    /// The table as it is with what the file and its definition add.
    fn table(&self, store: &Store, owners: &HashMap<Guid, String>) -> Result<Table, LoadError> {
        let known = store
            .table(&self.table)
            .map(|rows| Table::clone(&rows.table));
        let fresh = known.is_none();
        let mut table = known.unwrap_or_else(|| Table::new(&self.table, &plural(&self.table)));
        if fresh {
            standard::define(&mut table, &self.definition)?;
        } else {
            self.definition.apply(&mut table)?;
        }
        for (name, guess) in self.header.iter().zip(&self.guesses) {
            if !table.columns.iter().any(|column| column.name == *name) {
                let kind = guess.kind(owners);
                table
                    .columns
                    .push(definition::plain(&self.table, name, &kind)?);
            }
        }
        if table.primary_name.is_empty() {
            table.primary_name = self.name_column(&table);
        }
        table.index();
        Ok(table)
    }

    fn name_column(&self, table: &Table) -> String {
        let texts: Vec<_> = self
            .header
            .iter()
            .filter(|name| {
                table
                    .columns
                    .iter()
                    .any(|c| c.name == **name && c.kind == Kind::String)
            })
            .collect();
        let usual = ["name", "fullname", "title", "subject"];
        let named = texts
            .iter()
            .find(|name| usual.contains(&name.as_str()) || name.ends_with("_name"));
        named
            .or(texts.first())
            .map_or_else(String::new, |name| (*name).clone())
    }

    fn rows(
        &self,
        store: &mut Store,
        owners: &HashMap<Guid, String>,
        seed: u64,
        at: DateTime<Utc>,
    ) -> Result<(), LoadError> {
        let Some(table) = store.table(&self.table).map(|rows| Arc::clone(&rows.table)) else {
            return Ok(());
        };
        let places: Vec<_> = self.header.iter().map(|name| table.place(name)).collect();
        let mut random = Random::new(seed, &format!("csv {}", self.table));
        each(&self.path, |line, record| {
            let mut cells = vec![Cell::Null; table.columns.len()];
            for (place, text) in places.iter().zip(record) {
                let Some(place) = place.filter(|_| !text.is_empty()) else {
                    continue;
                };
                let column = &table.columns[place];
                let cell = if column.kind.is_lookup() {
                    reference(text, owners, &column.targets[0].table)
                } else {
                    Cell::parse(column, text).ok()
                };
                cells[place] = cell.ok_or_else(|| LoadError::Cell {
                    path: self.path.clone(),
                    line,
                    column: column.name.clone(),
                    value: text.to_owned(),
                    problem: "does not fit the column's type; a file of definitions beside this one may name another",
                })?;
            }
            let id_place = table.id_place();
            let id = cells[id_place]
                .id()
                .unwrap_or_else(|| Guid::draw(&mut random));
            if store
                .table(&self.table)
                .is_some_and(|rows| rows.row(id).is_some())
            {
                return Err(LoadError::Cell {
                    path: self.path.clone(),
                    line,
                    column: table.primary_id.clone(),
                    value: id.to_string(),
                    problem: "is there twice",
                });
            }
            cells[id_place] = Cell::Id(id);
            complete(&table, &mut cells, id, at);
            // The table is there; a new row leaves nothing to undo.
            drop(store.put(&self.table, id, Some(cells), at));
            Ok(())
        })
    }
}

/// What a row has that its file does not say.
fn complete(table: &Table, cells: &mut [Cell], id: Guid, at: DateTime<Utc>) {
    let mut default = |name: &str, cell: Cell| {
        if let Some(place) = table.place(name).filter(|place| cells[*place].is_null()) {
            cells[place] = cell;
        }
    };
    default("createdon", Cell::Time(at));
    default("modifiedon", Cell::Time(at));
    default("statecode", Cell::Int(0));
    if matches!(table.name.as_str(), "systemuser" | "team") {
        default("ownerid", Cell::Id(id));
    }
    let state = table.place("statecode").map(|place| cells[place].clone());
    if let (Some(Cell::Int(state)), Some(place)) = (state, table.place("statuscode"))
        && cells[place].is_null()
    {
        let mut choices = table.columns[place].choices.iter();
        let first = choices.find(|choice| choice.state.is_none_or(|s| i64::from(s) == state));
        cells[place] = first.map_or(Cell::Null, |choice| Cell::Int(i64::from(choice.value)));
    }
    for (place, column) in table.columns.iter().enumerate() {
        if column.kind == Kind::Boolean && cells[place].is_null() {
            cells[place] = Cell::Bool(false);
        }
    }
    if let (Some(full), Some(first), Some(last)) = (
        table.place("fullname"),
        table.place("firstname"),
        table.place("lastname"),
    ) && cells[full].is_null()
    {
        let names: Vec<_> = [first, last]
            .iter()
            .filter_map(|place| match &cells[*place] {
                Cell::Text(text) => Some(text.to_string()),
                _ => None,
            })
            .collect();
        if !names.is_empty() {
            cells[full] = Cell::text(&names.join(" "));
        }
    }
}

fn reference(text: &str, owners: &HashMap<Guid, String>, first: &str) -> Option<Cell> {
    if let Some((table, id)) = text.split_once(':') {
        return Some(Cell::Ref(Arc::from(table), id.parse().ok()?));
    }
    let id: Guid = text.parse().ok()?;
    let table = owners.get(&id).map_or(first, String::as_str);
    Some(Cell::Ref(Arc::from(table), id))
}

fn plural(name: &str) -> String {
    match name.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if name.ends_with(['s', 'x']) => format!("{name}es"),
        None => format!("{name}s"),
    }
}
