//! `[admin]`: the HTTP address, and the token that guards it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use crate::config::document::{Node, Report};
use crate::config::problem::{Problem, Spot};
use crate::config::reader::{Reader, shown};
use crate::config::secret::SecretRef;
use crate::config::web::WebUrl;

/// The section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// `listen`.
    pub listen: SocketAddr,
    /// `public_url`: what the daemon is called from outside, where that is not `listen`.
    pub public_url: Option<WebUrl>,
    /// `token` that requests carry. Without one only loopback is bound.
    pub token: Option<SecretRef>,
}

/// Where a CRM sends people after they agreed.
pub const CALLBACK: &str = "/oauth/callback";

const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

impl AdminConfig {
    /// The callback URL, for a daemon that listens at `address`: by its name for this machine, as CRMs take plain
    /// `http` for `localhost` only.
    #[must_use]
    pub fn callback(&self, address: SocketAddr) -> String {
        match &self.public_url {
            Some(url) => format!("{}{CALLBACK}", url.as_str()),
            None => format!("http://localhost:{}{CALLBACK}", address.port()),
        }
    }

    pub(super) fn parse(tree: &Node, root: &Path, report: &Report) -> Self {
        let mut reader = Reader::open_section(tree, "admin", report);
        let at = reader.spot_of("listen");
        let listen = reader.text("listen").and_then(|text| {
            let parsed = text.value.parse().ok();
            if parsed.is_none() {
                let problem = Problem::new(
                    &text.spot,
                    "no address and port",
                    "write an IP address and a port: \"127.0.0.1:8080\", \"[::1]:8080\"",
                );
                report.add(problem.value(shown(&text.value)));
            }
            parsed
        });
        let public_url = reader
            .text("public_url")
            .and_then(|text| WebUrl::parse(&text, true, report));
        let has_token = reader.take("token").is_some();
        let token = reader
            .take("token")
            .and_then(|node| SecretRef::parse(node, root, report));
        reader.close();
        let listen = listen.unwrap_or(DEFAULT);
        if !has_token {
            loopback_only(listen, &at, report);
        }
        Self {
            listen,
            public_url,
            token,
        }
    }
}

/// Rows and keys of other people lie behind this address.
fn loopback_only(listen: SocketAddr, at: &Spot, report: &Report) {
    if !listen.ip().to_canonical().is_loopback() {
        let problem = Problem::new(
            at,
            "open to other machines without a token",
            "set [admin] token = { env = \"…\" }, or listen on 127.0.0.1",
        );
        report.add(problem.value(format!("\"{listen}\"")));
    }
}
