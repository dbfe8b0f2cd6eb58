//! Replays into the live tables: asked for, and stopped.

use crate::fault::{Fault, FaultKind};
use crate::model::name::{ConnectionId, JobId};
use crate::state::orders::{Order, Replay, ReplayStage, Since, Standing};
use crate::state::runs::{RunHead, RunPart};

use super::{Control, JobStanding, KnownJob};

/// Who notes runs that are ended by an order.
const WRITER: &str = "order";

impl Control {
    /// Has a job read its topic again into the live tables.
    ///
    /// # Errors
    /// `Missing` for a job that the config has not; `Config` for one that is not enabled or paused, one that replays already,
    /// and one whose topic does not tell every record yet, if all of it is to be read; a fault of the state.
    pub async fn replay(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        since: Since,
        by: Option<String>,
    ) -> Result<JobStanding, Fault> {
        let known = self.known(connection, job)?;
        let replay = Replay::new(since, by, self.clock.now());
        loop {
            let Standing { revision, order } = self.state.standing(connection, job).await?;
            refuse(known, &order)?;
            if replay.sweeps() {
                let object = self.state.object(connection, &known.object).await?;
                if object.synced_at.is_none() {
                    let what = format!("the first full sync of {} is not done", known.object);
                    return Err(Fault::new(FaultKind::Config, what).remedy(
                        "replay once it is: what was not read yet would be taken for deleted",
                    ));
                }
            }
            let order = Order {
                replay: Some(replay.clone()),
                ..order
            };
            let given = self.state.give(connection, job, revision, order.clone());
            if given.await? {
                tracing::info!(
                    %connection, %job, replay = replay.id, by = replay.by.as_deref().unwrap_or_default(),
                    "replay into the live tables asked for"
                );
                return Ok(self.standing(known, order));
            }
        }
    }

    /// Ends a replay that is under way: what it has applied is right and stays, nothing leaves any more. Whether there was
    /// one.
    ///
    /// # Errors
    /// `Missing` for a job that the config has not; a fault of the state.
    pub async fn stop_replay(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        by: Option<String>,
    ) -> Result<(bool, JobStanding), Fault> {
        let known = self.known(connection, job)?;
        loop {
            let Standing {
                revision,
                mut order,
            } = self.state.standing(connection, job).await?;
            let under_way = order.replay.as_mut();
            let Some(replay) = under_way.filter(|replay| replay.is_under_way()) else {
                return Ok((false, self.standing(known, order)));
            };
            let (at, by) = (
                self.clock.now(),
                by.as_deref().map(|by| format!(" by {by}")),
            );
            replay.stage = ReplayStage::Failed {
                at,
                reason: format!("stopped{}", by.unwrap_or_default()),
            };
            let run = RunHead::replay(replay.id.clone(), replay.by.clone(), replay.at).ended(at);
            let given = self.state.give(connection, job, revision, order.clone());
            if given.await? {
                // A job that is paused notes nothing.
                let nothing = RunPart::default();
                let noted = self.state.note_run(connection, job, run, WRITER, nothing);
                noted.await?;
                return Ok((true, self.standing(known, order)));
            }
        }
    }
}

