//! Topics on a real broker: settings, deletion, retention, compaction, dates, and what other clients see.

use std::collections::BTreeSet;
use std::process::Command;

use rdkafka::ClientConfig;
use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::time::Instant;

use super::super::*;
use super::broker::{Tool, brokers, open, settings, unique};
use crate::log::port::{Delivery, Policy, Record, partition_of};
use crate::log::suite::{
    LONG, RETENTION, batch, compacted, entry, key_of, number, offsets, put, read_all, read_from,
    retained, tombstone,
};

const SIZE: (&str, &str) = ("max.message.bytes", "16842752");
const CLOCK: (&str, &str) = ("message.timestamp.type", "LogAppendTime");
/// A topic that a broker sees to within a second.
const FAST: &[(&str, &str)] = &[
    SIZE,
    CLOCK,
    ("segment.ms", "200"),
    ("segment.jitter.ms", "0"),
    ("min.cleanable.dirty.ratio", "0.001"),
    ("file.delete.delay.ms", "100"),
];

fn at(partition: u32, offset: u64) -> From {
    From::Partitions(BTreeMap::from([(partition, offset)]))
}

async fn fast(topic: &str, partitions: i32, more: &[(&str, &str)]) {
    let settings: Vec<_> = FAST.iter().chain(more).copied().collect();
    Tool::new().make(topic, partitions, &settings).await;
}

/// Waits for a reader's fault.
async fn fault(reader: &mut dyn Reader) -> Fault {
    let until = Instant::now() + LONG;
    loop {
        match reader
            .next(100, usize::MAX, Duration::from_millis(200))
            .await
        {
            Err(fault) => return fault,
            Ok(delivery) => assert!(Instant::now() < until, "no fault, but {delivery:?}"),
        }
    }
}

