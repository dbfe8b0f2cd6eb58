//! The engine under faults of a mock cluster: failed deliveries, brokers that go away, full queues, closings.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::*;
use super::mock::{Mock, MockBench};
use crate::log::kafka::reader::thread_name;
use crate::log::port::{Delivery, Record};
use crate::log::suite::{LONG, batch, compacted, entry, key_in, number, offsets, put, read_all};
use crate::telemetry::metrics::Metrics;

/// The last value of each key, and whether a value ever came after a newer one that nothing newer followed.
fn last_values(records: &[Record]) -> BTreeMap<Bytes, u64> {
    let mut last = BTreeMap::new();
    for record in records {
        last.insert(record.key.clone(), number(record));
    }
    last
}

/// Every value is there, and each key ends with its last; whatever was published again came in order.
pub(super) fn check_suffixes(records: &[Record], key: &str, values: u64) {
    let found: Vec<u64> = records
        .iter()
        .filter(|record| &record.key[..] == key.as_bytes())
        .map(number)
        .collect();
    assert_eq!(found.last(), Some(&(values - 1)), "{found:?}");
    for value in 0..values {
        assert!(found.contains(&value), "{value} is lost: {found:?}");
    }
    for pair in found.windows(2) {
        // Onward by one, or back to where a suffix begins again.
        assert!(pair[1] <= pair[0] + 1, "{found:?}");
    }
}

async fn refuse_produce(mock: &Mock, errors: Vec<RDKafkaRespErr>) {
    mock.with(move |cluster| cluster.request_errors(RDKafkaApiKey::Produce, &errors))
        .await;
}

