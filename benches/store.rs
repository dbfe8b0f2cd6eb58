//! From a topic in memory to a store: the job as the daemon runs it, against the bare technique on the same store.
//!
//! `cargo bench --bench store [-- PART…]`, parts: `apply` `lookups` `writers` `batches` `sqlite` `kafka`.
//!
//! The server is PostgreSQL on this machine, by a Unix socket, with fsync (`rig/server.rs`). A change has 1 KB of JSON
//! and 20 mapped columns; the store holds `TRIBUTARY_BENCH_ROWS` rows (100,000) before anything is timed. Per pair
//! every arm writes `TRIBUTARY_BENCH_CHANGES` changes (24,000) into tables of its own, cut into the same batches; arms
//! take turns; `TRIBUTARY_BENCH_PAIRS` pairs (5) after one that does not count. Buffers and topics are made before
//! the clock starts. `TRIBUTARY_BENCH_WRITERS` connections: one per core unless set. `TRIBUTARY_BENCH_STATEMENTS=1`: the
//! server counts what each statement takes (pg_stat_statements), all arms and pairs together.
//!
//! * `batches`: the same job twice, of which one gets at most 100 records a batch (`rig/capped.rs`).
//! * `sqlite`: the store in a file under `/var/tmp`; its opponents are loops of prepared statements in this process,
//!   with the target's settings and tables (`rig/sqlite.rs`). Write-ahead logs are cut between arms, outside the timing.
//! * `kafka` (`tests/kafka cargo bench --bench store -- kafka`): the topic on one Kafka node on the same cores, filled
//!   while the job is stopped. The clock runs from the first commit after the job has joined its group. The opponent
//!   is the one of `apply`, from memory; the third arm is the same job on a topic in memory, its clock started likewise.
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use std::path::Path;
use std::sync::Arc;

use rig::broker::Broker;
use rig::capped::CappedLog;
use rig::load::{self, Parents, Plan};
use rig::machine::{self, Reading};
use rig::opponent::{Buffers, Opponent, Way, encode};
use rig::records::{Kind, Records, Step, batches};
use rig::report::{Bar, Comparison, Run, setting, wants};
use rig::road::Road;
use rig::server::Server;
use rig::sqlite::{Loop, What, checkpointed};
use tributary::log::memory::MemoryLog;
use tributary::log::port::Log;
use tributary::runtime::clock::SystemClock;
use tributary::target::port::Target;
use tributary::target::postgres::PostgresTarget;
use tributary::target::sqlite::SqliteTarget;

/// What a batch holds at most, as in the job.
const BATCH: usize = 1000;

/// The daemon's job on tables of its own.
struct Daemon {
    road: Road,
    parents: Parents,
}

impl Daemon {
    async fn on_postgres(
        server: &Server,
        name: &str,
        writers: usize,
        parents: Parents,
        log: Arc<dyn Log>,
    ) -> Self {
        let target = PostgresTarget::open(server.target(name, writers), Arc::new(SystemClock))
            .await
            .unwrap();
        let plan = load::plan(parents);
        let road = Road::on(&plan, Arc::new(target), log, &prefix()).await;
        if parents == Parents::LookedUp {
            seed_parents(server, name).await;
        }
        Self::started(road, parents)
    }

    async fn on_sqlite(path: &Path) -> Self {
        let target = SqliteTarget::open(path, Arc::new(SystemClock)).await;
        let plan = load::plan(Parents::None);
        let road = Road::on(&plan, Arc::new(target.unwrap()), memory(), &prefix()).await;
        Self::started(road, Parents::None)
    }

    fn started(mut road: Road, parents: Parents) -> Self {
        road.start();
        Self { road, parents }
    }

    /// The job is stopped while its topic is filled.
    async fn run(&mut self, server: Option<&Server>, steps: &[Step]) -> Run {
        self.fill(steps).await;
        let before = Reading::now(server);
        self.road.start();
        self.road.drained().await;
        Run {
            changes: steps.len() as u64,
            used: before.until(Reading::now(server)),
        }
    }

    /// The clock starts with the first commit: how long a broker takes to let a member in is not what is measured.
    async fn run_joined(
        &mut self,
        server: &Server,
        broker: Option<&Broker>,
        steps: &[Step],
    ) -> Run {
        let now = || Reading::beside(Some(server), broker);
        self.fill(steps).await;
        let target = Arc::clone(&self.road.target);
        let start = target.committed();
        self.road.start();
        target.reach(start + 1).await;
        let (before, first) = (now(), target.committed() - start);
        self.road.drained().await;
        Run {
            changes: steps.len() as u64 - first,
            used: before.until(now()),
        }
    }

