//! Addresses of web services: checked once, kept as text.

use std::fmt;

use crate::config::document::Report;
use crate::config::problem::{Located, Problem};
use crate::config::reader::shown;

/// An `http` or `https` URL without user, query and fragment, without a slash at its end, host in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebUrl {
    text: String,
    /// Where the host begins and ends in `text`.
    host: (usize, usize),
}

impl WebUrl {
    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host alone, an IPv6 one in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.text.get(self.host.0..self.host.1).unwrap_or_default()
    }

    /// The port, if it is written.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        let rest = self.text.get(self.host.1..)?.strip_prefix(':')?;
        rest.split('/').next()?.parse().ok()
    }

    /// Whether what is sent there is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.text.starts_with("https://")
    }

    /// Parses a URL; `plain_text` allows `http`.
    pub(super) fn parse(text: &Located<String>, plain_text: bool, report: &Report) -> Option<Self> {
        let refuse = |what: &str, remedy: &str| {
            report.add(Problem::new(&text.spot, what, remedy).value(shown(&text.value)));
            None
        };
        match Self::from_text(&text.value) {
            Ok(url) if url.is_encrypted() || plain_text => Some(url),
            Ok(_) => refuse(
                "would be spoken to in plain text",
                "write https://; only for a test, set plain_text = true",
            ),
            Err(what) => refuse(what, "write https://host or https://host:port"),
        }
    }

    fn from_text(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or("no URL")?;
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(scheme.as_str(), "http" | "https") {
            return Err("no http or https URL");
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if rest.contains('@') {
            return Err("a URL that holds a user or a password");
        }
        if rest.contains(['?', '#']) {
            return Err("a URL with a query or a fragment");
        }
        if rest.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
            return Err("a URL with a blank or a backslash");
        }
        let (host, port) = split_port(authority)?;
        let host = host.to_ascii_lowercase();
        let start = scheme.len() + "://".len();
        let end = start + host.len();
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        let path = path.trim_end_matches('/');
        Ok(Self {
            text: format!("{scheme}://{host}{port}{path}"),
            host: (start, end),
        })
    }
}

impl fmt::Display for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    let (host, port) = if let Some(end) = authority.find(']') {
        let (host, rest) = authority.split_at(end + 1);
        let address = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let is_address = address.is_some_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok());
        if !is_address {
            return Err("a URL without a usable host");
        }
        match rest {
            "" => (host, None),
            _ => (
                host,
                Some(
                    rest.strip_prefix(':')
                        .ok_or("a URL without a usable port")?,
                ),
            ),
        }
    } else {
        authority
            .split_once(':')
            .map_or((authority, None), |(host, port)| (host, Some(port)))
    };
    let is_name = |label: &str| {
        !label.is_empty()
            && label
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    if !host.starts_with('[') && !host.split('.').all(is_name) {
        return Err("a URL without a usable host");
    }
    match port {
        None => Ok((host, None)),
        Some(text) => {
            let digits = text.chars().all(|c| c.is_ascii_digit());
            let port = text.parse::<u16>().ok().filter(|port| digits && *port > 0);
            Ok((host, Some(port.ok_or("a URL without a usable port")?)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises() {
        for (text, url, host) in [
            (
                "https://Acme.my.salesforce.com/",
                "https://acme.my.salesforce.com",
                "acme.my.salesforce.com",
            ),
            (
                "http://127.0.0.1:8077",
                "http://127.0.0.1:8077",
                "127.0.0.1",
            ),
            ("HTTPS://[::1]:8443", "https://[::1]:8443", "[::1]"),
            (
                "https://a.example/Sync/",
                "https://a.example/Sync",
                "a.example",
            ),
        ] {
            let parsed = WebUrl::from_text(text).unwrap();
            assert_eq!((parsed.as_str(), parsed.host()), (url, host));
        }
    }

    #[test]
    fn refuses() {
        for text in [
            "",
            "acme",
            "acme.my.salesforce.com",
            "ftp://a.example",
            "https://",
            "https:///path",
            "https://a..b",
            "https://a b",
            "https://a\\b",
            "https://a:0",
            "https://a:70000",
            "https://a:+80",
            "https://a:",
            "https://me:pw@a.example",
            "https://a.example/?q=1",
            "https://a.example#x",
            "https://[::1",
            "https://[::1]x",
            "https://[zz]",
            "https://a]",
        ] {
            assert!(WebUrl::from_text(text).is_err(), "{text}");
        }
    }
}
