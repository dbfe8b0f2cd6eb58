//! What a Dynamics connection needs to know, and which addresses it may not be.

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::budget::Limits;
use crate::crm::port::shelf::Shelf;
use crate::crm::port::vault::Vault;
use crate::fault::{Fault, FaultKind};
use crate::model::name::ConnectionId;
use crate::secret::Secret;

/// Reads a secret where it lives, so that a rotated one is found.
pub type SecretSource = Arc<dyn Fn() -> Result<Secret, Fault> + Send + Sync>;

/// Settings of a connection.
#[derive(Clone)]
pub struct DynamicsSettings {
    /// The connection.
    pub connection: ConnectionId,
    /// The environment, `https://contoso.crm.dynamics.com`: what tokens are asked for.
    pub org_url: String,
    /// Where data calls go, in place of the environment's own address.
    pub instance_url: Option<String>,
    /// Where to sign in, tenant included, in place of what the environment says.
    pub authority_url: Option<String>,
    /// The Web API's version, `9.2`.
    pub api_version: String,
    /// The LCID of the labels.
    pub language: u32,
    /// The application's id.
    pub client_id: String,
    /// Whom we sign in as.
    pub flow: Flow,
    /// What proves that we are the application.
    pub proof: Proof,
    /// What signing in keeps.
    pub vault: Arc<Vault>,
    /// Where descriptions of objects are kept.
    pub shelf: Arc<Shelf>,
    /// How much older than the CRM's clock a read is taken to be.
    pub read_lag: Duration,
    /// Authorities to trust beside the system's (PEM).
    pub ca_file: Option<PathBuf>,
    /// Whether `http://` may be used; only for tests.
    pub plain_text: bool,
    /// Rows a page, up to 5000.
    pub page_size: u32,
    /// Ids that one read names.
    pub ids_a_call: usize,
    /// How many calls a day may take; days begin at midnight UTC.
    pub daily_requests: Option<u32>,
    /// What else its calls may spend.
    pub limits: Limits,
    /// The shortest time between two questions for a table's changes.
    pub poll_interval: Duration,
    /// How often a table that tells no deletes is compared as a whole.
    pub sweep_interval: Duration,
    /// How often a table's newest rows are read again, to notice a restored org.
    pub check_interval: Duration,
    /// The longest wait for a connection.
    pub connect_timeout: Duration,
    /// The longest a call may take: the service itself ends at two minutes.
    pub call_timeout: Duration,
}

/// Whom we sign in as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// The application itself.
    #[default]
    ClientCredentials,
    /// The person who agreed.
    AuthorizationCode,
}

/// What an application proves itself by; read anew at each sign-in.
#[derive(Clone)]
pub enum Proof {
    /// A client secret.
    Secret(SecretSource),
    /// PEM with a certificate and its private key.
    Certificate(SecretSource),
    /// Nothing: a public client, for a person only.
    Public,
}

impl DynamicsSettings {
    /// Settings with the defaults of a production environment.
    pub fn new(
        connection: ConnectionId,
        org_url: impl Into<String>,
        client_id: impl Into<String>,
        proof: Proof,
    ) -> Self {
        Self {
            vault: Vault::in_memory(connection.clone()),
            shelf: Shelf::in_memory(connection.clone()),
            flow: Flow::default(),
            connection,
            org_url: org_url.into(),
            instance_url: None,
            authority_url: None,
            api_version: "9.2".to_owned(),
            language: 1033,
            client_id: client_id.into(),
            proof,
            read_lag: Duration::from_secs(5),
            ca_file: None,
            plain_text: false,
            page_size: 5000,
            ids_a_call: 200,
            daily_requests: None,
            // Four calls can't work for more than the 20 minutes in five that the service allows a user.
            limits: Limits {
                at_once: NonZeroU32::MIN.saturating_add(3),
                ..Limits::default()
            },
            poll_interval: Duration::from_secs(15),
            sweep_interval: Duration::from_hours(1),
            check_interval: Duration::from_hours(1),
            connect_timeout: Duration::from_secs(20),
            call_timeout: Duration::from_secs(120),
        }
    }

