//! What a Salesforce connection needs to know, and which addresses it may not be.

use std::fmt;
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
pub struct SalesforceSettings {
    /// The connection.
    pub connection: ConnectionId,
    /// Where tokens come from: the org's My Domain, `https://acme.my.salesforce.com`.
    pub login_url: String,
    /// Where data calls go, in place of what the token's answer says.
    pub instance_url: Option<String>,
    /// The API version, `66.0`.
    pub api_version: String,
    /// The app's consumer key.
    pub client_id: String,
    /// How to sign in.
    pub auth: Auth,
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
    /// Rows a page, 200 to 2000; the CRM may send fewer.
    pub page_size: u32,
    /// Objects with at least so many records are read as a whole by the Bulk API; `None`: no object is.
    pub bulk_from: Option<u64>,
    /// Results of a bulk job with more records than this are read side by side; fewer come in one page.
    pub bulk_parallel_from: u64,
    /// What its calls may spend.
    pub limits: Limits,
    /// The tag that marks our calls (`Sforce-Call-Options`).
    pub call_tag: String,
    /// The longest wait for a connection.
    pub connect_timeout: Duration,
    /// The longest a REST call may take. A query may run for 120 s.
    pub call_timeout: Duration,
    /// The longest a held poll of the stream may take: more than 120 s, as the CRM holds it for 110 s.
    pub poll_timeout: Duration,
    /// By what the stream comes.
    pub transport: Transport,
    /// What the stream subscribes to.
    pub channels: Channels,
    /// Where the Pub/Sub API is, `host:port` or an address.
    pub pubsub_address: String,
    /// The longest that the Pub/Sub API may say nothing, keep-alives included: they come within 270 s.
    pub silence: Duration,
}

/// How to sign in; secrets are read anew each time.
#[derive(Clone)]
pub enum Auth {
    /// As the app's Run-As user, by the app's consumer secret.
    ClientCredentials(SecretSource),
    /// As a user that the app is pre-authorised for, by the app's private key.
    JwtBearer {
        /// The user's name.
        user: String,
        /// The RSA key, in PEM.
        key: SecretSource,
        /// The login host that the assertion is meant for.
        audience: String,
    },
    /// As the person who agreed; the app's consumer secret, unless it may be left out.
    AuthorizationCode(Option<SecretSource>),
}

impl<S> From<Arc<S>> for Auth
where
    S: Fn() -> Result<Secret, Fault> + Send + Sync + 'static,
{
    /// A consumer secret alone is that of client credentials.
    fn from(secret: Arc<S>) -> Self {
        Self::ClientCredentials(secret)
    }
}

/// By what the stream comes. Chosen, never switched by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// The Streaming API's long poll.
    Cometd,
    /// The Pub/Sub API, over gRPC.
    #[default]
    PubSub,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cometd => "CometD",
            Self::PubSub => "Pub/Sub",
        })
    }
}

/// Where the Pub/Sub API of every org is that has no residency of its own (Pub/Sub API Developer Guide, "Endpoints").
pub const PUBSUB_ADDRESS: &str = "api.pubsub.salesforce.com:7443";

/// What the stream subscribes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Channels {
    /// `/data/ChangeEvents`: every entity that Setup selects for the standard channel.
    #[default]
    Standard,
    /// One channel by its name (`/data/Sales__chn`).
    Named(String),
    /// A channel per object (`/data/AccountChangeEvent`).
    PerObject,
}

/// From how many records on a job takes fewer calls than pages of 2000: it is created, looked at some times, read and
/// deleted.
pub const BULK_FROM: u64 = 20_000;

impl SalesforceSettings {
    /// Settings with the defaults of a production org.
    pub fn new(
        connection: ConnectionId,
        login_url: impl Into<String>,
        client_id: impl Into<String>,
        auth: impl Into<Auth>,
    ) -> Self {
        Self {
            vault: Vault::in_memory(connection.clone()),
            shelf: Shelf::in_memory(connection.clone()),
            connection,
            login_url: login_url.into(),
            instance_url: None,
            api_version: "66.0".to_owned(),
            client_id: client_id.into(),
            auth: auth.into(),
            read_lag: Duration::from_secs(5),
            ca_file: None,
            plain_text: false,
            page_size: 2000,
            bulk_from: Some(BULK_FROM),
            bulk_parallel_from: 50_000,
            limits: Limits::default(),
            call_tag: "tributary".to_owned(),
            connect_timeout: Duration::from_secs(20),
            call_timeout: Duration::from_secs(150),
            poll_timeout: Duration::from_secs(150),
            transport: Transport::default(),
            channels: Channels::Standard,
            pubsub_address: PUBSUB_ADDRESS.to_owned(),
            silence: Duration::from_mins(5),
        }
    }

    /// Checks what can be checked without a call, and takes trailing slashes off the addresses.
    ///
    /// # Errors
    /// `Config`, naming setting, value and remedy.
    pub fn checked(mut self) -> Result<Self, Fault> {
        self.login_url = address("login_url", &self.login_url, self.plain_text)?;
        let is_shared = matches!(
            host(&self.login_url),
            "login.salesforce.com" | "test.salesforce.com"
        );
        if is_shared && matches!(self.auth, Auth::ClientCredentials(_)) {
            return Err(
                refused("login_url", &self.login_url, "serves no client credentials")
                    .remedy(MY_DOMAIN),
            );
        }
        if let Some(instance) = &self.instance_url {
            self.instance_url = Some(address("instance_url", instance, self.plain_text)?);
        }
        self.pubsub_address = pubsub_address(&self.pubsub_address, self.plain_text)?;
        let version = self.api_version.split_once('.');
        let is_version = version.is_some_and(|(major, minor)| {
            minor == "0" && major.parse::<u16>().is_ok_and(|major| major >= 37)
        });
        if !is_version {
            return Err(refused(
                "api_version",
                &self.api_version,
                "is no version from 37.0 on",
            )
            .remedy("write it as `66.0`"));
        }
        if self.client_id.trim().is_empty() {
            return Err(refused("client_id", "", "is empty")
                .remedy("copy the consumer key of the External Client App"));
        }
        if !(200..=2000).contains(&self.page_size) {
            let size = self.page_size.to_string();
            return Err(refused("page_size", &size, "is not between 200 and 2000"));
        }
        let tag = &self.call_tag;
        if tag.is_empty()
            || !tag
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        {
            return Err(refused(
                "call_tag",
                tag,
                "has other characters than letters, digits, - and _",
            ));
        }
        Ok(self)
    }
}

