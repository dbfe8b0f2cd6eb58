//! Ingest: the one place where what a CRM says becomes changes; one task per connection.
//!
//! The order of a step is the invariant I1: merge in memory, publish (the first changes while the rest is merged),
//! await the log, store images with offsets and mark, then the position with everything owed. A fault anywhere ends the
//! task like a crash; the restart reads the topics back and the stream repeats what was not stored.

mod gathered;
mod hear;
mod lease;
mod parents;
mod publish;
mod recent;
mod redelivery;
mod step;
mod take;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::crm::port::Heard;
use crate::fault::{Fault, FaultKind};
use crate::image::port::Mark;
use crate::model::change::Origin;
use crate::model::event::Row;
use crate::model::name::ObjectName;
use crate::model::position::Position;
use crate::model::record_id::RecordId;
use crate::model::version::Version;
use crate::runtime::shutdown::StopSignal;
use crate::state::port::{Progress, StoredPosition};
use crate::telemetry::metrics;

use super::road::{Objects, Road};

pub use lease::{End, Lease};
use recent::Recent;
pub use redelivery::Redelivery;

/// How many inputs may wait; reading from the CRM stops beyond.
pub const QUEUE: usize = 16;
/// About how many events and rows one step takes.
const STEP_SIZE: usize = 2000;

/// What ingest is told.
pub enum Input {
    /// The stream spoke.
    Heard(Heard),
    /// A read answered.
    Read(Read),
    /// Jobs asked for records to be published again.
    Republish {
        /// Which.
        records: Vec<(ObjectName, RecordId)>,
        /// Told when everything is durable.
        done: oneshot::Sender<ReadOutcome>,
    },
    /// Parents whose change may not have reached their children.
    Moved(Vec<(ObjectName, RecordId)>),
}

/// The answer of a read, and who waits for it.
pub struct Read {
    /// The object.
    pub object: ObjectName,
    /// Rows found.
    pub rows: Vec<Row>,
    /// Ids not found; only a read by id may claim this.
    pub absent: Vec<RecordId>,
    /// A.
    pub as_of: DateTime<Utc>,
    /// Whether the records were asked for by id: what they owed before A is settled then.
    pub by_id: bool,
    /// What the changes are published as.
    pub origin: Origin,
    /// Told when everything is durable.
    pub done: oneshot::Sender<ReadOutcome>,
}

/// What became of a read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadOutcome {
    /// Changes published.
    pub published: u64,
    /// Records found deleted.
    pub deleted: u64,
    /// Records whose answer came too early to be believed. Those asked for by id are owed another read.
    pub again: u64,
    /// Records asked for by id whose answer was no newer than what was held, and which owe nothing: a change that is
    /// said to have happened may not be seen yet.
    pub unmoved: HashSet<RecordId>,
    /// Records asked for by id that owe another read, which is written down.
    pub owing: HashSet<RecordId>,
}

/// Where a connection's ingest begins.
pub struct Beginning {
    /// The owner's term.
    pub term: u64,
    /// Until when it may publish.
    pub lease: Arc<Lease>,
    /// The stored place of the stream.
    pub stored: StoredPosition,
    /// Reads as of before this are not believed: the object's stream is unbroken only since.
    pub covered: BTreeMap<ObjectName, DateTime<Utc>>,
    /// Of objects whose images were read from their topics: reads by id as of before this say nothing of records
    /// without an image. A delete of a record that no topic holds is known to the life that heard it, and to no other.
    pub deaths_known: BTreeMap<ObjectName, DateTime<Utc>>,
    /// What the stream may repeat.
    pub redelivery: Redelivery,
    /// Parents that changed beyond the stored images: a crash may have come before their children were told.
    pub moved: Vec<(ObjectName, RecordId)>,
    /// The end of every partition, up to which the images hold the topics.
    pub ends: Ends,
    /// Notified whenever reads or holes are newly owed.
    pub owed: Arc<Notify>,
}

/// Per object and partition the offset that the next change gets.
pub type Ends = BTreeMap<(ObjectName, u32), u64>;

/// One connection's ingest.
pub struct Ingest {
    road: Road,
    objects: Arc<Objects>,
    /// Objects of which each event owes a read: of selected fields that none tells.
    read_more: BTreeSet<ObjectName>,
    redelivery: Redelivery,
    recent: Recent,
    covered: BTreeMap<ObjectName, DateTime<Utc>>,
    deaths_known: BTreeMap<ObjectName, DateTime<Utc>>,
    confirmed_at: DateTime<Utc>,
    position: Option<Position>,
    /// The newest event merged in this life.
    mark: Option<Mark>,
    moved: Vec<(ObjectName, RecordId)>,
    ends: Ends,
    /// Partitions whose stored offset is held back, so that a second crash still finds what the stream repeats.
    held_back: BTreeSet<(ObjectName, u32)>,
    lease: Arc<Lease>,
    term: u64,
    counter: u64,
    owed: Arc<Notify>,
}

