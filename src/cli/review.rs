//! `tributary review`: records that fit several rows, read beside the daemon, and decisions told to a running one.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value as Json, json};

use crate::app;
use crate::fault::{Fault, FaultKind};
use crate::http::encode::percent;
use crate::model::name::{ConnectionId, JobId};
use crate::model::record_id::RecordId;
use crate::target::port::review::{Binding, Review, Which};

use super::args::{Decision, ReviewCommand};
use super::daemon::Daemon;
use super::{jobs, output};

pub(super) async fn review(
    path: &Path,
    command: ReviewCommand,
    as_json: bool,
) -> Result<ExitCode, Fault> {
    let (word, gsid, decision) = match command {
        ReviewCommand::List { job, limit } => {
            return list(path, job.as_deref(), limit, as_json).await;
        }
        ReviewCommand::Bindings => return bindings(path, as_json).await,
        ReviewCommand::Bind { of, gsid } => ("bind", Some(gsid), of),
        ReviewCommand::Create { of } => ("create", None, of),
        ReviewCommand::Ignore { of } => ("ignore", None, of),
        ReviewCommand::Unbind { of } => ("unbind", None, of),
    };
    decide(path, word, gsid, &decision, as_json).await
}

/// Prints what waits, with its candidates; exit code 3 if there is anything.
async fn list(
    path: &Path,
    job: Option<&str>,
    limit: usize,
    as_json: bool,
) -> Result<ExitCode, Fault> {
    let config = app::load(path)?;
    let (connection, job) = match job {
        Some(job) => {
            let (connection, job) = of_job(job)?;
            (Some(connection), Some(job))
        }
        None => (None, None),
    };
    let which = Which {
        connection,
        job,
        limit,
        ..Which::default()
    };
    let reviews = app::beside::store(&config)?.reviews(&which).await?;
    if as_json {
        output::json(&reviews.iter().map(Review::to_json).collect::<Vec<_>>());
    } else if reviews.is_empty() {
        output::print("nothing waits for a decision");
    } else {
        for review in &reviews {
            output::print(&told(review));
        }
        output::print(
            "decide by `tributary review bind CONNECTION OBJECT ID GSID`, `create` or `ignore`",
        );
    }
    Ok(ExitCode::from(if reviews.is_empty() { 0 } else { 3 }))
}

pub(super) fn of_job(job: &str) -> Result<(ConnectionId, JobId), Fault> {
    let (connection, job) = job.split_once('/').ok_or_else(|| {
        Fault::new(FaultKind::Config, format!("`{job}` names no job"))
            .remedy("name it as CONNECTION/JOB")
    })?;
    Ok((ConnectionId::new(connection), JobId::new(job)))
}

/// A review and its candidates, a line each.
pub(super) fn told(review: &Review) -> String {
    let pairs = review.identifiers.iter();
    let pairs: Vec<String> = pairs
        .map(|(column, value)| format!("{column} = {value}"))
        .collect();
    let mut text = format!(
        "{}  {}  {} {}  {} with {} is one of",
        review
            .since
            .to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        review.job,
        review.connection,
        line(&format!("{} {}", review.object, review.record)),
        review.table,
        line(&pairs.join(", ")),
    );
    for candidate in &review.candidates {
        let columns = review.shown(candidate).into_iter();
        let columns: Vec<String> = columns
            .map(|(column, value)| format!("{column} = {}", output::shown(&value)))
            .collect();
        let columns = match &candidate.row {
            Some(_) => line(&columns.join(", ")),
            None => "is gone".to_owned(),
        };
        text.push_str(&format!("\n    {}  {columns}", candidate.gsid));
    }
    text
}

fn line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// Prints what was decided and holds.
async fn bindings(path: &Path, as_json: bool) -> Result<ExitCode, Fault> {
    let config = app::load(path)?;
    let bindings = app::beside::store(&config)?.bindings().await?;
    if as_json {
        output::json(&bindings.iter().map(Binding::to_json).collect::<Vec<_>>());
        return Ok(ExitCode::SUCCESS);
    }
    if bindings.is_empty() {
        output::print("nothing was decided");
        return Ok(ExitCode::SUCCESS);
    }
    let heads = [
        "Connection",
        "Object",
        "Record",
        "Table",
        "Decision",
        "GSID",
        "By",
        "At",
    ];
    let lines: Vec<Vec<String>> = bindings
        .iter()
        .map(|binding| {
            let gsid = binding.bond.gsid();
            vec![
                binding.connection.to_string(),
                binding.object.to_string(),
                binding.record.to_string(),
                binding.table.clone(),
                binding.bond.label().to_owned(),
                gsid.map_or_else(|| "–".to_owned(), |gsid| gsid.to_string()),
                binding.by.clone().unwrap_or_else(|| "–".to_owned()),
                binding
                    .at
                    .to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            ]
        })
        .collect();
    output::table(&heads, &lines);
    Ok(ExitCode::SUCCESS)
}

/// Tells the daemon what a record is.
async fn decide(
    path: &Path,
    word: &str,
    gsid: Option<uuid::Uuid>,
    of: &Decision,
    as_json: bool,
) -> Result<ExitCode, Fault> {
    let at = format!(
        "/api/v1/reviews/{}/{}/{}",
        percent(&of.connection),
        percent(&of.object),
        percent(record(&of.record).as_str())
    );
    let body = json!({
        "decision": word, "gsid": gsid, "destination": of.destination, "by": jobs::who(),
    });
    let daemon = Daemon::at(path, of.daemon.url.as_deref())?;
    let done: Json = daemon.post(&at, &body).await?;
    if as_json {
        output::json(&done);
        return Ok(ExitCode::SUCCESS);
    }
    let binding = &done["binding"];
    let table = output::shown(&binding["table"]);
    let what = match word {
        "bind" => format!(
            "is row {} of `{table}` from now on",
            output::shown(&binding["gsid"])
        ),
        "create" => format!("gets a row of its own in `{table}`"),
        "ignore" => format!("gets no row in `{table}`"),
        _ => format!("is asked for its identifiers in `{table}` again"),
    };
    let next = if done["waited"] == json!(true) {
        "its change is applied now"
    } else {
        "the record is published again and applied then"
    };
    output::print(&format!("{} {} {what}: {next}", of.object, of.record));
    Ok(ExitCode::SUCCESS)
}

/// An id in its one spelling, whichever CRM it is of.
fn record(text: &str) -> RecordId {
    RecordId::guid(text)
        .or_else(|_| RecordId::salesforce(text))
        .unwrap_or_else(|_| RecordId::stored(text))
}
