//! A first sync by the Bulk API 2.0: records a second from a simulated org into the topic and into the store, the
//! daemon's memory, and the org's calls.
//!
//! `cargo bench --bench bulk`. The daemon is the real binary in a process of its own, with the embedded log and one job
//! into a SQLite file; the org is simulated in this process, so that memory (`VmRSS` every 100 ms, `VmHWM` at the
//! end) is the daemon's alone. Both share the machine, so the org's CPU time is told beside the daemon's. The time
//! runs from when the daemon serves: signing in, the counting and the Bulk job's own run are in it. "Into the topic"
//! is the last page durable there; "into the store" is the last row committed, while the job ran beside the read from
//! the beginning; "over" is the sync's own end, after the images were walked for records that the read did not meet.
//! The calls are those that the org counted (`/_sim/counts`). How many records: `TRIBUTARY_BENCH_RECORDS`
//! (1,000,000). Flat memory: two sizes have like peaks.
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rig::machine::{self, Reading, Watch};
use rig::report::{line, setting};
use serde_json::Value as Json;
use tributary_sim::salesforce::{SimOptions, start};

const LOOK: Duration = Duration::from_millis(100);
/// How often the memory is told on the way.
const STEPS: u64 = 10;

#[tokio::main]
async fn main() {
    machine::introduce();
    let records = setting("TRIBUTARY_BENCH_RECORDS", 1_000_000) as u64;
    // On a disk: /tmp may be memory.
    let home = tempfile::tempdir_in("/var/tmp").unwrap();
    write_org(&home.path().join("org"), records);
    let org = start(SimOptions {
        data: Some(home.path().join("org")),
        client_id: "bench".to_owned(),
        client_secret: "bench-secret".to_owned(),
        ..SimOptions::default()
    })
    .await
    .unwrap();
    write_config(&home.path().join("config"), &org.url);

    let mut daemon = Daemon::start(&home.path().join("config"));
    let watch = Watch::start(daemon.child.id());
    let (began, before) = (Instant::now(), Reading::now(None));
    let http = reqwest::Client::new();
    let mut ended = Ended::default();
    let mut shown = 0;
    while !ended.all() {
        tokio::time::sleep(LOOK).await;
        let health = get(&http, &format!("{}/api/v1/health", daemon.url)).await;
        let account = &health["connections"]["acme"]["objects"]["Account"];
        let read = account["rows_read"].as_u64().unwrap_or_default();
        let stored = &health["jobs"]["acme"]["company_sync"]["rows"]["inserted"];
        let stored = stored.as_u64().unwrap_or_default();
        let now = began.elapsed();
        let note = |place: &mut Option<Duration>, is: bool| {
            if is && place.is_none() {
                *place = Some(now);
            }
        };
        note(&mut ended.first, read > 0);
        note(&mut ended.topic, read == records);
        note(&mut ended.store, stored == records);
        note(&mut ended.over, !account["synced_at"].is_null());
        if read.min(stored) >= shown + records / STEPS {
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
    }
    let used = before.until(Reading::now(None));
    let own = machine::time_of(daemon.child.id());
    let (_, peak) = machine::memory_of(daemon.child.id());
    let counts = get(&http, &format!("{}/_sim/counts", org.url)).await;
    tell(records, &ended, peak, own, used, &counts);
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

async fn get(http: &reqwest::Client, url: &str) -> Json {
    http.get(url).send().await.unwrap().json().await.unwrap()
}

fn tell(records: u64, ended: &Ended, peak: u64, own: Duration, used: machine::Used, counts: &Json) {
    let seconds = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64();
    let rate = |time| records as f64 / seconds(time);
    // The daemon's process is foreign to this one.
    let foreign = used.foreign - own.as_secs_f64() / used.time.as_secs_f64();
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
        "peak {peak} MiB   daemon {:.1} us a record, org {:.1}   foreign {foreign:.2} cores",
        own.as_secs_f64() * 1e6 / records as f64,
        used.own.as_secs_f64() * 1e6 / records as f64,
    );
    println!("calls {}: {}", counts["api_usage"], counts["calls"]);
    line(serde_json::json!({
        "bulk": records, "topic_per_second": rate(ended.topic).round(), "store_per_second": rate(ended.store).round(),
        "over_seconds": rig::report::round(seconds(ended.over)), "peak_mib": peak, "calls": counts["api_usage"],
        "foreign_cores": rig::report::round(foreign),
    }));
}

/// The daemon; killed when dropped.
struct Daemon {
    child: Child,
    url: String,
}

impl Daemon {
    fn start(config: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tributary"))
            .args(["serve", "--log-json", "--config"])
            .arg(config)
            .env("ACME_SECRET", "bench-secret")
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

fn write_org(folder: &Path, records: u64) {
    std::fs::create_dir_all(folder).unwrap();
    let file = std::fs::File::create(folder.join("Account.csv")).unwrap();
    let mut file = std::io::BufWriter::new(file);
    writeln!(file, "Id,Name,Industry,AnnualRevenue,NumberOfEmployees,BillingCity,BillingCountry,Phone,Website,Description").unwrap();
    let mut line = String::new();
    for number in 0..records {
        line.clear();
        write!(
            line,
            "001A{number:011},Acme {number},Energy,{number}.50,{},Bern,Switzerland,+41 31 {number:07},https://a{number}.example,\
             \"Line one of {number},\nand \"\"two\"\"\"",
            number % 10_000
        )
        .unwrap();
        writeln!(file, "{line}").unwrap();
    }
    file.flush().unwrap();
}

fn write_config(folder: &Path, org: &str) {
    let connection = format!(
        "kind = \"salesforce\"\ntransport = \"cometd\"\norg = \"{org}\"\nplain_text = true\nread_lag = \"0s\"\nbulk_from = 1\n\
         auth = {{ flow = \"client_credentials\", client_id = \"bench\", client_secret = {{ env = \"ACME_SECRET\" }} }}\n"
    );
    let job = "source = \"Account\"\n[to.Company]\nidentifiers = [\"salesforce_account_id\"]\n[to.Company.map]\n\
               salesforce_account_id = \"Id\"\nname = \"Name\"\nindustry = \"Industry\"\nannual_revenue = \"AnnualRevenue\"\n\
               employees = \"NumberOfEmployees\"\n";
    for (name, text) in [
        ("tributary.toml", "[admin]\nlisten = \"127.0.0.1:0\"\n"),
        ("connections/acme.toml", connection.as_str()),
        ("jobs/acme/company_sync.toml", job),
    ] {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}