#[tokio::test]
#[ignore = "needs a broker: tests/run --kafka"]
async fn topics_that_would_lose_data_are_refused() {
    let (log, tool) = (open(), Tool::new());
    let policy = Policy::Compact {
        min_lag: Duration::from_secs(60),
        delete_retention: Duration::from_secs(60),
    };
    let compact = ("cleanup.policy", "compact");
    let (lag, kept) = (
        ("min.compaction.lag.ms", "60000"),
        ("delete.retention.ms", "60000"),
    );
    for (settings, told) in [
        (vec![compact, lag, kept, CLOCK], Some("max.message.bytes")),
        (vec![compact, lag, kept, SIZE], Some("LogAppendTime")),
        (vec![lag, kept, SIZE, CLOCK], Some("Delete")),
        (
            vec![("cleanup.policy", "compact,delete"), lag, kept, SIZE, CLOCK],
            Some("compact,delete"),
        ),
        (vec![compact, kept, SIZE, CLOCK], Some("min_lag")),
        (
            vec![compact, lag, ("delete.retention.ms", "59999"), SIZE, CLOCK],
            Some("delete_retention"),
        ),
        (vec![compact, lag, kept, SIZE, CLOCK], None),
        // Longer loses nothing.
        (
            vec![compact, ("min.compaction.lag.ms", "70000"), SIZE, CLOCK],
            None,
        ),
    ] {
        let name = unique("t");
        tool.make(&name, 2, &settings).await;
        let mut spec = TopicSpec {
            name,
            partitions: 2,
            policy,
        };
        let ensured = log.ensure(&spec).await;
        match told {
            None => {
                ensured.unwrap();
                spec.partitions = 3;
                let refused = log.ensure(&spec).await.unwrap_err();
                assert!(
                    refused.report().contains("2 partitions, not 3"),
                    "{refused}"
                );
            }
            Some(word) => {
                let refused = ensured.unwrap_err();
                assert_eq!(refused.kind(), FaultKind::Config, "{refused:?}");
                assert!(refused.report().contains(word), "{word}: {refused}");
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs a broker: tests/run --kafka"]
async fn a_topic_made_again_is_another() {
    let (log, tool, topic) = (open(), Tool::new(), unique("t"));
    let first = compacted(&log, &topic, 1).await;
    put(&log, &topic, "k", 0..5).await;
    let mut reader = log.reader(&topic, at(0, 3)).await.unwrap();
    assert_eq!(offsets(&batch(&mut *reader, 9).await), [3, 4]);
    let mut member = log
        .reader(&topic, From::Group("g".to_owned()))
        .await
        .unwrap();
    let assigned = member.next(1, 1, LONG).await.unwrap();
    assert_eq!(assigned, Delivery::Assigned(0));
    member.start(0, 5).await.unwrap();
    tool.delete(&topic).await;
    let mut second = compacted(&log, &topic, 1).await;
    let until = Instant::now() + LONG;
    while second == first {
        assert!(Instant::now() < until);
        second = compacted(&log, &topic, 1).await;
    }
    // It has grown past the readers' places: nothing but its id tells that it is another.
    let writer = open();
    put(&writer, &topic, "k", 0..20).await;
    for reader in [&mut reader, &mut member] {
        let lost = loop {
            match reader.next(9, 999, LONG).await {
                Err(fault) => break fault,
                // Read before the deletion was noticed: the watch comes within seconds.
                Ok(delivery) => assert!(matches!(delivery, Delivery::Batch(_)), "{delivery:?}"),
            }
        };
        assert_eq!(lost.kind(), FaultKind::PositionLost, "{lost}");
        let again = reader.next(9, 999, LONG).await.unwrap_err();
        assert_eq!(again.kind(), FaultKind::PositionLost, "again and again");
        let bound = reader.start(0, 0).await.unwrap_err();
        assert_eq!(bound.kind(), FaultKind::PositionLost, "{bound}");
    }
    let mut fresh = log.reader(&topic, at(0, 18)).await.unwrap();
    assert_eq!(offsets(&batch(&mut *fresh, 9).await), [18, 19]);
    let past = log.reader(&topic, at(0, 21)).await.err().unwrap();
    assert_eq!(past.kind(), FaultKind::PositionLost, "{past}");
}

#[tokio::test]
#[ignore = "needs a broker: tests/run --kafka"]
async fn a_deleted_topic_is_not_made_by_a_writer() {
    let (log, tool, topic) = (open(), Tool::new(), unique("t"));
    compacted(&log, &topic, 2).await;
    put(&log, &topic, "k", [1]).await;
    let mut reader = log.reader(&topic, at(0, 0)).await.unwrap();
    tool.delete(&topic).await;
    let refused = loop {
        match log.append(vec![entry(&topic, "k", "2")]).await {
            Err(fault) => break fault,
            // The broker deletes a moment later.
            Ok(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(refused.kind(), FaultKind::Missing, "{refused:?}");
    let lost = fault(&mut *reader).await;
    // As librdkafka notices, or as our own look does.
    let kinds = [FaultKind::Missing, FaultKind::PositionLost];
    assert!(kinds.contains(&lost.kind()), "{lost:?}");
    let missing = log.bounds(&topic).await.unwrap_err();
    assert_eq!(
        missing.kind(),
        FaultKind::Missing,
        "made with the broker's defaults"
    );
    // The others are served all the same, and this one again once it is there.
    compacted(&log, &topic, 2).await;
    let until = Instant::now() + LONG;
    while let Err(fault) = log.append(vec![entry(&topic, "k", "3")]).await {
        assert_eq!(fault.kind(), FaultKind::Missing, "{fault:?}");
        assert!(Instant::now() < until);
    }
}

#[tokio::test]
#[ignore = "needs a broker: tests/run --kafka"]
async fn a_start_that_moves_on_loses_positions() {
    let (log, tool, topic) = (open(), Tool::new(), unique("t"));
    retained(&log, &topic, 2).await;
    let keys = [
        crate::log::suite::key_in(0, 2),
        crate::log::suite::key_in(1, 2),
    ];
    for key in &keys {
        put(&log, &topic, key, 0..2_000).await;
    }
    let from = From::Partitions(BTreeMap::from([(0, 0), (1, 0)]));
    let mut reader = log.reader(&topic, from).await.unwrap();
    let first = batch(&mut *reader, 5).await;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic, 1, Offset::Offset(1_900))
        .unwrap();
    tool.0
        .delete_records(&list, &AdminOptions::new())
        .await
        .unwrap();
    let ends = log.bounds(&topic).await.unwrap();
    assert_eq!((ends[&1].start, ends[&1].end), (1_900, 2_000));
    assert_eq!(ends[&0].start, 0);
    // What was read ahead comes, in order; then the loss is told, or everything had been read ahead.
    let mut next = match first[0].partition {
        0 => 0,
        _ => first.last().unwrap().offset + 1,
    };
    let mut lost = None;
    let until = Instant::now() + LONG;
    while next < 2_000 && lost.is_none() && Instant::now() < until {
        match reader
            .next(50, usize::MAX, Duration::from_millis(200))
            .await
        {
            Ok(Delivery::Batch(records)) if records[0].partition == 1 => {
                assert_eq!(records[0].offset, next, "a silent skip");
                next = records.last().unwrap().offset + 1;
            }
            Ok(_) => {}
            Err(fault) => lost = Some(fault),
        }
    }
    assert!(next == 2_000 || lost.is_some());
    // From a place that is gone for certain.
    let early = log.reader(&topic, at(1, 1_899)).await.err().unwrap();
    assert_eq!(early.kind(), FaultKind::PositionLost, "{early}");
    for _ in 0..2 {
        let early = reader.start(1, 1_899).await.unwrap_err();
        assert_eq!(early.kind(), FaultKind::PositionLost, "{early}");
    }
    reader.start(1, 1_995).await.unwrap();
    reader.start(0, 1_999).await.unwrap();
    let mut found = BTreeMap::new();
    while found.len() < 2 {
        let records = batch(&mut *reader, 50).await;
        found.insert(records[0].partition, offsets(&records));
    }
    assert_eq!(found[&0], [1_999]);
    assert_eq!(found[&1][0], 1_995);
}

#[tokio::test]
#[ignore = "needs a broker: tests/run --kafka"]
async fn a_reader_that_retention_passes_is_told() {
    let (log, topic) = (open(), unique("t"));
    fast(
        &topic,
        1,
        &[("cleanup.policy", "delete"), ("retention.ms", "1500")],
    )
    .await;
    put(&log, &topic, "k", 0..10).await;
    // A reader whose place retention passes: it is told by its next fetch, of which it makes one after the other.
    let mut reader = log.reader(&topic, at(0, 10)).await.unwrap();
    drop(reader.next(1, 1, Duration::ZERO).await);
    let until = Instant::now() + LONG;
    let mut ends = log.bounds(&topic).await.unwrap()[&0];
    while ends.start < ends.end {
        assert!(Instant::now() < until, "{ends:?}");
        ends = log.bounds(&topic).await.unwrap()[&0];
    }
    assert_eq!((ends.start, ends.end), (10, 10), "the end survives");
    let early = log.at_time(&topic, DateTime::UNIX_EPOCH).await.unwrap();
    assert_eq!(early[&0], 10, "past the end means the end");
    let lost = log.reader(&topic, at(0, 9)).await.err().unwrap();
    assert_eq!(lost.kind(), FaultKind::PositionLost, "{lost}");
    let places = put(&log, &topic, "k", [10]).await;
    assert_eq!(places[0].offset, 10);
    assert_eq!(offsets(&batch(&mut *reader, 9).await), [10]);
}

#[tokio::test]
#[ignore = "needs a broker: tests/run --kafka"]
async fn compaction_keeps_last_values_and_readers_meet_gaps_once() {
    let (log, topic) = (open(), unique("t"));
    let policy = [
        ("cleanup.policy", "compact"),
        ("min.compaction.lag.ms", "0"),
        ("delete.retention.ms", "1000"),
    ];
    fast(&topic, 1, &policy).await;
    let spec = TopicSpec {
        name: topic.clone(),
        partitions: 1,
        policy: Policy::Compact {
            min_lag: Duration::ZERO,
            delete_retention: Duration::from_secs(1),
        },
    };
    log.ensure(&spec).await.unwrap();
    for value in 0..200 {
        put(&log, &topic, &format!("key-{}", value % 10), [value]).await;
    }
    log.append(vec![tombstone(&topic, "key-3"), tombstone(&topic, "never")])
        .await
        .unwrap();
    let mut slow = log.reader(&topic, at(0, 0)).await.unwrap();
    let mut last_read = offsets(&batch(&mut *slow, 1).await)[0];
    // A segment is closed by an append after its time; the broker compacts those that are closed.
    let mut filler = 0_u64;
    let until = Instant::now() + LONG;
    let due: BTreeSet<String> = (0..10)
        .filter(|n| *n != 3)
        .map(|n| format!("key-{n}"))
        .chain(["filler".to_owned()])
        .collect();
    let all = loop {
        filler += 1;
        put(&log, &topic, "filler", [1_000 + filler]).await;
        let all = read_all(&log, &topic).await;
        let keys: BTreeSet<_> = all.iter().map(key_of).collect();
        let rest = all
            .iter()
            .filter(|record| key_of(record) != "filler")
            .count();
        if keys == due && rest == 9 {
            break all;
        }
        assert!(Instant::now() < until, "{} records, {keys:?}", all.len());
    };
    for record in all.iter().filter(|record| key_of(record) != "filler") {
        assert_eq!(record.offset, number(record), "the place is kept");
        assert!(number(record) >= 190);
    }
    let ends = log.bounds(&topic).await.unwrap()[&0];
    assert_eq!(ends.start, 0);
    assert_eq!(all.last().unwrap().offset + 1, ends.end, "the newest stays");
    let newest = ends.end - 1;
    for from in [0, 1, 57, 189, 190, 191, 193, 195, 199, 200, 201, ends.end] {
        let found = read_from(&log, &topic, BTreeMap::from([(0, from)])).await;
        // The broker may have gone on meanwhile with fillers that later ones replaced.
        let stays = |record: &&Record| key_of(record) != "filler" || record.offset == newest;
        let due = all.iter().filter(|record| record.offset >= from);
        let due: Vec<u64> = due.filter(stays).map(|record| record.offset).collect();
        let known = found.iter().filter(|record| record.offset <= newest);
        let known: Vec<u64> = known.filter(stays).map(|record| record.offset).collect();
        assert_eq!(known, due, "from {from}");
    }
    // A reader that was in the midst of it goes on, forward and to the end.
    while last_read + 1 < ends.end {
        for offset in offsets(&batch(&mut *slow, 50).await) {
            assert!(offset > last_read);
            last_read = offset;
        }
    }
}

#[tokio::test]
#[ignore = "needs a broker: tests/run --kafka"]
async fn dates_lead_to_offsets() {
    let (log, topic) = (open(), unique("t"));
    compacted(&log, &topic, 1).await;
    let mut all = Vec::new();
    let mut dates = BTreeSet::new();
    // Until the broker's clock has moved on three times.
    while dates.len() < 4 {
        put(&log, &topic, "k", 0..2).await;
        all = read_all(&log, &topic).await;
        dates = all.iter().map(|record| record.at).collect();
    }
    let end = all.len() as u64;
    let before = *dates.first().unwrap() - chrono::TimeDelta::days(1);
    for date in dates.iter().flat_map(|date| {
        let after = *date + chrono::TimeDelta::milliseconds(1);
        [*date, after, before, *date + chrono::TimeDelta::days(1)]
    }) {
        let due = all.iter().find(|record| record.at >= date);
        let due = due.map_or(end, |record| record.offset);
        assert_eq!(log.at_time(&topic, date).await.unwrap()[&0], due, "{date}");
    }
    assert!(all.is_sorted_by_key(|record| record.at));
    assert_eq!(
        log.at_time(&topic, DateTime::UNIX_EPOCH).await.unwrap()[&0],
        0
    );
}

#[tokio::test]
#[ignore = "needs a broker: tests/run --kafka"]
async fn nothing_is_committed_to_the_broker() {
    let (log, topic) = (open(), unique("t"));
    compacted(&log, &topic, 2).await;
    put(&log, &topic, &crate::log::suite::key_in(0, 2), 0..50).await;
    let mut reader = log
        .reader(&topic, From::Group("job".to_owned()))
        .await
        .unwrap();
    for _ in 0..2 {
        let Delivery::Assigned(partition) = reader.next(1, 1, LONG).await.unwrap() else {
            panic!("an assignment was due");
        };
        reader.start(partition, 0).await.unwrap();
    }
    let mut read = 0;
    while read < 50 {
        read += batch(&mut *reader, 20).await.len();
    }
    drop(reader);
    log.close().await.unwrap();
    let committed = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers())
            .set("group.id", format!("{topic}.job"))
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&topic, 0, 1);
        let found = consumer.committed_offsets(list, LONG).unwrap();
        let offsets: Vec<Offset> = found.elements().iter().map(|one| one.offset()).collect();
        offsets
    });
    assert_eq!(committed.await.unwrap(), [Offset::Invalid, Offset::Invalid]);
}

#[tokio::test]
#[ignore = "needs a broker: tests/run --kafka"]
async fn a_member_that_is_dropped_leaves_at_once() {
    let mut patient = settings();
    // Whoever only falls silent keeps its partitions so long.
    let session = ("session.timeout.ms".to_owned(), "120000".to_owned());
    patient.properties.extend([session]);
    let log = KafkaLog::open(patient, &Metrics::none()).unwrap();
    let topic = unique("t");
    compacted(&log, &topic, 1).await;
    let join = || log.reader(&topic, From::Group("g".to_owned()));
    let mut first = join().await.unwrap();
    let assigned = first.next(1, 1, LONG).await.unwrap();
    assert_eq!(assigned, Delivery::Assigned(0));
    first.start(0, 0).await.unwrap();
    let cut = tokio::time::timeout(Duration::from_millis(50), first.next(1, 1, LONG)).await;
    assert!(cut.is_err());
    drop(first);
    let mut second = join().await.unwrap();
    let assigned = second.next(1, 1, LONG).await.unwrap();
    assert_eq!(assigned, Delivery::Assigned(0));
}

/// Lines of kcat, which is by other hands, on an older librdkafka.
async fn kcat(topic: &str, format: &str) -> Vec<String> {
    let (topic, format) = (topic.to_owned(), format.to_owned());
    let run = tokio::task::spawn_blocking(move || {
        let out = Command::new("kcat")
            .args([
                "-C",
                "-e",
                "-q",
                "-b",
                &brokers(),
                "-t",
                &topic,
                "-f",
                &format,
            ])
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap()
    });
    run.await.unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
#[ignore = "needs a broker: tests/run --kafka"]
async fn another_client_reads_what_was_written() {
    let (log, topic) = (open(), unique("t"));
    compacted(&log, &topic, 8).await;
    let mut entries = Vec::new();
    for n in 0..400 {
        let mut entry = entry(&topic, format!("00{:04}", n % 97), format!("value {n}"));
        entry.headers = vec![
            ("ce_id".to_owned(), format!("Account/{n}").into_bytes()),
            ("content-type".to_owned(), b"application/json".to_vec()),
        ];
        entries.push(entry);
    }
    entries.push(tombstone(&topic, "gone"));
    log.append(entries.clone()).await.unwrap();
    let lines = kcat(&topic, "%p|%o|%k|%S|%s|%h\\n").await;
    assert_eq!(lines.len(), entries.len());
    let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut next = BTreeMap::new();
    for line in &lines {
        let fields: Vec<&str> = line.split('|').collect();
        let (partition, offset): (u32, u64) =
            (fields[0].parse().unwrap(), fields[1].parse().unwrap());
        assert_eq!(partition, partition_of(fields[2].as_bytes(), 8));
        let due = next.entry(partition).or_insert(0);
        assert_eq!(offset, *due);
        *due += 1;
        if fields[2] == "gone" {
            assert_eq!(fields[3], "-1", "a tombstone: {line}");
            continue;
        }
        let n = fields[4].strip_prefix("value ").unwrap();
        let headers = format!("ce_id=Account/{n},content-type=application/json");
        assert_eq!(fields[5], headers);
        let of_key = by_key.entry(fields[2].to_owned()).or_default();
        of_key.push(fields[4].to_owned());
    }
    for entry in &entries[..400] {
        let key = String::from_utf8(entry.key.to_vec()).unwrap();
        let value = String::from_utf8(entry.value.clone().unwrap().to_vec()).unwrap();
        assert_eq!(
            by_key.get_mut(&key).unwrap().remove(0),
            value,
            "order of {key}"
        );
    }
}

#[tokio::test]
#[ignore = "needs a broker: tests/run --kafka"]
async fn entries_that_do_not_shrink_fit_and_headers_count() {
    let (log, topic) = (open(), unique("t"));
    compacted(&log, &topic, 1).await;
    // Noise, which no compression makes smaller.
    let mut dice = crate::log::suite::Dice(3);
    let noise: Vec<u8> = (0..crate::log::port::MAX_ENTRY_BYTES - 1)
        .map(|_| u8::try_from(dice.roll(256)).unwrap())
        .collect();
    log.append(vec![entry(&topic, "k", &noise)]).await.unwrap();
    let mut many = entry(&topic, "k", "v");
    many.headers = vec![("h".to_owned(), Vec::new()); 3_000_000];
    let refused = log.append(vec![many]).await.unwrap_err();
    assert_eq!(refused.kind(), FaultKind::Record, "{refused}");
    let all = read_all(&log, &topic).await;
    assert_eq!(all.len(), 1);
    assert!(all[0].value.as_deref() == Some(&noise[..]));
}

#[tokio::test]
#[ignore = "needs a broker: tests/run --kafka"]
async fn others_topics_are_passed_over() {
    let (log, tool) = (open(), Tool::new());
    let (own, others) = (unique("own"), unique("others"));
    retained(&log, &own, 3).await;
    tool.make(&others, 1, &[("cleanup.policy", "compact,delete")])
        .await;
    let topics = log.topics().await.unwrap();
    let found = topics.iter().find(|spec| spec.name == own).unwrap();
    assert_eq!(
        (found.partitions, found.policy),
        (
            3,
            Policy::Delete {
                retention: RETENTION
            }
        )
    );
    assert!(topics.iter().all(|spec| spec.name != others));
}

#[tokio::test]
#[ignore = "needs a broker: tests/run --kafka"]
async fn settings_that_librdkafka_does_not_know_are_refused() {
    let mut settings = settings();
    let unknown = ("sasl.mechanizm".to_owned(), "PLAIN".to_owned());
    settings.properties.extend([unknown]);
    let refused = KafkaLog::open(settings, &Metrics::none()).unwrap_err();
    assert_eq!(refused.kind(), FaultKind::Config, "{refused:?}");
    assert!(refused.report().contains("sasl.mechanizm"), "{refused:?}");
}
