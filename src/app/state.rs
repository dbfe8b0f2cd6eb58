//! The state as the config names it, and who we are in it.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use crate::config::Config;
use crate::config::state::{SCHEMA, StateEngine};
use crate::control::Control;
use crate::fault::{Fault, FaultKind};
use crate::runtime::clock::SystemClock;
use crate::state::credentials::Credentials;
use crate::state::notices::Notices;
use crate::state::port::{Hole, State};
use crate::state::postgres::PostgresState;
use crate::state::runs::{Run, Runs, RunsWanted};
use crate::state::sqlite::{SqliteState, read_holes, read_runs};

/// Names a data directory, whatever it is called on its host.
const ID_FILE: &str = "daemon.id";

/// Opens the state for a daemon.
///
/// # Errors
/// `Config` if another daemon has the file; else as the file or the server says.
pub(super) async fn open(config: &Config) -> Result<Opened, Fault> {
    Ok(match &config.state.engine {
        StateEngine::Sqlite => Opened::of(SqliteState::open(&config.daemon.data_dir).await?),
        StateEngine::Postgres(server) => Opened::of(PostgresState::new(
            &super::postgres::server(server)?,
            SCHEMA,
        )?),
    })
}

/// One store, by each of its ports.
pub(super) struct Opened {
    pub state: Arc<dyn State>,
    pub credentials: Arc<dyn Credentials>,
    pub notices: Arc<dyn Notices>,
}

impl Opened {
    fn of<S: State + Credentials + Notices + 'static>(store: S) -> Self {
        let store = Arc::new(store);
        Self {
            state: Arc::clone(&store) as _,
            credentials: Arc::clone(&store) as _,
            notices: store,
        }
    }
}

/// Gives orders while no daemon has the state: they are kept for the one that starts. Close the state afterwards.
///
/// # Errors
/// `Config` if a daemon has the state; else as the store says.
pub async fn control_alone(config: &Config) -> Result<(Control, Arc<dyn State>), Fault> {
    let dir = &config.daemon.data_dir;
    std::fs::create_dir_all(dir).map_err(|error| {
        let what = format!("making `[daemon] data_dir` `{}`", dir.display());
        Fault::new(FaultKind::Storage, what).source(error)
    })?;
    let state = open(config).await?.state;
    let control = Control::new(
        Arc::clone(&state),
        Arc::default(),
        Arc::new(SystemClock),
        None,
        super::known_jobs(config),
        Vec::new(),
    );
    Ok((control, state))
}

/// Reads the hole ledger beside a daemon.
///
/// # Errors
/// As the file or the server says.
pub async fn holes(config: &Config, all: bool) -> Result<Vec<Hole>, Fault> {
    match &config.state.engine {
        StateEngine::Sqlite => read_holes(&config.daemon.data_dir, None, all).await,
        StateEngine::Postgres(server) => {
            let state = PostgresState::read_only(&super::postgres::server(server)?, SCHEMA)?;
            let holes = state.holes(None, all).await;
            state.close().await?;
            holes.map_err(|fault| fault.context("reading `[state]`"))
        }
    }
}

/// Reads runs beside a daemon, those that began last first.
///
/// # Errors
/// As [`holes`].
pub async fn runs(config: &Config, wanted: RunsWanted) -> Result<Vec<Run>, Fault> {
    match &config.state.engine {
        StateEngine::Sqlite => read_runs(&config.daemon.data_dir, wanted).await,
        StateEngine::Postgres(server) => {
            let state = PostgresState::read_only(&super::postgres::server(server)?, SCHEMA)?;
            let runs = state.runs(wanted).await;
            state.close().await?;
            runs.map_err(|fault| fault.context("reading `[state]`"))
        }
    }
}

/// Who we are, for leases: the host, the data directory, and an id that lies in it. One process has the directory at
/// a time (its lock files say so), so a daemon that was killed comes back as itself and need not wait for its own
/// lease; and two containers of one host name and one path are two.
///
/// # Errors
/// `Storage` if the id can't be read or made.
pub(super) fn owner(data_dir: &Path) -> Result<String, Fault> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let dir = data_dir
        .canonicalize()
        .unwrap_or_else(|_| data_dir.to_owned());
    let id = id(data_dir)?;
    Ok(format!("{}:{}#{id}", host.trim(), dir.display()))
}

fn id(data_dir: &Path) -> Result<Uuid, Fault> {
    let file = data_dir.join(ID_FILE);
    let unusable = |doing: &str, error: std::io::Error| {
        Fault::new(FaultKind::Storage, format!("{doing} `{}`", file.display()))
            .source(error)
            .remedy("let this user read and write it")
    };
    match std::fs::read_to_string(&file) {
        // One that was cut short by a full disk is nobody's.
        Ok(text) => {
            if let Ok(id) = text.trim().parse() {
                return Ok(id);
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(unusable("reading", error)),
    }
    let id = Uuid::now_v7();
    let write = || {
        let fresh = data_dir.join(format!("{ID_FILE}.new"));
        let mut out = std::fs::File::create(&fresh)?;
        writeln!(out, "{id}")?;
        out.sync_all()?;
        std::fs::rename(&fresh, &file)
    };
    write().map_err(|error| unusable("writing", error))?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_is_the_same_owner_for_ever_and_another_one_is_not() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let owned = owner(one.path()).unwrap();
        assert_eq!(owner(one.path()).unwrap(), owned);
        let id = |owner: &str| owner.rsplit_once('#').unwrap().1.to_owned();
        assert_ne!(id(&owned), id(&owner(other.path()).unwrap()));
        // An id that was not written to its end is made anew.
        std::fs::write(one.path().join(ID_FILE), "").unwrap();
        let again = owner(one.path()).unwrap();
        assert_ne!(again, owned);
        assert_eq!(owner(one.path()).unwrap(), again);
    }
}
