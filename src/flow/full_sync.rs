//! A full sync: every record of an object through ingest, page by page, resumable, flat in memory.

use std::collections::BTreeMap;

use chrono::{DateTime, SubsecRound, Utc};
use tokio::sync::{mpsc, oneshot};

use crate::crm::port::Pages;
use crate::fault::{Fault, FaultKind};
use crate::image::merge::{Image, Life};
use crate::model::change::Origin;
use crate::model::event::{Page, Row};
use crate::model::name::ObjectName;
use crate::model::record_id::RecordId;
use crate::state::port::{Evidence, ObjectState, SnapshotProgress};
use crate::state::runs::{RunCause, RunHead};

use super::gate::Gate;
use super::ingest::{Input, Read, ReadOutcome};
use super::road::{ObjectRoad, Road};

const SCAN: usize = 2000;

/// The way into ingest.
#[derive(Clone)]
pub struct Inlet(pub mpsc::Sender<Input>);

impl Inlet {
    /// Hands a read over and waits until it is durable.
    ///
    /// # Errors
    /// `Stopping` once ingest has ended.
    pub async fn read(&self, read: ReadInput<'_>) -> Result<ReadOutcome, Fault> {
        self.pass(|done| {
            Input::Read(Read {
                object: read.object.key.object.clone(),
                rows: read.rows,
                absent: read.absent,
                as_of: read.as_of,
                by_id: read.by_id,
                origin: read.origin,
                done,
            })
        })
        .await
    }

    /// Has images published again and waits until that is durable.
    ///
    /// # Errors
    /// `Stopping` once ingest has ended.
    pub async fn republish(
        &self,
        records: Vec<(ObjectName, RecordId)>,
    ) -> Result<ReadOutcome, Fault> {
        self.pass(|done| Input::Republish { records, done }).await
    }

    async fn pass(
        &self,
        input: impl FnOnce(oneshot::Sender<ReadOutcome>) -> Input,
    ) -> Result<ReadOutcome, Fault> {
        let (done, answer) = oneshot::channel();
        self.0.send(input(done)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())
    }
}

/// A read on its way into ingest.
pub struct ReadInput<'a> {
    /// The object.
    pub object: &'a ObjectRoad,
    /// Rows found.
    pub rows: Vec<Row>,
    /// Ids not found by a read by id.
    pub absent: Vec<RecordId>,
    /// A.
    pub as_of: DateTime<Utc>,
    /// Whether the records were asked for by id.
    pub by_id: bool,
    /// What the changes are published as.
    pub origin: Origin,
}

fn ended() -> Fault {
    Fault::new(FaultKind::Stopping, "ingest has ended")
}

/// A full sync of one object under one term.
pub struct FullSync<'a> {
    /// The road.
    pub road: &'a Road,
    /// The owner's term.
    pub term: u64,
    /// The object.
    pub object: &'a ObjectRoad,
    /// The way into ingest.
    pub inlet: &'a Inlet,
    /// Closed while the read is sent.
    pub gate: &'a Gate,
    /// Why it is.
    pub why: Why,
}

/// Why a full sync is.
#[derive(Debug, Clone)]
pub struct Why {
    /// The cause.
    pub cause: RunCause,
    /// Who asked for it.
    pub by: Option<String>,
    /// Pages as of this or earlier are worth nothing: a sync that they began is begun anew.
    pub later_than: Option<DateTime<Utc>>,
}

impl From<RunCause> for Why {
    fn from(cause: RunCause) -> Self {
        Self {
            cause,
            by: None,
            later_than: None,
        }
    }
}

impl Why {
    /// What the changes are published as.
    const fn origin(&self) -> Origin {
        match self.cause {
            RunCause::Repair => Origin::Reconcile,
            _ => Origin::Snapshot,
        }
    }
}

