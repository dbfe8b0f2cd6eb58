//! A topic to and from a file of JSON lines: to look at, to keep, and to replay in tests.
//!
//! A line: `{"partition":0,"offset":7,"at":"2026-01-05T10:11:12Z","key":"001…","headers":[["ce_id","…"]],"value":…}`.
//! `value` is `null` for a tombstone, else `{"json":…}` (the bytes as they are), `{"text":"…"}` or `{"base64":"…"}`;
//! a key or a header's value is text, or `{"base64":"…"}`. Partition, offset and date tell where a record was: on
//! import the key decides the partition again, and lines of one key keep their order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::fault::{Fault, FaultKind};
use crate::log::port::{Delivery, Entry, From, Log, Record};

/// Records read or appended at a time.
const BATCH: usize = 1_000;
/// Bytes read or appended at a time.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// The longest line: the largest entry, every byte escaped.
const MAX_LINE: u64 = 128 * 1024 * 1024;
/// How long a record that lies before the end may take to come.
const WAIT: Duration = Duration::from_secs(30);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default)]
    partition: Option<u32>,
    #[serde(default)]
    offset: Option<u64>,
    #[serde(default)]
    at: Option<DateTime<Utc>>,
    key: Text,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, Text)>,
    // A line that has none is a mistake, not a tombstone.
    #[serde(deserialize_with = "Option::deserialize")]
    value: Option<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Text {
    Text(String),
    Bytes { base64: String },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Value {
    Json(Box<RawValue>),
    Text(String),
    Base64(String),
}

/// Writes what the topic holds now, partition by partition; answers with the number of lines.
///
/// # Errors
/// `Missing`; the log's faults; `Storage` if `out` can't be written.
pub async fn export(
    log: &dyn Log,
    topic: &str,
    out: &mut (dyn AsyncWrite + Send + Unpin),
) -> Result<u64, Fault> {
    let failed = |cause| {
        Fault::new(
            FaultKind::Storage,
            format!("writing the export of `{topic}`"),
        )
        .source(cause)
    };
    let mut lines = 0;
    for (partition, bounds) in log.bounds(topic).await? {
        let mut next = bounds.start;
        let from = From::Partitions(BTreeMap::from([(partition, next)]));
        let mut reader = log.reader(topic, from).await?;
        while next < bounds.end {
            let Delivery::Batch(records) = reader.next(BATCH, BATCH_BYTES, WAIT).await? else {
                return Err(stuck(topic, partition, next, bounds.end));
            };
            for record in records {
                next = record.offset + 1;
                // Appended while the export ran: it goes up to the end as of its start.
                if record.offset >= bounds.end {
                    break;
                }
                let mut line = serde_json::to_vec(&to_line(record)).map_err(|error| {
                    Fault::new(FaultKind::Protocol, "writing a record as JSON").source(error)
                })?;
                line.push(b'\n');
                out.write_all(&line).await.map_err(failed)?;
                lines += 1;
            }
        }
    }
    out.flush().await.map_err(failed)?;
    Ok(lines)
}

/// Appends the lines to the topic, which must be there, in their order; answers with their number. Lines before one
/// that can't be read are appended.
///
/// # Errors
/// `Record`, naming the line; `Missing`; the log's faults; `Storage` if `input` can't be read.
pub async fn import(
    log: &dyn Log,
    topic: &str,
    input: &mut (dyn AsyncBufRead + Send + Unpin),
) -> Result<u64, Fault> {
    let topic: Arc<str> = Arc::from(topic);
    // An empty file must not hide a topic that is not there.
    log.bounds(&topic).await?;
    let (mut number, mut lines) = (0_u64, 0_u64);
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let mut line = Vec::new();
    let outcome = loop {
        number += 1;
        match read_line(&topic, number, input, &mut line).await {
            Ok(Some(entry)) => {
                bytes += entry.size();
                batch.push(entry);
                lines += 1;
            }
            Ok(None) if line.is_empty() => break Ok(lines),
            Ok(None) => {}
            Err(fault) => break Err(fault),
        }
        if batch.len() >= BATCH || bytes >= BATCH_BYTES {
            log.append(std::mem::take(&mut batch)).await?;
            bytes = 0;
        }
    };
    if !batch.is_empty() {
        log.append(batch).await?;
    }
    outcome
}

/// The next line's entry; none for a blank line, and for the end, where `line` is left empty.
async fn read_line(
    topic: &Arc<str>,
    number: u64,
    input: &mut (dyn AsyncBufRead + Send + Unpin),
    line: &mut Vec<u8>,
) -> Result<Option<Entry>, Fault> {
    line.clear();
    let read = input.take(MAX_LINE).read_until(b'\n', line).await;
    let refuse = |why: String| {
        Fault::new(
            FaultKind::Record,
            format!("line {number} of the import into `{topic}` {why}"),
        )
    };
    let read = read.map_err(|cause| {
        Fault::new(
            FaultKind::Storage,
            format!("reading line {number} of the import into `{topic}`"),
        )
        .source(cause)
    })?;
    if read as u64 >= MAX_LINE {
        return Err(refuse(format!("is longer than {MAX_LINE} bytes")));
    }
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let parsed: Line = serde_json::from_slice(line)
        .map_err(|error| refuse("is not an exported record".to_owned()).source(error))?;
    to_entry(topic, parsed)
        .map(Some)
        .map_err(|error| refuse("holds broken base64".to_owned()).source(error))
}

fn to_line(record: Record) -> Line {
    Line {
        partition: Some(record.partition),
        offset: Some(record.offset),
        at: Some(record.at),
        key: to_text(record.key.into()),
        headers: record
            .headers
            .into_iter()
            .map(|(name, value)| (name, to_text(value)))
            .collect(),
        value: record.value.map(|value| to_value(value.into())),
    }
}

fn to_entry(topic: &Arc<str>, line: Line) -> Result<Entry, base64::DecodeError> {
    let value = match line.value {
        None => None,
        Some(Value::Json(raw)) => Some(Bytes::copy_from_slice(raw.get().as_bytes())),
        Some(Value::Text(text)) => Some(Bytes::from(text)),
        Some(Value::Base64(text)) => Some(Bytes::from(STANDARD.decode(text)?)),
    };
    let headers = line
        .headers
        .into_iter()
        .map(|(name, value)| Ok((name, to_bytes(value)?)))
        .collect::<Result<_, base64::DecodeError>>()?;
    Ok(Entry {
        topic: Arc::clone(topic),
        key: Bytes::from(to_bytes(line.key)?),
        value,
        headers,
    })
}

fn to_text(bytes: Vec<u8>) -> Text {
    String::from_utf8(bytes).map_or_else(
        |error| Text::Bytes {
            base64: STANDARD.encode(error.as_bytes()),
        },
        Text::Text,
    )
}

fn to_bytes(text: Text) -> Result<Vec<u8>, base64::DecodeError> {
    match text {
        Text::Text(text) => Ok(text.into_bytes()),
        Text::Bytes { base64 } => STANDARD.decode(base64),
    }
}

/// JSON stays JSON only if it comes back byte for byte from one line.
fn to_value(bytes: Vec<u8>) -> Value {
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Value::Base64(STANDARD.encode(error.as_bytes())),
    };
    match serde_json::from_str::<Box<RawValue>>(&text) {
        Ok(raw) if raw.get() == text && !text.contains(['\n', '\r']) => Value::Json(raw),
        _ => Value::Text(text),
    }
}

