//! Signing in: a connector per connection with what it keeps, authorisations and connectors beside a daemon.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::config::Config;
use crate::config::connection::ConnectionConfig;
use crate::config::state::StateEngine;
use crate::crm::port::consent::Desk;
use crate::crm::port::shelf::Shelf;
use crate::crm::port::vault::Vault;
use crate::crm::port::{Crm, OrgIdentity};
use crate::fault::{Fault, FaultKind};
use crate::model::name::ConnectionId;
use crate::runtime::clock::{Clock, SystemClock};
use crate::secret::Secret;
use crate::state::credentials::{Credential, Credentials, PinnedOrg};
use crate::state::port::State;
use crate::state::seal::{Keyring, Sealed};
use crate::telemetry::metrics::Metrics;

use super::state::Opened;

/// How long a command's call waits for an org that gives none: what a service asks for between two calls, and no more.
const PATIENCE: Duration = Duration::from_secs(30);

/// Every connection's connector.
pub(super) type Crms = BTreeMap<ConnectionId, Arc<dyn Crm>>;

/// The connectors of all connections; nothing is sent.
///
/// # Errors
/// `Config` for settings that can't be used, `Credentials` for keys of the state.
pub(super) fn crms(
    config: &Config,
    store: &Arc<dyn Credentials>,
    state: &Arc<dyn State>,
    metrics: &Metrics,
    clock: &Arc<dyn Clock>,
) -> Result<Crms, Fault> {
    let keys = keyring(config)?;
    let mut crms = Crms::new();
    for (id, connection) in &config.connections {
        let vault = Arc::new(Vault::new(id.clone(), Arc::clone(store), keys.clone()));
        let shelf = Shelf::new(id.clone(), Arc::clone(state) as _, Arc::clone(clock));
        let ground = Ground {
            vault,
            shelf,
            patience: None,
        };
        crms.insert(id.clone(), connector(connection, ground, metrics, clock)?);
    }
    Ok(crms)
}

/// Who asks people about these connections.
pub(super) fn desk(crms: &Crms) -> Desk {
    let by_person = crms
        .iter()
        .filter_map(|(id, crm)| Some((id.clone(), crm.consent()?)));
    Desk::new(by_person.collect())
}

/// A desk on the daemon's state while no daemon has it. Close the state afterwards.
///
/// # Errors
/// `Config` if a daemon has the state, `Credentials` for keys of the state, else as the store says.
pub async fn desk_alone(config: &Config) -> Result<(Desk, Arc<dyn State>), Fault> {
    let dir = &config.daemon.data_dir;
    std::fs::create_dir_all(dir).map_err(|error| {
        let what = format!("making `[daemon] data_dir` `{}`", dir.display());
        Fault::new(FaultKind::Storage, what).source(error)
    })?;
    let opened = super::state::open(config).await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (credentials, state) = (&opened.credentials, &opened.state);
    let crms = crms(config, credentials, state, &Metrics::none(), &clock)?;
    Ok((desk(&crms), opened.state))
}

/// Connectors for a command beside a daemon that may run. Close it afterwards.
pub(super) struct Beside {
    /// The connectors. `Config` for settings that can't be used and for a token that is the daemon's alone,
    /// `Credentials` for keys of the state.
    pub crms: BTreeMap<ConnectionId, Result<Arc<dyn Crm>, Fault>>,
    state: Option<Arc<dyn State>>,
    /// Why the state was not opened, if no daemon was the reason.
    pub met: Option<Fault>,
}

impl Beside {
    /// The connectors of these connections; nothing is sent. What the state holds is used where it is needed and no
    /// daemon holds it, and no org is tied to a connection.
    pub(super) async fn open(config: &Config, wanted: &[&ConnectionConfig]) -> Self {
        let by_person = wanted.iter().any(|connection| connection.is_by_person());
        let (opened, met) = opened(config, by_person).await;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let crms = wanted.iter().map(|connection| {
            let id = connection.id();
            let crm = match vault(config, id, connection, opened.as_ref()) {
                Ok(vault) => {
                    let ground = Ground::of_command(id, vault);
                    connector(connection, ground, &Metrics::none(), &clock)
                }
                Err(fault) => Err(fault),
            };
            (id.clone(), crm)
        });
        Self {
            crms: crms.collect(),
            state: opened.map(|opened| opened.state),
            met,
        }
    }

    /// Closes the state.
    ///
    /// # Errors
    /// As the store says.
    pub(super) async fn close(self) -> Result<(), Fault> {
        match self.state {
            Some(state) => state.close().await,
            None => Ok(()),
        }
    }
}

