//! `[connection.<id>]` with `kind = "dynamics"`: a Dataverse environment and how to sign in to it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::NaiveDate;

use crate::config::auth::day;
use crate::config::budget::BudgetConfig;
use crate::config::connection::{NOT_HERE, company_resolution, oob};
use crate::config::document::{Node, Report};
use crate::config::notify::Wish;
use crate::config::problem::{Located, Problem, Spot};
use crate::config::reader::{Reader, shown};
use crate::config::secret::SecretRef;
use crate::config::servicebus::ServiceBusConfig;
use crate::config::web::WebUrl;
use crate::config::webhook::WebhookConfig;
use crate::model::name::ConnectionId;

/// A connection to a Microsoft Dynamics 365 (Dataverse) environment.
#[derive(Debug, Clone, PartialEq)]
pub struct DynamicsConfig {
    /// The id: its file's stem.
    pub id: ConnectionId,
    /// Where it stands.
    pub spot: Spot,
    /// `org`: the environment's URL. What was once established under it is not read from another.
    pub org: Located<WebUrl>,
    /// `instance`: fills `{instance}`; by default the first label of the org's host.
    pub instance: String,
    /// `language`: the LCID of the labels.
    pub language: u32,
    /// `daily_requests`: how many calls a day may take, if they are limited.
    pub daily_requests: Option<u32>,
    /// `poll_interval`: how long after a table's changes were asked for they are asked for again.
    pub poll_interval: Duration,
    /// `servicebus_url` and `servicebus`: messages of a queue tell of changes sooner than a poll.
    pub servicebus: Option<ServiceBusConfig>,
    /// `auth`.
    pub auth: DynamicsAuth,
    /// `authority_url`: signs in there instead of where the org says.
    pub authority_url: Option<WebUrl>,
    /// `instance_url`: calls go there instead of to `org`.
    pub instance_url: Option<WebUrl>,
    /// `api_version` (`9.2`), if another than the connector's own.
    pub api_version: Option<String>,
    /// `ca_file`: PEM certificates trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// `plain_text`: `http` is allowed. For tests.
    pub plain_text: bool,
    /// `read_lag`: how long a committed row may stay invisible to a query.
    pub read_lag: Duration,
    /// `webhook`: changes are pushed, if it is there.
    pub webhook: Option<WebhookConfig>,
    /// `budget`: what its calls may spend.
    pub budget: BudgetConfig,
    /// `company_resolution`: a column of Company and the field that finds a company by it.
    pub company_resolution: Vec<(Located<String>, Located<String>)>,
    /// `notify`: who is told, for jobs that say nothing else.
    pub notify: Wish,
}

/// `auth`, whose `flow` is `"client_credentials"`: as an application user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DynamicsAuth {
    /// `flow = "authorization_code"`: as the person who agrees, in place of the application itself.
    pub is_by_person: bool,
    /// `client_id`: the application's id.
    pub client_id: String,
    /// What proves that we are the application.
    pub proof: Proof,
    /// `secret_expires`: the last day on which the proof works.
    pub secret_expires: Option<NaiveDate>,
}

/// What an application proves itself by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// `client_secret`.
    Secret(SecretRef),
    /// `certificate`: PEM with a certificate and its private key.
    Certificate(SecretRef),
    /// Neither: a public client, which a person has to agree to.
    Public,
}

/// Without a push nothing is asked for more often (service protection limits are shared with people's work).
const LEAST_POLL: Duration = Duration::from_secs(15);
/// Tests on the own machine may be quicker.
const LEAST_TEST_POLL: Duration = Duration::from_millis(50);
const ORG: &str = "write the environment's URL: \"https://<name>.crm.dynamics.com\"";

