//! `[state]`: where positions, leases and holes are kept, and how long a lease lasts.

use std::path::Path;
use std::time::Duration;

use crate::config::document::{Node, Report, Shape};
use crate::config::log::{LogConfig, LogEngine};
use crate::config::postgres::PostgresConfig;
use crate::config::problem::{Located, Problem};
use crate::config::reader::{Reader, shown};
use crate::config::secret::SecretRef;
use crate::config::target::TargetConfig;

/// The schema of the state; nothing else may lie in it.
pub const SCHEMA: &str = "tributary_state";

/// The section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateConfig {
    /// `url`.
    pub engine: StateEngine,
    /// `lease`: how long a connection stays with a daemon that is not heard of.
    pub lease: Duration,
    /// `key`: seals what signing in keeps.
    pub key: Option<SecretRef>,
    /// `old_keys`: they still open what they sealed.
    pub old_keys: Vec<SecretRef>,
}

/// Where state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateEngine {
    /// `"sqlite"`: `state.db` in the data directory.
    Sqlite,
    /// `"postgres://…"`: a database that several daemons may share.
    Postgres(Box<PostgresConfig>),
}

/// How to make a key.
pub(super) const KEY: &str = "write key = { env = \"TRIBUTARY_STATE_KEY\" } and put the output of `openssl rand -base64 32` there";
const REMEDY: &str = "write \"sqlite\" or \"postgres://USER@HOST:5432/DATABASE\"";

impl StateConfig {
    /// `root` is where a file of a secret or certificate starts.
    pub(super) fn parse(tree: &Node, root: &Path, report: &Report) -> Self {
        let mut reader = Reader::open_section(tree, "state", report);
        let url = reader.text("url");
        let engine = match url {
            Some(url) if PostgresConfig::is_meant(&url.value) => {
                PostgresConfig::parse(&mut reader, &url, root)
                    .map(|server| StateEngine::Postgres(Box::new(server)))
            }
            url => {
                PostgresConfig::refuse(&mut reader);
                url.and_then(|url| sqlite(&url, report))
            }
        };
        let least = Duration::from_secs(3);
        let lease = reader.duration("lease", least, Duration::from_mins(10));
        let key = reader
            .take("key")
            .and_then(|node| SecretRef::parse(node, root, report));
        let old_keys = match reader.take("old_keys").map(|node| (&node.shape, node)) {
            None => Vec::new(),
            Some((Shape::List(nodes), _)) => nodes
                .iter()
                .filter_map(|node| SecretRef::parse(node, root, report))
                .collect(),
            Some((_, node)) => {
                let remedy = "write [{ env = \"OLD_KEY\" }]";
                report.wrong(&node.spot, "no list of places of secrets", remedy);
                Vec::new()
            }
        };
        if key.is_none() && !old_keys.is_empty() {
            reader.missing("key", KEY);
        }
        reader.close();
        Self {
            key,
            old_keys,
            engine: engine.unwrap_or(StateEngine::Sqlite),
            lease: lease.unwrap_or(Duration::from_secs(30)),
        }
    }

    /// Looks at what the other sections make of this one.
    pub(super) fn check(
        &self,
        tree: &Node,
        log: &LogConfig,
        target: &TargetConfig,
        report: &Report,
    ) {
        // Several daemons on one state have to share everything else, or each would do half of the work.
        let StateEngine::Postgres(_) = self.engine else {
            return;
        };
        let section = Reader::open_section(tree, "target", report);
        if let TargetConfig::Postgres(target) = target {
            for (key, name) in [
                ("schema", &target.schema),
                ("ledger_schema", &target.ledger_schema),
            ] {
                if name == SCHEMA {
                    let what = "is the schema of the state";
                    report.wrong(&section.spot_of(key), what, "choose another name");
                }
            }
        }
        let url = Reader::open_section(tree, "state", report).spot_of("url");
        if log.engine == LogEngine::Embedded {
            report.wrong(
                &url,
                "is for daemons that share a log, and `[log] url` is \"embedded\", which each has for itself",
                "write [log] url = \"kafka://HOST:9092\", or remove it: one daemon keeps its state in its data directory",
            );
        }
        if let TargetConfig::Sqlite { .. } = target {
            report.wrong(
                &url,
                "is for daemons that share a store, and `[target] url` is a file, in which each would hold a part of the rows",
                "write [target] url = \"postgres://…\", or remove it: one daemon keeps its state in its data directory",
            );
        }
    }
}

fn sqlite(url: &Located<String>, report: &Report) -> Option<StateEngine> {
    if url.value == "sqlite" {
        return Some(StateEngine::Sqlite);
    }
    let what = if url.value.starts_with("sqlite:") {
        "names a file: `state.db` lies in the data directory"
    } else {
        "no store of state that this version knows"
    };
    report.add(Problem::new(&url.spot, what, REMEDY).value(shown(&url.value)));
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::parse;

    fn read(text: &str) -> (StateConfig, Vec<String>) {
        let report = Report::default();
        let tree = parse("x.toml", text, &report);
        let root = Path::new("/etc/tributary");
        let log = LogConfig::parse(&tree, root, &report);
        let target = TargetConfig::parse(&tree, root, root, &report);
        let state = StateConfig::parse(&tree, root, &report);
        state.check(&tree, &log, &target, &report);
        let problems = report.into_parts().0;
        (state, problems.iter().map(ToString::to_string).collect())
    }

    const SHARED: &str = "[log]\nurl = \"kafka://b\"\n[target]\nurl = \"postgres://me@h/db\"\n";
    const STATE: &str = "[state]\nurl = \"postgres://me@h/db\"\n";

    #[test]
    fn state_is_a_file_and_a_lease_half_a_minute_unless_told() {
        for text in ["", "[state]\nurl = \"sqlite\""] {
            let (state, problems) = read(text);
            assert_eq!(problems, Vec::<String>::new());
            assert_eq!(state.engine, StateEngine::Sqlite);
            assert_eq!(state.lease, Duration::from_secs(30));
        }
    }

    #[test]
    fn a_database_is_taken_with_a_log_and_a_store_that_daemons_share() {
        let (state, problems) = read(&format!("{SHARED}{STATE}lease = \"10s\""));
        assert_eq!(problems, Vec::<String>::new());
        assert!(matches!(state.engine, StateEngine::Postgres(_)));
        assert_eq!(state.lease, Duration::from_secs(10));
    }

    #[test]
    fn a_database_is_refused_with_what_each_daemon_has_for_itself() {
        let (_, problems) = read(STATE);
        assert_eq!(problems.len(), 2, "{problems:?}");
        let (_, problems) = read(&format!("[log]\nurl = \"kafka://b\"\n{STATE}"));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("share a store"), "{problems:?}");
    }

    #[test]
    fn mistakes_are_named() {
        for text in [
            "[state]\nurl = \"sqlite:other.db\"",
            "[state]\nurl = \"redis://x\"",
            "[state]\nlease = \"1s\"",
            "[state]\npassword = { env = \"X\" }",
            &format!("{SHARED}schema = \"tributary_state\"\n{STATE}"),
            &format!("{SHARED}ledger_schema = \"tributary_state\"\n{STATE}"),
        ] {
            let (_, problems) = read(text);
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        }
    }
}
