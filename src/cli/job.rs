//! `tributary job preview|replay`: what a job makes of its topic, without a CRM call and beside the daemon; the other
//! verbs are for a running one.

use std::path::Path;
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value as Json, json};

use crate::app;
use crate::app::replay::{JobReport, Order, Watcher, replay};
use crate::config::Config;
use crate::config::job::MapSource;
use crate::fault::{Fault, FaultKind};
use crate::flow::difference::{ColumnDifference, Compared, Difference, How};
use crate::mapping::plan::JobPlan;
use crate::model::name::{ConnectionId, JobId};
use crate::runtime::shutdown::StopSignal;
use crate::state::orders::Since;

use super::args::JobCommand;
use super::{jobs, live_replay, output, rematch};

pub(super) async fn job(
    path: &Path,
    command: JobCommand,
    as_json: bool,
) -> Result<ExitCode, Fault> {
    let (order, limit, is_preview) = match command {
        JobCommand::Pause {
            job,
            reason,
            daemon,
        } => {
            let told = jobs::Order::Pause { reason };
            return jobs::tell(path, daemon.url.as_deref(), &job, told, as_json).await;
        }
        JobCommand::Resume {
            job,
            accept,
            daemon,
        } => {
            let told = jobs::Order::Resume { accept };
            return jobs::tell(path, daemon.url.as_deref(), &job, told, as_json).await;
        }
        JobCommand::Rematch {
            job,
            dry_run,
            limit,
            daemon,
        } => {
            let url = daemon.url.as_deref();
            return rematch::rematch(path, url, &job, dry_run, limit, as_json).await;
        }
        JobCommand::Preview { job, limit } => {
            let into = format!("preview_{}", std::process::id());
            (order(&job, Since::Start, into, true), limit, true)
        }
        JobCommand::Replay {
            job,
            into: None,
            from,
            yes,
            stop,
            daemon,
            ..
        } => {
            let wish = live_replay::Wish {
                of: &job,
                since: since(&from)?,
                yes,
                stop,
                url: daemon.url.as_deref(),
            };
            return live_replay::replay(path, &wish, as_json).await;
        }
        JobCommand::Replay {
            job,
            into: Some(into),
            from,
            replace,
            limit,
            ..
        } => (order(&job, since(&from)?, into, replace), limit, false),
    };
    let config = app::load(path)?;
    let stop = StopSignal::new();
    let interrupted = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.stop();
        }
    });
    let mut printer = Printer::new(&config, limit, as_json);
    let done = replay(&config, &order, &stop, &mut printer).await;
    printer.bar.finish_and_clear();
    let (reports, scratch) = done?;
    if is_preview {
        scratch.remove().await?;
    }
    let place = (!is_preview).then(|| scratch.place());
    print(&reports, place, &printer, as_json);
    let agrees = reports
        .iter()
        .all(|report| report.compared.iter().all(Compared::agrees));
    Ok(ExitCode::from(if agrees { 0 } else { 3 }))
}

fn order(job: &str, since: Since, into: String, replace: bool) -> Order {
    let (connection, job) = match job.split_once('/') {
        Some((connection, job)) => (connection, Some(JobId::new(job))),
        None => (job, None),
    };
    Order {
        connection: ConnectionId::new(connection),
        job,
        since,
        into,
        replace,
    }
}

fn since(text: &str) -> Result<Since, Fault> {
    if text == "start" {
        return Ok(Since::Start);
    }
    if let Ok(offset) = text.parse() {
        return Ok(Since::Offset(offset));
    }
    match DateTime::parse_from_rfc3339(text) {
        Ok(at) => Ok(Since::Time(at.with_timezone(&Utc))),
        Err(error) => Err(
            Fault::new(FaultKind::Config, format!("reading --from `{text}`"))
                .source(error)
                .remedy("write start, a time as 2026-01-05T10:11:12Z, or an offset"),
        ),
    }
}

/// Shows progress, and keeps the first differences.
struct Printer<'a> {
    config: &'a Config,
    bar: ProgressBar,
    limit: usize,
    kept: Vec<Kept>,
}

struct Kept {
    job: String,
    destination: String,
    difference: Json,
    lines: Vec<Vec<String>>,
}

impl<'a> Printer<'a> {
    fn new(config: &'a Config, limit: usize, as_json: bool) -> Self {
        let bar = if as_json {
            ProgressBar::hidden()
        } else {
            ProgressBar::no_length()
        };
        let style = "{msg:40} {bar:30} {pos}/{len} {per_sec}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self {
            config,
            bar,
            limit,
            kept: Vec::new(),
        }
    }

    /// What fills a column, as the job's file says it.
    fn rule(&self, plan: &JobPlan, destination: usize, column: &str) -> String {
        let mut jobs = self.config.jobs.iter();
        let Some(job) = jobs.find(|job| job.connection == plan.connection && job.id == plan.job)
        else {
            return String::new();
        };
        let Some(destination) = job.destinations.get(destination) else {
            return String::new();
        };
        let mapped = destination
            .map
            .iter()
            .find(|entry| entry.column.value == column);
        if let Some(entry) = mapped {
            return match &entry.source {
                MapSource::Path(path) => path.value.clone(),
                MapSource::Constant(value) => format!("{:?}", value.value),
            };
        }
        let mut derived = destination.derive.iter();
        match derived.find(|entry| entry.column.value == column) {
            Some(_) => format!("derive.{column}"),
            None => "on_delete or on_filter_exit".to_owned(),
        }
    }
}

