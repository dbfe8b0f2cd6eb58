//! A step's changes on their way into the log: the first are written while the rest is still being merged.
//!
//! They are appended in the order in which they were made, one append at a time, the next being encoded meanwhile: if one
//! fails, nothing of the step lies behind it. The log holding a part of a step is what a crash between appending and
//! storing leaves, too: the topics are read back, and the stream repeats what was not stored.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use crate::fault::{Fault, FaultKind};
use crate::flow::road::{Objects, entry_of};
use crate::log::port::{Log, Place};
use crate::model::change::{Change, Origin};
use crate::model::name::{ConnectionId, ObjectName};
use crate::runtime::clock::Clock;
use crate::telemetry::metrics;

use super::gathered::Gathered;
use super::{Ingest, Lease, foreign};

/// Appends that are on their way at most: one that is written, one that is encoded.
const ON_THEIR_WAY: usize = 2;

/// What a step has handed to the log.
#[derive(Default)]
pub(super) struct Publishing {
    appends: VecDeque<AbortOnDropHandle<Result<Vec<Published>, Fault>>>,
    /// Told when the last of them is in the log.
    turn: Option<oneshot::Receiver<()>>,
    done: Vec<Published>,
}

/// A change that is in the log.
pub(super) struct Published {
    pub object: ObjectName,
    pub place: Place,
    origin: Origin,
}

impl Publishing {
    /// Takes over what has ended; whether there is room for one more.
    async fn has_room(&mut self) -> Result<bool, Fault> {
        while self
            .appends
            .front()
            .is_some_and(AbortOnDropHandle::is_finished)
        {
            self.settle_first().await?;
        }
        Ok(self.appends.len() < ON_THEIR_WAY)
    }

    /// Waits for all that is on its way, and tells the first fault. A fault that ends the step waits, too: what arrived
    /// after the next life has read the topics' ends would look like another writer's.
    pub(super) async fn settle(&mut self) -> Result<(), Fault> {
        let mut outcome = Ok(());
        while !self.appends.is_empty() {
            outcome = outcome.and(self.settle_first().await);
        }
        outcome
    }

    async fn settle_first(&mut self) -> Result<(), Fault> {
        let Some(append) = self.appends.pop_front() else {
            return Ok(());
        };
        let published = append.await.map_err(|error| {
            Fault::new(
                FaultKind::Protocol,
                "the append of a step's changes ended early",
            )
            .source(error)
        })??;
        self.done.extend(published);
        Ok(())
    }
}

impl Ingest {
    /// Begins to write what was merged so far, once it is worth an append and there is room for one.
    pub(super) async fn publish_early(
        &mut self,
        gathered: &mut Gathered,
        publishing: &mut Publishing,
    ) -> Result<(), Fault> {
        let enough = self.road.settings.changes_an_append.max(1);
        if gathered.changes.len() < enough || !publishing.has_room().await? {
            return Ok(());
        }
        self.begin(gathered, publishing)
    }

    /// Writes what is left and awaits it: afterwards the whole step is durable.
    pub(super) async fn publish_rest(
        &mut self,
        gathered: &mut Gathered,
        mut publishing: Publishing,
    ) -> Result<Vec<Published>, Fault> {
        if !gathered.changes.is_empty()
            && let Err(fault) = self.begin(gathered, &mut publishing)
        {
            return publishing.settle().await.and(Err(fault));
        }
        publishing.settle().await?;
        self.follow(&publishing.done)?;
        self.count_changes(&publishing.done);
        Ok(publishing.done)
    }

    fn begin(&self, gathered: &mut Gathered, publishing: &mut Publishing) -> Result<(), Fault> {
        self.owned().check()?;
        let (done, next) = oneshot::channel();
        let append = append(
            self.owned(),
            Arc::clone(&self.road.log),
            Arc::clone(&self.objects),
            std::mem::take(&mut gathered.changes),
            publishing.turn.replace(next),
            done,
        );
        let append = AbortOnDropHandle::new(tokio::spawn(append));
        publishing.appends.push_back(append);
        Ok(())
    }

    fn owned(&self) -> Owned {
        Owned {
            connection: self.road.connection.clone(),
            lease: Arc::clone(&self.lease),
            clock: Arc::clone(&self.road.clock),
        }
    }

    /// Our changes lie one behind another; a record between them is somebody else's.
    fn follow(&mut self, published: &[Published]) -> Result<(), Fault> {
        for Published { object, place, .. } in published {
            let partition = (object.clone(), place.partition);
            let end = self.ends.entry(partition).or_insert(place.offset);
            if *end != place.offset {
                let topic = self.objects.get(object);
                let topic = topic.map_or("", |road| &*road.topic);
                return Err(foreign(topic, place.partition, place.offset));
            }
            *end += 1;
        }
        Ok(())
    }

    fn count_changes(&self, published: &[Published]) {
        let mut counts: BTreeMap<(&ObjectName, &'static str), u64> = BTreeMap::new();
        for Published { object, origin, .. } in published {
            *counts.entry((object, origin.label())).or_default() += 1;
        }
        for ((object, origin), count) in counts {
            let labels = [
                ("connection", self.road.connection.as_str()),
                ("object", object.as_str()),
                ("origin", origin),
            ];
            let counter = self.road.metrics.counter(metrics::CHANGES, &labels);
            counter.increment(count);
            self.road
                .board
                .object(&self.road.connection, object, |entry| {
                    entry.published += count;
                });
        }
    }
}

/// Whether we own the connection.
struct Owned {
    connection: ConnectionId,
    lease: Arc<Lease>,
    clock: Arc<dyn Clock>,
}

impl Owned {
    /// The log knows no term: whoever no longer owns the connection must not get to it.
    fn check(&self) -> Result<(), Fault> {
        self.lease.check(&self.connection, self.clock.now())
    }
}

/// Encodes on whatever core is free, and appends when it is its turn.
async fn append(
    owned: Owned,
    log: Arc<dyn Log>,
    objects: Arc<Objects>,
    changes: Vec<Change>,
    turn: Option<oneshot::Receiver<()>>,
    done: oneshot::Sender<()>,
) -> Result<Vec<Published>, Fault> {
    let mut entries = Vec::with_capacity(changes.len());
    let mut told = Vec::with_capacity(changes.len());
    for change in changes {
        if let Some(road) = objects.get(&change.object) {
            entries.push(entry_of(&road.topic, &change)?);
            told.push((change.object, change.origin));
        }
    }
    if let Some(turn) = turn {
        // Whoever asks hears of the append before, which failed, first.
        turn.await.map_err(|error| {
            Fault::new(
                FaultKind::Unavailable,
                "an earlier append of the step failed",
            )
            .source(error)
        })?;
    }
    // Encoding and waiting took their time.
    owned.check()?;
    let places = log.append(entries).await?;
    if places.len() != told.len() {
        return Err(Fault::new(
            FaultKind::Corrupt,
            format!(
                "log acknowledged {} of {} changes",
                places.len(),
                told.len()
            ),
        ));
    }
    // Nobody waits for the last.
    done.send(()).ok();
    let published = told.into_iter().zip(places);
    Ok(published
        .map(|((object, origin), place)| Published {
            object,
            place,
            origin,
        })
        .collect())
}

#[cfg(test)]
mod tests;
