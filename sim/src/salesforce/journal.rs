//! The journal: every transaction as a JSON line, so that an org survives a restart with its replay ids.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::commits::{Committed, Cut};
use super::lock::lock;

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
        "replaying the journal: {object} {id} does not fit the loaded data ({problem}); use the data it began with"
    )]
    Unfit {
        object: String,
        id: String,
        problem: String,
    },
}

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Line {
    /// The first line: what a restart must not draw again.
    Born {
        at: DateTime<Utc>,
        base: u64,
        org: String,
    },
    /// A transaction: whole rows as they are after it, and its events.
    Commit {
        at: DateTime<Utc>,
        rows: Vec<Row>,
        events: Vec<Arc<Committed>>,
    },
    /// Events without a write: gaps, duplicates.
    Events {
        events: Vec<Arc<Committed>>,
    },
    Cut {
        cut: Cut,
    },
    Reset {
        base: u64,
    },
    /// A position between events that a subscriber was told.
    Mark {
        at: DateTime<Utc>,
        mark: u64,
    },
}

/// A record after a transaction; `fields` is absent when the record is gone for good.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub object: String,
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fields: Option<BTreeMap<String, Value>>,
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
            lines.push(
                serde_json::from_str(&text).map_err(|source| JournalError::Line {
                    path: path.to_owned(),
                    line: number + 1,
                    source,
                })?,
            );
        }
        let journal = Self {
            file: Some((path.to_owned(), Mutex::new(file))),
        };
        Ok((journal, lines))
    }

    /// Appends a line; it survives the process, not a power cut.
    pub fn write(&self, line: &Line) -> Result<(), JournalError> {
        let Some((path, file)) = &self.file else {
            return Ok(());
        };
        let mut text = serde_json::to_vec(line).map_err(JournalError::Encode)?;
        text.push(b'\n');
        lock(file)
            .write_all(&text)
            .map_err(|source| JournalError::Io {
                path: path.clone(),
                source,
            })
    }
}