    async fn fill(&mut self, steps: &[Step]) {
        self.road.stop().await;
        let topic = Arc::clone(&self.road.topic);
        for steps in steps.chunks(10_000) {
            let entries = steps.iter().map(|(number, state, version)| {
                load::entry(&topic, *number, *state, *version, self.parents)
            });
            self.road.append(entries.collect()).await;
        }
    }
}

/// A broker may hold topics of another run.
fn prefix() -> String {
    format!("bench-{}", std::process::id())
}

/// A log of its own.
fn memory() -> Arc<dyn Log> {
    Arc::new(MemoryLog::new(Arc::new(SystemClock)))
}

/// Crosswalk entries of the parents: what a look-up by record id finds.
async fn seed_parents(server: &Server, name: &str) {
    let client = server.client().await;
    for parent in 0..load::LOOKUPS {
        let (records, gsids): (Vec<_>, Vec<_>) = (0..load::PARENTS)
            .map(|number| {
                (
                    load::parent_id(parent, number),
                    load::parent_gsid(parent, number),
                )
            })
            .unzip();
        let sql = format!(
            "INSERT INTO {name}_ledger.crosswalk (connection, destination, record, object, gsid, version, gone)
             SELECT 'acme', 'parent_{parent}', s.r, 'Parent', s.g, '0000000001000000000001', false
             FROM unnest($1::text[], $2::uuid[]) s(r, g)"
        );
        client.execute(&sql, &[&records, &gsids]).await.unwrap();
        let sql = format!(
            "INSERT INTO {name}_ledger.feed (connection, destination, object) VALUES ('acme', 'parent_{parent}', 'Parent')"
        );
        client.batch_execute(&sql).await.unwrap();
    }
}

/// An opponent on tables that a target made, on some connections.
struct Bare {
    lanes: Vec<Opponent>,
    plan: Plan,
    parents: Parents,
    way: Way,
}

impl Bare {
    async fn new(server: &Server, name: &str, way: Way, writers: usize, parents: Parents) -> Self {
        let plan = load::plan(parents);
        let target = PostgresTarget::open(server.target(name, 1), Arc::new(SystemClock))
            .await
            .unwrap();
        target.ensure(&plan.objects).await.unwrap();
        target.prepare(plan.mapping.plan()).await.unwrap();
        target.close().await.unwrap();
        let mut lanes = Vec::new();
        for lane in 0..writers {
            lanes.push(Opponent::new(server, name, way, lane as i32).await);
        }
        Self {
            lanes,
            plan,
            parents,
            way,
        }
    }

    async fn run(&mut self, server: &Server, steps: &[Step], size: usize) -> Run {
        let mut work: Vec<Vec<Buffers>> = self.lanes.iter().map(|_| Vec::new()).collect();
        let count = work.len();
        for (partition, steps) in batches(steps, size) {
            let buffers = encode(
                &self.plan.mapping,
                &steps,
                self.parents,
                self.way == Way::Copy,
            );
            work[partition as usize % count].push(buffers);
        }
        let before = Reading::now(Some(server));
        let lanes = self.lanes.drain(..).zip(work).map(|(mut lane, work)| {
            tokio::spawn(async move {
                for buffers in &work {
                    lane.write(buffers).await;
                }
                (lane, work)
            })
        });
        let lanes: Vec<_> = lanes.collect();
        // Buffers are dropped after the clock has stopped.
        let mut done = Vec::new();
        for lane in lanes {
            done.push(lane.await.unwrap());
        }
        let used = before.until(Reading::now(Some(server)));
        self.lanes.extend(done.into_iter().map(|(lane, _)| lane));
        Run {
            changes: steps.len() as u64,
            used,
        }
    }
}

struct Sizes {
    rows: usize,
    changes: usize,
    pairs: usize,
    writers: usize,
}

fn main() {
    let sizes = Sizes {
        rows: setting("TRIBUTARY_BENCH_ROWS", 100_000),
        changes: setting("TRIBUTARY_BENCH_CHANGES", 24_000),
        pairs: setting("TRIBUTARY_BENCH_PAIRS", 5),
        writers: setting(
            "TRIBUTARY_BENCH_WRITERS",
            std::thread::available_parallelism().map_or(1, usize::from),
        ),
    };
    machine::introduce();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        if wants("sqlite") {
            sqlite(&sizes).await;
        }
        let broker = Broker::given();
        if broker.is_none() && wants("kafka") {
            println!("no Kafka: `tests/kafka cargo bench --bench store -- kafka`");
        }
        if !["apply", "lookups", "writers", "batches", "kafka"]
            .into_iter()
            .any(wants)
        {
            return;
        }
        let server = Server::start();
        if wants("apply") {
            apply(&server, &sizes).await;
        }
        if wants("lookups") {
            lookups(&server, &sizes).await;
        }
        if wants("writers") {
            writers(&server, &sizes).await;
        }
        if wants("batches") {
            few_a_batch(&server, &sizes).await;
        }
        if let Some(broker) = broker.filter(|_| wants("kafka")) {
            kafka(&server, &broker, &sizes).await;
        }
    });
}

