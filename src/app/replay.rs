//! A job's topic replayed into a scratch store of its own, beside the daemon, and what differs from the live one.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::Config;
use crate::config::job::Brakes;
use crate::config::target::TargetConfig;
use crate::fault::{Fault, FaultKind};
use crate::flow::difference::{Compared, Difference, Scope, compare};
use crate::flow::job::JobRoad;
use crate::flow::job::replay::{Replay, Replayed};
use crate::flow::road::{Settings, topic_name};
use crate::log::port::Log;
use crate::mapping::compile::Mapping;
use crate::mapping::plan::JobPlan;
use crate::model::name::{ConnectionId, JobId, ObjectKey};
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::shutdown::StopSignal;
use crate::state::memory::MemoryState;
use crate::state::orders::Since;
use crate::target::beside::StoreBeside;
use crate::target::port::Target;
use crate::target::postgres::PostgresTarget;
use crate::target::sqlite::SqliteTarget;
use crate::telemetry::metrics::Metrics;

use super::{beside, compile};

/// What to replay.
pub struct Order {
    /// The connection.
    pub connection: ConnectionId,
    /// One of its jobs; all of them, if none is named.
    pub job: Option<JobId>,
    /// Where the jobs asked for begin; those that they look rows up from begin at the start.
    pub since: Since,
    /// The scratch store's name.
    pub into: String,
    /// Whether a scratch store of that name may be replaced.
    pub replace: bool,
}

/// What a replay is told of.
pub trait Watcher: Send {
    /// A job's topic is read next, so many offsets of it.
    fn begins(&mut self, plan: &JobPlan, offsets: u64);
    /// So many more were read.
    fn passed(&mut self, offsets: u64);
    /// A record of a destination differs between the live store and the replay.
    fn differs(&mut self, plan: &JobPlan, destination: usize, difference: Difference);
}

/// What came of one job.
#[derive(Debug)]
pub struct JobReport {
    /// The job.
    pub plan: JobPlan,
    /// What was read and refused.
    pub replayed: Replayed,
    /// Per destination, the live store against the replay.
    pub compared: Vec<Compared>,
}

/// A scratch store that was filled.
pub struct Scratch {
    /// The config with the scratch store as its target.
    config: Config,
    name: String,
}

/// Replays, and compares the jobs asked for with the live store.
///
/// # Errors
/// `Missing` for a job there is not; `Config` for a scratch store that is there already; a fault of log or stores;
/// `Stopping`.
pub async fn replay(
    config: &Config,
    order: &Order,
    stop: &StopSignal,
    watcher: &mut dyn Watcher,
) -> Result<(Vec<JobReport>, Scratch), Fault> {
    let mappings = compile(config)?;
    let asked = asked(&mappings, order)?;
    let run = with_feeders(&mappings, &asked);
    let scratch = Scratch::of(config, &order.into)?;
    let target = scratch.make(order.replace).await?;
    let log = beside::log(config).await?;
    let replayed = run_all(config, &log, &target, (&run, &asked), order, stop, watcher).await;
    target.close().await?;
    log.close().await?;
    let replayed = replayed?;

    let live = beside::store(config)?;
    let second = beside::store(&scratch.config)?;
    let scope = match order.since {
        Since::Start => Scope::All,
        Since::Time(_) | Since::Offset(_) => Scope::KnownToSecond,
    };
    let mut reports = Vec::new();
    for (mapping, replayed) in run.iter().zip(replayed) {
        if !asked.iter().any(|asked| Arc::ptr_eq(asked, mapping)) {
            continue;
        }
        let plan = mapping.plan();
        let key = ObjectKey {
            connection: plan.connection.clone(),
            object: plan.source.clone(),
        };
        let mut compared = Vec::new();
        for (number, destination) in plan.destinations.iter().enumerate() {
            let tell = |difference| watcher.differs(plan, number, difference);
            let stores: (&dyn StoreBeside, &dyn StoreBeside) = (&*live, &*second);
            compared.push(compare(stores, &key, destination, scope, tell).await?);
        }
        reports.push(JobReport {
            plan: plan.clone(),
            replayed,
            compared,
        });
    }
    Ok((reports, scratch))
}

