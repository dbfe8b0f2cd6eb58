//! A job that is far behind: how fast it catches up, and whether its memory stays flat while it does.
//!
//! `cargo bench --bench catch_up [-- postgres | sqlite]`, PostgreSQL unless said. An embedded log on disk holds
//! `TRIBUTARY_BENCH_CHANGES` changes (5,000,000) of 1 KB with 20 mapped columns, of `TRIBUTARY_BENCH_ROWS` records
//! (1,000,000): the first of each record inserts a row, the others change all of it but its identifier. The log is
//! filled before anything is timed.
//!
//! The job, log and target run as the daemon runs them in a process of their own, this binary started again, so that
//! the memory is theirs alone: `VmRSS` of `/proc`, looked at every 100 ms, and `VmHWM`, its peak. The time runs from the job's
//! start. PostgreSQL is the one of `rig/server.rs` with autovacuum on, since nobody tidies up in between; the log's
//! compaction does not run. Wants 1.5 GB of disk per million changes.
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use std::io::{BufRead, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rig::load::{self, Parents};
use rig::machine::{self, Reading};
use rig::report::{line, setting};
use rig::road::Road;
use rig::server::{self, Server};
use tributary::flow::road::{topic_name, topic_spec};
use tributary::log::embedded::{EmbeddedLog, Settings};
use tributary::log::port::Log;
use tributary::runtime::clock::SystemClock;
use tributary::target::port::Target;
use tributary::target::postgres::PostgresTarget;
use tributary::target::sqlite::SqliteTarget;

const PREFIX: &str = "bench";
/// Entries of an append while the log is filled.
const FILLED_AT_ONCE: usize = 10_000;
/// MiB that the job may use.
const GOAL: u64 = 150;
/// How the job's process knows what it is: `job KIND HOME CHANGES STEP [URL]`.
const JOB: &str = "job";

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|first| first == JOB) {
        runtime.block_on(job(&args[1..]));
        return;
    }
    machine::introduce();
    let changes = setting("TRIBUTARY_BENCH_CHANGES", 5_000_000);
    let rows = setting("TRIBUTARY_BENCH_ROWS", 1_000_000).min(changes);
    // On a disk: /tmp may be memory.
    let home = tempfile::tempdir_in("/var/tmp").unwrap();
    let began = Instant::now();
    runtime.block_on(fill(home.path(), changes, rows));
    println!(
        "{changes} changes of {rows} records in the log after {:.0} s",
        began.elapsed().as_secs_f64()
    );
    let asked = |kind| std::env::args().skip(1).any(|arg| arg == kind);
    if asked("postgres") || !asked("sqlite") {
        let server = Server::tended();
        catch_up("postgres", home.path(), changes, Some(&server));
    }
    if asked("sqlite") {
        catch_up("sqlite", home.path(), changes, None);
    }
}

async fn open_log(home: &Path) -> EmbeddedLog {
    let log = EmbeddedLog::open(home, Arc::new(SystemClock), Settings::default());
    log.await.unwrap()
}

/// The next entries are made while the last ones are written.
async fn fill(home: &Path, changes: usize, rows: usize) {
    let log = Arc::new(open_log(home).await);
    let plan = load::plan(Parents::None);
    let job = plan.mapping.plan();
    let topic: Arc<str> = topic_name(PREFIX, &job.connection, &job.source).into();
    log.ensure(&topic_spec(&topic)).await.unwrap();
    let mut writing: Option<tokio::task::JoinHandle<()>> = None;
    for from in (0..changes).step_by(FILLED_AT_ONCE) {
        let topic = &topic;
        let entries = (from..(from + FILLED_AT_ONCE).min(changes)).map(|place| {
            // Every record once before one comes again, in no order.
            let (record, state) = ((place * 7_368_787) % rows, place / rows);
            load::entry(topic, record, state, state as u64 + 1, Parents::None)
        });
        let entries: Vec<_> = entries.collect();
        if let Some(written) = writing.take() {
            written.await.unwrap();
        }
        let log = Arc::clone(&log);
        writing = Some(tokio::spawn(async move {
            log.append(entries).await.unwrap();
        }));
    }
    if let Some(written) = writing {
        written.await.unwrap();
    }
    log.close().await.unwrap();
}

