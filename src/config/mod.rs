//! The config: typed sections, read from files that are the truth.
//!
//! [`Config::load`] reads everything once and reports every mistake of all files together. What the texts of a
//! job mean (paths, filters) is `mapping/`'s to say, which reports with the places that are kept here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::config::admin::AdminConfig;
use crate::config::connection::ConnectionConfig;
use crate::config::daemon::DaemonConfig;
use crate::config::document::{Node, Report};
use crate::config::files::Found;
use crate::config::id::check_id;
use crate::config::job::read::Context;
use crate::config::job::{JobConfig, Routine};
use crate::config::log::LogConfig;
use crate::config::mail::MailConfig;
use crate::config::nearest::nearest;
use crate::config::notify::RecipientConfig;
use crate::config::objects::Objects;
use crate::config::oob::CrmKind;
use crate::config::problem::{Located, Problem, Problems};
use crate::config::reader::Reader;
use crate::config::state::StateConfig;
use crate::config::store::StoreConfig;
use crate::config::target::TargetConfig;
use crate::model::name::{ConnectionId, JobId};
use crate::model::stored::StoredObject;

pub mod admin;
pub mod auth;
pub mod budget;
mod chain;
pub mod connection;
pub mod daemon;
mod document;
pub mod dynamics;
mod files;
pub mod first;
mod id;
pub mod job;
pub mod kafka;
pub mod log;
pub mod mail;
pub mod nearest;
pub mod notify;
mod objects;
pub mod oob;
pub mod org;
mod overrides;
mod placeholder;
pub mod postgres;
pub mod problem;
mod reader;
mod rules;
pub mod schedule;
pub mod secret;
pub mod servicebus;
pub mod state;
pub mod store;
pub mod stream;
pub mod target;
pub mod web;
pub mod webhook;

/// A whole config without mistakes.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[daemon]`.
    pub daemon: DaemonConfig,
    /// `[admin]`.
    pub admin: AdminConfig,
    /// `[log]`.
    pub log: LogConfig,
    /// `[state]`.
    pub state: StateConfig,
    /// `[target]`.
    pub target: TargetConfig,
    /// `[store]`.
    pub store: StoreConfig,
    /// `[mail]`, if mails are sent.
    pub mail: Option<MailConfig>,
    /// `[notify]`: who may be told, by name.
    pub notify: BTreeMap<String, RecipientConfig>,
    /// Connections by id.
    pub connections: BTreeMap<ConnectionId, ConnectionConfig>,
    /// Their ids as they are listed: in the order of the one file, or of the files' names.
    pub order: Vec<ConnectionId>,
    /// Jobs, by connection and id.
    pub jobs: Vec<JobConfig>,
    /// What each job's file says besides what it moves.
    pub routines: BTreeMap<(ConnectionId, JobId), Routine>,
    /// Stored objects by label: the standard ones and the operator's.
    pub objects: BTreeMap<String, StoredObject>,
    /// Where relative paths start: the config's directory.
    pub root: PathBuf,
    /// What an operator should know and is no mistake: settings without effect in this version above all.
    pub notes: Vec<Problem>,
}

impl Config {
    /// Reads a config: `path` is a directory with a `tributary.toml`, or one file with all tables. Variables
    /// `TRIBUTARY__SECTION__KEY` of `environment` stand above the files. Reads files, nothing else; secrets are
    /// not looked at.
    ///
    /// # Errors
    /// Every mistake of all files, with place and remedy.
    pub fn load(path: &Path, environment: &BTreeMap<String, String>) -> Result<Self, Problems> {
        let report = Report::default();
        let config = files::gather(path, &report).map(|mut found| {
            let instances = assemble(&mut found.tree, environment, &report);
            build(found, &instances, &report)
        });
        let (problems, notes) = report.into_parts();
        match config {
            Some(config) if problems.is_empty() => Ok(Self {
                notes: Problems::new(notes).into_vec(),
                ..config
            }),
            _ => Err(Problems::new(problems)),
        }
    }
}