/// The remedy for an address on which client credentials do not work.
pub const MY_DOMAIN: &str = "use the org's My Domain, `https://<domain>.my.salesforce.com` (a sandbox: \
     `https://<domain>--<sandbox>.sandbox.my.salesforce.com`); Setup → My Domain shows it";

/// Checks an address that tokens are sent to.
///
/// # Errors
/// `Config`, with the My Domain form where the address is one of the browser's.
pub fn address(setting: &str, value: &str, plain_text: bool) -> Result<String, Fault> {
    let url = value.trim().trim_end_matches('/').to_owned();
    let plain = plain_text && url.starts_with("http://");
    let name = host(&url);
    if !(url.starts_with("https://") || plain) || name.is_empty() {
        return Err(refused(setting, value, "is not an https:// address").remedy(MY_DOMAIN));
    }
    if url.contains(['?', '#', '@', ' ']) || url.splitn(4, '/').nth(3).is_some() {
        return Err(refused(setting, value, "has more than scheme and host")
            .remedy("leave out everything after the host"));
    }
    if let Some(domain) = name.strip_suffix(".lightning.force.com") {
        return Err(
            refused(setting, value, "is a Lightning page, which serves no API")
                .remedy(format!("use `https://{domain}.my.salesforce.com`")),
        );
    }
    Ok(url)
}

/// The address of the Pub/Sub API; one without scheme is `https`.
fn pubsub_address(value: &str, plain_text: bool) -> Result<String, Fault> {
    let remedy = format!("write it as `{PUBSUB_ADDRESS}`");
    let given = value.trim();
    let url = if given.contains("://") {
        given.to_owned()
    } else {
        format!("https://{given}")
    };
    address("pubsub_address", &url, plain_text)
        .map_err(|_| refused("pubsub_address", value, "is no host and port").remedy(remedy))
}

fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = rest.find(['/', ':', '?', '#']).unwrap_or(rest.len());
    &rest[..end]
}

fn refused(setting: &str, value: &str, why: &str) -> Fault {
    Fault::new(
        FaultKind::Config,
        format!("`{setting} = \"{value}\"` {why}"),
    )
}

impl fmt::Debug for SalesforceSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SalesforceSettings")
            .field("connection", &self.connection)
            .field("login_url", &self.login_url)
            .field("instance_url", &self.instance_url)
            .field("api_version", &self.api_version)
            .field("channels", &self.channels)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(login_url: &str) -> SalesforceSettings {
        let secret = Arc::new(|| Ok(Secret::new("s")));
        SalesforceSettings::new(ConnectionId::new("acme"), login_url, "3MVG9", secret)
    }

    #[test]
    fn a_lightning_page_is_answered_with_its_my_domain() {
        for (page, domain) in [
            (
                "https://acme.lightning.force.com",
                "`https://acme.my.salesforce.com`",
            ),
            (
                "https://acme--uat.sandbox.lightning.force.com/",
                "`https://acme--uat.sandbox.my.salesforce.com`",
            ),
        ] {
            let fault = settings(page).checked().unwrap_err();
            assert_eq!(fault.kind(), FaultKind::Config);
            assert!(fault.report().contains(domain), "{}", fault.report());
        }
    }

    #[test]
    fn login_hosts_and_other_addresses_are_refused() {
        for url in [
            "https://login.salesforce.com",
            "https://test.salesforce.com/",
            "http://acme.my.salesforce.com",
            "acme.my.salesforce.com",
            "https://acme.my.salesforce.com/services",
            "https://",
            "",
        ] {
            let fault = settings(url).checked().unwrap_err();
            assert_eq!(fault.kind(), FaultKind::Config, "{url}");
            assert!(fault.remedy_text().is_some(), "{url}");
        }
        let good = settings("https://acme.my.salesforce.com/")
            .checked()
            .unwrap();
        assert_eq!(good.login_url, "https://acme.my.salesforce.com");
    }

    #[test]
    fn plain_text_needs_its_flag() {
        let mut plain = settings("http://127.0.0.1:8080/");
        assert!(plain.clone().checked().is_err());
        plain.plain_text = true;
        assert_eq!(plain.checked().unwrap().login_url, "http://127.0.0.1:8080");
    }

    #[test]
    fn settings_have_their_limits() {
        let good = settings("https://acme.my.salesforce.com");
        for version in ["66", "v66.0", "36.0", "66.1", ""] {
            let mut other = good.clone();
            other.api_version = version.to_owned();
            assert!(other.checked().is_err(), "{version}");
        }
        for size in [0, 199, 2001] {
            let mut other = good.clone();
            other.page_size = size;
            assert!(other.checked().is_err(), "{size}");
        }
        let mut other = good.clone();
        other.call_tag = "a;b".to_owned();
        assert!(other.checked().is_err());
        assert!(!format!("{good:?}").contains("3MVG9"));
    }
}
