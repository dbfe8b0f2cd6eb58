//! The suite on retention and compaction: what goes, what stays, and what readers see of it.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::fault::FaultKind;

const DAY: Duration = Duration::from_secs(86_400);

fn contents(records: &[Record]) -> Vec<(String, Option<u64>)> {
    records
        .iter()
        .map(|record| {
            (
                key_of(record),
                record.value.as_ref().map(|_| number(record)),
            )
        })
        .collect()
}

pub async fn the_last_value_of_a_key_stays(bench: &mut dyn Timed) {
    let log = bench.log();
    compacted(&*log, "t", 3).await;
    for n in 0..400 {
        put(&*log, "t", &format!("key-{}", n % 20), [n]).await;
    }
    let before = read_all(&*log, "t").await;
    bench.clock().advance(LAG + DAY);
    bench.maintain().await;
    let after = read_all(&*log, "t").await;
    let kept: BTreeSet<_> = after.iter().map(number).collect();
    assert_eq!(kept, (380..400).collect());
    assert_eq!(after.len(), 20);
    assert!(
        after.iter().all(|record| before.contains(record)),
        "offsets and dates are kept"
    );
    bench.maintain().await;
    bench.reopen().await;
    assert_eq!(
        read_all(&*bench.log(), "t").await,
        after,
        "again changes nothing"
    );
    // Later ones of the same keys do away with these.
    let log = bench.log();
    put(&*log, "t", "key-3", [1_000]).await;
    bench.clock().advance(LAG + DAY);
    bench.maintain().await;
    let last: BTreeSet<_> = read_all(&*log, "t").await.iter().map(number).collect();
    assert!(last.contains(&1_000) && !last.contains(&383) && last.len() == 20);
}

pub async fn young_records_stay(bench: &mut dyn Timed) {
    let log = bench.log();
    compacted(&*log, "t", 1).await;
    put(&*log, "t", "k", [1, 2]).await;
    bench.clock().advance(LAG - DAY);
    put(&*log, "t", "k", [3, 4]).await;
    bench.maintain().await;
    assert_eq!(read_all(&*log, "t").await.len(), 4);
    bench.clock().advance(DAY);
    bench.maintain().await;
    let found: Vec<_> = read_all(&*log, "t").await.iter().map(number).collect();
    // The last of the old ones stays: whoever lags less than the lag sees every step.
    assert_eq!(found, [2, 3, 4]);
}

pub async fn tombstones_go_late_and_alone(bench: &mut dyn Timed) {
    let log = bench.log();
    compacted(&*log, "t", 1).await;
    put(&*log, "t", "gone", [1, 2]).await;
    log.append(vec![tombstone("t", "gone")]).await.unwrap();
    put(&*log, "t", "live", [3]).await;
    log.append(vec![tombstone("t", "never"), tombstone("t", "newest")])
        .await
        .unwrap();
    let own = |key: &str, value| (key.to_owned(), value);
    bench.clock().advance(LAG);
    bench.maintain().await;
    let compacted = vec![
        own("gone", None),
        own("live", Some(3)),
        own("never", None),
        own("newest", None),
    ];
    assert_eq!(contents(&read_all(&*log, "t").await), compacted);
    bench.clock().advance(KEPT - DAY);
    bench.maintain().await;
    assert_eq!(contents(&read_all(&*log, "t").await), compacted, "not yet");
    bench.clock().advance(DAY);
    bench.maintain().await;
    // A partition's newest record stays, so that its end can be reached.
    let last = vec![own("live", Some(3)), own("newest", None)];
    assert_eq!(contents(&read_all(&*log, "t").await), last);
    put(&*log, "t", "more", [4]).await;
    bench.maintain().await;
    let found = contents(&read_all(&*log, "t").await);
    assert_eq!(found, [own("live", Some(3)), own("more", Some(4))]);
}

pub async fn a_gap_yields_the_next_record_once(bench: &mut dyn Timed) {
    let log = bench.log();
    compacted(&*log, "t", 1).await;
    put(&*log, "t", "a", 0..50).await;
    put(&*log, "t", "b", 50..100).await;
    bench.clock().advance(LAG);
    bench.maintain().await;
    let ends = log.bounds("t").await.unwrap()[&0];
    assert_eq!((ends.start, ends.end), (0, 100));
    for from in 0..=100 {
        let found = read_from(&*log, "t", BTreeMap::from([(0, from)])).await;
        let due: Vec<u64> = [49, 99]
            .into_iter()
            .filter(|offset| *offset >= from)
            .collect();
        assert_eq!(offsets(&found), due, "from {from}");
        let mut reader = log
            .reader("t", From::Partitions(BTreeMap::from([(0, from)])))
            .await
            .unwrap();
        for offset in due {
            assert_eq!(offsets(&batch(&mut *reader, 1).await), [offset]);
        }
        assert_eq!(
            reader.next(1, 1, Duration::ZERO).await.unwrap(),
            Delivery::Idle
        );
    }
    assert_eq!(put(&*log, "t", "a", [7]).await[0].offset, 100);
}