impl FullSync<'_> {
    /// Reads every record of the object that is not read yet, storing where to go on after each page; then reads
    /// by id what images hold and the read did not meet. Returns what closes a hole.
    ///
    /// # Errors
    /// A fault of the CRM, the state or ingest; a later call goes on where this one stopped.
    pub async fn run(&self) -> Result<Evidence, Fault> {
        let (connection, name) = (&self.road.connection, &self.object.key.object);
        let mut state = self.road.state.object(connection, name).await?;
        let mut run = self.begin_run(&mut state).await?;
        let closed = self.gate.close(name).await;
        let opened = self.open(state.snapshot.take()).await;
        drop(closed);
        let (mut progress, mut pages, mut next) = opened?;
        let resumed = progress.resume.is_some();
        while let Some(page) = next {
            if !resumed {
                check_total(self.object, &page, progress.rows)?;
            }
            if self.take(page, &mut progress).await? > 0 {
                return self.uncovered(state).await;
            }
            state.snapshot = Some(progress.clone());
            self.store(&state).await?;
            next = pages.next().await?;
        }
        let as_of = match progress.as_of {
            Some(as_of) => as_of,
            None => self.road.crm.clock().await?,
        };
        let deleted = self.find_deleted(as_of).await?;
        run.rows = progress.rows;
        run.ends = Some(self.ends().await?);
        run.ended = Some(self.road.clock.now());
        state.run = Some(run);
        state.snapshot = None;
        state.synced_at = Some(self.road.clock.now());
        state.fields.clone_from(&self.object.selection.fields);
        self.store(&state).await?;
        self.road.board.object(connection, name, |entry| {
            entry.synced_at = state.synced_at;
        });
        Ok(Evidence {
            as_of,
            rows: progress.rows,
            deleted,
        })
    }

    /// Reads so many records of the object and leaves it at that: nothing is taken for deleted, nothing is stored to go
    /// on from. Returns how many there were.
    ///
    /// # Errors
    /// A fault of the CRM or ingest; `Unavailable` if what was read was not believed.
    pub async fn sample(&self, limit: u64) -> Result<u64, Fault> {
        let mut pages = self.road.crm.read_some(&self.object.selection).await?;
        let mut read = 0;
        while read < limit
            && let Some(mut page) = pages.next().await?
        {
            let left = usize::try_from(limit - read).unwrap_or(usize::MAX);
            page.rows.truncate(left);
            read += page.rows.len() as u64;
            let outcome = self
                .inlet
                .read(ReadInput {
                    object: self.object,
                    rows: page.rows,
                    absent: Vec::new(),
                    as_of: page.as_of,
                    by_id: false,
                    origin: self.why.origin(),
                })
                .await?;
            if outcome.again > 0 {
                let what = format!(
                    "a read of {} began before its stream was covered",
                    self.object.key
                );
                return Err(Fault::new(FaultKind::Unavailable, what));
            }
        }
        Ok(read)
    }

    /// Notes that a run begins, before anything of it is published: jobs know by it what counts for the run. A sync
    /// that goes on is the run that it was.
    async fn begin_run(&self, state: &mut ObjectState) -> Result<RunHead, Fault> {
        let (from, now) = (self.ends().await?, self.road.clock.now());
        if let Some(run) = state.run.as_ref().filter(|run| run.goes_on(&from)) {
            return Ok(run.clone());
        }
        let run = RunHead::sync(self.why.cause, self.why.by.clone(), from, now);
        state.run = Some(run.clone());
        self.store(state).await?;
        Ok(run)
    }

    /// Where the topic's partitions end.
    async fn ends(&self) -> Result<BTreeMap<u32, u64>, Fault> {
        let bounds = self.road.log.bounds(&self.object.topic).await?;
        let ends = bounds.into_iter();
        Ok(ends
            .map(|(partition, bounds)| (partition, bounds.end))
            .collect())
    }

    /// Begins, up to the first page.
    async fn open(
        &self,
        stopped: Option<SnapshotProgress>,
    ) -> Result<(SnapshotProgress, Box<dyn Pages>, Option<Page>), Fault> {
        let (progress, mut pages) = self.begin(stopped).await?;
        let first = pages.next().await?;
        Ok((progress, pages, first))
    }

    /// Goes on where an earlier sync stopped, if its pages are worth it; else begins anew.
    async fn begin(
        &self,
        stopped: Option<SnapshotProgress>,
    ) -> Result<(SnapshotProgress, Box<dyn Pages>), Fault> {
        let (crm, selection) = (&self.road.crm, &self.object.selection);
        if let Some(progress) = stopped.filter(|progress| self.is_worth(progress)) {
            match crm.read_all(selection, progress.resume.as_deref()).await {
                Ok(pages) => return Ok((progress, pages)),
                Err(fault) if fault.kind() == FaultKind::PositionLost => {
                    tracing::warn!(
                        object = %self.object.key, error = %fault,
                        "the full sync can't go on where it stopped: beginning anew"
                    );
                }
                Err(fault) => return Err(fault),
            }
        }
        let progress = SnapshotProgress {
            resume: None,
            fields: selection.fields.clone(),
            as_of: None,
            rows: 0,
            started_at: self.road.clock.now(),
        };
        Ok((progress, crm.read_all(selection, None).await?))
    }

    /// Pages of other fields lack some; pages that are too old prove nothing.
    fn is_worth(&self, progress: &SnapshotProgress) -> bool {
        let late = progress
            .as_of
            .is_some_and(|as_of| self.why.later_than.is_none_or(|late| as_of > late));
        progress.resume.is_some() && progress.fields == self.object.selection.fields && late
    }

    /// The read is true of a time that the stream does not reach back to, and stays so however often it is resumed.
    async fn uncovered(&self, mut state: ObjectState) -> Result<Evidence, Fault> {
        state.snapshot = None;
        self.store(&state).await?;
        Err(Fault::new(
            FaultKind::Unavailable,
            format!(
                "full sync of {} began before its stream was covered",
                self.object.key
            ),
        ))
    }

    /// Hands a page over; returns how many of its rows were not believed.
    async fn take(&self, page: Page, progress: &mut SnapshotProgress) -> Result<u64, Fault> {
        let earliest = progress
            .as_of
            .map_or(page.as_of, |as_of| as_of.min(page.as_of));
        progress.as_of = Some(earliest);
        progress.rows += page.rows.len() as u64;
        progress.resume = page.resume;
        let outcome = self
            .inlet
            .read(ReadInput {
                object: self.object,
                rows: page.rows,
                absent: Vec::new(),
                as_of: page.as_of,
                by_id: false,
                origin: self.why.origin(),
            })
            .await?;
        if outcome.again > 0 {
            return Ok(outcome.again);
        }
        let (rows, total) = (progress.rows, page.total);
        let (connection, name) = (&self.road.connection, &self.object.key.object);
        self.road.board.object(connection, name, |entry| {
            entry.rows_read = rows;
            entry.rows_total = total.or(entry.rows_total);
        });
        Ok(0)
    }

    async fn store(&self, state: &ObjectState) -> Result<(), Fault> {
        let (connection, name) = (&self.road.connection, &self.object.key.object);
        self.road
            .state
            .put_object(connection, self.term, name, state.clone())
            .await
    }

    /// "Not seen in a full sync" is a hint for a delete; a read by id decides. An image whose base is that of the
    /// sync's first page or later was met by it. A record that only events told of is not older than the sync
    /// either, but may lack what they were not asked for.
    async fn find_deleted(&self, as_of: DateTime<Utc>) -> Result<u64, Fault> {
        // Tables cut A to whole seconds.
        let as_of = as_of.trunc_subsecs(0);
        let mut after: Option<RecordId> = None;
        let mut deleted = 0;
        loop {
            let images = self.road.images.scan(&self.object.key, after.take(), SCAN);
            let images = images.await?;
            let Some((last, _)) = images.last() else {
                break;
            };
            after = Some(last.clone());
            let unseen: Vec<RecordId> = images
                .into_iter()
                .filter(|(_, image)| image.life == Life::Live)
                .filter(|(_, image)| {
                    is_unseen(image, as_of) || !self.object.is_whole(&image.fields)
                })
                .map(|(record, _)| record)
                .collect();
            if unseen.is_empty() {
                continue;
            }
            self.gate.passed(&self.object.key.object).await;
            let found = self
                .road
                .crm
                .read_ids(&self.object.selection, &unseen)
                .await?;
            // Whose answer is not believed owes another read from here on.
            let outcome = self
                .inlet
                .read(ReadInput {
                    object: self.object,
                    rows: found.rows,
                    absent: found.absent,
                    as_of: found.as_of,
                    by_id: true,
                    origin: Origin::Reconcile,
                })
                .await?;
            deleted += outcome.deleted;
        }
        Ok(deleted)
    }
}

fn is_unseen(image: &Image, as_of: DateTime<Utc>) -> bool {
    image.base.is_none_or(|base| base < as_of)
        && image.newest_event().is_none_or(|event| event < as_of)
}

/// A read that ends short of the CRM's own count is no complete read.
fn check_total(object: &ObjectRoad, page: &Page, before: u64) -> Result<(), Fault> {
    let seen = before + page.rows.len() as u64;
    match page.total {
        Some(total) if page.resume.is_none() && seen < total => Err(Fault::new(
            FaultKind::Protocol,
            format!("full sync of {} read {seen} of {total} records", object.key),
        )),
        _ => Ok(()),
    }
}
