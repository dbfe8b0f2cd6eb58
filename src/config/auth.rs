//! `auth` of a Salesforce connection: how to sign in.

use std::path::Path;

use chrono::NaiveDate;

use crate::config::document::{Node, Report, Shape};
use crate::config::problem::Problem;
use crate::config::reader::{Reader, shown};
use crate::config::secret::SecretRef;

/// `auth`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// `flow = "client_credentials"`: as the app's run-as user.
    ClientCredentials {
        /// `client_id`.
        client_id: String,
        /// `client_secret`.
        client_secret: SecretRef,
        /// `secret_expires`: the last day on which it works.
        secret_expires: Option<NaiveDate>,
    },
    /// `flow = "jwt_bearer"`: as a user that the app is pre-authorised for.
    JwtBearer {
        /// `client_id`.
        client_id: String,
        /// `user`: the user's name.
        user: String,
        /// `private_key`: the app's RSA key, in PEM.
        private_key: SecretRef,
        /// `audience`, if another than the org's kind says.
        audience: Option<String>,
    },
    /// `flow = "authorization_code"`: as the person who agrees.
    AuthorizationCode {
        /// `client_id`.
        client_id: String,
        /// `client_secret`, unless the app may leave it out.
        client_secret: Option<SecretRef>,
    },
}

pub(super) const FLOWS: &str =
    "write \"client_credentials\", \"jwt_bearer\" or \"authorization_code\"";
const PLACE: &str = "write { env = \"NAME\" } or { file = \"PATH\" }";
const AUDIENCES: [&str; 2] = [
    "https://login.salesforce.com",
    "https://test.salesforce.com",
];

impl Auth {
    /// Whether a person has to agree.
    #[must_use]
    pub const fn is_by_person(&self) -> bool {
        matches!(self, Self::AuthorizationCode { .. })
    }

    pub(super) fn parse(node: &Node, root: &Path, report: &Report) -> Option<Self> {
        let mut reader = Reader::open(node, report)?;
        let flow = reader.required_text("flow", FLOWS);
        let flow_name = flow
            .as_ref()
            .map_or("client_credentials", |flow| flow.value.as_str());
        let by_secret = match flow_name {
            "client_credentials" | "authorization_code" => true,
            "jwt_bearer" => false,
            other => {
                let what = match other {
                    "device" | "device_code" | "refresh_token" | "web_server" => {
                        super::connection::NOT_HERE
                    }
                    _ => "no way to sign in that this version knows",
                };
                let spot = flow.as_ref().map_or(&node.spot, |flow| &flow.spot);
                report.add(Problem::new(spot, what, FLOWS).value(shown(other)));
                return None;
            }
        };
        let client_id = reader.required_text("client_id", "write the app's consumer key");
        if !by_secret {
            return Self::jwt(reader, client_id.map(|id| id.value), root);
        }
        let is_by_person = flow_name == "authorization_code";
        let secret = reader.take("client_secret");
        if secret.is_none() && !is_by_person {
            reader.missing("client_secret", PLACE);
        }
        let client_secret = secret.map(|node| SecretRef::parse(node, root, report));
        if is_by_person {
            reader.close();
            return Some(Self::AuthorizationCode {
                client_id: client_id?.value,
                client_secret: match client_secret {
                    Some(secret) => Some(secret?),
                    None => None,
                },
            });
        }
        let secret_expires = reader
            .take("secret_expires")
            .and_then(|node| day(node, report));
        reader.close();
        Some(Self::ClientCredentials {
            client_id: client_id?.value,
            client_secret: client_secret??,
            secret_expires,
        })
    }

    fn jwt(mut reader: Reader<'_>, client_id: Option<String>, root: &Path) -> Option<Self> {
        let report = reader.report;
        let user = reader.required_text("user", "write the user's name: \"sync@acme.example\"");
        let key = reader.take("private_key");
        if key.is_none() {
            reader.missing("private_key", PLACE);
        }
        let private_key = key.and_then(|node| SecretRef::parse(node, root, report));
        let audience = reader.text("audience");
        if let Some(text) = &audience
            && !AUDIENCES.contains(&text.value.as_str())
        {
            let remedy = "write \"https://login.salesforce.com\", or \"https://test.salesforce.com\" for a sandbox";
            let problem = Problem::new(&text.spot, "no login host", remedy);
            report.add(problem.value(shown(&text.value)));
        }
        reader.close();
        Some(Self::JwtBearer {
            client_id: client_id?,
            user: user?.value,
            private_key: private_key?,
            audience: audience.map(|text| text.value),
        })
    }
}

/// A day without quotes.
pub(super) fn day(node: &Node, report: &Report) -> Option<NaiveDate> {
    let date = match &node.shape {
        Shape::Date(date) => Some(*date),
        Shape::Given(text) => text.parse().ok(),
        Shape::Unreadable => return None,
        _ => None,
    };
    if date.is_none() {
        node.mistyped("a date", "write a day without quotes: 2027-01-31", report);
    }
    date
}
