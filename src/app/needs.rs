//! What a connection's jobs select, for who asks about it before anything is synced.

use crate::config::Config;
use crate::config::connection::ConnectionConfig;
use crate::crm::dynamics::privileges;
use crate::crm::port::Selection;
use crate::crm::port::survey::Need;
use crate::crm::salesforce::needs as salesforce;
use crate::fault::Fault;

use super::selection::selected;

/// What the user of a connection needs to be allowed, for its jobs and for nothing more.
///
/// # Errors
/// `Config` for jobs that don't compile.
pub fn needs(config: &Config, connection: &ConnectionConfig) -> Result<Vec<Need>, Fault> {
    let selections = selections(config, connection)?;
    Ok(match connection {
        ConnectionConfig::Salesforce(_) => salesforce::needs(&selections),
        ConnectionConfig::Dynamics(_) => privileges::needs(&selections),
    })
}

/// What a connection's jobs select, object by object.
///
/// # Errors
/// As [`needs`].
pub(super) fn selections(
    config: &Config,
    connection: &ConnectionConfig,
) -> Result<Vec<Selection>, Fault> {
    let mappings = super::compile(config)?;
    let mine = mappings
        .iter()
        .filter(|mapping| mapping.plan().connection == *connection.id());
    let selected = selected(mine).into_iter();
    let selections = selected.map(|(object, fields)| Selection {
        object,
        fields: fields.into_iter().collect(),
    });
    Ok(selections.collect())
}
