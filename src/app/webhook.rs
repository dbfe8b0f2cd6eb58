//! A connection's webhook for a command: what is to be registered, by the config.

use std::sync::Arc;

use crate::config::Config;
use crate::config::connection::ConnectionConfig;
use crate::config::dynamics::DynamicsConfig;
use crate::crm::dynamics::push::register::{Done, Registrar, Wanted};
use crate::crm::port::Selection;
use crate::crm::port::vault::Vault;
use crate::fault::{Fault, FaultKind};
use crate::runtime::clock::{Clock, SystemClock};
use crate::telemetry::metrics::Metrics;

use super::selection::selected;
use super::sign_in::Ground;

/// The webhook of one connection.
pub struct Webhook {
    registrar: Registrar,
    connection: DynamicsConfig,
    /// Where the daemon is reached, if the config says so.
    base: Option<String>,
    selections: Vec<Selection>,
}

/// The webhook of connection `id`.
///
/// # Errors
/// `Missing` if there is no such connection, `Config` if it is not Dynamics' or a person authorises it.
pub fn open(config: &Config, id: &str) -> Result<Webhook, Fault> {
    let connection = match config.connections.get(id) {
        Some(ConnectionConfig::Dynamics(connection)) => (**connection).clone(),
        Some(_) => {
            let what = format!("connection `{id}` is none of Dynamics");
            return Err(Fault::new(FaultKind::Config, what)
                .remedy("name a connection with kind = \"dynamics\""));
        }
        None => {
            let known: Vec<&str> = config.connections.keys().map(|id| id.as_str()).collect();
            let what = format!("there is no connection `{id}`");
            return Err(Fault::new(FaultKind::Missing, what)
                .remedy(format!("write one of {}", known.join(", "))));
        }
    };
    if connection.auth.is_by_person {
        let what =
            format!("a person authorises connection `{id}`, and its token is the daemon's alone");
        return Err(Fault::new(FaultKind::Config, what).remedy(
            "register the webhook from a config whose connection signs in by client_credentials",
        ));
    }
    let mappings = super::compile(config)?;
    let mine = mappings
        .iter()
        .filter(|mapping| mapping.plan().connection == connection.id);
    let selections = selected(mine)
        .into_iter()
        .map(|(object, fields)| Selection {
            object,
            fields: fields.into_iter().collect(),
        })
        .collect();
    let id = &connection.id;
    let ground = Ground::of_command(id, Vault::in_memory(id.clone()));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let crm = super::dynamics::connector(&connection, ground, &Metrics::none(), &clock)?;
    let own = connection
        .webhook
        .as_ref()
        .and_then(|webhook| webhook.url.as_ref());
    let base = own.or(config.admin.public_url.as_ref());
    Ok(Webhook {
        registrar: crm.registrar(),
        base: base.map(|url| url.as_str().to_owned()),
        connection,
        selections,
    })
}

impl Webhook {
    /// Registers, lists and removes.
    #[must_use]
    pub const fn registrar(&self) -> &Registrar {
        &self.registrar
    }

    /// The tables whose changes are pushed.
    #[must_use]
    pub fn tables(&self) -> Vec<&str> {
        self.selections
            .iter()
            .map(|of| of.object.as_str())
            .collect()
    }

    /// Registers the webhook; where it calls, and what that changed. `url` is used in place of the config's.
    ///
    /// # Errors
    /// `Config` without a `webhook` or an address; else as the environment says.
    pub async fn add(&self, url: Option<&str>) -> Result<(String, Done), Fault> {
        let id = &self.connection.id;
        let Some(webhook) = &self.connection.webhook else {
            let what = format!("connection {id} has no `webhook`");
            return Err(Fault::new(FaultKind::Config, what).remedy(
                "write webhook = { secret = { env = \"NAME\" } } into the connection; the daemon takes no calls without",
            ));
        };
        if self.selections.is_empty() {
            let what = format!("no job of connection {id} is enabled");
            return Err(Fault::new(FaultKind::Config, what).remedy("enable a job first"));
        }
        let url = address(
            url.or(self.base.as_deref()),
            id.as_str(),
            self.connection.plain_text,
        )?;
        let secret = webhook.secret.read()?;
        let wanted = Wanted {
            url: &url,
            proof: &super::push::proof(webhook),
            secret: &secret,
            selections: &self.selections,
        };
        let done = self.registrar.add(&wanted).await?;
        Ok((url, done))
    }
}

/// Where the environment calls: it takes ports 80 and 443 only
/// (<https://learn.microsoft.com/power-apps/developer/data-platform/register-web-hook>).
fn address(base: Option<&str>, connection: &str, plain_text: bool) -> Result<String, Fault> {
    let Some(base) = base else {
        return Err(Fault::new(
            FaultKind::Config,
            "the daemon's address from outside is not known",
        )
        .remedy("set [admin] public_url = \"https://…\", or `url` of the webhook, or give --url"));
    };
    let base = base.trim_end_matches('/');
    let rest = base.strip_prefix("https://");
    let refused = |why: &str| {
        Fault::new(FaultKind::Config, format!("`{base}` {why}"))
            .remedy("put a proxy with TLS on port 443 before the daemon, and name its address")
    };
    let Some(rest) = rest else {
        if plain_text && base.starts_with("http://") {
            return Ok(format!("{base}/webhooks/{connection}"));
        }
        return Err(refused(
            "is not an https:// address, and every call carries the secret",
        ));
    };
    let host = rest.split('/').next().unwrap_or(rest);
    let port = host.rsplit_once(':').map(|(_, port)| port);
    if !plain_text && port.is_some_and(|port| port != "443" && !port.ends_with(']')) {
        return Err(refused(
            "has another port than 443, which the environment does not call",
        ));
    }
    Ok(format!("{base}/webhooks/{connection}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_that_the_environment_calls() {
        let ours = |base| address(Some(base), "contoso", false);
        for base in [
            "https://hooks.example.com",
            "https://hooks.example.com:443/",
        ] {
            assert!(ours(base).unwrap().ends_with("/webhooks/contoso"), "{base}");
        }
        for base in [
            "http://hooks.example.com",
            "https://hooks.example.com:8443",
            "hooks",
        ] {
            let fault = ours(base).unwrap_err();
            assert_eq!(fault.kind(), FaultKind::Config, "{base}");
            assert!(fault.remedy_text().is_some(), "{base}");
        }
        assert!(address(None, "contoso", false).is_err());
        let test = address(Some("http://127.0.0.1:81"), "contoso", true);
        assert_eq!(test.unwrap(), "http://127.0.0.1:81/webhooks/contoso");
    }
}
