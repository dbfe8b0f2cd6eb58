//! `tributary job replay` without `--into`: asks the running daemon to read topics again into the live tables, and waits for
//! the end.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::fault::{Fault, FaultKind};
use crate::http::encode::percent;
use crate::http::request::Method;
use crate::state::orders::Since;

use super::daemon::Daemon;
use super::{jobs, output};

/// How often the daemon is asked how far it is.
const LOOK: Duration = Duration::from_millis(500);
/// Among so many runs of a job that of the replay is looked for.
const RUNS: usize = 20;

/// What is asked for.
pub(super) struct Wish<'a> {
    /// CONNECTION/JOB, or CONNECTION for all of its jobs.
    pub of: &'a str,
    pub since: Since,
    /// Do it.
    pub yes: bool,
    /// End the one that is under way.
    pub stop: bool,
    pub url: Option<&'a str>,
}

#[derive(Deserialize)]
struct Job {
    connection: String,
    job: String,
    object: String,
    enabled: bool,
    paused: Option<Paused>,
    replay: Option<Replay>,
}

#[derive(Deserialize)]
struct Paused {
    reason: Option<String>,
}

#[derive(Deserialize, Serialize, Clone)]
struct Replay {
    id: String,
    state: String,
    reason: Option<String>,
    phase: Option<String>,
    read: Option<u64>,
    of: Option<u64>,
}

#[derive(Deserialize)]
struct Done {
    changed: bool,
    job: Job,
}

#[derive(Deserialize)]
struct Run {
    id: String,
    rows: BTreeMap<String, u64>,
}

/// What came of a job's replay.
#[derive(Serialize)]
struct Ended {
    connection: String,
    job: String,
    replay: Replay,
    /// Why it stands still, if the job was paused.
    paused: Option<String>,
    /// Rows by outcome.
    rows: BTreeMap<String, u64>,
}

/// Says what would be done, or has it done. Exit code 1: not all of it was; 2: it takes `--yes`.
pub(super) async fn replay(path: &Path, wish: &Wish<'_>, as_json: bool) -> Result<ExitCode, Fault> {
    let daemon = Daemon::at(path, wish.url)?;
    let jobs = named(&daemon, wish.of).await?;
    if wish.stop {
        return stop(&daemon, &jobs, as_json).await;
    }
    announce(&jobs, wish, as_json);
    if !wish.yes {
        return Ok(ExitCode::from(2));
    }
    let mut asked = Vec::new();
    for job in &jobs {
        let body = json!({ "from": wish.since, "by": jobs::who() });
        let done: Done = daemon.post(&at(job), &body).await?;
        asked.extend(done.job.replay.map(|replay| replay.id));
    }
    let jobs = wait(&daemon, wish.of, &asked, as_json).await?;
    let mut ended = Vec::new();
    for job in jobs {
        let Some(replay) = job.replay else { continue };
        ended.push(Ended {
            rows: rows(&daemon, &job.connection, &job.job, &replay.id).await?,
            paused: job.paused.map(|paused| paused.reason.unwrap_or_default()),
            connection: job.connection,
            job: job.job,
            replay,
        });
    }
    print(&ended, as_json);
    let all = ended.iter().all(|one| one.replay.state == "done");
    Ok(ExitCode::from(if all { 0 } else { 1 }))
}

fn at(job: &Job) -> String {
    format!(
        "/api/v1/jobs/{}/{}/replay",
        percent(&job.connection),
        percent(&job.job)
    )
}

/// The enabled jobs that are named.
async fn named(daemon: &Daemon, of: &str) -> Result<Vec<Job>, Fault> {
    let (connection, id) = match of.split_once('/') {
        Some((connection, job)) => (connection, Some(job)),
        None => (of, None),
    };
    let jobs: Vec<Job> = daemon.call(Method::Get, "/api/v1/jobs").await?;
    let jobs = jobs.into_iter().filter(|job| {
        job.enabled && job.connection == connection && id.is_none_or(|id| job.job == id)
    });
    let jobs: Vec<Job> = jobs.collect();
    if jobs.is_empty() {
        let what = format!("the daemon has no enabled job {of}");
        return Err(
            Fault::new(FaultKind::Missing, what).remedy("`tributary jobs` prints those there are")
        );
    }
    Ok(jobs)
}