fn stuck(topic: &str, partition: u32, next: u64, end: u64) -> Fault {
    Fault::new(
        FaultKind::Unavailable,
        format!(
            "exporting `{topic}`: nothing came at offset {next} of partition {partition}, which ends at {end}"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::memory::MemoryLog;
    use crate::log::port::{Policy, TopicSpec};
    use crate::runtime::clock::SystemClock;
    use proptest::prelude::*;

    async fn log() -> MemoryLog {
        let log = MemoryLog::new(Arc::new(SystemClock));
        let policy = Policy::Delete {
            retention: Duration::from_hours(1),
        };
        for name in ["a", "b"] {
            let spec = TopicSpec {
                name: name.to_owned(),
                partitions: 3,
                policy,
            };
            log.ensure(&spec).await.unwrap();
        }
        log
    }

    fn entry(key: &[u8], value: Option<&[u8]>, headers: Vec<(String, Vec<u8>)>) -> Entry {
        Entry {
            topic: Arc::from("a"),
            key: Bytes::copy_from_slice(key),
            value: value.map(Bytes::copy_from_slice),
            headers,
        }
    }

    async fn exported(log: &MemoryLog, topic: &str) -> String {
        let mut out = Vec::new();
        export(log, topic, &mut out).await.unwrap();
        String::from_utf8(out).unwrap()
    }

    /// The lines without where and when.
    async fn contents(log: &MemoryLog, topic: &str) -> Vec<String> {
        let lines = exported(log, topic).await;
        let rest = |line: &str| line[line.find("\"key\"").unwrap()..].to_owned();
        lines.lines().map(rest).collect()
    }

    #[tokio::test]
    async fn every_kind_of_value_has_its_form() {
        let log = log().await;
        for (value, form) in [
            (Some(&b"{\"v\": 1.10}"[..]), "{\"json\":{\"v\": 1.10}}"),
            (Some(b"null"), "{\"json\":null}"),
            (Some(b" 1"), "{\"text\":\" 1\"}"),
            (Some(b"[1,\n2]"), "{\"text\":\"[1,\\n2]\"}"),
            (Some(b""), "{\"text\":\"\"}"),
            (Some(b"\xff"), "{\"base64\":\"/w==\"}"),
            (None, "null"),
        ] {
            log.make_again("a").unwrap();
            log.append(vec![entry(b"k", value, vec![])]).await.unwrap();
            assert_eq!(
                contents(&log, "a").await,
                [format!("\"key\":\"k\",\"value\":{form}}}")]
            );
        }
    }

    #[tokio::test]
    async fn a_broken_line_is_named_and_those_before_it_stay() {
        let log = log().await;
        let text = "{\"key\":\"a\",\"value\":null}\n\n{\"key\":\"b\"}\n";
        let fault = import(&log, "a", &mut text.as_bytes()).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Record);
        assert!(fault.report().contains("line 3"), "{fault:?}");
        assert_eq!(contents(&log, "a").await.len(), 1);
        let missing = import(&log, "c", &mut &b""[..]).await.unwrap_err();
        assert_eq!(missing.kind(), FaultKind::Missing);
    }

    proptest! {
        #[test]
        fn what_was_exported_comes_back(
            entries in proptest::collection::vec(
                (
                    proptest::collection::vec(any::<u8>(), 0..4),
                    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
                    proptest::collection::vec((".{0,5}", proptest::collection::vec(any::<u8>(), 0..5)), 0..3),
                ),
                0..40,
            )
        ) {
            tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
                let log = log().await;
                let count = entries.len() as u64;
                let entries = entries
                    .into_iter()
                    .map(|(key, value, headers)| entry(&key, value.as_deref(), headers))
                    .collect();
                log.append(entries).await.unwrap();
                let file = exported(&log, "a").await;
                assert_eq!(import(&log, "b", &mut file.as_bytes()).await.unwrap(), count);
                assert_eq!(contents(&log, "b").await, contents(&log, "a").await);
            });
        }
    }
}
