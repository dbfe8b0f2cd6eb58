//! Brakes: a run that would take away too many rows, or refuse too many records, stops before the batch that crosses the
//! line, and waits for a yes. The yes is for what was in the topic then, and for nothing that comes later.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Owner;
use super::batch::Work;
use super::letters::Letter;
use super::tally::patiently;
use crate::config::job::Brakes;
use crate::fault::{Fault, FaultKind};
use crate::model::policy::OnExit;
use crate::state::orders::{Order, Seen, Standing};
use crate::state::runs::{RunPart, RunsWanted};
use crate::target::port::brake::{Brake, Gauge, Toll, line};

/// Among so many of a job's newest runs a run is looked for that other daemons count for too.
const NEWEST: usize = 64;

/// What a job's brakes go by, for as long as the job is kept.
pub(super) struct Lever {
    limits: Brakes,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// By id.
    runs: BTreeMap<Arc<str>, Known>,
    /// What somebody said yes to.
    accepted: Option<Seen>,
    /// A brake was pulled, or somebody was quicker to pause the job.
    pulled: Option<Order>,
}

/// A run, and what it did before this daemon counted for it. What was accepted is in none of it.
#[derive(Clone)]
struct Known {
    gauge: Arc<Gauge>,
    /// The state has told of it.
    is_told: bool,
    /// Its rows are counted: it is about to take some away.
    is_measured: bool,
    records: u64,
    rejected: u64,
    /// Records that this daemon rejected.
    own_rejected: u64,
}

