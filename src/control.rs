//! Orders: which jobs there are, how each stands, and what it is told; full syncs that are asked for. Jobs and owners of
//! connections read their orders in the state and obey, on every daemon that shares it.

pub mod rematch;
pub mod replay;
pub mod reviews;

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::fault::{Fault, FaultKind};
use crate::flow::board::{Board, JobPicture};
use crate::flow::job::JobRoad;
use crate::model::name::{ConnectionId, FieldName, JobId, ObjectName};
use crate::runtime::clock::Clock;
use crate::state::orders::{Asked, Order, Standing, Wish};
use crate::state::port::State;
use crate::target::port::Target;

/// Gives orders.
pub struct Control {
    state: Arc<dyn State>,
    board: Arc<Board>,
    clock: Arc<dyn Clock>,
    target: Option<Arc<dyn Target>>,
    jobs: Vec<KnownJob>,
    /// Those that this daemon runs.
    roads: Vec<JobRoad>,
}

/// A job of the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownJob {
    /// The connection.
    pub connection: ConnectionId,
    /// The job.
    pub job: JobId,
    /// Its name on pages.
    pub name: String,
    /// The CRM object that it moves.
    pub object: ObjectName,
    /// Whether the config has it run.
    pub enabled: bool,
    /// Label and table of the objects that it fills, in their order.
    pub destinations: Vec<(String, String)>,
}

/// How a job stands.
#[derive(Debug, Clone)]
pub struct JobStanding {
    /// Which job.
    pub known: KnownJob,
    /// What it was told.
    pub order: Order,
    /// What it last said of itself here; `None` where this daemon does not run it.
    pub picture: Option<JobPicture>,
}

/// How an object's full sync stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncStanding {
    /// The object.
    pub object: ObjectName,
    /// What was asked for and is not done.
    pub asked: Option<Asked>,
    /// The records that were asked for are read; the others wait until somebody asks for all.
    pub sampled: bool,
    /// Rows that one in progress has read.
    pub rows: Option<u64>,
    /// How many there are, as far as this daemon knows.
    pub rows_total: Option<u64>,
    /// When the last one was done.
    pub synced_at: Option<DateTime<Utc>>,
}

/// How an object is described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The object.
    pub object: ObjectName,
    /// When the CRM said so; `None` before it was asked.
    pub read_at: Option<DateTime<Utc>>,
    /// Fields that jobs read and that it no longer shows.
    pub lost: Vec<FieldName>,
}

/// Who gives an order, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Who.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Yes to what a brake stopped the job for.
    pub accept: bool,
}

impl Control {
    /// For the jobs of one config. Without a target nothing can be decided.
    #[must_use]
    pub fn new(
        state: Arc<dyn State>,
        board: Arc<Board>,
        clock: Arc<dyn Clock>,
        target: Option<Arc<dyn Target>>,
        jobs: Vec<KnownJob>,
        roads: Vec<JobRoad>,
    ) -> Self {
        Self {
            state,
            board,
            clock,
            target,
            jobs,
            roads,
        }
    }

    fn target(&self) -> Result<&Arc<dyn Target>, Fault> {
        self.target.as_ref().ok_or_else(|| {
            Fault::new(FaultKind::Config, "no store is open to decide in")
                .remedy("start the daemon, and ask it")
        })
    }

    /// Every job of the config, in its order.
    ///
    /// # Errors
    /// A fault of the state.
    pub async fn jobs(&self) -> Result<Vec<JobStanding>, Fault> {
        let all = self.state.all_standing().await?;
        let order = |known: &KnownJob| {
            all.iter()
                .find(|(connection, job, _)| *connection == known.connection && *job == known.job)
                .map(|(.., standing)| standing.order.clone())
                .unwrap_or_default()
        };
        let jobs = self.jobs.iter();
        Ok(jobs
            .map(|known| self.standing(known, order(known)))
            .collect())
    }

    /// Has a job apply nothing until it is told to go on; whether it was not paused before, in which case the earlier
    /// reason stays.
    ///
    /// # Errors
    /// `Missing` for a job that the config has not; a fault of the state.
    pub async fn pause(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        told: Told,
    ) -> Result<(bool, JobStanding), Fault> {
        self.tell(connection, job, true, told).await
    }

