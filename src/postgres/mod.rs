//! PostgreSQL, shared by all modules that keep data there: how it is reached, what its errors mean, who runs orders.
//!
//! A [`worker::Worker`] owns one connection and runs orders one after the other, each to its end, whether or not
//! the caller still waits. A lost connection is made anew by the next order.

pub mod error;
pub mod session;
mod tls;
#[cfg(test)]
pub mod trial;
pub mod worker;

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use crate::fault::{Fault, FaultKind};
use crate::secret::Secret;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that answers nothing for so long is gone, also in the middle of a statement.
const PEER_TIMEOUT: Duration = Duration::from_secs(60);

/// Reads the password anew for every connection, so that a rotated one is met.
pub type PasswordSource = Arc<dyn Fn() -> Result<Secret, Fault> + Send + Sync>;

/// Where a server is, and how it is reached.
#[derive(Clone)]
pub struct Settings {
    /// `postgres://user@host:5432/database`, or `host=… user=… dbname=…` (PostgreSQL documentation, "Connection
    /// Strings"). `sslmode` in it counts where [`Settings::ssl_mode`] is none; a password in it is refused.
    pub url: String,
    /// None: the server asks for none (peer, certificate, trust).
    pub password: Option<PasswordSource>,
    /// How the connection is encrypted and the server checked; none: as the URL says, else `verify-full`.
    pub ssl_mode: Option<SslMode>,
    /// Authorities that may sign the server's certificate, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Statements that take longer are cancelled; zero: never.
    pub statement_timeout: Duration,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("ssl_mode", &self.ssl_mode)
            .field("ca_file", &self.ca_file)
            .finish_non_exhaustive()
    }
}

/// What `sslmode` may be, as libpq has it (PostgreSQL documentation, "SSL Support", table of modes). `allow` is not
/// offered: it encrypts when it is not asked to and checks nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Plain text.
    Disable,
    /// Encrypted if the server can; its certificate is not looked at.
    Prefer,
    /// Encrypted; its certificate is not looked at.
    Require,
    /// Encrypted, and an authority vouches for the server, whatever its name.
    VerifyCa,
    /// Encrypted, and an authority vouches for this very host.
    VerifyFull,
}

impl FromStr for SslMode {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        Ok(match text {
            "disable" => Self::Disable,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => {
                let what = format!("sslmode `{text}` is not known");
                return Err(Fault::new(FaultKind::Config, what)
                    .remedy("write disable, prefer, require, verify-ca or verify-full"));
            }
        })
    }
}

/// A server's address, read once; [`Server::session`] connects.
pub struct Server {
    config: Config,
    tls: tls::Tls,
    password: Option<PasswordSource>,
    statement_timeout: Duration,
    /// How many sessions there were.
    sessions: AtomicU64,
    /// For messages: host, port and database.
    name: String,
}

impl Server {
    /// Reads the settings.
    ///
    /// # Errors
    /// `Config` for an address that can't be read, a password in it, a CA file that holds no certificate.
    pub fn new(settings: &Settings) -> Result<Self, Fault> {
        let (url, in_url) = without_ssl_mode(&settings.url);
        let mode = match (settings.ssl_mode, in_url) {
            (Some(mode), _) => Some(mode),
            (None, Some(text)) => Some(text.parse()?),
            (None, None) => None,
        };
        // The parser's error may quote the URL, and with it what should not be there.
        let mut config = Config::from_str(&url).map_err(|_| {
            Fault::new(FaultKind::Config, "the address of PostgreSQL can't be read")
                .remedy("write postgres://USER@HOST:5432/DATABASE")
        })?;
        if config.get_password().is_some() {
            return Err(Fault::new(
                FaultKind::Config,
                "the address of PostgreSQL holds a password",
            )
            .remedy("take it out, and name its place: password = { env = \"NAME\" }"));
        }
        let local = config
            .get_hosts()
            .iter()
            .all(|host| matches!(host, Host::Unix(_)));
        // A socket of this machine is not encrypted by anybody.
        let default = if local {
            SslMode::Disable
        } else {
            SslMode::VerifyFull
        };
        let tls = tls::Tls::new(mode.unwrap_or(default), settings.ca_file.as_deref())?;
        config
            .ssl_mode(tls.negotiation())
            .application_name("tributary")
            .connect_timeout(CONNECT_TIMEOUT)
            .keepalives_idle(Duration::from_secs(30))
            .keepalives_interval(Duration::from_secs(10))
            .keepalives_retries(3)
            .tcp_user_timeout(PEER_TIMEOUT);
        Ok(Self {
            name: name(&config),
            config,
            tls,
            password: settings.password.clone(),
            statement_timeout: settings.statement_timeout,
            sessions: AtomicU64::new(0),
        })
    }

    /// Host, port and database.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn name(config: &Config) -> String {
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let database = config.get_dbname().or(config.get_user()).unwrap_or("");
    format!("{}:{port}/{database}", hosts.join(","))
}

/// Takes `sslmode` out of an address: the client library knows no `verify-…`.
fn without_ssl_mode(url: &str) -> (String, Option<String>) {
    let mut found = None;
    let mut keep = |pair: &str| match pair.split_once('=') {
        Some(("sslmode", mode)) => {
            found = Some(mode.to_owned());
            false
        }
        _ => true,
    };
    let kept = match url.split_once("://") {
        Some(_) => {
            let (address, query) = url.split_once('?').unwrap_or((url, ""));
            let query: Vec<_> = query
                .split('&')
                .filter(|pair| !pair.is_empty() && keep(pair))
                .collect();
            if query.is_empty() {
                address.to_owned()
            } else {
                format!("{address}?{}", query.join("&"))
            }
        }
        None => {
            let pairs: Vec<_> = url.split(' ').filter(|pair| keep(pair)).collect();
            pairs.join(" ")
        }
    };
    (kept, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> Settings {
        Settings {
            url: url.to_owned(),
            password: None,
            ssl_mode: None,
            ca_file: None,
            statement_timeout: Duration::ZERO,
        }
    }

    #[test]
    fn the_ssl_mode_is_taken_out_of_the_address() {
        for (url, kept, mode) in [
            (
                "postgres://a@b/c?sslmode=verify-full",
                "postgres://a@b/c",
                Some("verify-full"),
            ),
            (
                "postgres://a@b/c?options=-c%20x%3D1&sslmode=require",
                "postgres://a@b/c?options=-c%20x%3D1",
                Some("require"),
            ),
            (
                "host=b sslmode=disable user=a",
                "host=b user=a",
                Some("disable"),
            ),
            ("host=b user=a", "host=b user=a", None),
        ] {
            let (left, found) = without_ssl_mode(url);
            assert_eq!((left.as_str(), found.as_deref()), (kept, mode), "{url}");
        }
    }

    #[test]
    fn bad_addresses_are_refused_without_their_secrets() {
        for url in [
            "postgres://me:hunter2@host/db",
            "postgres://me:hunter2@host/db?nonsense=1",
            "host=b password=hunter2",
            "hunter2",
        ] {
            let fault = Server::new(&settings(url)).unwrap_err();
            assert_eq!(fault.kind(), FaultKind::Config, "{url}");
            assert!(!fault.report().contains("hunter2"), "{}", fault.report());
        }
        let fault = Server::new(&settings("postgres://a@b/c?sslmode=allow")).unwrap_err();
        assert!(fault.report().contains("`allow`"), "{}", fault.report());
    }

    #[test]
    fn a_server_is_named_without_its_user() {
        let server = Server::new(&settings("postgres://me@db.example:6432/store")).unwrap();
        assert_eq!(server.name(), "db.example:6432/store");
    }
}
