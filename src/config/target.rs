//! `[target]`: where rows go.

use std::path::PathBuf;

use crate::config::document::{Node, Report};
use crate::config::problem::Problem;
use crate::config::reader::{Reader, shown};

/// The section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetConfig {
    /// `url = "sqlite:FILE"`.
    Sqlite {
        /// The file, below the data directory unless absolute.
        file: PathBuf,
    },
}

impl TargetConfig {
    /// `data_dir` is where a relative file starts.
    pub(super) fn parse(tree: &Node, data_dir: &std::path::Path, report: &Report) -> Self {
        let mut reader = Reader::open_section(tree, "target", report);
        let url = reader.text("url");
        reader.close();
        let file = url.and_then(|url| {
            let file = url.value.strip_prefix("sqlite:").map(str::to_owned);
            let what = match file.as_deref() {
                Some("") => "names no file",
                Some(file) if file.starts_with("//") => "no path of a file",
                Some(_) => return file,
                None if known(&url.value) => "this version writes to a SQLite file only",
                None => "no target that this version knows",
            };
            let problem = Problem::new(&url.spot, what, "write \"sqlite:store.db\"");
            report.add(problem.value(shown(&url.value)));
            None
        });
        Self::Sqlite {
            file: data_dir.join(file.unwrap_or_else(|| "store.db".to_owned())),
        }
    }
}

fn known(url: &str) -> bool {
    ["postgres:", "postgresql:", "gainsight:"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
}
