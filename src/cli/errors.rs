//! `tributary errors`: the dead letters, newest first, and what waits for a person, read beside a running daemon.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::app;
use crate::config::Config;
use crate::fault::{Fault, FaultKind};
use crate::log::port::{Bounds, Delivery, From, Log, Record};
use crate::target::port::review::{Review, Which};

use super::{output, review};

const BATCH: usize = 1000;
const BATCH_BYTES: usize = 16 * 1024 * 1024;
const WAIT: Duration = Duration::from_secs(10);
const ENDING: &str = ".dead";

/// A dead letter; its value stays in the topic.
#[derive(Debug, PartialEq, Serialize)]
struct Letter {
    at: DateTime<Utc>,
    job: String,
    record: String,
    reason: String,
    /// Where the record came from.
    topic: String,
    partition: Option<u32>,
    offset: Option<u64>,
    /// Where the letter lies.
    letter: Place,
}

#[derive(Debug, PartialEq, Serialize)]
struct Place {
    topic: String,
    partition: u32,
    offset: u64,
}

/// Whose letters.
#[derive(Debug, Clone, Copy)]
struct Only<'a> {
    connection: &'a str,
    job: &'a str,
}

/// Prints the newest letters, and the oldest of what waits for a decision; exit code 3 if there is any.
pub(super) async fn errors(
    path: &Path,
    job: Option<&str>,
    limit: usize,
    json: bool,
) -> Result<ExitCode, Fault> {
    let config = app::load(path)?;
    let only = job.map(parse).transpose()?;
    let log = app::beside::log(&config).await?;
    let letters = newest(&*log, &config.log.prefix, only, limit).await?;
    log.close().await?;
    let reviews = in_review(&config, job, limit).await?;
    let is_empty = letters.is_empty() && reviews.is_empty();
    if json {
        let letters = letters.iter().map(serde_json::to_value);
        let letters = letters.filter_map(Result::ok);
        let all = letters.chain(reviews.iter().map(Review::to_json));
        output::json(&all.collect::<Vec<_>>());
    } else {
        if letters.is_empty() {
            output::print("no dead letters");
        }
        for letter in &letters {
            output::print(&line(letter));
        }
        for waiting in &reviews {
            output::print(&format!(
                "{}\n    waits for `tributary review bind`, `create` or `ignore`",
                review::told(waiting)
            ));
        }
    }
    Ok(ExitCode::from(if is_empty { 0 } else { 3 }))
}

/// What waits for a decision. Letters are told all the same where the store does not answer.
async fn in_review(config: &Config, job: Option<&str>, limit: usize) -> Result<Vec<Review>, Fault> {
    let (connection, job) = job.map(review::of_job).transpose()?.unzip();
    let which = Which {
        connection,
        job,
        limit,
        ..Which::default()
    };
    if limit == 0 {
        return Ok(Vec::new());
    }
    let reviews = app::beside::store(config)?.reviews(&which).await;
    Ok(reviews.unwrap_or_else(|fault| {
        output::complain(&format!(
            "what waits for a decision can't be read: {}",
            fault.report()
        ));
        Vec::new()
    }))
}

fn parse(job: &str) -> Result<Only<'_>, Fault> {
    let parts = job.split_once('/');
    let (connection, job) = parts.ok_or_else(|| {
        Fault::new(FaultKind::Config, format!("`{job}` names no job"))
            .remedy("name it as CONNECTION/JOB")
    })?;
    Ok(Only { connection, job })
}

/// Reasons are whole: they name candidates and the remedy.
fn line(letter: &Letter) -> String {
    let place = match (letter.partition, letter.offset) {
        (Some(partition), Some(offset)) => format!("{}/{partition}@{offset}", letter.topic),
        _ => letter.topic.clone(),
    };
    format!(
        "{}  {}  {}  {place}\n    {}",
        letter.at.to_rfc3339_opts(SecondsFormat::Secs, true),
        letter.job,
        letter.record,
        letter.reason.replace(['\n', '\r'], " ")
    )
}

/// The newest letters of all topics, at most `limit`; memory doesn't grow with the topics.
async fn newest(
    log: &dyn Log,
    prefix: &str,
    only: Option<Only<'_>>,
    limit: usize,
) -> Result<Vec<Letter>, Fault> {
    let own = match only {
        Some(Only { connection, .. }) => format!("{prefix}.{connection}."),
        None => format!("{prefix}."),
    };
    let topics = log.topics().await?.into_iter().map(|spec| spec.name);
    let mut letters = Vec::new();
    for topic in topics.filter(|name| name.starts_with(&own) && name.ends_with(ENDING)) {
        for (partition, bounds) in log.bounds(&topic).await? {
            letters.extend(tail(log, &topic, partition, bounds, only, limit).await?);
            letters.sort_by(|one: &Letter, other| {
                let place = |letter: &Letter| (letter.letter.partition, letter.letter.offset);
                (other.at, place(other)).cmp(&(one.at, place(one)))
            });
            letters.truncate(limit);
        }
    }
    Ok(letters)
}

