//! First full syncs and holes: each object by itself, so that one that fails holds up no other.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::fault::{Fault, FaultKind};
use crate::flow::board::Life;
use crate::flow::full_sync::{FullSync, ReadInput, Why};
use crate::flow::joins::parents_first;
use crate::flow::road::ObjectRoad;
use crate::model::change::Origin;
use crate::model::name::ObjectName;
use crate::model::record_id::RecordId;
use crate::state::orders::Asked;
use crate::state::port::{
    Evidence, Hole, HoleCause, HoleScope, HoleState, NewHole, ObjectState, Progress,
};
use crate::state::runs::RunCause;

use super::Repair;

/// How far beyond its start a window read looks: its end is open, whatever the clocks say.
const OPEN_END: TimeDelta = TimeDelta::days(30);

impl Repair {
    /// Syncs every object that never was; the first fault, after all were tried.
    pub(super) async fn first_syncs(&self) -> Result<(), Fault> {
        let mut failed = Ok(());
        let asked = self.road.state.asked_syncs(&self.road.connection).await?;
        for object in parents_first(&self.objects) {
            let name = &object.key.object;
            let asked = asked.iter().find(|(of, _)| of == name);
            let synced = self.first_sync(object, asked.map(|(_, asked)| asked)).await;
            let synced =
                synced.map_err(|fault| fault.context(format!("first full sync of {name}")));
            if failed.is_ok() {
                failed = synced;
            }
        }
        failed
    }

    async fn first_sync(&self, object: &ObjectRoad, asked: Option<&Asked>) -> Result<(), Fault> {
        let (connection, name) = (&self.road.connection, &object.key.object);
        let state = self.road.state.object(connection, name).await?;
        if state.synced_at.is_some() {
            return Ok(());
        }
        if let Some(asked) = asked
            && let Some(limit) = asked.wish.limit
        {
            return self.first_sample(object, state, asked.number, limit).await;
        }
        self.show_life(name, Life::Snapshotting);
        self.wait_for_clock(self.covered(name)).await?;
        let started = tokio::time::Instant::now();
        let evidence = self.full_sync(object, RunCause::First.into()).await?;
        tracing::info!(
            %connection, object = %name, rows = evidence.rows,
            seconds = started.elapsed().as_secs_f64(), "first full sync done"
        );
        if let Some(asked) = asked {
            let state = &self.road.state;
            state.sync_done(connection, name, asked.number).await?;
        }
        self.show_life(name, Life::Streaming);
        Ok(())
    }

    /// Some records, where somebody wants to see them first: once, and all others wait until they are asked for.
    async fn first_sample(
        &self,
        object: &ObjectRoad,
        mut state: ObjectState,
        number: u64,
        limit: u64,
    ) -> Result<(), Fault> {
        let (connection, name) = (&self.road.connection, &object.key.object);
        if state.sampled == Some(number) {
            return Ok(());
        }
        self.show_life(name, Life::Snapshotting);
        self.wait_for_clock(self.covered(name)).await?;
        let rows = self.sample(object, limit).await?;
        state.sampled = Some(number);
        let put = self
            .road
            .state
            .put_object(connection, self.term, name, state);
        put.await?;
        tracing::info!(
            %connection, object = %name, rows, limit, "some records are read; a sync without a limit reads all"
        );
        self.show_life(name, Life::Streaming);
        Ok(())
    }

