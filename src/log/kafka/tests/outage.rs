//! A real broker that stops answering, is killed and comes back; and memory, which is measured in an otherwise idle
//! process. One test at a time: `tests/run --kafka` runs these by themselves.

use std::path::PathBuf;
use std::process::Command;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::*;
use super::broker::{open, unique};
use super::mock_faults::check_suffixes;
use crate::log::port::Delivery;
use crate::log::suite::{LONG, batch, compacted, entry, key_in, put, read_all};

/// Longer than a broker takes to come back and librdkafka to notice.
/// A broker that was stopped in the middle of everything was once not done after two minutes.
const VERY_LONG: Duration = Duration::from_secs(300);

struct Node(PathBuf);

impl Node {
    fn new() -> Self {
        let folder = std::env::var("TRIBUTARY_TEST_KAFKA_NODE");
        Self(folder.expect("run tests/run --kafka").into())
    }

    fn signal(&self, name: &str) {
        let pid = std::fs::read_to_string(self.0.join("pid")).unwrap();
        let sent = Command::new("kill").args([name, pid.trim()]).status();
        assert!(sent.unwrap().success());
    }

    async fn start(&self) {
        let start = self.0.join("start");
        let started = tokio::task::spawn_blocking(move || Command::new(start).status());
        assert!(started.await.unwrap().unwrap().success());
    }
}

/// The broker answers again, whatever becomes of the test.
struct Continued<'a>(&'a Node);

impl Drop for Continued<'_> {
    fn drop(&mut self) {
        self.0.signal("-CONT");
    }
}

fn writers(log: &Arc<KafkaLog>, topic: &str, values: u64) -> JoinSet<()> {
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let (log, topic) = (Arc::clone(log), topic.to_owned());
        writers.spawn(async move {
            for value in 0..values {
                put(&*log, &topic, &format!("writer-{writer}"), [value]).await;
            }
        });
    }
    writers
}

async fn finish(mut writers: JoinSet<()>) {
    let all = async {
        while let Some(done) = writers.join_next().await {
            done.unwrap();
        }
    };
    tokio::time::timeout(VERY_LONG, all).await.unwrap();
}

