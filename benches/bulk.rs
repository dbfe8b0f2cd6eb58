//! A first sync by the Bulk API 2.0: records a second from a simulated org into the topic, and the daemon's peak memory.
//!
//! `cargo bench --bench bulk`. The daemon is the real binary in a process of its own, with the embedded log and one job
//! into a SQLite file; the org is simulated in this process, so that the peak (`VmHWM`) is the daemon's alone. The time runs
//! from when the daemon serves to the last page durable in the topic: signing in, the counting and the Bulk job's own run
//! are in it, and the way into the store runs beside it. How many records: `TRIBUTARY_BENCH_RECORDS` (1,000,000). Flat memory: two sizes have like peaks.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tributary_sim::salesforce::{SimOptions, start};

const LOOK: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() {
    let records = std::env::var("TRIBUTARY_BENCH_RECORDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000_000);
    let home = tempfile::tempdir().unwrap();
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
    let began = Instant::now();
    let http = reqwest::Client::new();
    let (mut first, mut shown) = (None, 0);
    loop {
        let health: Json = http
            .get(format!("{}/api/v1/health", daemon.url))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let account = &health["connections"]["acme"]["objects"]["Account"];
        let read = account["rows_read"].as_u64().unwrap_or_default();
        if read > 0 && first.is_none() {
            first = Some(began.elapsed());
        }
        if read >= shown + records / 10 {
            shown = read;
            println!("{read:>9} records   {} MiB", daemon.memory("VmRSS:"));
        }
        if !account["synced_at"].is_null() {
            assert_eq!(read, records);
            break;
        }
        assert!(
            daemon.child.try_wait().unwrap().is_none(),
            "the daemon ended"
        );
        tokio::time::sleep(LOOK).await;
    }
    let took = began.elapsed();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    println!(
        "{records} records: {:.0}/s   {:.1} s, the first after {:.1} s   peak {} MiB   load average {}",
        records as f64 / took.as_secs_f64(),
        took.as_secs_f64(),
        first.unwrap_or_default().as_secs_f64(),
        daemon.memory("VmHWM:"),
        load.split(' ').next().unwrap_or_default(),
    );
    if cfg!(debug_assertions) {
        println!("a debug build: the figures mean nothing");
    }
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

    /// MiB of a line of its status.
    fn memory(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let kib = status
            .lines()
            .find_map(|found| found.strip_prefix(line))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.unwrap_or_default() / 1024
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
