//! The tally: what a job does for each of its runs, counted here and noted in the state beside the road. A state that does
//! not answer holds no batch up; what was counted is noted once it does.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::JobRoad;
use super::batch::{Told, Work};
use crate::fault::{Fault, FaultKind};
use crate::state::runs::{RunCause, RunHead, RunPart, RunsWanted};

/// How often counts are noted, and how often it is looked whether a full sync began.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// How long a batch, or the end of a job, waits for the state.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many runs of a job are kept.
const KEPT: usize = 400;
/// How many runs batches under way may belong to, and how many are looked through for full syncs that a job is not past
/// when it starts.
const OPEN: usize = 32;

/// What one daemon did for the runs of a job.
pub(super) struct Tally {
    writer: String,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The full syncs are known that the job was not past when it started.
    is_begun: bool,
    /// The state did not answer when it was asked last.
    unheard: bool,
    /// How far the job is in the partitions that it has.
    next: BTreeMap<u32, u64>,
    /// By id.
    runs: BTreeMap<Arc<str>, Counted>,
}

struct Counted {
    head: RunHead,
    part: RunPart,
    /// Goes up with each change.
    revision: u64,
    /// The revision that the state knows; 0: nothing.
    noted: u64,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            writer: Uuid::now_v7().to_string(),
            inner: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The runs that changes belong to, and how many to each, in their order. What the stream told is its own, whatever
    /// sync is under way. What a read told is the sync's that holds its place; the owner notes a sync before it publishes
    /// anything of it, and its end before anything that comes after, so that the state is asked where no sync that is known
    /// to have ended holds it.
    pub(super) async fn pieces(
        &self,
        road: &JobRoad,
        partition: u32,
        told: &[Told<'_>],
    ) -> Vec<(Arc<str>, usize)> {
        let mut reads = told.iter().filter(|told| told.is_read() == Some(true));
        let last_read = reads.next_back().map(Told::offset);
        let asks = last_read.is_some_and(|offset| !self.lock().knows(partition, offset));
        if asks && patiently(self.hear(road)).await.is_err() {
            self.is_not_heard();
        }
        let mut inner = self.lock();
        let stream = inner.open(RunHead::stream(road.clock.now()));
        let mut pieces: Vec<(Arc<str>, usize)> = Vec::new();
        for told in told {
            let sync = || inner.sync(partition, told.offset());
            let run = match (told.is_read(), pieces.last()) {
                (None, Some((run, _))) => Arc::clone(run),
                (Some(true), _) => Arc::clone(sync().map_or(&stream, |(run, _)| run)),
                (None | Some(false), _) => Arc::clone(&stream),
            };
            match pieces.last_mut() {
                Some((last, count)) if *last == run => *count += 1,
                _ => pieces.push((run, 1)),
            }
        }
        pieces
    }

    /// Whether the state did not answer when it was asked last.
    pub(super) fn is_unheard(&self) -> bool {
        self.lock().unheard
    }

    /// Takes note that the state does not answer.
    pub(super) fn is_not_heard(&self) {
        self.lock().unheard = true;
    }

    /// The run of what belongs to no batch of the topic.
    pub(super) fn stream(&self, road: &JobRoad) -> Arc<str> {
        let head = RunHead::stream(road.clock.now());
        self.lock().open(head)
    }

    /// The run of a replay into the live tables.
    pub(super) fn replay(&self, head: RunHead) -> Arc<str> {
        let mut inner = self.lock();
        let run = inner.open(head.clone());
        if let Some(counted) = inner.runs.get_mut(&run) {
            counted.tell(head);
        }
        run
    }

    /// Takes note that a replay has ended.
    pub(super) fn replay_ended(&self, run: &str, now: DateTime<Utc>) {
        if let Some(counted) = self.lock().runs.get_mut(run) {
            let head = counted.head.clone().ended(now);
            counted.tell(head);
        }
    }

    /// Whether a run has an end by itself, as a full sync and a replay have.
    pub(super) fn is_sync(&self, run: &str) -> bool {
        let inner = self.lock();
        let counted = inner.runs.get(run);
        counted.is_some_and(|counted| counted.head.cause != RunCause::Stream)
    }

    /// What was counted here for a run.
    pub(super) fn own(&self, run: &str) -> RunPart {
        let inner = self.lock();
        let counted = inner.runs.get(run);
        counted
            .map(|counted| counted.part.clone())
            .unwrap_or_default()
    }

    /// Counts what a committed batch did.
    pub(super) fn add(&self, road: &JobRoad, work: &Work) {
        if let Some(counted) = self.lock().runs.get_mut(&work.counts_for) {
            for (outcome, count) in &work.counts {
                *counted
                    .part
                    .counts
                    .entry((*outcome).to_owned())
                    .or_default() += count;
            }
            counted.part.records += work.records;
            counted.part.emptied += work.took.emptied + work.accepted.emptied;
            counted.part.accepted.gone += work.accepted.gone;
            counted.part.accepted.emptied += work.accepted.emptied;
            counted.part.accepted.rejected += work.accepted.rejected;
            counted.part.at = Some(road.clock.now());
            counted.revision += 1;
        }
    }

    /// Takes note of how far the job is in a partition; `None` once it is another's.
    pub(super) fn at(&self, partition: u32, next: Option<u64>) {
        let mut inner = self.lock();
        match next {
            Some(next) => inner.next.insert(partition, next),
            None => inner.next.remove(&partition),
        };
    }

    /// Notes what is counted, for as long as it is polled.
    pub(super) async fn keep(&self, road: &JobRoad) -> Infallible {
        loop {
            tokio::time::sleep(NOTE_EVERY).await;
            let kept = async {
                self.hear(road).await?;
                self.note(road).await
            };
            if let Err(fault) = kept.await {
                self.complain(road, &fault);
            }
        }
    }

    /// Notes what is counted, before nobody does. The next membership may read another topic.
    pub(super) async fn close(&self, road: &JobRoad) {
        self.noted(road).await;
        self.lock().next.clear();
    }

    /// Notes what is counted now, if the state answers soon.
    pub(super) async fn noted(&self, road: &JobRoad) {
        if let Err(fault) = patiently(self.note(road)).await {
            self.complain(road, &fault);
        }
    }

    fn complain(&self, road: &JobRoad, fault: &Fault) {
        let plan = road.mapping.plan();
        tracing::debug!(
            connection = %plan.connection, job = %plan.job, error = fault.report(),
            "runs can't be noted, they are once the state answers"
        );
    }

    /// Looks which full sync began last.
    async fn hear(&self, road: &JobRoad) -> Result<(), Fault> {
        let plan = road.mapping.plan();
        if !self.lock().is_begun {
            let wanted = RunsWanted {
                connection: Some(plan.connection.clone()),
                job: Some(plan.job.clone()),
                limit: OPEN / 2,
            };
            let runs = road.state.runs(wanted).await?;
            let mut inner = self.lock();
            for run in runs
                .into_iter()
                .filter(|run| !run.head.is_done(&run.done.next))
            {
                inner.learn(run.head);
            }
            inner.is_begun = true;
        }
        let known = road.state.object(&plan.connection, &plan.source).await?;
        let mut inner = self.lock();
        inner.unheard = false;
        if let Some(head) = known.run {
            inner.learn(head);
        }
        Ok(())
    }

    async fn note(&self, road: &JobRoad) -> Result<(), Fault> {
        let plan = road.mapping.plan();
        let fresh = self.lock().fresh();
        for (run, revision, head, part) in fresh {
            let (connection, job) = (&plan.connection, &plan.job);
            let noted = road
                .state
                .note_run(connection, job, head, &self.writer, part);
            noted.await?;
            let before = {
                let mut inner = self.lock();
                let counted = inner.runs.get_mut(&run);
                counted.map(|counted| std::mem::replace(&mut counted.noted, revision))
            };
            if before == Some(0) {
                road.state.forget_runs(connection, job, KEPT).await?;
            }
        }
        Ok(())
    }
}

impl Inner {
    /// Takes note of a full sync. One whose end nobody told ended before the next one began.
    fn learn(&mut self, head: RunHead) {
        if !head.cause.is_sync() {
            return;
        }
        let run = self.open(head.clone());
        if let Some(counted) = self.runs.get_mut(&run) {
            counted.tell(head);
        }
        let syncs = self.runs.values_mut();
        let mut syncs = syncs.filter(|counted| counted.head.cause.is_sync()).rev();
        let mut next = syncs.next().map(|last| last.head.clone());
        for counted in syncs {
            if let Some(next) = next.filter(|_| !counted.head.is_closed()) {
                counted.tell(RunHead {
                    ended: Some(next.began),
                    ends: Some(next.from),
                    ..counted.head.clone()
                });
            }
            next = Some(counted.head.clone());
        }
    }

