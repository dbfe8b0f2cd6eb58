//! `tributary runs`: what each execution of a job did, read beside a running daemon.

use std::path::Path;
use std::process::ExitCode;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::app;
use crate::config::Config;
use crate::fault::{Fault, FaultKind};
use crate::model::name::{ConnectionId, JobId};
use crate::runtime::clock::{Clock, SystemClock};
use crate::state::runs::{RunsWanted, ShownRun};

use super::output;

/// What is told first of a run, in this order; what else was counted follows.
const FIRST: [&str; 6] = [
    "inserted",
    "updated",
    "unchanged",
    "deleted",
    "parked",
    "rejected",
];

/// Prints the runs that began last.
pub(super) async fn runs(
    path: &Path,
    of: Option<&str>,
    limit: usize,
    json: bool,
) -> Result<ExitCode, Fault> {
    let config = app::load(path)?;
    let (connection, job) = of.map_or(Ok((None, None)), |of| named(&config, of))?;
    let wanted = RunsWanted {
        connection,
        job,
        limit,
    };
    let now = SystemClock.now();
    let runs = app::state::runs(&config, wanted).await?.into_iter();
    let runs: Vec<ShownRun> = runs.map(|run| run.shown(now)).collect();
    if json {
        output::json(&runs);
    } else if runs.is_empty() {
        output::print("no runs");
    } else {
        let heads = [
            "Run", "Job", "Cause", "State", "Began", "Ended", "Read", "Rows",
        ];
        output::table(&heads, &runs.iter().map(line).collect::<Vec<_>>());
    }
    Ok(ExitCode::SUCCESS)
}

/// A connection, or one job of it.
fn named(config: &Config, of: &str) -> Result<(Option<ConnectionId>, Option<JobId>), Fault> {
    let (connection, job) = match of.split_once('/') {
        Some((connection, job)) => (connection, Some(JobId::new(job))),
        None => (of, None),
    };
    let connection = ConnectionId::new(connection);
    let is_known = match &job {
        None => config.connections.contains_key(&connection),
        Some(job) => {
            let mut jobs = config.jobs.iter();
            jobs.any(|known| known.connection == connection && known.id == *job)
        }
    };
    if is_known {
        return Ok((Some(connection), job));
    }
    let jobs = config.jobs.iter();
    let names: Vec<String> = jobs
        .map(|job| format!("{}/{}", job.connection, job.id))
        .collect();
    Err(
        Fault::new(FaultKind::Missing, format!("there is no job `{of}`"))
            .remedy(format!("name a connection, or one of {}", names.join(", "))),
    )
}

fn line(run: &ShownRun) -> Vec<String> {
    let at = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let read = run.rows_read.filter(|_| run.cause.label() != "stream");
    vec![
        run.id.clone(),
        format!("{}/{}", run.connection, run.job),
        run.cause.label().to_owned(),
        run.state.label().to_owned(),
        at(run.began),
        run.ended.map_or_else(|| "–".to_owned(), at),
        read.map_or_else(|| "–".to_owned(), |rows| rows.to_string()),
        counted(run),
    ]
}

fn counted(run: &ShownRun) -> String {
    let first = FIRST
        .iter()
        .filter_map(|name| run.rows.get_key_value(*name));
    let rest = run
        .rows
        .iter()
        .filter(|(name, _)| !FIRST.contains(&name.as_str()));
    let all: Vec<String> = first
        .chain(rest)
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    if all.is_empty() {
        return "nothing differed".to_owned();
    }
    all.join(", ")
}