/// Puts together what is read: the files, what the environment overrides, the catalogue's jobs, placeholders filled.
/// The instances that columns are named by.
fn assemble(
    tree: &mut Node,
    environment: &BTreeMap<String, String>,
    report: &Report,
) -> BTreeSet<String> {
    // A connection says which jobs of the catalogue there are for other variables to override.
    let (of_connections, others) = environment
        .iter()
        .map(|(name, text)| (name.clone(), text.clone()))
        .partition(|(name, _)| name.starts_with("TRIBUTARY__CONNECTION__"));
    overrides::apply(tree, &of_connections, report);
    oob::expand(tree, report);
    overrides::apply(tree, &others, report);
    placeholder::fill(tree, report)
}

/// Reads all sections. With mistakes the outcome is of no use but to find more of them.
fn build(found: Found, instances: &BTreeSet<String>, report: &Report) -> Config {
    let Found {
        root,
        tree,
        main_is_broken,
    } = found;
    let daemon = DaemonConfig::parse(&tree, &root, report);
    let admin = AdminConfig::parse(&tree, &root, report);
    let log = LogConfig::parse(&tree, &root, report);
    let target = TargetConfig::parse(&tree, &daemon.data_dir, &root, report);
    let state = StateConfig::parse(&tree, &root, report);
    state.check(&tree, &log, &target, report);
    let store = StoreConfig::parse(&tree, report);
    let mail = MailConfig::parse(&tree, &root, report);
    let has_mail = tree.at(&["mail"]).is_some();
    let notify = notify::parse(&tree, has_mail, &root, report);
    let names: BTreeSet<String> = notify.keys().cloned().collect();
    let names = (!main_is_broken).then_some(&names);
    let objects = Objects::parse(&tree, instances, report);
    person_key(&store, &objects, report);

    let connection_ids = ids(&tree, "connection");
    let mut connections = BTreeMap::new();
    let mut order = Vec::new();
    let section = Reader::open_section(&tree, "connection", report);
    for (id, node) in section.entries() {
        check_id(id, "connection's id", &node.spot, report);
        order.push(ConnectionId::new(id));
        if let Some(connection) = ConnectionConfig::parse(id, node, &root, names, report) {
            company_columns(&connection, &objects, report);
            by_person(&connection, &admin, &state, &tree, report);
            connections.insert(connection.id().clone(), connection);
        }
    }

    let mut jobs = Vec::new();
    let mut routines = BTreeMap::new();
    for (connection, id, node, siblings) in below_connections(&tree, "job", &connection_ids, report)
    {
        let context = Context {
            objects: &objects,
            store: &store,
            names,
            jobs: &siblings,
            kind: tree.at(&["connection", connection]).and_then(CrmKind::of),
            multi_currency: oob::has_multi_currency(&tree, connection),
            report,
        };
        if let Some((job, routine)) = job::read::read(connection, id, node, &context) {
            routines.insert((job.connection.clone(), job.id.clone()), routine);
            jobs.push(job);
        }
    }
    jobs.sort_by(|a: &JobConfig, b| (&a.connection, &a.id).cmp(&(&b.connection, &b.id)));
    rules::check(&jobs, report);
    for (connection, _, node, ids) in below_connections(&tree, "chain", &connection_ids, report) {
        let jobs = tree.at(&["job", connection]);
        chain::check(node, &ids, jobs, report);
    }
    close(&tree, report);
    Config {
        daemon,
        admin,
        log,
        state,
        target,
        store,
        mail,
        notify,
        connections,
        order,
        jobs,
        routines,
        objects: objects.by_label,
        root,
        notes: Vec::new(),
    }
}

/// The keys of a section.
fn ids<'t>(tree: &'t Node, section: &str) -> BTreeSet<&'t str> {
    let section = tree.table().and_then(|table| table.get(section));
    let entries = section.and_then(Node::table).map(|table| &table.0);
    entries
        .into_iter()
        .flatten()
        .map(|(id, _)| id.as_str())
        .collect()
}

type Below<'t> = (&'t str, &'t str, &'t Node, BTreeSet<&'t str>);

