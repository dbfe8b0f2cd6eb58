//! Notices: looks at what stands in the state and on the board, and writes down what people are to be told of it.
//!
//! Nothing here is in the way of a job or a connection: they note what they do in any case (runs, orders, the board), and
//! this reads it. A mark per subject says what was told, and moves with the letters that tell the next thing, so that a
//! restart and a second daemon tell nothing twice and leave nothing out.

pub mod audience;
mod digest;
pub mod pulse;
mod runs;
mod standing;
#[cfg(test)]
mod tests;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::board::Board;
use crate::crm::port::Crm;
use crate::fault::Fault;
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::notify::notice::{Event, Notice};
use crate::notify::port::Address;
use crate::notify::post;
use crate::runtime::clock::Clock;
use crate::runtime::shutdown::StopSignal;
use crate::state::notices::{Letter, Notices, Step};
use crate::state::port::State;
use crate::telemetry::metrics::Metrics;
use audience::{Audience, Ears};

/// How often it is looked what was stopped, failed, or goes on again.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked which runs ended, and whether a digest is due.
const RUNS_EVERY: Duration = Duration::from_secs(5);
/// How often old marks are forgotten.
const FORGET_EVERY: Duration = Duration::from_hours(1);
/// Marks that were not moved for so long are forgotten.
const FORGOTTEN: TimeDelta = TimeDelta::days(90);

/// What the notices are made of.
pub struct Ground {
    /// What every running part last said of itself.
    pub board: Arc<Board>,
    /// Runs, orders and holes.
    pub state: Arc<dyn State>,
    /// Marks and letters.
    pub notices: Arc<dyn Notices>,
    /// The date.
    pub clock: Arc<dyn Clock>,
    /// The metrics.
    pub metrics: Metrics,
    /// Who we are: a job runs on several daemons, and each tells of its own faults.
    pub owner: String,
    /// The orgs, for the e-mail addresses of the users that are signed in.
    pub crms: BTreeMap<ConnectionId, Arc<dyn Crm>>,
    /// Who is told.
    pub audience: Audience,
    /// The jobs that run.
    pub jobs: Vec<WatchedJob>,
    /// Rung when letters were written.
    pub bell: Arc<Notify>,
    /// For how long what failed has to do well again before that is told.
    pub settled: Duration,
}

/// A job that people may be told of.
#[derive(Debug, Clone)]
pub struct WatchedJob {
    /// The connection.
    pub connection: ConnectionId,
    /// The job.
    pub job: JobId,
    /// The object that it moves.
    pub object: ObjectName,
    /// How often its real-time changes are summed up, if it moves any.
    pub digest: Option<Duration>,
}

/// Looks, and writes down what is to be told.
pub struct Watch {
    ground: Ground,
    /// What the marks are known to be. Another daemon may have moved one since.
    known: BTreeMap<String, String>,
    /// Since when what is marked as failed does well.
    well_since: BTreeMap<String, Instant>,
    /// Dead letters of this daemon, by job, when the last digest was written.
    letters: BTreeMap<(ConnectionId, JobId), u64>,
    /// When the users' addresses are asked for again.
    users: BTreeMap<ConnectionId, Instant>,
    /// Subjects of which it was said that there is nobody to tell.
    deaf: BTreeSet<ConnectionId>,
}

impl Watch {
    /// Nothing is looked at yet.
    #[must_use]
    pub fn new(ground: Ground) -> Self {
        Self {
            ground,
            known: BTreeMap::new(),
            well_since: BTreeMap::new(),
            letters: BTreeMap::new(),
            users: BTreeMap::new(),
            deaf: BTreeSet::new(),
        }
    }

    /// Looks until the stop signal. A state that does not answer is asked again; nothing is lost meanwhile, as what there
    /// is to tell stands in it.
    pub async fn keep(mut self, stop: StopSignal) {
        let (mut runs_at, mut forget_at) = (None, None);
        let mut silent = false;
        while stop.or(tokio::time::sleep(LOOK_EVERY)).await.is_ok() {
            let slow = is_due(&mut runs_at, RUNS_EVERY);
            let forget = is_due(&mut forget_at, FORGET_EVERY);
            let Ok(looked) = stop.or(self.look(slow, forget)).await else {
                return;
            };
            match looked {
                Ok(()) => silent = false,
                Err(fault) => {
                    if !std::mem::replace(&mut silent, true) {
                        tracing::warn!(
                            error = fault.report(),
                            "notices can't be written, they are once the state answers"
                        );
                    }
                }
            }
        }
    }