impl Watcher for Printer<'_> {
    fn begins(&mut self, plan: &JobPlan, offsets: u64) {
        self.bar.set_position(0);
        self.bar.set_length(offsets);
        self.bar
            .set_message(format!("{}/{}", plan.connection, plan.job));
    }

    fn passed(&mut self, offsets: u64) {
        self.bar.inc(offsets);
    }

    fn differs(&mut self, plan: &JobPlan, destination: usize, difference: Difference) {
        if self.kept.len() >= self.limit {
            return;
        }
        let label = plan
            .destinations
            .get(destination)
            .map_or_else(String::new, |destination| destination.label.clone());
        let record = difference.record.to_string();
        let line = |column: &str, now: String, then: String, rule: String| {
            vec![
                plan.job.to_string(),
                label.clone(),
                record.clone(),
                column.to_owned(),
                now,
                then,
                rule,
            ]
        };
        let none = || "–".to_owned();
        let (lines, how) = match &difference.how {
            How::OnlyFirst => (
                vec![line("", "row".to_owned(), none(), none())],
                json!({ "row": "live only" }),
            ),
            How::OnlySecond => (
                vec![line("", none(), "row".to_owned(), none())],
                json!({ "row": "replay only" }),
            ),
            How::Columns(columns) => (
                columns
                    .iter()
                    .map(|column| {
                        let rule = self.rule(plan, destination, &column.column);
                        line(
                            &column.column,
                            output::shown(&column.first),
                            output::shown(&column.second),
                            rule,
                        )
                    })
                    .collect(),
                columns
                    .iter()
                    .map(|column| self.told(plan, destination, column))
                    .collect(),
            ),
        };
        self.kept.push(Kept {
            job: plan.job.to_string(),
            destination: label,
            difference: json!({ "record": record, "difference": how }),
            lines,
        });
    }
}

impl Printer<'_> {
    fn told(&self, plan: &JobPlan, destination: usize, column: &ColumnDifference) -> Json {
        json!({
            "column": column.column, "live": column.first, "replay": column.second,
            "rule": self.rule(plan, destination, &column.column),
        })
    }
}

fn print(reports: &[JobReport], place: Option<String>, printer: &Printer<'_>, as_json: bool) {
    if as_json {
        let jobs: Vec<Json> = reports
            .iter()
            .map(|report| report_json(report, printer))
            .collect();
        output::json(&json!({ "into": place, "jobs": jobs }));
        return;
    }
    let mut rows = Vec::new();
    for report in reports {
        for (destination, compared) in report.plan.destinations.iter().zip(&report.compared) {
            rows.push(vec![
                format!("{}/{}", report.plan.connection, report.plan.job),
                destination.label.clone(),
                report.replayed.read.to_string(),
                report.replayed.refused.to_string(),
                compared.equal.to_string(),
                compared.different.to_string(),
                compared.only_first.to_string(),
                compared.only_second.to_string(),
                compared.moved_on.to_string(),
            ]);
        }
    }
    let heads = [
        "JOB",
        "TO",
        "READ",
        "REFUSED",
        "EQUAL",
        "DIFFERENT",
        "LIVE ONLY",
        "REPLAY ONLY",
        "MOVED ON",
    ];
    output::table(&heads, &rows);
    for report in reports {
        for compared in &report.compared {
            for (column, count) in &compared.columns {
                output::print(&format!("column {column} differs in {count} records"));
            }
        }
        for reason in &report.replayed.reasons {
            output::print(&format!("refused: {reason}"));
        }
    }
    let lines: Vec<Vec<String>> = printer
        .kept
        .iter()
        .flat_map(|kept| kept.lines.iter().cloned())
        .collect();
    if !lines.is_empty() {
        let heads = ["JOB", "TO", "RECORD", "COLUMN", "LIVE", "REPLAY", "RULE"];
        output::table(&heads, &lines);
    }
    if let Some(place) = place {
        output::print(&format!("the replay is in {place}"));
    }
}

fn report_json(report: &JobReport, printer: &Printer<'_>) -> Json {
    let destinations: Vec<Json> = report
        .plan
        .destinations
        .iter()
        .zip(&report.compared)
        .map(|(destination, compared)| {
            let kept = printer.kept.iter().filter(|kept| {
                kept.job == report.plan.job.as_str() && kept.destination == destination.label
            });
            json!({
                "to": destination.label, "equal": compared.equal, "different": compared.different,
                "live_only": compared.only_first, "replay_only": compared.only_second,
                "moved_on": compared.moved_on, "columns": compared.columns,
                "differences": kept.map(|kept| &kept.difference).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "connection": report.plan.connection, "job": report.plan.job,
        "read": report.replayed.read, "refused": report.replayed.refused,
        "reasons": report.replayed.reasons, "destinations": destinations,
    })
}