async fn apply(server: &Server, sizes: &Sizes) {
    let writers = sizes.writers;
    let mut daemon = Daemon::on_postgres(server, "daemon", writers, Parents::None, memory()).await;
    let mut opponents = [
        Bare::new(server, "ledgered", Way::Ledgered, writers, Parents::None).await,
        Bare::new(server, "bare", Way::Bare, writers, Parents::None).await,
        Bare::new(server, "plain", Way::Copy, writers, Parents::None).await,
    ];
    let mut records = Records::new(0);
    let first = records.next(Kind::Insert, sizes.rows);
    daemon.run(Some(server), &first).await;
    for opponent in &mut opponents {
        opponent.run(server, &first, BATCH).await;
    }
    let floor = |floor, goal| Some(Bar { floor, goal });
    for kind in [Kind::Insert, Kind::Update, Kind::HalfUnchanged] {
        let (name, arms, bars): (&str, &[&str], _) = match kind {
            Kind::Insert => (
                "all new",
                &[
                    "daemon",
                    "same tables, bare statements",
                    "rows alone, upsert",
                    "rows alone, COPY",
                ],
                vec![floor(0.75, 0.85), None, floor(0.45, 0.55)],
            ),
            Kind::Update => (
                "four fifths known",
                &[
                    "daemon",
                    "same tables, bare statements",
                    "rows alone, upsert",
                ],
                vec![floor(0.75, 0.85), None],
            ),
            Kind::HalfUnchanged => (
                "half unchanged",
                &[
                    "daemon",
                    "same tables, bare statements",
                    "rows alone, upsert",
                ],
                vec![floor(0.75, 0.85), None],
            ),
        };
        let mut comparison = Comparison::new(
            format!("memory to PostgreSQL, {name}, {writers} connections"),
            arms,
        );
        server.forget_statements().await;
        for pair in 0..=sizes.pairs {
            server.vacuum().await;
            let steps = records.next(kind, sizes.changes);
            let mut runs = vec![daemon.run(Some(server), &steps).await];
            for (opponent, _) in opponents.iter_mut().zip(1..arms.len()) {
                runs.push(opponent.run(server, &steps, BATCH).await);
            }
            for (arm, run) in runs.into_iter().enumerate().filter(|_| pair > 0) {
                comparison.add(arm, run);
            }
        }
        comparison.tell(&bars);
        server.tell_statements(name).await;
    }
}

/// The arm with look-ups also has three fields and three columns more.
async fn lookups(server: &Server, sizes: &Sizes) {
    let (looked_up, none) = (Parents::LookedUp, Parents::None);
    let writers = sizes.writers;
    let with = Daemon::on_postgres(server, "looked_up", writers, looked_up, memory()).await;
    let without = Daemon::on_postgres(server, "not_looked_up", writers, none, memory()).await;
    let arms = [("three look-ups", with), ("none", without)];
    let bar = Bar {
        floor: 0.95,
        goal: 0.95,
    };
    daemons(server, sizes, "look-ups", arms, bar).await;
}

async fn writers(server: &Server, sizes: &Sizes) {
    let two = Daemon::on_postgres(server, "two_writers", 2, Parents::None, memory()).await;
    let one = Daemon::on_postgres(server, "one_writer", 1, Parents::None, memory()).await;
    let arms = [("two writers", two), ("one", one)];
    let bar = Bar {
        floor: 1.5,
        goal: 1.5,
    };
    daemons(server, sizes, "writers", arms, bar).await;
}

/// What a quiet topic yields against what one with a backlog does.
async fn few_a_batch(server: &Server, sizes: &Sizes) {
    let capped = |most| async move {
        let log = CappedLog {
            inner: memory(),
            most,
        };
        let name = format!("batches_of_{most}");
        Daemon::on_postgres(server, &name, sizes.writers, Parents::None, Arc::new(log)).await
    };
    let arms = [
        ("batches of 100", capped(100).await),
        ("of 1,000", capped(BATCH).await),
    ];
    let bar = Bar {
        floor: 0.6,
        goal: 0.6,
    };
    daemons(server, sizes, "batches", arms, bar).await;
}

