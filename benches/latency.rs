//! How long a change takes from the CRM's stream to the commit in the store, at a steady rate.
//!
//! `cargo bench --bench latency [-- PART…]`, parts: `embedded` (embedded log and SQLite) and `kafka` (Kafka and
//! PostgreSQL), which runs where `TRIBUTARY_TEST_KAFKA` names a broker: `tests/kafka cargo bench --bench latency`.
//!
//! The road is the daemon's: a connection that listens, merges into images and publishes (`flow::connection`), and a
//! job (`flow::job`), with their stores on disk. Only the org is a script (`rig/org.rs`), in this process: it tells
//! updates of two fields of records with 1 KB of JSON and 20 mapped columns, `TRIBUTARY_BENCH_RATE` (1,000) a second,
//! of `TRIBUTARY_BENCH_ROWS` records (20,000) in turn, which a full sync stored before.
//!
//! A change's time runs from when it was due by the schedule, not from when the listener came to ask for it, to when
//! the transaction with its row has committed. So what waits behind a slow batch counts in full (no coordinated
//! omission); tokio's timer adds up to a millisecond. 5 seconds of warming are not counted, the
//! `TRIBUTARY_BENCH_SECONDS` (30) after it are. A change that a later one of its record overtook within a batch is
//! committed with that one.
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rig::load::{self, Parents};
use rig::machine::{self, Reading};
use rig::org::{Beginning, NUMBERED_COLUMN, Schedule, ScriptedOrg};
use rig::report::{line, round, setting, wants};
use rig::road::{Counting, Road};
use rig::server::Server;
use tokio::sync::watch;
use tributary::flow::connection;
use tributary::flow::road as flow;
use tributary::image::sqlite::SqliteImages;
use tributary::log::embedded::{EmbeddedLog, Settings};
use tributary::log::kafka::KafkaLog;
use tributary::log::kafka::settings::KafkaSettings;
use tributary::log::port::Log;
use tributary::mapping::plan::Cell;
use tributary::runtime::clock::SystemClock;
use tributary::runtime::shutdown::StopSignal;
use tributary::state::port::State;
use tributary::state::sqlite::SqliteState;
use tributary::target::port::{Batch, Target};
use tributary::target::postgres::PostgresTarget;
use tributary::target::sqlite::SqliteTarget;
use tributary::telemetry::metrics::Metrics;

const WARMING: usize = 5;
/// What the goals are: half of the changes, and all but one of a hundred.
const GOAL_P50: Duration = Duration::from_millis(25);
const GOAL_P99: Duration = Duration::from_millis(150);

fn main() {
    machine::introduce();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        if wants("embedded") {
            // On a disk: /tmp may be memory.
            let home = tempfile::tempdir_in("/var/tmp").unwrap();
            let clock = Arc::new(SystemClock);
            let log = EmbeddedLog::open(home.path(), clock, Settings::default());
            let log = Arc::new(log.await.unwrap());
            let file = home.path().join("store.db");
            let target = SqliteTarget::open(&file, Arc::new(SystemClock)).await;
            let target = Arc::new(target.unwrap());
            arm("embedded log and SQLite", home.path(), log, target, None).await;
        }
        if let Ok(brokers) = std::env::var("TRIBUTARY_TEST_KAFKA")
            && wants("kafka")
        {
            let home = tempfile::tempdir_in("/var/tmp").unwrap();
            let log = KafkaLog::open(KafkaSettings::new(brokers), &Metrics::none());
            let log = Arc::new(log.unwrap());
            let server = Server::start();
            let target = server.target("latency", 0);
            let target = PostgresTarget::open(target, Arc::new(SystemClock)).await;
            let target = Arc::new(target.unwrap());
            let server = Some(&server);
            arm("Kafka and PostgreSQL", home.path(), log, target, server).await;
        }
    });
}

