//! `[connection.<id>]`: a CRM org, how to sign in to it, how its changes are read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::auth::Auth;
use crate::config::budget::BudgetConfig;
use crate::config::document::{Node, Report};
use crate::config::dynamics::DynamicsConfig;
use crate::config::notify::Wish;
use crate::config::org::Org;
use crate::config::problem::{Located, Problem, Spot};
use crate::config::reader::{Reader, shown};
use crate::config::stream::{Channel, Stream, Transport};
use crate::config::web::WebUrl;
use crate::model::name::ConnectionId;

/// A connection, by its `kind`.
#[derive(Debug, Clone, PartialEq)]
pub enum ConnectionConfig {
    /// `kind = "salesforce"`.
    Salesforce(Box<SalesforceConfig>),
    /// `kind = "dynamics"`.
    Dynamics(Box<DynamicsConfig>),
}

/// A connection to a Salesforce org.
#[derive(Debug, Clone, PartialEq)]
pub struct SalesforceConfig {
    /// The id: its file's stem.
    pub id: ConnectionId,
    /// Where it stands.
    pub spot: Spot,
    /// `org`.
    pub org: Located<Org>,
    /// `auth`.
    pub auth: Auth,
    /// `transport`.
    pub transport: Transport,
    /// `channel`: what the stream subscribes to.
    pub channel: Channel,
    /// `pubsub_address`: the Pub/Sub API is there instead of at Salesforce's own host.
    pub pubsub_address: Option<String>,
    /// `stream_silence`: a stream that says nothing for longer is left, if for another time than the connector's own.
    pub stream_silence: Option<Duration>,
    /// `login_url`: signs in there instead of at the org.
    pub login_url: Option<WebUrl>,
    /// `instance_url`: calls go there instead of where the token's reply says.
    pub instance_url: Option<WebUrl>,
    /// `api_version` (`66.0`), if another than the connector's own.
    pub api_version: Option<String>,
    /// `ca_file`: PEM certificates trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// `plain_text`: `http` is allowed. For tests.
    pub plain_text: bool,
    /// `read_lag`: how long a committed row may stay invisible to a query.
    pub read_lag: Duration,
    /// `poll_interval`: how often an object that no event tells is asked for its changes.
    pub poll_interval: Duration,
    /// `probe_interval`: how often an object that events tell is probed for changes that none told.
    pub probe_interval: Duration,
    /// `bulk_from`: objects with at least so many records are read as a whole by the Bulk API; 0: none is.
    pub bulk_from: Option<u64>,
    /// `budget`: what its calls may spend.
    pub budget: BudgetConfig,
    /// `company_resolution`: a column of Company and the field that finds a company by it.
    pub company_resolution: Vec<(Located<String>, Located<String>)>,
    /// `notify`: who is told, for jobs that say nothing else.
    pub notify: Wish,
}

/// How often an object that no event tells is asked for its changes, unless it is said.
const UNTOLD_POLL: Duration = Duration::from_mins(10);
/// How often an object that events tell is probed for changes that none told, unless it is said.
const PROBE: Duration = Duration::from_mins(10);

pub(super) const NOT_HERE: &str = "is not available in this version";

impl ConnectionConfig {
    /// The id: its file's stem.
    #[must_use]
    pub fn id(&self) -> &ConnectionId {
        match self {
            Self::Salesforce(connection) => &connection.id,
            Self::Dynamics(connection) => &connection.id,
        }
    }

