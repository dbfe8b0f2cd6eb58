//! Hints: records that are said to have changed are read by id at once. Nothing of a hint is merged; the row is. What a
//! read does not show yet is read again a few times, then change tracking decides, which tells it in any case.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::fault::{Fault, FaultKind};
use crate::flow::full_sync::ReadInput;
use crate::flow::road::ObjectRoad;
use crate::model::change::Origin;
use crate::model::name::ObjectName;
use crate::model::record_id::RecordId;
use crate::runtime::shutdown::StopSignal;
use crate::state::port::{Hinted, Progress};
use crate::telemetry::metrics;

use super::owed::BY_ID;
use super::{IDLE, Repair};

/// How long after a read that showed nothing new the next one is: a committed row may stay invisible for a while.
const AGAIN: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(3),
];
/// Hints gather for so long after a read: one call reads many.
const GATHER: Duration = Duration::from_millis(50);

/// Hints that were read and stay.
#[derive(Default)]
pub(super) struct Hints(BTreeMap<(ObjectName, RecordId), Waiting>);

/// A record whose row had not moved.
struct Waiting {
    /// Of the hint; a newer one begins anew.
    at: DateTime<Utc>,
    reads: usize,
    due: Instant,
}

/// By what a hint was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Met {
    /// A read answered it.
    Read,
    /// The read could not be believed yet; another one is owed.
    Owed,
    /// Change tracking tells it.
    Delta,
    /// No job selects its object any more.
    NotSelected,
}

impl Met {
    const fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Owed => "owed",
            Self::Delta => "delta",
            Self::NotSelected => "not_selected",
        }
    }
}

impl Hints {
    /// Whether a hint is to be read now; else when.
    fn due(&self, hint: &Hinted) -> Option<Instant> {
        let waiting = self.0.get(&key(hint))?;
        (waiting.at == hint.at).then_some(waiting.due)
    }

    /// Its row had not moved; whether it is worth another read.
    fn wait(&mut self, hint: &Hinted) -> bool {
        let reads = match self.0.get(&key(hint)) {
            Some(waiting) if waiting.at == hint.at => waiting.reads,
            _ => 0,
        };
        let Some(wait) = AGAIN.get(reads) else {
            return false;
        };
        let waiting = Waiting {
            at: hint.at,
            reads: reads + 1,
            due: Instant::now() + *wait,
        };
        self.0.insert(key(hint), waiting);
        true
    }

    /// It can't be read before `due`.
    fn put_off(&mut self, hint: &Hinted, due: Instant) {
        let waiting = self.0.entry(key(hint)).or_insert(Waiting {
            at: hint.at,
            reads: 0,
            due,
        });
        if waiting.at != hint.at {
            *waiting = Waiting {
                at: hint.at,
                reads: 0,
                due,
            };
        }
        waiting.due = due;
    }

    fn forget(&mut self, hint: &Hinted) {
        self.0.remove(&key(hint));
    }
}

fn key(hint: &Hinted) -> (ObjectName, RecordId) {
    (hint.object.clone(), hint.record.clone())
}

