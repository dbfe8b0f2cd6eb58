//! `tributary errors --csv`: rejected records with their fields, streamed from the dead letters into a file.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use chrono::SecondsFormat;
use csv::Writer;
use serde_json::json;

use crate::fault::{Fault, FaultKind};
use crate::log::port::{Bounds, Log, Record};
use crate::model::change::Change;
use crate::model::name::FieldName;
use crate::model::value::{Fields, Value};
use crate::target::port::review::Review;

use super::errors::{self, Letter, Only};
use super::output;

/// What comes before the record's fields.
const HEADS: [&str; 9] = [
    "record",
    "job",
    "destination",
    "reason",
    "at",
    "run",
    "topic",
    "partition",
    "offset",
];

/// Where the letters lie that are told: taken once, so that both passes see the same.
type Places = Vec<(String, BTreeMap<u32, Bounds>)>;

/// Where the standard output is meant.
const STDOUT: &str = "-";

/// Writes the letters to a file, oldest first within a partition, and then what waits for a decision; how many.
pub(super) async fn write(
    log: &dyn Log,
    prefix: &str,
    only: Only<'_>,
    reviews: &[Review],
    file: &Path,
) -> Result<u64, Fault> {
    let places = places(log, prefix, only).await?;
    let fields = fields(log, &places, only).await?;
    if file == Path::new(STDOUT) {
        return rows(log, &places, only, reviews, &fields, std::io::stdout()).await;
    }
    let out = File::create(file).map_err(|error| {
        Fault::new(FaultKind::Config, format!("creating `{}`", file.display())).source(error)
    })?;
    rows(log, &places, only, reviews, &fields, BufWriter::new(out)).await
}

/// Says what was written; nothing, where that is the standard output.
pub(super) fn tell(file: &Path, count: u64, json: bool) {
    if file == Path::new(STDOUT) {
        return;
    }
    if json {
        output::json(&json!({ "file": file, "records": count }));
    } else {
        output::print(&format!("{count} records ({})", file.display()));
    }
}

async fn places(log: &dyn Log, prefix: &str, only: Only<'_>) -> Result<Places, Fault> {
    let mut places = Vec::new();
    for topic in errors::topics(log, prefix, only).await? {
        let bounds = log.bounds(&topic).await?;
        places.push((topic, bounds));
    }
    Ok(places)
}

async fn each(
    log: &dyn Log,
    places: &Places,
    only: Only<'_>,
    mut take: impl FnMut(Letter, &Record) -> Result<(), Fault> + Send,
) -> Result<(), Fault> {
    for (topic, partitions) in places {
        for (partition, bounds) in partitions {
            errors::each(log, topic, *partition, *bounds, only, &mut take).await?;
        }
    }
    Ok(())
}

/// The fields that any of the records has.
async fn fields(
    log: &dyn Log,
    places: &Places,
    only: Only<'_>,
) -> Result<BTreeSet<FieldName>, Fault> {
    let mut names = BTreeSet::new();
    each(log, places, only, |_, record| {
        names.extend(fields_of(record).into_keys());
        Ok(())
    })
    .await?;
    Ok(names)
}

/// None, if the value can't be read (which may be why it was refused) or stayed behind.
fn fields_of(record: &Record) -> Fields {
    let value = record.value.as_deref();
    let change = value.and_then(|value| Change::decode(value).ok());
    change.map(|change| change.fields).unwrap_or_default()
}

async fn rows(
    log: &dyn Log,
    places: &Places,
    only: Only<'_>,
    reviews: &[Review],
    fields: &BTreeSet<FieldName>,
    out: impl Write + Send,
) -> Result<u64, Fault> {
    let mut out = Writer::from_writer(out);
    let heads = HEADS.into_iter().map(Cow::Borrowed);
    let names = fields.iter().map(|name| harmless(name.as_str()));
    record(&mut out, heads.chain(names))?;
    let mut count = 0;
    each(log, places, only, |letter, original| {
        count += 1;
        row(&mut out, letter, &fields_of(original), fields)
    })
    .await?;
    for waiting in reviews {
        count += 1;
        row(
            &mut out,
            letter_of(waiting, only),
            &Fields::default(),
            fields,
        )?;
    }
    out.flush().map_err(|error| unwritable(error.into()))?;
    Ok(count)
}

