//! `tributary demo`: a simulated org with a trickle of changes, the daemon and a store, in one process.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tributary_sim::salesforce::{Running, SimOptions};

use crate::app::{self, Daemon};
use crate::fault::{Fault, FaultKind};
use crate::flow::board::Picture;
use crate::http::request::Request;
use crate::http::{Http, HttpSettings};
use crate::runtime::shutdown::StopSignal;
use crate::runtime::tasks::Tasks;
use crate::telemetry::metrics::Metrics;

use super::args::DemoOptions;
use super::{demo_org, output};

const CLIENT: &str = "demo";
const SECRET: &str = "demo-secret";
const JOBS: &str = include_str!("demo.toml");

/// Runs the demo until Ctrl-C, SIGTERM or the end of `--seconds`.
///
/// # Errors
/// `Storage` for a directory that can't be written, `Config` for an address that can't be bound.
pub(super) async fn demo(options: DemoOptions) -> Result<ExitCode, Fault> {
    let dir = &options.dir;
    demo_org::write(&dir.join("org"), options.accounts)?;
    let org = start_org(dir).await?;
    let config = write_config(dir, &org, &options)?;
    let daemon = Daemon::start(app::load(&config)?).await?;
    greet(&daemon, &org, &config);

    let stop = StopSignal::new();
    let mut tasks = Tasks::new(stop.clone());
    let trickle = Trickle::new(&org.url, options.accounts)?;
    tasks.spawn("changing the org", trickle.run(options.rate, stop.child()));
    let ended = show(&daemon, options.seconds, &mut tasks).await;
    tasks.drain(Duration::from_secs(2)).await;
    output::print("\nstopping");
    let stopped = daemon.stop().await;
    org.stop().await.map_err(|error| {
        Fault::new(FaultKind::Unavailable, "stopping the simulated org").source(error)
    })?;
    stopped?;
    ended?;
    output::print(&format!("stopped; what it stored is in {}", dir.display()));
    Ok(ExitCode::SUCCESS)
}

async fn start_org(dir: &Path) -> Result<Running, Fault> {
    let options = SimOptions {
        data: Some(dir.join("org")),
        journal: Some(dir.join("org.journal")),
        client_id: CLIENT.to_owned(),
        client_secret: SECRET.to_owned(),
        ..SimOptions::default()
    };
    tributary_sim::salesforce::start(options)
        .await
        .map_err(|error| {
            Fault::new(FaultKind::Config, "starting the simulated org")
                .source(error)
                .remedy("choose another `--dir`, or delete it to begin anew")
        })
}

/// The demo's config in one file, so that the other commands can be tried on it.
fn write_config(dir: &Path, org: &Running, options: &DemoOptions) -> Result<PathBuf, Fault> {
    let secret = dir.join("secret");
    let path = dir.join("demo.toml");
    let text = JOBS
        .replace("{org}", &org.url)
        .replace("{pubsub}", &org.pubsub_url)
        .replace("{listen}", &options.listen.to_string())
        .replace("{client}", CLIENT);
    for (file, text) in [(&secret, SECRET), (&path, text.as_str())] {
        std::fs::write(file, text).map_err(|error| {
            Fault::new(FaultKind::Storage, format!("writing `{}`", file.display())).source(error)
        })?;
    }
    Ok(path)
}

fn greet(daemon: &Daemon, org: &Running, config: &Path) {
    output::print(&format!(
        "page     http://{address}\nmetrics  http://{address}/metrics\norg      {} (simulated Salesforce)\n\
         try      tributary rows Company --config {config}\n         tributary holes --config {config}\n\
         Ctrl-C stops it; the next start goes on from here.\n",
        org.url,
        address = daemon.address(),
        config = config.display(),
    ));
}

/// Prints a line a second until the end.
async fn show(daemon: &Daemon, seconds: Option<u64>, tasks: &mut Tasks) -> Result<(), Fault> {
    let end = async {
        match seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|error| {
        Fault::new(FaultKind::Config, "listening for signals").source(error)
    })?;
    let mut line = tokio::time::interval(Duration::from_secs(1));
    let mut shown = Shown::default();
    loop {
        tokio::select! {
            _ = line.tick() => output::print(&shown.line(&daemon.picture())),
            () = &mut end => return Ok(()),
            _ = tokio::signal::ctrl_c() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            ended = tasks.next() => {
                if let Some(ended) = ended {
                    return ended.outcome;
                }
            }
        }
    }
}