impl Repair {
    /// Reads what was hinted at until the stop signal.
    ///
    /// # Errors
    /// A fault that concerns the whole connection; hints stay in the state.
    pub async fn run_hints(self: Arc<Self>, stop: StopSignal) -> Result<(), Fault> {
        let mut hints = Hints::default();
        let mut trouble = self.trouble();
        loop {
            let work = self.resolve(&mut hints);
            let Some(wait) = self.attempt(work, &mut trouble, &stop).await? else {
                return Ok(());
            };
            tokio::select! {
                biased;
                () = stop.stopped() => return Ok(()),
                () = self.road.hinted.notified(), if trouble.attempts.count() == 0 => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Reads the hints whose time it is; how long until the next.
    async fn resolve(&self, hints: &mut Hints) -> Result<Duration, Fault> {
        let connection = &self.road.connection;
        let noted = self.road.state.hints(connection, BY_ID).await?;
        let full = noted.len() == BY_ID;
        let mut objects: BTreeMap<ObjectName, Vec<Hinted>> = BTreeMap::new();
        let mut next: Option<Instant> = None;
        let now = Instant::now();
        for hint in noted {
            match hints.due(&hint).filter(|due| *due > now) {
                Some(due) => next = Some(next.map_or(due, |next| next.min(due))),
                None => objects.entry(hint.object.clone()).or_default().push(hint),
            }
        }
        let is_idle = objects.is_empty();
        for (name, told) in objects {
            let met = match self.objects.get(&name) {
                Some(object) => self.read_hinted(object, &told, hints).await?,
                None => told
                    .into_iter()
                    .map(|hint| (hint, Met::NotSelected))
                    .collect(),
            };
            self.meet(met, hints).await?;
        }
        if is_idle {
            let left = next.map(|next| next - Instant::now());
            return Ok(left.map_or(IDLE, |left| left.min(IDLE)));
        }
        // What came meanwhile is read together, and what is left of a full list.
        if !full {
            tokio::time::sleep(GATHER).await;
        }
        Ok(Duration::ZERO)
    }

    /// Reads the hinted records of an object; which hints are met.
    async fn read_hinted(
        &self,
        object: &ObjectRoad,
        told: &[Hinted],
        hints: &mut Hints,
    ) -> Result<Vec<(Hinted, Met)>, Fault> {
        let crm = &self.road.crm;
        let to_delta = |hint: &Hinted| (hint.clone(), Met::Delta);
        if !crm.affords_hints() {
            crm.look(&object.key.object);
            return Ok(told.iter().map(to_delta).collect());
        }
        if let Err(wait) = self.gate.pass(&object.key.object) {
            let due = Instant::now() + wait;
            told.iter().for_each(|hint| hints.put_off(hint, due));
            return Ok(Vec::new());
        }
        let ids: Vec<RecordId> = told.iter().map(|hint| hint.record.clone()).collect();
        let found = match crm.read_ids(&object.selection, &ids).await {
            Ok(found) => found,
            // One table's trouble is not the others': the listener meets it, too, and writes it down.
            Err(fault) if matches!(fault.kind(), FaultKind::Permission | FaultKind::Missing) => {
                tracing::warn!(
                    connection = %self.road.connection, object = %object.key.object, error = %fault,
                    "what was pushed can't be read; change tracking decides"
                );
                return Ok(told.iter().map(to_delta).collect());
            }
            Err(fault) => return Err(fault),
        };
        let read = ReadInput {
            object,
            rows: found.rows,
            absent: found.absent,
            as_of: found.as_of,
            by_id: true,
            origin: Origin::Hydrate,
        };
        let outcome = self.inlet.read(read).await?;
        let mut met = Vec::with_capacity(told.len());
        for hint in told {
            if outcome.owing.contains(&hint.record) {
                met.push((hint.clone(), Met::Owed));
            } else if !outcome.unmoved.contains(&hint.record) {
                met.push((hint.clone(), Met::Read));
            } else if !hints.wait(hint) {
                crm.look(&object.key.object);
                met.push(to_delta(hint));
            }
        }
        Ok(met)
    }

    /// Forgets hints that were met, durably, and tells how long that took.
    async fn meet(&self, met: Vec<(Hinted, Met)>, hints: &mut Hints) -> Result<(), Fault> {
        if met.is_empty() {
            return Ok(());
        }
        let connection = &self.road.connection;
        let progress = Progress {
            met: met.iter().map(|(hint, _)| hint.clone()).collect(),
            ..Progress::default()
        };
        self.road
            .state
            .commit(connection, self.term, progress)
            .await?;
        let now = self.road.clock.now();
        let took = self.road.metrics.histogram(
            metrics::HINT_SECONDS,
            &[("connection", connection.as_str())],
        );
        for (hint, by) in met {
            hints.forget(&hint);
            let labels = [("connection", connection.as_str()), ("outcome", by.label())];
            let counter = self.road.metrics.counter(metrics::HINTS_MET, &labels);
            counter.increment(1);
            if by == Met::Read {
                let took_so_long = (now - hint.at).to_std().unwrap_or_default();
                took.record(took_so_long.as_secs_f64());
            }
        }
        Ok(())
    }
}
