//! Notices: who is told of what, and by which carriers; none of it where the config names nobody.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::config::Config;
use crate::fault::{Fault, FaultKind};
use crate::flow::notices::audience::{Audience, addresses};
use crate::flow::notices::pulse::Pulse;
use crate::flow::notices::{Ground, Watch, WatchedJob};
use crate::notify::carriers::Carriers;
use crate::notify::notice::{Event, Notice};
use crate::notify::port::Carrier;
use crate::notify::post::Post;
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::tasks::Tasks;
use crate::telemetry::metrics::Metrics;

use super::Daemon;
use super::sign_in::Crms;
use super::state;

/// What failed has to do well for so long before people are told.
const SETTLED: Duration = Duration::from_secs(15);

/// Begins to look, to deliver, and to beat.
///
/// # Errors
/// `Config` for carriers that can't be used.
pub(super) fn begin(
    daemon: &mut Daemon,
    config: &Config,
    crms: &Crms,
    metrics: &Metrics,
    clock: &Arc<dyn Clock>,
) -> Result<(), Fault> {
    if config.mail.is_none() && config.notify.is_empty() {
        return Ok(());
    }
    let carriers = Carriers::new(config.mail.as_ref(), &config.notify)?;
    let carrier: Arc<dyn Carrier> = Arc::new(carriers);
    let bell = Arc::default();
    let watch = Watch::new(Ground {
        board: Arc::clone(&daemon.board),
        state: Arc::clone(&daemon.stores.state),
        notices: Arc::clone(&daemon.stores.notices),
        clock: Arc::clone(clock),
        metrics: metrics.clone(),
        owner: state::owner(&config.daemon.data_dir)?,
        crms: crms.clone(),
        audience: Audience::new(
            &config.notify,
            config.mail.is_some(),
            &config.connections,
            &config.routines,
        ),
        jobs: watched(config),
        bell: Arc::clone(&bell),
        settled: SETTLED,
    });
    let post = Post {
        notices: Arc::clone(&daemon.stores.notices),
        carrier: Arc::clone(&carrier),
        clock: Arc::clone(clock),
        metrics: metrics.clone(),
        bell,
    };
    let stop = daemon.house.stop().clone();
    keep(
        &mut daemon.house,
        "writing notices",
        watch.keep(stop.clone()),
    );
    keep(&mut daemon.house, "delivering notices", post.deliver(stop));
    beat(daemon, config, &carrier, metrics, clock);
    Ok(())
}

/// Begins to call whoever is woken by silence.
fn beat(
    daemon: &mut Daemon,
    config: &Config,
    carrier: &Arc<dyn Carrier>,
    metrics: &Metrics,
    clock: &Arc<dyn Clock>,
) {
    let pulse = Pulse {
        board: Arc::clone(&daemon.board),
        state: Arc::clone(&daemon.stores.state),
        log: Arc::clone(&daemon.stores.log),
        target: Arc::clone(&daemon.stores.target),
        clock: Arc::clone(clock),
        metrics: metrics.clone(),
        carrier: Arc::clone(carrier),
    };
    for (name, recipient) in &config.notify {
        if let Some(every) = recipient.every {
            // A daemon that drains is not healthy.
            let stop = daemon.work.stop().clone();
            let beating = pulse.clone().beat(name.clone(), every, stop);
            keep(&mut daemon.work, format!("heartbeat of {name}"), beating);
        }
    }
}

fn keep(
    tasks: &mut Tasks,
    name: impl Into<String>,
    task: impl Future<Output = ()> + Send + 'static,
) {
    tasks.spawn(name, async move {
        task.await;
        Ok(())
    });
}

fn watched(config: &Config) -> Vec<WatchedJob> {
    let jobs = config.jobs.iter().filter(|job| job.enabled);
    jobs.map(|job| {
        let key = (job.connection.clone(), job.id.clone());
        let routine = config.routines.get(&key);
        WatchedJob {
            connection: job.connection.clone(),
            job: job.id.clone(),
            object: job.source.value.clone(),
            digest: routine
                .filter(|_| job.realtime)
                .map(|routine| routine.digest),
        }
    })
    .collect()
}

/// How a test message fared with one address.
#[derive(Debug, Serialize)]
pub struct Tried {
    /// Where it went.
    pub to: String,
    /// Whether it was taken.
    pub delivered: bool,
    /// What was answered, or what is wrong.
    pub answer: String,
}

/// Sends a message to everybody of a name of `[notify]`; nothing is kept or tried again.
///
/// # Errors
/// `Missing` for a name that there is not, `Config` for carriers that can't be used.
pub async fn test(config: &Config, name: &str) -> Result<Vec<Tried>, Fault> {
    if !config.notify.contains_key(name) {
        let known: Vec<&str> = config.notify.keys().map(String::as_str).collect();
        let fault = Fault::new(
            FaultKind::Missing,
            format!("`[notify]` has no name `{name}`"),
        );
        return Err(fault.remedy(format!("write one of: {}", known.join(", "))));
    }
    let carriers = Carriers::new(config.mail.as_ref(), &config.notify)?;
    let now = SystemClock.now();
    let mut notice = Notice::new(Event::Test, "success", "a test", now);
    notice.say(&format!(
        "Somebody tries whether {name} of [notify] is reached."
    ));
    let mut all = Vec::new();
    for to in addresses(&[name.to_owned()], &config.notify) {
        let id = format!("test {} > {}", now.timestamp_micros(), to.shown());
        let carried = carriers.carry(&to, &id, &notice).await;
        all.push(Tried {
            to: to.shown(),
            delivered: carried.is_ok(),
            answer: carried.unwrap_or_else(|fault| fault.report()),
        });
    }
    Ok(all)
}
