//! Ingest: the one place where what a CRM says becomes changes; one task per connection.
//!
//! The order of a step is the invariant I1: merge in memory, publish, await the log, store images with offsets
//! and position, then the position with everything owed. A fault anywhere ends the task like a crash; the
//! restart reads the topics back and the stream repeats what was not stored.

mod redelivery;
mod step;

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::crm::port::Heard;
use crate::fault::Fault;
use crate::model::change::Origin;
use crate::model::event::Row;
use crate::model::name::ObjectName;
use crate::model::position::Position;
use crate::model::record_id::RecordId;
use crate::model::version::Version;
use crate::runtime::shutdown::StopSignal;
use crate::state::port::{NewHole, Progress, StoredPosition};
use crate::telemetry::metrics;

use super::road::{Objects, Road};

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
    /// The stream was opened, and something may have been missed before.
    Missed {
        /// The holes to open.
        holes: Vec<NewHole>,
        /// CRM time since which the stream tells everything.
        confirmed_at: DateTime<Utc>,
        /// Confirmed when they are durable.
        done: oneshot::Sender<()>,
    },
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
    /// What the changes are published as.
    pub origin: Origin,
    /// Published even if nothing differs, because a job asked for it.
    pub republish: bool,
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
    /// Records whose answer came too early to be believed.
    pub again: Vec<RecordId>,
}

/// One connection's ingest.
pub struct Ingest {
    road: Road,
    objects: Arc<Objects>,
    redelivery: Redelivery,
    covered: HashMap<ObjectName, DateTime<Utc>>,
    confirmed_at: DateTime<Utc>,
    position: Option<Position>,
    term: u64,
    counter: u64,
    owed: Arc<Notify>,
}

impl Ingest {
    /// Ingest for a term. `owed` is notified whenever reads or holes are newly owed.
    pub fn new(
        road: Road,
        objects: Arc<Objects>,
        redelivery: Redelivery,
        term: u64,
        stored: Option<StoredPosition>,
        owed: Arc<Notify>,
    ) -> Self {
        let confirmed_at = stored
            .as_ref()
            .map_or(DateTime::<Utc>::MIN_UTC, |stored| stored.confirmed_at);
        Self {
            road,
            objects,
            redelivery,
            covered: HashMap::new(),
            confirmed_at,
            position: stored.and_then(|stored| stored.position),
            term,
            counter: 0,
            owed,
        }
    }

    /// Reads as of before this are not believed: the stream is unbroken only since.
    pub fn cover(&mut self, object: ObjectName, since: DateTime<Utc>) {
        self.covered.insert(object, since);
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
        loop {
            let first = tokio::select! {
                biased;
                () = stop.stopped() => return Ok(()),
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

    fn next_version(&mut self) -> Version {
        self.counter += 1;
        Version::new(self.term, self.counter)
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

fn weight(input: &Input) -> usize {
    match input {
        Input::Heard(heard) => heard.events.len().max(1),
        Input::Read(read) => (read.rows.len() + read.absent.len()).max(1),
        Input::Missed { .. } => 1,
    }
}