impl DynamicsConfig {
    /// `known_names` are those of `[notify]`, absent where that can't be read.
    pub(super) fn parse(
        id: &str,
        node: &Node,
        mut reader: Reader<'_>,
        root: &Path,
        known_names: Option<&BTreeSet<String>>,
    ) -> Option<Self> {
        let report = reader.report;
        let plain_text = reader.boolean("plain_text").unwrap_or(false);
        let org = reader
            .required_text("org", ORG)
            .and_then(|text| org(text, plain_text, report));
        if reader.take("auth").is_none() {
            reader.missing("auth", AUTH);
        }
        let auth = reader
            .take("auth")
            .and_then(|node| DynamicsAuth::parse(node, root, report));
        let mut url = |key| {
            reader
                .text(key)
                .and_then(|text| WebUrl::parse(&text, plain_text, report))
        };
        let (authority_url, instance_url) = (url("authority_url"), url("instance_url"));
        let instance = reader.text("instance").map(|text| text.value);
        let language = reader.integer("language", 1..=0xF_FFFF);
        let daily_requests = reader.integer("daily_requests", 1000..=i64::from(u32::MAX));
        let least = if plain_text {
            LEAST_TEST_POLL
        } else {
            LEAST_POLL
        };
        let poll_interval = reader.duration("poll_interval", least, Duration::from_hours(1));
        oob(&mut reader);
        let notify = Wish::take(&mut reader, known_names);
        let api_version = api_version(&mut reader);
        let ca_file = reader.text("ca_file").map(|file| root.join(file.value));
        let read_lag = reader.duration("read_lag", Duration::ZERO, Duration::from_mins(10));
        let budget = BudgetConfig::take(&mut reader);
        let company_resolution = company_resolution(&mut reader);
        let servicebus = ServiceBusConfig::take(&mut reader, plain_text, root);
        let webhook = reader
            .take("webhook")
            .and_then(|node| WebhookConfig::parse(node, root, plain_text, report));
        reader.close();
        let org = org?;
        Some(Self {
            id: ConnectionId::new(id),
            spot: node.spot.clone(),
            instance: instance.unwrap_or_else(|| first_label(&org.value)),
            org,
            language: language
                .and_then(|code| u32::try_from(code).ok())
                .unwrap_or(1033),
            daily_requests: daily_requests.and_then(|calls| u32::try_from(calls).ok()),
            poll_interval: poll_interval.unwrap_or(LEAST_POLL),
            servicebus,
            auth: auth?,
            authority_url,
            instance_url,
            api_version,
            ca_file,
            plain_text,
            read_lag: read_lag.unwrap_or(Duration::from_secs(5)),
            webhook,
            budget,
            company_resolution,
            notify,
        })
    }
}

const FLOWS: &str = "write \"client_credentials\" or \"authorization_code\"";
const AUTH: &str =
    "write { flow = \"client_credentials\", client_id = \"…\", client_secret = { env = \"…\" } }";

/// The environment's URL up to its host.
fn org(text: Located<String>, plain_text: bool, report: &Report) -> Option<Located<WebUrl>> {
    if !text.value.contains("://") {
        let problem = Problem::new(&text.spot, "no URL", ORG);
        report.add(problem.value(shown(&text.value)));
        return None;
    }
    let url = WebUrl::parse(&text, plain_text, report)?;
    if url.as_str().matches('/').count() > 2 {
        let remedy = "write the URL up to the host";
        let problem = Problem::new(&text.spot, "a page of an environment", remedy);
        report.add(problem.value(shown(&text.value)));
        return None;
    }
    Some(Located::new(url, text.spot))
}

fn first_label(url: &WebUrl) -> String {
    let host = url.host();
    host.split('.').next().unwrap_or(host).to_owned()
}

fn api_version(reader: &mut Reader<'_>) -> Option<String> {
    let version = reader.text("api_version")?;
    let number = version.value.split_once('.');
    let known = number.is_some_and(|(major, minor)| {
        major.parse::<u8>() == Ok(9) && minor.parse::<u8>().is_ok_and(|minor| minor <= 9)
    });
    if known {
        return Some(version.value);
    }
    let remedy = "write \"9.2\", or remove the key";
    let problem = Problem::new(&version.spot, "no Web API version", remedy);
    reader.report.add(problem.value(shown(&version.value)));
    None
}

impl DynamicsAuth {
    fn parse(node: &Node, root: &Path, report: &Report) -> Option<Self> {
        let mut reader = Reader::open(node, report)?;
        let flow = reader.required_text("flow", FLOWS);
        let flow_name = flow
            .as_ref()
            .map_or("client_credentials", |flow| flow.value.as_str());
        let is_by_person = match flow_name {
            "client_credentials" => false,
            "authorization_code" => true,
            other => {
                let what = match other {
                    "web_server" | "device_code" => NOT_HERE,
                    _ => "no way to sign in that this version knows",
                };
                let spot = flow.as_ref().map_or(&node.spot, |flow| &flow.spot);
                report.add(Problem::new(spot, what, FLOWS).value(shown(other)));
                return None;
            }
        };
        let client_id = reader.required_text("client_id", "write the application (client) id");
        let has = |key, reader: &mut Reader<'_>| reader.take(key).is_some();
        let count = usize::from(has("client_secret", &mut reader))
            + usize::from(has("certificate", &mut reader));
        if count > 1 || (count == 0 && !is_by_person) {
            let what = "names not exactly one of `client_secret` and `certificate`";
            report.wrong(
                &node.spot,
                what,
                "write client_secret = { env = \"NAME\" } or certificate = { file = \"PATH\" }",
            );
        }
        let mut secret = |key| {
            reader
                .take(key)
                .and_then(|node| SecretRef::parse(node, root, report))
        };
        let proof = secret("client_secret")
            .map(Proof::Secret)
            .or_else(|| secret("certificate").map(Proof::Certificate))
            .or_else(|| (count == 0 && is_by_person).then_some(Proof::Public));
        let secret_expires = reader
            .take("secret_expires")
            .and_then(|node| day(node, report));
        reader.close();
        Some(Self {
            is_by_person,
            client_id: client_id?.value,
            proof: proof?,
            secret_expires,
        })
    }
}
