//! The embedded log under `kill -9`: a child appends and says what was acknowledged; the parent kills it and looks.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tributary::log::embedded::{EmbeddedLog, Settings};
use tributary::log::port::{Delivery, Entry, From, Log, Policy, Record, TopicSpec};
use tributary::runtime::clock::SystemClock;

/// Tells this binary that it is the child, and where and with which round it works.
const FOLDER: &str = "TRIBUTARY_TEST_LOG_FOLDER";
const ROUND: &str = "TRIBUTARY_TEST_LOG_ROUND";
const ROUNDS: u64 = 8;
const WRITERS: u64 = 4;
/// Nothing is removed from this one.
const KEPT: &str = "kept";
/// This one is compacted all the time.
const COMPACTED: &str = "compacted";

/// Writer, batch, index in the batch, size of the batch.
type Mark = (u64, u64, u64, u64);

#[test]
fn a_killed_log_has_all_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        let acks = 5 + (seed >> (round * 5)) % 60;
        let fresh = run_and_kill(folder.path(), round, acks);
        assert!(fresh.len() as u64 >= acks);
        acknowledged.extend(fresh);
        println!(
            "seed {seed}, round {round}: {} acknowledged",
            acknowledged.len()
        );
        runtime.block_on(look(folder.path(), &acknowledged));
    }
}

/// Starts the child, kills it after so many acknowledgements, and answers with all it managed to tell.
fn run_and_kill(folder: &Path, round: u64, acks: u64) -> Vec<(u64, u64, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "log::child::appends_until_killed", "--nocapture"])
        .env(FOLDER, folder)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut told = Vec::new();
    let mut line = String::new();
    loop {
        line.clear();
        let read = output.read_line(&mut line).unwrap();
        // A line that was cut by the kill tells nothing.
        if read == 0 || !line.ends_with('\n') {
            break;
        }
        let Some((_, ack)) = line.split_once("ack ") else {
            continue;
        };
        let numbers: Vec<u64> = ack.split_whitespace().map(|n| n.parse().unwrap()).collect();
        told.push((numbers[0], numbers[1], numbers[2]));
        if told.len() as u64 == acks {
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "the child ended by itself");
    told
}

/// Opens what the killed child left, and checks it against what it was told.
async fn look(folder: &Path, acknowledged: &BTreeSet<(u64, u64, u64)>) {
    let log = open(folder).await;
    let mut batches: BTreeMap<(u64, u64), BTreeSet<u64>> = BTreeMap::new();
    let mut sizes = HashMap::new();
    let mut last: HashMap<Bytes, (u64, u64)> = HashMap::new();
    let mut due: BTreeMap<u32, u64> = BTreeMap::new();
    for record in read_all(&log, KEPT).await {
        let offset = due.entry(record.partition).or_default();
        assert_eq!(record.offset, *offset, "a gap or a repetition");
        *offset += 1;
        let (writer, batch, index, size) = mark(&record);
        let fresh = batches.entry((writer, batch)).or_default().insert(index);
        assert!(fresh, "{writer}/{batch}/{index} is there twice");
        sizes.insert((writer, batch), size);
        let before = last.insert(record.key.clone(), (batch, index));
        assert!(before < Some((batch, index)), "order of {:?}", record.key);
    }
    for (id, indexes) in &batches {
        assert_eq!(indexes.len() as u64, sizes[id], "batch {id:?} is torn");
    }
    for (writer, batch, size) in acknowledged {
        assert_eq!(
            sizes.get(&(*writer, *batch)),
            Some(size),
            "an acknowledged batch is gone"
        );
    }
    // Both topics were written by the same calls: what is last in one is last in the other.
    let mut compacted = HashMap::new();
    for record in read_all(&log, COMPACTED).await {
        let (_, batch, index, _) = mark(&record);
        compacted.insert(record.key.clone(), (batch, index));
    }
    assert_eq!(compacted, last, "compaction lost or revived a value");
    log.close().await.unwrap();
}

fn mark(record: &Record) -> Mark {
    let value = std::str::from_utf8(record.value.as_deref().unwrap()).unwrap();
    let head = value.split_whitespace().next().unwrap();
    let numbers: Vec<u64> = head.split(':').map(|n| n.parse().unwrap()).collect();
    (numbers[0], numbers[1], numbers[2], numbers[3])
}

async fn open(folder: &Path) -> EmbeddedLog {
    let log = EmbeddedLog::open(folder, Arc::new(SystemClock), Settings::default())
        .await
        .unwrap();
    let kept = Policy::Delete {
        retention: Duration::from_hours(1),
    };
    let compacted = Policy::Compact {
        min_lag: Duration::ZERO,
        delete_retention: Duration::ZERO,
    };
    for (name, policy) in [(KEPT, kept), (COMPACTED, compacted)] {
        let name = name.to_owned();
        log.ensure(&TopicSpec {
            name,
            partitions: 3,
            policy,
        })
        .await
        .unwrap();
    }
    log
}

async fn read_all(log: &dyn Log, topic: &str) -> Vec<Record> {
    let mut all = Vec::new();
    for (partition, ends) in log.bounds(topic).await.unwrap() {
        let from = From::Partitions(BTreeMap::from([(partition, ends.start)]));
        let mut reader = log.reader(topic, from).await.unwrap();
        let mut next = ends.start;
        while next < ends.end {
            let wait = Duration::from_secs(30);
            let Delivery::Batch(records) = reader.next(500, 1 << 20, wait).await.unwrap() else {
                panic!("nothing came before the end of partition {partition} of {topic}");
            };
            next = records.last().unwrap().offset + 1;
            all.extend(records);
        }
    }
    all
}

mod child {
    use super::*;

    /// Does nothing unless started by the test above, in a process of its own.
    #[test]
    fn appends_until_killed() {
        let Some(folder) = std::env::var_os(FOLDER) else {
            return;
        };
        let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let log = Arc::new(open(Path::new(&folder)).await);
            let mut tasks = tokio::task::JoinSet::new();
            for writer in 0..WRITERS {
                let log = Arc::clone(&log);
                tasks.spawn(async move { write(&log, writer, round * 1_000_000).await });
            }
            loop {
                log.maintain().await.unwrap();
            }
        });
    }

    async fn write(log: &EmbeddedLog, writer: u64, first: u64) {
        for batch in first.. {
            let size = 1 + (batch * 7 + writer) % 30;
            let entries = (0..size).flat_map(|index| {
                [KEPT, COMPACTED].map(|topic| Entry {
                    topic: Arc::from(topic),
                    key: Bytes::from(format!("writer-{writer}-{}", index % 7)),
                    value: Some(Bytes::from(format!(
                        "{writer}:{batch}:{index}:{size} {}",
                        "x".repeat(500)
                    ))),
                    headers: Vec::new(),
                })
            });
            log.append(entries.collect()).await.unwrap();
            let mut out = std::io::stdout().lock();
            writeln!(out, "ack {writer} {batch} {size}").unwrap();
        }
    }
}