    /// Has a job go on; whether it was paused. One that a brake stopped judges again what is in the topic, unless that is
    /// accepted.
    ///
    /// # Errors
    /// As [`Control::pause`]; `Config` for a yes to a job that no brake stopped.
    pub async fn resume(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        told: Told,
    ) -> Result<(bool, JobStanding), Fault> {
        self.tell(connection, job, false, told).await
    }

    /// Asks for full syncs: of one object, or of all that the connection's jobs select; of some records of each only, if
    /// there is a limit.
    ///
    /// # Errors
    /// `Missing` for a connection or an object that no job selects; a fault of the state.
    pub async fn sync(
        &self,
        connection: &ConnectionId,
        object: Option<&ObjectName>,
        by: Option<String>,
        limit: Option<u64>,
    ) -> Result<Vec<SyncStanding>, Fault> {
        let objects = self.objects(connection, object)?;
        for object in &objects {
            let wish = Wish {
                by: by.clone(),
                at: Some(self.clock.now()),
                limit,
            };
            self.state.ask_sync(connection, object, wish).await?;
            tracing::info!(
                %connection, %object, limit, by = by.as_deref().unwrap_or_default(), "full sync asked for"
            );
        }
        self.standings(connection, objects).await
    }

    /// How full syncs of a connection's objects stand.
    ///
    /// # Errors
    /// As [`Control::sync`].
    pub async fn syncs(&self, connection: &ConnectionId) -> Result<Vec<SyncStanding>, Fault> {
        let objects = self.objects(connection, None)?;
        self.standings(connection, objects).await
    }

    /// How the objects of a connection are described, and when somebody last asked to have them described anew.
    ///
    /// # Errors
    /// `Missing` for a connection that no job selects from; a fault of the state.
    pub async fn metadata(
        &self,
        connection: &ConnectionId,
    ) -> Result<(Vec<Described>, Option<DateTime<Utc>>), Fault> {
        let described = self.state.described(connection).await?;
        let read_at = |object: &ObjectName| {
            let found = described.iter().find(|(of, _)| of == object);
            found.map(|(_, read_at)| *read_at)
        };
        let mut all = Vec::new();
        for object in self.objects(connection, None)? {
            let known = self.state.object(connection, &object).await?;
            all.push(Described {
                read_at: read_at(&object),
                lost: known.lost,
                object,
            });
        }
        Ok((all, self.state.refresh_asked(connection).await?))
    }

    /// Has the objects of a connection described anew by whoever owns it.
    ///
    /// # Errors
    /// As [`Control::metadata`].
    pub async fn refresh(
        &self,
        connection: &ConnectionId,
    ) -> Result<(Vec<Described>, Option<DateTime<Utc>>), Fault> {
        self.objects(connection, None)?;
        self.state.ask_refresh(connection, self.clock.now()).await?;
        tracing::info!(%connection, "descriptions are to be read anew");
        self.metadata(connection).await
    }

    async fn standings(
        &self,
        connection: &ConnectionId,
        objects: BTreeSet<ObjectName>,
    ) -> Result<Vec<SyncStanding>, Fault> {
        let asked = self.state.asked_syncs(connection).await?;
        let picture = self.board.picture();
        let shown = picture.connections.get(connection);
        let mut standings = Vec::new();
        for object in objects {
            let known = self.state.object(connection, &object).await?;
            let asked = asked.iter().find(|(of, _)| *of == object);
            let entry = shown.and_then(|shown| shown.objects.get(&object));
            standings.push(SyncStanding {
                sampled: known.sampled.is_some()
                    && known.sampled == asked.map(|(_, asked)| asked.number),
                asked: asked.map(|(_, asked)| asked.clone()),
                rows: known.snapshot.map(|snapshot| snapshot.rows),
                rows_total: entry.and_then(|entry| entry.rows_total),
                synced_at: known.synced_at,
                object,
            });
        }
        Ok(standings)
    }

