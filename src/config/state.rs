//! `[state]`: where positions, leases and holes are kept, and how long a lease lasts.

use std::path::Path;
use std::time::Duration;

use crate::config::document::{Node, Report};
use crate::config::log::{LogConfig, LogEngine};
use crate::config::postgres::PostgresConfig;
use crate::config::problem::{Located, Problem};
use crate::config::reader::{Reader, shown};
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
}

/// Where state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateEngine {
    /// `"sqlite"`: `state.db` in the data directory.
    Sqlite,
    /// `"postgres://…"`: a database that several daemons may share.
    Postgres(Box<PostgresConfig>),
}

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
        reader.close();
        Self {
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
