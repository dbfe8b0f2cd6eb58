//! A job: topic in, rows out. Stateless; its offsets lie in the target's ledger (J1).

mod batch;
mod brake;
mod commit;
mod lanes;
mod letters;
mod live_replay;
mod obey;
mod release;
pub mod rematch;
pub mod replay;
mod show;
mod sweep;
mod tally;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::time::Instant;

use crate::config::job::Brakes;
use crate::fault::{Fate, Fault, FaultKind};
use crate::log::port::{Delivery, From, Log, Reader, Record};
use crate::mapping::compile::Mapping;
use crate::runtime::backoff::{Attempts, Backoff};
use crate::runtime::clock::Clock;
use crate::runtime::shutdown::StopSignal;
use crate::state::orders::Order;
use crate::state::port::State;
use crate::target::port::{ReaderKey, Target};
use crate::telemetry::metrics::Metrics;

use super::board::{Board, Life};
use batch::{Run, Work};
use brake::Lever;
use commit::Seat;
use lanes::{Landed, Lanes};
use live_replay::{LiveReplay, Step};
use tally::Tally;

const MAX_RECORDS: usize = 1000;
const MAX_BYTES: usize = 8 * 1024 * 1024;
const WAIT: Duration = Duration::from_millis(500);
const RELEASE_EVERY: Duration = Duration::from_mins(1);
const LAG_EVERY: Duration = Duration::from_secs(1);
const TOPIC_EVERY: Duration = Duration::from_millis(500);
const PARKED_EVERY: Duration = Duration::from_secs(10);
/// What it takes until a decision of a person is carried out.
const REVIEWS_EVERY: Duration = Duration::from_secs(2);
/// What it takes until those who refer to a record's row hear that it has another.
const STRAYS_EVERY: Duration = Duration::from_secs(2);

/// What a job runs on.
#[derive(Clone)]
pub struct JobRoad {
    /// The compiled job.
    pub mapping: Arc<Mapping>,
    /// The object's topic.
    pub topic: Arc<str>,
    /// The log.
    pub log: Arc<dyn Log>,
    /// The target.
    pub target: Arc<dyn Target>,
    /// The state, for requests to the connection's owner.
    pub state: Arc<dyn State>,
    /// The date.
    pub clock: Arc<dyn Clock>,
    /// The metrics.
    pub metrics: Metrics,
    /// The health page.
    pub board: Arc<Board>,
    /// How long a missing parent is waited for.
    pub parked_ttl: TimeDelta,
    /// When it stops by itself.
    pub brakes: Brakes,
    /// Waits after faults that pass: first and longest.
    pub retry: (Duration, Duration),
}

/// A partition that this job owns: what the ledger's offset row holds.
#[derive(Debug, Clone, Copy)]
struct Owned {
    next: u64,
    epoch: u64,
}

/// Why a run ended without a fault.
enum Ended {
    Stopped,
    /// The topic has another generation, which has offsets of its own.
    TopicMadeAgain,
    /// Told to apply nothing until told otherwise.
    Paused(Box<Order>),
}

/// Who writes, for as long as one membership of the job's group lasts.
struct Owner {
    road: JobRoad,
    reader: ReaderKey,
    /// The term since which the topic is what it is: versions before it were read from a topic that was lost.
    since: u64,
    tally: Arc<Tally>,
    lever: Arc<Lever>,
    stop: StopSignal,
}

struct Job {
    owner: Arc<Owner>,
    /// What is committed.
    owned: BTreeMap<u32, Owned>,
    lanes: Lanes,
    /// The topic read again into the live tables.
    replay: Option<LiveReplay>,
}

/// What wakes a job.
enum News {
    Landed(Box<Landed>),
    Told(Result<Delivery, Fault>),
    /// There is something to do for a replay.
    Again(Result<Step, Fault>),
    /// Nothing: the lanes are full, and whoever looks at the lag should see it grow.
    Late,
}