impl Lever {
    pub(super) fn new(limits: Brakes) -> Self {
        Self {
            limits,
            inner: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what the order that stands accepts.
    pub(super) fn hear(&self, order: &Order) {
        self.lock().accepted.clone_from(&order.accepted);
    }

    /// The order by which the job stands, if a brake was pulled since it was asked last.
    pub(super) fn pulled(&self) -> Option<Order> {
        self.lock().pulled.take()
    }

    /// Up to which offset of a partition brakes count nothing. Offsets of another topic say nothing of this one's.
    fn accepted_to(&self, generation: &str, partition: u32) -> u64 {
        let inner = self.lock();
        let accepted = inner.accepted.as_ref();
        let accepted = accepted.filter(|accepted| accepted.generation == generation);
        let end = accepted.and_then(|accepted| accepted.ends.get(&partition));
        end.copied().unwrap_or(0)
    }

    /// Counts rejected records unless they cross the line; how many there would be.
    fn reject(&self, work: &mut Work, count: u64, line: u64) -> Result<(), u64> {
        let mut inner = self.lock();
        let Some(run) = inner.runs.get_mut(&work.counts_for) else {
            return Ok(());
        };
        let all = run.rejected + run.own_rejected + count;
        if all > line {
            return Err(all);
        }
        run.own_rejected += count;
        work.rejected += count;
        Ok(())
    }

    /// Takes back what a batch rejected that was not committed: it is rejected again when it is.
    pub(super) fn take_back(&self, work: &Work) {
        if let Some(run) = self.lock().runs.get_mut(&work.counts_for) {
            run.own_rejected = run.own_rejected.saturating_sub(work.rejected);
        }
    }
}

impl Owner {
    /// Begins a batch: from where on brakes count.
    pub(super) fn heed(&self, work: &mut Work, partition: u32) {
        work.accepted_to = self.lever.accepted_to(&self.reader.generation, partition);
    }

    /// The brake of a batch; `None`, if it takes nothing that a brake measures.
    pub(super) async fn brake(&self, work: &Work) -> Result<Option<Brake>, Fault> {
        let limits = self.lever.limits;
        let measures_gone = limits.max_delete_percent < 100 && work.may_take();
        // Every updated row counts, whether it loses a value or not.
        let measures_nulls = limits.max_null_percent < 100 && work.is_first();
        if work.is_empty() || !measures_gone && !measures_nulls {
            return Ok(None);
        }
        let run = self.known(&work.counts_for).await;
        if measures_gone && !run.is_measured {
            run.gauge.measure(self.held().await?);
            if let Some(run) = self.lever.lock().runs.get_mut(&work.counts_for) {
                run.is_measured = true;
            }
        }
        Ok(Some(Brake::new(run.gauge, work.accepted_to)))
    }

    /// Counts records that are to be set aside, or stops the job before they are.
    ///
    /// # Errors
    /// `Stopping`, once the order stands.
    pub(super) async fn count_rejected(
        &self,
        work: &mut Work,
        letters: &[Letter],
    ) -> Result<(), Fault> {
        let percent = self.lever.limits.max_rejected_percent;
        if percent >= 100 || !work.is_first() {
            return Ok(());
        }
        loop {
            let counts = |letter: &&Letter| letter.offset >= work.accepted_to;
            let count = letters.iter().filter(counts).count() as u64;
            let accepted = letters.len() as u64 - count;
            let run = Arc::clone(&work.counts_for);
            if count == 0 {
                work.accepted.rejected += accepted;
                return Ok(());
            }
            let before = self.known(&run).await.records;
            let records = before + self.tally.own(&run).records + work.records;
            let line = line(percent, records);
            match self.lever.reject(work, count, line) {
                Ok(()) => {
                    work.accepted.rejected += accepted;
                    return Ok(());
                }
                Err(all) => {
                    let reason = format!(
                        "run {run} would reject {all} of {records} records: max_rejected_percent = {percent} lets \
                         {line} pass; the newest is refused because: {}",
                        letters.last().map_or("", |letter| letter.reason.as_str())
                    );
                    self.pull(work, reason).await?;
                }
            }
        }
    }

    /// A run, as far as it is known. A state that does not answer says that it had done nothing, until it does.
    async fn known(&self, run: &Arc<str>) -> Known {
        let known = self.lever.lock().runs.get(run).cloned();
        if let Some(known) = known.filter(|known| known.is_told || self.tally.is_unheard()) {
            return known;
        }
        let told = self.told(run).await;
        let limits = self.lever.limits;
        let mut inner = self.lever.lock();
        let known = inner.runs.entry(Arc::clone(run)).or_insert_with(|| Known {
            gauge: Arc::new(Gauge::new(
                limits.max_delete_percent,
                limits.max_null_percent,
            )),
            is_told: false,
            is_measured: false,
            records: 0,
            rejected: 0,
            own_rejected: 0,
        });
        if let Some(told) = told.filter(|_| !known.is_told) {
            known.gauge.add(told.took);
            (known.records, known.rejected) = (told.records, told.rejected);
            known.is_told = true;
        }
        known.clone()
    }

    /// What others, and this daemon before its start, did for a run.
    async fn told(&self, run: &str) -> Option<Counts> {
        if self.tally.is_unheard() {
            return None;
        }
        self.tally.noted(&self.road).await;
        let own = Counts::of(&self.tally.own(run));
        let plan = self.road.mapping.plan();
        let wanted = RunsWanted {
            connection: Some(plan.connection.clone()),
            job: Some(plan.job.clone()),
            limit: NEWEST,
        };
        let Ok(runs) = patiently(self.road.state.runs(wanted)).await else {
            self.tally.is_not_heard();
            return None;
        };
        let found = runs.iter().find(|found| found.head.id == run);
        let all = found.map_or_else(Counts::default, |found| Counts::of(&found.done));
        Some(all.less(&own))
    }

    /// How many rows the job may take away, all in all.
    async fn held(&self) -> Result<u64, Fault> {
        let plan = self.road.mapping.plan();
        let mut all = 0;
        for destination in &plan.destinations {
            if [destination.on_delete, destination.on_filter_exit] == [OnExit::Keep; 2] {
                continue;
            }
            let mut backoff = self.road.attempts();
            all += loop {
                let target = &self.road.target;
                let held = target.held(&plan.connection, &plan.source, &destination.table);
                match held.await {
                    Ok(held) => break held,
                    Err(fault) => self.back_off(fault, &mut backoff).await?,
                }
            };
        }
        Ok(all)
    }

    /// Has the job pause, on every daemon, unless somebody has said yes to more since it was asked last.
    pub(super) async fn pull(&self, work: &mut Work, reason: String) -> Result<(), Fault> {
        let mut backoff = self.road.attempts();
        loop {
            match self.try_to_pull(&reason).await {
                Ok(Some(order)) => {
                    self.lever.lock().pulled = Some(order);
                    let fault = Fault::new(FaultKind::Stopping, "a brake stopped the job");
                    return Err(fault);
                }
                Ok(None) => {
                    let (generation, partition) = (&self.reader.generation, work.partition);
                    work.accepted_to = self.lever.accepted_to(generation, partition);
                    return Ok(());
                }
                Err(fault) => self.back_off(fault, &mut backoff).await?,
            }
        }
    }

    /// The order by which the job stands; none, if there is one that accepts other things than was known.
    async fn try_to_pull(&self, reason: &str) -> Result<Option<Order>, Fault> {
        let road = &self.road;
        let (connection, job) = (&self.reader.connection, &self.reader.job);
        loop {
            let Standing { revision, order } = road.state.standing(connection, job).await?;
            if order.paused {
                return Ok(Some(order));
            }
            if order.accepted != self.lever.lock().accepted {
                self.lever.hear(&order);
                return Ok(None);
            }
            let order = self.braked(reason, order).await?;
            let given = road.state.give(connection, job, revision, order.clone());
            if given.await? {
                tracing::error!(%connection, %job, reason, "a brake stopped the job");
                return Ok(Some(order));
            }
        }
    }

    async fn braked(&self, reason: &str, before: Order) -> Result<Order, Fault> {
        let road = &self.road;
        let (connection, job) = (&self.reader.connection, &self.reader.job);
        let bounds = road.log.bounds(&road.topic).await?.into_iter();
        let ends = bounds.map(|(partition, bounds)| (partition, bounds.end));
        Ok(Order {
            paused: true,
            reason: Some(format!(
                "{reason}. Nothing of it is applied. If it is right: tributary job resume {connection}/{job} --accept"
            )),
            by: Some("brake".to_owned()),
            since: Some(road.clock.now()),
            braked: Some(Seen {
                generation: self.reader.generation.clone(),
                ends: ends.collect(),
            }),
            accepted: before.accepted,
        })
    }
}

/// What was accepted is not in it.
#[derive(Default)]
struct Counts {
    took: Toll,
    rejected: u64,
    records: u64,
}

impl Counts {
    fn of(part: &RunPart) -> Self {
        let count = |outcome: &str| part.counts.get(outcome).copied().unwrap_or(0);
        let gone = count("deleted") + count("marked");
        let accepted = &part.accepted;
        Self {
            took: Toll {
                gone: gone.saturating_sub(accepted.gone),
                updated: count("updated").saturating_sub(accepted.updated),
                emptied: part.emptied,
            },
            rejected: count("rejected").saturating_sub(accepted.rejected),
            records: part.records,
        }
    }

    /// Without what is part of it.
    fn less(&self, part: &Self) -> Self {
        Self {
            took: self.took.less(part.took),
            rejected: self.rejected.saturating_sub(part.rejected),
            records: self.records.saturating_sub(part.records),
        }
    }
}
