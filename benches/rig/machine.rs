//! Whose CPU time it was: this process's, the server's, the broker's, or that of others.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::broker::Broker;
use super::server::Server;

/// CPU time used so far.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    at: Instant,
    own: Duration,
    server: Duration,
    broker: Duration,
    all: Duration,
}

/// What a stretch of work took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    pub time: Duration,
    /// By this process.
    pub own: Duration,
    /// By the server and its children.
    pub server: Duration,
    /// By the broker.
    pub broker: Duration,
    /// By everybody else, in cores.
    pub foreign: f64,
}

impl Reading {
    pub fn now(server: Option<&Server>) -> Self {
        Self::beside(server, None)
    }

    pub fn beside(server: Option<&Server>, broker: Option<&Broker>) -> Self {
        Self {
            at: Instant::now(),
            own: threads("/proc/self/task"),
            server: server.map_or(Duration::ZERO, |server| family(server.pid)),
            broker: broker.map_or(Duration::ZERO, |broker| process(broker.pid)),
            all: everybody(),
        }
    }

    pub fn until(self, later: Self) -> Used {
        let time = later.at - self.at;
        let own = later.own.saturating_sub(self.own);
        let server = later.server.saturating_sub(self.server);
        let broker = later.broker.saturating_sub(self.broker);
        let foreign = later
            .all
            .saturating_sub(self.all)
            .saturating_sub(own + server + broker);
        Used {
            time,
            own,
            server,
            broker,
            foreign: foreign.as_secs_f64() / time.as_secs_f64().max(1e-9),
        }
    }
}

impl std::ops::AddAssign for Used {
    fn add_assign(&mut self, other: Self) {
        let foreign =
            self.foreign * self.time.as_secs_f64() + other.foreign * other.time.as_secs_f64();
        self.time += other.time;
        self.own += other.own;
        self.server += other.server;
        self.broker += other.broker;
        self.foreign = foreign / self.time.as_secs_f64().max(1e-9);
    }
}

/// Time on a CPU, to the nanosecond (Linux documentation, "Scheduler Statistics").
fn ran(path: &str) -> Duration {
    let text = fs::read_to_string(path).unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

/// All threads of a process that are alive.
fn threads(tasks: &str) -> Duration {
    let tasks = fs::read_dir(tasks).into_iter().flatten().flatten();
    tasks
        .map(|task| ran(&format!("{}/schedstat", task.path().display())))
        .sum()
}

/// A process and its children, which have a thread each.
fn family(parent: u32) -> Duration {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid == parent || parent_of(*pid) == Some(parent))
        .map(|pid| ran(&format!("/proc/{pid}/schedstat")))
        .sum()
}

/// A process with all threads that it has had, in hundredths of a second (proc_pid_stat(5)).
fn process(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let ticks = fields
        .skip(11)
        .take(2)
        .filter_map(|text| text.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()
}

/// What all processes used: `/proc/stat` counts hundredths of a second.
fn everybody() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default().split_whitespace();
    let ticks: Vec<u64> = fields
        .skip(1)
        .filter_map(|text| text.parse().ok())
        .collect();
    // user, nice, system; then idle and iowait; then irq, softirq, steal.
    let busy = ticks.iter().take(3).chain(ticks.iter().skip(5).take(3));
    Duration::from_millis(busy.sum::<u64>() * 10)
}

/// Memory of this process in MiB: now, and at its peak.
pub fn memory() -> (u64, u64) {
    memory_of(std::process::id())
}

/// Memory of a process in MiB: now, and at its peak.
pub fn memory_of(pid: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let mib = |name| of(name).unwrap_or_default() / 1024;
    (mib("VmRSS:"), mib("VmHWM:"))
}

/// Looks at a process's memory ten times a second.
pub struct Watch {
    seen: Arc<Mutex<Vec<u64>>>,
    over: Arc<AtomicBool>,
}

impl Watch {
    pub fn start(pid: u32) -> Self {
        let watch = Self {
            seen: Arc::default(),
            over: Arc::default(),
        };
        let (seen, over) = (Arc::clone(&watch.seen), Arc::clone(&watch.over));
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                seen.lock().unwrap().push(memory_of(pid).0);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        watch
    }

    /// Mean and most since the last look.
    pub fn take(&self) -> (u64, u64) {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        let most = seen.iter().max().copied().unwrap_or_default();
        (seen.iter().sum::<u64>() / (seen.len() as u64).max(1), most)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// CPU time of a process since its start, to a hundredth of a second.
pub fn time_of(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name: state is field 3, utime 14, stime 15.
    let rest = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = rest.split(' ').skip(11).take(2);
    Duration::from_millis(
        ticks
            .filter_map(|text| text.parse::<u64>().ok())
            .sum::<u64>()
            * 10,
    )
}

/// Tells the machine, and whether the build is one to measure.
pub fn introduce() {
    println!("{}", describe());
    if cfg!(debug_assertions) {
        println!("a debug build: the figures mean nothing");
    }
}

/// One line on the machine, for the results.
fn describe() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores of {model}, Linux {}", kernel.trim())
}
