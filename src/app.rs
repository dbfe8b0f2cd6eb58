//! The composition root: builds everything once, wires it, runs, drains.

pub mod beside;
pub mod capture;
mod dynamics;
pub mod live;
pub mod needs;
pub mod notices;
pub mod postgres;
mod push;
pub mod replay;
mod salesforce;
mod selection;
mod servicebus;
pub mod sign_in;
pub mod state;
mod stores;
mod target;
pub mod verify;
pub mod webhook;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::TimeDelta;

use crate::admin;
use crate::budget::Limits;
use crate::config::Config;
use crate::config::budget::BudgetConfig;
use crate::config::connection::ConnectionConfig;
use crate::config::job::Brakes;
use crate::config::problem::Problems;
use crate::control::{Control, KnownJob};
use crate::crm::port::Crm;
use crate::fault::{Fault, FaultKind};
use crate::flow::board::{Board, Life, Picture};
use crate::flow::connection::{self, Selected};
use crate::flow::job::{self, JobRoad};
use crate::flow::road::{Road, Settings, topic_name};
use crate::mapping::compile::{Mapping, owners};
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::shutdown::StopSignal;
use crate::runtime::tasks::Tasks;
use crate::telemetry::exposition::{Exposition, UPKEEP_EVERY};

use selection::{readings, selected, timetables};
use stores::Stores;

/// How long a drain may take before what still runs is cut off; a container gets 30 s as a rule.
const GRACE: Duration = Duration::from_secs(25);
/// How often the embedded log is compacted and retained.
const HOUSEKEEPING: Duration = Duration::from_secs(300);

/// Runs the daemon of the config at `path` until SIGTERM or SIGINT; SIGHUP reads the config again.
///
/// # Errors
/// `Config` for a config that can't be used, with every mistake; a fault of what the daemon stands on.
pub async fn serve(path: &Path) -> Result<(), Fault> {
    let mut config = load(path)?;
    let mut signals = Signals::new()?;
    loop {
        let daemon = Daemon::start(config).await?;
        config = loop {
            match signals.next().await {
                Signal::Stop => return daemon.stop().await,
                Signal::Reload => match load(path) {
                    Ok(config) => break config,
                    Err(fault) => tracing::error!(
                        error = fault.report(),
                        "config not reloaded, going on with the old one"
                    ),
                },
            }
        };
        tracing::info!("reloading the config");
        daemon.stop().await?;
    }
}

/// Reads the config and compiles its jobs.
///
/// # Errors
/// `Config`, naming every mistake.
pub fn load(path: &Path) -> Result<Config, Fault> {
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    let config = Config::load(path, &environment)?;
    compile(&config)?;
    Ok(config)
}