async fn until_waiting(log: &KafkaLog, is_waiting: bool) {
    let until = Instant::now() + VERY_LONG;
    while log.waiting().is_some() != is_waiting {
        assert!(Instant::now() < until, "{:?}", log.waiting());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
#[ignore = "needs a broker: tests/run --kafka"]
async fn a_broker_that_stalls_stalls_appends_and_loses_nothing() {
    let (node, topic) = (Node::new(), unique("t"));
    let log = Arc::new(open());
    compacted(&*log, &topic, 3).await;
    let from = From::Partitions((0..3).map(|partition| (partition, 0)).collect());
    let mut reader = log.reader(&topic, from).await.unwrap();
    let writers = writers(&log, &topic, 400);
    batch(&mut *reader, 10).await;
    {
        node.signal("-STOP");
        let _continued = Continued(&node);
        until_waiting(&log, true).await;
        assert!(log.waiting().unwrap().cause.contains("not acknowledged"));
        // A reader waits; it does not fail.
        while let Delivery::Batch(_) = reader.next(500, usize::MAX, LONG / 10).await.unwrap() {}
    }
    finish(writers).await;
    until_waiting(&log, false).await;
    let all = read_all(&*log, &topic).await;
    for writer in 0..4 {
        check_suffixes(&all, &format!("writer-{writer}"), 400);
    }
}

#[tokio::test]
#[ignore = "needs a broker: tests/run --kafka"]
async fn a_broker_that_is_killed_and_started_again_loses_nothing() {
    let (node, topic) = (Node::new(), unique("t"));
    let log = Arc::new(open());
    let generation = compacted(&*log, &topic, 3).await;
    let from = From::Partitions((0..3).map(|partition| (partition, 0)).collect());
    let mut reader = log.reader(&topic, from).await.unwrap();
    let mut member = log
        .reader(&topic, From::Group("g".to_owned()))
        .await
        .unwrap();
    let mut next: BTreeMap<u32, u64> = (0..3).map(|partition| (partition, 0)).collect();
    let writers = writers(&log, &topic, 400);
    let mut read = batch(&mut *reader, 10).await.len();
    step(&mut *member, &mut next).await;
    node.signal("-KILL");
    until_waiting(&log, true).await;
    let idle = log.append(vec![entry(&topic, "while-away", "1")]);
    assert!(
        tokio::time::timeout(Duration::from_secs(1), idle)
            .await
            .is_err()
    );
    node.start().await;
    finish(writers).await;
    until_waiting(&log, false).await;
    assert_eq!(compacted(&*log, &topic, 3).await, generation);
    let all = read_all(&*log, &topic).await;
    for writer in 0..4 {
        check_suffixes(&all, &format!("writer-{writer}"), 400);
    }
    let dropped = all.iter().filter(|record| &record.key[..] == b"while-away");
    assert!(
        dropped.count() >= 1,
        "a dropped append goes out all the same"
    );
    let until = Instant::now() + VERY_LONG;
    while read < all.len() {
        assert!(Instant::now() < until);
        match reader.next(500, usize::MAX, LONG).await.unwrap() {
            Delivery::Batch(records) => read += records.len(),
            other => panic!("{other:?}"),
        }
    }
    while next.values().sum::<u64>() < all.len() as u64 {
        assert!(Instant::now() < until, "{next:?}");
        step(&mut *member, &mut next).await;
    }
}

/// One step of a member that commits what it reads.
async fn step(reader: &mut dyn Reader, next: &mut BTreeMap<u32, u64>) {
    match reader
        .next(500, usize::MAX, Duration::from_secs(1))
        .await
        .unwrap()
    {
        Delivery::Assigned(partition) => reader.start(partition, next[&partition]).await.unwrap(),
        Delivery::Revoked(partition) => reader.release(partition).await.unwrap(),
        Delivery::Idle => {}
        Delivery::Batch(records) => {
            for record in records {
                let due = next.get_mut(&record.partition).unwrap();
                assert_eq!(record.offset, *due);
                *due += 1;
            }
        }
    }
}

/// Resident bytes of this process.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    let kilobytes = line.split_whitespace().nth(1).unwrap();
    kilobytes.parse::<usize>().unwrap() * 1024
}

#[tokio::test]
#[ignore = "needs a broker: tests/run --kafka"]
async fn a_reader_that_is_behind_holds_little() {
    const MIB: usize = 1024 * 1024;
    let (log, topic) = (open(), unique("t"));
    compacted(&log, &topic, 4).await;
    let mut dice = crate::log::suite::Dice(5);
    let noise: Vec<u8> = (0..MIB / 16)
        .map(|_| u8::try_from(dice.roll(256)).unwrap())
        .collect();
    for partition in 0..4 {
        let key = key_in(partition, 4);
        for _ in 0..32 {
            let entries = (0..16).map(|_| entry(&topic, &key, &noise));
            log.append(entries.collect()).await.unwrap();
        }
    }
    let before = resident();
    let from = From::Partitions((0..4).map(|partition| (partition, 0)).collect());
    let mut reader = log.reader(&topic, from).await.unwrap();
    let (mut early, mut late) = (0, 0);
    let mut read = 0;
    while read < 4 * 32 * 16 {
        read += batch(&mut *reader, 8).await.len();
        if read < 512 {
            // Slowly: whatever is read ahead has time to fill.
            tokio::time::sleep(Duration::from_millis(20)).await;
            early = early.max(resident());
        }
        late = late.max(resident());
    }
    let (grown, more) = (early.saturating_sub(before), late.saturating_sub(early));
    assert!(
        grown < 64 * MIB,
        "{} MiB for 128 MiB of records",
        grown / MIB
    );
    assert!(
        more < 16 * MIB,
        "{} MiB more for the other 96 MiB",
        more / MIB
    );
}