/// The live line: what moved since the one before.
#[derive(Default)]
struct Shown {
    published: u64,
    applied: u64,
}

impl Shown {
    fn line(&mut self, picture: &Picture) -> String {
        let connections = picture.connections.values();
        let published: u64 = connections
            .clone()
            .flat_map(|connection| connection.objects.values())
            .map(|object| object.published)
            .sum();
        let jobs: Vec<_> = picture
            .jobs
            .values()
            .flat_map(|jobs| jobs.values())
            .collect();
        let rows =
            |outcome: &str| -> u64 { jobs.iter().filter_map(|job| job.rows.get(outcome)).sum() };
        let (inserted, updated) = (rows("inserted") + rows("associated"), rows("updated"));
        let deleted = rows("deleted") + rows("marked");
        let applied = inserted + updated + deleted + rows("unchanged") + rows("folded");
        let lag: u64 = jobs.iter().map(|job| job.lag_records).sum();
        let seconds = jobs
            .iter()
            .filter_map(|job| job.lag_seconds)
            .fold(0.0, f64::max);
        let states: Vec<&str> = connections
            .clone()
            .map(|connection| connection.state.label())
            .collect();
        let holes: u64 = connections.map(|connection| connection.open_holes).sum();
        let line = format!(
            "{}  {}  changes {published} (+{})  rows: {inserted} new, {updated} changed, {deleted} gone (+{})  lag {lag} records, {seconds:.2} s  holes {holes}",
            chrono::Utc::now().format("%H:%M:%S"),
            states.join(" "),
            published - self.published,
            applied.saturating_sub(self.applied),
        );
        (self.published, self.applied) = (published, applied);
        line
    }
}

/// Makes changes in the org, as its users would.
struct Trickle {
    http: Http,
    url: String,
    accounts: usize,
    made: Vec<String>,
    step: u64,
}

impl Trickle {
    fn new(org: &str, accounts: usize) -> Result<Self, Fault> {
        let settings = HttpSettings {
            plain_text: true,
            ..HttpSettings::new("demo")
        };
        Ok(Self {
            http: Http::new(settings, &Metrics::none())?,
            url: format!("{org}/_sim/transactions"),
            accounts,
            made: Vec::new(),
            // Another place in the sequence at each start.
            step: chrono::Utc::now().timestamp_millis().unsigned_abs(),
        })
    }

    async fn run(mut self, rate: f64, stop: StopSignal) -> Result<(), Fault> {
        let pause = Duration::from_secs_f64(1.0 / rate.clamp(0.01, 1000.0));
        while stop.or(tokio::time::sleep(pause)).await.is_ok() {
            let operation = self.operation();
            let body = json!({ "transactions": [{ "ops": [operation] }] });
            let request = Request::post(&self.url).json(body.to_string());
            let answer = self.http.send(request).await?;
            if !answer.is_success() {
                return Err(answer.fault());
            }
            if let Ok(made) = serde_json::from_slice::<Json>(answer.body()) {
                self.remember(&made);
            }
        }
        Ok(())
    }

    fn operation(&mut self) -> Json {
        self.step += 1;
        let step = self.step;
        let any =
            |of: usize| usize::try_from(step.wrapping_mul(7919) % of.max(1) as u64).unwrap_or(0);
        let account = demo_org::id("001", any(self.accounts));
        match step % 12 {
            0 => {
                json!({ "op": "create", "object": "Account", "fields": { "Name": format!("Newcomer {step}"), "Industry": "Retail" } })
            }
            5 if self.made.len() > 3 => {
                json!({ "op": "delete", "object": "Account", "id": self.made.remove(0) })
            }
            1 | 7 => {
                json!({ "op": "update", "object": "Account", "id": account, "fields": { "Industry": null } })
            }
            2..=5 => {
                json!({ "op": "update", "object": "Account", "id": account, "fields": { "NumberOfEmployees": 10 + step % 9000, "Industry": "Energy" } })
            }
            _ => {
                json!({ "op": "update", "object": "Opportunity", "id": demo_org::id("006", any(self.accounts * 3)), "fields": { "Amount": 1000 + step % 90_000, "StageName": "Engaging" } })
            }
        }
    }

    /// Keeps the ids of created accounts, to delete them later.
    fn remember(&mut self, made: &Json) {
        let id = made
            .pointer("/transactions/0/results/0/id")
            .and_then(Json::as_str);
        if let Some(id) = id
            && self.step.is_multiple_of(12)
        {
            self.made.push(id.to_owned());
        }
    }
}