fn asked(mappings: &[Arc<Mapping>], order: &Order) -> Result<Vec<Arc<Mapping>>, Fault> {
    let of_connection = mappings
        .iter()
        .filter(|mapping| mapping.plan().connection == order.connection);
    let asked: Vec<_> = of_connection
        .filter(|mapping| {
            let job = order.job.as_ref();
            job.is_none_or(|job| mapping.plan().job == *job)
        })
        .cloned()
        .collect();
    if !asked.is_empty() {
        return Ok(asked);
    }
    let known: Vec<String> = mappings
        .iter()
        .map(|mapping| format!("{}/{}", mapping.plan().connection, mapping.plan().job))
        .collect();
    let what = match &order.job {
        Some(job) => format!("there is no enabled job {}/{job}", order.connection),
        None => format!("connection {} has no enabled job", order.connection),
    };
    Err(Fault::new(FaultKind::Missing, what).remedy(format!("name one of {}", known.join(", "))))
}

/// The jobs asked for, and those whose rows theirs depend on: the jobs that fill the same tables, and the tables
/// that are looked up, and so on. Who is looked up comes first, unless jobs look one another up.
fn with_feeders(mappings: &[Arc<Mapping>], asked: &[Arc<Mapping>]) -> Vec<Arc<Mapping>> {
    let (mut met, mut found) = (Vec::new(), Vec::new());
    for mapping in asked {
        visit(mappings, mapping, &mut met, &mut found);
    }
    found
}

fn visit<'a>(
    mappings: &'a [Arc<Mapping>],
    mapping: &'a Arc<Mapping>,
    met: &mut Vec<&'a Arc<Mapping>>,
    found: &mut Vec<Arc<Mapping>>,
) {
    if met.iter().any(|known| Arc::ptr_eq(known, mapping)) {
        return;
    }
    met.push(mapping);
    let destinations = &mapping.plan().destinations;
    let derives = destinations.iter().flat_map(|plan| &plan.derives);
    let looked_up: BTreeSet<&str> = derives.map(|derive| derive.table.as_str()).collect();
    let filled: BTreeSet<&str> = destinations
        .iter()
        .map(|plan| plan.table.as_str())
        .collect();
    for tables in [looked_up, filled] {
        let feeds = |other: &&Arc<Mapping>| {
            let mut destinations = other.plan().destinations.iter();
            destinations.any(|plan| tables.contains(plan.table.as_str()))
        };
        for feeder in mappings.iter().filter(feeds) {
            visit(mappings, feeder, met, found);
        }
    }
    found.push(Arc::clone(mapping));
}

async fn run_all(
    config: &Config,
    log: &Arc<dyn Log>,
    target: &Arc<dyn Target>,
    (run, asked): (&[Arc<Mapping>], &[Arc<Mapping>]),
    order: &Order,
    stop: &StopSignal,
    watcher: &mut dyn Watcher,
) -> Result<Vec<Replayed>, Fault> {
    let objects: Vec<_> = config.objects.values().cloned().collect();
    target.ensure(&objects).await?;
    let reader = format!("replay {}", order.into);
    let mut replays = Vec::new();
    for mapping in run {
        let is_asked = asked.iter().any(|asked| Arc::ptr_eq(asked, mapping));
        let since = if is_asked { order.since } else { Since::Start };
        let road = road(config, log, target, mapping);
        let mut replay = Replay::new(road, &reader, since, stop.clone()).await?;
        watcher.begins(mapping.plan(), replay.size());
        replay.run(|passed| watcher.passed(passed)).await?;
        replays.push(replay);
    }
    // What waited for the rows of a job that came later.
    for replay in &mut replays {
        replay.settle().await?;
    }
    Ok(replays.into_iter().map(Replay::finish).collect())
}

