//! A Salesforce org's address: its My Domain, or the login host of all production orgs or sandboxes.

use crate::config::document::Report;
use crate::config::problem::{Located, Problem};
use crate::config::reader::shown;
use crate::config::web::WebUrl;

/// `org`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Org {
    /// `"production"`: login.salesforce.com.
    Production,
    /// `"sandbox"`: test.salesforce.com.
    Sandbox,
    /// The org's own host.
    MyDomain(WebUrl),
}

/// Hosts that a browser shows and no API answers on, and the ending of the host that does (Salesforce Help, "My
/// Domain URL Formats").
const SHOWN_IN_BROWSERS: [(&str, &str); 2] = [
    (".lightning.force.com", ".my.salesforce.com"),
    (".my.salesforce-setup.com", ".my.salesforce.com"),
];

impl Org {
    /// Where to sign in, unless `login_url` says otherwise.
    #[must_use]
    pub fn login_url(&self) -> &str {
        match self {
            Self::Production => "https://login.salesforce.com",
            Self::Sandbox => "https://test.salesforce.com",
            Self::MyDomain(url) => url.as_str(),
        }
    }

    pub(super) fn parse(text: &Located<String>, plain_text: bool, report: &Report) -> Option<Self> {
        match text.value.as_str() {
            "production" => return Some(Self::Production),
            "sandbox" => return Some(Self::Sandbox),
            other if !other.contains("://") => {
                let problem = Problem::new(
                    &text.spot,
                    "no org",
                    "write \"https://<name>.my.salesforce.com\", \"production\" or \"sandbox\"",
                );
                report.add(problem.value(shown(other)));
                return None;
            }
            _ => {}
        }
        let url = WebUrl::parse(text, plain_text, report)?;
        for (browser, api) in SHOWN_IN_BROWSERS {
            if let Some(name) = url.host().strip_suffix(browser) {
                let problem = Problem::new(
                    &text.spot,
                    "an address for browsers, on which no API answers",
                    format!("write the My Domain URL: \"https://{name}{api}\""),
                );
                report.add(problem.value(shown(&text.value)));
                return None;
            }
        }
        if url.as_str().matches('/').count() > 2 {
            let problem = Problem::new(
                &text.spot,
                "a page of an org",
                "write the URL up to the host",
            );
            report.add(problem.value(shown(&text.value)));
            return None;
        }
        Some(Self::MyDomain(url))
    }
}
