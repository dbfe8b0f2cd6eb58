//! Signing in: a connector per connection with what it keeps, authorisations beside a daemon, and the proof of one.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Config;
use crate::config::connection::ConnectionConfig;
use crate::crm::port::consent::Desk;
use crate::crm::port::shelf::Shelf;
use crate::crm::port::vault::Vault;
use crate::crm::port::{Crm, OrgIdentity};
use crate::fault::{Fault, FaultKind};
use crate::model::name::ConnectionId;
use crate::runtime::clock::{Clock, SystemClock};
use crate::secret::Secret;
use crate::state::credentials::Credentials;
use crate::state::port::State;
use crate::state::seal::Keyring;
use crate::telemetry::metrics::Metrics;

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
        let kept = (vault, shelf);
        crms.insert(id.clone(), connector(connection, kept, metrics, clock)?);
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

/// Signs in to a connection once and says which org answered: the proof of `check`. The org is compared with the one
/// that the connection belongs to where the state can be opened beside the daemon's.
///
/// # Errors
/// As [`Crm::identify`]; `Config` if a person authorises the connection and a daemon holds its token.
pub async fn prove(config: &Config, connection: &ConnectionId) -> Result<OrgIdentity, Fault> {
    let found = config.connections.get(connection).ok_or_else(|| {
        Fault::new(FaultKind::Missing, format!("no connection {connection}"))
            .remedy(format!("add connections/{connection}.toml"))
    })?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (vault, state) = match super::state::open(config).await {
        Ok(opened) => {
            let vault = Vault::new(connection.clone(), opened.credentials, keyring(config)?);
            (Arc::new(vault), Some(opened.state))
        }
        // A token that may be good for one use is the daemon's alone.
        Err(fault) if found.is_by_person() || fault.kind() != FaultKind::Config => {
            return Err(fault.context(format_args!("proving connection {connection}")));
        }
        Err(_) => (Vault::in_memory(connection.clone()), None),
    };
    let kept = (vault, Shelf::in_memory(connection.clone()));
    let identity = match connector(found, kept, &Metrics::none(), &clock) {
        Ok(crm) => crm.identify().await,
        Err(fault) => Err(fault),
    };
    if let Some(state) = state {
        state.close().await?;
    }
    identity
}

/// What a connector keeps: what signing in does, and descriptions.
pub(super) type Kept = (Arc<Vault>, Arc<Shelf>);

fn connector(
    connection: &ConnectionConfig,
    kept: Kept,
    metrics: &Metrics,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn Crm>, Fault> {
    match connection {
        ConnectionConfig::Salesforce(connection) => {
            super::salesforce::connector(connection, kept, metrics, clock)
        }
        ConnectionConfig::Dynamics(connection) => {
            let crm = super::dynamics::connector(connection, kept, metrics, clock)?;
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
