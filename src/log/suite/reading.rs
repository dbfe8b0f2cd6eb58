//! The suite on reading at fixed offsets: where it starts, what a batch holds, waiting and cancelling.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::fault::FaultKind;

fn at(partition: u32, offset: u64) -> From {
    From::Partitions(BTreeMap::from([(partition, offset)]))
}

pub async fn offsets_are_where_reading_starts(bench: &mut dyn Bench) {
    let log = bench.log();
    compacted(&*log, "t", 2).await;
    let key = key_in(1, 2);
    put(&*log, "t", &key, 0..20).await;
    for from in 0..=20 {
        let found = read_from(&*log, "t", BTreeMap::from([(1, from)])).await;
        assert_eq!(offsets(&found), (from..20).collect::<Vec<_>>());
        assert!(found.iter().all(|record| number(record) == record.offset));
    }
    // A reader that is told to go elsewhere does.
    let mut reader = log.reader("t", at(1, 3)).await.unwrap();
    assert_eq!(offsets(&batch(&mut *reader, 2).await), [3, 4]);
    reader.start(1, 18).await.unwrap();
    assert_eq!(offsets(&batch(&mut *reader, 9).await), [18, 19]);
}

pub async fn batches_are_limited(bench: &mut dyn Bench) {
    let log = bench.log();
    compacted(&*log, "t", 1).await;
    let entries = (0..10).map(|_| entry("t", "k", vec![b'x'; 99]));
    log.append(entries.collect()).await.unwrap();
    log.append(vec![entry("t", "k", vec![b'x'; 5_000])])
        .await
        .unwrap();
    let mut reader = log.reader("t", at(0, 0)).await.unwrap();
    let mut sizes = Vec::new();
    for (max_records, max_bytes) in [
        (3, 100_000),
        (100, 350),
        (100, 200),
        (1, 0),
        (0, 0),
        (100, 100),
    ] {
        match reader.next(max_records, max_bytes, LONG).await.unwrap() {
            Delivery::Batch(records) => sizes.push(records.len()),
            other => panic!("{other:?}"),
        }
    }
    // Ten records of 100 bytes each, then a large one: it comes whatever the limit.
    if bench.is_prompt() {
        assert_eq!(sizes, [3, 3, 2, 1, 1, 1]);
    } else {
        // Fewer may be at hand.
        let most = sizes.iter().zip([3, 3, 2, 1, 1, 1]);
        assert!(
            most.clone().all(|(found, most)| *found <= most),
            "{sizes:?}"
        );
    }
    let read: usize = sizes.iter().sum();
    let mut left = 11 - read;
    while left > 0 {
        left -= batch(&mut *reader, 100).await.len();
    }
    quiet(bench, &mut *reader).await;
}

pub async fn a_dropped_next_loses_nothing(bench: &mut dyn Bench) {
    let log = bench.log();
    compacted(&*log, "t", 2).await;
    let keys = [key_in(0, 2), key_in(1, 2)];
    for key in &keys {
        put(&*log, "t", key, 0..200).await;
    }
    let start = BTreeMap::from([(0, 0), (1, 0)]);
    let mut reader = log
        .reader("t", From::Partitions(start.clone()))
        .await
        .unwrap();
    let mut next = start;
    let mut dice = Dice(7);
    while next.values().any(|offset| *offset < 200) {
        // Cut off after a while of between nothing and long enough, but always long enough in the end.
        let cut = Duration::from_micros(dice.roll(40) * dice.roll(40));
        let Ok(delivery) = tokio::time::timeout(cut, reader.next(5, 1_000, LONG)).await else {
            continue;
        };
        let Delivery::Batch(records) = delivery.unwrap() else {
            continue;
        };
        for record in records {
            let due = next.get_mut(&record.partition).unwrap();
            assert_eq!(record.offset, *due);
            *due += 1;
        }
    }
    quiet(bench, &mut *reader).await;
}

