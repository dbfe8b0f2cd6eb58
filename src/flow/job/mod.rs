//! A job: topic in, rows out. Stateless; its offsets lie in the target's ledger (J1).

mod batch;
mod letters;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;

use crate::runtime::shutdown::StopSignal;
use crate::fault::{Fate, Fault, FaultKind};
use crate::log::port::{Delivery, From, Log, Record};
use crate::mapping::compile::Mapping;
use crate::runtime::backoff::{Attempts, Backoff};
use crate::runtime::clock::Clock;
use crate::state::port::State;
use crate::target::port::{ReaderKey, Target};
use crate::telemetry::metrics::{self, Metrics};

use super::board::{Board, FaultPicture, Life};

const MAX_RECORDS: usize = 1000;
const MAX_BYTES: usize = 8 * 1024 * 1024;
const WAIT: Duration = Duration::from_millis(500);
const RELEASE_EVERY: Duration = Duration::from_secs(60);
const RELEASE_SOME: usize = 1000;
const LAG_EVERY: Duration = Duration::from_secs(1);

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
    /// Waits after faults that pass: first and longest.
    pub retry: (Duration, Duration),
}

/// A partition that this job owns.
#[derive(Debug, Clone, Copy)]
struct Owned {
    next: u64,
    epoch: u64,
}

struct Job {
    road: JobRoad,
    reader: ReaderKey,
    owned: BTreeMap<u32, Owned>,
    stop: StopSignal,
}

/// Keeps a job running until the stop signal; a fault that passes is retried for ever and shown as such.
pub async fn keep(road: JobRoad, stop: StopSignal) {
    let mut backoff = road.attempts();
    while !stop.is_stopping() {
        let began = std::time::Instant::now();
        let Err(fault) = run(&road, &stop).await else { break };
        if stop.is_stopping() || fault.kind() == FaultKind::Stopping {
            break;
        }
        if began.elapsed() > road.retry.1 {
            backoff.succeeded();
        }
        let passes = matches!(fault.fate(), Fate::Retry) || fault.kind() == FaultKind::Fenced;
        let life = if passes { Life::Retrying } else { Life::Failed };
        let wait = if passes {
            backoff.failed(fault.wait_hint())
        } else {
            road.retry.1 * 2
        };
        road.show_fault(&fault, life);
        tracing::error!(
            connection = %road.mapping.plan().connection, job = %road.mapping.plan().job,
            kind = fault.kind().label(), error = fault.report(),
            again_in_seconds = wait.as_secs_f64(), "job ended"
        );
        tokio::select! {
            () = stop.stopped() => break,
            () = tokio::time::sleep(wait) => {}
        }
    }
    let plan = road.mapping.plan();
    road.board.job(&plan.connection, &plan.job, |entry| entry.state = Life::Stopped);
}

async fn run(road: &JobRoad, stop: &StopSignal) -> Result<(), Fault> {
    let plan = road.mapping.plan();
    road.board.job(&plan.connection, &plan.job, |entry| entry.state = Life::Starting);
    let generation = road.log.ensure(&super::road::topic_spec(&road.topic)).await?;
    road.log.ensure(&super::road::dead_spec(&road.topic)).await?;
    let mut job = Job {
        reader: ReaderKey {
            connection: plan.connection.clone(),
            job: plan.job.clone(),
            reader: "live".to_owned(),
            generation,
        },
        road: road.clone(),
        owned: BTreeMap::new(),
        stop: stop.clone(),
    };
    let group = format!("{}.{}", plan.connection, plan.job);
    let mut reader = road.log.reader(&road.topic, From::Group(group)).await?;
    let mut released_at = std::time::Instant::now();
    let mut lag_at: Option<std::time::Instant> = None;
    road.board.job(&plan.connection, &plan.job, |entry| entry.state = Life::Streaming);
    loop {
        let delivery = tokio::select! {
            biased;
            () = stop.stopped() => return Ok(()),
            delivery = reader.next(MAX_RECORDS, MAX_BYTES, WAIT) => delivery?,
        };
        match delivery {
            Delivery::Assigned(partition) => {
                let assignment = road.target.assign(&job.reader, partition).await?;
                let owned = Owned { next: assignment.next, epoch: assignment.epoch };
                reader.start(partition, owned.next).await?;
                job.owned.insert(partition, owned);
            }
            Delivery::Revoked(partition) => {
                job.owned.remove(&partition);
                reader.release(partition).await?;
            }
            // No `select!` here: a batch in hand is committed or fails as a whole.
            Delivery::Batch(records) => job.apply(records).await?,
            Delivery::Idle => {}
        }
        if lag_at.is_none_or(|at| at.elapsed() > LAG_EVERY) {
            lag_at = Some(std::time::Instant::now());
            job.show_lag().await?;
        }
        if released_at.elapsed() > RELEASE_EVERY {
            released_at = std::time::Instant::now();
            job.release().await?;
            job.expire().await?;
        }
    }
}

