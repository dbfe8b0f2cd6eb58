//! Owed reads: many records a call, each read once its answer can be believed.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use crate::fault::Fault;
use crate::flow::full_sync::ReadInput;
use crate::flow::road::ObjectRoad;
use crate::model::change::Origin;
use crate::model::name::ObjectName;
use crate::model::record_id::RecordId;

use super::{LATE, Repair, SOON};

/// How many records one call reads.
pub(super) const BY_ID: usize = 2000;

/// What the reads so far tell of the next.
#[derive(Default)]
pub(super) struct Hydration {
    /// As of when the newest read was, and when that was.
    clock: Option<(DateTime<Utc>, Instant)>,
    /// The last read of an object's debts.
    last: BTreeMap<ObjectName, Last>,
}

#[derive(Clone, Copy)]
struct Last {
    at: Instant,
    /// The stamp of the newest debt among them.
    newest: DateTime<Utc>,
}

/// What became of reads by id.
#[derive(Debug, Clone, Copy)]
pub(super) struct ById {
    /// The earliest A.
    pub as_of: DateTime<Utc>,
    /// Rows found.
    pub rows: u64,
    /// Records found deleted.
    pub deleted: u64,
}

impl Hydration {
    /// As of when a read that starts now would be.
    fn now(&self) -> Option<DateTime<Utc>> {
        let (as_of, at) = self.clock?;
        as_of.checked_add_signed(TimeDelta::from_std(at.elapsed()).ok()?)
    }

    /// How long an object's debts are left alone: no more often are they read than reads age, or a busy object would eat
    /// the org's budget.
    fn rest(&self, object: &ObjectName, lag: Duration) -> Option<Duration> {
        let since = self.last.get(object)?.at.elapsed();
        let rest = lag.max(SOON).checked_sub(since);
        rest.filter(|rest| !rest.is_zero())
    }

    /// Whether debts of up to this stamp were read, if only before the answer could settle them.
    fn has_met(&self, object: &ObjectName, newest: DateTime<Utc>) -> bool {
        let last = self.last.get(object);
        last.is_some_and(|last| last.newest >= newest)
    }
}

impl Repair {
    /// Reads what is owed; how long until the next debt can be settled, `None` if there is none.
    pub(super) async fn hydrate(
        &self,
        hydration: &mut Hydration,
    ) -> Result<Option<Duration>, Fault> {
        let mut wait: Option<Duration> = None;
        for object in self.objects.values() {
            if let Some(left) = self.hydrate_object(object, hydration).await? {
                wait = Some(wait.map_or(left, |wait| wait.min(left)));
            }
        }
        Ok(wait)
    }

    async fn hydrate_object(
        &self,
        object: &ObjectRoad,
        hydration: &mut Hydration,
    ) -> Result<Option<Duration>, Fault> {
        let name = &object.key.object;
        let covered = self.covered(name);
        loop {
            let state = &self.road.state;
            let owed = state.owed(&self.road.connection, name, BY_ID).await?;
            let (Some(oldest), Some(newest)) = (owed.first(), owed.last()) else {
                return Ok(None);
            };
            let newest = newest.stamp;
            let now = match hydration.now() {
                Some(now) => now,
                None => {
                    let clock = self.road.crm.clock().await?;
                    hydration.clock = Some((clock, Instant::now()));
                    clock
                }
            };
            // Dates come in whole seconds less a round trip, so one more makes sure.
            let due = oldest.stamp.max(covered) + TimeDelta::seconds(2);
            let settles = now >= due;
            // Before their time new ones are read all the same, so that a job sees most of what changed at once.
            if !settles && (now < covered || hydration.has_met(name, newest)) {
                return Ok(Some(wait_for(due, now)));
            }
            let full = owed.len() == BY_ID;
            let rest = hydration.rest(name, self.road.settings.read_lag);
            if let Some(rest) = rest.filter(|_| !(settles && full)) {
                return Ok(Some(rest.clamp(SOON, LATE)));
            }
            if let Err(wait) = self.gate.pass(name) {
                return Ok(Some(wait.clamp(SOON, LATE)));
            }
            let at = Instant::now();
            hydration.last.insert(name.clone(), Last { at, newest });
            let ids: Vec<RecordId> = owed.into_iter().map(|owed| owed.record).collect();
            let read = self.read_by_id(object, &ids, Origin::Hydrate).await?;
            hydration.clock = Some((read.as_of, Instant::now()));
            // A read that was as of earlier than it looked settles less; the next look decides.
            if !settles || !full {
                return Ok(Some(SOON));
            }
        }
    }

    /// Reads records by id; whose answer is not believed owes another read.
    pub(super) async fn read_by_id(
        &self,
        object: &ObjectRoad,
        ids: &[RecordId],
        origin: Origin,
    ) -> Result<ById, Fault> {
        let mut done = ById {
            as_of: DateTime::<Utc>::MAX_UTC,
            rows: 0,
            deleted: 0,
        };
        for some in ids.chunks(BY_ID) {
            self.gate.passed(&object.key.object).await;
            let found = self.road.crm.read_ids(&object.selection, some).await?;
            done.as_of = done.as_of.min(found.as_of);
            done.rows += found.rows.len() as u64;
            let outcome = self
                .inlet
                .read(ReadInput {
                    object,
                    rows: found.rows,
                    absent: found.absent,
                    as_of: found.as_of,
                    by_id: true,
                    origin,
                })
                .await?;
            done.deleted += outcome.deleted;
        }
        Ok(done)
    }

    /// Publishes again what jobs asked for (a ledger that holds a higher term than ours).
    pub(super) async fn republish(&self) -> Result<(), Fault> {
        loop {
            let state = &self.road.state;
            let wanted = state.to_republish(&self.road.connection, BY_ID).await?;
            if wanted.is_empty() {
                return Ok(());
            }
            self.inlet.republish(wanted).await?;
        }
    }
}

fn wait_for(due: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
    (due - now).to_std().unwrap_or_default().clamp(SOON, LATE)
}
