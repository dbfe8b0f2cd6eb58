//! The way of a batch into the target: passing faults are waited out, refused records are set aside first.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use crate::fault::{Fate, Fault, FaultKind};
use crate::model::record_id::RecordId;
use crate::target::port::{Applied, Batch, ReaderKey};

use super::Owner;
use super::batch::{Run, Work};
use super::letters::{self, Letter};

/// Where a batch stands in its partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    pub partition: u32,
    pub epoch: u64,
    /// The ledger's offset before the batch.
    pub expect: u64,
    /// And after it.
    pub next: u64,
}

/// What the target said to a batch.
enum Answer {
    Applied(Applied),
    /// It holds a record that the target refuses, and does not say which.
    Refused(Fault),
}

impl Owner {
    /// Moves the offset of another reader than the stream's, and writes nothing.
    pub(super) async fn pass(&self, reader: &ReaderKey, seat: Seat) -> Result<(), Fault> {
        let nothing = Work::empty(&self.road, Run::Replay);
        let passed = self.attempt(|now| nothing.batch(reader, seat, None, None, now));
        match passed.await? {
            Answer::Applied(applied) if applied.committed => Ok(()),
            Answer::Applied(_) => Err(Fault::new(
                FaultKind::Protocol,
                "target did not commit an empty batch",
            )),
            Answer::Refused(fault) => {
                Err(Fault::new(FaultKind::Corrupt, "target refuses an empty batch").source(fault))
            }
        }
    }

    /// Applies until it is committed, or a brake keeps it out.
    pub(super) async fn commit(&self, seat: Seat, work: &mut Work) -> Result<(), Fault> {
        work.since = self.since;
        self.heed(work, seat.partition);
        let committed = self.commit_whole(seat, work).await;
        if committed.is_err() {
            self.lever.take_back(work);
        }
        committed
    }

    /// Letters of what could not be mapped come first.
    async fn commit_whole(&self, seat: Seat, work: &mut Work) -> Result<(), Fault> {
        let letters = std::mem::take(&mut work.letters);
        self.set_aside(work, &letters).await?;
        loop {
            let Some(answer) = self.offer(seat, work, None).await? else {
                continue;
            };
            match answer {
                Answer::Applied(applied) if applied.committed => return work.settle(applied, None),
                Answer::Applied(applied) => self.make_way(work, &applied, None).await?,
                Answer::Refused(fault) if work.records().is_empty() => {
                    return Err(
                        Fault::new(FaultKind::Corrupt, "target refuses an empty batch")
                            .source(fault),
                    );
                }
                Answer::Refused(_) => self.isolate(seat, work).await?,
            }
        }
    }

    /// Halves the batch until the records that the target refuses are alone (J3). Halves that it takes are committed
    /// without moving the offset: should the rest fail, they are applied again, which changes nothing (J2).
    async fn isolate(&self, seat: Seat, work: &mut Work) -> Result<(), Fault> {
        let still = Seat {
            next: seat.expect,
            ..seat
        };
        let mut parts = vec![work.records()];
        while let Some(mut records) = parts.pop() {
            records.retain(|record| work.holds(record));
            if records.is_empty() {
                continue;
            }
            let part: HashSet<RecordId> = records.iter().cloned().collect();
            let Some(answer) = self.offer(still, work, Some(&part)).await? else {
                parts.push(records);
                continue;
            };
            match (answer, records.len()) {
                (Answer::Applied(applied), _) if applied.committed => {
                    work.settle(applied, Some(&part))?;
                }
                (Answer::Applied(applied), _) => {
                    self.make_way(work, &applied, Some(&part)).await?;
                    parts.push(records);
                }
                (Answer::Refused(fault), 1) => {
                    let refused = work.refuse_record(&records[0], fault.report());
                    self.set_aside(work, refused.as_slice()).await?;
                }
                (Answer::Refused(_), count) => {
                    let second = records.split_off(count / 2);
                    // The first half's rows may be what the second's refer to.
                    parts.extend([second, records]);
                }
            }
        }
        Ok(())
    }

    /// Offers a batch until the target answers, under the brakes of its run. If it is they that keep it out, the job
    /// stops; `None`, if it is to be offered again: the store is larger than was known, or somebody has said yes.
    async fn offer(
        &self,
        seat: Seat,
        work: &mut Work,
        part: Option<&HashSet<RecordId>>,
    ) -> Result<Option<Answer>, Fault> {
        let brake = self.brake(work).await;
        let answer = self
            .attempt(|now| work.batch(&self.reader, seat, part, brake.clone(), now))
            .await;
        let Some(brake) = brake else {
            return answer.map(Some);
        };
        match answer {
            Ok(Answer::Applied(applied)) if applied.committed => Ok(Some(Answer::Applied(applied))),
            answer => {
                brake.let_go();
                let answer = answer?;
                if matches!(answer, Answer::Refused(_)) || !brake.is_crossed() {
                    return Ok(Some(answer));
                }
                brake.measure(self.held().await?);
                if let Some(crossed) = brake.crossed() {
                    let reason = format!("run {} {crossed}", work.counts_for);
                    self.pull(work, reason).await?;
                }
                Ok(None)
            }
        }
    }

    /// Nothing was written: letters come first, and what the ledger outranks is asked for. Then the rest is applied
    /// (J1, I7).
    async fn make_way(
        &self,
        work: &mut Work,
        applied: &Applied,
        part: Option<&HashSet<RecordId>>,
    ) -> Result<(), Fault> {
        let held_up = work.refuse(applied, part)?;
        self.set_aside(work, &held_up.letters).await?;
        self.ask_to_republish(&held_up.outranked).await?;
        work.pass_over(held_up.outranked);
        Ok(())
    }

    /// Writes letters. Parked changes that they tell of are forgotten then, so that none is told twice.
    async fn set_aside(&self, work: &mut Work, letters: &[Letter]) -> Result<(), Fault> {
        self.count_rejected(work, letters).await?;
        letters::write(&self.road, &work.counts_for, letters).await?;
        self.forget(&work.parked(letters)).await?;
        Ok(())
    }

    /// The ledger holds a higher term than changes have (I7), or versions that were lost with the topic: the owner
    /// publishes the records again, as it knows them.
    async fn ask_to_republish(&self, outranked: &[RecordId]) -> Result<(), Fault> {
        let plan = self.road.mapping.plan();
        let mut backoff = self.road.attempts();
        for record in outranked {
            tracing::warn!(connection = %plan.connection, job = %plan.job, %record, "ledger holds what the topic's owner does not know");
            let state = &self.road.state;
            while let Err(fault) = state
                .request_republish(&plan.connection, &plan.source, record)
                .await
            {
                self.back_off(fault, &mut backoff).await?;
            }
        }
        Ok(())
    }

    /// Offers a batch until the target answers; a passing fault is retried for ever, and shown.
    async fn attempt(&self, batch: impl Fn(DateTime<Utc>) -> Batch) -> Result<Answer, Fault> {
        let mut backoff = self.road.attempts();
        loop {
            match self.road.target.apply(batch(self.road.clock.now())).await {
                Ok(applied) => return Ok(Answer::Applied(applied)),
                Err(fault) if fault.fate() == Fate::DeadLetter => {
                    return Ok(Answer::Refused(fault));
                }
                Err(fault) => self.back_off(fault, &mut backoff).await?,
            }
        }
    }
}
