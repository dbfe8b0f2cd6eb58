//! What the daemon will stand on, looked at beside it before it syncs: log, target, and the org of each connection.

use std::sync::Arc;

use chrono::{NaiveDate, TimeDelta};
use futures_util::future::join_all;
use serde::Serialize;

use crate::config::Config;
use crate::config::auth::Auth;
use crate::config::connection::ConnectionConfig;
use crate::config::log::LogEngine;
use crate::config::target::TargetConfig;
use crate::crm::port::survey::{Finding, ObjectSurvey, Severity, Survey};
use crate::crm::port::{Crm, Selection};
use crate::fault::{Fault, FaultKind};
use crate::flow::road::{Reading, dead_spec, late, topic_name, topic_spec};
use crate::log::port::Log;
use crate::mapping::compile::Mapping;
use crate::model::name::ConnectionId;
use crate::runtime::clock::{Clock, SystemClock};

use super::beside;
use super::needs::selections;
use super::selection::readings;
use super::sign_in::Beside;

/// A secret that ends sooner is told of.
const SOON: TimeDelta = TimeDelta::days(14);

/// What was found.
#[derive(Debug, Serialize)]
pub struct Looked {
    /// The log.
    pub log: LogLook,
    /// The store.
    pub target: TargetLook,
    /// The connections, by id.
    pub connections: Vec<ConnectionLook>,
}

/// The log as it is found.
#[derive(Debug, Serialize)]
pub struct LogLook {
    /// `embedded` or `kafka`.
    pub engine: &'static str,
    /// Topics that are there and right.
    pub right: Vec<String>,
    /// Topics that the daemon has still to make.
    pub to_make: Vec<String>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// The store as it is found.
#[derive(Debug, Serialize)]
pub struct TargetLook {
    /// `sqlite` or `postgres`.
    pub engine: &'static str,
    /// Whether its tables were made; the daemon makes them.
    pub made: bool,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// A connection as it is found.
#[derive(Debug, Serialize)]
pub struct ConnectionLook {
    /// The connection.
    pub connection: ConnectionId,
    /// What its org told; absent if it was not reached or did not let us in.
    pub survey: Option<Survey>,
    /// What is wrong beside that.
    pub findings: Vec<Finding>,
}

impl Looked {
    /// Whether anything is broken.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.all()
            .any(|finding| finding.severity == Severity::Broken)
    }

