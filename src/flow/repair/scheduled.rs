//! Full syncs on a schedule, and when somebody asks: they find what no event tells, hard deletes above all.

use chrono::{DateTime, Utc};

use crate::fault::Fault;
use crate::flow::board::Life;
use crate::flow::full_sync::Why;
use crate::flow::road::ObjectRoad;
use crate::state::orders::Asked;
use crate::state::runs::RunCause;

use super::Repair;

impl Repair {
    /// Syncs every object whose time has come since its last full sync, or of which somebody asked for one; the first
    /// fault, after all were tried.
    pub(super) async fn scheduled_syncs(&self) -> Result<(), Fault> {
        let mut failed = Ok(());
        let asked = self.road.state.asked_syncs(&self.road.connection).await?;
        for (name, object) in self.objects.iter() {
            let asked = asked.iter().find(|(of, _)| of == name);
            let synced = self.scheduled_sync(object, asked.map(|(_, asked)| asked));
            let synced = synced.await;
            let synced =
                synced.map_err(|fault| fault.context(format!("scheduled full sync of {name}")));
            if failed.is_ok() {
                failed = synced;
            }
        }
        failed
    }

    async fn scheduled_sync(
        &self,
        object: &ObjectRoad,
        asked: Option<&Asked>,
    ) -> Result<(), Fault> {
        let (connection, name) = (&self.road.connection, &object.key.object);
        let Some(synced_at) = self.road.state.object(connection, name).await?.synced_at else {
            return Ok(());
        };
        let due = self.due(object, synced_at);
        if asked.is_none() && due.is_none_or(|due| due > self.road.clock.now()) {
            return Ok(());
        }
        let started = tokio::time::Instant::now();
        self.show_life(name, Life::Snapshotting);
        if let Some(asked) = asked
            && let Some(limit) = asked.wish.limit
        {
            let rows = self.sample(object, limit).await?;
            tracing::info!(%connection, object = %name, rows, limit, "some records read again");
            let state = &self.road.state;
            state.sync_done(connection, name, asked.number).await?;
            self.show_life(name, Life::Streaming);
            return Ok(());
        }
        let why = asked.map_or_else(|| RunCause::Scheduled.into(), wished);
        let evidence = self.full_sync(object, why).await?;
        tracing::info!(
            %connection, object = %name, rows = evidence.rows, deleted = evidence.deleted,
            asked_by = asked.and_then(|asked| asked.wish.by.as_deref()).unwrap_or_default(),
            seconds = started.elapsed().as_secs_f64(), "scheduled full sync done"
        );
        if let Some(asked) = asked {
            let state = &self.road.state;
            state.sync_done(connection, name, asked.number).await?;
        }
        self.show_life(name, Life::Streaming);
        Ok(())
    }

    /// The first time after the last full sync that a job of the object names.
    fn due(&self, object: &ObjectRoad, synced_at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let timetables = self.road.settings.full_syncs.get(&object.key.object)?;
        timetables
            .iter()
            .filter_map(|table| table.next_after(synced_at))
            .min()
    }
}

/// One that stopped on its way read pages before anybody asked.
fn wished(asked: &Asked) -> Why {
    Why {
        cause: RunCause::Asked,
        by: asked.wish.by.clone(),
        later_than: asked.wish.at,
    }
}