impl Job {
    /// One partition's records: mapped, applied, their letters written first.
    async fn apply(&mut self, records: Vec<Record>) -> Result<(), Fault> {
        let Some(first) = records.first() else { return Ok(()) };
        let partition = first.partition;
        let Some(owned) = self.owned.get(&partition).copied() else {
            return Err(Fault::new(
                FaultKind::Protocol,
                format!("log delivered partition {partition}, which was not assigned"),
            ));
        };
        // After a restart of the reader the log may repeat what is committed.
        let records: Vec<Record> =
            records.into_iter().filter(|record| record.offset >= owned.next).collect();
        if records.is_empty() {
            return Ok(());
        }
        let mut work = batch::prepare(&self.road, &records)?;
        letters::write(&self.road, &work.letters).await?;
        let next = self.commit(partition, owned, &mut work).await?;
        self.owned.insert(partition, Owned { next, ..owned });
        self.after_commit(&work);
        // The ledger holds a higher term than the change (I7): its owner lost state, and publishes again.
        for record in &work.outranked {
            let plan = self.road.mapping.plan();
            self.road
                .state
                .request_republish(&plan.connection, &plan.source, record)
                .await?;
        }
        if work.released {
            self.release().await?;
        }
        Ok(())
    }

    /// Applies until it is committed: a passing fault is retried, a refused record is set aside.
    async fn commit(
        &self,
        partition: u32,
        owned: Owned,
        work: &mut batch::Work,
    ) -> Result<u64, Fault> {
        let mut backoff = self.road.attempts();
        loop {
            let batch = work.batch(&self.reader, partition, owned.epoch, owned.next, self.road.clock.now());
            let next = batch.next;
            match self.road.target.apply(batch).await {
                Ok(applied) if applied.committed => {
                    work.take_outcomes(applied);
                    return Ok(next);
                }
                Ok(applied) => {
                    // Nothing was written: the letters come first, then the rest is applied (J1).
                    let refused = work.refuse(&self.road, applied);
                    letters::write(&self.road, &refused).await?;
                }
                Err(fault) if fault.fate() == Fate::Retry => {
                    self.road.show_fault(&fault, Life::Retrying);
                    let wait = backoff.failed(fault.wait_hint());
                    tracing::warn!(
                        job = %self.reader.job, error = fault.report(),
                        again_in_seconds = wait.as_secs_f64(), "target did not take the batch"
                    );
                    tokio::select! {
                        () = self.stop.stopped() => {
                            return Err(Fault::new(FaultKind::Stopping, "job is stopping"));
                        }
                        () = tokio::time::sleep(wait) => {}
                    }
                }
                Err(fault) if fault.fate() == Fate::DeadLetter => {
                    let record = self.bisect(partition, owned, work).await?;
                    let refused = work.refuse_record(&self.road, &record, &fault.report());
                    letters::write(&self.road, &refused).await?;
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Finds one record that the target refuses: batches that only probe don't move the offset.
    async fn bisect(
        &self,
        partition: u32,
        owned: Owned,
        work: &batch::Work,
    ) -> Result<crate::model::record_id::RecordId, Fault> {
        let mut suspects = work.records();
        while suspects.len() > 1 {
            let half = suspects[..suspects.len() / 2].to_vec();
            let probe = work.probe(
                &self.reader,
                partition,
                (owned.epoch, owned.next),
                &half,
                self.road.clock.now(),
            );
            match self.road.target.apply(probe).await {
                Ok(_) => suspects.drain(..half.len()).for_each(drop),
                Err(fault) if fault.fate() == Fate::DeadLetter => suspects = half,
                Err(fault) => return Err(fault),
            }
        }
        suspects.pop().ok_or_else(|| {
            Fault::new(FaultKind::Corrupt, "target refuses an empty batch")
        })
    }

    /// Fills parked references, and runs parked changes again whose rows have come.
    async fn release(&mut self) -> Result<(), Fault> {
        loop {
            let connection = &self.reader.connection;
            let released = self.road.target.release(connection, RELEASE_SOME).await?;
            let mut progress = released.filled > 0;
            let mut by_partition: HashMap<u32, Vec<Record>> = HashMap::new();
            for change in released.changes {
                if change.job != self.reader.job || !self.owned.contains_key(&change.place.0) {
                    continue;
                }
                by_partition.entry(change.place.0).or_default().push(Record {
                    partition: change.place.0,
                    offset: change.place.1,
                    at: self.road.clock.now(),
                    key: bytes::Bytes::copy_from_slice(change.record.as_str().as_bytes()),
                    value: Some(change.image),
                    headers: Vec::new(),
                });
            }
            for (partition, mut records) in by_partition {
                records.sort_by_key(|record| record.offset);
                let Some(owned) = self.owned.get(&partition).copied() else { continue };
                let mut work = batch::prepare(&self.road, &records)?;
                letters::write(&self.road, &work.letters).await?;
                work.next = owned.next;
                self.commit(partition, owned, &mut work).await?;
                self.after_commit(&work);
                progress = true;
            }
            // Changes of other jobs stay for them.
            if !released.more || !progress {
                return Ok(());
            }
        }
    }

    /// What waited too long goes to the dead letters.
    async fn expire(&self) -> Result<(), Fault> {
        let older = self.road.clock.now() - self.road.parked_ttl;
        let expired = self
            .road
            .target
            .expire(&self.reader.connection, &self.reader.job, older)
            .await?;
        letters::write(&self.road, &letters::of_expired(&self.road, expired)).await
    }

    fn after_commit(&self, work: &batch::Work) {
        let now = self.road.clock.now();
        let plan = self.road.mapping.plan();
        let labels = self.road.labels();
        for (outcome, count) in &work.counts {
            let labels = [labels[0], labels[1], ("outcome", *outcome)];
            self.road.metrics.counter(metrics::ROWS_APPLIED, &labels).increment(*count);
        }
        let histogram = self.road.metrics.histogram(metrics::LAG_SECONDS, &labels);
        let mut newest = None;
        for committed_at in &work.streamed {
            let lag = (now - *committed_at).as_seconds_f64().max(0.0);
            histogram.record(lag);
            newest = Some(lag);
        }
        self.road
            .metrics
            .gauge(metrics::JOB_COMMITTED_AT, &labels)
            .set(now.timestamp() as f64);
        self.road.board.job(&plan.connection, &plan.job, |entry| {
            entry.state = Life::Streaming;
            entry.fault = None;
            entry.committed_at = Some(now);
            entry.lag_seconds = newest.or(entry.lag_seconds);
            for (outcome, count) in &work.counts {
                *entry.rows.entry(outcome).or_default() += count;
            }
        });
    }

    async fn show_lag(&self) -> Result<(), Fault> {
        let bounds = self.road.log.bounds(&self.road.topic).await?;
        let lag: u64 = self
            .owned
            .iter()
            .filter_map(|(partition, owned)| {
                Some(bounds.get(partition)?.end.saturating_sub(owned.next))
            })
            .sum();
        let plan = self.road.mapping.plan();
        self.road.metrics.gauge(metrics::LAG_RECORDS, &self.road.labels()).set(lag as f64);
        self.road
            .board
            .job(&plan.connection, &plan.job, |entry| entry.lag_records = lag);
        for (connection, job, parked) in self.road.target.parked().await? {
            if connection == plan.connection && job == plan.job {
                self.road.metrics.gauge(metrics::PARKED, &self.road.labels()).set(parked as f64);
            }
        }
        Ok(())
    }
}

impl JobRoad {
    fn attempts(&self) -> Attempts {
        let seed = u64::from(self.clock.now().timestamp_subsec_nanos());
        let backoff = Backoff {
            first: self.retry.0,
            cap: self.retry.1,
            ..Backoff::default()
        };
        Attempts::new(backoff, seed)
    }

    fn labels(&self) -> [(&'static str, &str); 2] {
        let plan = self.mapping.plan();
        [("connection", plan.connection.as_str()), ("sync_job", plan.job.as_str())]
    }

    fn show_fault(&self, fault: &Fault, life: Life) {
        let plan = self.mapping.plan();
        let picture = FaultPicture::of(fault, self.clock.now());
        let labels = [("connection", plan.connection.as_str()), ("kind", picture.kind)];
        self.metrics.counter(metrics::FAULTS, &labels).increment(1);
        self.board.job(&plan.connection, &plan.job, |entry| {
            entry.state = life;
            entry.fault = Some(picture);
        });
    }
}
