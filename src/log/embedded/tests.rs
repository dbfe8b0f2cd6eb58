//! Tests of what only the embedded engine has: the suite on files, a full disk, the lock, space given back.

use super::*;
use crate::fault::FaultKind;
use crate::log::port::Policy;
use crate::log::suite::{
    Bench, LAG, RETENTION, Timed, compacted, entry, log_suite, offsets, put, read_all, retained,
};
use crate::runtime::clock::ManualClock;

struct Embedded {
    log: Arc<EmbeddedLog>,
    clock: Arc<ManualClock>,
    folder: tempfile::TempDir,
}

impl Embedded {
    async fn open(settings: Settings) -> Self {
        let start = DateTime::from_timestamp(1_767_607_872, 0).unwrap();
        let clock = Arc::new(ManualClock::new(start));
        let folder = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(folder.path(), Arc::clone(&clock) as _, settings)
            .await
            .unwrap();
        Self {
            log: Arc::new(log),
            clock,
            folder,
        }
    }

    async fn open_again(&self, settings: Settings) -> Result<EmbeddedLog, Fault> {
        EmbeddedLog::open(self.folder.path(), Arc::clone(&self.clock) as _, settings).await
    }
}

#[async_trait]
impl Bench for Embedded {
    fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.log) as _
    }

    async fn reopen(&mut self) {
        self.log.close().await.unwrap();
        self.log = Arc::new(self.open_again(Settings::default()).await.unwrap());
    }
}

#[async_trait]
impl Timed for Embedded {
    fn clock(&self) -> &ManualClock {
        &self.clock
    }

    async fn maintain(&self) {
        self.log.maintain().await.unwrap();
    }
}

log_suite!(Embedded::open(Settings::default()));