#[tokio::test]
async fn a_failed_delivery_publishes_the_suffix_again_in_order() {
    let mock = Mock::start(1).await;
    mock.make("t", 2).await;
    // In batches as they come, and one by one: then later entries land while an earlier one fails.
    for (batch, errors) in [("10000", 2), ("1", 1), ("1", 3)] {
        let mut settings = mock.settings();
        let single = ("batch.num.messages".to_owned(), batch.to_owned());
        settings.properties.extend([single]);
        let log = KafkaLog::open(settings, &Metrics::none()).unwrap();
        put(&log, "t", "warm", [0]).await;
        for code in [
            // Passing faults that librdkafka gets over by itself, and others that it gives the batch up for.
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
        ] {
            let key = format!("{batch} {errors} {code:?}");
            refuse_produce(&mock, vec![code; errors]).await;
            let calls = (0..40).map(|value| put(&log, "t", &key, [value]));
            let places = futures_util::future::join_all(calls).await;
            let all = read_all(&log, "t").await;
            check_suffixes(&all, &key, 40);
            // What was answered is where it lies.
            for (value, place) in (0..).zip(places) {
                let place = place[0];
                let found = all.iter().find(|record| {
                    (record.partition, record.offset) == (place.partition, place.offset)
                });
                assert_eq!(number(found.unwrap()), value, "{key}");
            }
        }
        assert_eq!(log.waiting(), None);
        log.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_publishing_again_cannot_help_fails_its_call_alone() {
    let bench = MockBench::open().await;
    let log = &*bench.log;
    compacted(log, "t", 1).await;
    put(log, "t", "k", [0]).await;
    for (code, kind) in [
        (
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
            FaultKind::Permission,
        ),
        (
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
            FaultKind::Record,
        ),
    ] {
        refuse_produce(&bench.mock, vec![code]).await;
        let refused = log.append(vec![entry("t", "k", "1")]).await.unwrap_err();
        assert_eq!(refused.kind(), kind, "{refused:?}");
        assert!(refused.report().contains("`t`"), "{refused}");
        // A refused topic stays so until the producer looks again.
        let until = Instant::now() + LONG;
        while let Err(fault) = log.append(vec![entry("t", "k", "2")]).await {
            assert_eq!(fault.kind(), kind);
            assert!(Instant::now() < until, "{fault:?}");
        }
    }
    let found = last_values(&read_all(log, "t").await);
    assert_eq!(found, BTreeMap::from([(Bytes::from("k"), 2)]));
}

#[tokio::test]
async fn a_broker_that_goes_and_comes_back_loses_nothing() {
    let mock = Mock::start(1).await;
    let log = Arc::new(mock.log());
    compacted(&*log, "t", 3).await;
    put(&*log, "t", "warm", [0]).await;
    let from = From::Partitions((0..3).map(|partition| (partition, 0)).collect());
    let mut reader = log.reader("t", from).await.unwrap();
    batch(&mut *reader, 10).await;
    mock.with(|cluster| cluster.broker_down(1).unwrap()).await;
    let appended = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let (log, appended) = (Arc::clone(&log), Arc::clone(&appended));
        writers.spawn(async move {
            for value in 0..25 {
                put(&*log, "t", &format!("writer-{writer}"), [value]).await;
                appended.store(true, Ordering::Release);
            }
        });
    }
    // Until the log says that it waits; a reader is idle meanwhile, not failed.
    let until = Instant::now() + LONG;
    while log.log.waiting().is_none() {
        assert!(
            Instant::now() < until,
            "nothing told of the broker's absence"
        );
        let delivery = reader.next(10, 1_000, Duration::from_millis(50)).await;
        assert_eq!(delivery.unwrap(), Delivery::Idle);
    }
    assert!(!appended.load(Ordering::Acquire));
    mock.with(|cluster| cluster.broker_up(1).unwrap()).await;
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let all = read_all(&*log, "t").await;
    for writer in 0..4 {
        check_suffixes(&all, &format!("writer-{writer}"), 25);
    }
    let mut read = 1;
    while read < all.len() {
        read += batch(&mut *reader, 50).await.len();
    }
    let until = Instant::now() + LONG;
    while log.log.waiting().is_some() {
        assert!(Instant::now() < until, "{:?}", log.log.waiting());
        tokio::task::yield_now().await;
        log.bounds("t").await.unwrap();
    }
}

#[tokio::test]
async fn a_full_queue_pushes_back_and_keeps_the_order() {
    let mock = Mock::start(1).await;
    let mut settings = mock.settings();
    for (name, value) in [("queue.buffering.max.messages", "7"), ("linger.ms", "0")] {
        let pair = (name.to_owned(), value.to_owned());
        settings.properties.extend([pair]);
    }
    mock.make("t", 2).await;
    let log = Arc::new(KafkaLog::open(settings, &Metrics::none()).unwrap());
    let mut writers = JoinSet::new();
    for writer in 0..3 {
        let log = Arc::clone(&log);
        writers.spawn(async move {
            for round in 0..10 {
                let key = format!("writer-{writer}");
                put(&*log, "t", &key, round * 20..round * 20 + 20).await;
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let all = read_all(&*log, "t").await;
    assert_eq!(all.len(), 600);
    for writer in 0..3 {
        check_suffixes(&all, &format!("writer-{writer}"), 200);
    }
    log.close().await.unwrap();
}

#[tokio::test]
async fn a_close_finishes_what_was_taken_or_says_what_it_left() {
    let mock = Mock::start(1).await;
    mock.make("t", 1).await;
    let open = || {
        let last_wait = Duration::from_secs(2);
        Arc::new(KafkaLog::open_with(mock.settings(), &Metrics::none(), last_wait).unwrap())
    };
    let log = open();
    put(&*log, "t", "k", [0]).await;
    // Taken, and not waited for.
    for value in 1..200 {
        let mut append = Box::pin(log.append(vec![entry("t", "k", value.to_string())]));
        let polled = futures_util::poll!(append.as_mut());
        assert!(polled.is_pending());
        tokio::task::yield_now().await;
        drop(append);
    }
    log.close().await.unwrap();
    log.close().await.unwrap();
    let log = open();
    assert_eq!(read_all(&*log, "t").await.len(), 200);
    put(&*log, "t", "k", [200]).await;
    mock.with(|cluster| cluster.broker_down(1).unwrap()).await;
    let stuck = Arc::clone(&log);
    let append = tokio::spawn(async move { stuck.append(vec![entry("t", "k", "201")]).await });
    // Until it was taken, of which the log tells after a while.
    while log
        .waiting()
        .is_none_or(|why| !why.cause.contains("1 entries"))
    {
        assert!(!append.is_finished());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let began = Instant::now();
    let told = log.close().await.unwrap_err();
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "the deadline holds"
    );
    assert_eq!(told.kind(), FaultKind::Unavailable);
    assert!(told.report().contains(" 1 entries"), "{told}");
    let refused = append.await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), FaultKind::Stopping, "{refused}");
}

#[tokio::test]
async fn a_lost_assignment_is_a_revocation() {
    let mock = Mock::start(1).await;
    let log = mock.log();
    compacted(&log, "t", 1).await;
    put(&log, "t", "k", 0..3).await;
    let mut reader = log.reader("t", From::Group("g".to_owned())).await.unwrap();
    let assigned = reader.next(1, 1, LONG).await.unwrap();
    assert_eq!(assigned, Delivery::Assigned(0));
    reader.start(0, 0).await.unwrap();
    assert_eq!(offsets(&batch(&mut *reader, 9).await), [0, 1, 2]);
    // The coordinator has forgotten the member.
    let forgotten = vec![RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID];
    mock.with(move |cluster| cluster.request_errors(RDKafkaApiKey::Heartbeat, &forgotten))
        .await;
    let revoked = reader.next(9, 9, LONG).await.unwrap();
    assert_eq!(revoked, Delivery::Revoked(0));
    put(&log, "t", "k", [3]).await;
    let silent = reader.next(9, 9, Duration::from_millis(500)).await.unwrap();
    assert_eq!(silent, Delivery::Idle, "released first");
    reader.release(0).await.unwrap();
    let assigned = reader.next(1, 1, LONG).await.unwrap();
    assert_eq!(assigned, Delivery::Assigned(0));
    reader.start(0, 3).await.unwrap();
    assert_eq!(offsets(&batch(&mut *reader, 9).await), [3]);
}

#[tokio::test]
async fn a_place_that_is_gone_is_lost_until_started_elsewhere() {
    let mock = Mock::start(1).await;
    let log = mock.log();
    compacted(&log, "t", 1).await;
    put(&log, "t", "k", 0..5).await;
    let from = From::Partitions(BTreeMap::from([(0, 0)]));
    let mut reader = log.reader("t", from).await.unwrap();
    assert_eq!(offsets(&batch(&mut *reader, 9).await), [0, 1, 2, 3, 4]);
    // An answer to a fetch that the client has given up meanwhile is passed over, the error with it.
    let mut asked = 0;
    let lost = loop {
        let gone = vec![RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE];
        mock.with(move |cluster| cluster.request_errors(RDKafkaApiKey::Fetch, &gone))
            .await;
        asked += 1;
        match reader.next(9, 9, Duration::from_secs(3)).await {
            Err(lost) => break lost,
            other => assert!(asked < 10, "{other:?} came in place of a lost position"),
        }
    };
    mock.with(|cluster| cluster.clear_request_errors(RDKafkaApiKey::Fetch))
        .await;
    assert_eq!(lost.kind(), FaultKind::PositionLost, "{lost:?}");
    let told = lost.report();
    assert!(told.contains("offset 5 of partition 0 of `t`"), "{told}");
    put(&log, "t", "k", [5]).await;
    for _ in 0..3 {
        let again = reader.next(9, 9, Duration::from_millis(100)).await;
        assert_eq!(again.unwrap_err().kind(), FaultKind::PositionLost);
    }
    reader.start(0, 2).await.unwrap();
    let mut read = Vec::new();
    while read.len() < 4 {
        read.extend(offsets(&batch(&mut *reader, 9).await));
    }
    assert_eq!(read, [2, 3, 4, 5]);
}

/// Threads of readers that there are now, of the whole process.
fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|found| found.trim() == name)
        .count()
}

#[tokio::test]
async fn readers_share_nothing_and_end_with_their_threads() {
    let mock = Mock::start(1).await;
    let log = mock.log();
    compacted(&log, "many", 4).await;
    for partition in 0..4 {
        put(&log, "many", &key_in(partition, 4), 0..100).await;
    }
    let name = thread_name("many");
    let mut readers = Vec::new();
    for _ in 0..12 {
        let from = From::Partitions((0..4).map(|partition| (partition, 0)).collect());
        readers.push(log.reader("many", from).await.unwrap());
    }
    // A thread names itself.
    let until = Instant::now() + LONG;
    while threads(&name) != 12 {
        assert!(Instant::now() < until, "{}", threads(&name));
        tokio::task::yield_now().await;
    }
    for reader in &mut readers {
        let mut read = 0;
        while read < 400 {
            read += batch(&mut **reader, 64).await.len();
        }
    }
    // Waiting, dropped in the middle of it.
    let mut last = readers.pop().unwrap();
    let cut = tokio::time::timeout(Duration::from_millis(20), last.next(1, 1, LONG)).await;
    assert!(cut.is_err());
    drop(last);
    drop(readers);
    let until = Instant::now() + LONG;
    while threads(&name) > 0 {
        assert!(Instant::now() < until, "threads are left");
        tokio::task::yield_now().await;
    }
}
