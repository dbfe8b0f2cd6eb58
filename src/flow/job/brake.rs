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
use crate::state::runs::{RunPart, RunsWanted, Taken};
use crate::target::port::brake::{Brake, Gauge, Held, Toll, line};

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

/// A run, and what it did before this daemon counted for it. What was applied by a yes is in none of it.
#[derive(Clone)]
struct Known {
    gauge: Arc<Gauge>,
    /// The state has told of it.
    is_told: bool,
    records: u64,
    rejected: u64,
    /// Records that this daemon rejected.
    own_rejected: u64,
    /// Rejected records that somebody said yes to.
    forgiven: u64,
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
        let mut inner = self.lock();
        if inner.accepted == order.accepted {
            return;
        }
        inner.accepted.clone_from(&order.accepted);
        let accepted = order.accepted.as_ref();
        if let Some(seen) = accepted
            && let Some(known) = inner.runs.get_mut(seen.run.as_str())
        {
            known.forgive(seen.took);
        }
    }

    /// The order by which the job stands, if a brake was pulled since it was asked last.
    pub(super) fn pulled(&self) -> Option<Order> {
        self.lock().pulled.take()
    }

    /// Up to which offset of a partition brakes count nothing of a run. Offsets of another topic say nothing of this one's,
    /// and none says anything of what is read again.
    fn accepted_to(&self, run: &str, generation: Option<&str>, partition: u32) -> u64 {
        let inner = self.lock();
        let Some(accepted) = &inner.accepted else {
            return 0;
        };
        if accepted.is_sync && accepted.run == run {
            return u64::MAX;
        }
        let end = accepted.ends.get(&partition);
        let end = end.filter(|_| Some(&*accepted.generation) == generation);
        end.copied().unwrap_or(0)
    }

    /// What a run has taken, as far as is known.
    fn took(&self, run: &str) -> Taken {
        let inner = self.lock();
        inner.runs.get(run).map_or_else(Taken::default, |known| {
            let Toll { gone, emptied } = known.gauge.took();
            Taken {
                gone,
                emptied,
                rejected: known.rejected + known.own_rejected,
            }
        })
    }

    /// Counts rejected records unless they cross the line; how many there would be.
    fn reject(&self, work: &mut Work, count: u64, line: u64) -> Result<(), u64> {
        let mut inner = self.lock();
        let Some(run) = inner.runs.get_mut(&work.counts_for) else {
            return Ok(());
        };
        let all = (run.rejected + run.own_rejected).saturating_sub(run.forgiven) + count;
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

impl Known {
    /// Somebody said yes to what the run had taken: it counts anew.
    fn forgive(&mut self, took: Taken) {
        let Taken { gone, emptied, .. } = took;
        self.gauge.forgive(Toll { gone, emptied });
        self.forgiven = took.rejected;
    }
}

impl Owner {
    /// Begins a batch: from where on brakes count.
    pub(super) fn heed(&self, work: &mut Work, partition: u32) {
        let generation = (!work.is_replayed()).then_some(&*self.reader.generation);
        work.accepted_to = self
            .lever
            .accepted_to(&work.counts_for, generation, partition);
    }

    /// The brake of a batch; `None`, if it takes nothing that a brake measures.
    pub(super) async fn brake(&self, work: &Work) -> Option<Brake> {
        let limits = self.lever.limits;
        let measures_gone = limits.max_delete_percent < 100 && work.may_take();
        // Which of the updated rows lose a value, the target knows.
        let measures_nulls = limits.max_null_percent < 100 && work.is_first();
        if work.is_empty() || !measures_gone && !measures_nulls {
            return None;
        }
        let run = self.known(&work.counts_for).await;
        Some(Brake::new(run.gauge, work.accepted_to))
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
        let limits = self.lever.limits;
        let percent = limits.max_rejected_percent;
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
            let line = line(limits, percent, records);
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
        let mut inner = self.lever.lock();
        let Inner { runs, accepted, .. } = &mut *inner;
        let known = runs.entry(Arc::clone(run)).or_insert_with(|| {
            let mut known = Known {
                gauge: Arc::new(Gauge::new(self.lever.limits)),
                is_told: false,
                records: 0,
                rejected: 0,
                own_rejected: 0,
                forgiven: 0,
            };
            if let Some(seen) = accepted.as_ref().filter(|seen| *seen.run == **run) {
                known.forgive(seen.took);
            }
            known
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

    /// How many rows the store holds of the job.
    pub(super) async fn held(&self) -> Result<Held, Fault> {
        let plan = self.road.mapping.plan();
        let mut all = Held::default();
        for destination in &plan.destinations {
            let mut backoff = self.road.attempts();
            let held = loop {
                let target = &self.road.target;
                let held = target.held(&plan.connection, &plan.source, &destination.table);
                match held.await {
                    Ok(held) => break held,
                    Err(fault) => self.back_off(fault, &mut backoff).await?,
                }
            };
            all.all += held;
            if [destination.on_delete, destination.on_filter_exit] != [OnExit::Keep; 2] {
                all.may_go += held;
            }
        }
        Ok(all)
    }

    /// Has the job pause, on every daemon, unless somebody has said yes to more since it was asked last.
    pub(super) async fn pull(&self, work: &mut Work, reason: String) -> Result<(), Fault> {
        let mut backoff = self.road.attempts();
        loop {
            match self.try_to_pull(&work.counts_for, &reason).await {
                Ok(Some(order)) => {
                    self.lever.lock().pulled = Some(order);
                    let fault = Fault::new(FaultKind::Stopping, "a brake stopped the job");
                    return Err(fault);
                }
                Ok(None) => {
                    let partition = work.partition;
                    self.heed(work, partition);
                    return Ok(());
                }
                Err(fault) => self.back_off(fault, &mut backoff).await?,
            }
        }
    }

    /// The order by which the job stands; none, if there is one that accepts other things than was known.
    async fn try_to_pull(&self, run: &str, reason: &str) -> Result<Option<Order>, Fault> {
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
            let order = self.braked(run, reason, order).await?;
            let given = road.state.give(connection, job, revision, order.clone());
            if given.await? {
                tracing::error!(%connection, %job, reason, "a brake stopped the job");
                return Ok(Some(order));
            }
        }
    }

    async fn braked(&self, run: &str, reason: &str, before: Order) -> Result<Order, Fault> {
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
                run: run.to_owned(),
                is_sync: self.tally.is_sync(run),
                took: self.lever.took(run),
            }),
            accepted: before.accepted,
            replay: before.replay,
        })
    }
}

/// What was applied by a yes is not in it.
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
                emptied: part.emptied.saturating_sub(accepted.emptied),
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
