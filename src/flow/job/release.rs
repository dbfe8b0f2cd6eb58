//! What waited for a row: released when the row has come, set aside when it does not come in time (J5).

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;

use crate::fault::Fault;
use crate::log::port::Record;

use super::Job;
use super::batch::{self, Run};
use super::commit::Seat;
use super::letters;

const RELEASE_SOME: usize = 1000;

impl Job {
    /// Fills parked references, and runs parked changes again whose rows have come.
    pub(super) async fn release(&mut self) -> Result<(), Fault> {
        // A change that is parked once more is not run twice in one go.
        let mut tried = HashSet::new();
        loop {
            let released = self
                .road
                .target
                .release(&self.reader.connection, RELEASE_SOME)
                .await?;
            let mut progress = released.filled > 0;
            let mut partitions: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
            for change in released.changes {
                // Changes of other jobs and other owners' partitions stay for them.
                let (partition, offset) = change.place;
                if change.job != self.reader.job
                    || !self.owned.contains_key(&partition)
                    || self.held_back.contains(&change.record)
                    || !tried.insert(change.record.clone())
                {
                    continue;
                }
                partitions.entry(partition).or_default().push(Record {
                    partition,
                    offset,
                    at: self.road.clock.now(),
                    key: Bytes::copy_from_slice(change.record.as_str().as_bytes()),
                    value: Some(change.image),
                    headers: Vec::new(),
                });
            }
            for (partition, records) in partitions {
                progress |= self.run_again(partition, records).await?;
            }
            if !released.more || !progress {
                return Ok(());
            }
        }
    }

    /// Whether any change waits no more.
    async fn run_again(&mut self, partition: u32, mut records: Vec<Record>) -> Result<bool, Fault> {
        let Some(owned) = self.owned.get(&partition).copied() else {
            return Ok(false);
        };
        records.sort_unstable_by_key(|record| record.offset);
        let seat = Seat {
            partition,
            epoch: owned.epoch,
            expect: owned.next,
            next: owned.next,
        };
        let mut work = batch::prepare(&self.road, &records, Run::Again);
        self.commit(seat, &mut work).await?;
        self.show_commit(&work);
        self.held_back.extend(work.refused);
        Ok(work.settled > 0)
    }

    /// What waited too long goes to the dead letters.
    pub(super) async fn expire(&self) -> Result<(), Fault> {
        let older = self.road.clock.now() - self.road.parked_ttl;
        let expired = self
            .road
            .target
            .expire(&self.reader.connection, &self.reader.job, older)
            .await?;
        let letters = letters::of_expired(&self.road, expired);
        // They have left the ledger: only a letter still tells of them.
        let mut backoff = self.road.attempts();
        while let Err(fault) = letters::write(&self.road, &letters).await {
            if let Err(fault) = self.pause(fault, &mut backoff).await {
                for letter in &letters {
                    tracing::error!(
                        job = %self.reader.job, key = %String::from_utf8_lossy(&letter.key),
                        partition = letter.partition, offset = letter.offset, reason = letter.reason,
                        "parked change expired and its letter could not be written"
                    );
                }
                return Err(fault);
            }
        }
        Ok(())
    }
}
