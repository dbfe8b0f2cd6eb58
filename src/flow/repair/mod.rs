//! Repair: what was hinted at and what is owed by id, open holes by the narrowest sufficient read. It never stops the stream: a read that
//! fails is tried again here, and only a fault that concerns the owner or the credentials ends the connection.

mod hints;
mod holes;
mod missed;
mod owed;
mod scheduled;
mod untold;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Notify;

use crate::budget::Priority;
use crate::fault::{Fate, Fault, FaultKind};
use crate::model::name::ObjectName;
use crate::runtime::backoff::{Attempts, Backoff};
use crate::runtime::shutdown::StopSignal;
use crate::state::port::HoleCause;
use crate::telemetry::metrics;

use super::board::{FaultPicture, Life};
use super::full_sync::Inlet;
use super::gate::Gate;
use super::road::{Objects, Road, lacking};

use missed::Probes;
use owed::Hydration;
use untold::Untold;

/// How often it looks for work that nobody announced.
const IDLE: Duration = Duration::from_secs(1);
/// The shortest wait between two tries.
const SOON: Duration = Duration::from_millis(250);
/// The longest wait for the CRM's clock before it is looked at again.
const LATE: Duration = Duration::from_secs(5);

/// One connection's repair.
pub struct Repair {
    /// The road.
    pub road: Road,
    /// Its objects.
    pub objects: Arc<Objects>,
    /// The owner's term.
    pub term: u64,
    /// Reads as of before this are not believed.
    pub covered: BTreeMap<ObjectName, DateTime<Utc>>,
    /// The way into ingest.
    pub inlet: Inlet,
    /// When records may be read by id.
    pub gate: Gate,
    /// Notified when something is newly owed.
    pub owed: Arc<Notify>,
}

/// A loop's faults in a row, and whether the board shows one.
struct Trouble {
    attempts: Attempts,
    shown: bool,
}