/// Keeps a job running until the stop signal. A fault that passes is retried for ever and shown as such; any other is
/// shown as `failed` and looked at again now and then, since an operator may have acted.
pub async fn keep(road: JobRoad, stop: StopSignal) {
    let mut backoff = road.attempts();
    let (tally, lever) = (Arc::new(Tally::new()), Arc::new(Lever::new(road.brakes)));
    road.show_pause(None);
    road.topic_known(&stop).await;
    while !stop.is_stopping() {
        let began = Instant::now();
        let fault = match run(&road, &tally, &lever, &stop).await {
            Ok(Ended::Stopped) => break,
            Ok(Ended::TopicMadeAgain) => continue,
            Ok(Ended::Paused(order)) => {
                if !road.told_to_go_on(*order, &stop).await {
                    break;
                }
                backoff.succeeded();
                continue;
            }
            Err(fault) => fault,
        };
        if stop.is_stopping() || fault.kind() == FaultKind::Stopping {
            break;
        }
        // A run that held for a while is a new story.
        if began.elapsed() > road.retry.1 {
            backoff.succeeded();
        }
        // Whoever was fenced takes the partition over again, or is not given it.
        let passes = fault.fate() == Fate::Retry || fault.kind() == FaultKind::Fenced;
        let (life, wait) = if passes {
            (Life::Retrying, backoff.failed(fault.wait_hint()))
        } else {
            (Life::Failed, road.retry.1 * 2)
        };
        road.show_fault(&fault, life);
        tracing::error!(
            connection = %road.mapping.plan().connection, job = %road.mapping.plan().job,
            kind = fault.kind().label(), error = fault.report(),
            again_in_seconds = wait.as_secs_f64(), "job ended"
        );
        tokio::select! {
            biased;
            () = stop.stopped() => break,
            // The next run meets the order, and ends by it.
            _ = road.told_to_pause() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
    road.show_life(Life::Stopped);
}

/// One membership of the job's group. A job that is told to pause does not join it, or leaves it.
async fn run(
    road: &JobRoad,
    tally: &Arc<Tally>,
    lever: &Arc<Lever>,
    stop: &StopSignal,
) -> Result<Ended, Fault> {
    let plan = road.mapping.plan();
    let order = road.order().await?;
    if order.paused {
        return Ok(Ended::Paused(Box::new(order)));
    }
    lever.hear(&order);
    let (generation, since) = road.generation().await?;
    road.log
        .ensure(&super::road::dead_spec(&road.topic))
        .await?;
    road.target.prepare(plan).await?;
    let owner = Owner {
        reader: ReaderKey {
            connection: plan.connection.clone(),
            job: plan.job.clone(),
            reader: "live".to_owned(),
            generation,
        },
        road: road.clone(),
        since,
        tally: Arc::clone(tally),
        lever: Arc::clone(lever),
        stop: stop.child(),
    };
    let mut job = Job {
        owner: Arc::new(owner),
        owned: BTreeMap::new(),
        lanes: Lanes::new(road.target.side_by_side()),
        replay: None,
    };
    let group = format!("{}.{}", plan.connection, plan.job);
    let mut reader = road.log.reader(&road.topic, From::Group(group)).await?;
    let halt = job.owner.stop.clone();
    let mut reading = Box::pin(job.read(reader.as_mut()));
    let (ended, told) = tokio::select! {
        biased;
        ended = &mut reading => (ended, None),
        order = road.told_to_pause() => {
            halt.stop();
            (reading.as_mut().await, Some(order))
        }
        never = tally.keep(road) => match never {},
    };
    drop(reading);
    // Whatever ended it: batches in hand end as a whole before anybody else is given their partitions.
    halt.stop();
    for landed in job.lanes.drain().await {
        if landed.result.is_ok() {
            job.owner.show_commit(&landed.work);
        }
    }
    tally.close(road).await;
    let pulled = lever.pulled();
    match told.or(pulled) {
        // What else was in its way, it meets again when it goes on.
        Some(order) => Ok(Ended::Paused(Box::new(order))),
        None => ended,
    }
}

impl Job {
    /// Reads until the stop signal.
    async fn read(&mut self, reader: &mut dyn Reader) -> Result<Ended, Fault> {
        let mut released_at = Instant::now();
        let (mut lag_at, mut parked_at, mut reviews_at, mut strays_at) = (None, None, None, None);
        let mut replay_at = None;
        loop {
            let admits = self.lanes.admits();
            let news = tokio::select! {
                biased;
                () = self.owner.stop.stopped() => return Ok(Ended::Stopped),
                landed = self.lanes.landed(&self.owner) => News::Landed(Box::new(landed)),
                told = reader.next(MAX_RECORDS, MAX_BYTES, WAIT), if admits => News::Told(told),
                step = LiveReplay::step(&mut self.replay), if admits => News::Again(step),
                () = tokio::time::sleep(LAG_EVERY), if !admits => News::Late,
            };
            match news {
                News::Landed(landed) => {
                    if self.note(*landed)? {
                        self.release().await?;
                    }
                }
                News::Told(Ok(delivery)) => self.take(reader, delivery).await?,
                News::Told(Err(fault)) if fault.kind() == FaultKind::PositionLost => {
                    self.quiet().await?;
                    if self.owner.is_topic_new().await? {
                        return Ok(Ended::TopicMadeAgain);
                    }
                    self.rewind_lost(reader, fault).await?;
                }
                News::Told(Err(fault)) => return Err(fault),
                News::Again(step) => {
                    if self.replay_step(step).await? {
                        replay_at = None;
                    }
                }
                News::Late => {}
            }
            if is_due(&mut replay_at, live_replay::LOOK_EVERY) {
                self.look_for_replay().await?;
            }
            if is_due(&mut lag_at, LAG_EVERY) {
                self.show_lag().await?;
            }
            if is_due(&mut parked_at, PARKED_EVERY) {
                self.owner.show_parked().await?;
            }
            if is_due(&mut reviews_at, REVIEWS_EVERY) && self.owner.show_reviews().await? && admits
            {
                self.release().await?;
            }
            if is_due(&mut strays_at, STRAYS_EVERY) {
                self.owner.ask_for_strays().await?;
            }
            if admits && released_at.elapsed() > RELEASE_EVERY {
                released_at = Instant::now();
                // A topic that was made again and has grown past our offsets is not seen by reading it.
                if self.owner.is_topic_new().await? {
                    return Ok(Ended::TopicMadeAgain);
                }
                self.release().await?;
                self.expire().await?;
            }
        }
    }

    /// Takes what the log delivers.
    async fn take(&mut self, reader: &mut dyn Reader, delivery: Delivery) -> Result<(), Fault> {
        match delivery {
            Delivery::Assigned(partition) => {
                self.let_go_of_replay();
                self.take_over(reader, partition).await
            }
            Delivery::Revoked(partition) => {
                self.let_go_of_replay();
                let mut wrote = false;
                while self.lanes.is_busy(partition) {
                    let landed = self.lanes.landed(&self.owner).await;
                    wrote |= self.note(landed)?;
                }
                self.owned.remove(&partition);
                self.owner.tally.at(partition, None);
                reader.release(partition).await?;
                if wrote {
                    self.release().await?;
                }
                Ok(())
            }
            Delivery::Batch(records) => self.begin(records).await,
            Delivery::Idle => {
                self.owner.road.show_streaming();
                Ok(())
            }
        }
    }

    /// Takes note of a batch that has ended; whether it wrote what others may wait for.
    fn note(&mut self, landed: Landed) -> Result<bool, Fault> {
        let Landed { seat, work, result } = landed;
        result?;
        if let Some(owned) = self.owned.get_mut(&seat.partition) {
            owned.next = seat.next;
            self.owner.tally.at(seat.partition, Some(seat.next));
        }
        self.owner.show_commit(&work);
        Ok(work.wrote)
    }

    /// Waits until nothing is under way; whether something was written that others may wait for.
    async fn quiet(&mut self) -> Result<bool, Fault> {
        let mut wrote = false;
        while !self.lanes.is_idle() {
            let landed = self.lanes.landed(&self.owner).await;
            wrote |= self.note(landed)?;
        }
        Ok(wrote)
    }

    /// Answers an assignment: the ledger says where to go on.
    async fn take_over(&mut self, reader: &mut dyn Reader, partition: u32) -> Result<(), Fault> {
        let assignment = self
            .owner
            .road
            .target
            .assign(&self.owner.reader, partition)
            .await?;
        let owned = Owned {
            next: assignment.next,
            epoch: assignment.epoch,
        };
        self.owned.insert(partition, owned);
        self.owner.tally.at(partition, Some(owned.next));
        match reader.start(partition, owned.next).await {
            Err(fault) if fault.kind() == FaultKind::PositionLost => {
                self.rewind(reader, partition, fault).await?;
            }
            started => started?,
        }
        self.owner.road.show_streaming();
        Ok(())
    }

    /// The reader lost a position and does not say whose: every partition that lies out of bounds goes back, and
    /// all of them if none does any more, since one of them was passed over.
    async fn rewind_lost(&mut self, reader: &mut dyn Reader, fault: Fault) -> Result<(), Fault> {
        let bounds = self.owner.road.log.bounds(&self.owner.road.topic).await?;
        let is_lost = |partition: &u32, owned: &Owned| {
            bounds
                .get(partition)
                .is_none_or(|ends| owned.next < ends.start || owned.next > ends.end)
        };
        let mut lost: Vec<u32> = self
            .owned
            .iter()
            .filter(|(partition, owned)| is_lost(partition, owned))
            .map(|(partition, _)| *partition)
            .collect();
        if lost.is_empty() {
            lost = self.owned.keys().copied().collect();
        }
        for partition in lost {
            let told = Fault::new(FaultKind::PositionLost, fault.report());
            self.rewind(reader, partition, told).await?;
        }
        Ok(())
    }

    /// A partition whose end was cut (a broker restored from a backup) is read again from its beginning: ingest
    /// publishes again what the cut took, at offsets that the ledger counts as done, and versions make everything
    /// else a repetition (J2). The ledger goes back first, so that no restart passes those offsets over.
    ///
    /// If what the ledger asks for was removed from the topic's beginning, nobody can tell what it was: the fault is
    /// handed on, and holds the job until an operator has acted.
    async fn rewind(
        &mut self,
        reader: &mut dyn Reader,
        partition: u32,
        fault: Fault,
    ) -> Result<(), Fault> {
        let Some(owned) = self.owned.get(&partition).copied() else {
            return Err(fault);
        };
        let bounds = self.owner.road.log.bounds(&self.owner.road.topic).await?;
        let start = bounds.get(&partition).map_or(0, |ends| ends.start);
        if owned.next < start {
            return Err(fault.remedy(format!(
                "records that job {} had not applied were removed from topic {}; delete the topic, so that it is made \
                 again and filled by a full sync",
                self.owner.reader.job, self.owner.road.topic
            )));
        }
        self.owner.road.show_fault(&fault, Life::Retrying);
        tracing::error!(
            connection = %self.owner.reader.connection, job = %self.owner.reader.job, partition,
            lost = owned.next, from = start, error = fault.report(),
            "topic was cut, partition is read again from its beginning"
        );
        let seat = Seat {
            partition,
            epoch: owned.epoch,
            expect: owned.next,
            next: start,
        };
        self.owner
            .commit(seat, &mut Work::empty(&self.owner.road, Run::First))
            .await?;
        self.owned.insert(
            partition,
            Owned {
                next: start,
                ..owned
            },
        );
        reader.start(partition, start).await
    }

    /// One partition's records: mapped now, applied when it is their turn.
    async fn begin(&mut self, records: Vec<Record>) -> Result<(), Fault> {
        let Some(partition) = records.first().map(|record| record.partition) else {
            return Ok(());
        };
        let Some(owned) = self.owned.get(&partition).copied() else {
            return Err(Fault::new(
                FaultKind::Protocol,
                format!("log delivered partition {partition}, which was not assigned"),
            ));
        };
        let expect = self.lanes.end_of(partition).unwrap_or(owned.next);
        // After a restart of the reader the log may repeat what is committed.
        let fresh = records.partition_point(|record| record.offset < expect);
        let records = &records[fresh..];
        let (road, tally) = (&self.owner.road, &self.owner.tally);
        let mut told = batch::decode(road, records);
        let mut next = expect;
        for (run, count) in tally.pieces(road, partition, &told).await {
            let rest = told.split_off(count);
            let piece = std::mem::replace(&mut told, rest);
            let seat = Seat {
                partition,
                epoch: owned.epoch,
                expect: next,
                next: piece.last().map_or(next, |told| told.offset() + 1),
            };
            next = seat.next;
            let mut work = batch::fold(road, piece, Run::First);
            work.counts_for = run;
            self.lanes.put(&self.owner, seat, work);
        }
        Ok(())
    }
}

impl Owner {
    async fn is_topic_new(&self) -> Result<bool, Fault> {
        let is_new = self.road.generation().await?.0 != self.reader.generation;
        if is_new {
            tracing::warn!(
                connection = %self.reader.connection, job = %self.reader.job, topic = %self.road.topic,
                "topic was made again or cut, job begins it from the start"
            );
        }
        Ok(is_new)
    }

    /// Shows a fault that passes, and waits before the next attempt.
    ///
    /// # Errors
    /// The fault, if it does not pass; `Stopping`.
    async fn back_off(&self, fault: Fault, backoff: &mut Attempts) -> Result<(), Fault> {
        if fault.fate() != Fate::Retry {
            return Err(fault);
        }
        self.road.show_fault(&fault, Life::Retrying);
        let wait = backoff.failed(fault.wait_hint());
        tracing::warn!(
            connection = %self.reader.connection, job = %self.reader.job, error = fault.report(),
            again_in_seconds = wait.as_secs_f64(), "job waits"
        );
        self.stop.or(tokio::time::sleep(wait)).await
    }
}

impl JobRoad {
    /// The topic's generation, and since when it is what it is. A cut leaves the topic its id, and once the topic has
    /// grown past our offsets again no reading tells that they are of other records; ingest noticed.
    async fn generation(&self) -> Result<(String, u64), Fault> {
        let plan = self.mapping.plan();
        let topic = super::road::topic_spec(&self.topic);
        let generation = self.log.ensure(&topic).await?;
        let state = self.state.object(&plan.connection, &plan.source).await?;
        Ok(match state.topic_since {
            Some(term) => (format!("{generation}/{term}"), term),
            None => (generation, 0),
        })
    }

    /// Waits, while the topic is empty, until ingest has said since when it is what it is, or for the stop signal:
    /// once that is said offsets count anew, and whoever began before would read everything a second time.
    async fn topic_known(&self, stop: &StopSignal) {
        loop {
            match self.is_topic_known().await {
                Ok(false) => {}
                // A fault is met again by who reads.
                Ok(true) | Err(_) => return,
            }
            if stop.or(tokio::time::sleep(TOPIC_EVERY)).await.is_err() {
                return;
            }
        }
    }

    async fn is_topic_known(&self) -> Result<bool, Fault> {
        if self.generation().await?.1 > 0 {
            return Ok(true);
        }
        let bounds = self.log.bounds(&self.topic).await?;
        Ok(bounds.values().any(|bounds| bounds.end > 0))
    }

    fn attempts(&self) -> Attempts {
        let seed = u64::from(self.clock.now().timestamp_subsec_nanos());
        let backoff = Backoff {
            first: self.retry.0,
            cap: self.retry.1,
            ..Backoff::default()
        };
        Attempts::new(backoff, seed)
    }
}

/// Whether `every` has passed since the last time; notes this one.
fn is_due(last: &mut Option<Instant>, every: Duration) -> bool {
    let due = last.is_none_or(|at| at.elapsed() > every);
    if due {
        *last = Some(Instant::now());
    }
    due
}

#[cfg(test)]
mod tests;
