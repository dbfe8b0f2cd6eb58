//! Objects whose changes no event tells: the CRM is asked for them window by window, and each window is a hole first,
//! so that none is forgotten. A restart goes on where the last window ended.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::crm::port::survey::Changes;
use crate::fault::Fault;
use crate::model::name::ObjectName;
use crate::state::port::{HoleCause, HoleScope, NewHole, Progress};
use crate::telemetry::metrics;

use super::Repair;

/// How many windows go by before it is looked up again which objects the CRM tells changes of.
const LOOKS: u32 = 6;

/// What is known of objects whose changes may not be told.
#[derive(Default)]
pub(super) struct Untold {
    looked: Option<Instant>,
    changes: BTreeMap<ObjectName, Changes>,
    /// By object: to when its changes were asked for, in the CRM's time, and when that was.
    asked: BTreeMap<ObjectName, (DateTime<Utc>, Instant)>,
    /// Objects that are told, and of which another life's last window was looked for.
    ended: BTreeSet<ObjectName>,
}

impl Untold {
    /// Whether the object's changes come by events, as far as is known.
    pub(super) fn leaves_to_events(&self, name: &ObjectName) -> bool {
        let changes = self.changes.get(name);
        changes.is_some_and(|changes| !is_untold(*changes))
    }
}

impl Repair {
    /// Opens a window for every object that no event tells and that was not asked for long enough.
    pub(super) async fn poll_untold(&self, untold: &mut Untold) -> Result<(), Fault> {
        self.look_for_untold(untold).await?;
        for name in self.objects.keys() {
            let polled = self.poll(name, untold).await;
            polled.map_err(|fault| fault.context(format_args!("polling {name}")))?;
        }
        Ok(())
    }

    async fn look_for_untold(&self, untold: &mut Untold) -> Result<(), Fault> {
        let every = self.road.settings.untold_poll * LOOKS;
        if untold.looked.is_some_and(|looked| looked.elapsed() < every) {
            return Ok(());
        }
        let (connection, crm) = (&self.road.connection, &self.road.crm);
        let names: Vec<ObjectName> = self.objects.keys().cloned().collect();
        let looked = crm.changes_of(&names).await;
        let changes = looked
            .map_err(|fault| fault.context("looking up which objects the CRM tells changes of"))?;
        untold.looked = Some(Instant::now());
        for (name, changes) in &changes {
            if untold.changes.get(name) != Some(changes) && is_untold(*changes) {
                tracing::warn!(
                    %connection, object = %name, ?changes,
                    "no event tells the object's changes: it is polled"
                );
            }
            let changes = *changes;
            let board = &self.road.board;
            board.object(connection, name, |entry| entry.changes = Some(changes));
            let labels = [
                ("connection", connection.as_str()),
                ("object", name.as_str()),
            ];
            let told = if is_untold(changes) { 0.0 } else { 1.0 };
            let gauge = self.road.metrics.gauge(metrics::OBJECT_TOLD, &labels);
            gauge.set(told);
        }
        untold.changes = changes;
        Ok(())
    }

    async fn poll(&self, name: &ObjectName, untold: &mut Untold) -> Result<(), Fault> {
        let Some(changes) = untold.changes.get(name).copied() else {
            return Ok(());
        };
        let state = self.road.state.object(&self.road.connection, name).await?;
        if state.synced_at.is_none() {
            return Ok(());
        }
        let asked = untold.asked.get(name).copied();
        if !is_untold(changes) {
            // What was committed before the CRM began to tell is asked for once more.
            let since = match asked {
                Some((since, _)) => Some(since),
                None if untold.ended.contains(name) => None,
                None => self.last_window(name).await?,
            };
            if let Some(since) = since {
                self.open_window(name, since).await?;
            }
            untold.asked.remove(name);
            untold.ended.insert(name.clone());
            return Ok(());
        }
        if asked.is_some_and(|(_, at)| at.elapsed() < self.road.settings.untold_poll) {
            return Ok(());
        }
        let since = match asked {
            Some((since, _)) => since,
            None => {
                let last = self.last_window(name).await?;
                last.unwrap_or_else(|| self.covered(name))
            }
        };
        let to = self.open_window(name, since).await?;
        untold.asked.insert(name.clone(), (to, Instant::now()));
        untold.ended.remove(name);
        Ok(())
    }

    /// Where the last window of an object ended, in this life or another.
    async fn last_window(&self, name: &ObjectName) -> Result<Option<DateTime<Utc>>, Fault> {
        let holes = self.road.state.holes(Some(&self.road.connection), true);
        let ends = holes.await?.into_iter().filter_map(|hole| {
            let is_window = matches!(hole.scope, HoleScope::Window { .. });
            let is_ours = hole.object == *name && hole.cause == HoleCause::NotCaptured;
            (is_ours && is_window).then(|| hole.scope.end())
        });
        Ok(ends.max())
    }

    /// Writes down that what was committed since then is not told; until when.
    async fn open_window(
        &self,
        name: &ObjectName,
        since: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, Fault> {
        let to = self.road.end_of_now().await?.max(since);
        let hole = NewHole {
            object: name.clone(),
            cause: HoleCause::NotCaptured,
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
}

const fn is_untold(changes: Changes) -> bool {
    matches!(changes, Changes::NotSelected | Changes::NeverTold)
}