impl Repair {
    /// Reads owed records by id until the stop signal; quick, so it never waits behind a full sync.
    ///
    /// # Errors
    /// A fault that concerns the whole connection; what is owed stays owed.
    pub async fn run_quick(self: Arc<Self>, stop: StopSignal) -> Result<(), Fault> {
        let mut hydration = Hydration::default();
        let mut trouble = self.trouble();
        loop {
            let work = async {
                let wait = self.hydrate(&mut hydration).await?;
                self.republish().await?;
                self.show().await?;
                Ok(wait.unwrap_or(IDLE))
            };
            let attempt = Box::pin(self.attempt(work, &mut trouble, &stop));
            let Some(wait) = attempt.await? else {
                return Ok(());
            };
            tokio::select! {
                biased;
                () = stop.stopped() => return Ok(()),
                () = self.owed.notified(), if trouble.attempts.count() == 0 => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// First full syncs, then holes (those of objects that no event tells among them), then the probes and full syncs that
    /// are due, one after another, until the stop signal. Probes and full syncs that have to wait for the org's calls hold
    /// up no hole: full syncs are given up at the page where they are, probes begin anew.
    ///
    /// # Errors
    /// As [`Repair::run_quick`].
    pub async fn run_deep(self: Arc<Self>, stop: StopSignal) -> Result<(), Fault> {
        let mut trouble = self.trouble();
        let (mut untold, mut probes) = (Untold::default(), Probes::default());
        loop {
            let work = async {
                let full = Priority::FullSync;
                let synced = self.while_afforded(full, self.first_syncs()).await;
                let polled = Priority::Incremental
                    .scope(self.poll_untold(&mut untold))
                    .await;
                let mended = Priority::Repair.scope(self.mend_holes()).await;
                synced?;
                polled?;
                let syncs = Box::pin(self.scheduled_syncs());
                self.while_afforded(full, syncs).await?;
                let wait = mended?;
                let probed = Box::pin(self.probe(&mut probes, &untold));
                self.while_afforded(Priority::Incremental, probed).await?;
                Ok(wait.unwrap_or(IDLE))
            };
            let attempt = Box::pin(self.attempt(work, &mut trouble, &stop));
            let Some(wait) = attempt.await? else {
                return Ok(());
            };
            tokio::select! {
                biased;
                () = stop.stopped() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Work for as long as the budget has calls for its priority; it goes on from what is durable another time.
    async fn while_afforded(
        &self,
        priority: Priority,
        work: impl Future<Output = Result<(), Fault>>,
    ) -> Result<(), Fault> {
        let work = priority.scope(work);
        let Some(budget) = self.road.crm.budget() else {
            return work.await;
        };
        tokio::select! {
            biased;
            () = budget.held(priority) => Ok(()),
            done = work => done,
        }
    }

    fn trouble(&self) -> Trouble {
        let settings = &self.road.settings;
        let backoff = Backoff {
            first: settings.retry_first,
            cap: settings.retry_cap,
            ..Backoff::default()
        };
        Trouble {
            attempts: Attempts::new(backoff, self.term),
            shown: false,
        }
    }

    /// Works once; the wait before the next time, `None` at the stop signal.
    async fn attempt(
        &self,
        work: impl Future<Output = Result<Duration, Fault>>,
        trouble: &mut Trouble,
        stop: &StopSignal,
    ) -> Result<Option<Duration>, Fault> {
        let done = tokio::select! {
            biased;
            () = stop.stopped() => return Ok(None),
            done = work => done,
        };
        match done {
            Ok(wait) => {
                trouble.attempts.succeeded();
                if std::mem::take(&mut trouble.shown) {
                    self.road
                        .board
                        .connection(&self.road.connection, |entry| entry.fault = None);
                }
                Ok(Some(wait))
            }
            Err(fault) if ends_the_connection(fault.kind()) => Err(fault),
            Err(fault) if fault.kind() == FaultKind::Missing && self.has_drifted().await => {
                let what = "what jobs read is not what it was: the connection begins anew";
                Err(Fault::new(FaultKind::Unavailable, what).source(fault))
            }
            Err(fault) => Ok(Some(self.wait_after(&fault, trouble))),
        }
    }

    /// Whether a field that this life reads is gone. The connector has forgotten the description that proved wrong.
    async fn has_drifted(&self) -> bool {
        for object in self.objects.values() {
            let fields = object.selection.fields.iter().cloned().collect();
            let schema = self.road.crm.describe(&object.key.object).await;
            if schema.is_ok_and(|schema| !lacking(&fields, &schema).is_empty()) {
                return true;
            }
        }
        false
    }

    fn wait_after(&self, fault: &Fault, trouble: &mut Trouble) -> Duration {
        let wait = if fault.fate() == Fate::Retry {
            trouble.attempts.failed(fault.wait_hint())
        } else {
            trouble.attempts.failed(None);
            let hint = fault.wait_hint().unwrap_or_default();
            hint.max(self.road.settings.refused_wait)
        };
        let picture = FaultPicture::of(fault, self.road.clock.now());
        let labels = [
            ("connection", self.road.connection.as_str()),
            ("kind", picture.kind),
        ];
        self.road
            .metrics
            .counter(metrics::FAULTS, &labels)
            .increment(1);
        tracing::warn!(
            connection = %self.road.connection, kind = picture.kind, error = picture.text,
            again_in_seconds = wait.as_secs_f64(), "a read failed; the stream goes on"
        );
        self.road.board.connection(&self.road.connection, |entry| {
            entry.fault = Some(picture);
        });
        trouble.shown = true;
        wait
    }

    /// How long until the CRM's clock, now at `clock`, is safely past `until`; `None` if it is.
    fn until(clock: DateTime<Utc>, until: DateTime<Utc>) -> Option<Duration> {
        // Dates come in whole seconds less a round trip: a later read may be as of a little earlier.
        let left = until + TimeDelta::seconds(2) - clock;
        let left = left.to_std().ok()?;
        (!left.is_zero()).then(|| left.clamp(SOON, LATE))
    }

    fn covered(&self, object: &ObjectName) -> DateTime<Utc> {
        let since = self.covered.get(object).copied();
        since.unwrap_or(DateTime::<Utc>::MIN_UTC)
    }

    async fn show(&self) -> Result<(), Fault> {
        let connection = &self.road.connection;
        let counts: BTreeMap<_, _> = self
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
        for cause in HoleCause::ALL {
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

/// Another owner, ended ingest, dead credentials or contradicting files concern the stream as well.
const fn ends_the_connection(kind: FaultKind) -> bool {
    matches!(
        kind,
        FaultKind::Fenced
            | FaultKind::Stopping
            | FaultKind::Credentials
            | FaultKind::Config
            | FaultKind::Corrupt
    )
}