/// A record that waits for a decision, as if it had been refused: its candidates are in the reason. What it holds waits
/// in the store.
fn letter_of(waiting: &Review, only: Only<'_>) -> Letter {
    Letter {
        at: waiting.since,
        job: waiting.job.to_string(),
        run: only.run.unwrap_or_default().to_owned(),
        destination: waiting.table.clone(),
        record: waiting.record.to_string(),
        reason: waiting.reason(),
        ..Letter::default()
    }
}

fn row(
    out: &mut Writer<impl Write>,
    letter: Letter,
    held: &Fields,
    fields: &BTreeSet<FieldName>,
) -> Result<(), Fault> {
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    let texts = [letter.record, letter.job, letter.destination, letter.reason];
    let texts = texts.iter().map(|text| harmless(text));
    let at = letter.at.to_rfc3339_opts(SecondsFormat::Millis, true);
    let place = [
        at,
        letter.run,
        letter.topic,
        number(letter.partition.map(u64::from)),
        number(letter.offset),
    ];
    let cells = fields
        .iter()
        .map(|name| held.get(name).map_or(Cow::Borrowed(""), cell));
    record(
        out,
        texts.chain(place.into_iter().map(Cow::Owned)).chain(cells),
    )
}

fn cell(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::Borrowed(""),
        // Digits, and no formula even with a sign before them.
        Value::Bool(_) | Value::Number(_) => Cow::Owned(value.to_string()),
        Value::Text(text) => harmless(text),
    }
}

/// A text that no spreadsheet takes for a formula (OWASP, "CSV Injection").
fn harmless(text: &str) -> Cow<'_, str> {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) {
        Cow::Owned(format!("'{text}"))
    } else {
        Cow::Borrowed(text)
    }
}

fn record<'a>(
    out: &mut Writer<impl Write>,
    cells: impl Iterator<Item = Cow<'a, str>>,
) -> Result<(), Fault> {
    let cells: Vec<Cow<'_, str>> = cells.collect();
    out.write_record(cells.iter().map(|cell| cell.as_bytes()))
        .map_err(unwritable)
}

