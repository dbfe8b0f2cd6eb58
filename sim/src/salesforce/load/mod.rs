//! Loads a directory of `<Object>.csv` into objects and records the code has never seen.
//!
//! The header holds API names; an empty cell is null. Types are inferred from the values; a `<Object>.json` beside the
//! file may name them. Each file is read twice, once for types and once for rows, and never held.

mod compounds;
mod infer;
mod prefixes;
mod sidecar;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use self::infer::Column;
use self::sidecar::Sidecar;
use super::ids;
use super::schema::Object;
use super::sessions::User;
use super::store::Record;
use super::value::Value;

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
    #[error("reading {path} as a description of the object's fields")]
    Sidecar {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path}, line {line}, column {column}: `{value}` {problem}")]
    Cell {
        path: PathBuf,
        line: u64,
        column: String,
        value: String,
        problem: &'static str,
    },
    #[error("{path}: column `{column}` {problem}")]
    Header {
        path: PathBuf,
        column: String,
        problem: &'static str,
    },
}

/// An object and its records.
pub(crate) struct Loaded {
    pub object: Object,
    pub rows: Vec<Arc<Record>>,
}

/// What rows take that say nothing themselves.
struct Defaults<'a> {
    at: DateTime<Utc>,
    user: &'a str,
}

struct Source {
    name: String,
    path: PathBuf,
    columns: Vec<Column>,
    sidecar: Sidecar,
}

/// Loads every CSV file of a directory, in the order of their names, and finds the user that runs the org.
pub(crate) fn directory(
    dir: &Path,
    at: DateTime<Utc>,
    unknown: User,
) -> Result<(Vec<Loaded>, User), LoadError> {
    let sources = sources(dir)?;
    let prefixes = prefixes::assign(&sources);
    let objects: Vec<_> = sources
        .iter()
        .map(|source| (source, compounds::object(source, &prefixes)))
        .collect();
    let user = match objects.iter().find(|(_, object)| object.name == "User") {
        Some((source, object)) => {
            let user = &unknown.id;
            let rows = rows(source, object, &Defaults { at, user })?;
            first_active(object, &rows).unwrap_or(unknown)
        }
        None => unknown,
    };
    let mut loaded = Vec::with_capacity(objects.len());
    for (source, object) in objects {
        let user = &user.id;
        let rows = rows(source, &object, &Defaults { at, user })?;
        loaded.push(Loaded { object, rows });
    }
    Ok((loaded, user))
}

fn first_active(object: &Object, rows: &[Arc<Record>]) -> Option<User> {
    let is = |record: &Record, field: &str, expected: bool| {
        object
            .place(field)
            .is_none_or(|place| *record.get(place) == Value::Bool(expected))
    };
    let record = rows
        .iter()
        .filter(|record| is(record, "IsActive", true) && is(record, "IsDeleted", false))
        .min_by_key(|record| record.get(object.system.id).as_text())?;
    let id = record.get(object.system.id).as_text()?;
    let username = object
        .place("Username")
        .and_then(|place| record.get(place).as_text())
        .unwrap_or(id);
    Some(User {
        id: id.to_owned(),
        username: username.to_owned(),
        view_all_data: true,
    })
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
    let name = path
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    let sidecar = Sidecar::read(&path.with_extension("json"))?;
    let mut reader = reader(&path)?;
    let failed = |source| LoadError::Csv {
        path: path.clone(),
        source,
    };
    let header = reader.headers().map_err(failed)?.clone();
    let mut seen = HashSet::new();
    for column in &header {
        let problem = if column.trim() != column || column.is_empty() {
            "is no API name"
        } else if !seen.insert(column.to_ascii_lowercase()) {
            "is there twice"
        } else {
            continue;
        };
        return Err(LoadError::Header {
            path: path.clone(),
            column: column.to_owned(),
            problem,
        });
    }
    let mut columns: Vec<_> = header.iter().map(Column::new).collect();
    let mut row = csv::StringRecord::new();
    while reader.read_record(&mut row).map_err(failed)? {
        for (column, cell) in columns.iter_mut().zip(&row) {
            column.see(cell);
        }
    }
    Ok(Source {
        name,
        path,
        columns,
        sidecar,
    })
}

fn reader(path: &Path) -> Result<csv::Reader<fs::File>, LoadError> {
    csv::Reader::from_path(path).map_err(|source| LoadError::Csv {
        path: path.to_owned(),
        source,
    })
}

fn rows(
    source: &Source,
    object: &Object,
    defaults: &Defaults<'_>,
) -> Result<Vec<Arc<Record>>, LoadError> {
    let places: Vec<_> = source
        .columns
        .iter()
        .filter_map(|column| object.place(&column.name))
        .collect();
    let mut reader = reader(&source.path)?;
    let mut rows = Vec::new();
    let mut seen = HashSet::new();
    let mut cells = csv::StringRecord::new();
    loop {
        let more = reader
            .read_record(&mut cells)
            .map_err(|error| LoadError::Csv {
                path: source.path.clone(),
                source: error,
            })?;
        if !more {
            return Ok(rows);
        }
        let bad = |place: usize, value: &str, problem| LoadError::Cell {
            path: source.path.clone(),
            line: cells.position().map_or(0, csv::Position::line),
            column: object.fields[place].name.clone(),
            value: value.to_owned(),
            problem,
        };
        let mut values = vec![Value::Null; object.fields.len()];
        for (place, cell) in places.iter().zip(&cells) {
            values[*place] = Value::parse(object.fields[*place].kind, cell)
                .ok_or_else(|| bad(*place, cell, "is not of the column's type"))?;
        }
        let serial = rows.len() as u64 + 1;
        complete(&mut values, object, defaults, serial);
        let id = values[object.system.id].as_text().unwrap_or_default();
        if !id.starts_with(&object.key_prefix) {
            return Err(bad(
                object.system.id,
                id,
                "has another key prefix than the object's",
            ));
        }
        if !seen.insert(Arc::<str>::from(id)) {
            return Err(bad(object.system.id, id, "is the id of an earlier row too"));
        }
        rows.push(Arc::new(Record::new(values)));
    }
}

/// Gives a row what its file does not say: id, stamps, users, a person's name.
fn complete(values: &mut [Value], object: &Object, defaults: &Defaults<'_>, serial: u64) {
    let system = object.system;
    let fill = |value: &mut Value, with: Value| {
        if value.is_null() {
            *value = with;
        }
    };
    fill(
        &mut values[system.id],
        Value::id(&ids::nth(&object.key_prefix, serial)),
    );
    fill(
        &mut values[system.created_date],
        Value::DateTime(defaults.at),
    );
    let created = values[system.created_date].clone();
    fill(&mut values[system.modified_date], created);
    let modified = values[system.modified_date].clone();
    fill(&mut values[system.stamp], modified);
    fill(&mut values[system.created_by], Value::id(defaults.user));
    fill(&mut values[system.modified_by], Value::id(defaults.user));
    for (value, field) in values.iter_mut().zip(&object.fields) {
        if field.kind == super::schema::FieldType::Boolean {
            fill(value, Value::Bool(false));
        }
    }
    if let Some(place) = object.place("Name")
        && values[place].is_null()
        && let Some(name) = super::shape::person_name(object, values)
    {
        values[place] = name;
    }
}

/// The loaded objects by key prefix.
type Prefixes = BTreeMap<String, String>;

#[cfg(test)]
mod tests;