fn road(
    config: &Config,
    log: &Arc<dyn Log>,
    target: &Arc<dyn Target>,
    mapping: &Arc<Mapping>,
) -> JobRoad {
    let (defaults, plan) = (Settings::default(), mapping.plan());
    JobRoad {
        topic: topic_name(&config.log.prefix, &plan.connection, &plan.source).into(),
        mapping: Arc::clone(mapping),
        log: Arc::clone(log),
        target: Arc::clone(target),
        // A scratch store asks nobody to publish again.
        state: Arc::new(MemoryState::default()),
        clock: Arc::new(SystemClock),
        metrics: Metrics::none(),
        board: Arc::default(),
        parked_ttl: chrono::TimeDelta::MAX,
        brakes: Brakes::OFF,
        retry: (defaults.retry_first, defaults.retry_cap),
    }
}

impl Scratch {
    fn of(config: &Config, name: &str) -> Result<Self, Fault> {
        let mut chars = name.chars();
        let is_name = chars.next().is_some_and(|first| first.is_ascii_lowercase())
            && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            && name.len() <= 40;
        if !is_name {
            return Err(Fault::new(
                FaultKind::Config,
                format!("`{name}` can't name a scratch store"),
            )
            .remedy("use up to 40 lower-case letters, digits and underscores, a letter first"));
        }
        let mut config = config.clone();
        match &mut config.target {
            TargetConfig::Sqlite { file } => {
                *file = beside::scratch_file(&config.daemon.data_dir, name);
            }
            TargetConfig::Postgres(target) => {
                let ledger = format!("{name}_ledger");
                if [&target.schema, &target.ledger_schema]
                    .iter()
                    .any(|live| **live == name || **live == ledger)
                {
                    return Err(Fault::new(
                        FaultKind::Config,
                        format!("schema `{name}` is the live store's"),
                    )
                    .remedy("give the replay a schema of its own"));
                }
                target.ledger_schema = ledger;
                name.clone_into(&mut target.schema);
            }
        }
        Ok(Self {
            config,
            name: name.to_owned(),
        })
    }

    /// What it is called in the database or on the disk.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.config.target {
            TargetConfig::Sqlite { file } => file.display().to_string(),
            TargetConfig::Postgres(_) => format!("schema {}", self.name),
        }
    }

    async fn make(&self, replace: bool) -> Result<Arc<dyn Target>, Fault> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        match &self.config.target {
            TargetConfig::Sqlite { file } => {
                if file.exists() && !replace {
                    let what = format!("scratch store `{}` is there already", file.display());
                    return Err(Fault::new(FaultKind::Config, what)
                        .remedy("take another name, or say --replace"));
                }
                SqliteTarget::remove(file)?;
                Ok(Arc::new(SqliteTarget::open(file, clock).await?))
            }
            TargetConfig::Postgres(target) => {
                let settings = super::postgres::target(target)?;
                let target = PostgresTarget::new(settings, clock)?;
                target.make_scratch(replace).await?;
                Ok(Arc::new(target))
            }
        }
    }

    /// Removes it.
    ///
    /// # Errors
    /// `Config` for a schema that no replay has made; else as disk or server say.
    pub async fn remove(&self) -> Result<(), Fault> {
        match &self.config.target {
            TargetConfig::Sqlite { file } => SqliteTarget::remove(file),
            TargetConfig::Postgres(target) => {
                let settings = super::postgres::target(target)?;
                let target = PostgresTarget::new(settings, Arc::new(SystemClock))?;
                let removed = target.remove_scratch().await;
                target.close().await?;
                removed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// However the files are named, and whichever of them is asked for.
    #[test]
    fn who_is_looked_up_is_replayed_first() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/crm-sales");
        let config = crate::app::load(&path).unwrap();
        let mut mappings = compile(&config).unwrap();
        let is_last = |run: &[Arc<Mapping>]| {
            let last = run.last().map(|mapping| mapping.plan().job.as_str());
            run.len() == 3 && last == Some("opportunity_sync")
        };
        for turn in 0..6 {
            mappings.rotate_left(1);
            if turn == 3 {
                mappings.reverse();
            }
            let asked = mappings.iter();
            let asked = asked.filter(|mapping| mapping.plan().job.as_str() == "opportunity_sync");
            let asked: Vec<_> = asked.cloned().collect();
            assert!(is_last(&with_feeders(&mappings, &asked)));
            assert!(is_last(&with_feeders(&mappings, &mappings)));
        }
    }
}
