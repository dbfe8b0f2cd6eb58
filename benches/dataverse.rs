//! A first sync of Dataverse: records a second from a simulated environment into the topic and into the store, the
//! daemon's memory, and the calls.
//!
//! `cargo bench --bench dataverse`. Set up as the bench `bulk`, whose words its figures have; the records come by pages of
//! 5,000 of one read with change tracking, whose last page gives the place from which changes are followed. The calls are
//! those that the environment counted (`/_sim/calls`). How many records: `TRIBUTARY_BENCH_RECORDS` (1,000,000).
//! `TRIBUTARY_BENCH_KILL=1` kills the daemon (`kill -9`) when half was read; the next one goes on at its page, and the
//! figures hold both lives.
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use rig::first_sync::{FirstSync, get, write_config};
use rig::machine;
use rig::report::setting;
use tributary_sim::dynamics::{SimOptions, start};

const CLIENT: &str = "c11e0000-0000-4000-8000-00000000d001";
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
        client_id: CLIENT.to_owned(),
        client_secret: SECRET.to_owned(),
        ..SimOptions::default()
    })
    .await
    .unwrap();
    let config = home.path().join("config");
    let connection = format!(
        "kind = \"dynamics\"\norg = \"{url}\"\nauthority_url = \"{url}\"\nplain_text = true\nread_lag = \"0s\"\n\
         auth = {{ flow = \"client_credentials\", client_id = \"{CLIENT}\", client_secret = {{ env = \"BENCH_SECRET\" }} }}\n",
        url = org.url
    );
    let job = "source = \"account\"\n[to.Company]\nidentifiers = [\"dynamics_account_id\"]\n[to.Company.map]\n\
               dynamics_account_id = \"accountid\"\nname = \"name\"\nindustry = \"industrycode@label\"\nannual_revenue = \"revenue\"\n\
               currency_iso_code = { value = \"USD\" }\n\
               employees = \"numberofemployees\"\n";
    write_config(
        &config,
        &[
            ("tributary.toml", "[admin]\nlisten = \"127.0.0.1:0\"\n"),
            ("connections/contoso.toml", &connection),
            ("jobs/contoso/company_sync.toml", job),
        ],
    );
    let sync = FirstSync {
        name: "dataverse",
        connection: "contoso",
        object: "account",
        job: "company_sync",
        records,
        kill: setting("TRIBUTARY_BENCH_KILL", 0) > 0,
    };
    let took = sync.run(&config, SECRET).await;
    let http = reqwest::Client::new();
    let counts = get(&http, &format!("{}/_sim/calls", org.url)).await;
    let web_api = &counts["web_api"];
    let calls = web_api.as_object().unwrap().values();
    let calls = calls.filter_map(serde_json::Value::as_u64).sum();
    sync.tell(&took, calls, web_api);
}

fn write_org(folder: &Path, records: u64) {
    std::fs::create_dir_all(folder).unwrap();
    let file = std::fs::File::create(folder.join("account.csv")).unwrap();
    let mut file = std::io::BufWriter::new(file);
    writeln!(file, "accountid,name,industrycode,revenue,numberofemployees,address1_city,address1_country,telephone1,websiteurl,description").unwrap();
    let mut line = String::new();
    for number in 0..records {
        line.clear();
        write!(
            line,
            "aaaaaaaa-0000-4000-8000-{number:012x},Acme {number},16,{number}.50,{},Bern,Switzerland,+41 31 {number:07},https://a{number}.example,\
             \"Line one of {number},\nand \"\"two\"\"\"",
            number % 10_000
        )
        .unwrap();
        writeln!(file, "{line}").unwrap();
    }
    file.flush().unwrap();
}
