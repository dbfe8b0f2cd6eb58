//! A replay into the live tables: the topic is read again, up to the ends that it had, by a second reader with offsets of its
//! own. The job itself writes what that reads, between the batches of the stream and fenced as they are, so that a
//! partition goes on having one writer. How it stands lies in the state and in the target's ledger: whoever has a partition
//! goes on with it, and whoever has the lowest one begins and ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::fault::{Fate, Fault, FaultKind};
use crate::flow::board::{ReplayPhase, ReplayPicture};
use crate::log::port::{Bounds, Delivery, From, Reader, Record};
use crate::model::record_id::RecordId;
use crate::state::orders::{Reading, Replay, ReplayStage, Since};
use crate::state::runs::RunHead;
use crate::target::port::ReaderKey;
use crate::target::port::sweep::SweepKey;

use super::batch::{self, Run, Work};
use super::commit::Seat;
use super::tally::patiently;
use super::{Job, MAX_BYTES, MAX_RECORDS, Owned, Owner, WAIT};

/// How often a job looks whether a replay is asked for, and how it stands on other daemons.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A replay as far as this daemon's partitions go.
pub(super) struct LiveReplay {
    pub key: SweepKey,
    reader: ReaderKey,
    pub run: Arc<str>,
    pub phase: ReplayPhase,
    /// The partitions that are read.
    spans: BTreeMap<u32, Span>,
    topic: Option<Box<dyn Reader>>,
    /// Offsets that are read, and how many there are to read.
    read: u64,
    of: u64,
}

/// A partition that is read again.
struct Span {
    /// What the ledger holds.
    stored: u64,
    epoch: u64,
    next: u64,
    end: u64,
}

/// What a replay does next.
pub(super) enum Step {
    Told(Delivery),
    Sweep,
}

impl LiveReplay {
    /// Waits for what is next; for ever, while there is nothing to do. Cancel-safe.
    pub(super) async fn step(replay: &mut Option<Self>) -> Result<Step, Fault> {
        let Some(replay) = replay else {
            return std::future::pending().await;
        };
        match (replay.phase, &mut replay.topic) {
            (ReplayPhase::Sweeping, _) => Ok(Step::Sweep),
            (_, Some(topic)) => {
                let told = topic.next(MAX_RECORDS, MAX_BYTES, WAIT).await;
                told.map(Step::Told)
            }
            (_, None) => std::future::pending().await,
        }
    }

    fn picture(&self) -> ReplayPicture {
        ReplayPicture {
            id: self.key.replay.clone(),
            phase: self.phase,
            read: self.read,
            of: self.of,
        }
    }
}

impl Job {
    /// Looks what is asked for, and does what is to be done between batches. A state that does not answer is asked again.
    pub(super) async fn look_for_replay(&mut self) -> Result<(), Fault> {
        let road = &self.owner.road;
        let order = match patiently(road.order()).await {
            Ok(order) => order,
            Err(fault) => {
                road.note_unheard(&fault);
                return Ok(());
            }
        };
        let Some(asked) = order.replay.filter(Replay::is_under_way) else {
            if let Some(LiveReplay { key, run, .. }) = self.replay.take() {
                self.show_replay();
                self.owner.forget_replay(&key, &run).await?;
            }
            return Ok(());
        };
        self.replay.take_if(|replay| replay.key.replay != asked.id);
        let obeyed = self.obey_replay(&asked).await;
        self.go_on_or_give_up(&asked.id, obeyed).await?;
        self.show_replay();
        Ok(())
    }

    /// Does a step; whether it is time to look how all stands.
    pub(super) async fn replay_step(&mut self, step: Result<Step, Fault>) -> Result<bool, Fault> {
        let Some(id) = self.replay.as_ref().map(|replay| replay.key.replay.clone()) else {
            return Ok(false);
        };
        let done = match step {
            Ok(Step::Sweep) => self.sweep_some().await.map(|()| false),
            Ok(Step::Told(Delivery::Batch(records))) => self.replay_records(records).await,
            Ok(Step::Told(Delivery::Idle)) => Ok(true),
            Ok(Step::Told(Delivery::Assigned(_) | Delivery::Revoked(_))) => Err(Fault::new(
                FaultKind::Protocol,
                "log moved a partition of a reader of fixed partitions",
            )),
            Err(fault) => Err(fault),
        };
        let looks = self.go_on_or_give_up(&id, done).await?;
        self.show_replay();
        Ok(looks.unwrap_or(false))
    }