    /// Checks what can be checked without a call, and takes trailing slashes off the addresses.
    ///
    /// # Errors
    /// `Config`, naming setting, value and remedy.
    pub fn checked(mut self) -> Result<Self, Fault> {
        let plain = self.plain_text;
        self.org_url = address("org", &self.org_url, plain, false)?;
        for (name, url, path) in [
            ("instance_url", &mut self.instance_url, false),
            ("authority_url", &mut self.authority_url, true),
        ] {
            if let Some(text) = url {
                *url = Some(address(name, text, plain, path)?);
            }
        }
        let version = self.api_version.split_once('.');
        if !version.is_some_and(|(major, minor)| major == "9" && minor.parse::<u8>().is_ok()) {
            let what = "is no Web API version from 9.0 on";
            return Err(refused("api_version", &self.api_version, what).remedy("write it as `9.2`"));
        }
        if self.client_id.trim().is_empty() {
            return Err(refused("client_id", "", "is empty")
                .remedy("copy the application (client) id of the app registration"));
        }
        if !(1..=5000).contains(&self.page_size) {
            let size = self.page_size.to_string();
            return Err(refused("page_size", &size, "is not between 1 and 5000"));
        }
        Ok(self)
    }

    /// Where data calls go.
    #[must_use]
    pub fn base(&self) -> &str {
        self.instance_url.as_deref().unwrap_or(&self.org_url)
    }

    /// The URL of `WhoAmI` (Dataverse Web API, "WhoAmI function").
    pub(super) fn who_am_i(&self) -> String {
        format!("{}/api/data/v{}/WhoAmI", self.base(), self.api_version)
    }
}

/// Checks an address that tokens or secrets are sent to.
fn address(setting: &str, value: &str, plain_text: bool, path: bool) -> Result<String, Fault> {
    const REMEDY: &str = "use the environment's URL, `https://<name>.crm.dynamics.com`";
    let url = value.trim().trim_end_matches('/').to_owned();
    let rest = url
        .strip_prefix("https://")
        .or_else(|| plain_text.then(|| url.strip_prefix("http://")).flatten());
    let Some(rest) = rest.filter(|rest| !rest.is_empty() && !rest.starts_with('/')) else {
        return Err(refused(setting, value, "is not an https:// address").remedy(REMEDY));
    };
    if rest.contains(['?', '#', '@', ' ']) || (!path && rest.contains('/')) {
        return Err(refused(setting, value, "has more than scheme and host")
            .remedy("leave out everything after the host"));
    }
    Ok(url)
}

fn refused(setting: &str, value: &str, why: &str) -> Fault {
    Fault::new(
        FaultKind::Config,
        format!("`{setting} = \"{value}\"` {why}"),
    )
}

impl fmt::Debug for DynamicsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamicsSettings")
            .field("connection", &self.connection)
            .field("org_url", &self.org_url)
            .field("instance_url", &self.instance_url)
            .field("authority_url", &self.authority_url)
            .field("api_version", &self.api_version)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(org: &str) -> DynamicsSettings {
        let secret: SecretSource = Arc::new(|| Ok(Secret::new("s")));
        DynamicsSettings::new("contoso".into(), org, "0000", Proof::Secret(secret))
    }

    #[test]
    fn addresses_are_hosts_and_encrypted() {
        for url in [
            "http://contoso.crm.dynamics.com",
            "contoso.crm.dynamics.com",
            "https://contoso.crm.dynamics.com/main.aspx",
            "https://me@contoso.crm.dynamics.com",
            "https://",
            "",
        ] {
            let fault = settings(url).checked().unwrap_err();
            assert_eq!(fault.kind(), FaultKind::Config, "{url}");
            assert!(fault.remedy_text().is_some(), "{url}");
        }
        let good = settings("https://contoso.crm.dynamics.com/");
        assert_eq!(
            good.checked().unwrap().base(),
            "https://contoso.crm.dynamics.com"
        );
    }

    #[test]
    fn an_authority_may_name_its_tenant_and_nothing_prints_the_client() {
        let mut own = settings("https://contoso.crm.dynamics.com");
        own.authority_url = Some("https://login.microsoftonline.us/contoso.com/".to_owned());
        let own = own.checked().unwrap();
        let authority = own.authority_url.as_deref();
        assert_eq!(
            authority,
            Some("https://login.microsoftonline.us/contoso.com")
        );
        assert!(!format!("{own:?}").contains("0000"));
    }

    #[test]
    fn settings_have_their_limits() {
        let good = settings("https://contoso.crm.dynamics.com");
        for version in ["9", "v9.2", "8.2", ""] {
            let mut other = good.clone();
            other.api_version = version.to_owned();
            assert!(other.checked().is_err(), "{version}");
        }
        for size in [0, 5001] {
            let mut other = good.clone();
            other.page_size = size;
            assert!(other.checked().is_err(), "{size}");
        }
    }
}
