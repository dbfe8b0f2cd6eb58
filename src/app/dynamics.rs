//! A Dynamics connector from its config.

use std::sync::Arc;

use crate::config::dynamics::{DynamicsConfig, Proof as ProofConfig};
use crate::config::web::WebUrl;
use crate::crm::dynamics::Dynamics;
use crate::crm::dynamics::settings::{DynamicsSettings, Flow, Proof};
use crate::fault::Fault;
use crate::runtime::clock::Clock;
use crate::telemetry::metrics::Metrics;

use super::sign_in::Ground;

/// The connector of a connection.
///
/// # Errors
/// `Config` for settings that can't be used.
pub(super) fn connector(
    connection: &DynamicsConfig,
    ground: Ground,
    metrics: &Metrics,
    clock: &Arc<dyn Clock>,
) -> Result<Dynamics, Fault> {
    let proof = match connection.auth.proof.clone() {
        ProofConfig::Secret(secret) => Proof::Secret(Arc::new(move || secret.read())),
        ProofConfig::Certificate(pem) => Proof::Certificate(Arc::new(move || pem.read())),
        ProofConfig::Public => Proof::Public,
    };
    let url = |url: &WebUrl| url.as_str().to_owned();
    let mut settings = DynamicsSettings::new(
        connection.id.clone(),
        connection.org.value.as_str(),
        &connection.auth.client_id,
        proof,
    );
    settings.vault = ground.vault;
    settings.shelf = ground.shelf;
    if connection.auth.is_by_person {
        settings.flow = Flow::AuthorizationCode;
    }
    settings.instance_url = connection.instance_url.as_ref().map(url);
    settings.authority_url = connection.authority_url.as_ref().map(url);
    if let Some(version) = &connection.api_version {
        settings.api_version.clone_from(version);
    }
    settings.language = connection.language;
    settings.daily_requests = connection.daily_requests;
    settings.limits = super::limits(&connection.budget, ground.patience, settings.limits);
    settings.poll_interval = connection.poll_interval;
    settings.read_lag = connection.read_lag;
    settings.ca_file.clone_from(&connection.ca_file);
    settings.plain_text = connection.plain_text;
    Dynamics::new(settings, metrics.clone(), Arc::clone(clock))
}