impl Ingest {
    /// Ingest for a term.
    #[must_use]
    pub fn new(road: Road, objects: Arc<Objects>, beginning: Beginning) -> Self {
        let held_back = beginning.redelivery.partitions();
        let reads_more = objects.values().filter(|object| object.reads_more());
        let read_more = reads_more.map(|object| object.key.object.clone()).collect();
        Self {
            road,
            objects,
            read_more,
            redelivery: beginning.redelivery,
            recent: Recent::default(),
            covered: beginning.covered,
            deaths_known: beginning.deaths_known,
            confirmed_at: beginning.stored.confirmed_at,
            position: beginning.stored.position,
            mark: None,
            moved: beginning.moved,
            ends: beginning.ends,
            held_back,
            lease: beginning.lease,
            term: beginning.term,
            counter: 0,
            owed: beginning.owed,
        }
    }

    /// Runs until the stop signal, or until every sender is gone.
    ///
    /// # Errors
    /// Any fault: the caller restarts the connection from what is stored.
    pub async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        stop: StopSignal,
    ) -> Result<(), Fault> {
        let depth = self.road.metrics.gauge(
            metrics::QUEUE_DEPTH,
            &[
                ("connection", self.road.connection.as_str()),
                ("queue", "ingest"),
            ],
        );
        for some in std::mem::take(&mut self.moved).chunks(STEP_SIZE) {
            self.step(vec![Input::Moved(some.to_vec())]).await?;
        }
        let mut look = tokio::time::interval(self.road.settings.lease);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let first = tokio::select! {
                biased;
                () = stop.stopped() => return Ok(()),
                _ = look.tick() => {
                    self.check_ends().await?;
                    continue;
                }
                input = inputs.recv() => match input {
                    Some(input) => input,
                    None => return Ok(()),
                },
            };
            let mut batch = vec![first];
            let mut size = weight(&batch[0]);
            while size < STEP_SIZE {
                let Ok(input) = inputs.try_recv() else { break };
                size += weight(&input);
                batch.push(input);
            }
            depth.set(inputs.len() as f64);
            self.step(batch).await?;
        }
    }

    /// Whether a job writes columns of the object's records by full syncs alone.
    fn has_scheduled(&self, object: &ObjectName) -> bool {
        let readings = self.road.settings.readings.get(object);
        let mut readings = readings.into_iter().flatten();
        readings.any(|reading| reading.has_scheduled)
    }

    fn next_version(&mut self) -> Version {
        self.counter += 1;
        Version::new(self.term, self.counter)
    }

    /// Whether nobody else has written to the topics: an owner that stalled in an append may wake up long after
    /// another took over, and its old change then lies last in the topic, where compaction keeps it.
    async fn check_ends(&self) -> Result<(), Fault> {
        for road in self.objects.values() {
            let bounds = self.road.log.bounds(&road.topic).await?;
            for (partition, bounds) in bounds {
                let expected = self.ends.get(&(road.key.object.clone(), partition));
                if expected.is_some_and(|expected| *expected != bounds.end) {
                    return Err(foreign(&road.topic, partition, bounds.end));
                }
            }
        }
        Ok(())
    }

    /// Stores what a step owes and where the stream stands: the last act of a step.
    async fn store(&mut self, progress: Progress) -> Result<(), Fault> {
        let owes = !progress.owe.is_empty() || !progress.open.is_empty();
        self.road
            .state
            .commit(&self.road.connection, self.term, progress)
            .await?;
        if owes {
            self.owed.notify_one();
        }
        self.road.board.connection(&self.road.connection, |entry| {
            entry.confirmed_at = Some(self.confirmed_at);
        });
        self.road
            .metrics
            .gauge(
                metrics::CONFIRMED_AT,
                &[("connection", self.road.connection.as_str())],
            )
            .set(self.confirmed_at.timestamp() as f64);
        Ok(())
    }
}

/// Somebody else's record was met where ours belonged; the restart reads it back and heals the topic.
fn foreign(topic: &str, partition: u32, end: u64) -> Fault {
    Fault::new(
        FaultKind::Protocol,
        format!("another writer moved the end of partition {partition} of topic {topic} to {end}"),
    )
    .remedy(
        "make sure that one daemon owns the connection, and that nothing else writes to its topics",
    )
}

fn weight(input: &Input) -> usize {
    match input {
        Input::Heard(heard) => heard.events.len().max(1),
        Input::Read(read) => (read.rows.len() + read.absent.len()).max(1),
        Input::Republish { records, .. } | Input::Moved(records) => records.len().max(1),
    }
}
