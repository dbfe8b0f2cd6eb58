//! The way of a batch into the target: passing faults are waited out, refused records are set aside first.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use crate::fault::{Fate, Fault, FaultKind};
use crate::model::record_id::RecordId;
use crate::target::port::{Applied, Batch};

use super::Job;
use super::batch::Work;
use super::letters;

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

impl Job {
    /// Applies until it is committed.
    pub(super) async fn commit(&self, seat: Seat, work: &mut Work) -> Result<(), Fault> {
        loop {
            let answer = self
                .attempt(|now| work.batch(&self.reader, seat, None, now))
                .await?;
            match answer {
                Answer::Applied(applied) if applied.committed => return work.settle(applied, None),
                Answer::Applied(applied) => {
                    // Nothing was written: the letters come first, then the rest is applied (J1).
                    let refused = work.refuse(&applied, None)?;
                    letters::write(&self.road, &refused).await?;
                }
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
            let answer = self
                .attempt(|now| work.batch(&self.reader, still, Some(&part), now))
                .await?;
            match (answer, records.len()) {
                (Answer::Applied(applied), _) if applied.committed => {
                    work.settle(applied, Some(&part))?;
                }
                (Answer::Applied(applied), _) => {
                    let refused = work.refuse(&applied, Some(&part))?;
                    letters::write(&self.road, &refused).await?;
                    parts.push(records);
                }
                (Answer::Refused(fault), 1) => {
                    let refused = work.refuse_record(&records[0], fault.report());
                    letters::write(&self.road, refused.as_slice()).await?;
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

    /// Offers a batch until the target answers; a passing fault is retried for ever, and shown.
    async fn attempt(&self, batch: impl Fn(DateTime<Utc>) -> Batch) -> Result<Answer, Fault> {
        let mut backoff = self.road.attempts();
        loop {
            match self.road.target.apply(batch(self.road.clock.now())).await {
                Ok(applied) => return Ok(Answer::Applied(applied)),
                Err(fault) if fault.fate() == Fate::DeadLetter => {
                    return Ok(Answer::Refused(fault));
                }
                Err(fault) => self.pause(fault, &mut backoff).await?,
            }
        }
    }
}