fn unwritable(error: csv::Error) -> Fault {
    Fault::new(FaultKind::Storage, "writing the error file").source(error)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::log::memory::MemoryLog;
    use crate::log::port::{Entry, Policy, TopicSpec};
    use crate::model::name::JobId;
    use crate::model::record_id::RecordId;
    use crate::model::version::Version;
    use crate::runtime::clock::SystemClock;
    use crate::target::port::review::Candidate;

    const TOPIC: &str = "t.acme.Account.dead";

    fn change(id: &str, fields: &str) -> Bytes {
        let text = format!(
            r#"{{"v":1,"connection":"acme","object":"Account","id":"{id}","op":"update",
            "version":"0000000007000000000001","committed_at":null,"origin":"stream","position":null,
            "transaction":null,"changed":[],"fields":{fields}}}"#
        );
        assert!(Change::decode(text.as_bytes()).is_ok(), "{text}");
        text.into()
    }

    async fn log(letters: &[(&str, &str, Option<Bytes>)]) -> MemoryLog {
        let log = MemoryLog::new(Arc::new(SystemClock));
        let spec = TopicSpec {
            name: TOPIC.to_owned(),
            partitions: 1,
            policy: Policy::Delete {
                retention: std::time::Duration::from_hours(1),
            },
        };
        log.ensure(&spec).await.unwrap();
        for (run, record, value) in letters {
            let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
            let entry = Entry {
                topic: TOPIC.into(),
                key: (*record).to_owned().into(),
                value: value.clone(),
                headers: vec![
                    header(
                        "tributary_reason",
                        "=cmd|' /C calc'!A0 \"quoted\",\nsecond line",
                    ),
                    header("tributary_job", "company"),
                    header("tributary_run", run),
                    header("tributary_destination", "Company"),
                    header("tributary_topic", "t.acme.Account"),
                    header("tributary_partition", "1"),
                    header("tributary_offset", "7"),
                ],
            };
            log.append(vec![entry]).await.unwrap();
        }
        log
    }

    /// The file, read again as any program would.
    async fn file(
        log: &MemoryLog,
        run: Option<&str>,
        reviews: &[Review],
    ) -> (u64, Vec<Vec<String>>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("errors.csv");
        let only = Only { job: None, run };
        let count = write(log, "t", only, reviews, &path).await.unwrap();
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .from_path(&path)
            .unwrap();
        let rows = reader.records().map(|row| {
            let row = row.unwrap();
            row.iter().map(str::to_owned).collect()
        });
        (count, rows.collect())
    }

    #[tokio::test]
    async fn a_runs_records_with_all_their_fields_and_no_formula() {
        let log = log(&[
            ("other", "x", Some(change("x", r#"{"Elsewhere":1}"#))),
            (
                "one",
                "a",
                Some(change("a", r#"{"Name":"@SUM(A1)","Employees":-5}"#)),
            ),
            (
                "one",
                "b",
                Some(change(
                    "b",
                    r#"{"Name":"Müller, \"B\"","City":null,"Open":true}"#,
                )),
            ),
            ("one", "c", Some(Bytes::from_static(b"{"))),
            ("one", "d", None),
        ])
        .await;
        let (count, rows) = file(&log, Some("one"), &[]).await;
        assert_eq!(count, 4);
        assert_eq!(rows[0][..9], HEADS.map(str::to_owned));
        assert_eq!(rows[0][9..], ["City", "Employees", "Name", "Open"]);
        let records: Vec<&str> = rows[1..].iter().map(|row| row[0].as_str()).collect();
        assert_eq!(records, ["a", "b", "c", "d"]);
        assert_eq!(rows[1][9..], ["", "-5", "'@SUM(A1)", ""]);
        assert_eq!(rows[2][9..], ["", "", "Müller, \"B\"", "true"]);
        assert_eq!(rows[3][9..], ["", "", "", ""], "bytes that are no change");
        let reason = "'=cmd|' /C calc'!A0 \"quoted\",\nsecond line";
        assert_eq!(rows[1][1..4], ["company", "Company", reason]);
        assert_eq!(rows[1][5..9], ["one", "t.acme.Account", "1", "7"]);
        let (count, rows) = file(&log, None, &[]).await;
        assert_eq!((count, rows[0].len()), (5, 14));
    }

    #[tokio::test]
    async fn a_run_without_letters_has_a_file_of_heads() {
        let (count, rows) = file(&log(&[]).await, Some("one"), &[]).await;
        assert_eq!((count, rows), (0, vec![HEADS.map(str::to_owned).to_vec()]));
    }

    #[tokio::test]
    async fn what_waits_for_a_decision_is_told_with_its_candidates() {
        let candidate = Uuid::from_u128(7);
        let waiting = Review {
            connection: "acme".into(),
            job: JobId::new("company"),
            object: "Account".into(),
            record: RecordId::stored("e"),
            table: "company".to_owned(),
            version: Version::new(7, 1),
            since: "2026-01-05T10:11:12Z".parse().unwrap(),
            identifiers: vec![("name".to_owned(), "Acme".to_owned())],
            candidates: vec![Candidate {
                gsid: candidate,
                row: None,
            }],
        };
        let letters = log(&[("one", "a", Some(change("a", r#"{"Name":"A"}"#)))]).await;
        let (count, rows) = file(&letters, Some("one"), &[waiting]).await;
        assert_eq!((count, rows.len()), (2, 3));
        let [record, job, destination, reason, at, run] = &rows[2][..6] else {
            panic!("{rows:?}")
        };
        assert_eq!(
            [record, job, destination, run],
            ["e", "company", "company", "one"]
        );
        assert!(reason.contains(&candidate.to_string()), "{reason}");
        assert!(at.starts_with("2026-01-05T10:11:12"), "{at}");
        assert_eq!(rows[2][6..], ["", "", "", ""]);
    }

    #[test]
    fn whatever_may_begin_a_formula_is_made_a_text() {
        for text in ["=1", "+1", "-1", "@a", "\t=1", "\r=1"] {
            assert_eq!(harmless(text), format!("'{text}"));
        }
        for text in ["", "a=1", "'=1", "1-2"] {
            assert_eq!(harmless(text), text);
        }
    }
}