/// The job's process: tells each step that is committed, and waits for its end.
async fn job(args: &[String]) {
    let [kind, home, changes, step, rest @ ..] = args else {
        panic!("{JOB} KIND HOME CHANGES STEP [URL]: {args:?}");
    };
    let (home, changes, step) = (
        PathBuf::from(home),
        changes.parse::<u64>().unwrap(),
        step.parse::<usize>().unwrap(),
    );
    let clock = Arc::new(SystemClock);
    let target: Arc<dyn Target> = if kind == "sqlite" {
        let file = home.join("store.db");
        Arc::new(SqliteTarget::open(&file, clock).await.unwrap())
    } else {
        let settings = server::target_at(rest[0].clone(), "catch_up", 0);
        Arc::new(PostgresTarget::open(settings, clock).await.unwrap())
    };
    let log = Arc::new(open_log(&home).await);
    let plan = load::plan(Parents::None);
    let mut road = Road::on(&plan, target, log, PREFIX).await;
    tell("begun");
    road.start();
    let steps = (0..changes).step_by(step).skip(1).chain([changes]);
    for reached in steps {
        road.target.reach(reached).await;
        tell(&reached.to_string());
    }
    // Until its memory is read.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    road.stop().await;
}

fn tell(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what}").unwrap();
    out.flush().unwrap();
}

fn catch_up(kind: &str, home: &Path, changes: usize, server: Option<&Server>) {
    let step = (changes / 5).clamp(1, 1_000_000);
    let mut job = Command::new(std::env::current_exe().unwrap());
    job.args([JOB, kind]).arg(home);
    job.args([changes.to_string(), step.to_string()]);
    job.args(server.map(Server::url));
    let mut job = Job(job
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap());
    let mut told = BufReader::new(job.0.stdout.take().unwrap()).lines();
    assert_eq!(told.next().unwrap().unwrap(), "begun");
    let watch = machine::Watch::start(job.0.id());
    let (began, before) = (Instant::now(), Reading::now(server));
    println!("\ncatch-up into {kind}");
    let (mut last, mut at, mut means) = (0, Duration::ZERO, Vec::new());
    for reached in told {
        let reached: u64 = reached.unwrap().parse().unwrap();
        let now = began.elapsed();
        let (mean, most) = watch.take();
        println!(
            "  {reached:>9} changes   {:>7.0}/s   memory {mean} MiB, at most {most}",
            (reached - last) as f64 / (now - at).as_secs_f64()
        );
        means.push(mean);
        (last, at) = (reached, now);
        if reached == changes as u64 {
            break;
        }
    }
    assert_eq!(last, changes as u64, "the job ended early");
    let used = before.until(Reading::now(server));
    let (_, peak) = machine::memory_of(job.0.id());
    let own = machine::time_of(job.0.id());
    let rate = changes as f64 / at.as_secs_f64();
    // The job's process is foreign to this one.
    let foreign = used.foreign - own.as_secs_f64() / at.as_secs_f64();
    let growth = *means.last().unwrap() as f64 / means[0].max(1) as f64;
    println!(
        "  {rate:.0}/s over {:.0} s   peak {peak} MiB (goal under {GOAL}: {})   last step's memory of the first's {growth:.2}   \
         job {:.1} us a change, server {:.1}   foreign {foreign:.2} cores",
        at.as_secs_f64(),
        if peak < GOAL { "met" } else { "MISSED" },
        own.as_secs_f64() * 1e6 / changes as f64,
        used.server.as_secs_f64() * 1e6 / changes as f64,
    );
    line(serde_json::json!({
        "catch_up": kind, "changes": changes, "per_second": rate.round(), "mib": means, "peak_mib": peak,
        "foreign_cores": rig::report::round(foreign),
    }));
}

/// The job's process; killed when dropped.
struct Job(Child);

impl Drop for Job {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
