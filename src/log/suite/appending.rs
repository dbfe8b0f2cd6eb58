//! The suite on appending: order, wholeness, limits, restarts.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use futures_util::FutureExt;

use super::*;
use crate::fault::FaultKind;
use crate::log::port::MAX_ENTRY_BYTES;

pub async fn keys_keep_their_order(bench: &mut dyn Bench) {
    let log = bench.log();
    compacted(&*log, "t", 8).await;
    let mut placed = HashMap::new();
    for round in 0..20_u64 {
        let entries: Vec<_> = (0..50)
            .map(|n| entry("t", format!("key-{}", n % 17), (round * 50 + n).to_string()))
            .collect();
        let places = log.append(entries.clone()).await.unwrap();
        assert_eq!(places.len(), entries.len());
        for (entry, place) in entries.iter().zip(places) {
            assert_eq!(place.partition, partition_of(&entry.key, 8));
            let earlier = placed.insert((place.partition, place.offset), entry.clone());
            assert!(earlier.is_none(), "{place:?} was given twice");
        }
    }
    let all = read_all(&*log, "t").await;
    assert_eq!(all.len(), 1_000);
    let mut last = HashMap::new();
    let mut next = BTreeMap::new();
    for record in &all {
        let entry = &placed[&(record.partition, record.offset)];
        assert_eq!((&record.key, &record.value), (&entry.key, &entry.value));
        let before = last.insert(record.key.clone(), number(record));
        assert!(before < Some(number(record)), "order of {:?}", record.key);
        let offset = next.entry(record.partition).or_insert(0);
        assert_eq!(record.offset, *offset, "no gaps without compaction");
        *offset += 1;
    }
    for (partition, ends) in log.bounds("t").await.unwrap() {
        assert_eq!(ends.end, next.get(&partition).copied().unwrap_or(0));
        assert_eq!(ends.start, 0);
    }
}

pub async fn batches_are_whole_or_not_there(bench: &mut dyn Bench) {
    let log = bench.log();
    compacted(&*log, "t", 4).await;
    put(&*log, "t", "good", [1]).await;
    let large = vec![0; MAX_ENTRY_BYTES];
    let before = log.bounds("t").await.unwrap();
    for (bad, kind) in [
        (entry("t", "large", large), FaultKind::Record),
        (entry("nowhere", "k", "v"), FaultKind::Missing),
    ] {
        let batch = vec![entry("t", "a", "1"), bad, entry("t", "b", "1")];
        assert_eq!(log.append(batch).await.unwrap_err().kind(), kind);
    }
    assert_eq!(log.bounds("t").await.unwrap(), before);
    assert_eq!(read_all(&*log, "t").await.len(), 1);
    assert_eq!(log.append(vec![]).await.unwrap(), vec![]);
}

pub async fn appenders_do_not_mix(bench: &mut dyn Bench) {
    let log = bench.log();
    compacted(&*log, "t", 3).await;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..8_u64 {
        let log = bench.log();
        tasks.spawn(async move {
            let mut places = Vec::new();
            for round in 0..20 {
                let key = format!("writer-{writer}");
                places.extend(put(&*log, "t", &key, round * 5..round * 5 + 5).await);
            }
            places
        });
    }
    let mut places = HashSet::new();
    while let Some(done) = tasks.join_next().await {
        for place in done.unwrap() {
            assert!(
                places.insert((place.partition, place.offset)),
                "{place:?} twice"
            );
        }
    }
    let mut due = HashMap::new();
    let all = read_all(&*log, "t").await;
    assert_eq!(all.len(), 800);
    for record in all {
        let next = due.entry(record.key.clone()).or_insert(0);
        assert_eq!(number(&record), *next, "{:?}", record.key);
        *next += 1;
        assert!(places.contains(&(record.partition, record.offset)));
    }
}

