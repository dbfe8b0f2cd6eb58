//! What a change costs this process, for a counter of instructions to watch: `tests/instructions` runs it.
//!
//! `cargo bench --bench instructions -- PART COUNT` takes so many changes of 1 KB and 20 mapped columns through a part
//! of the road and tells nothing. The cost of one is the difference between two runs, so that what is done once falls
//! out. Parts:
//!
//! * `encode`: a change to what the topic has of it, as ingest does.
//! * `decode`: what the topic has, straight into the job's slots.
//! * `map`: the same, and from there to the row.
//! * `job`: a topic in memory through the whole job, to a target that takes everything and keeps nothing.
//! * `sqlite`: the same, to the target in a SQLite file, SQLite included.
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use std::hint::black_box;
use std::sync::Arc;

use chrono::DateTime;
use rig::load::{self, Parents};
use rig::road::Road;
use rig::sink::Sink;
use tributary::flow::road::entry_of;
use tributary::log::memory::MemoryLog;
use tributary::mapping::compile::Mapped;
use tributary::runtime::clock::SystemClock;
use tributary::target::port::Target;
use tributary::target::sqlite::SqliteTarget;

/// The most changes on the road.
const MOST: usize = 1_000;

fn main() {
    let args: Vec<String> = std::env::args().filter(|arg| arg != "--bench").collect();
    let [_, part, count] = &args[..] else {
        println!("tests/instructions counts; see the head of benches/instructions.rs");
        return;
    };
    let count: usize = count.parse().unwrap();
    match part.as_str() {
        "encode" => encode(count),
        "decode" => decode(count),
        "map" => map(count),
        "job" => on_the_road(count, |_| async { Arc::new(Sink) as _ }),
        "sqlite" => on_the_road(count, |file| async move {
            Arc::new(
                SqliteTarget::open(&file, Arc::new(SystemClock))
                    .await
                    .unwrap(),
            ) as _
        }),
        other => panic!("there is no part {other}"),
    }
}

fn encode(count: usize) {
    let topic: Arc<str> = "bench.acme.Asset".into();
    let at = DateTime::from_timestamp(1_767_607_872, 0).unwrap();
    let change = load::change(1, 0, 1, Parents::None, at);
    for _ in 0..count {
        black_box(entry_of(&topic, black_box(&change)).unwrap());
    }
}

fn decode(count: usize) {
    let plan = load::plan(Parents::None);
    let bytes = value();
    for _ in 0..count {
        black_box(plan.mapping.read(black_box(&bytes)).unwrap());
    }
}

fn map(count: usize) {
    let plan = load::plan(Parents::None);
    let bytes = value();
    for _ in 0..count {
        let change = plan.mapping.read(black_box(&bytes)).unwrap();
        let mapped = plan
            .mapping
            .map_selected(&change, (0, 0), DateTime::UNIX_EPOCH);
        assert!(matches!(black_box(mapped), Mapped::Rows(_)));
    }
}

fn value() -> bytes::Bytes {
    let entry = load::entry(&"bench.acme.Asset".into(), 1, 0, 1, Parents::None);
    entry.value.unwrap()
}

/// Takes new records from a topic to a store. As many are made for every count, so that making them falls out.
fn on_the_road<F>(count: usize, open: impl FnOnce(std::path::PathBuf) -> F)
where
    F: Future<Output = Arc<dyn Target>>,
{
    let folder = tempfile::tempdir().unwrap();
    // One thread: which of several has work to do differs from run to run.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let target = open(folder.path().join("store.db")).await;
        let log = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
        let mut road = Road::on(&load::plan(Parents::None), target, log, "bench").await;
        let topic = Arc::clone(&road.topic);
        let made = (0..MOST).map(|number| load::entry(&topic, number, 0, 1, Parents::None));
        let mut entries: Vec<_> = made.collect();
        let rest = entries.split_off(count);
        road.append(entries).await;
        road.start();
        road.drained().await;
        road.stop().await;
        road.target.close().await.unwrap();
        drop(rest);
    });
}