/// Compiles every job that is enabled.
///
/// # Errors
/// Every mistake in every job.
pub fn compile(config: &Config) -> Result<Vec<Arc<Mapping>>, Problems> {
    let mut mappings = Vec::new();
    let mut problems = Vec::new();
    for job in &config.jobs {
        match Mapping::compile(job, &config.objects) {
            Ok(mapping) if job.enabled => mappings.push(mapping),
            Ok(_) => {}
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() {
        owners::settle(&mut mappings, &config.order);
        Ok(mappings.into_iter().map(Arc::new).collect())
    } else {
        Err(Problems::new(problems))
    }
}

/// What a connection's calls may spend: what its config does not say is the connector's own.
fn limits(config: &BudgetConfig, patience: Option<Duration>, own: Limits) -> Limits {
    Limits {
        reserve: config.reserve.unwrap_or(own.reserve),
        per_second: config.per_second.unwrap_or(own.per_second),
        at_once: config.at_once.unwrap_or(own.at_once),
        patience,
        ..own
    }
}

/// What orders may name.
fn known_jobs(config: &Config) -> Vec<KnownJob> {
    let jobs = config.jobs.iter();
    jobs.map(|job| KnownJob {
        connection: job.connection.clone(),
        job: job.id.clone(),
        name: job.name.clone(),
        object: job.source.value.clone(),
        enabled: job.enabled,
        destinations: job
            .destinations
            .iter()
            .filter_map(|to| {
                let mut objects = config.objects.values();
                let object = objects.find(|object| object.label == to.object.value)?;
                Some((object.label.clone(), object.table.clone()))
            })
            .collect(),
    })
    .collect()
}

/// A running daemon.
pub struct Daemon {
    address: SocketAddr,
    board: Arc<Board>,
    ready: Arc<AtomicBool>,
    stores: Stores,
    /// Connections and jobs; they end first.
    work: Tasks,
    /// What shows and keeps the rest; it ends last.
    house: Tasks,
}

impl Daemon {
    /// Opens the stores, binds the HTTP side, starts connections and jobs. A CRM that can't be reached is no
    /// reason not to start.
    ///
    /// # Errors
    /// `Config`, `Storage` or `Corrupt` for what the daemon stands on.
    pub async fn start(config: Config) -> Result<Self, Fault> {
        let mappings = compile(&config)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let exposition = Exposition::new().map_err(|error| {
            Fault::new(FaultKind::Config, "setting up the metrics").source(error)
        })?;
        let token = config
            .admin
            .token
            .as_ref()
            .map(|token| token.read())
            .transpose()?;
        let listener = admin::bind(config.admin.listen, token.as_ref()).await?;
        let address = listener.local_addr().map_err(|error| {
            Fault::new(FaultKind::Config, "binding `[admin] listen`").source(error)
        })?;
        let stores = Stores::open(&config, Arc::clone(&clock), exposition.metrics()).await?;
        let made = target::begin(&stores.target).await?;

        let stop = StopSignal::new();
        let mut daemon = Self {
            address,
            board: Arc::default(),
            ready: Arc::default(),
            stores,
            work: Tasks::new(stop.child()),
            house: Tasks::new(stop),
        };
        daemon.keep_house(&exposition);
        if !made {
            daemon.wait_for_target();
        }
        let mut receivers = BTreeMap::new();
        let ground = push::Ground {
            state: Arc::clone(&daemon.stores.state),
            clock: Arc::clone(&clock),
            metrics: exposition.metrics().clone(),
        };
        let crms = sign_in::crms(
            &config,
            &daemon.stores.credentials,
            &daemon.stores.state,
            exposition.metrics(),
            &clock,
        )?;
        for (id, connection) in &config.connections {
            let mine = mappings
                .iter()
                .filter(|mapping| mapping.plan().connection == *id);
            let wanted = selected(mine.clone());
            if wanted.is_empty() {
                continue;
            }
            let Some(crm) = crms.get(id) else { continue };
            let crm = Arc::clone(crm);
            let mut road = daemon.road(&config, connection, crm, &exposition, &clock)?;
            Arc::make_mut(&mut road.settings).readings = readings(&config, mine);
            let inbox = || push::inbox(&ground, id, &wanted, &road.hinted);
            if let Some(receiver) = push::receiver(connection, inbox) {
                receivers.insert(id.clone(), receiver);
            }
            let stop = daemon.work.stop().clone();
            if let Some(bus) = servicebus::listener(connection, &inbox, &road, stop) {
                daemon.work.spawn(format!("service bus of {id}"), bus);
            }
            daemon.listen(road, wanted);
        }
        let mut roads = Vec::new();
        for mapping in mappings {
            let job = config.jobs.iter().find(|job| {
                job.connection == mapping.plan().connection && job.id == mapping.plan().job
            });
            let parked_ttl = job.map_or(TimeDelta::days(30), |job| job.parked_ttl);
            let mut road = daemon.job_road(&config, mapping, parked_ttl, &exposition, &clock);
            let plan = road.mapping.plan();
            let key = (plan.connection.clone(), plan.job.clone());
            let routine = config.routines.get(&key);
            road.brakes = routine.map_or_else(Brakes::default, |routine| routine.brakes);
            roads.push(road.clone());
            daemon.apply(road);
        }
        notices::begin(&mut daemon, &config, &crms, exposition.metrics(), &clock)?;
        let control = Control::new(
            Arc::clone(&daemon.stores.state),
            Arc::clone(&daemon.board),
            Arc::clone(&clock),
            Some(Arc::clone(&daemon.stores.target) as _),
            known_jobs(&config),
            roads,
        );
        let sources = admin::Sources {
            board: Arc::clone(&daemon.board),
            control: Arc::new(control),
            clock,
            exposition,
            state: Arc::clone(&daemon.stores.state),
            log: Arc::clone(&daemon.stores.log),
            target: Arc::clone(&daemon.stores.target),
            ready: Arc::clone(&daemon.ready),
            receivers: Arc::new(receivers),
            desk: Arc::new(sign_in::desk(&crms)),
            callback: config.admin.callback(address).into(),
        };
        let stop = daemon.house.stop().clone();
        daemon
            .house
            .spawn("serving HTTP", admin::serve(listener, sources, token, stop));
        daemon.ready.store(true, Ordering::Release);
        tracing::info!(
            address = %address, connections = config.connections.len(),
            jobs = config.jobs.len(), version = env!("CARGO_PKG_VERSION"), "daemon started"
        );
        Ok(daemon)
    }

    /// Where HTTP is served.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the running parts last said of themselves.
    #[must_use]
    pub fn picture(&self) -> Picture {
        self.board.picture()
    }

    /// Drains: connections and jobs end what they have in hand, then the stores close.
    ///
    /// # Errors
    /// `Unavailable`, naming what had to be cut off, or the fault of a store that could not close.
    pub async fn stop(mut self) -> Result<(), Fault> {
        self.ready.store(false, Ordering::Release);
        let began = std::time::Instant::now();
        let work = self.work.drain(GRACE).await;
        let house = self.house.drain(Duration::from_secs(2)).await;
        self.stores.close().await?;
        let cut = [work.cut, house.cut].concat();
        if cut.is_empty() {
            tracing::info!(seconds = began.elapsed().as_secs_f64(), "daemon stopped");
            return Ok(());
        }
        Err(Fault::new(
            FaultKind::Unavailable,
            format!(
                "draining: {} did not end in time and had to be cut off",
                cut.join(", ")
            ),
        )
        .remedy("nothing is lost: what was not stored is done again at the next start"))
    }

    fn keep_house(&mut self, exposition: &Exposition) {
        let (stop, exposition) = (self.house.stop().clone(), exposition.clone());
        self.house.spawn("metrics upkeep", async move {
            while stop.or(tokio::time::sleep(UPKEEP_EVERY)).await.is_ok() {
                exposition.upkeep();
            }
            Ok(())
        });
        if let Some(log) = self.stores.embedded.clone() {
            let stop = self.house.stop().clone();
            self.house.spawn("log housekeeping", async move {
                log.keep_house(&stop, HOUSEKEEPING).await
            });
        }
    }

    fn wait_for_target(&mut self) {
        let (target, stop) = (Arc::clone(&self.stores.target), self.house.stop().clone());
        self.house
            .spawn("waiting for the target", target::keep_trying(target, stop));
    }

    fn road(
        &self,
        config: &Config,
        connection: &ConnectionConfig,
        crm: Arc<dyn Crm>,
        exposition: &Exposition,
        clock: &Arc<dyn Clock>,
    ) -> Result<Road, Fault> {
        let id = connection.id();
        let settings = Settings {
            prefix: config.log.prefix.clone(),
            owner: state::owner(&config.daemon.data_dir)?,
            lease: config.state.lease,
            read_lag: connection.read_lag(),
            untold_poll: connection.untold_poll(),
            probe: connection.probe(),
            full_syncs: timetables(config, id)?,
            ..Settings::default()
        };
        Ok(Road {
            connection: id.clone(),
            crm,
            log: Arc::clone(&self.stores.log),
            images: Arc::clone(&self.stores.images) as _,
            state: Arc::clone(&self.stores.state),
            clock: Arc::clone(clock),
            metrics: exposition.metrics().clone(),
            board: Arc::clone(&self.board),
            hinted: Arc::default(),
            settings: Arc::new(settings),
        })
    }

    fn listen(&mut self, road: Road, wanted: Selected) {
        let stop = self.work.stop().clone();
        let id = road.connection.clone();
        self.board
            .connection(&id, |entry| entry.state = Life::Starting);
        self.work.spawn(format!("connection {id}"), async move {
            connection::keep(road, wanted, stop).await;
            Ok(())
        });
    }

    fn job_road(
        &self,
        config: &Config,
        mapping: Arc<Mapping>,
        parked_ttl: TimeDelta,
        exposition: &Exposition,
        clock: &Arc<dyn Clock>,
    ) -> JobRoad {
        let defaults = Settings::default();
        let plan = mapping.plan();
        JobRoad {
            topic: topic_name(&config.log.prefix, &plan.connection, &plan.source).into(),
            log: Arc::clone(&self.stores.log),
            target: Arc::clone(&self.stores.target) as _,
            state: Arc::clone(&self.stores.state),
            clock: Arc::clone(clock),
            metrics: exposition.metrics().clone(),
            board: Arc::clone(&self.board),
            parked_ttl,
            brakes: Brakes::default(),
            retry: (defaults.retry_first, defaults.retry_cap),
            mapping,
        }
    }

    fn apply(&mut self, road: JobRoad) {
        let stop = self.work.stop().clone();
        let name = format!(
            "job {}/{}",
            road.mapping.plan().connection,
            road.mapping.plan().job
        );
        self.work.spawn(name, async move {
            job::keep(road, stop).await;
            Ok(())
        });
    }
}

/// What an operator's signal asks for.
enum Signal {
    Stop,
    Reload,
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, Fault> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Fault::new(FaultKind::Config, "listening for signals").source(error)
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}
