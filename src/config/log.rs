//! `[log]`: where topics are kept, what they are called, how long deletes are remembered.

use std::time::Duration;

use crate::config::document::{Node, Report};
use crate::config::id::check_id;
use crate::config::problem::Problem;
use crate::config::reader::{Reader, shown};

const DAY: Duration = Duration::from_hours(24);

/// The section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `url`.
    pub engine: LogEngine,
    /// `prefix`: the first part of every topic's name.
    pub prefix: String,
    /// `forget_after`: when a deleted record's last value is replaced by a tombstone.
    pub forget_after: Duration,
}

/// Where topics are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogEngine {
    /// `"embedded"`: a file under the data directory.
    Embedded,
}

impl LogConfig {
    pub(super) fn parse(tree: &Node, report: &Report) -> Self {
        let mut reader = Reader::open_section(tree, "log", report);
        if let Some(url) = reader.text("url").filter(|url| url.value != "embedded") {
            let what = if url.value.starts_with("kafka:") {
                "this version keeps topics in the embedded log only"
            } else {
                "no log that this version knows"
            };
            let problem = Problem::new(&url.spot, what, "write \"embedded\", or remove the key");
            report.add(problem.value(shown(&url.value)));
        }
        reader.refuse(
            "kafka",
            "this version keeps topics in the embedded log only",
            "remove it",
        );
        let prefix = reader
            .text("prefix")
            .filter(|prefix| check_id(&prefix.value, "prefix", &prefix.spot, report));
        let forget_after = reader.duration("forget_after", DAY, DAY * 3650);
        reader.close();
        Self {
            engine: LogEngine::Embedded,
            prefix: prefix.map_or_else(|| "tributary".to_owned(), |prefix| prefix.value),
            forget_after: forget_after.unwrap_or(DAY * 90),
        }
    }
}
