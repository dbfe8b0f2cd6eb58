//! What waited for a row: released when the row has come, set aside when it does not come in time (J5).

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;

use crate::fault::Fault;
use crate::log::port::Record;
use crate::target::port::{ParkedChange, ParkedKey};

use super::batch::{self, Run};
use super::commit::Seat;
use super::letters;
use super::{Job, Owner};

const RELEASE_SOME: usize = 1000;
/// Expired changes are told with their images.
const EXPIRE_SOME: usize = 250;

impl Job {
    /// Fills parked references, and runs parked changes again whose rows have come.
    pub(super) async fn release(&mut self) -> Result<(), Fault> {
        // A change that is parked once more is not run twice in one go.
        let mut tried = HashSet::new();
        loop {
            let (connection, job) = (&self.owner.reader.connection, &self.owner.reader.job);
            let released = self
                .owner
                .road
                .target
                .release(connection, job, &self.partitions(), RELEASE_SOME)
                .await?;
            let mut progress = released.filled > 0;
            // They write into partitions that may be busy.
            let wrote = !released.changes.is_empty() && self.quiet().await?;
            let mut partitions: BTreeMap<u32, Vec<ParkedChange>> = BTreeMap::new();
            for change in released.changes {
                if tried.insert(change.record.clone()) {
                    partitions.entry(change.place.0).or_default().push(change);
                }
            }
            for (partition, changes) in partitions {
                progress |= self.run_again(partition, changes).await?;
            }
            if !wrote && (!released.more || !progress) {
                return Ok(());
            }
        }
    }

    /// Whether any change waits no more.
    async fn run_again(
        &mut self,
        partition: u32,
        mut changes: Vec<ParkedChange>,
    ) -> Result<bool, Fault> {
        let Some(owned) = self.owned.get(&partition).copied() else {
            return Ok(false);
        };
        changes.sort_unstable_by_key(|change| change.place.1);
        let parked: HashMap<_, _> = changes
            .iter()
            .map(|change| (change.record.clone(), change.key()))
            .collect();
        let at = self.owner.road.clock.now();
        let records: Vec<Record> = changes
            .into_iter()
            .map(|change| Record {
                partition,
                offset: change.place.1,
                at,
                key: Bytes::copy_from_slice(change.record.as_str().as_bytes()),
                value: Some(change.image),
                headers: Vec::new(),
            })
            .collect();
        let seat = Seat {
            partition,
            epoch: owned.epoch,
            expect: owned.next,
            next: owned.next,
        };
        let (road, tally) = (&self.owner.road, &self.owner.tally);
        let mut work = batch::prepare(road, &records, Run::Again(parked));
        work.counts_for = tally.stream(road);
        self.owner.commit(seat, &mut work).await?;
        self.owner.show_commit(&work);
        Ok(work.settled > 0 || work.counts.contains_key("rejected"))
    }

    /// What waited too long goes to the dead letters, and leaves the ledger once these are durable (J1).
    pub(super) async fn expire(&mut self) -> Result<(), Fault> {
        let older = self.owner.road.clock.now() - self.owner.road.parked_ttl;
        let (connection, job) = (&self.owner.reader.connection, &self.owner.reader.job);
        let partitions = self.partitions();
        loop {
            let expired = self
                .owner
                .road
                .target
                .expired(connection, job, &partitions, older, EXPIRE_SOME)
                .await?;
            let (road, run) = (&self.owner.road, self.owner.tally.stream(&self.owner.road));
            letters::write(road, &run, &letters::of_expired(road, &expired)).await?;
            let keys: Vec<_> = expired.into_iter().map(|expired| expired.key).collect();
            let gone = self.owner.forget(&keys).await?;
            if gone == 0 || keys.len() < EXPIRE_SOME {
                return Ok(());
            }
        }
    }

    fn partitions(&self) -> Vec<u32> {
        self.owned.keys().copied().collect()
    }
}

impl Owner {
    /// Has records published again that refer to a row which another one has left: their look-ups are asked anew. What
    /// ends between is asked for twice.
    pub(super) async fn ask_for_strays(&self) -> Result<(), Fault> {
        loop {
            let target = &self.road.target;
            let strays = target.strays(&self.reader.connection).await?;
            if strays.marks.is_empty() {
                return Ok(());
            }
            for (connection, object, record) in &strays.records {
                let state = &self.road.state;
                state.request_republish(connection, object, record).await?;
            }
            target.forget_strays(&strays.marks).await?;
        }
    }

    /// Removes parked things whose letters are durable; how many.
    pub(super) async fn forget(&self, keys: &[ParkedKey]) -> Result<u64, Fault> {
        if keys.is_empty() {
            return Ok(0);
        }
        let (connection, job) = (&self.reader.connection, &self.reader.job);
        let mut backoff = self.road.attempts();
        loop {
            match self.road.target.forget(connection, job, keys).await {
                Ok(gone) => return Ok(gone),
                // Given up here, their letters would be written again.
                Err(fault) => self.back_off(fault, &mut backoff).await?,
            }
        }
    }
}