/// Everything at `<section>.<connection>.<id>`, with the ids of that connection's jobs.
fn below_connections<'t>(
    tree: &'t Node,
    section: &'static str,
    connections: &BTreeSet<&str>,
    report: &'t Report,
) -> Vec<Below<'t>> {
    let mut found = Vec::new();
    let Some(node) = tree.table().and_then(|table| table.get(section)) else {
        return found;
    };
    let Some(reader) = Reader::open(node, report) else {
        return found;
    };
    for (connection, node) in reader.entries() {
        let Some(inner) = Reader::open(node, report) else {
            continue;
        };
        let jobs = tree.table().and_then(|table| table.get("job"));
        let jobs = jobs.map_or_else(BTreeSet::new, |jobs| ids(jobs, connection));
        for (id, node) in inner.entries() {
            if !connections.contains(connection.as_str()) {
                let near = nearest(connection, connections.iter().copied());
                let remedy = near.map_or_else(
                    || format!("add connections/{connection}.toml"),
                    |near| format!("did you mean `{near}`?"),
                );
                report.wrong(&node.spot, format!("no connection `{connection}`"), remedy);
            }
            check_id(id, &format!("{section}'s id"), &node.spot, report);
            found.push((connection.as_str(), id.as_str(), node, jobs.clone()));
        }
    }
    found
}

fn person_key(store: &StoreConfig, objects: &Objects, report: &Report) {
    let Some(person) = objects.by_label.get("Person") else {
        return;
    };
    for column in &store.person_key {
        objects.column(person, column, report);
    }
}

/// A person's consent is kept sealed, and comes back to an address that the CRM can send people to.
fn by_person(
    connection: &ConnectionConfig,
    admin: &AdminConfig,
    state: &StateConfig,
    tree: &Node,
    report: &Report,
) {
    if !connection.is_by_person() {
        return;
    }
    let named = Reader::open_section(tree, "state", report).spot_of("key");
    if state.key.is_none() {
        let what = format!(
            "is missing: connection {} keeps a refresh token, sealed with it",
            connection.id()
        );
        report.wrong(&named, what, state::KEY);
    }
    if admin.public_url.is_none() && !admin.listen.ip().to_canonical().is_loopback() {
        let what = format!(
            "is missing: the person who authorises connection {} is sent back there",
            connection.id()
        );
        let spot = Reader::open_section(tree, "admin", report).spot_of("public_url");
        report.wrong(
            &spot,
            what,
            "write public_url = \"https://sync.example.com\"",
        );
    }
}

fn company_columns(connection: &ConnectionConfig, objects: &Objects, report: &Report) {
    let Some(company) = objects.by_label.get("Company") else {
        return;
    };
    for (column, _) in connection.company_resolution() {
        let column: &Located<String> = column;
        objects.column(company, column, report);
    }
}

/// Sections that nobody knows.
fn close(tree: &Node, report: &Report) {
    let Some(mut reader) = Reader::open(tree, report) else {
        return;
    };
    for section in [
        "daemon",
        "admin",
        "log",
        "state",
        "target",
        "store",
        "mail",
        "notify",
        "connection",
        "job",
        "chain",
        "object",
    ] {
        reader.take(section);
    }
    reader.close();
}

/// The config of a text whose connections lack what signing in needs: for tests of jobs alone.
#[cfg(test)]
pub(crate) fn built_for_jobs(text: &str) -> Config {
    let report = Report::default();
    let mut tree = document::parse("all.toml", text, &report);
    let instances = assemble(&mut tree, &BTreeMap::new(), &report);
    let found = Found {
        root: PathBuf::new(),
        tree,
        main_is_broken: false,
    };
    let config = build(found, &instances, &report);
    let problems = report.into_parts().0.into_iter();
    let of_jobs: Vec<_> = problems
        .filter(|problem| !problem.spot.key.starts_with("connection."))
        .collect();
    assert!(of_jobs.is_empty(), "{}", Problems::new(of_jobs));
    config
}