    async fn look(&mut self, slow: bool, forget: bool) -> Result<(), Fault> {
        self.look_at_users().await?;
        self.look_at_orders().await?;
        self.look_at_lives().await?;
        if slow {
            self.look_at_runs().await?;
            self.look_at_digests().await?;
        }
        if forget {
            let before = self.ground.clock.now() - FORGOTTEN;
            self.ground.notices.forget_marks(before).await?;
        }
        Ok(())
    }

    fn now(&self) -> DateTime<Utc> {
        self.ground.clock.now()
    }

    /// The mark of a subject, as far as it is known, or as it is stored.
    async fn mark(&mut self, subject: &str) -> Result<Option<String>, Fault> {
        if let Some(known) = self.known.get(subject) {
            return Ok(Some(known.clone()));
        }
        self.stored(subject).await
    }

    /// The mark as it is stored now.
    async fn stored(&mut self, subject: &str) -> Result<Option<String>, Fault> {
        let mark = self.ground.notices.mark(subject).await?;
        match &mark {
            Some(mark) => self.known.insert(subject.to_owned(), mark.clone()),
            None => self.known.remove(subject),
        };
        Ok(mark)
    }

    /// Moves a mark and writes what is told with it. If another daemon was quicker, it has told it.
    async fn tell(
        &mut self,
        subject: &str,
        before: Option<String>,
        after: &str,
        told: Option<(&Notice, Vec<Address>)>,
    ) -> Result<(), Fault> {
        let at = self.now();
        let letters = match &told {
            Some((notice, to)) => letters(&format!("{subject} {after}"), notice, to)?,
            None => Vec::new(),
        };
        let count = letters.len();
        let step = Step {
            before,
            after: after.to_owned(),
            letters,
            at,
        };
        let moved = self.ground.notices.move_mark(subject, step).await?;
        if !moved.moved {
            self.known.remove(subject);
            return Ok(());
        }
        self.known.insert(subject.to_owned(), after.to_owned());
        if let Some((notice, to)) = told {
            let lost = count.saturating_sub(moved.kept);
            tracing::info!(title = notice.title, recipients = count, "notice written");
            if lost > 0 {
                tracing::error!(
                    title = notice.title,
                    lost,
                    "too many notices wait, some are dropped"
                );
                for to in to.iter().rev().take(lost) {
                    post::count(&self.ground.metrics, to, "dropped", 1);
                }
            }
        }
        if count > 0 {
            self.ground.bell.notify_one();
        }
        Ok(())
    }

    /// Who is told, as addresses.
    async fn addresses(
        &mut self,
        connection: &ConnectionId,
        ears: &Ears,
    ) -> Result<Vec<Address>, Fault> {
        match ears {
            Ears::Named(addresses) => Ok(addresses.clone()),
            Ears::User => Ok(self.user(connection).await?.into_iter().collect()),
        }
    }
}

fn letters(id: &str, notice: &Notice, to: &[Address]) -> Result<Vec<Letter>, Fault> {
    let letters = to.iter().map(|to| notice.letter(id, to));
    letters.collect::<Result<_, _>>().map_err(|error| {
        Fault::new(crate::fault::FaultKind::Corrupt, "writing a letter").source(error)
    })
}

/// A notice about a job, which it names.
fn of_job(
    event: Event,
    outcome: &str,
    (connection, job): (&ConnectionId, &JobId),
    what: &str,
    at: DateTime<Utc>,
) -> Notice {
    Notice {
        connection: Some(connection.to_string()),
        job: Some(job.to_string()),
        ..Notice::new(event, outcome, &format!("{connection}/{job}: {what}"), at)
    }
}

/// Whether it is time, and if so, that it was.
fn is_due(last: &mut Option<Instant>, every: Duration) -> bool {
    let due = last.is_none_or(|last| last.elapsed() >= every);
    if due {
        *last = Some(Instant::now());
    }
    due
}