    /// A replay that can't go on ends, and says why; the stream goes on without it.
    async fn go_on_or_give_up<T>(
        &mut self,
        id: &str,
        done: Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(fault) if passes(&fault) => Err(fault),
            Err(fault) => {
                let at = self.owner.road.clock.now();
                let reason = fault.report();
                tracing::error!(
                    connection = %self.owner.reader.connection, job = %self.owner.reader.job, replay = id,
                    error = reason, "replay given up"
                );
                self.end_replay(id, ReplayStage::Failed { at, reason })
                    .await?;
                Ok(None)
            }
        }
    }

    async fn obey_replay(&mut self, asked: &Replay) -> Result<(), Fault> {
        let reading = match &asked.stage {
            ReplayStage::Asked => match self.begin_replay(asked).await? {
                Some(reading) => reading,
                None => return Ok(()),
            },
            ReplayStage::Reading(reading) => reading.clone(),
            ReplayStage::Done { .. } | ReplayStage::Failed { .. } => return Ok(()),
        };
        if reading.generation != self.owner.reader.generation {
            return Err(cut());
        }
        if self.replay.is_none() {
            self.open_replay(asked, &reading).await?;
        }
        let Some(reading) = self.note_what_is_read(&asked.id, reading).await else {
            return Ok(());
        };
        if reading.is_read() && self.leads(reading.spans.keys().next()) {
            self.end_reading(asked, &reading).await?;
        }
        Ok(())
    }

    /// Whether this daemon has the lowest partition.
    fn leads(&self, lowest: Option<&u32>) -> bool {
        lowest.is_some_and(|lowest| self.owned.contains_key(lowest))
    }

    /// Notes who holds rows, and then where the topic ends: once, by whoever has the lowest partition.
    async fn begin_replay(&mut self, asked: &Replay) -> Result<Option<Reading>, Fault> {
        let road = &self.owner.road;
        let bounds = road.log.bounds(&road.topic).await?;
        if !self.leads(bounds.keys().next()) {
            return Ok(None);
        }
        let mut tables = Vec::new();
        if asked.sweeps() {
            if !self.owner.is_complete().await? {
                return Ok(None);
            }
            tables = self.owner.tables();
        }
        let attempt = Uuid::now_v7().to_string();
        let of = self.owner.sweep_key(&asked.id, &attempt);
        road.target.begin_replay(&of, &tables).await?;
        let reading = Reading {
            generation: self.owner.reader.generation.clone(),
            attempt,
            spans: self.owner.spans(asked.since, bounds).await?,
            done: BTreeSet::new(),
        };
        if !self.owner.note_begun(&asked.id, &reading).await {
            return Ok(None);
        }
        tracing::info!(
            connection = %self.owner.reader.connection, job = %self.owner.reader.job, replay = asked.id,
            by = asked.by.as_deref().unwrap_or_default(), "replay into the live tables begins"
        );
        Ok(Some(reading))
    }

    /// Takes this daemon's partitions over where the ledger says.
    async fn open_replay(&mut self, asked: &Replay, reading: &Reading) -> Result<(), Fault> {
        let road = &self.owner.road;
        let key = self.owner.sweep_key(&asked.id, &reading.attempt);
        let reader = ReaderKey {
            reader: key.reader(),
            ..self.owner.reader.clone()
        };
        let mut spans = BTreeMap::new();
        let (mut read, mut of) = (0, 0);
        for (partition, (from, end)) in &reading.spans {
            if !self.owned.contains_key(partition) {
                continue;
            }
            of += end - from;
            if reading.done.contains(partition) {
                read += end - from;
                continue;
            }
            let assigned = road.target.assign(&reader, *partition).await?;
            let next = assigned.next.max(*from);
            read += next - from;
            let span = Span {
                stored: assigned.next,
                epoch: assigned.epoch,
                next,
                end: *end,
            };
            spans.insert(*partition, span);
        }
        let left = spans.iter().filter(|(_, span)| span.next < span.end);
        let left: BTreeMap<u32, u64> = left.map(|(number, span)| (*number, span.next)).collect();
        let head = RunHead::replay(asked.id.clone(), asked.by.clone(), asked.at);
        self.replay = Some(LiveReplay {
            key,
            reader,
            run: self.owner.tally.replay(head),
            phase: ReplayPhase::Reading,
            topic: self.owner.read_from(left).await?,
            spans,
            read,
            of,
        });
        Ok(())
    }

    /// Applies what the second reader was told, and notes who was met and how far it is. Versions make what the stream has
    /// applied meanwhile the newer one (J2).
    async fn replay_records(&mut self, mut records: Vec<Record>) -> Result<bool, Fault> {
        let Some(last) = records.last() else {
            return Ok(false);
        };
        let (partition, reached) = (last.partition, last.offset + 1);
        // What is under way goes first: a partition has one writer.
        if self.quiet().await? {
            self.release().await?;
        }
        let Some(replay) = &mut self.replay else {
            return Ok(false);
        };
        // Whoever looks through what came meanwhile does so for all.
        if replay.phase == ReplayPhase::Following {
            let road = &self.owner.road;
            let met = batch::met(&batch::decode(road, &records));
            road.target.met(&replay.key, &met).await?;
            if let Some(span) = replay.spans.get_mut(&partition) {
                span.next = reached;
            }
            return Ok(false);
        }
        let (Some(span), Some(owned)) =
            (replay.spans.get_mut(&partition), self.owned.get(&partition))
        else {
            return Ok(false);
        };
        // What came after the ends were taken is the stream's.
        records.retain(|record| record.offset < span.end);
        let work = self
            .owner
            .apply_again((&replay.key, &replay.run), *owned, &records)
            .await?;
        let reached = reached.min(span.end);
        let seat = Seat {
            partition,
            epoch: span.epoch,
            expect: span.stored,
            next: reached,
        };
        self.owner.pass(&replay.reader, seat).await?;
        replay.read += reached - span.next;
        (span.stored, span.next) = (reached, reached);
        let is_read = reached == span.end;
        if work.wrote {
            self.release().await?;
        }
        Ok(is_read)
    }

    /// Notes which of this daemon's partitions are read to their ends; how all stands, if the state says so.
    async fn note_what_is_read(&mut self, id: &str, mut reading: Reading) -> Option<Reading> {
        let replay = self.replay.as_ref()?;
        if replay.phase != ReplayPhase::Reading {
            return Some(reading);
        }
        let read = replay.spans.iter();
        let read = read.filter(|(_, span)| span.next >= span.end);
        let news: Vec<u32> = read
            .map(|(partition, _)| *partition)
            .filter(|partition| !reading.done.contains(partition))
            .collect();
        if news.is_empty() {
            return Some(reading);
        }
        if !self.owner.note_read(id, &news).await {
            return None;
        }
        reading.done.extend(news);
        Some(reading)
    }

    /// All partitions are read. Before anything leaves, what came meanwhile is looked through up to an end that the topic has:
    /// a change may have taken the place of one that was not read yet.
    async fn end_reading(&mut self, asked: &Replay, reading: &Reading) -> Result<(), Fault> {
        let Some(replay) = &mut self.replay else {
            return Ok(());
        };
        if !asked.sweeps() {
            let at = self.owner.road.clock.now();
            return self.end_replay(&asked.id, ReplayStage::Done { at }).await;
        }
        match replay.phase {
            ReplayPhase::Reading => {
                let ends = reading.spans.iter();
                let ends: BTreeMap<u32, u64> = ends.map(|(p, (_, end))| (*p, *end)).collect();
                let spans = ends.iter().map(|(partition, end)| {
                    let (stored, epoch, next) = (0, 0, *end);
                    let end = u64::MAX;
                    let span = Span {
                        stored,
                        epoch,
                        next,
                        end,
                    };
                    (*partition, span)
                });
                replay.spans = spans.collect();
                replay.topic = self.owner.read_from(ends).await?;
                replay.phase = ReplayPhase::Following;
            }
            ReplayPhase::Following => {
                let bounds = self.owner.road.log.bounds(&self.owner.road.topic).await?;
                let end = |partition: u32| bounds.get(&partition).map_or(0, |ends| ends.end);
                let mut spans = replay.spans.iter();
                if spans.any(|(partition, span)| span.next > end(*partition)) {
                    return Err(cut());
                }
                replay
                    .spans
                    .retain(|partition, span| span.next < end(*partition));
                if replay.spans.is_empty() && self.owner.is_complete().await? {
                    replay.topic = None;
                    replay.phase = ReplayPhase::Sweeping;
                }
            }
            ReplayPhase::Sweeping => {}
        }
        Ok(())
    }

    /// Notes the end. If the state does not answer, the replay is found under way again, and ended then.
    pub(super) async fn end_replay(&mut self, id: &str, stage: ReplayStage) -> Result<(), Fault> {
        let replay = self.replay.take();
        let replay = replay.map(|LiveReplay { key, run, .. }| (key, run));
        let owner = &self.owner;
        if let Some((_, run)) = &replay {
            owner.tally.replay_ended(run, owner.road.clock.now());
            owner.tally.noted(&owner.road).await;
        }
        if owner.note_ended(id, &stage).await {
            tracing::info!(
                connection = %owner.reader.connection, job = %owner.reader.job, replay = id,
                stage = stage.label(), "replay ended"
            );
            if let Some((key, run)) = &replay {
                owner.forget_replay(key, run).await?;
            }
        }
        Ok(())
    }

    /// Partitions come or go: what is read of them is looked up again.
    pub(super) fn let_go_of_replay(&mut self) {
        self.replay = None;
    }

    fn show_replay(&self) {
        let plan = self.owner.road.mapping.plan();
        let picture = self.replay.as_ref().map(LiveReplay::picture);
        self.owner
            .road
            .board
            .job(&plan.connection, &plan.job, |entry| entry.replay = picture);
    }
}

