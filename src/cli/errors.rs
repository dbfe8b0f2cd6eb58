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
use crate::model::name::{ConnectionId, JobId};
use crate::runtime::clock::{Clock, SystemClock};
use crate::state::runs::{Run, RunsWanted};
use crate::target::port::review::{Review, Which};

use super::args::ErrorsOptions;
use super::{error_file, output, review};

const BATCH: usize = 1000;
const BATCH_BYTES: usize = 16 * 1024 * 1024;
const WAIT: Duration = Duration::from_secs(10);
const ENDING: &str = ".dead";

/// A dead letter; its value stays in the topic.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Letter {
    pub at: DateTime<Utc>,
    pub job: String,
    /// The run that it was written in.
    pub run: String,
    /// The job's destination that refused the record; empty if it did not get that far.
    pub destination: String,
    pub record: String,
    pub reason: String,
    /// Where the record came from.
    pub topic: String,
    pub partition: Option<u32>,
    pub offset: Option<u64>,
    /// Where the letter lies.
    pub letter: Place,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Place {
    topic: String,
    partition: u32,
    offset: u64,
}

/// Whose letters.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Only<'a> {
    /// Connection and job.
    pub job: Option<(&'a str, &'a str)>,
    /// Of one run.
    pub run: Option<&'a str>,
}

impl Only<'_> {
    const fn is_all(self) -> bool {
        self.job.is_none() && self.run.is_none()
    }

    fn takes(self, letter: &Letter) -> bool {
        self.job.is_none_or(|(_, job)| job == letter.job)
            && self.run.is_none_or(|run| run == letter.run)
    }
}

