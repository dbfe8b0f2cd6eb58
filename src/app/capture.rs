//! What a Salesforce org captures, for a command: beside what the connection's jobs select.

use std::sync::Arc;

use crate::config::Config;
use crate::config::connection::ConnectionConfig;
use crate::crm::port::Selection;
use crate::crm::port::vault::Vault;
use crate::crm::salesforce::capture::Capture;
use crate::fault::{Fault, FaultKind};
use crate::model::name::ObjectName;
use crate::runtime::clock::{Clock, SystemClock};
use crate::telemetry::metrics::Metrics;

use super::needs::selections;
use super::sign_in::Ground;

/// The captured objects of one connection's org.
pub struct OfConnection {
    /// Lists, selects and releases them.
    pub capture: Capture,
    /// What the connection's jobs select.
    pub wanted: Vec<ObjectName>,
}

/// What the org of connection `id` captures. Nothing is sent yet.
///
/// # Errors
/// `Missing` if there is no such connection, `Config` if it is not Salesforce's or a person authorises it.
pub fn open(config: &Config, id: &str) -> Result<OfConnection, Fault> {
    let Some(found) = config.connections.get(id) else {
        let known: Vec<&str> = config.connections.keys().map(|id| id.as_str()).collect();
        let what = format!("there is no connection `{id}`");
        let remedy = format!("write one of {}", known.join(", "));
        return Err(Fault::new(FaultKind::Missing, what).remedy(remedy));
    };
    let ConnectionConfig::Salesforce(connection) = found else {
        let what = format!("connection `{id}` is none of Salesforce");
        return Err(Fault::new(FaultKind::Config, what)
            .remedy("Dynamics tracks changes table by table: `tributary check --live`"));
    };
    if found.is_by_person() {
        let what =
            format!("a person authorises connection `{id}`, and its token is the daemon's alone");
        return Err(Fault::new(FaultKind::Config, what).remedy(
            "select the objects in Setup → Change Data Capture, or by a connection that signs in by client_credentials",
        ));
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ground = Ground::of_command(&connection.id, Vault::in_memory(connection.id.clone()));
    let crm = super::salesforce::connector(connection, ground, &Metrics::none(), &clock)?;
    let wanted = selections(config, found)?.into_iter();
    Ok(OfConnection {
        capture: crm.capture(),
        wanted: wanted.map(|Selection { object, .. }| object).collect(),
    })
}
