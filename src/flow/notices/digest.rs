//! Digests: what became of a job's real-time changes since the last one, if there is anything to tell.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::{Watch, WatchedJob, of_job};
use crate::fault::{Fault, FaultKind};
use crate::notify::notice::{Event, Notice};
use crate::state::port::Hole;
use crate::state::runs::{Run, RunCause, RunsWanted};

/// How many of a job's newest runs are looked through for those of real-time changes.
const STREAMS: usize = 64;

/// What was counted when the last digest was due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Counted {
    until: DateTime<Utc>,
    /// The newest run of real-time changes, and what of it was rejected.
    run: Option<String>,
    rejected: u64,
}

impl Counted {
    /// What is counted now. Where no run of real-time changes is found, the one that was counted last stays.
    fn now(until: DateTime<Utc>, runs: &[Run], before: Option<&Self>) -> Self {
        let newest = runs.first();
        let kept = before.filter(|_| newest.is_none());
        Self {
            until,
            run: newest
                .map(|run| run.head.id.clone())
                .or_else(|| kept.and_then(|kept| kept.run.clone())),
            rejected: newest
                .map(rejected)
                .or_else(|| kept.map(|kept| kept.rejected))
                .unwrap_or(0),
        }
    }

    fn mark(&self) -> Result<String, Fault> {
        serde_json::to_string(self)
            .map_err(|error| Fault::new(FaultKind::Corrupt, "writing a mark").source(error))
    }
}

/// What there is to tell.
struct Told {
    rejected: u64,
    /// Dead letters that this daemon wrote beside those of rejected changes.
    letters: u64,
    holes: Vec<Hole>,
}

impl Watch {
    /// Tells the digests that are due.
    pub(super) async fn look_at_digests(&mut self) -> Result<(), Fault> {
        for of in self.ground.jobs.clone() {
            if let Some(every) = of.digest {
                let every = TimeDelta::from_std(every).unwrap_or(TimeDelta::MAX);
                self.look_at_digest(&of, every).await?;
            }
        }
        Ok(())
    }

    async fn look_at_digest(&mut self, of: &WatchedJob, every: TimeDelta) -> Result<(), Fault> {
        let subject = format!("digest {}/{}", of.connection, of.job);
        let now = self.now();
        let is_due = |mark: &str| {
            let counted = serde_json::from_str::<Counted>(mark);
            // One that can't be read begins anew.
            !counted.is_ok_and(|counted| now - counted.until < every)
        };
        if self
            .mark(&subject)
            .await?
            .is_some_and(|mark| !is_due(&mark))
        {
            return Ok(());
        }
        // Another daemon may have told it.
        let before = self.stored(&subject).await?;
        if before.as_deref().is_some_and(|mark| !is_due(mark)) {
            return Ok(());
        }
        let runs = self.streams(of).await?;
        let counted = before
            .as_deref()
            .and_then(|mark| serde_json::from_str::<Counted>(mark).ok());
        let after = Counted::now(now, &runs, counted.as_ref()).mark()?;
        let letters = self.new_letters(of);
        // The first one begins the count.
        let told = match counted {
            None => None,
            Some(counted) => {
                let rejected = since(&counted, &runs);
                self.to_tell(of, rejected, letters).await?
            }
        };
        let Some(told) = told else {
            return self.tell(&subject, before, &after, None).await;
        };
        let ears = self.ground.audience.of_job(&of.connection, &of.job);
        let to = match ears.map(|told| told.failure.clone()) {
            Some(ears) => self.addresses(&of.connection, &ears).await?,
            None => Vec::new(),
        };
        let notice = self.of_digest(of, &told, every);
        self.tell(&subject, before, &after, Some((&notice, to)))
            .await
    }

    /// The runs of real-time changes, the newest first.
    async fn streams(&self, of: &WatchedJob) -> Result<Vec<Run>, Fault> {
        let wanted = RunsWanted {
            connection: Some(of.connection.clone()),
            job: Some(of.job.clone()),
            limit: STREAMS,
        };
        let runs = self.ground.state.runs(wanted).await?.into_iter();
        Ok(runs
            .filter(|run| run.head.cause == RunCause::Stream)
            .collect())
    }

    /// Dead letters that this daemon wrote since it was asked last, beside those of rejected changes: of what waited too
    /// long, which no run counts.
    fn new_letters(&mut self, of: &WatchedJob) -> u64 {
        let picture = self.ground.board.job_picture(&of.connection, &of.job);
        let all = picture.map_or(0, |picture| {
            let rejected = picture.rows.get("rejected").copied().unwrap_or(0);
            picture.dead_letters.saturating_sub(rejected)
        });
        let key = (of.connection.clone(), of.job.clone());
        let before = self.letters.insert(key, all).unwrap_or(0);
        all.saturating_sub(before)
    }

    async fn to_tell(
        &self,
        of: &WatchedJob,
        rejected: u64,
        letters: u64,
    ) -> Result<Option<Told>, Fault> {
        let holes = self.ground.state.holes(Some(&of.connection), false).await?;
        let mut holes: Vec<Hole> = holes;
        holes.retain(|hole| hole.object == of.object);
        let told = Told {
            rejected,
            letters,
            holes,
        };
        let anything = told.rejected > 0 || told.letters > 0 || !told.holes.is_empty();
        Ok(anything.then_some(told))
    }

    fn of_digest(&self, of: &WatchedJob, told: &Told, every: TimeDelta) -> Notice {
        let mut parts = Vec::new();
        if told.rejected > 0 {
            parts.push(format!("{} rejected", told.rejected));
        }
        if told.letters > 0 {
            parts.push(format!("{} other dead letters", told.letters));
        }
        if !told.holes.is_empty() {
            parts.push(format!("{} open holes", told.holes.len()));
        }
        let what = format!("real-time changes: {}", parts.join(", "));
        let id = (&of.connection, &of.job);
        let mut notice = of_job(Event::Digest, "partial_success", id, &what, self.now());
        notice.say(&format!(
            "Since the last digest, at least {} s ago.",
            every.num_seconds()
        ));
        notice.say(&format!("Changes rejected: {}", told.rejected));
        notice.say(&format!(
            "Other dead letters: {} (what waited too long for its parent, and what was written twice)",
            told.letters
        ));
        for hole in &told.holes {
            notice.say(&format!(
                "Open hole: {} of {}, since {}",
                hole.cause.label(),
                hole.object,
                hole.opened_at.format("%Y-%m-%d %H:%M:%S UTC")
            ));
        }
        notice.say(&format!(
            "The records with their reasons: tributary errors --job {}/{}; holes: tributary holes",
            of.connection, of.job
        ));
        notice
    }
}

fn rejected(run: &Run) -> u64 {
    run.done.counts.get("rejected").copied().unwrap_or(0)
}

/// What was rejected since then: of the run that was counted last, what it got more, and all of later ones. Their ids are
/// in the order of their days.
fn since(counted: &Counted, runs: &[Run]) -> u64 {
    let known = counted.run.as_deref().unwrap_or_default();
    let new = runs.iter().map(|run| match run.head.id.as_str() {
        id if id == known => rejected(run).saturating_sub(counted.rejected),
        id if id > known => rejected(run),
        _ => 0,
    });
    new.sum()
}