pub async fn dropped_appends_are_whole(bench: &mut dyn Bench) {
    let log = bench.log();
    compacted(&*log, "t", 4).await;
    for round in 0..20_u64 {
        let entries = (0..10).map(|n| entry("t", format!("key-{n}"), round.to_string()));
        // Polled once and dropped.
        drop(log.append(entries.collect()).now_or_never());
        put(&*log, "t", "after", [round]).await;
    }
    bench.reopen().await;
    let mut rounds: HashMap<u64, usize> = HashMap::new();
    let mut after = 0;
    for record in read_all(&*bench.log(), "t").await {
        if &record.key[..] == b"after" {
            after += 1;
        } else {
            *rounds.entry(number(&record)).or_default() += 1;
        }
    }
    assert_eq!(after, 20);
    assert!(
        rounds.values().all(|count| *count == 10),
        "torn: {rounds:?}"
    );
}

pub async fn headers_and_empty_values_are_kept(bench: &mut dyn Bench) {
    let log = bench.log();
    compacted(&*log, "t", 1).await;
    let headers = vec![
        ("ce_id".to_owned(), b"Account/001/7".to_vec()),
        ("twice".to_owned(), vec![]),
        ("twice".to_owned(), vec![0, 255, 10]),
    ];
    let with_headers = Entry {
        headers: headers.clone(),
        ..entry("t", [0, 255], [255, 0])
    };
    log.append(vec![
        with_headers,
        entry("t", "k", ""),
        tombstone("t", "k"),
        entry("t", "", "v"),
    ])
    .await
    .unwrap();
    bench.reopen().await;
    let all = read_all(&*bench.log(), "t").await;
    assert_eq!(all[0].headers, headers);
    assert_eq!(&all[0].key[..], [0, 255]);
    assert_eq!(all[0].value.as_deref(), Some(&[255, 0][..]));
    assert_eq!(all[1].value, Some(Bytes::new()));
    assert_eq!(all[2].value, None);
    assert_eq!(&all[3].key[..], b"");
    assert!(all[1..].iter().all(|record| record.headers.is_empty()));
}

pub async fn sizes_are_limited(bench: &mut dyn Bench) {
    let log = bench.log();
    compacted(&*log, "t", 1).await;
    let header = ("h".to_owned(), vec![1]);
    let sized = |bytes: usize| Entry {
        headers: vec![header.clone()],
        ..entry("t", "k", vec![7; bytes - 3])
    };
    let refused = log
        .append(vec![sized(MAX_ENTRY_BYTES + 1)])
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), FaultKind::Record);
    assert!(refused.report().contains("`k`"), "{refused}");
    log.append(vec![sized(MAX_ENTRY_BYTES)]).await.unwrap();
    let all = read_all(&*log, "t").await;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].size(), MAX_ENTRY_BYTES);
}

pub async fn one_call_reaches_several_topics(bench: &mut dyn Bench) {
    let log = bench.log();
    compacted(&*log, "a", 2).await;
    retained(&*log, "b.dead", 1).await;
    let places = log
        .append(vec![
            entry("a", "k", "1"),
            entry("b.dead", "k", "2"),
            entry("a", "k", "3"),
        ])
        .await
        .unwrap();
    assert_eq!(
        places.iter().map(|place| place.offset).collect::<Vec<_>>(),
        [0, 0, 1]
    );
    let numbers = |records: Vec<Record>| records.iter().map(number).collect::<Vec<_>>();
    assert_eq!(numbers(read_all(&*log, "a").await), [1, 3]);
    assert_eq!(numbers(read_all(&*log, "b.dead").await), [2]);
}