fn announce(jobs: &[Job], wish: &Wish<'_>, as_json: bool) {
    let sweeps = matches!(wish.since, Since::Start);
    if as_json {
        if !wish.yes {
            let jobs = jobs.iter().map(
                |job| json!({ "connection": job.connection, "job": job.job, "object": job.object }),
            );
            let jobs: Vec<Json> = jobs.collect();
            output::json(&json!({
                "asked": false, "jobs": jobs, "from": wish.since, "sweeps": sweeps,
                "remedy": "say --yes to have it done",
            }));
        }
        return;
    }
    for job in jobs {
        let Job {
            connection,
            job,
            object,
            ..
        } = job;
        output::print(&format!(
            "{connection}/{job}: the topic of {object} is read again, without a CRM call, and rows of the live tables become \
             what the daemon's config makes of it"
        ));
    }
    output::print(if sweeps {
        "records that hold rows and are not in the topic leave as `on_delete` says, under `max_delete_percent`"
    } else {
        "nothing leaves for not being met, as not all of the topic is read"
    });
    if !wish.yes {
        output::print(
            "nothing is done yet: say --yes to have it done, or --into NAME to see in a scratch store what it would change",
        );
    }
}

async fn stop(daemon: &Daemon, jobs: &[Job], as_json: bool) -> Result<ExitCode, Fault> {
    let mut told = Vec::new();
    for job in jobs {
        let body = json!({ "stop": true, "by": jobs::who() });
        let done: Done = daemon.post(&at(job), &body).await?;
        let name = format!("{}/{}", job.connection, job.job);
        if !as_json {
            output::print(&match done.changed {
                true => format!("{name}: the replay ends, what it has applied stays"),
                false => format!("{name}: no replay was under way"),
            });
        }
        told.push(json!({ "connection": job.connection, "job": job.job, "changed": done.changed }));
    }
    if as_json {
        output::json(&json!({ "jobs": told }));
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits until each replay has ended, or stands still.
async fn wait(
    daemon: &Daemon,
    of: &str,
    asked: &[String],
    as_json: bool,
) -> Result<Vec<Job>, Fault> {
    let bar = if as_json {
        ProgressBar::hidden()
    } else {
        ProgressBar::new_spinner()
    };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    loop {
        let mut jobs = named(daemon, of).await?;
        jobs.retain(|job| {
            let replay = job.replay.as_ref();
            replay.is_some_and(|replay| asked.contains(&replay.id))
        });
        let under_way = |job: &&Job| {
            let replay = job.replay.as_ref();
            let is_open = replay.is_some_and(|it| matches!(&*it.state, "asked" | "running"));
            is_open && job.paused.is_none()
        };
        let left: Vec<String> = jobs.iter().filter(under_way).map(told).collect();
        if left.is_empty() {
            bar.finish_and_clear();
            return Ok(jobs);
        }
        bar.set_message(left.join(", "));
        bar.tick();
        tokio::time::sleep(LOOK).await;
    }
}

/// How far a replay is.
fn told(job: &Job) -> String {
    let name = format!("{}/{}", job.connection, job.job);
    match job.replay.as_ref() {
        Some(replay) => format!("{name}: {}", progress(replay)),
        None => name,
    }
}

fn progress(replay: &Replay) -> String {
    match (replay.phase.as_deref(), replay.read, replay.of) {
        (Some(phase), Some(read), Some(of)) => format!("{phase}, {read} of {of} offsets read"),
        _ => replay.state.clone(),
    }
}

/// What a replay did so far, by outcome.
async fn rows(
    daemon: &Daemon,
    connection: &str,
    job: &str,
    id: &str,
) -> Result<BTreeMap<String, u64>, Fault> {
    let (connection, job) = (percent(connection), percent(job));
    let at = format!("/api/v1/runs?connection={connection}&job={job}&limit={RUNS}");
    let runs: Vec<Run> = daemon.call(Method::Get, &at).await?;
    let found = runs.into_iter().find(|run| run.id == id);
    Ok(found.map(|run| run.rows).unwrap_or_default())
}

fn print(ended: &[Ended], as_json: bool) {
    if as_json {
        output::json(&json!({ "asked": true, "jobs": ended }));
        return;
    }
    for one in ended {
        let name = format!("{}/{}", one.connection, one.job);
        let rows = one.rows.iter();
        let rows: Vec<String> = rows
            .map(|(outcome, count)| format!("{count} {outcome}"))
            .collect();
        let rows = rows.join(", ");
        output::print(&match (&*one.replay.state, &one.paused) {
            ("done", _) => format!("{name}: replayed: {rows}"),
            ("failed", _) => {
                let reason = one.replay.reason.as_deref().unwrap_or_default();
                format!("{name}: the replay failed: {reason}; until then: {rows}")
            }
            (_, Some(reason)) => {
                format!("{name}: the job is paused, and its replay with it: {reason}")
            }
            (state, None) => format!("{name}: {state}"),
        });
    }
}

/// The line of `tributary jobs` on a replay that is under way, or has failed.
pub(super) fn note(job: &Json) -> Option<String> {
    let replay: Replay = serde_json::from_value(job["replay"].clone()).ok()?;
    match &*replay.state {
        "done" => None,
        "failed" => {
            let reason = replay.reason.as_deref().unwrap_or_default();
            Some(format!("replay failed: {reason}"))
        }
        _ => Some(format!("replay: {}", progress(&replay))),
    }
}
