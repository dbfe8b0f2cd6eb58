//! From a topic in memory to a store: the job as the daemon runs it, against the bare technique on the same server.
//!
//! `cargo bench --bench store [-- PART…]`, parts: `apply` `lookups` `writers`.
//!
//! The server is PostgreSQL on this machine, by a Unix socket, with fsync (`rig/server.rs`). A change has 1 KB of JSON
//! and 20 mapped columns; the store holds `TRIBUTARY_BENCH_ROWS` rows (100,000) before anything is timed. Per pair
//! every arm writes `TRIBUTARY_BENCH_CHANGES` changes (24,000) into tables of its own, cut into the same batches; arms
//! take turns; `TRIBUTARY_BENCH_PAIRS` pairs (5) after one that does not count. Buffers and topics are made before
//! the clock starts. `TRIBUTARY_BENCH_WRITERS` connections: one per core unless set. `TRIBUTARY_BENCH_STATEMENTS=1`: the
//! server counts what each statement takes (pg_stat_statements), all arms and pairs together.
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use std::collections::BTreeMap;
use std::sync::Arc;

use rig::load::{self, Parents, Plan};
use rig::machine::{self, Reading};
use rig::opponent::{Buffers, Opponent, Way, encode};
use rig::report::{Bar, Comparison, Run, setting, wants};
use rig::road::Road;
use rig::server::Server;
use tributary::log::port::partition_of;
use tributary::runtime::clock::SystemClock;
use tributary::target::port::Target;
use tributary::target::postgres::PostgresTarget;

/// What a batch holds at most, as in the job.
const BATCH: usize = 1000;
const PARTITIONS: u32 = 8;

/// Number, state and version of a change.
type Step = (usize, usize, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Records that are new.
    Insert,
    /// Four fifths known, all of them changed; the rest new.
    Update,
    /// All known, every second one as it was.
    HalfUnchanged,
}

/// What the records of an arm's tables are.
struct Records {
    states: Vec<usize>,
    round: usize,
}

impl Records {
    fn new(rows: usize) -> Self {
        Self {
            states: vec![0; rows],
            round: 0,
        }
    }

    /// The next changes: each record once.
    fn next(&mut self, kind: Kind, count: usize) -> Vec<Step> {
        self.round += 1;
        let version = self.round as u64 + 1;
        let known = match kind {
            Kind::Insert => 0,
            Kind::Update => count * 4 / 5,
            Kind::HalfUnchanged => count,
        };
        let rows = self.states.len();
        assert!(
            known <= rows,
            "set TRIBUTARY_BENCH_ROWS to more than the changes"
        );
        let mut steps = Vec::with_capacity(count);
        for place in 0..known {
            // A walk that meets every record once before it meets one again, and has no order.
            let number = (self.round * 7919 + place).wrapping_mul(1_000_003) % rows;
            if kind == Kind::Update || place % 2 == 0 {
                self.states[number] += 1;
            }
            steps.push((number, self.states[number], version));
        }
        for number in rows..rows + count - known {
            self.states.push(0);
            steps.push((number, 0, version));
        }
        // New and known ones mixed, as they come.
        steps.sort_unstable_by_key(|(number, _, _)| load::mix(*number + self.round));
        steps
    }
}

/// The batches in which the job gets them.
fn batches(steps: &[Step], size: usize) -> Vec<(u32, Vec<Step>)> {
    let mut partitions: BTreeMap<u32, Vec<Step>> = BTreeMap::new();
    for step in steps {
        let partition = partition_of(load::record(step.0).as_str().as_bytes(), PARTITIONS);
        partitions.entry(partition).or_default().push(*step);
    }
    let cut = |(partition, steps): (u32, Vec<Step>)| {
        let parts: Vec<_> = steps
            .chunks(size)
            .map(|part| (partition, part.to_vec()))
            .collect();
        parts
    };
    partitions.into_iter().flat_map(cut).collect()
}

/// The daemon's job on tables of its own.
struct Daemon {
    road: Road,
    parents: Parents,
}

impl Daemon {
    async fn on_postgres(server: &Server, name: &str, writers: usize, parents: Parents) -> Self {
        let target = PostgresTarget::open(server.target(name, writers), Arc::new(SystemClock))
            .await
            .unwrap();
        let plan = load::plan(parents);
        let road = Road::in_memory(&plan, Arc::new(target)).await;
        if parents == Parents::LookedUp {
            seed_parents(server, name).await;
        }
        Self::started(road, parents)
    }

    fn started(mut road: Road, parents: Parents) -> Self {
        road.start();
        Self { road, parents }
    }

    /// The job is stopped while its topic is filled.
    async fn run(&mut self, server: Option<&Server>, steps: &[Step]) -> Run {
        self.road.stop().await;
        let topic = Arc::clone(&self.road.topic);
        let entries = steps.iter().map(|(number, state, version)| {
            load::entry(&topic, *number, *state, *version, self.parents)
        });
        self.road.append(entries.collect()).await;
        let before = Reading::now(server);
        self.road.start();
        self.road.drained().await;
        Run {
            changes: steps.len() as u64,
            used: before.until(Reading::now(server)),
        }
    }
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
    println!("{}", machine::describe());
    if cfg!(debug_assertions) {
        println!("a debug build: the figures mean nothing");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
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
    });
}

async fn apply(server: &Server, sizes: &Sizes) {
    let writers = sizes.writers;
    let mut daemon = Daemon::on_postgres(server, "daemon", writers, Parents::None).await;
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
    let with = Daemon::on_postgres(server, "looked_up", sizes.writers, Parents::LookedUp).await;
    let without = Daemon::on_postgres(server, "not_looked_up", sizes.writers, Parents::None).await;
    let arms = [("three look-ups", with), ("none", without)];
    let bar = Bar {
        floor: 0.95,
        goal: 0.95,
    };
    daemons(server, sizes, "look-ups", arms, bar).await;
}

async fn writers(server: &Server, sizes: &Sizes) {
    let two = Daemon::on_postgres(server, "two_writers", 2, Parents::None).await;
    let one = Daemon::on_postgres(server, "one_writer", 1, Parents::None).await;
    let arms = [("two writers", two), ("one", one)];
    let bar = Bar {
        floor: 1.5,
        goal: 1.5,
    };
    daemons(server, sizes, "writers", arms, bar).await;
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
    }
}