pub async fn topics_are_made_once_and_checked(bench: &mut dyn Bench) {
    let log = bench.log();
    let (first, again) = tokio::join!(compacted(&*log, "t", 8), compacted(&*log, "t", 8));
    assert_eq!(first, again);
    assert_ne!(compacted(&*log, "u", 8).await, first);
    let topics = log.topics().await.unwrap();
    let spec = topics.iter().find(|spec| spec.name == "t").unwrap().clone();
    assert_eq!((topics.len(), spec.partitions), (2, 8));
    let policy = Policy::Delete {
        retention: RETENTION,
    };
    for other in [
        TopicSpec {
            partitions: 9,
            ..spec.clone()
        },
        TopicSpec {
            policy,
            ..spec.clone()
        },
        TopicSpec {
            name: "a/b".to_owned(),
            ..spec.clone()
        },
        TopicSpec {
            name: "c".to_owned(),
            partitions: 0,
            ..spec
        },
    ] {
        let refused = log.ensure(&other).await.unwrap_err();
        assert_eq!(refused.kind(), FaultKind::Config, "{other:?}");
    }
    bench.reopen().await;
    let log = bench.log();
    assert_eq!(
        compacted(&*log, "t", 8).await,
        first,
        "a restart keeps the generation"
    );
    assert_eq!(log.topics().await.unwrap().len(), 2);
}

pub async fn topics_are_verified_and_not_made(bench: &mut dyn Bench) {
    let log = bench.log();
    let spec = |partitions, policy| TopicSpec {
        name: "t".to_owned(),
        partitions,
        policy,
    };
    let policy = Policy::Compact {
        min_lag: LAG,
        delete_retention: KEPT,
    };
    assert!(!log.verify(&spec(8, policy)).await.unwrap());
    assert_eq!(log.topics().await.unwrap(), []);
    compacted(&*log, "t", 8).await;
    assert!(log.verify(&spec(8, policy)).await.unwrap());
    let longer = Policy::Compact {
        min_lag: LAG * 2,
        delete_retention: KEPT,
    };
    let other = Policy::Delete {
        retention: RETENTION,
    };
    for wrong in [spec(9, policy), spec(8, longer), spec(8, other)] {
        let refused = log.verify(&wrong).await.unwrap_err();
        assert_eq!(refused.kind(), FaultKind::Config, "{wrong:?}");
        assert!(refused.report().contains("t`"), "{refused}");
    }
    bench.reopen().await;
    let log = bench.log();
    assert!(log.verify(&spec(8, policy)).await.unwrap());
    assert_eq!(log.topics().await.unwrap().len(), 1);
}

pub async fn what_is_not_there_is_missing(bench: &mut dyn Bench) {
    let log = bench.log();
    let append = log.append(vec![entry("no", "k", "v")]).await;
    let missing = [
        append.unwrap_err().kind(),
        log.bounds("no").await.unwrap_err().kind(),
        log.at_time("no", chrono::DateTime::UNIX_EPOCH)
            .await
            .unwrap_err()
            .kind(),
        log.reader("no", From::Group("g".to_owned()))
            .await
            .err()
            .unwrap()
            .kind(),
    ];
    assert_eq!(missing, [FaultKind::Missing; 4]);
}

pub async fn a_restart_sees_everything(bench: &mut dyn Bench) {
    compacted(&*bench.log(), "t", 4).await;
    let mut seen = Vec::new();
    for round in 0..4_u64 {
        let log = bench.log();
        assert_eq!(read_all(&*log, "t").await, seen, "round {round}");
        for n in 0..10 {
            put(&*log, "t", &format!("key-{n}"), round * 3..round * 3 + 3).await;
        }
        seen = read_all(&*log, "t").await;
        assert_eq!(seen.len() as u64, (round + 1) * 30);
        bench.reopen().await;
    }
}

pub async fn a_closed_log_says_so(bench: &mut dyn Bench) {
    let log = bench.log();
    compacted(&*log, "t", 1).await;
    let from = From::Partitions(BTreeMap::from([(0, 0)]));
    let mut reader = log.reader("t", from).await.unwrap();
    let (told, closed) = tokio::join!(reader.next(1, 1, LONG), log.close());
    closed.unwrap();
    assert_eq!(told.unwrap_err().kind(), FaultKind::Stopping);
    let refused = log.append(vec![entry("t", "k", "v")]).await.unwrap_err();
    assert_eq!(refused.kind(), FaultKind::Stopping);
    log.close().await.unwrap();
}