    /// Whether a person has to agree to it, once.
    #[must_use]
    pub fn is_by_person(&self) -> bool {
        match self {
            Self::Salesforce(connection) => connection.auth.is_by_person(),
            Self::Dynamics(connection) => connection.auth.is_by_person,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn spot(&self) -> &Spot {
        match self {
            Self::Salesforce(connection) => &connection.spot,
            Self::Dynamics(connection) => &connection.spot,
        }
    }

    /// `read_lag`: how long a committed row may stay invisible to a query.
    #[must_use]
    pub fn read_lag(&self) -> Duration {
        match self {
            Self::Salesforce(connection) => connection.read_lag,
            Self::Dynamics(connection) => connection.read_lag,
        }
    }

    /// How often an object that no event tells is asked for its changes, where the daemon sees to that.
    #[must_use]
    pub fn untold_poll(&self) -> Duration {
        match self {
            Self::Salesforce(connection) => connection.poll_interval,
            Self::Dynamics(_) => UNTOLD_POLL,
        }
    }

    /// How often an object that events tell is probed for changes that none told, where events alone tell changes.
    #[must_use]
    pub fn probe(&self) -> Duration {
        match self {
            Self::Salesforce(connection) => connection.probe_interval,
            Self::Dynamics(_) => PROBE,
        }
    }

    /// `company_resolution`: a column of Company and the field that finds a company by it.
    #[must_use]
    pub fn company_resolution(&self) -> &[(Located<String>, Located<String>)] {
        match self {
            Self::Salesforce(connection) => &connection.company_resolution,
            Self::Dynamics(connection) => &connection.company_resolution,
        }
    }

    /// `notify`: who is told, for jobs that say nothing else.
    #[must_use]
    pub fn notify(&self) -> &Wish {
        match self {
            Self::Salesforce(connection) => &connection.notify,
            Self::Dynamics(connection) => &connection.notify,
        }
    }

    /// The Salesforce connection, if it is one.
    #[must_use]
    pub fn salesforce(&self) -> Option<&SalesforceConfig> {
        match self {
            Self::Salesforce(connection) => Some(connection),
            Self::Dynamics(_) => None,
        }
    }

    /// `known_names` are those of `[notify]`, absent where that can't be read.
    pub(super) fn parse(
        id: &str,
        node: &Node,
        root: &Path,
        known_names: Option<&BTreeSet<String>>,
        report: &Report,
    ) -> Option<Self> {
        let mut reader = Reader::open(node, report)?;
        match kind(&mut reader)? {
            Kind::Salesforce => SalesforceConfig::parse(id, node, reader, root, known_names)
                .map(|connection| Self::Salesforce(Box::new(connection))),
            Kind::Dynamics => DynamicsConfig::parse(id, node, reader, root, known_names)
                .map(|connection| Self::Dynamics(Box::new(connection))),
        }
    }
}

impl SalesforceConfig {
    /// Where to sign in.
    #[must_use]
    pub fn login_url(&self) -> &str {
        self.login_url
            .as_ref()
            .map_or_else(|| self.org.value.login_url(), WebUrl::as_str)
    }

    fn parse(
        id: &str,
        node: &Node,
        mut reader: Reader<'_>,
        root: &Path,
        known_names: Option<&BTreeSet<String>>,
    ) -> Option<Self> {
        let report = reader.report;
        let plain_text = reader.boolean("plain_text").unwrap_or(false);
        let org = reader
            .required_text("org", "write \"https://<name>.my.salesforce.com\"")
            .and_then(|text| {
                let org = Org::parse(&text, plain_text, report)?;
                Some(Located::new(org, text.spot))
            });
        if reader.take("auth").is_none() {
            reader.missing(
                "auth",
                "write { flow = \"client_credentials\", client_id = \"…\", client_secret = { env = \"…\" } }",
            );
        }
        let auth = reader
            .take("auth")
            .and_then(|node| Auth::parse(node, root, report));
        let mut url = |key| {
            reader
                .text(key)
                .and_then(|text| WebUrl::parse(&text, plain_text, report))
        };
        let (login_url, instance_url) = (url("login_url"), url("instance_url"));
        let by_secret = matches!(auth, Some(Auth::ClientCredentials { .. }) | None);
        if let (Some(org), None, true) = (&org, reader.take("login_url"), by_secret) {
            own_host_only(org, report);
        }
        let Stream {
            transport,
            channel,
            pubsub_address,
            silence,
        } = Stream::parse(&mut reader, plain_text);
        oob(&mut reader);
        let notify = Wish::take(&mut reader, known_names);
        let api_version = api_version(&mut reader);
        let ca_file = reader.text("ca_file").map(|file| root.join(file.value));
        let read_lag = reader.duration("read_lag", Duration::ZERO, Duration::from_mins(10));
        let (least, most) = (Duration::from_secs(1), Duration::from_hours(24));
        let poll_interval = reader.duration("poll_interval", least, most);
        let probe_interval = reader.duration("probe_interval", least, most);
        let bulk_from = reader.integer("bulk_from", 0..=1_000_000_000);
        let budget = BudgetConfig::take(&mut reader);
        let company_resolution = company_resolution(&mut reader);
        reader.close();
        Some(Self {
            id: ConnectionId::new(id),
            spot: node.spot.clone(),
            org: org?,
            auth: auth?,
            transport,
            channel,
            pubsub_address,
            stream_silence: silence,
            login_url,
            instance_url,
            api_version,
            ca_file,
            plain_text,
            read_lag: read_lag.unwrap_or(Duration::from_secs(5)),
            poll_interval: poll_interval.unwrap_or(UNTOLD_POLL),
            probe_interval: probe_interval.unwrap_or(PROBE),
            bulk_from: bulk_from.and_then(|records| u64::try_from(records).ok()),
            budget,
            company_resolution,
            notify,
        })
    }
}

/// `kind`.
enum Kind {
    Salesforce,
    Dynamics,
}

/// What the connection of an unknown CRM holds is not looked at.
fn kind(reader: &mut Reader<'_>) -> Option<Kind> {
    let remedy = "write \"salesforce\" or \"dynamics\"";
    let Some(kind) = reader.required_text("kind", remedy) else {
        // Left out or mistyped: the rest is read as if it were the CRM of most connections.
        return Some(Kind::Salesforce);
    };
    match kind.value.as_str() {
        "salesforce" => Some(Kind::Salesforce),
        "dynamics" => Some(Kind::Dynamics),
        other => {
            let what = "no CRM that this version knows";
            let problem = Problem::new(&kind.spot, what, remedy);
            reader.report.add(problem.value(shown(other)));
            None
        }
    }
}

/// Salesforce Help, "Configure a Connected App for the OAuth 2.0 Client Credentials Flow": the token endpoint is
/// the My Domain's.
fn own_host_only(org: &Located<Org>, report: &Report) {
    if !matches!(org.value, Org::MyDomain(_)) {
        report.wrong(
            &org.spot,
            "client credentials need the org's own host",
            "write the My Domain URL: \"https://<name>.my.salesforce.com\"",
        );
    }
}

pub(super) fn oob(reader: &mut Reader<'_>) {
    // It is read where the catalogue's jobs are made.
    reader.take("oob");
}

fn api_version(reader: &mut Reader<'_>) -> Option<String> {
    let version = reader.text("api_version")?;
    let number = version.value.strip_suffix(".0").map(str::parse::<u32>);
    // Bulk queries came with 47.0, the event schema does not depend on it (Bulk API 2.0 Developer Guide).
    if matches!(number, Some(Ok(47..=199))) {
        return Some(version.value);
    }
    let problem = Problem::new(
        &version.spot,
        "no API version",
        "write one from \"47.0\" on, like \"66.0\", or remove the key",
    );
    reader.report.add(problem.value(shown(&version.value)));
    None
}

pub(super) fn company_resolution(
    reader: &mut Reader<'_>,
) -> Vec<(Located<String>, Located<String>)> {
    let report = reader.report;
    let Some(node) = reader.take("company_resolution") else {
        return Vec::new();
    };
    let Some(inner) = Reader::open(node, report) else {
        return Vec::new();
    };
    node.note_idle("this version looks no company up for a widget", report);
    inner
        .entries()
        .iter()
        .filter_map(|(column, node)| {
            let column = Located::new(column.clone(), node.spot.clone());
            Some((column, node.text(report)?))
        })
        .collect()
}
