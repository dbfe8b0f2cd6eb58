//! The suite on groups: assignment, revocation, and who may read what meanwhile.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::*;
use crate::fault::FaultKind;

async fn member(log: &dyn Log, group: &str) -> Box<dyn Reader> {
    log.reader("t", From::Group(group.to_owned()))
        .await
        .unwrap()
}

/// Waits for so many assignments, and nothing else.
async fn assigned(reader: &mut dyn Reader, count: usize) -> Vec<u32> {
    let mut assigned = Vec::new();
    while assigned.len() < count {
        match reader.next(100, usize::MAX, LONG).await.unwrap() {
            Delivery::Assigned(partition) => assigned.push(partition),
            other => panic!("{count} assignments were due, {other:?} came after {assigned:?}"),
        }
    }
    assigned.sort_unstable();
    assigned
}

/// Notes what is read, which must be in order and of the partitions that may be read.
fn note(seen: &mut BTreeMap<u32, Vec<u64>>, records: &[Record]) {
    let found = seen.entry(records[0].partition).or_default();
    for record in records {
        let due = found.last().map_or(record.offset, |last| last + 1);
        assert_eq!(record.offset, due, "partition {}", record.partition);
        found.push(record.offset);
    }
}

pub async fn a_partition_waits_for_its_start(bench: &mut dyn Bench) {
    let log = bench.log();
    compacted(&*log, "t", 2).await;
    for partition in 0..2 {
        put(&*log, "t", &key_in(partition, 2), 0..5).await;
    }
    let mut reader = member(&*log, "g").await;
    let early = reader.start(0, 0).await.unwrap_err();
    assert_eq!(early.kind(), FaultKind::Fenced, "before it was assigned");
    assert_eq!(assigned(&mut *reader, 2).await, [0, 1]);
    quiet(bench, &mut *reader).await;
    let lost = reader.start(1, 6).await.unwrap_err();
    assert_eq!(lost.kind(), FaultKind::PositionLost);
    reader.start(1, 3).await.unwrap();
    let records = batch(&mut *reader, 10).await;
    assert!(records.iter().all(|record| record.partition == 1));
    assert_eq!(offsets(&records), [3, 4]);
    quiet(bench, &mut *reader).await;
    let mut other = member(&*log, "other").await;
    assert_eq!(
        assigned(&mut *other, 2).await,
        [0, 1],
        "groups do not share"
    );
    quiet(bench, &mut *reader).await;
}

pub async fn a_revoked_partition_goes_over(bench: &mut dyn Bench) {
    let log = bench.log();
    compacted(&*log, "t", 4).await;
    let mut first = member(&*log, "g").await;
    for partition in assigned(&mut *first, 4).await {
        first.start(partition, 0).await.unwrap();
    }
    for partition in 0..4 {
        put(&*log, "t", &key_in(partition, 4), 0..5).await;
    }
    let mut second = member(&*log, "g").await;
    let mut seen = BTreeMap::new();
    let mut revoked = Vec::new();
    while revoked.len() < 2 {
        match first.next(5, usize::MAX, LONG).await.unwrap() {
            Delivery::Revoked(partition) => revoked.push(partition),
            Delivery::Batch(records) => {
                assert!(!bench.is_prompt(), "revocations come first");
                assert!(!revoked.contains(&records[0].partition), "{records:?}");
                note(&mut seen, &records);
            }
            other => panic!("{other:?}"),
        }
    }
    quiet(bench, &mut *second).await;
    let kept: Vec<_> = (0..4)
        .filter(|partition| !revoked.contains(partition))
        .collect();
    let early = first.release(kept[0]).await.unwrap_err();
    assert_eq!(early.kind(), FaultKind::Protocol);
    assert_eq!(
        first.start(revoked[0], 0).await.unwrap_err().kind(),
        FaultKind::Fenced
    );
    // Revoked and not released: neither of them gets anything from it.
    while let Delivery::Batch(records) = first.next(5, usize::MAX, bench.brief()).await.unwrap() {
        assert!(kept.contains(&records[0].partition), "{records:?}");
        note(&mut seen, &records);
    }
    quiet(bench, &mut *second).await;
    for partition in &revoked {
        first.release(*partition).await.unwrap();
        if bench.is_prompt() {
            assert_eq!(assigned(&mut *second, 1).await, [*partition]);
        }
    }
    if !bench.is_prompt() {
        revoked.sort_unstable();
        assert_eq!(assigned(&mut *second, 2).await, revoked);
    }
    for partition in &revoked {
        second.start(*partition, 2).await.unwrap();
        let records = batch(&mut *second, 10).await;
        assert_eq!(
            (records[0].partition, offsets(&records)),
            (*partition, vec![2, 3, 4])
        );
        put(&*log, "t", &key_in(*partition, 4), [5]).await;
        assert_eq!(offsets(&batch(&mut *second, 10).await), [5]);
    }
    // What the first one keeps goes on where it was, and it gets nothing else.
    let is_done = |seen: &BTreeMap<u32, Vec<u64>>| {
        let whole = |partition| seen.get(partition).is_some_and(|found| found.len() == 5);
        kept.iter().all(whole)
    };
    while !is_done(&seen) {
        assert!(!bench.is_prompt());
        let records = batch(&mut *first, 5).await;
        assert!(kept.contains(&records[0].partition), "{records:?}");
        note(&mut seen, &records);
    }
    quiet(bench, &mut *first).await;
    assert_eq!(
        first.release(revoked[0]).await.unwrap_err().kind(),
        FaultKind::Protocol
    );
}