pub async fn the_end_survives_the_removal_of_everything(bench: &mut dyn Timed) {
    retained(&*bench.log(), "t", 2).await;
    let key = key_in(1, 2);
    put(&*bench.log(), "t", &key, 0..2_500).await;
    bench.clock().advance(RETENTION - DAY);
    put(&*bench.log(), "t", &key, 0..10).await;
    bench.clock().advance(DAY);
    bench.maintain().await;
    for _ in 0..2 {
        let ends = bench.log().bounds("t").await.unwrap()[&1];
        assert_eq!((ends.start, ends.end), (2_500, 2_510));
        assert_eq!(read_all(&*bench.log(), "t").await.len(), 10);
        bench.reopen().await;
    }
    bench.clock().advance(RETENTION);
    bench.maintain().await;
    for _ in 0..2 {
        let log = bench.log();
        let ends = log.bounds("t").await.unwrap();
        assert_eq!((ends[&1].start, ends[&1].end), (2_510, 2_510));
        assert_eq!((ends[&0].start, ends[&0].end), (0, 0));
        let early = log
            .at_time("t", chrono::DateTime::UNIX_EPOCH)
            .await
            .unwrap();
        assert_eq!(early[&1], 2_510, "past the end means the end");
        bench.reopen().await;
    }
    assert_eq!(put(&*bench.log(), "t", &key, [7]).await[0].offset, 2_510);
    assert_eq!(offsets(&read_all(&*bench.log(), "t").await), [2_510]);
}

pub async fn a_reader_that_retention_passes_is_told(bench: &mut dyn Timed) {
    let log = bench.log();
    retained(&*log, "t", 1).await;
    put(&*log, "t", "k", 0..10).await;
    let from = |offset| From::Partitions(BTreeMap::from([(0, offset)]));
    let mut reader = log.reader("t", from(0)).await.unwrap();
    assert_eq!(offsets(&batch(&mut *reader, 5).await), [0, 1, 2, 3, 4]);
    bench.clock().advance(RETENTION);
    put(&*log, "t", "k", 10..12).await;
    bench.maintain().await;
    for _ in 0..3 {
        let lost = reader.next(5, 100, BRIEF).await.unwrap_err();
        assert_eq!(lost.kind(), FaultKind::PositionLost, "{lost}");
        let lost = reader.start(0, 9).await.unwrap_err();
        assert_eq!(lost.kind(), FaultKind::PositionLost, "{lost}");
    }
    let lost = log.reader("t", from(9)).await.err().unwrap();
    assert_eq!(lost.kind(), FaultKind::PositionLost, "{lost}");
    reader.start(0, 10).await.unwrap();
    assert_eq!(offsets(&batch(&mut *reader, 5).await), [10, 11]);
}

pub async fn compaction_under_a_reader_is_seen_as_gaps(bench: &mut dyn Timed) {
    let log = bench.log();
    compacted(&*log, "t", 1).await;
    for n in 0..100 {
        put(&*log, "t", &format!("key-{}", n % 10), [n]).await;
    }
    bench.clock().advance(LAG);
    put(&*log, "t", "young", [100]).await;
    let from = From::Partitions(BTreeMap::from([(0, 0)]));
    let mut reader = log.reader("t", from).await.unwrap();
    assert_eq!(batch(&mut *reader, 33).await.len(), 33);
    bench.maintain().await;
    let mut rest = Vec::new();
    while let Delivery::Batch(records) = reader.next(4, usize::MAX, BRIEF).await.unwrap() {
        rest.extend(offsets(&records));
    }
    assert_eq!(rest, (90..=100).collect::<Vec<_>>());
}

pub async fn whatever_happens_the_last_values_are_there(bench: &mut dyn Timed) {
    for seed in 0..6 {
        let topic = format!("t{seed}");
        compacted(&*bench.log(), &topic, 3).await;
        let mut dice = Dice(seed);
        let mut last: BTreeMap<String, Option<u64>> = BTreeMap::new();
        for step in 0..150 {
            match dice.roll(10) {
                0 => bench
                    .clock()
                    .advance(Duration::from_secs(dice.roll(20 * 86_400))),
                1 => bench.maintain().await,
                2 if dice.roll(4) == 0 => bench.reopen().await,
                3 => {
                    let key = format!("key-{}", dice.roll(12));
                    bench
                        .log()
                        .append(vec![tombstone(&topic, &key)])
                        .await
                        .unwrap();
                    last.insert(key, None);
                }
                _ => {
                    let key = format!("key-{}", dice.roll(12));
                    put(&*bench.log(), &topic, &key, [step]).await;
                    last.insert(key, Some(step));
                }
            }
            // What a reader from the beginning ends with; a key without a record is as dead as a tombstone.
            let read = contents(&read_all(&*bench.log(), &topic).await);
            let mut found: BTreeMap<_, _> = read.into_iter().collect();
            for key in last.keys() {
                found.entry(key.clone()).or_insert(None);
            }
            assert_eq!(found, last, "seed {seed}, step {step}");
        }
    }
}