impl Owner {
    /// One that has ended leaves nothing in the ledger.
    async fn forget_replay(&self, key: &SweepKey, run: &str) -> Result<(), Fault> {
        self.tally.replay_ended(run, self.road.clock.now());
        self.road.target.end_replay(key).await
    }

    /// Applies what was read again, at the place where the stream is, which stays.
    async fn apply_again(
        &self,
        (of, run): (&SweepKey, &Arc<str>),
        owned: Owned,
        records: &[Record],
    ) -> Result<Work, Fault> {
        let told = batch::decode(&self.road, records);
        let met: Vec<RecordId> = batch::met(&told);
        let mut work = batch::fold(&self.road, told, Run::Replay);
        work.counts_for = Arc::clone(run);
        // Whoever the ledger outranks was published again since, and the stream meets that.
        work.pass_over(work.records());
        let Some(first) = records.first() else {
            return Ok(work);
        };
        let seat = Seat {
            partition: first.partition,
            epoch: owned.epoch,
            expect: owned.next,
            next: owned.next,
        };
        self.commit(seat, &mut work).await?;
        self.show_commit(&work);
        self.road.target.met(of, &met).await?;
        Ok(work)
    }

    /// Where the partitions are read.
    async fn spans(
        &self,
        since: Since,
        bounds: BTreeMap<u32, Bounds>,
    ) -> Result<BTreeMap<u32, (u64, u64)>, Fault> {
        let (log, topic) = (&self.road.log, &self.road.topic);
        let at = match since {
            Since::Time(at) => log.at_time(topic, at).await?,
            Since::Start | Since::Offset(_) => BTreeMap::new(),
        };
        let span = |(partition, Bounds { start, end }): (u32, Bounds)| {
            let from = match since {
                Since::Start => start,
                Since::Offset(offset) => offset,
                // Nothing is that young.
                Since::Time(_) => at.get(&partition).copied().unwrap_or(end),
            };
            (partition, (from.clamp(start, end), end))
        };
        Ok(bounds.into_iter().map(span).collect())
    }

    async fn read_from(&self, from: BTreeMap<u32, u64>) -> Result<Option<Box<dyn Reader>>, Fault> {
        if from.is_empty() {
            return Ok(None);
        }
        let (log, topic) = (&self.road.log, &self.road.topic);
        log.reader(topic, From::Partitions(from)).await.map(Some)
    }
}

fn cut() -> Fault {
    let what = "the topic was made again or cut since the replay began";
    Fault::new(FaultKind::PositionLost, what)
        .remedy("replay again once the object's next full sync is done")
}

/// Whether the job, tried again, may go on with the replay.
fn passes(fault: &Fault) -> bool {
    let is_ours = matches!(fault.kind(), FaultKind::Fenced | FaultKind::Stopping);
    fault.kind() != FaultKind::PositionLost && (is_ours || fault.fate() == Fate::Retry)
}