/// Prints the newest letters, and the oldest of what waits for a decision; exit code 3 if there is any.
pub(super) async fn errors(
    path: &Path,
    options: &ErrorsOptions,
    json: bool,
) -> Result<ExitCode, Fault> {
    let config = app::load(path)?;
    let only = Only {
        job: options.job.as_deref().map(parse).transpose()?,
        run: options.run.as_deref(),
    };
    let log = app::beside::log(&config).await?;
    let prefix = &config.log.prefix;
    if let Some(file) = &options.csv {
        let reviews = in_review(&config, only, usize::MAX).await?;
        let count = error_file::write(&*log, prefix, only, &reviews, file).await?;
        log.close().await?;
        error_file::tell(file, count, json);
        return Ok(ExitCode::from(if count == 0 { 0 } else { 3 }));
    }
    let letters = newest(&*log, prefix, only, options.limit).await?;
    log.close().await?;
    let reviews = in_review(&config, only, options.limit).await?;
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

/// What waits for a decision, oldest first; of a run, what has waited since some time of it. Letters are told all the
/// same where the store does not answer.
async fn in_review(config: &Config, only: Only<'_>, limit: usize) -> Result<Vec<Review>, Fault> {
    let (connection, job) = only.job.unzip();
    let which = Which {
        connection: connection.map(ConnectionId::new),
        job: job.map(JobId::new),
        limit: if only.run.is_some() {
            usize::MAX
        } else {
            limit
        },
        ..Which::default()
    };
    if limit == 0 {
        return Ok(Vec::new());
    }
    let runs = match only.run {
        Some(run) => Some(runs(config, &which, run).await?),
        None => None,
    };
    let reviews = app::beside::store(config)?.reviews(&which).await;
    let mut reviews = reviews.unwrap_or_else(|fault| {
        output::complain(&format!(
            "what waits for a decision can't be read: {}",
            fault.report()
        ));
        Vec::new()
    });
    if let Some(runs) = runs {
        let now = SystemClock.now();
        reviews.retain(|review| runs.iter().any(|run| waits_since(run, review, now)));
        reviews.truncate(limit);
    }
    Ok(reviews)
}

/// The runs of that id; real-time runs of several jobs have one.
async fn runs(config: &Config, which: &Which, id: &str) -> Result<Vec<Run>, Fault> {
    let wanted = RunsWanted {
        connection: which.connection.clone(),
        job: which.job.clone(),
        limit: usize::MAX,
    };
    let mut runs = app::state::runs(config, wanted).await?;
    runs.retain(|run| run.head.id == id);
    if runs.is_empty() {
        let fault = Fault::new(FaultKind::Missing, format!("there is no run `{id}`"));
        return Err(fault.remedy("`tributary runs` prints their ids"));
    }
    Ok(runs)
}

/// Whether a record came to wait for a decision while a run of its job lasted.
fn waits_since(run: &Run, review: &Review, now: DateTime<Utc>) -> bool {
    (&run.connection, &run.job) == (&review.connection, &review.job)
        && run.head.began <= review.since
        && run.ended(now).is_none_or(|ended| review.since <= ended)
}

fn parse(job: &str) -> Result<(&str, &str), Fault> {
    job.split_once('/').ok_or_else(|| {
        Fault::new(FaultKind::Config, format!("`{job}` names no job"))
            .remedy("name it as CONNECTION/JOB")
    })
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
    only: Only<'_>,
    limit: usize,
) -> Result<Vec<Letter>, Fault> {
    let mut letters = Vec::new();
    for topic in topics(log, prefix, only).await? {
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

/// The topics in which such letters lie, by name.
pub(super) async fn topics(
    log: &dyn Log,
    prefix: &str,
    only: Only<'_>,
) -> Result<Vec<String>, Fault> {
    let own = match only.job {
        Some((connection, _)) => format!("{prefix}.{connection}."),
        None => format!("{prefix}."),
    };
    let topics = log.topics().await?.into_iter().map(|spec| spec.name);
    let is_ours = |name: &String| name.starts_with(&own) && name.ends_with(ENDING);
    let mut topics: Vec<String> = topics.filter(is_ours).collect();
    topics.sort_unstable();
    Ok(topics)
}

/// The last letters of a partition, oldest first. Those of one job may lie anywhere in it.
async fn tail(
    log: &dyn Log,
    topic: &str,
    partition: u32,
    bounds: Bounds,
    only: Only<'_>,
    limit: usize,
) -> Result<VecDeque<Letter>, Fault> {
    let start = if only.is_all() {
        bounds.start.max(bounds.end.saturating_sub(limit as u64))
    } else {
        bounds.start
    };
    let mut letters = VecDeque::new();
    if limit == 0 {
        return Ok(letters);
    }
    let bounds = Bounds { start, ..bounds };
    each(log, topic, partition, bounds, only, |letter, _| {
        if letters.len() == limit {
            letters.pop_front();
        }
        letters.push_back(letter);
        Ok(())
    })
    .await?;
    Ok(letters)
}

/// Reads a partition's letters within bounds, oldest first.
pub(super) async fn each(
    log: &dyn Log,
    topic: &str,
    partition: u32,
    bounds: Bounds,
    only: Only<'_>,
    mut take: impl FnMut(Letter, &Record) -> Result<(), Fault> + Send,
) -> Result<(), Fault> {
    let mut next = bounds.start;
    if next >= bounds.end {
        return Ok(());
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
            if record.offset < bounds.end && only.takes(&letter) {
                take(letter, &record)?;
            }
        }
    }
    Ok(())
}

fn letter(topic: &str, record: &Record) -> Letter {
    let header = |name: &str| {
        let found = record.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    };
    Letter {
        at: record.at,
        job: header("tributary_job").unwrap_or_default(),
        run: header("tributary_run").unwrap_or_default(),
        destination: header("tributary_destination").unwrap_or_default(),
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
    use crate::model::record_id::RecordId;
    use crate::model::version::Version;
    use crate::state::runs::{RunCause, RunHead, RunPart};

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
        let letters = newest(&log, "t", Only::default(), 10).await.unwrap();
        assert_eq!(records(&letters), ["a"]);
        assert_eq!(letters[0].reason, "a is refused");
        assert_eq!(
            (letters[0].partition, letters[0].offset),
            (Some(1), Some(7))
        );
        assert!(line(&letters[0]).contains("t.acme.Account/1@7\n    a is refused"));
        assert!(
            newest(&log, "another", Only::default(), 10)
                .await
                .unwrap()
                .is_empty()
        );
    }

    /// Equal keys share a partition, so their order is that of their offsets, whatever the clock says.
    #[tokio::test]
    async fn the_newest_come_first_and_no_more_than_asked() {
        let log = log().await;
        for job in ["first", "second", "third"] {
            write(&log, "t.acme.Account.dead", job, "a").await;
        }
        let letters = newest(&log, "t", Only::default(), 2).await.unwrap();
        let jobs: Vec<&str> = letters.iter().map(|letter| letter.job.as_str()).collect();
        assert_eq!(jobs, ["third", "second"]);
        assert!(
            newest(&log, "t", Only::default(), 0)
                .await
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_run_has_what_waits_since_some_time_of_it() {
        let at = |second| DateTime::from_timestamp(second, 0).unwrap();
        let ends = [(0, 9)].into();
        let run = Run {
            connection: ConnectionId::new("acme"),
            job: JobId::new("company"),
            head: RunHead {
                ended: Some(at(20)),
                ends: Some(ends),
                ..RunHead::sync(RunCause::Asked, None, [(0, 5)].into(), at(10))
            },
            done: RunPart {
                next: [(0, 9)].into(),
                at: Some(at(30)),
                ..RunPart::default()
            },
        };
        let review = |job: &str, second| Review {
            connection: ConnectionId::new("acme"),
            job: JobId::new(job),
            object: "Account".into(),
            record: RecordId::stored("a"),
            table: "company".to_owned(),
            version: Version::new(7, 1),
            since: at(second),
            identifiers: Vec::new(),
            candidates: Vec::new(),
        };
        for (job, since, has) in [
            ("company", 9, false),
            ("company", 10, true),
            ("company", 30, true),
            ("company", 31, false),
            ("person", 20, false),
        ] {
            let found = waits_since(&run, &review(job, since), at(99));
            assert_eq!(found, has, "{job} {since}");
        }
        let running = Run {
            done: RunPart::default(),
            ..run
        };
        assert!(waits_since(&running, &review("company", 90), at(99)));
    }

    #[tokio::test]
    async fn a_jobs_letters_are_found_behind_those_of_others() {
        let log = log().await;
        write(&log, "t.acme.Account.dead", "company", "a").await;
        for _ in 0..5 {
            write(&log, "t.acme.Account.dead", "person", "a").await;
        }
        write(&log, "t.other.Case.dead", "company", "c").await;
        let only = Only {
            job: Some(parse("acme/company").unwrap()),
            run: None,
        };
        let letters = newest(&log, "t", only, 1).await.unwrap();
        assert_eq!(records(&letters), ["a"]);
        assert_eq!(letters[0].job, "company");
        assert!(parse("company").is_err());
    }
}