#[tokio::test]
async fn a_full_disk_fails_closed_and_passes() {
    let small = Settings {
        max_bytes: Some(400_000),
        ..Settings::default()
    };
    let mut bench = Embedded::open(small).await;
    compacted(&*bench.log, "t", 1).await;
    let value = vec![b'x'; 10_000];
    let three = || {
        vec![
            entry("t", "k", &value),
            entry("t", "k", &value),
            entry("t", "k", &value),
        ]
    };
    let mut whole = 0;
    let full = loop {
        match bench.log.append(three()).await {
            Ok(places) => {
                assert_eq!(places[0].offset, whole * 3);
                whole += 1;
            }
            Err(fault) => break fault,
        }
        assert!(whole < 100, "the limit does not hold");
    };
    assert!(whole > 3);
    assert_eq!(full.kind(), FaultKind::Storage);
    let told = full.report();
    assert!(
        told.contains("log.db") && told.contains("free space"),
        "{told}"
    );
    // Nothing of the refused call is there, and it is refused as long as the disk is full.
    assert!(bench.log.append(three()).await.is_err());
    assert_eq!(read_all(&*bench.log, "t").await.len() as u64, whole * 3);
    bench.reopen().await;
    let places = bench.log.append(three()).await.unwrap();
    assert_eq!(places[0].offset, whole * 3);
    let all = offsets(&read_all(&*bench.log, "t").await);
    assert_eq!(all, (0..(whole + 1) * 3).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_second_daemon_is_refused() {
    let bench = Embedded::open(Settings::default()).await;
    let refused = bench.open_again(Settings::default()).await.unwrap_err();
    assert_eq!(refused.kind(), FaultKind::Config);
    assert!(refused.report().contains("log.lock"), "{refused}");
    bench.log.close().await.unwrap();
    bench.open_again(Settings::default()).await.unwrap();
}

#[tokio::test]
async fn space_is_given_back() {
    let bench = Embedded::open(Settings::default()).await;
    retained(&*bench.log, "t", 1).await;
    for _ in 0..20 {
        let entries = (0..1_000).map(|_| entry("t", "k", [b'x'; 1_000]));
        bench.log.append(entries.collect()).await.unwrap();
    }
    bench.clock.advance(RETENTION);
    let size = || bench.folder.path().join("log.db").metadata().unwrap().len();
    assert_eq!(bench.log.maintain().await.unwrap(), 20_000);
    bench.log.close().await.unwrap();
    assert!(size() < 12_000_000, "{} bytes", size());
}

/// A pass that ends half-way (the process dies) is made again; older values never come back.
#[tokio::test]
async fn a_compaction_cut_short_is_made_again() {
    let mut bench = Embedded::open(Settings::default()).await;
    compacted(&*bench.log, "t", 1).await;
    for round in 0..6_u64 {
        let entries = (0..2_000).map(|n| entry("t", format!("key-{n}"), round.to_string()));
        bench.log.append(entries.collect()).await.unwrap();
    }
    bench.clock.advance(LAG);
    for steps in 0..12 {
        let mut pass = Box::pin(bench.log.maintain());
        // A few of its reads and commits are made, then it is dropped.
        for _ in 0..steps {
            let turn = tokio::time::timeout(std::time::Duration::from_millis(2), &mut pass);
            if turn.await.is_ok() {
                break;
            }
        }
        drop(pass);
        bench.reopen().await;
        let all = read_all(&*bench.log, "t").await;
        let last: BTreeMap<_, _> = all
            .iter()
            .map(|record| (&record.key, &record.value))
            .collect();
        assert_eq!(last.len(), 2_000);
        assert!(last.values().all(|value| value.as_deref() == Some(b"5")));
    }
    bench.maintain().await;
    assert_eq!(read_all(&*bench.log, "t").await.len(), 2_000);
}

#[tokio::test]
async fn appends_wait_in_memory_only_up_to_a_limit() {
    let bench = Embedded::open(Settings::default()).await;
    compacted(&*bench.log, "t", 1).await;
    let all = bench.log.room.available_permits();
    let mut calls = Vec::new();
    for _ in 0..12 {
        let entries = vec![entry("t", "k", vec![0; 10_000_000])];
        let mut call = Box::pin(bench.log.append(entries));
        assert!(futures_util::poll!(&mut call).is_pending());
        calls.push(call);
    }
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(bench.log.room.available_permits(), all);
    assert_eq!(bench.log.bounds("t").await.unwrap()[&0].end, 12);
}

#[tokio::test]
async fn the_file_can_be_read_with_sqlite3() {
    let bench = Embedded::open(Settings::default()).await;
    compacted(&*bench.log, "t", 1).await;
    put(&*bench.log, "t", "k", [1, 2]).await;
    let lines = bench
        .log
        .readers
        .read(|tx| {
            let mut found = tx.prepare(
                "SELECT topic || ' ' || partition || ' ' || \"offset\" || ' ' || at || ' ' || key || ' ' || value
                 FROM readable",
            )?;
            let rows = found.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<Vec<String>>>()?)
        })
        .await
        .unwrap();
    assert_eq!(
        lines,
        [
            "t 0 0 2026-01-05T10:11:12.000Z k 1",
            "t 0 1 2026-01-05T10:11:12.000Z k 2"
        ]
    );
}

#[tokio::test]
async fn settings_come_back_as_they_were() {
    let mut bench = Embedded::open(Settings::default()).await;
    let spec = TopicSpec {
        name: "t".to_owned(),
        partitions: 8,
        policy: Policy::Compact {
            min_lag: std::time::Duration::from_millis(1_500),
            delete_retention: std::time::Duration::from_secs(3),
        },
    };
    bench.log.ensure(&spec).await.unwrap();
    bench.reopen().await;
    assert_eq!(bench.log.topics().await.unwrap(), [spec]);
}

#[tokio::test]
async fn a_reader_beside_the_writer_sees_what_is_there_and_writes_nothing() {
    let bench = Embedded::open(Settings::default()).await;
    compacted(&*bench.log, "t", 2).await;
    put(&*bench.log, "t", "a", [1, 2, 3]).await;
    let beside = read_only::ReadOnlyLog::open(bench.folder.path())
        .await
        .unwrap();
    assert_eq!(
        beside.bounds("t").await.unwrap(),
        bench.log.bounds("t").await.unwrap()
    );
    let mut lines = Vec::new();
    let written = crate::log::transfer::export(&beside, "t", &mut lines)
        .await
        .unwrap();
    assert_eq!(written, 3);
    let refused = beside.append(vec![entry("t", "a", "4")]).await.unwrap_err();
    assert_eq!(refused.kind(), FaultKind::Config);
    put(&*bench.log, "t", "a", [5]).await;
}
