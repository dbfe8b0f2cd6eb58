//! The suite on dates, for engines whose clock obeys.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::runtime::clock::Clock;

pub async fn dates_never_go_back(bench: &mut dyn Timed) {
    compacted(&*bench.log(), "t", 1).await;
    let start = bench.clock().now();
    put(&*bench.log(), "t", "k", [1]).await;
    bench.clock().set(start - chrono::TimeDelta::hours(1));
    put(&*bench.log(), "t", "k", [2]).await;
    bench.reopen().await;
    put(&*bench.log(), "t", "k", [3]).await;
    bench.clock().set(start + chrono::TimeDelta::hours(1));
    put(&*bench.log(), "t", "k", [4]).await;
    let dates: Vec<_> = read_all(&*bench.log(), "t")
        .await
        .iter()
        .map(|record| record.at)
        .collect();
    assert_eq!(
        dates,
        [start, start, start, start + chrono::TimeDelta::hours(1)]
    );
}

pub async fn dates_lead_to_offsets(bench: &mut dyn Timed) {
    let log = bench.log();
    compacted(&*log, "t", 2).await;
    let start = bench.clock().now();
    let (key, other) = (key_in(0, 2), key_in(1, 2));
    for n in 0..30 {
        // Pairs of the same date, 10 seconds from one to the next.
        put(&*log, "t", &key, [n, n]).await;
        if n < 5 {
            put(&*log, "t", &other, [n]).await;
        }
        bench.clock().advance(Duration::from_secs(10));
    }
    for (after_ms, expected) in [
        (-1_000_000, [0, 0]),
        (0, [0, 0]),
        (1, [2, 1]),
        (10_000, [2, 1]),
        (45_000, [10, 5]),
        (290_000, [58, 5]),
        (290_001, [60, 5]),
        (9_000_000, [60, 5]),
    ] {
        let date = start + chrono::TimeDelta::milliseconds(after_ms);
        let found: Vec<_> = log
            .at_time("t", date)
            .await
            .unwrap()
            .into_values()
            .collect();
        assert_eq!(found, expected, "{after_ms} ms after the start");
    }
    compacted(&*log, "empty", 3).await;
    let found = log.at_time("empty", start).await.unwrap();
    assert_eq!(found, BTreeMap::from([(0, 0), (1, 0), (2, 0)]));
}
