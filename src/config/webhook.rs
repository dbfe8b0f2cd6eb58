//! `webhook` of a Dynamics connection: how the environment proves itself when it pushes changes.

use std::path::Path;

use crate::config::document::{Node, Report};
use crate::config::problem::Problem;
use crate::config::reader::{Reader, shown};
use crate::config::secret::SecretRef;
use crate::config::web::WebUrl;

/// The table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookConfig {
    /// `auth` and `name`.
    pub auth: WebhookAuth,
    /// `secret` that each call carries.
    pub secret: SecretRef,
    /// `url` where the environment reaches the daemon, path left out, if that is not `[admin] public_url`.
    pub url: Option<WebUrl>,
}

/// Where a call carries the secret (Power Apps developer guide, "Register a webhook").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookAuth {
    /// `"key"`: `WebhookKey`, the query `code`.
    Key,
    /// `"header"`: `HttpHeader`, the header of this name.
    Header(String),
    /// `"query"`: `HttpQueryString`, the query of this name.
    Query(String),
}

#[derive(Clone, Copy)]
enum Kind {
    Key,
    Header,
    Query,
}

impl WebhookConfig {
    pub(super) fn parse(
        node: &Node,
        root: &Path,
        plain_text: bool,
        report: &Report,
    ) -> Option<Self> {
        let mut reader = Reader::open(node, report)?;
        let kinds = [
            ("key", Kind::Key),
            ("header", Kind::Header),
            ("query", Kind::Query),
        ];
        let kind = reader.word("auth", &kinds).unwrap_or(Kind::Key);
        let named = reader.text("name");
        if let (Kind::Key, Some(name)) = (kind, &named) {
            let problem = Problem::new(
                &name.spot,
                "not used with auth = \"key\", whose query is `code`",
                "remove it, or write auth = \"header\" or \"query\"",
            );
            report.add(problem.value(shown(&name.value)));
        }
        let name = named.map_or_else(
            || Some("x-tributary-key".to_owned()),
            |name| {
                let good = !name.value.is_empty()
                    && name.value.len() <= 60
                    && name
                        .value
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
                if !good {
                    let remedy = "write letters, digits, - and _";
                    let problem = Problem::new(&name.spot, "no name of a header or query", remedy);
                    report.add(problem.value(shown(&name.value)));
                }
                good.then_some(name.value)
            },
        );
        if reader.take("secret").is_none() {
            reader.missing("secret", "write secret = { env = \"NAME\" }");
        }
        let secret = reader
            .take("secret")
            .and_then(|node| SecretRef::parse(node, root, report));
        let url = reader
            .text("url")
            .and_then(|text| WebUrl::parse(&text, plain_text, report));
        reader.close();
        Some(Self {
            auth: match (kind, name?) {
                (Kind::Key, _) => WebhookAuth::Key,
                (Kind::Header, name) => WebhookAuth::Header(name.to_ascii_lowercase()),
                (Kind::Query, name) => WebhookAuth::Query(name),
            },
            secret: secret?,
            url,
        })
    }
}