    fn all(&self) -> impl Iterator<Item = &Finding> {
        let own = self.log.findings.iter().chain(&self.target.findings);
        own.chain(self.connections.iter().flat_map(ConnectionLook::all))
    }
}

impl ConnectionLook {
    fn all(&self) -> impl Iterator<Item = &Finding> {
        let told = self.survey.iter().flat_map(|survey| {
            let objects = survey.objects.iter().flat_map(|object| &object.findings);
            survey.findings.iter().chain(objects)
        });
        self.findings.iter().chain(told)
    }
}

/// Looks at everything, or at log, target and connection `only`.
///
/// # Errors
/// `Config` for jobs that don't compile, or if there is no connection `only`.
pub async fn look(config: &Config, only: Option<&str>) -> Result<Looked, Fault> {
    let mut wanted = Vec::new();
    for (id, connection) in &config.connections {
        if only.is_none_or(|only| only == id.as_str()) {
            wanted.push((connection, selections(config, connection)?));
        }
    }
    if let Some(only) = only.filter(|_| wanted.is_empty()) {
        let known: Vec<&str> = config
            .connections
            .keys()
            .map(ConnectionId::as_str)
            .collect();
        return Err(Fault::new(
            FaultKind::Config,
            format!("there is no connection `{only}`"),
        )
        .remedy(format!("write one of {}", known.join(", "))));
    }
    let topics = wanted.iter().flat_map(|(connection, selections)| {
        let names = selections.iter().map(|of| (connection.id(), &of.object));
        names.map(|(id, object)| topic_name(&config.log.prefix, id, object))
    });
    let (log, target) = (log(config, topics.collect()).await, target(config).await);
    let all: Vec<_> = wanted.iter().map(|(connection, _)| *connection).collect();
    let beside = Beside::open(config, &all).await;
    let looks = wanted.iter().map(|(connection, selections)| {
        let crm = beside.crms.get(connection.id());
        connection_look(config, connection, crm, selections)
    });
    let mut connections = join_all(looks).await;
    if let (Some(met), Some(first)) = (&beside.met, connections.first_mut()) {
        first.findings.push(Finding::of(met));
    }
    beside.close().await?;
    Ok(Looked {
        log,
        target,
        connections,
    })
}

async fn connection_look(
    config: &Config,
    connection: &ConnectionConfig,
    crm: Option<&Result<Arc<dyn Crm>, Fault>>,
    selections: &[Selection],
) -> ConnectionLook {
    let mut look = ConnectionLook {
        connection: connection.id().clone(),
        survey: None,
        findings: Vec::new(),
    };
    look.findings
        .extend(expiry(connection, SystemClock.now().date_naive()));
    if selections.is_empty() {
        let what = "no job of it is enabled: nothing is synced";
        look.findings.push(Finding::warning(what));
    }
    let crm = match crm {
        Some(Ok(crm)) => crm,
        Some(Err(fault)) => {
            look.findings.push(Finding::of(fault));
            return look;
        }
        None => return look,
    };
    let Some(surveyor) = crm.surveyor() else {
        return look;
    };
    match surveyor.survey(selections).await {
        Ok(mut survey) => {
            let mappings = super::compile(config).unwrap_or_default();
            let mine = |mapping: &&Arc<Mapping>| mapping.plan().connection == *connection.id();
            let readings = readings(config, mappings.iter().filter(mine));
            for object in &mut survey.objects {
                let readings = readings.get(&object.object).map_or(&[][..], Vec::as_slice);
                name_jobs(readings, object);
                object
                    .findings
                    .extend(formulas(&**crm, readings, object).await);
            }
            look.findings.extend(spending(&survey));
            look.survey = Some(survey);
        }
        Err(fault) => look.findings.push(Finding::of(&fault)),
    }
    look
}

/// Says of each field that is missing which jobs select it.
fn name_jobs(readings: &[Reading], object: &mut ObjectSurvey) {
    for finding in &mut object.findings {
        let Some(field) = &finding.field else {
            continue;
        };
        let jobs = jobs(readings, |reading| reading.fields.contains(field));
        if !jobs.is_empty() {
            finding.what.push_str(&format!(" (selected by {jobs})"));
        }
    }
}

fn jobs(readings: &[Reading], selects: impl Fn(&Reading) -> bool) -> String {
    let selecting = readings.iter().filter(|reading| selects(reading));
    let jobs: Vec<&str> = selecting.map(|reading| reading.job.as_str()).collect();
    jobs.join(", ")
}

/// Formulas whose value no job wants after each change. The object's description is known by now.
async fn formulas(crm: &dyn Crm, readings: &[Reading], object: &ObjectSurvey) -> Option<Finding> {
    if !object.exists {
        return None;
    }
    let schema = crm.describe(&object.object).await.ok()?;
    let fields = readings.iter().flat_map(|reading| &reading.fields);
    let late = late(&fields.cloned().collect(), &schema, readings);
    let names: Vec<String> = late.iter().map(|field| format!("`{field}`")).collect();
    let jobs = jobs(readings, |reading| !reading.fields.is_disjoint(&late));
    (!late.is_empty()).then(|| {
        let what = format!(
            "no event tells what the org derives: {} is as of the last full sync (selected by {jobs})",
            names.join(", ")
        );
        Finding::warning(what).remedy(
            "write refresh = \"on_change\" in the job to have it read after each change of its record, many records a call",
        )
    })
}

/// What of the org's allowances is nearly used, or too little for a first sync.
fn spending(survey: &Survey) -> Vec<Finding> {
    let mut findings = Vec::new();
    for quota in survey.quotas.iter().filter(|quota| quota.is_nearly_used()) {
        let what = format!(
            "{} of {} {} are left",
            quota.left,
            quota.max.unwrap_or_default(),
            quota.name
        );
        let remedy =
            "find who spends them, or wait: what does not fit into the day waits for the next";
        findings.push(Finding::warning(what).remedy(remedy));
    }
    let syncs = survey.objects.iter().filter_map(|object| object.first_sync);
    let calls: u64 = syncs.map(|sync| sync.calls).sum();
    let api = survey
        .quotas
        .iter()
        .find(|quota| quota.name.starts_with("API calls"));
    if let Some(api) = api
        && calls > api.left
    {
        let what = format!(
            "the first full syncs take about {calls} calls, and {} are left",
            api.left
        );
        let remedy = "it goes on by itself when calls are left again; read large objects by the Bulk API (`bulk_from`)";
        findings.push(Finding::warning(what).remedy(remedy));
    }
    findings
}

/// A secret that has ended, or will soon.
fn expiry(connection: &ConnectionConfig, today: NaiveDate) -> Option<Finding> {
    let expires = match connection {
        ConnectionConfig::Salesforce(connection) => match &connection.auth {
            Auth::ClientCredentials { secret_expires, .. } => *secret_expires,
            _ => None,
        },
        ConnectionConfig::Dynamics(connection) => connection.auth.secret_expires,
    }?;
    let remedy = "make a new secret, put it where the config says, and change `secret_expires`";
    if expires < today {
        let what = format!("`secret_expires` says that the secret ended on {expires}");
        return Some(Finding::broken(what).remedy(remedy));
    }
    (expires - today <= SOON).then(|| {
        let what = format!("the secret ends on {expires} (`secret_expires`)");
        Finding::warning(what).remedy(remedy)
    })
}

async fn log(config: &Config, topics: Vec<String>) -> LogLook {
    let mut look = LogLook {
        engine: match &config.log.engine {
            LogEngine::Embedded => "embedded",
            LogEngine::Kafka(_) => "kafka",
        },
        right: Vec::new(),
        to_make: Vec::new(),
        findings: Vec::new(),
    };
    let log = match beside::log(config).await {
        Ok(log) => log,
        // No file yet: the daemon makes it.
        Err(fault) if fault.kind() == FaultKind::Missing => {
            look.to_make = topics;
            return look;
        }
        Err(fault) => {
            look.findings
                .push(Finding::of(&fault.context("opening `[log]`")));
            return look;
        }
    };
    for topic in topics {
        match verified(&*log, &topic).await {
            Ok(true) => look.right.push(topic),
            Ok(false) => look.to_make.push(topic),
            Err(fault) => {
                look.findings.push(Finding::of(&fault));
                // What can't be reached is not asked again for every topic.
                if fault.kind() != FaultKind::Config {
                    break;
                }
            }
        }
    }
    if let Err(fault) = log.close().await {
        look.findings
            .push(Finding::of(&fault.context("closing `[log]`")));
    }
    look
}

/// Whether an object's topic is there and right, and that of its dead letters right if it is there.
async fn verified(log: &dyn Log, topic: &str) -> Result<bool, Fault> {
    log.verify(&dead_spec(topic)).await?;
    log.verify(&topic_spec(topic)).await
}

async fn target(config: &Config) -> TargetLook {
    let mut look = TargetLook {
        engine: match &config.target {
            TargetConfig::Sqlite { .. } => "sqlite",
            TargetConfig::Postgres(_) => "postgres",
        },
        made: false,
        findings: Vec::new(),
    };
    let made = match beside::store(config) {
        Ok(store) => store.is_made().await,
        Err(fault) => Err(fault),
    };
    match made {
        Ok(made) => look.made = made,
        Err(fault) => look
            .findings
            .push(Finding::of(&fault.context("reaching `[target]`"))),
    }
    look
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crm::port::OrgIdentity;
    use crate::crm::port::survey::{FirstSync, Quota};

    fn survey(left: u64, calls: u64) -> Survey {
        let mut object = ObjectSurvey::of(&"Account".into());
        object.first_sync = Some(FirstSync { by: "REST", calls });
        Survey {
            identity: OrgIdentity {
                org_id: String::new(),
                user_id: String::new(),
                instance_url: String::new(),
            },
            user_name: None,
            api_version: String::new(),
            quotas: vec![Quota {
                name: "API calls in 24 hours",
                max: Some(1000),
                left,
            }],
            findings: Vec::new(),
            objects: vec![object],
        }
    }

    #[test]
    fn what_is_nearly_used_and_what_does_not_suffice_are_told() {
        assert_eq!(spending(&survey(500, 400)), []);
        let told = |left, calls| -> Vec<String> {
            let findings = spending(&survey(left, calls));
            findings.into_iter().map(|finding| finding.what).collect()
        };
        assert_eq!(told(99, 1), ["99 of 1000 API calls in 24 hours are left"]);
        let short = told(500, 501);
        assert_eq!(
            short,
            ["the first full syncs take about 501 calls, and 500 are left"]
        );
    }
}
