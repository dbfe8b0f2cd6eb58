//! Full syncs and replays that ended: told once, with their counts and where the rejected records are.

use chrono::TimeDelta;

use super::{Watch, of_job};
use crate::fault::Fault;
use crate::notify::notice::{Event, Notice};
use crate::state::runs::{Run, RunCause, RunState, RunsWanted};

/// How many of a job's newest runs are looked at.
const NEWEST: usize = 16;
/// What ended longer ago is no news.
const NEWS: TimeDelta = TimeDelta::days(1);
const TOLD: &str = "told";

impl Watch {
    /// Tells the runs of every job that ended and are not told.
    pub(super) async fn look_at_runs(&mut self) -> Result<(), Fault> {
        let now = self.now();
        for of in self.ground.jobs.clone() {
            let wanted = RunsWanted {
                connection: Some(of.connection.clone()),
                job: Some(of.job.clone()),
                limit: NEWEST,
            };
            let runs = self.ground.state.runs(wanted).await?;
            let is_news = |run: &Run| {
                let ended = run.ended(now).filter(|ended| now - *ended < NEWS);
                run.head.cause != RunCause::Stream && ended.is_some()
            };
            let mut subjects = Vec::new();
            // The first that ended is told first.
            for run in runs.iter().rev().filter(|run| is_news(run)) {
                let subject = format!("run {}/{} {}", of.connection, of.job, run.head.id);
                if self.mark(&subject).await?.is_none() {
                    self.tell_run(&subject, run).await?;
                }
                subjects.push(subject);
            }
            let prefix = format!("run {}/{} ", of.connection, of.job);
            self.known
                .retain(|subject, _| !subject.starts_with(&prefix) || subjects.contains(subject));
        }
        Ok(())
    }

    async fn tell_run(&mut self, subject: &str, run: &Run) -> Result<(), Fault> {
        let told = self.ground.audience.of_job(&run.connection, &run.job);
        let Some(told) = told.cloned() else {
            return Ok(());
        };
        let ears = match run.state(self.now()) {
            RunState::Running => return Ok(()),
            RunState::Success => told.success,
            RunState::PartialSuccess => told.failure,
        };
        let to = self.addresses(&run.connection, &ears).await?;
        let notice = self.of_run(run);
        self.tell(subject, None, TOLD, Some((&notice, to))).await
    }

    fn of_run(&self, run: &Run) -> Notice {
        let (now, head) = (self.now(), &run.head);
        let count = |outcome: &str| run.done.counts.get(outcome).copied().unwrap_or(0);
        let is_replay = head.cause == RunCause::Replay;
        let ended = if is_replay {
            "replay ended"
        } else {
            "full sync ended"
        };
        let (outcome, what) = match run.state(now) {
            RunState::PartialSuccess => {
                let what = format!("{ended}, {} rejected", count("rejected"));
                ("partial_success", what)
            }
            _ => ("success", ended.to_owned()),
        };
        let id = (&run.connection, &run.job);
        let mut notice = of_job(Event::RunEnded, outcome, id, &what, now);
        notice.say(&format!("Run: {} ({})", head.id, head.cause.label()));
        let ended = run.ended(now).unwrap_or(now);
        let seconds = (ended - head.began).num_seconds();
        notice.say(&format!(
            "Began {}, ended {} ({seconds} s)",
            head.began.format("%Y-%m-%d %H:%M:%S UTC"),
            ended.format("%Y-%m-%d %H:%M:%S UTC")
        ));
        if !is_replay {
            notice.say(&format!("Rows read from the CRM: {}", head.rows));
        }
        for (outcome, count) in &run.done.counts {
            notice.say(&format!("{outcome}: {count}"));
        }
        if run.done.counts.is_empty() {
            notice.say("Nothing differed.");
        }
        if count("rejected") > 0 {
            notice.say(&format!(
                "The rejected records with their reasons: tributary errors --job {}/{} --run {} --csv FILE",
                run.connection, run.job, head.id
            ));
        }
        notice
    }
}
