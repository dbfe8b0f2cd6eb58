//! `tributary jobs`, `tributary job pause|resume`: the jobs of a running daemon, and orders to them.

use std::path::Path;
use std::process::ExitCode;

use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::fault::{Fault, FaultKind};
use crate::http::encode::percent;
use crate::http::request::Method;

use super::daemon::Daemon;
use super::{live_replay, output};

#[derive(Deserialize)]
struct Done {
    changed: bool,
    job: Json,
}

/// Prints how every job stands.
pub(super) async fn jobs(path: &Path, url: Option<&str>, as_json: bool) -> Result<ExitCode, Fault> {
    let daemon = Daemon::at(path, url)?;
    let jobs: Vec<Json> = daemon.call(Method::Get, "/api/v1/jobs").await?;
    if as_json {
        output::json(&jobs);
        return Ok(ExitCode::SUCCESS);
    }
    if jobs.is_empty() {
        output::print("the daemon has no jobs");
        return Ok(ExitCode::SUCCESS);
    }
    let heads = [
        "Job",
        "Object",
        "State",
        "Lag",
        "Committed",
        "Dead letters",
        "In review",
        "Note",
    ];
    let lines: Vec<Vec<String>> = jobs
        .iter()
        .map(|job| {
            vec![
                name(job),
                output::shown(&job["object"]),
                state(job),
                output::shown(&job["lag_records"]),
                output::shown(&job["committed_at"]),
                output::shown(&job["dead_letters"]),
                output::shown(&job["in_review"]),
                note(job),
            ]
        })
        .collect();
    output::table(&heads, &lines);
    Ok(ExitCode::SUCCESS)
}

/// Connection and id of `CONNECTION/JOB`.
pub(super) fn named(job: &str) -> Result<(&str, &str), Fault> {
    job.split_once('/').ok_or_else(|| {
        Fault::new(FaultKind::Config, format!("`{job}` names no job"))
            .remedy("write CONNECTION/JOB, as `tributary jobs` prints it")
    })
}

/// Tells a job to pause, or to go on.
pub(super) async fn tell(
    path: &Path,
    url: Option<&str>,
    job: &str,
    order: Order,
    as_json: bool,
) -> Result<ExitCode, Fault> {
    let (connection, id) = named(job)?;
    let (verb, reason, accept) = match order {
        Order::Pause { reason } => ("pause", reason, false),
        Order::Resume { accept } => ("resume", None, accept),
    };
    let at = format!(
        "/api/v1/jobs/{}/{}/{verb}",
        percent(connection),
        percent(id)
    );
    let body = json!({ "reason": reason, "by": who(), "accept": accept });
    let done: Done = Daemon::at(path, url)?.post(&at, &body).await?;
    if as_json {
        output::json(&json!({ "changed": done.changed, "job": done.job }));
        return Ok(ExitCode::SUCCESS);
    }
    output::print(&match (verb, done.changed) {
        ("pause", true) => {
            format!("{job} is paused: it ends what it has in hand and applies nothing more")
        }
        ("pause", false) => format!("{job} was paused already: {}", note(&done.job)),
        (_, true) => format!("{job} goes on where it stopped"),
        (_, false) => format!("{job} was not paused"),
    });
    Ok(ExitCode::SUCCESS)
}

/// What a job is told.
pub(super) enum Order {
    Pause { reason: Option<String> },
    Resume { accept: bool },
}

fn name(job: &Json) -> String {
    format!(
        "{}/{}",
        output::shown(&job["connection"]),
        output::shown(&job["job"])
    )
}

fn state(job: &Json) -> String {
    if job["enabled"] == json!(false) {
        return "disabled".to_owned();
    }
    let state = output::shown(&job["state"]);
    // The order is there, and what is in hand has not ended yet.
    if !job["paused"].is_null() && state != "paused" {
        return format!("{state}, pausing");
    }
    state
}

/// Why it is paused, or what is wrong.
fn note(job: &Json) -> String {
    let pause = &job["paused"];
    if pause.is_null() {
        let text = job["fault"]["text"].as_str().map(str::to_owned);
        return text.or_else(|| live_replay::note(job)).unwrap_or_default();
    }
    let part = |key: &str, before: &str| {
        let text = pause[key].as_str();
        text.map(|text| format!("{before}{text}"))
            .unwrap_or_default()
    };
    let told = format!("{}{}", part("by", "by "), part("since", " since "));
    match pause["reason"].as_str() {
        Some(reason) => format!("{reason} ({})", told.trim()),
        None => told.trim().to_owned(),
    }
}

/// Who gives the order, as the operating system names them.
pub(super) fn who() -> Option<String> {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    user.ok().filter(|user| !user.is_empty())
}
