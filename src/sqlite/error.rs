//! What SQLite can answer, with the file it was about, and the kind of fault that is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::ErrorCode;
use thiserror::Error;

use crate::fault::{Fault, FaultKind};

/// A failure of a database file or of its plumbing.
#[derive(Debug, Clone, Error)]
pub enum SqliteError {
    /// SQLite refused.
    #[error("{doing} `{}`", file.display())]
    Engine {
        /// What was being done, as a gerund.
        doing: &'static str,
        /// The database file.
        file: PathBuf,
        /// What SQLite said; shared by all jobs of a group.
        #[source]
        cause: Arc<rusqlite::Error>,
    },
    /// A file or folder beside the database could not be made or opened.
    #[error("{doing} `{}`", file.display())]
    File {
        /// What was being done, as a gerund.
        doing: &'static str,
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        cause: Arc<std::io::Error>,
    },
    /// Nothing has been written yet.
    #[error("`{}` is not there", file.display())]
    Absent {
        /// The database file.
        file: PathBuf,
    },
    /// Written by a later build.
    #[error("`{}` has schema version {found}, this build knows {known}", file.display())]
    Newer {
        /// The database file.
        file: PathBuf,
        /// Its `user_version`.
        found: usize,
        /// The last one known here.
        known: usize,
    },
    /// The file system does not do write-ahead logging.
    #[error("`{}` can't be used with a write-ahead log, SQLite answered journal mode `{mode}`", file.display())]
    NoWal {
        /// The database file.
        file: PathBuf,
        /// The mode that SQLite fell back to.
        mode: String,
    },
    /// Another process has it.
    #[error("`{}` is held by {holder}", file.display())]
    Held {
        /// The lock file.
        file: PathBuf,
        /// The other process, as it described itself.
        holder: String,
    },
    /// The writer was closed before the job was taken.
    #[error("the writer of `{}` is closed", file.display())]
    Closed {
        /// The database file.
        file: PathBuf,
    },
    /// A job or the thread that runs jobs panicked.
    #[error("a job on `{}` panicked: {message}", file.display())]
    Panicked {
        /// The database file.
        file: PathBuf,
        /// The panic's message.
        message: String,
    },
}

impl SqliteError {
    /// What SQLite said about `file` while `doing` something.
    pub fn engine(
        doing: &'static str,
        file: &Path,
        cause: impl Into<Arc<rusqlite::Error>>,
    ) -> Self {
        Self::Engine {
            doing,
            file: file.to_owned(),
            cause: cause.into(),
        }
    }

    /// What the system said about `file` while `doing` something.
    pub fn file(doing: &'static str, file: &Path, cause: std::io::Error) -> Self {
        Self::File {
            doing,
            file: file.to_owned(),
            cause: Arc::new(cause),
        }
    }
}

impl From<SqliteError> for Fault {
    fn from(error: SqliteError) -> Self {
        let (kind, remedy) = fate(&error);
        let fault = Self::new(kind, error.to_string());
        let fault = match remedy {
            Some(remedy) => fault.remedy(remedy),
            None => fault,
        };
        match error {
            SqliteError::Engine { cause, .. } => fault.source(cause),
            SqliteError::File { cause, .. } => fault.source(cause),
            _ => fault,
        }
    }
}

fn fate(error: &SqliteError) -> (FaultKind, Option<String>) {
    match error {
        SqliteError::Engine { file, cause, .. } => {
            let file = file.display();
            match cause.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => (
                    FaultKind::Storage,
                    Some(format!("free space on the disk that holds `{file}`")),
                ),
                Some(ErrorCode::SystemIoFailure) => (
                    FaultKind::Storage,
                    Some(format!("check the disk that holds `{file}`")),
                ),
                Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                    (
                        FaultKind::Storage,
                        Some(format!(
                            "let this user read and write `{file}` and its folder"
                        )),
                    )
                }
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => (
                    FaultKind::Corrupt,
                    Some(format!(
                        "restore `{file}` from a backup, or move it away to start afresh"
                    )),
                ),
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
                    FaultKind::Unavailable,
                    Some(format!(
                        "end the other program that holds `{file}` open for writing"
                    )),
                ),
                Some(ErrorCode::TooBig) => (FaultKind::Record, None),
                _ => (FaultKind::Protocol, None),
            }
        }
        SqliteError::File { file, .. } => (
            FaultKind::Storage,
            Some(format!(
                "let this user read and write `{}` and its folder",
                file.display()
            )),
        ),
        SqliteError::Absent { .. } => (
            FaultKind::Missing,
            Some(
                "run the daemon with this config first, or name the config of the one that runs"
                    .to_owned(),
            ),
        ),
        SqliteError::Newer { .. } => (
            FaultKind::Config,
            Some("run the build that wrote it, or a later one".to_owned()),
        ),
        SqliteError::NoWal { .. } => (
            FaultKind::Storage,
            Some("put it on a local disk: network file systems can't share memory".to_owned()),
        ),
        SqliteError::Held { .. } => (
            FaultKind::Config,
            Some("stop that process, or give this one another data_dir".to_owned()),
        ),
        SqliteError::Closed { .. } => (FaultKind::Stopping, None),
        SqliteError::Panicked { .. } => (
            FaultKind::Protocol,
            Some("report this as a bug, with the log around it".to_owned()),
        ),
    }
}

/// Why a job on a connection failed: its changes are undone.
#[derive(Debug)]
pub enum JobError {
    /// SQLite refused; the file is added where the job was run.
    Sqlite(rusqlite::Error),
    /// The job's own reason, passed on as it is.
    Fault(Fault),
}

impl From<rusqlite::Error> for JobError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Fault> for JobError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