/// Signs in to a connection once and says which org answered.
///
/// # Errors
/// As [`Crm::identify`]; `Config` if a person authorises the connection and a daemon holds its token.
pub async fn prove(config: &Config, connection: &ConnectionId) -> Result<OrgIdentity, Fault> {
    let found = config.connections.get(connection).ok_or_else(|| {
        Fault::new(FaultKind::Missing, format!("no connection {connection}"))
            .remedy(format!("add connections/{connection}.toml"))
    })?;
    let mut beside = Beside::open(config, &[found]).await;
    let identity = match beside.crms.remove(connection) {
        Some(Ok(crm)) => crm.identify().await,
        Some(Err(fault)) => Err(fault),
        None => Err(Fault::new(FaultKind::Missing, "no connector")),
    };
    beside.close().await?;
    identity
}

/// The state, if there is one that no daemon holds; and what kept it from being opened, if it was anything else. A file
/// is opened for tokens alone: a daemon that starts meanwhile would find it held.
async fn opened(config: &Config, by_person: bool) -> (Option<Opened>, Option<Fault>) {
    let in_file = matches!(config.state.engine, StateEngine::Sqlite);
    if in_file && !(by_person && config.daemon.data_dir.exists()) {
        return (None, None);
    }
    match super::state::open(config).await {
        Ok(opened) => (Some(opened), None),
        Err(fault) if in_file && fault.kind() == FaultKind::Config => (None, None),
        Err(fault) => (None, Some(fault.context("opening `[state]`"))),
    }
}

fn vault(
    config: &Config,
    id: &ConnectionId,
    connection: &ConnectionConfig,
    opened: Option<&Opened>,
) -> Result<Arc<Vault>, Fault> {
    match opened {
        Some(opened) => {
            let store = Arc::new(Unpinned(Arc::clone(&opened.credentials)));
            let keys = if connection.is_by_person() {
                keyring(config)?
            } else {
                None
            };
            Ok(Arc::new(Vault::new(id.clone(), store, keys)))
        }
        // A token that may be good for one use is the daemon's alone.
        None if connection.is_by_person() && config.daemon.data_dir.exists() => {
            let what = format!("the token of connection {id} is the daemon's alone");
            Err(Fault::new(FaultKind::Config, what).remedy(
                "ask the daemon: GET /api/v1/health; or stop it, and run the command again",
            ))
        }
        None => Ok(Vault::in_memory(id.clone())),
    }
}

/// Credentials that tie no connection to an org: a command that looks is no first sign-in.
struct Unpinned(Arc<dyn Credentials>);

#[async_trait]
impl Credentials for Unpinned {
    async fn org(&self, connection: &ConnectionId) -> Result<Option<PinnedOrg>, Fault> {
        self.0.org(connection).await
    }

    async fn pin_org(
        &self,
        connection: &ConnectionId,
        org: &PinnedOrg,
    ) -> Result<PinnedOrg, Fault> {
        let pinned = self.0.org(connection).await?;
        Ok(pinned.unwrap_or_else(|| org.clone()))
    }

    async fn credential(&self, connection: &ConnectionId) -> Result<Credential, Fault> {
        self.0.credential(connection).await
    }

    async fn replace(
        &self,
        connection: &ConnectionId,
        after: u64,
        sealed: Option<Sealed>,
    ) -> Result<bool, Fault> {
        self.0.replace(connection, after, sealed).await
    }
}

/// What a connector is given.
pub(super) struct Ground {
    /// What signing in keeps.
    pub vault: Arc<Vault>,
    /// Where descriptions are kept.
    pub shelf: Arc<Shelf>,
    /// How long its calls wait for an org that gives none ([`Limits::patience`]).
    ///
    /// [`Limits::patience`]: crate::budget::Limits::patience
    pub patience: Option<Duration>,
}

impl Ground {
    /// For a command: what it keeps ends with it, and it tells that an org gives no calls instead of waiting.
    pub(super) fn of_command(id: &ConnectionId, vault: Arc<Vault>) -> Self {
        Self {
            vault,
            shelf: Shelf::in_memory(id.clone()),
            patience: Some(PATIENCE),
        }
    }
}

fn connector(
    connection: &ConnectionConfig,
    ground: Ground,
    metrics: &Metrics,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn Crm>, Fault> {
    match connection {
        ConnectionConfig::Salesforce(connection) => {
            let crm = super::salesforce::connector(connection, ground, metrics, clock)?;
            Ok(Arc::new(crm))
        }
        ConnectionConfig::Dynamics(connection) => {
            let crm = super::dynamics::connector(connection, ground, metrics, clock)?;
            Ok(Arc::new(crm))
        }
    }
}

/// The keys of the state, read now.
fn keyring(config: &Config) -> Result<Option<Arc<Keyring>>, Fault> {
    let Some(key) = &config.state.key else {
        return Ok(None);
    };
    let reading = |fault: Fault| fault.context("reading the keys of `[state]`");
    let key = key.read().map_err(reading)?;
    let old: Vec<Secret> = config
        .state
        .old_keys
        .iter()
        .map(|key| key.read().map_err(reading))
        .collect::<Result<_, _>>()?;
    let ring = Keyring::new(&key, &old).map_err(reading)?;
    Ok(Some(Arc::new(ring)))
}