    /// The full sync that a place of the topic is part of.
    fn sync(&self, partition: u32, offset: u64) -> Option<(&Arc<str>, &RunHead)> {
        let runs = self.runs.iter().rev();
        let mut syncs = runs.filter(|(_, counted)| counted.head.cause.is_sync());
        let found = syncs.find(|(_, counted)| counted.head.holds(partition, offset));
        found.map(|(run, counted)| (run, &counted.head))
    }

    fn knows(&self, partition: u32, offset: u64) -> bool {
        let sync = self.sync(partition, offset);
        self.unheard || sync.is_some_and(|(_, head)| head.is_closed())
    }

    fn open(&mut self, head: RunHead) -> Arc<str> {
        let id: Arc<str> = head.id.as_str().into();
        self.runs.entry(Arc::clone(&id)).or_insert_with(|| Counted {
            head,
            part: RunPart::default(),
            revision: 0,
            noted: 0,
        });
        if self.runs.len() > OPEN {
            self.drop_oldest();
        }
        id
    }

    /// Makes room. Today's stream goes on counting, however many syncs there are.
    fn drop_oldest(&mut self) {
        let is_sync = |counted: &Counted| counted.head.cause != RunCause::Stream;
        let syncs = self.runs.values().filter(|counted| is_sync(counted));
        let drops_sync = syncs.count() > OPEN / 2;
        let mut of_kind = self.runs.iter();
        let oldest = of_kind.find(|(_, counted)| is_sync(counted) == drops_sync);
        if let Some(run) = oldest.map(|(run, _)| Arc::clone(run)) {
            self.runs.remove(&run);
        }
    }

