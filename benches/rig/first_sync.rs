//! A first sync as a bench sees it: the real binary in a process of its own, an org in this one, and when what had ended.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::machine::{self, Reading, Used, Watch};
use super::report::{line, round};

const LOOK: Duration = Duration::from_millis(100);
/// How often the memory is told on the way.
const STEPS: u64 = 10;

/// What is synced, as the health page names it.
pub struct FirstSync<'a> {
    /// Of the JSON line.
    pub name: &'a str,
    pub connection: &'a str,
    pub object: &'a str,
    pub job: &'a str,
    pub records: u64,
    /// The daemon is killed once when half was read, and goes on.
    pub kill: bool,
}

/// What a sync took.
pub struct Took {
    ended: Ended,
    /// Of the last daemon.
    peak: u64,
    own: Duration,
    used: Used,
    /// Records read when it was killed, and where the next one went on.
    resumed: Option<(u64, u64)>,
}

/// When what had ended.
#[derive(Default)]
struct Ended {
    first: Option<Duration>,
    topic: Option<Duration>,
    store: Option<Duration>,
    over: Option<Duration>,
}

impl Ended {
    fn all(&self) -> bool {
        self.topic.is_some() && self.store.is_some() && self.over.is_some()
    }
}

impl FirstSync<'_> {
    /// Runs it with the config of a folder, whose secret `secret` is.
    pub async fn run(&self, config: &Path, secret: &str) -> Took {
        let mut daemon = Daemon::start(config, secret);
        let mut watch = Watch::start(daemon.child.id());
        let (began, before) = (Instant::now(), Reading::now(None));
        let http = reqwest::Client::new();
        let mut ended = Ended::default();
        let (mut shown, mut stored_before, mut killed) = (0, 0, None);
        let (mut resumed, mut own) = (None, Duration::ZERO);
        while !ended.all() {
            tokio::time::sleep(LOOK).await;
            let health = get(&http, &format!("{}/api/v1/health", daemon.url)).await;
            let object = &health["connections"][self.connection]["objects"][self.object];
            let read = object["rows_read"].as_u64().unwrap_or_default();
            let job = &health["jobs"][self.connection][self.job];
            let inserted = job["rows"]["inserted"].as_u64().unwrap_or_default();
            let stored = stored_before + inserted;
            if let (Some(at), None, true) = (killed, resumed, read > 0) {
                resumed = Some((at, read));
            }
            let now = began.elapsed();
            let note = |place: &mut Option<Duration>, is: bool| {
                if is && place.is_none() {
                    *place = Some(now);
                }
            };
            note(&mut ended.first, read > 0);
            note(&mut ended.topic, read == self.records);
            // What the killed one had inserted last, it could not tell any more.
            let lag = job["lag_records"].as_u64();
            let is_applied = killed.is_some() && ended.topic.is_some() && lag == Some(0);
            note(&mut ended.store, stored == self.records || is_applied);
            note(&mut ended.over, !object["synced_at"].is_null());
            if read.min(stored) >= shown + self.records / STEPS {
                shown = read.min(stored);
                let (mean, most) = watch.take();
                println!(
                    "{:>6.1} s   {read:>9} read   {stored:>9} stored   memory {mean} MiB, at most {most}",
                    now.as_secs_f64()
                );
            }
            assert!(
                daemon.child.try_wait().unwrap().is_none(),
                "the daemon ended"
            );
            if self.kill && killed.is_none() && read >= self.records / 2 && ended.topic.is_none() {
                own += machine::time_of(daemon.child.id());
                killed = Some(read);
                stored_before = stored;
                drop(daemon);
                daemon = Daemon::start(config, secret);
                watch = Watch::start(daemon.child.id());
            }
        }
        let used = before.until(Reading::now(None));
        own += machine::time_of(daemon.child.id());
        let (_, peak) = machine::memory_of(daemon.child.id());
        Took {
            ended,
            peak,
            own,
            used,
            resumed,
        }
    }

    /// Prints what it took.
    pub fn tell(&self, took: &Took, calls: u64, counts: &Json) {
        let (records, ended) = (self.records, &took.ended);
        let seconds = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64();
        let rate = |time| records as f64 / seconds(time);
        // The daemon's process is foreign to this one.
        let foreign = took.used.foreign - took.own.as_secs_f64() / took.used.time.as_secs_f64();
        println!(
            "{records} records   into the topic {:.0}/s ({:.1} s, the first page after {:.1} s)   into the store {:.0}/s ({:.1} s)   \
             over after {:.1} s",
            rate(ended.topic),
            seconds(ended.topic),
            seconds(ended.first),
            rate(ended.store),
            seconds(ended.store),
            seconds(ended.over),
        );
        println!(
            "peak {} MiB   daemon {:.1} us a record, org {:.1}   foreign {foreign:.2} cores",
            took.peak,
            took.own.as_secs_f64() * 1e6 / records as f64,
            took.used.own.as_secs_f64() * 1e6 / records as f64,
        );
        if let Some((killed, on)) = took.resumed {
            println!("killed after {killed} records, gone on with {on} of them read");
        }
        println!("calls {calls}: {counts}");
        line(serde_json::json!({
            self.name: records, "topic_per_second": rate(ended.topic).round(), "store_per_second": rate(ended.store).round(),
            "over_seconds": round(seconds(ended.over)), "peak_mib": took.peak, "calls": calls,
            "foreign_cores": round(foreign),
        }));
    }
}

/// The JSON of an address.
pub async fn get(http: &reqwest::Client, url: &str) -> Json {
    http.get(url).send().await.unwrap().json().await.unwrap()
}

/// Writes a config's files into a folder.
pub fn write_config(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

/// The daemon; killed when dropped.
struct Daemon {
    child: Child,
    url: String,
}

impl Daemon {
    fn start(config: &Path, secret: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tributary"))
            .args(["serve", "--log-json", "--config"])
            .arg(config)
            .env("BENCH_SECRET", secret)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().unwrap().unwrap();
            let told: Json = serde_json::from_str(&line).unwrap_or_default();
            if line.contains("daemon started") {
                break told["address"].as_str().unwrap().to_owned();
            }
        };
        // A full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            url: format!("http://{address}"),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