fn refuse(known: &KnownJob, order: &Order) -> Result<(), Fault> {
    let (connection, job) = (&known.connection, &known.job);
    let refused = |what: &str, remedy: String| {
        let what = format!("job {connection}/{job} {what}");
        Err(Fault::new(FaultKind::Config, what).remedy(remedy))
    };
    if !known.enabled {
        return refused("is not enabled", "set `enabled = true`".to_owned());
    }
    if order.paused {
        let remedy = format!("let it go on first: tributary job resume {connection}/{job}");
        return refused("is paused", remedy);
    }
    if order.replay.as_ref().is_some_and(Replay::is_under_way) {
        let remedy =
            format!("wait for its end, or end it: tributary job replay {connection}/{job} --stop");
        return refused("replays already", remedy);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use chrono::DateTime;

    use super::*;
    use crate::control::Told;
    use crate::model::name::ObjectName;
    use crate::runtime::clock::ManualClock;
    use crate::state::memory::MemoryState;
    use crate::state::orders::Orders;
    use crate::state::port::{ObjectState, State};
    use crate::state::runs::{Runs, RunsWanted};

    fn control(state: &Arc<MemoryState>, enabled: bool) -> Control {
        let known = KnownJob {
            connection: "acme".into(),
            job: "one".into(),
            name: "One".to_owned(),
            object: "Account".into(),
            enabled,
            destinations: Vec::new(),
        };
        let clock = ManualClock::new(DateTime::UNIX_EPOCH);
        Control::new(
            Arc::clone(state) as _,
            Arc::default(),
            Arc::new(clock),
            None,
            vec![known],
            Vec::new(),
        )
    }

    async fn synced(state: &MemoryState) {
        let (acme, now) = (ConnectionId::new("acme"), DateTime::UNIX_EPOCH);
        let term = state.acquire(&acme, "one", now, Duration::from_secs(9));
        let term = term.await.unwrap().unwrap();
        let known = ObjectState {
            synced_at: Some(now),
            ..ObjectState::default()
        };
        let object = ObjectName::new("Account");
        state.put_object(&acme, term, &object, known).await.unwrap();
    }

    #[tokio::test]
    async fn a_replay_is_asked_for_once_and_stopped_with_its_run() {
        let state = Arc::new(MemoryState::default());
        let control_ = control(&state, true);
        let (acme, one) = (ConnectionId::new("acme"), JobId::new("one"));
        let ask = async || {
            let asked = control_.replay(&acme, &one, Since::Start, Some("anna".to_owned()));
            asked.await
        };
        let refused = ask().await.unwrap_err().report();
        assert!(refused.contains("first full sync"), "{refused}");
        synced(&state).await;
        let asked = ask().await.unwrap().order.replay.unwrap();
        assert_eq!(asked.stage, ReplayStage::Asked);
        let refused = ask().await.unwrap_err().report();
        assert!(refused.contains("replays already"), "{refused}");
        // A pause leaves it as it is, and so does going on.
        control_.pause(&acme, &one, Told::default()).await.unwrap();
        control_.resume(&acme, &one, Told::default()).await.unwrap();
        let standing = state.standing(&acme, &one).await.unwrap();
        assert_eq!(standing.order.replay.as_ref(), Some(&asked));
        let stop = async || {
            let by = Some("bert".to_owned());
            control_.stop_replay(&acme, &one, by).await.unwrap()
        };
        let (changed, standing) = stop().await;
        let stage = standing.order.replay.unwrap().stage;
        let ReplayStage::Failed { reason, .. } = &stage else {
            panic!("{stage:?}")
        };
        assert!(changed && reason == "stopped by bert", "{reason}");
        assert!(!stop().await.0);
        let wanted = RunsWanted {
            limit: 9,
            ..RunsWanted::default()
        };
        let runs = state.runs(wanted).await.unwrap();
        assert_eq!(runs[0].head.id, asked.id);
        assert!(runs[0].head.is_closed());
        ask().await.unwrap();
    }

    #[tokio::test]
    async fn a_job_that_does_not_run_is_not_replayed() {
        let state = Arc::new(MemoryState::default());
        synced(&state).await;
        let (acme, one) = (ConnectionId::new("acme"), JobId::new("one"));
        let off = control(&state, false);
        let refused = off.replay(&acme, &one, Since::Start, None).await;
        assert!(refused.unwrap_err().report().contains("not enabled"));
        let on = control(&state, true);
        on.pause(&acme, &one, Told::default()).await.unwrap();
        let refused = on.replay(&acme, &one, Since::Offset(3), None).await;
        assert!(refused.unwrap_err().report().contains("paused"));
        let missing = on.replay(&acme, &"two".into(), Since::Start, None).await;
        assert_eq!(missing.unwrap_err().kind(), FaultKind::Missing);
    }
}
