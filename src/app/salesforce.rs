//! A Salesforce connector from its config.

use std::sync::Arc;

use crate::config::auth::Auth as AuthConfig;
use crate::config::connection::SalesforceConfig;
use crate::config::org::Org;
use crate::config::secret::SecretRef;
use crate::config::stream::{self, Channel};
use crate::config::web::WebUrl;
use crate::crm::salesforce::Salesforce;
use crate::crm::salesforce::settings::{
    Auth, Channels, SalesforceSettings, SecretSource, Transport,
};
use crate::fault::Fault;
use crate::runtime::clock::Clock;
use crate::telemetry::metrics::Metrics;

use super::sign_in::Ground;

/// The connector of a connection.
///
/// # Errors
/// `Config` for settings that can't be used.
pub(super) fn connector(
    connection: &SalesforceConfig,
    ground: Ground,
    metrics: &Metrics,
    clock: &Arc<dyn Clock>,
) -> Result<Salesforce, Fault> {
    let url = |url: &WebUrl| url.as_str().to_owned();
    let (client_id, auth) = auth(connection);
    let mut settings = SalesforceSettings::new(
        connection.id.clone(),
        connection.login_url(),
        client_id,
        auth,
    );
    settings.vault = ground.vault;
    settings.shelf = ground.shelf;
    settings.instance_url = connection.instance_url.as_ref().map(url);
    if let Some(version) = &connection.api_version {
        settings.api_version.clone_from(version);
    }
    settings.read_lag = connection.read_lag;
    if let Some(records) = connection.bulk_from {
        settings.bulk_from = (records > 0).then_some(records);
    }
    settings.limits = super::limits(&connection.budget, ground.patience, settings.limits);
    settings.transport = match connection.transport {
        stream::Transport::Cometd => Transport::Cometd,
        stream::Transport::PubSub => Transport::PubSub,
    };
    settings.channels = match &connection.channel {
        Channel::Standard => Channels::Standard,
        Channel::PerObject => Channels::PerObject,
        Channel::Custom(name) => Channels::Named(name.clone()),
    };
    if let Some(address) = &connection.pubsub_address {
        settings.pubsub_address.clone_from(address);
    }
    if let Some(silence) = connection.stream_silence {
        match settings.transport {
            Transport::Cometd => settings.poll_timeout = silence,
            Transport::PubSub => settings.silence = silence,
        }
    }
    settings.ca_file.clone_from(&connection.ca_file);
    settings.plain_text = connection.plain_text;
    Salesforce::new(settings, metrics.clone(), Arc::clone(clock))
}

fn auth(connection: &SalesforceConfig) -> (&str, Auth) {
    let source = |secret: &SecretRef| -> SecretSource {
        let secret = secret.clone();
        Arc::new(move || secret.read())
    };
    match &connection.auth {
        AuthConfig::ClientCredentials {
            client_id,
            client_secret,
            ..
        } => (client_id, Auth::ClientCredentials(source(client_secret))),
        AuthConfig::JwtBearer {
            client_id,
            user,
            private_key,
            audience,
        } => {
            let audience = audience.clone();
            let auth = Auth::JwtBearer {
                user: user.clone(),
                key: source(private_key),
                audience: audience.unwrap_or_else(|| login_host(connection).to_owned()),
            };
            (client_id, auth)
        }
        AuthConfig::AuthorizationCode {
            client_id,
            client_secret,
        } => (
            client_id,
            Auth::AuthorizationCode(client_secret.as_ref().map(source)),
        ),
    }
}

/// The login host of the org's kind: sandboxes have another one (Salesforce Help, "My Domain URL Formats").
fn login_host(connection: &SalesforceConfig) -> &'static str {
    let is_sandbox = match &connection.org.value {
        Org::Production => false,
        Org::Sandbox => true,
        Org::MyDomain(url) => url.host().contains(".sandbox."),
    };
    if is_sandbox {
        "https://test.salesforce.com"
    } else {
        "https://login.salesforce.com"
    }
}
