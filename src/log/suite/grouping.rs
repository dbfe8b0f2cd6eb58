//! The suite on groups: assignment, revocation, and who may read what meanwhile.

use std::collections::BTreeMap;

use super::*;
use crate::fault::FaultKind;

async fn member(log: &dyn Log, group: &str) -> Box<dyn Reader> {
    log.reader("t", From::Group(group.to_owned()))
        .await
        .unwrap()
}

/// Takes assignments and revocations until nothing comes.
async fn turns(reader: &mut dyn Reader) -> (Vec<u32>, Vec<u32>) {
    let (mut assigned, mut revoked) = (Vec::new(), Vec::new());
    loop {
        match reader.next(100, usize::MAX, BRIEF).await.unwrap() {
            Delivery::Assigned(partition) => assigned.push(partition),
            Delivery::Revoked(partition) => revoked.push(partition),
            Delivery::Idle => return (assigned, revoked),
            Delivery::Batch(records) => panic!("not started, and yet {records:?}"),
        }
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
    let (mut assigned, revoked) = turns(&mut *reader).await;
    assigned.sort_unstable();
    assert_eq!((assigned, revoked), (vec![0, 1], vec![]));
    let lost = reader.start(1, 6).await.unwrap_err();
    assert_eq!(lost.kind(), FaultKind::PositionLost);
    reader.start(1, 3).await.unwrap();
    let records = batch(&mut *reader, 10).await;
    assert!(records.iter().all(|record| record.partition == 1));
    assert_eq!(offsets(&records), [3, 4]);
    assert_eq!(reader.next(9, 9, BRIEF).await.unwrap(), Delivery::Idle);
    let other = turns(&mut *member(&*log, "other").await).await;
    assert_eq!(other.0.len(), 2, "groups do not share");
}

pub async fn a_revoked_partition_goes_over(bench: &mut dyn Bench) {
    let log = bench.log();
    compacted(&*log, "t", 4).await;
    let mut first = member(&*log, "g").await;
    for partition in turns(&mut *first).await.0 {
        first.start(partition, 0).await.unwrap();
    }
    for partition in 0..4 {
        put(&*log, "t", &key_in(partition, 4), 0..5).await;
    }
    let mut second = member(&*log, "g").await;
    assert_eq!(
        turns(&mut *second).await,
        (vec![], vec![]),
        "nothing is free yet"
    );
    let mut revoked = Vec::new();
    for _ in 0..2 {
        match first.next(5, usize::MAX, LONG).await.unwrap() {
            Delivery::Revoked(partition) => revoked.push(partition),
            other => panic!("revocations come first, not {other:?}"),
        }
    }
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
    let mut seen = Vec::new();
    while let Delivery::Batch(records) = first.next(5, usize::MAX, BRIEF).await.unwrap() {
        seen.push(records[0].partition);
    }
    seen.sort_unstable();
    assert_eq!(seen, kept);
    assert_eq!(turns(&mut *second).await, (vec![], vec![]));
    for partition in &revoked {
        first.release(*partition).await.unwrap();
        let assigned = second.next(1, 1, LONG).await.unwrap();
        assert_eq!(assigned, Delivery::Assigned(*partition));
        second.start(*partition, 2).await.unwrap();
        let records = batch(&mut *second, 10).await;
        assert_eq!(
            (records[0].partition, offsets(&records)),
            (*partition, vec![2, 3, 4])
        );
        put(&*log, "t", &key_in(*partition, 4), [5]).await;
        assert_eq!(first.next(1, 1, BRIEF).await.unwrap(), Delivery::Idle);
        assert_eq!(offsets(&batch(&mut *second, 10).await), [5]);
    }
    assert_eq!(
        first.release(revoked[0]).await.unwrap_err().kind(),
        FaultKind::Protocol
    );
}

pub async fn a_reader_that_goes_frees_its_partitions(bench: &mut dyn Bench) {
    let log = bench.log();
    compacted(&*log, "t", 4).await;
    let mut first = member(&*log, "g").await;
    assert_eq!(turns(&mut *first).await.0.len(), 4);
    let mut second = member(&*log, "g").await;
    // Waiting, so that the departure has to wake it.
    let (turn, ()) = tokio::join!(biased; second.next(1, 1, LONG), async { drop(first) });
    assert!(matches!(turn.unwrap(), Delivery::Assigned(_)));
    assert_eq!(turns(&mut *second).await.0.len(), 3);
}

pub async fn every_record_is_processed_once(bench: &mut dyn Bench) {
    let log = bench.log();
    compacted(&*log, "t", 5).await;
    for seed in 0..5 {
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
                    process(&mut *readers[at], &mut next).await;
                }
            }
        }
        for _ in 0..60 {
            for reader in &mut readers {
                process(&mut **reader, &mut next).await;
            }
        }
        let ends = log.bounds("t").await.unwrap();
        let ends: BTreeMap<u32, u64> = ends.iter().map(|(p, ends)| (*p, ends.end)).collect();
        assert_eq!(next, ends, "seed {seed}");
    }
}

/// One step of a job: what it would commit must be just what is next.
async fn process(reader: &mut dyn Reader, next: &mut BTreeMap<u32, u64>) {
    match reader.next(3, usize::MAX, Duration::ZERO).await.unwrap() {
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