    /// The objects that enabled jobs of a connection select, or one of them.
    fn objects(
        &self,
        connection: &ConnectionId,
        object: Option<&ObjectName>,
    ) -> Result<BTreeSet<ObjectName>, Fault> {
        let jobs = self.jobs.iter();
        let mine = jobs.filter(|known| known.enabled && known.connection == *connection);
        let all: BTreeSet<ObjectName> = mine.map(|known| known.object.clone()).collect();
        let missing =
            |what: String, remedy: String| Err(Fault::new(FaultKind::Missing, what).remedy(remedy));
        if all.is_empty() {
            let what = format!("no enabled job of a connection {connection}");
            return missing(what, "`tributary jobs` prints those there are".to_owned());
        }
        match object {
            None => Ok(all),
            Some(object) if all.contains(object) => Ok([object.clone()].into()),
            Some(object) => {
                let names: Vec<&str> = all.iter().map(ObjectName::as_str).collect();
                let what = format!("no enabled job of {connection} selects {object}");
                missing(what, format!("name one of: {}", names.join(", ")))
            }
        }
    }

    async fn tell(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        paused: bool,
        told: Told,
    ) -> Result<(bool, JobStanding), Fault> {
        let known = self.known(connection, job)?;
        loop {
            let Standing { revision, order } = self.state.standing(connection, job).await?;
            if told.accept && order.braked.is_none() {
                let what = format!("no brake stopped job {connection}/{job}");
                let fault = Fault::new(FaultKind::Config, what);
                return Err(fault.remedy("have it go on without `--accept`"));
            }
            if order.paused == paused {
                return Ok((false, self.standing(known, order)));
            }
            let yes = order.braked.filter(|_| told.accept);
            let order = Order {
                paused,
                reason: told.reason.clone(),
                by: told.by.clone(),
                since: Some(self.clock.now()),
                braked: None,
                accepted: yes.or(order.accepted),
                replay: order.replay,
            };
            let given = self.state.give(connection, job, revision, order.clone());
            // Whoever was quicker may have said the same.
            if given.await? {
                tracing::info!(
                    %connection, %job, paused, by = told.by.as_deref().unwrap_or_default(),
                    reason = told.reason.as_deref().unwrap_or_default(), "order given to job"
                );
                return Ok((true, self.standing(known, order)));
            }
        }
    }

    fn known(&self, connection: &ConnectionId, job: &JobId) -> Result<&KnownJob, Fault> {
        let mut jobs = self.jobs.iter();
        let found = jobs.find(|known| known.connection == *connection && known.job == *job);
        found.ok_or_else(|| {
            let names = self.jobs.iter().map(|known| {
                let (connection, job) = (&known.connection, &known.job);
                format!("{connection}/{job}")
            });
            let names: Vec<String> = names.collect();
            Fault::new(FaultKind::Missing, format!("no job {connection}/{job}"))
                .remedy(format!("name one of: {}", names.join(", ")))
        })
    }

