//! `[target]`: where rows go.

use std::path::{Path, PathBuf};

use crate::config::document::{Node, Report};
use crate::config::postgres::PostgresConfig;
use crate::config::problem::{Located, Problem};
use crate::config::reader::{Reader, shown};

/// The section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetConfig {
    /// `url = "sqlite:FILE"`.
    Sqlite {
        /// The file, below the data directory unless absolute.
        file: PathBuf,
    },
    /// `url = "postgres://…"`.
    Postgres(Box<PostgresTargetConfig>),
}

/// A PostgreSQL database as the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresTargetConfig {
    /// How it is reached.
    pub server: PostgresConfig,
    /// `writers`: connections that write; none: one per core, at most 8.
    pub writers: Option<usize>,
    /// `schema` of the rows.
    pub schema: String,
    /// `ledger_schema`.
    pub ledger_schema: String,
}

const REMEDY: &str = "write \"sqlite:store.db\" or \"postgres://USER@HOST:5432/DATABASE\"";
const OF_POSTGRES: [&str; 3] = ["writers", "schema", "ledger_schema"];

impl TargetConfig {
    /// `data_dir` is where a relative file of rows starts, `root` where one of a secret or certificate does.
    pub(super) fn parse(tree: &Node, data_dir: &Path, root: &Path, report: &Report) -> Self {
        let mut reader = Reader::open_section(tree, "target", report);
        let url = reader.text("url");
        let target = match url {
            Some(url) if PostgresConfig::is_meant(&url.value) => {
                postgres(&mut reader, &url, root).map(|target| Self::Postgres(Box::new(target)))
            }
            url => {
                PostgresConfig::refuse(&mut reader);
                for key in OF_POSTGRES {
                    PostgresConfig::refuse_key(&mut reader, key);
                }
                url.and_then(|url| sqlite(&url, data_dir, report))
            }
        };
        reader.close();
        target.unwrap_or_else(|| Self::Sqlite {
            file: data_dir.join("store.db"),
        })
    }
}

fn sqlite(url: &Located<String>, data_dir: &Path, report: &Report) -> Option<TargetConfig> {
    let what = match url.value.strip_prefix("sqlite:") {
        Some("") => "names no file",
        Some(file) if file.starts_with("//") => "no path of a file",
        Some(file) => {
            return Some(TargetConfig::Sqlite {
                file: data_dir.join(file),
            });
        }
        None if url.value.starts_with("gainsight:") => "this version writes to no tenant",
        None => "no target that this version knows",
    };
    report.add(Problem::new(&url.spot, what, REMEDY).value(shown(&url.value)));
    None
}

fn postgres(
    reader: &mut Reader<'_>,
    url: &Located<String>,
    root: &Path,
) -> Option<PostgresTargetConfig> {
    let report = reader.report;
    let server = PostgresConfig::parse(reader, url, root);
    let writers = reader.integer("writers", 1..=64);
    let schema = schema(reader, "schema");
    let ledger = self::schema(reader, "ledger_schema");
    let spot = reader.spot_of(if ledger.is_some() {
        "ledger_schema"
    } else {
        "schema"
    });
    let schema = schema.unwrap_or_else(|| "store".to_owned());
    let ledger_schema = ledger.unwrap_or_else(|| "tributary".to_owned());
    if schema == ledger_schema {
        let problem = Problem::new(
            &spot,
            "rows and ledger can't lie in one schema",
            "give them a schema each",
        );
        report.add(problem.value(shown(&schema)));
    }
    Some(PostgresTargetConfig {
        server: server?,
        writers: writers.and_then(|count| usize::try_from(count).ok()),
        schema,
        ledger_schema,
    })
}

/// A schema's name (PostgreSQL documentation, "Identifiers and Key Words": 63 bytes; `pg_` is the system's).
fn schema(reader: &mut Reader<'_>, key: &'static str) -> Option<String> {
    let report = reader.report;
    let name = reader.text(key)?;
    let text = name.value.as_str();
    let good = text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !text.starts_with("pg_")
        && text != "information_schema";
    if !good {
        let problem = Problem::new(
            &name.spot,
            "no name of a schema",
            "write at most 63 of a-z, 0-9 and _, not with a digit or pg_ at the beginning",
        );
        report.add(problem.value(shown(text)));
        return None;
    }
    Some(name.value)
}
