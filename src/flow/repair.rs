//! Repair: owed reads by id, open holes by the narrowest sufficient read. It never stops the stream.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Notify;

use crate::fault::{Fault, FaultKind};
use crate::model::change::Origin;
use crate::model::name::ObjectName;
use crate::model::record_id::RecordId;
use crate::runtime::shutdown::StopSignal;
use crate::state::port::{Evidence, Hole, HoleScope, HoleState};
use crate::telemetry::metrics;

use super::board::Life;
use super::full_sync::{Inlet, ReadInput, full_sync};
use super::road::{ObjectRoad, Objects, Road};

const BY_ID: usize = 2000;
const IDLE: Duration = Duration::from_secs(1);
const FIRST_AGAIN: Duration = Duration::from_millis(250);

/// One connection's repair.
pub struct Repair {
    /// The road.
    pub road: Road,
    /// Its objects.
    pub objects: Arc<Objects>,
    /// The owner's term.
    pub term: u64,
    /// The way into ingest.
    pub inlet: Inlet,
    /// Notified when something is newly owed.
    pub owed: Arc<Notify>,
}

impl Repair {
    /// Reads owed records by id until the stop signal; quick, so it never waits behind a full sync.
    ///
    /// # Errors
    /// A fault of the CRM, the state or ingest; what is owed stays owed.
    pub async fn run_quick(self: Arc<Self>, stop: StopSignal) -> Result<(), Fault> {
        let mut wait = FIRST_AGAIN;
        loop {
            let work = async {
                let left = self.hydrate().await?;
                self.republish().await?;
                self.show().await?;
                Ok::<_, Fault>(left)
            };
            let again = tokio::select! {
                biased;
                () = stop.stopped() => return Ok(()),
                again = work => again?,
            };
            wait = if again { (wait * 2).min(IDLE) } else { IDLE };
            tokio::select! {
                biased;
                () = stop.stopped() => return Ok(()),
                () = self.owed.notified() => wait = FIRST_AGAIN,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// First full syncs, then holes, one after another, until the stop signal.
    ///
    /// # Errors
    /// As [`Repair::run_quick`].
    pub async fn run_deep(self: Arc<Self>, stop: StopSignal) -> Result<(), Fault> {
        loop {
            let work = async {
                self.first_syncs().await?;
                self.mend_holes().await
            };
            let waiting = tokio::select! {
                biased;
                () = stop.stopped() => return Ok(()),
                waiting = work => waiting?,
            };
            let wait = if waiting { FIRST_AGAIN } else { IDLE };
            tokio::select! {
                biased;
                () = stop.stopped() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn first_syncs(&self) -> Result<(), Fault> {
        for (name, object) in self.objects.iter() {
            let state = self.road.state.object(&self.road.connection, name).await?;
            if state.synced_at.is_some() {
                continue;
            }
            self.show_life(name, Life::Snapshotting);
            self.wait_for_clock(state.covered).await?;
            let started = std::time::Instant::now();
            let evidence = full_sync(&self.road, self.term, object, &self.inlet, Origin::Snapshot)
                .await
                .map_err(|fault| fault.context(format!("first full sync of {name}")))?;
            tracing::info!(
                connection = %self.road.connection, object = %name, rows = evidence.rows,
                seconds = started.elapsed().as_secs_f64(), "first full sync done"
            );
            self.show_life(name, Life::Streaming);
        }
        Ok(())
    }

    /// Reads as of before `covered` would be discarded: waits until the CRM's clock, less the lag, is past it.
    async fn wait_for_clock(&self, covered: Option<DateTime<Utc>>) -> Result<(), Fault> {
        let Some(covered) = covered else {
            return Ok(());
        };
        loop {
            let clock = self.road.crm.clock().await?;
            if clock >= covered {
                return Ok(());
            }
            let wait = (covered - clock).to_std().unwrap_or_default();
            tokio::time::sleep(wait.clamp(Duration::from_millis(50), Duration::from_secs(5))).await;
        }
    }

    /// Reads what is owed; whether something is still owed.
    async fn hydrate(&self) -> Result<bool, Fault> {
        let mut left = false;
        for (name, object) in self.objects.iter() {
            loop {
                let owed = self
                    .road
                    .state
                    .owed(&self.road.connection, name, BY_ID)
                    .await?;
                if owed.is_empty() {
                    break;
                }
                let asked = owed.len();
                let newest = owed.iter().map(|owed| owed.stamp).max();
                let ids: Vec<RecordId> = owed.into_iter().map(|owed| owed.record).collect();
                let as_of = self
                    .read_by_id(object, &ids, Origin::Hydrate, false)
                    .await?
                    .as_of;
                let early = newest.is_some_and(|newest| as_of <= newest);
                left |= early;
                if early || asked < BY_ID {
                    break;
                }
            }
        }
        Ok(left)
    }

    async fn read_by_id(
        &self,
        object: &ObjectRoad,
        ids: &[RecordId],
        origin: Origin,
        republish: bool,
    ) -> Result<Evidence, Fault> {
        let mut evidence = Evidence {
            as_of: DateTime::<Utc>::MAX_UTC,
            rows: 0,
            deleted: 0,
        };
        for some in ids.chunks(BY_ID) {
            let found = self.road.crm.read_ids(&object.selection, some).await?;
            evidence.as_of = evidence.as_of.min(found.as_of);
            evidence.rows += found.rows.len() as u64;
            let outcome = self
                .inlet
                .read(ReadInput {
                    object,
                    rows: found.rows,
                    absent: found.absent,
                    as_of: found.as_of,
                    origin,
                    republish,
                })
                .await?;
            evidence.deleted += outcome.deleted;
            if !outcome.again.is_empty() {
                // Not believed yet; as if nothing had been read of them.
                evidence.as_of = DateTime::<Utc>::MIN_UTC;
            }
        }
        Ok(evidence)
    }

    /// Mends open holes; whether one is left that only waits for the CRM's clock.
    async fn mend_holes(&self) -> Result<bool, Fault> {
        let mut waiting = false;
        let holes = self
            .road
            .state
            .holes(Some(&self.road.connection), false)
            .await?;
        for hole in holes {
            let Some(object) = self.objects.get(&hole.object) else {
                continue;
            };
            // Reads as of before the hole's end prove nothing: wait for the CRM's clock.
            if self.road.crm.clock().await? <= hole.scope.end() {
                waiting = true;
                continue;
            }
            self.show_life(&hole.object, Life::Repairing);
            if hole.state == HoleState::Open {
                self.road
                    .state
                    .repairing(&self.road.connection, self.term, hole.id)
                    .await?;
            }
            let evidence = self.mend(object, &hole).await.map_err(|fault| {
                fault.context(format!("repairing hole {} of {}", hole.id, hole.object))
            })?;
            if evidence.as_of <= hole.scope.end() {
                waiting = true;
                continue;
            }
            tracing::info!(
                hole = hole.id, object = %hole.object, cause = hole.cause.label(),
                rows = evidence.rows, deleted = evidence.deleted, "hole closed"
            );
            self.road
                .state
                .close_hole(
                    &self.road.connection,
                    self.term,
                    hole.id,
                    evidence,
                    self.road.clock.now(),
                )
                .await?;
            self.show_life(&hole.object, Life::Streaming);
        }
        Ok(waiting)
    }

    async fn mend(&self, object: &ObjectRoad, hole: &Hole) -> Result<Evidence, Fault> {
        match &hole.scope {
            HoleScope::Object { .. } => {
                full_sync(
                    &self.road,
                    self.term,
                    object,
                    &self.inlet,
                    Origin::Reconcile,
                )
                .await
            }
            HoleScope::Window { from, to } => self.mend_window(object, *from, *to).await,
        }
    }

    /// What changed in the window, then what was deleted in it.
    async fn mend_window(
        &self,
        object: &ObjectRoad,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Evidence, Fault> {
        let from = from - self.road.settings.window_reach;
        let mut evidence = Evidence {
            as_of: self.road.crm.clock().await?,
            rows: 0,
            deleted: 0,
        };
        // Open at its end: rows that changed again after the window carry the later stamp.
        let until = evidence.as_of + self.road.settings.window_reach;
        let mut pages = self
            .road
            .crm
            .read_window(&object.selection, from, until)
            .await?;
        while let Some(page) = pages.next().await? {
            evidence.rows += page.rows.len() as u64;
            evidence.as_of = evidence.as_of.min(page.as_of);
            self.inlet
                .read(ReadInput {
                    object,
                    rows: page.rows,
                    absent: Vec::new(),
                    as_of: page.as_of,
                    origin: Origin::Reconcile,
                    republish: false,
                })
                .await?;
        }
        let logged = self
            .road
            .crm
            .deleted(&object.key.object, from, evidence.as_of)
            .await;
        let deleted = match logged {
            Ok(deleted) => deleted,
            Err(fault) if fault.kind() == FaultKind::PositionLost => {
                tracing::warn!(object = %object.key, %to, error = %fault, "delete log is too short: comparing ids");
                return full_sync(
                    &self.road,
                    self.term,
                    object,
                    &self.inlet,
                    Origin::Reconcile,
                )
                .await;
            }
            Err(fault) => return Err(fault),
        };
        if !deleted.is_empty() {
            let read = self
                .read_by_id(object, &deleted, Origin::Reconcile, false)
                .await?;
            evidence.rows += read.rows;
            evidence.deleted += read.deleted;
            evidence.as_of = evidence.as_of.min(read.as_of);
        }
        Ok(evidence)
    }

    /// Publishes again what jobs asked for (a ledger that holds a higher term than ours).
    async fn republish(&self) -> Result<(), Fault> {
        let wanted = self
            .road
            .state
            .take_republish(&self.road.connection, BY_ID)
            .await?;
        let mut by_object: HashMap<ObjectName, Vec<RecordId>> = HashMap::new();
        for (object, record) in wanted {
            by_object.entry(object).or_default().push(record);
        }
        for (name, records) in by_object {
            if let Some(object) = self.objects.get(&name) {
                self.read_by_id(object, &records, Origin::Reconcile, true)
                    .await?;
            }
        }
        Ok(())
    }

    async fn show(&self) -> Result<(), Fault> {
        let connection = &self.road.connection;
        let counts: HashMap<_, _> = self
            .road
            .state
            .owed_counts(connection)
            .await?
            .into_iter()
            .collect();
        for name in self.objects.keys() {
            let owed = counts.get(name).copied().unwrap_or(0);
            self.road
                .board
                .object(connection, name, |entry| entry.owed = owed);
            let labels = [
                ("connection", connection.as_str()),
                ("object", name.as_str()),
            ];
            self.road
                .metrics
                .gauge(metrics::OWED_READS, &labels)
                .set(owed as f64);
        }
        let holes = self.road.state.holes(Some(connection), false).await?;
        self.road
            .board
            .connection(connection, |entry| entry.open_holes = holes.len() as u64);
        for cause in crate::state::port::HoleCause::ALL {
            let open = holes.iter().filter(|hole| hole.cause == cause).count();
            let labels = [
                ("connection", connection.as_str()),
                ("cause", cause.label()),
            ];
            self.road
                .metrics
                .gauge(metrics::HOLES_OPEN, &labels)
                .set(open as f64);
        }
        Ok(())
    }

    fn show_life(&self, object: &ObjectName, life: Life) {
        self.road
            .board
            .object(&self.road.connection, object, |entry| entry.state = life);
    }
}
