//! Structured logs: text for people, JSON for collectors, filtered by level and module.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One readable line an event.
    Text,
    /// One JSON object an event.
    Json,
}

/// A log filter that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("log filter `{filter}` can't be read: use a level (`info`) or `module=level` pairs")]
pub struct InvalidFilter {
    filter: String,
    source: tracing_subscriber::filter::ParseError,
}

/// Sends log lines to standard error, where they don't mix with a command's output.
///
/// A second call in one process (tests) changes nothing.
///
/// # Errors
/// [`InvalidFilter`].
pub fn install(filter: &str, format: Format) -> Result<(), InvalidFilter> {
    let parsed = EnvFilter::try_new(filter).map_err(|source| InvalidFilter {
        filter: filter.to_owned(),
        source,
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(format == Format::Json);
    let installed = match format {
        Format::Text => lines.try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    };
    if installed.is_err() {
        tracing::debug!("logs were set up already");
    }
    Ok(())
}