    fn standing(&self, known: &KnownJob, order: Order) -> JobStanding {
        JobStanding {
            known: known.clone(),
            order,
            picture: self.board.job_picture(&known.connection, &known.job),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::runtime::clock::ManualClock;
    use crate::state::memory::MemoryState;
    use crate::state::orders::{Orders, Seen};
    use crate::target::memory::MemoryTarget;

    fn control(state: &Arc<MemoryState>) -> Control {
        let known = |job: &str| KnownJob {
            connection: "acme".into(),
            job: job.into(),
            name: job.to_owned(),
            object: "Account".into(),
            enabled: true,
            destinations: Vec::new(),
        };
        let clock = ManualClock::new(DateTime::UNIX_EPOCH);
        Control::new(
            Arc::clone(state) as _,
            Arc::default(),
            Arc::new(clock),
            Some(Arc::new(MemoryTarget::new())),
            vec![known("one"), known("two")],
            Vec::new(),
        )
    }

    fn told(reason: &str) -> Told {
        Told {
            by: Some("anna".to_owned()),
            reason: Some(reason.to_owned()),
            accept: false,
        }
    }

    #[tokio::test]
    async fn an_order_given_twice_changes_nothing() {
        let state = Arc::new(MemoryState::default());
        let control = control(&state);
        let (acme, one) = (ConnectionId::new("acme"), JobId::new("one"));
        let (changed, _) = control.resume(&acme, &one, told("runs")).await.unwrap();
        assert!(!changed, "it runs already");
        let (changed, first) = control.pause(&acme, &one, told("first")).await.unwrap();
        assert!(changed && first.order.paused);
        let (changed, again) = control.pause(&acme, &one, told("second")).await.unwrap();
        assert!(!changed);
        assert_eq!(again.order, first.order, "the earlier reason stays");
        assert_eq!(state.standing(&acme, &one).await.unwrap().revision, 1);
        let jobs = control.jobs().await.unwrap();
        let paused: Vec<bool> = jobs.iter().map(|job| job.order.paused).collect();
        assert_eq!(paused, [true, false]);
        let (changed, _) = control.resume(&acme, &one, told("go")).await.unwrap();
        assert!(changed);
        let standing = state.standing(&acme, &one).await.unwrap();
        assert_eq!((standing.revision, standing.order.paused), (2, false));
        assert_eq!(standing.order.since, Some(DateTime::UNIX_EPOCH));
    }

    #[tokio::test]
    async fn a_yes_is_for_what_a_brake_saw_and_stays_with_later_orders() {
        let state = Arc::new(MemoryState::default());
        let control = control(&state);
        let (acme, one) = (ConnectionId::new("acme"), JobId::new("one"));
        let yes = || Told {
            accept: true,
            ..told("right so")
        };
        control.pause(&acme, &one, told("by hand")).await.unwrap();
        let fault = control.resume(&acme, &one, yes()).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Config);
        assert!(state.standing(&acme, &one).await.unwrap().order.paused);
        let seen = Seen {
            generation: "g".to_owned(),
            ends: [(3, 9)].into(),
            ..Seen::default()
        };
        let braked = Order {
            paused: true,
            braked: Some(seen.clone()),
            ..Order::default()
        };
        assert!(state.give(&acme, &one, 1, braked).await.unwrap());
        let (_, standing) = control.resume(&acme, &one, yes()).await.unwrap();
        assert_eq!(standing.order.accepted, Some(seen.clone()));
        assert_eq!(standing.order.braked, None);
        for _ in 0..2 {
            control.pause(&acme, &one, told("again")).await.unwrap();
            let (_, standing) = control.resume(&acme, &one, told("go")).await.unwrap();
            assert_eq!(standing.order.accepted, Some(seen.clone()));
        }
    }

    #[tokio::test]
    async fn a_sync_is_asked_for_what_jobs_select() {
        let state = Arc::new(MemoryState::default());
        let control = control(&state);
        let acme = ConnectionId::new("acme");
        let asked = control
            .sync(&acme, None, Some("anna".to_owned()), None)
            .await;
        let asked = asked.unwrap();
        assert_eq!(asked.len(), 1, "two jobs, one object");
        assert_eq!(asked[0].object.as_str(), "Account");
        assert_eq!(asked[0].asked.as_ref().unwrap().number, 1);
        assert_eq!(control.syncs(&acme).await.unwrap(), asked);
        for (connection, object) in [("acme", "Case"), ("nobody", "Account")] {
            let object = ObjectName::new(object);
            let asked = control
                .sync(&connection.into(), Some(&object), None, None)
                .await;
            assert_eq!(asked.unwrap_err().kind(), FaultKind::Missing);
        }
        assert_eq!(state.asked_syncs(&acme).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn descriptions_are_shown_and_asked_for_anew() {
        let state = Arc::new(MemoryState::default());
        let control = control(&state);
        let acme = ConnectionId::new("acme");
        let (objects, asked) = control.metadata(&acme).await.unwrap();
        assert_eq!((objects.len(), asked), (1, None), "two jobs, one object");
        assert_eq!(objects[0].read_at, None);
        let (objects, asked) = control.refresh(&acme).await.unwrap();
        assert_eq!(objects[0].object.as_str(), "Account");
        assert_eq!(asked, Some(DateTime::UNIX_EPOCH));
        let nobody = control.refresh(&"nobody".into()).await;
        assert_eq!(nobody.unwrap_err().kind(), FaultKind::Missing);
    }

    #[tokio::test]
    async fn a_job_that_is_not_there_is_named_with_those_that_are() {
        let state = Arc::new(MemoryState::default());
        let three = control(&state)
            .pause(&"acme".into(), &"three".into(), Told::default())
            .await;
        let fault = three.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Missing);
        let remedy = fault.remedy_text().unwrap();
        assert!(remedy.contains("acme/one, acme/two"), "{remedy}");
        assert!(state.all_standing().await.unwrap().is_empty());
    }
}