async fn arm(
    name: &str,
    home: &Path,
    log: Arc<dyn Log>,
    target: Arc<dyn Target>,
    server: Option<&Server>,
) {
    let rate = setting("TRIBUTARY_BENCH_RATE", 1000);
    let warming = WARMING * rate;
    let schedule = Schedule {
        records: setting("TRIBUTARY_BENCH_ROWS", 20_000),
        changes: warming + setting("TRIBUTARY_BENCH_SECONDS", 30) * rate,
        every: Duration::from_secs(1) / u32::try_from(rate).unwrap(),
    };
    let plan = load::plan(Parents::None);
    let job = plan.mapping.plan();
    let columns = &job.destinations[0].columns;
    let cell = columns.iter().position(|one| one.name == NUMBERED_COLUMN);
    let arrivals = Arc::new(Arrivals::new(schedule, cell.unwrap()));

    let state: Arc<dyn State> = Arc::new(SqliteState::open(home).await.unwrap());
    let witness = Arc::clone(&arrivals);
    let counting =
        Counting::new(Arc::clone(&target)).seen_by(Box::new(move |batch| witness.see(batch)));
    let prefix = format!("latency-{}", uuid::Uuid::now_v7());
    let (opened, kept) = (Arc::clone(&log), Arc::clone(&state));
    let mut road = Road::over(&plan, counting, opened, &prefix, kept).await;
    let org = Arc::new(ScriptedOrg::new(schedule));
    let stop = StopSignal::new();
    let listening = tokio::spawn(connection::keep(
        flow::Road {
            connection: job.connection.clone(),
            crm: Arc::clone(&org) as _,
            log: Arc::clone(&log),
            images: Arc::new(SqliteImages::open(home).await.unwrap()),
            state,
            clock: Arc::new(SystemClock),
            metrics: Metrics::none(),
            board: Arc::clone(&road.board),
            hinted: Arc::default(),
            settings: Arc::new(flow::Settings {
                prefix,
                read_lag: Duration::ZERO,
                ..flow::Settings::default()
            }),
        },
        BTreeMap::from([(job.source.clone(), job.fields.iter().cloned().collect())]),
        stop.clone(),
    ));
    // A job that runs before its topic has an owner for the first time begins anew once it has.
    within(Duration::from_secs(300), &road, async {
        while !is_synced(&road) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    road.start();
    within(Duration::from_secs(300), &road, async {
        road.target.reach(schedule.records as u64).await;
    })
    .await;

    let beginning = Beginning::soon();
    let before = (Reading::now(server), road.target.batches());
    arrivals.begin(beginning.at);
    org.begin(beginning);
    let span = schedule.every * u32::try_from(schedule.changes).unwrap();
    within(span + Duration::from_secs(60), &road, arrivals.all()).await;
    let used = before.0.until(Reading::now(server));
    let batches = road.target.batches() - before.1;
    stop.stop();
    listening.await.unwrap();
    road.stop().await;
    target.close().await.unwrap();
    log.close().await.unwrap();

    let times = arrivals.times(warming);
    let of = |share: f64| {
        let place = (times.len() as f64 * share).ceil() as usize;
        times[place.clamp(1, times.len()) - 1]
    };
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let verdict = |met: bool| if met { "met" } else { "MISSED" };
    let (p50, p90, p99, max) = (of(0.5), of(0.9), of(0.99), of(1.0));
    println!(
        "\n{name}: {rate} changes/s, {} counted, {:.1} a batch",
        times.len(),
        schedule.changes as f64 / batches as f64
    );
    println!(
        "  p50 {:.1} ms (goal {:.0}: {})   p90 {:.1} ms   p99 {:.1} ms (goal {:.0}: {})   max {:.1} ms   this process {:.2} cores, \
         server {:.2}, foreign {:.2}",
        millis(p50),
        millis(GOAL_P50),
        verdict(p50 < GOAL_P50),
        millis(p90),
        millis(p99),
        millis(GOAL_P99),
        verdict(p99 < GOAL_P99),
        millis(max),
        used.own.as_secs_f64() / used.time.as_secs_f64(),
        used.server.as_secs_f64() / used.time.as_secs_f64(),
        used.foreign,
    );
    line(serde_json::json!({
        "latency": name, "rate": rate, "counted": times.len(), "p50_ms": round(millis(p50)), "p90_ms": round(millis(p90)),
        "p99_ms": round(millis(p99)), "max_ms": round(millis(max)), "foreign_cores": round(used.foreign),
    }));
}

fn is_synced(road: &Road) -> bool {
    let picture = road.board.picture();
    let mut objects = picture
        .connections
        .values()
        .flat_map(|one| one.objects.values());
    objects.any(|object| object.synced_at.is_some())
}

/// A road that stands still tells why.
async fn within(limit: Duration, road: &Road, reached: impl Future<Output = ()>) {
    let waited = tokio::time::timeout(limit, reached).await;
    assert!(
        waited.is_ok(),
        "it stands still: {:?}",
        road.board.picture()
    );
}

/// When each change was committed.
struct Arrivals {
    schedule: Schedule,
    /// Of a row, which cell holds its change's number.
    cell: usize,
    seen: Mutex<Seen>,
    left: watch::Sender<usize>,
}

struct Seen {
    began: Option<Instant>,
    times: Vec<Option<Duration>>,
}

impl Arrivals {
    fn new(schedule: Schedule, cell: usize) -> Self {
        Self {
            schedule,
            cell,
            seen: Mutex::new(Seen {
                began: None,
                times: vec![None; schedule.changes],
            }),
            left: watch::Sender::new(schedule.changes),
        }
    }

    fn begin(&self, at: Instant) {
        self.seen.lock().unwrap().began = Some(at);
    }

    fn see(&self, batch: &Batch) {
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap();
        let Some(began) = seen.began else { return };
        let mut count = 0;
        for row in batch.destinations[0].rows.iter() {
            let Some(Some(Cell::Number(number))) = row.cells.get(self.cell) else {
                panic!("a row without its change's number: {row:?}");
            };
            let Ok(mut number) = number.parse::<usize>() else {
                panic!("{number} is no change's number: {row:?}");
            };
            while seen.times[number].is_none() {
                let due = began + self.schedule.every * u32::try_from(number).unwrap();
                seen.times[number] = Some(now.saturating_duration_since(due));
                count += 1;
                // Those that it overtook.
                let Some(earlier) = number.checked_sub(self.schedule.records) else {
                    break;
                };
                number = earlier;
            }
        }
        drop(seen);
        self.left.send_modify(|left| *left -= count);
    }

    async fn all(&self) {
        let mut left = self.left.subscribe();
        left.wait_for(|left| *left == 0).await.unwrap();
    }

    /// Those after the warming, lowest first.
    fn times(&self, warming: usize) -> Vec<Duration> {
        let seen = self.seen.lock().unwrap();
        let mut times: Vec<_> = seen.times[warming..].iter().flatten().copied().collect();
        times.sort_unstable();
        times
    }
}
