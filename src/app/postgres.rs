//! PostgreSQL as the config names it: settings of servers and of the target.

use std::sync::Arc;

use crate::config::postgres::PostgresConfig;
use crate::config::target::PostgresTargetConfig;
use crate::fault::Fault;
use crate::postgres::Settings;
use crate::target::postgres::PostgresSettings;

/// How a section's server is reached. Reads nothing: the password is read for every connection.
///
/// # Errors
/// `Config` for an `ssl_mode` that the config should have refused.
pub fn server(config: &PostgresConfig) -> Result<Settings, Fault> {
    let password = config.password.clone();
    Ok(Settings {
        url: config.url.clone(),
        password: password.map(|place| Arc::new(move || place.read()) as _),
        ssl_mode: config.ssl_mode.map(str::parse).transpose()?,
        ca_file: config.ca_file.clone(),
        statement_timeout: config.statement_timeout,
    })
}

/// How rows get to `[target]`.
///
/// # Errors
/// As [`server`].
pub fn target(config: &PostgresTargetConfig) -> Result<PostgresSettings, Fault> {
    Ok(PostgresSettings {
        server: server(&config.server)?,
        writers: config.writers.unwrap_or(0),
        store: config.schema.clone(),
        ledger: config.ledger_schema.clone(),
    })
}