/// The job on a topic of a broker on the same cores.
async fn kafka(server: &Server, broker: &Broker, sizes: &Sizes) {
    let (writers, none) = (sizes.writers, Parents::None);
    let log = Arc::new(broker.log());
    let mut on_kafka = Daemon::on_postgres(server, "on_kafka", writers, none, log).await;
    let mut bare = Bare::new(server, "beside_kafka", Way::Ledgered, writers, none).await;
    let mut in_memory = Daemon::on_postgres(server, "in_memory", writers, none, memory()).await;
    let mut records = Records::new(0);
    let first = records.next(Kind::Insert, sizes.rows);
    on_kafka.run_joined(server, Some(broker), &first).await;
    bare.run(server, &first, BATCH).await;
    in_memory.run(Some(server), &first).await;
    let bar = Some(Bar {
        floor: 0.6,
        goal: 0.7,
    });
    for (kind, what) in [
        (Kind::Insert, "all new"),
        (Kind::Update, "four fifths known"),
    ] {
        let arms = [
            "daemon, topic on Kafka",
            "same tables, bare statements",
            "daemon, topic in memory",
        ];
        let name = format!("Kafka to PostgreSQL, {what}, {writers} connections");
        let mut comparison = Comparison::new(name, &arms);
        for pair in 0..=sizes.pairs {
            server.vacuum().await;
            let steps = records.next(kind, sizes.changes);
            let runs = [
                on_kafka.run_joined(server, Some(broker), &steps).await,
                bare.run(server, &steps, BATCH).await,
                in_memory.run_joined(server, None, &steps).await,
            ];
            for (arm, run) in runs.into_iter().enumerate().filter(|_| pair > 0) {
                comparison.add(arm, run);
            }
        }
        comparison.tell(&[bar, None]);
    }
}

/// The store in a file of this process, against loops that run the same statements.
async fn sqlite(sizes: &Sizes) {
    // On a disk: /tmp may be memory.
    let folder = tempfile::Builder::new()
        .prefix("tributary-bench-")
        .tempdir_in("/var/tmp")
        .unwrap();
    let file = |name: &str| folder.path().join(name);
    let mut daemon = Daemon::on_sqlite(&file("daemon.db")).await;
    let mut loops = [
        Loop::new(&file("rows.db"), What::Rows).await,
        Loop::new(&file("ledgered.db"), What::Ledgered).await,
    ];
    let mut records = Records::new(0);
    let first = records.next(Kind::Insert, sizes.rows);
    daemon.run(None, &first).await;
    for bare in &mut loops {
        bare.run(&first, BATCH).await;
    }
    let goal = Some(Bar {
        floor: 0.8,
        goal: 0.8,
    });
    for (kind, what) in [
        (Kind::Insert, "all new"),
        (Kind::Update, "four fifths known"),
        (Kind::HalfUnchanged, "half unchanged"),
    ] {
        let arms = [
            "daemon",
            "rows alone, upsert",
            "same tables, bare statements",
        ];
        let mut comparison = Comparison::new(format!("memory to SQLite, {what}"), &arms);
        for pair in 0..=sizes.pairs {
            let steps = records.next(kind, sizes.changes);
            let mut runs = vec![daemon.run(None, &steps).await];
            checkpointed(&file("daemon.db"), None).await;
            for bare in &mut loops {
                runs.push(bare.run(&steps, BATCH).await);
            }
            for (arm, run) in runs.into_iter().enumerate().filter(|_| pair > 0) {
                comparison.add(arm, run);
            }
        }
        comparison.tell(&[goal, None]);
    }
}

/// One daemon against another, on the same changes.
async fn daemons(
    server: &Server,
    sizes: &Sizes,
    name: &str,
    mut arms: [(&str, Daemon); 2],
    bar: Bar,
) {
    let mut records = Records::new(0);
    let first = records.next(Kind::Insert, sizes.rows);
    for (_, daemon) in &mut arms {
        daemon.run(Some(server), &first).await;
    }
    for (kind, what) in [
        (Kind::Insert, "all new"),
        (Kind::Update, "four fifths known"),
    ] {
        let names = [arms[0].0, arms[1].0];
        let mut comparison = Comparison::new(format!("{name}, {what}"), &names);
        server.forget_statements().await;
        for pair in 0..=sizes.pairs {
            server.vacuum().await;
            let steps = records.next(kind, sizes.changes);
            for (arm, (_, daemon)) in arms.iter_mut().enumerate() {
                let run = daemon.run(Some(server), &steps).await;
                if pair > 0 {
                    comparison.add(arm, run);
                }
            }
        }
        comparison.tell(&[Some(bar)]);
        server.tell_statements(what).await;
        for (arm, daemon) in &arms {
            let target = &daemon.road.target;
            let size = target.committed() as f64 / target.batches() as f64;
            println!("  {arm}: {size:.0} changes a batch");
        }
    }
}