pub async fn a_reader_that_goes_frees_its_partitions(bench: &mut dyn Bench) {
    let log = bench.log();
    compacted(&*log, "t", 4).await;
    let mut first = member(&*log, "g").await;
    assigned(&mut *first, 4).await;
    let mut second = member(&*log, "g").await;
    quiet(bench, &mut *second).await;
    // Waiting, so that the departure has to wake it.
    let (turn, ()) = tokio::join!(biased; second.next(1, 1, LONG), async { drop(first) });
    assert!(matches!(turn.unwrap(), Delivery::Assigned(_)));
    assigned(&mut *second, 3).await;
}

pub async fn every_record_is_processed_once(bench: &mut dyn Bench) {
    let log = bench.log();
    compacted(&*log, "t", 5).await;
    let (seeds, wait) = if bench.is_prompt() {
        (5, Duration::ZERO)
    } else {
        (1, Duration::from_millis(30))
    };
    for seed in 0..seeds {
        let mut dice = Dice(seed);
        let mut readers: Vec<Box<dyn Reader>> = Vec::new();
        // What a target would have: the next offset per partition, from the end as of now.
        let start = log.bounds("t").await.unwrap();
        let mut next: BTreeMap<u32, u64> = start.iter().map(|(p, ends)| (*p, ends.end)).collect();
        for step in 0..300 {
            match dice.roll(12) {
                0 if readers.len() < 4 => readers.push(member(&*log, "g").await),
                1 if readers.len() > 1 => {
                    drop(readers.swap_remove(dice.roll(readers.len() as u64) as usize))
                }
                2..5 => drop(put(&*log, "t", &format!("key-{}", dice.roll(40)), [step]).await),
                _ if readers.is_empty() => readers.push(member(&*log, "g").await),
                _ => {
                    let at = dice.roll(readers.len() as u64) as usize;
                    process(&mut *readers[at], &mut next, wait).await;
                }
            }
        }
        let ends = log.bounds("t").await.unwrap();
        let ends: BTreeMap<u32, u64> = ends.iter().map(|(p, ends)| (*p, ends.end)).collect();
        let until = Instant::now() + LONG;
        while next != ends && Instant::now() < until {
            for reader in &mut readers {
                process(&mut **reader, &mut next, wait).await;
            }
        }
        assert_eq!(next, ends, "seed {seed}");
    }
}

/// One step of a job: what it would commit must be just what is next.
async fn process(reader: &mut dyn Reader, next: &mut BTreeMap<u32, u64>, wait: Duration) {
    match reader.next(3, usize::MAX, wait).await.unwrap() {
        Delivery::Assigned(partition) => reader.start(partition, next[&partition]).await.unwrap(),
        Delivery::Revoked(partition) => reader.release(partition).await.unwrap(),
        Delivery::Idle => (),
        Delivery::Batch(records) => {
            for record in records {
                let due = next.get_mut(&record.partition).unwrap();
                assert_eq!(record.offset, *due, "partition {}", record.partition);
                *due += 1;
            }
        }
    }
}