    /// What the state is to know now.
    fn fresh(&mut self) -> Vec<(Arc<str>, u64, RunHead, RunPart)> {
        for counted in self.runs.values_mut() {
            counted.pass(&self.next);
        }
        let runs = self.runs.iter();
        let fresh = runs.filter(|(_, counted)| counted.revision != counted.noted);
        fresh
            .map(|(id, counted)| {
                let (head, part) = (counted.head.clone(), counted.part.clone());
                (Arc::clone(id), counted.revision, head, part)
            })
            .collect()
    }
}

impl Counted {
    /// Takes note of what is known of the run; what ended does not begin again.
    fn tell(&mut self, head: RunHead) {
        let is_news = self.head != head && (head.is_closed() || !self.head.is_closed());
        if is_news || self.revision == 0 {
            self.head = head;
            self.revision += 1;
        }
    }

    /// Takes note of how far the job is on its way to the ends of a full sync.
    fn pass(&mut self, next: &BTreeMap<u32, u64>) {
        for (partition, end) in self.head.ends.iter().flatten() {
            let Some(next) = next.get(partition) else {
                continue;
            };
            let (held, next) = (self.part.next.get(partition).copied(), *next.min(end));
            if held.is_none_or(|held| held < next) {
                self.part.next.insert(*partition, next);
                self.revision += 1;
            }
        }
    }
}

/// Asks the state, and gives it up soon.
pub(super) async fn patiently<T>(call: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let answer = tokio::time::timeout(PATIENCE, call).await;
    answer.unwrap_or_else(|_| Err(silent()))
}

fn silent() -> Fault {
    Fault::new(FaultKind::Unavailable, "the state does not answer")
}
