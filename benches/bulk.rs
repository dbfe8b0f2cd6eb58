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
use std::io::Write as _;
use std::path::Path;

use rig::first_sync::{FirstSync, get, write_config};
use rig::machine;
use rig::report::setting;
use tributary_sim::salesforce::{SimOptions, start};

const SECRET: &str = "bench-secret";

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
        client_secret: SECRET.to_owned(),
        ..SimOptions::default()
    })
    .await
    .unwrap();
    let config = home.path().join("config");
    let connection = format!(
        "kind = \"salesforce\"\ntransport = \"cometd\"\norg = \"{}\"\nplain_text = true\nread_lag = \"0s\"\nbulk_from = 1\n\
         auth = {{ flow = \"client_credentials\", client_id = \"bench\", client_secret = {{ env = \"BENCH_SECRET\" }} }}\n",
        org.url
    );
    let job = "source = \"Account\"\n[to.Company]\nidentifiers = [\"salesforce_account_id\"]\n[to.Company.map]\n\
               salesforce_account_id = \"Id\"\nname = \"Name\"\nindustry = \"Industry\"\nannual_revenue = \"AnnualRevenue\"\n\
               employees = \"NumberOfEmployees\"\n";
    write_config(
        &config,
        &[
            ("tributary.toml", "[admin]\nlisten = \"127.0.0.1:0\"\n"),
            ("connections/acme.toml", &connection),
            ("jobs/acme/company_sync.toml", job),
        ],
    );
    let sync = FirstSync {
        name: "bulk",
        connection: "acme",
        object: "Account",
        job: "company_sync",
        records,
        kill: false,
    };
    let took = sync.run(&config, SECRET).await;
    let http = reqwest::Client::new();
    let counts = get(&http, &format!("{}/_sim/counts", org.url)).await;
    let calls = counts["api_usage"].as_u64().unwrap();
    sync.tell(&took, calls, &counts["calls"]);
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
