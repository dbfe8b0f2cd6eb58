//! The end of a replay into the live tables: whoever holds a row and was not met in the topic leaves, as `on_delete` says and
//! under the brakes. What stands of a replay lies in the state.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::fault::{Fault, FaultKind};
use crate::state::orders::{Reading, ReplayStage, Standing};
use crate::state::port::HoleCause;
use crate::target::port::sweep::SweepKey;

use super::batch::Work;
use super::commit::Seat;
use super::tally::patiently;
use super::{Job, Owner};

/// Entries that leave at a time.
const SOME: usize = 500;

impl Job {
    /// Has some leave; ends the replay when there are none. A record that has moved on since the replay began has another
    /// version than the one it leaves at, and stays (J2).
    pub(super) async fn sweep_some(&mut self) -> Result<(), Fault> {
        // What is under way goes first: a partition has one writer.
        if self.quiet().await? {
            self.release().await?;
        }
        let replay = self.replay.as_ref();
        let replay = replay.map(|replay| (replay.key.clone(), Arc::clone(&replay.run)));
        let (Some((of, run)), Some((partition, owned))) = (replay, self.owned.first_key_value())
        else {
            return Ok(());
        };
        let owner = &self.owner;
        let target = &owner.road.target;
        let unmet = target.unmet(&of, SOME).await?;
        if unmet.is_empty() {
            let at = owner.road.clock.now();
            return self.end_replay(&of.replay, ReplayStage::Done { at }).await;
        }
        let mut work = Work::leaving(&owner.road, *partition, &unmet);
        work.counts_for = run;
        let seat = Seat {
            partition: *partition,
            epoch: owned.epoch,
            expect: owned.next,
            next: owned.next,
        };
        owner.commit(seat, &mut work).await?;
        owner.show_commit(&work);
        target.swept(&of, &unmet).await
    }
}

impl Owner {
    pub(super) fn sweep_key(&self, replay: &str, attempt: &str) -> SweepKey {
        let plan = self.road.mapping.plan();
        SweepKey {
            connection: plan.connection.clone(),
            job: plan.job.clone(),
            object: plan.source.clone(),
            replay: replay.to_owned(),
            attempt: attempt.to_owned(),
        }
    }

    /// The tables that the job fills.
    pub(super) fn tables(&self) -> Vec<String> {
        let destinations = self.road.mapping.plan().destinations.iter();
        let tables: BTreeSet<&String> = destinations.map(|plan| &plan.table).collect();
        tables.into_iter().cloned().collect()
    }

    /// Whether the topic tells every record of the object, so that what it does not tell is not there; `false`, if the state
    /// does not say.
    ///
    /// # Errors
    /// `Config` for a topic that does not.
    pub(super) async fn is_complete(&self) -> Result<bool, Fault> {
        let plan = self.road.mapping.plan();
        let state = &self.road.state;
        let asked = async {
            let known = state.object(&plan.connection, &plan.source).await?;
            let holes = state.holes(Some(&plan.connection), false).await?;
            Ok((known, holes))
        };
        let (known, holes) = match patiently(asked).await {
            Ok(known) => known,
            Err(fault) => {
                self.road.note_unheard(&fault);
                return Ok(false);
            }
        };
        let lost = holes
            .iter()
            .any(|hole| hole.object == plan.source && hole.cause == HoleCause::TopicRecreated);
        let lacks = match known.synced_at {
            None => "its first full sync is not done",
            Some(_) if lost => "it was made again, and is not filled yet",
            Some(_) => return Ok(true),
        };
        let what = format!(
            "the topic of {} does not tell every record: {lacks}",
            plan.source
        );
        Err(Fault::new(FaultKind::Config, what)
            .remedy("replay again once the full sync is done, or with a later `--from`, which sweeps nothing"))
    }

    /// Notes that a replay is begun; whether the state took it: not, if another one has begun it.
    pub(super) async fn note_begun(&self, id: &str, reading: &Reading) -> bool {
        self.change_replay(id, |held| {
            let is_first = *held == ReplayStage::Asked;
            if is_first {
                *held = ReplayStage::Reading(reading.clone());
            }
            is_first
        })
        .await
    }

    /// Notes how a replay ended; whether the state took it: not, if it was stopped or does not answer.
    pub(super) async fn note_ended(&self, id: &str, stage: &ReplayStage) -> bool {
        self.change_replay(id, |held| {
            *held = stage.clone();
            true
        })
        .await
    }

    /// Notes partitions that are read.
    pub(super) async fn note_read(&self, id: &str, partitions: &[u32]) -> bool {
        self.change_replay(id, |held| match held {
            ReplayStage::Reading(reading) => {
                reading.done.extend(partitions);
                true
            }
            _ => false,
        })
        .await
    }

    async fn change_replay(&self, id: &str, change: impl Fn(&mut ReplayStage) -> bool) -> bool {
        let (connection, job) = (&self.reader.connection, &self.reader.job);
        let state = &self.road.state;
        let changed = async {
            loop {
                let Standing {
                    revision,
                    mut order,
                } = state.standing(connection, job).await?;
                let held = order.replay.as_mut();
                let Some(held) = held.filter(|held| held.id == id && held.is_under_way()) else {
                    return Ok(false);
                };
                if !change(&mut held.stage) {
                    return Ok(false);
                }
                // Others change the order too.
                if state.give(connection, job, revision, order).await? {
                    return Ok(true);
                }
            }
        };
        patiently(changed).await.unwrap_or_else(|fault| {
            self.road.note_unheard(&fault);
            false
        })
    }
}