    /// Reads as of before `until` would be discarded: waits until the CRM's clock is safely past it.
    async fn wait_for_clock(&self, until: DateTime<Utc>) -> Result<(), Fault> {
        while let Some(wait) = Self::until(self.road.crm.clock().await?, until) {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// Mends open holes; how long until one that only waits for the CRM's clock can be mended. The first fault,
    /// after all objects were tried.
    pub(super) async fn mend_holes(&self) -> Result<Option<Duration>, Fault> {
        let (connection, state) = (&self.road.connection, &self.road.state);
        let mut by_object: BTreeMap<ObjectName, Vec<Hole>> = BTreeMap::new();
        for hole in state.holes(Some(connection), false).await? {
            by_object.entry(hole.object.clone()).or_default().push(hole);
        }
        let mut wait: Option<Duration> = None;
        let mut failed = None;
        for (name, holes) in by_object {
            let Some(object) = self.objects.get(&name) else {
                continue;
            };
            match self.mend_object(object, holes).await {
                Ok(None) => {}
                Ok(Some(left)) => wait = Some(wait.map_or(left, |wait| wait.min(left))),
                Err(fault) => {
                    failed.get_or_insert(fault.context(format!("repairing holes of {name}")));
                }
            }
        }
        failed.map_or(Ok(wait), Err)
    }

    /// Mends all holes of an object that the CRM's clock is past, by one read: the widest that one of them needs.
    async fn mend_object(
        &self,
        object: &ObjectRoad,
        holes: Vec<Hole>,
    ) -> Result<Option<Duration>, Fault> {
        let (connection, state) = (&self.road.connection, &self.road.state);
        // Reads as of before a hole's end prove nothing: wait for the CRM's clock.
        let clock = self.road.crm.clock().await?;
        let covered = self.covered(&object.key.object);
        let left = |hole: &Hole| Self::until(clock, hole.scope.end().max(covered));
        let wait = holes.iter().filter_map(left).min();
        let due: Vec<Hole> = holes
            .into_iter()
            .filter(|hole| left(hole).is_none())
            .collect();
        let Some(end) = due.iter().map(|hole| hole.scope.end()).max() else {
            return Ok(wait);
        };
        self.show_life(&object.key.object, Life::Repairing);
        for hole in due.iter().filter(|hole| hole.state == HoleState::Open) {
            state.repairing(connection, self.term, hole.id).await?;
        }
        let evidence = match window_of(&due) {
            Some(from) => self.mend_window(object, from, end).await?,
            None => self.full_sync(object, repair(end)).await?,
        };
        self.show_life(&object.key.object, Life::Streaming);
        let mut wait = wait;
        for hole in due {
            if !self.close(&hole, &evidence).await? {
                wait = Some(super::LATE);
            }
        }
        Ok(wait)
    }

    /// Writes down that what was committed since then is missing; until when.
    pub(super) async fn open_window(
        &self,
        name: &ObjectName,
        cause: HoleCause,
        since: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, Fault> {
        let to = self.road.end_of_now().await?.max(since);
        let hole = NewHole {
            object: name.clone(),
            cause,
            scope: HoleScope::Window { from: since, to },
            opened_at: self.road.clock.now(),
        };
        let progress = Progress {
            open: vec![hole],
            ..Progress::default()
        };
        let (connection, state) = (&self.road.connection, &self.road.state);
        state.commit(connection, self.term, progress).await?;
        Ok(to)
    }

    /// Closes a hole that the evidence is later than; whether it is.
    async fn close(&self, hole: &Hole, evidence: &Evidence) -> Result<bool, Fault> {
        if evidence.as_of <= hole.scope.end() {
            return Ok(false);
        }
        tracing::info!(
            hole = hole.id, object = %hole.object, cause = hole.cause.label(),
            rows = evidence.rows, deleted = evidence.deleted, "hole closed"
        );
        let (connection, now) = (&self.road.connection, self.road.clock.now());
        let evidence = evidence.clone();
        self.road
            .state
            .close_hole(connection, self.term, hole.id, evidence, now)
            .await?;
        Ok(true)
    }

    pub(super) async fn sample(&self, object: &ObjectRoad, limit: u64) -> Result<u64, Fault> {
        self.sync_of(object, RunCause::Asked.into())
            .sample(limit)
            .await
    }

    pub(super) async fn full_sync(&self, object: &ObjectRoad, why: Why) -> Result<Evidence, Fault> {
        self.sync_of(object, why).run().await
    }

    const fn sync_of<'a>(&'a self, object: &'a ObjectRoad, why: Why) -> FullSync<'a> {
        FullSync {
            road: &self.road,
            term: self.term,
            object,
            inlet: &self.inlet,
            gate: &self.gate,
            why,
        }
    }

    /// What changed in the window, then what was deleted in it.
    async fn mend_window(
        &self,
        object: &ObjectRoad,
        from: DateTime<Utc>,
        end: DateTime<Utc>,
    ) -> Result<Evidence, Fault> {
        // A row's stamp is set at the statement, not at the commit.
        let from = from - self.road.settings.window_reach;
        // What changed after the hole's end, the stream has told; the CRM's logs are a minute or more behind.
        let logged_to = end + TimeDelta::seconds(1);
        let (crm, name) = (&self.road.crm, &object.key.object);
        let mut evidence = Evidence {
            as_of: crm.clock().await?,
            rows: 0,
            deleted: 0,
        };
        let updated = match crm.updated(name, from, logged_to).await {
            Ok(updated) => updated,
            Err(fault) => return self.without_log(object, end, fault).await,
        };
        match updated {
            Some(updated) => self.read_logged(object, &updated, &mut evidence).await?,
            None => {
                if !self.read_stamped(object, from, &mut evidence).await? {
                    // Nothing of it was believed: as if nothing had been read.
                    evidence.as_of = DateTime::<Utc>::MIN_UTC;
                    return Ok(evidence);
                }
            }
        }
        let deleted = match crm.deleted(name, from, logged_to).await {
            Ok(deleted) => deleted,
            Err(fault) => return self.without_log(object, end, fault).await,
        };
        self.read_logged(object, &deleted, &mut evidence).await?;
        Ok(evidence)
    }

    /// Reads everything where a log that would have told a window is too short.
    async fn without_log(
        &self,
        object: &ObjectRoad,
        end: DateTime<Utc>,
        fault: Fault,
    ) -> Result<Evidence, Fault> {
        if fault.kind() != FaultKind::PositionLost {
            return Err(fault);
        }
        tracing::warn!(object = %object.key, error = %fault, "the CRM's log is too short: comparing ids");
        self.full_sync(object, repair(end)).await
    }

    /// Reads what a log named.
    async fn read_logged(
        &self,
        object: &ObjectRoad,
        ids: &[RecordId],
        evidence: &mut Evidence,
    ) -> Result<(), Fault> {
        if ids.is_empty() {
            return Ok(());
        }
        let read = self.read_by_id(object, ids, Origin::Reconcile).await?;
        evidence.rows += read.rows;
        evidence.deleted += read.deleted;
        evidence.as_of = evidence.as_of.min(read.as_of);
        Ok(())
    }

    /// Reads what has a stamp since `from`; whether all of it was believed.
    async fn read_stamped(
        &self,
        object: &ObjectRoad,
        from: DateTime<Utc>,
        evidence: &mut Evidence,
    ) -> Result<bool, Fault> {
        // Rows that changed again after the window carry the later stamp.
        let until = evidence.as_of + OPEN_END;
        let selection = &object.selection;
        let mut pages = self.road.crm.read_window(selection, from, until).await?;
        while let Some(page) = pages.next().await? {
            evidence.rows += page.rows.len() as u64;
            evidence.as_of = evidence.as_of.min(page.as_of);
            let outcome = self
                .inlet
                .read(ReadInput {
                    object,
                    rows: page.rows,
                    absent: Vec::new(),
                    as_of: page.as_of,
                    by_id: false,
                    origin: Origin::Reconcile,
                })
                .await?;
            if outcome.again > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Reads as of before a hole's end prove nothing.
fn repair(end: DateTime<Utc>) -> Why {
    Why {
        later_than: Some(end),
        ..RunCause::Repair.into()
    }
}

/// Where one window begins that holds all holes; `None` if one of them is over the whole object.
fn window_of(holes: &[Hole]) -> Option<DateTime<Utc>> {
    let from = |hole: &Hole| match hole.scope {
        HoleScope::Window { from, .. } => Some(from),
        HoleScope::Object { .. } => None,
    };
    let all: Option<Vec<_>> = holes.iter().map(from).collect();
    all?.into_iter().min()
}