pub async fn an_append_wakes_a_reader(bench: &mut dyn Bench) {
    let log = bench.log();
    compacted(&*log, "t", 4).await;
    let from = (0..4).map(|partition| (partition, 0)).collect();
    let mut reader = log.reader("t", From::Partitions(from)).await.unwrap();
    quiet(bench, &mut *reader).await;
    for round in 0..10 {
        // The reader is asked first: it waits when the append is made.
        let (records, _) =
            tokio::join!(biased; batch(&mut *reader, 1), put(&*log, "t", "k", [round]));
        assert_eq!(number(&records[0]), round);
    }
}

pub async fn positions_out_of_bounds_are_lost(bench: &mut dyn Bench) {
    let log = bench.log();
    compacted(&*log, "t", 1).await;
    put(&*log, "t", "k", 0..5).await;
    let lost = log.reader("t", at(0, 6)).await.err().unwrap();
    assert_eq!(lost.kind(), FaultKind::PositionLost, "{lost}");
    let none = log.reader("t", at(1, 0)).await.err().unwrap();
    assert_eq!(none.kind(), FaultKind::Missing, "{none}");
    let mut reader = log.reader("t", at(0, 5)).await.unwrap();
    let lost = reader.start(0, 6).await.unwrap_err();
    assert_eq!(lost.kind(), FaultKind::PositionLost, "{lost}");
    assert_eq!(
        reader.start(1, 0).await.unwrap_err().kind(),
        FaultKind::Fenced
    );
    // The end itself is a position: what comes next.
    quiet(bench, &mut *reader).await;
    put(&*log, "t", "k", [5]).await;
    assert_eq!(offsets(&batch(&mut *reader, 9).await), [5]);
}

pub async fn fixed_readers_are_independent(bench: &mut dyn Bench) {
    let log = bench.log();
    compacted(&*log, "t", 1).await;
    put(&*log, "t", "k", 0..6).await;
    let mut first = log.reader("t", at(0, 0)).await.unwrap();
    let mut second = log.reader("t", at(0, 2)).await.unwrap();
    let mut member = log.reader("t", From::Group("g".to_owned())).await.unwrap();
    assert_eq!(
        member.next(1, 1, LONG).await.unwrap(),
        Delivery::Assigned(0)
    );
    assert_eq!(offsets(&batch(&mut *first, 3).await), [0, 1, 2]);
    assert_eq!(offsets(&batch(&mut *second, 3).await), [2, 3, 4]);
    assert_eq!(offsets(&batch(&mut *first, 3).await), [3, 4, 5]);
    assert_eq!(
        first.release(0).await.unwrap_err().kind(),
        FaultKind::Fenced
    );
}

pub async fn partitions_take_turns(bench: &mut dyn Bench) {
    let log = bench.log();
    compacted(&*log, "t", 3).await;
    for partition in 0..3 {
        put(&*log, "t", &key_in(partition, 3), 0..100).await;
    }
    let from = (0..3).map(|partition| (partition, 0)).collect();
    let mut reader = log.reader("t", From::Partitions(from)).await.unwrap();
    let mut counts = [0_i32; 3];
    // Once all have records at hand, nobody is kept waiting.
    while counts.contains(&0) || counts.iter().all(|count| *count < 40) {
        let had_all = !counts.contains(&0);
        let records = batch(&mut *reader, 1).await;
        let before = counts;
        counts[records[0].partition as usize] += 1;
        if had_all {
            let spread = |counts: [i32; 3]| {
                let most = counts.iter().max().unwrap();
                most - counts.iter().min().unwrap()
            };
            assert!(
                spread(counts) <= spread(before).max(1),
                "{before:?}, {counts:?}"
            );
        }
    }
    if bench.is_prompt() {
        assert!(
            counts.iter().all(|count| (39..=40).contains(count)),
            "{counts:?}"
        );
    }
}