/// The last letters of a partition, oldest first. Those of one job may lie anywhere in it.
async fn tail(
    log: &dyn Log,
    topic: &str,
    partition: u32,
    bounds: Bounds,
    only: Option<Only<'_>>,
    limit: usize,
) -> Result<VecDeque<Letter>, Fault> {
    let mut next = match only {
        Some(_) => bounds.start,
        None => bounds.start.max(bounds.end.saturating_sub(limit as u64)),
    };
    let mut letters = VecDeque::new();
    if limit == 0 || next >= bounds.end {
        return Ok(letters);
    }
    let from = From::Partitions(BTreeMap::from([(partition, next)]));
    let mut reader = log.reader(topic, from).await?;
    while next < bounds.end {
        let Delivery::Batch(records) = reader.next(BATCH, BATCH_BYTES, WAIT).await? else {
            let what = format!(
                "reading `{topic}`: nothing came from offset {next} of partition {partition}, which ends at {}",
                bounds.end
            );
            return Err(Fault::new(FaultKind::Storage, what).remedy("try again"));
        };
        for record in records {
            next = record.offset + 1;
            let letter = letter(topic, &record);
            if record.offset >= bounds.end || only.is_some_and(|only| only.job != letter.job) {
                continue;
            }
            if letters.len() == limit {
                letters.pop_front();
            }
            letters.push_back(letter);
        }
    }
    Ok(letters)
}

fn letter(topic: &str, record: &Record) -> Letter {
    let header = |name: &str| {
        let found = record.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    };
    Letter {
        at: record.at,
        job: header("tributary_job").unwrap_or_default(),
        record: String::from_utf8_lossy(&record.key).into_owned(),
        reason: header("tributary_reason").unwrap_or_default(),
        topic: header("tributary_topic").unwrap_or_default(),
        partition: header("tributary_partition").and_then(|text| text.parse().ok()),
        offset: header("tributary_offset").and_then(|text| text.parse().ok()),
        letter: Place {
            topic: topic.to_owned(),
            partition: record.partition,
            offset: record.offset,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::log::memory::MemoryLog;
    use crate::log::port::{Entry, Policy, TopicSpec};
    use crate::runtime::clock::SystemClock;

    async fn log() -> MemoryLog {
        let log = MemoryLog::new(Arc::new(SystemClock));
        for name in ["t.acme.Account", "t.acme.Account.dead", "t.other.Case.dead"] {
            let policy = Policy::Delete {
                retention: Duration::from_hours(1),
            };
            let name = name.to_owned();
            let spec = TopicSpec {
                name,
                partitions: 2,
                policy,
            };
            log.ensure(&spec).await.unwrap();
        }
        log
    }

    async fn write(log: &MemoryLog, topic: &str, job: &str, record: &str) {
        let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        let entry = Entry {
            topic: topic.into(),
            key: record.to_owned().into(),
            value: Some("{}".into()),
            headers: vec![
                header("tributary_reason", &format!("{record} is refused")),
                header("tributary_job", job),
                header("tributary_topic", "t.acme.Account"),
                header("tributary_partition", "1"),
                header("tributary_offset", "7"),
            ],
        };
        log.append(vec![entry]).await.unwrap();
    }

    fn records(letters: &[Letter]) -> Vec<&str> {
        letters
            .iter()
            .map(|letter| letter.record.as_str())
            .collect()
    }

    #[tokio::test]
    async fn letters_are_told_with_reason_and_place() {
        let log = log().await;
        write(&log, "t.acme.Account.dead", "company", "a").await;
        write(&log, "t.acme.Account", "company", "no letter").await;
        let letters = newest(&log, "t", None, 10).await.unwrap();
        assert_eq!(records(&letters), ["a"]);
        assert_eq!(letters[0].reason, "a is refused");
        assert_eq!(
            (letters[0].partition, letters[0].offset),
            (Some(1), Some(7))
        );
        assert!(line(&letters[0]).contains("t.acme.Account/1@7\n    a is refused"));
        assert!(newest(&log, "another", None, 10).await.unwrap().is_empty());
    }

    /// Equal keys share a partition, so their order is that of their offsets, whatever the clock says.
    #[tokio::test]
    async fn the_newest_come_first_and_no_more_than_asked() {
        let log = log().await;
        for job in ["first", "second", "third"] {
            write(&log, "t.acme.Account.dead", job, "a").await;
        }
        let letters = newest(&log, "t", None, 2).await.unwrap();
        let jobs: Vec<&str> = letters.iter().map(|letter| letter.job.as_str()).collect();
        assert_eq!(jobs, ["third", "second"]);
        assert!(newest(&log, "t", None, 0).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_jobs_letters_are_found_behind_those_of_others() {
        let log = log().await;
        write(&log, "t.acme.Account.dead", "company", "a").await;
        for _ in 0..5 {
            write(&log, "t.acme.Account.dead", "person", "a").await;
        }
        write(&log, "t.other.Case.dead", "company", "c").await;
        let only = parse("acme/company").unwrap();
        let letters = newest(&log, "t", Some(only), 1).await.unwrap();
        assert_eq!(records(&letters), ["a"]);
        assert_eq!(letters[0].job, "company");
        assert!(parse("company").is_err());
    }
}
