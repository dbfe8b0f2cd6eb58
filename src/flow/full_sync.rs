//! A full sync: every record of an object through ingest, page by page, resumable, flat in memory.

use chrono::{DateTime, SubsecRound, Utc};
use tokio::sync::{mpsc, oneshot};

use crate::fault::{Fault, FaultKind};
use crate::model::change::Origin;
use crate::model::event::Page;
use crate::model::record_id::RecordId;
use crate::state::port::{Evidence, SnapshotProgress};

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
        let (done, answer) = oneshot::channel();
        let input = Input::Read(Read {
            object: read.object.key.object.clone(),
            rows: read.rows,
            absent: read.absent,
            as_of: read.as_of,
            origin: read.origin,
            republish: read.republish,
            done,
        });
        self.0.send(input).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())
    }
}

/// A read on its way into ingest.
pub struct ReadInput<'a> {
    /// The object.
    pub object: &'a ObjectRoad,
    /// Rows found.
    pub rows: Vec<crate::model::event::Row>,
    /// Ids not found by a read by id.
    pub absent: Vec<RecordId>,
    /// A.
    pub as_of: DateTime<Utc>,
    /// What the changes are published as.
    pub origin: Origin,
    /// Published even if nothing differs.
    pub republish: bool,
}

fn ended() -> Fault {
    Fault::new(FaultKind::Stopping, "ingest has ended")
}

/// Reads every record of an object that is not read yet, storing where to go on after each page; then reads
/// by id what images hold and the read did not meet. Returns what closes a hole.
///
/// # Errors
/// A fault of the CRM, the state or ingest; a later call goes on where this one stopped.
pub async fn full_sync(
    road: &Road,
    term: u64,
    object: &ObjectRoad,
    inlet: &Inlet,
    origin: Origin,
) -> Result<Evidence, Fault> {
    let (connection, name) = (&road.connection, &object.key.object);
    let mut state = road.state.object(connection, name).await?;
    let started = state.snapshot.clone().unwrap_or_else(|| SnapshotProgress {
        resume: None,
        rows: 0,
        started_at: road.clock.now(),
    });
    let resumed = started.resume.is_some();
    let mut rows = started.rows;
    let mut deleted = 0;
    let mut pages = road
        .crm
        .read_all(&object.selection, started.resume.as_deref())
        .await?;
    let mut as_of: Option<DateTime<Utc>> = None;
    while let Some(page) = pages.next().await? {
        as_of = Some(as_of.map_or(page.as_of, |first| first.min(page.as_of)));
        let resume = page.resume.clone();
        if !resumed {
            check_total(object, &page, resume.is_none(), rows)?;
        }
        rows += page.rows.len() as u64;
        let total = page.total;
        let outcome = inlet
            .read(ReadInput {
                object,
                rows: page.rows,
                absent: Vec::new(),
                as_of: page.as_of,
                origin,
                republish: false,
            })
            .await?;
        if !outcome.again.is_empty() {
            return Err(Fault::new(
                FaultKind::Unavailable,
                format!(
                    "full sync of {} began before its stream was covered",
                    object.key
                ),
            ));
        }
        state.snapshot = Some(SnapshotProgress {
            resume,
            rows,
            ..started.clone()
        });
        road.state
            .put_object(connection, term, name, state.clone())
            .await?;
        road.board.object(connection, name, |entry| {
            entry.rows_read = rows;
            entry.rows_total = total.or(entry.rows_total);
        });
    }
    let as_of = match as_of {
        Some(as_of) => as_of,
        None => road.crm.clock().await?,
    };
    deleted += find_deleted(road, object, inlet, as_of, resumed).await?;
    state.snapshot = None;
    state.synced_at = Some(road.clock.now());
    state.fields.clone_from(&object.selection.fields);
    road.state
        .put_object(connection, term, name, state.clone())
        .await?;
    road.board
        .object(connection, name, |entry| entry.synced_at = state.synced_at);
    Ok(Evidence {
        as_of,
        rows,
        deleted,
    })
}

/// A read that ends short of the CRM's own count is no complete read.
fn check_total(object: &ObjectRoad, page: &Page, last: bool, before: u64) -> Result<(), Fault> {
    let seen = before + page.rows.len() as u64;
    match page.total {
        Some(total) if last && seen < total => Err(Fault::new(
            FaultKind::Protocol,
            format!("full sync of {} read {seen} of {total} records", object.key),
        )),
        _ => Ok(()),
    }
}

/// "Not seen in a full sync" is a hint for a delete; a read by id decides.
async fn find_deleted(
    road: &Road,
    object: &ObjectRoad,
    inlet: &Inlet,
    as_of: DateTime<Utc>,
    resumed: bool,
) -> Result<u64, Fault> {
    // A resumed read began earlier than `as_of`: its first rows look unseen and are read by id, a few calls
    // too many after a crash.
    // Tables cut A to whole seconds; a base equal to that was met by this read.
    let as_of = as_of.trunc_subsecs(0);
    tracing::debug!(object = %object.key, resumed, "looking for images that the read did not meet");
    let mut after: Option<RecordId> = None;
    let mut deleted = 0;
    loop {
        let images = road.images.scan(&object.key, after.take(), SCAN).await?;
        let Some((last, _)) = images.last() else {
            break;
        };
        after = Some(last.clone());
        let unseen: Vec<RecordId> = images
            .into_iter()
            .filter(|(_, image)| {
                image.life == crate::image::merge::Life::Live
                    && image.base.is_none_or(|base| base < as_of)
                    && image.newest_touch().is_none_or(|touch| touch < as_of)
            })
            .map(|(record, _)| record)
            .collect();
        if unseen.is_empty() {
            continue;
        }
        let found = road.crm.read_ids(&object.selection, &unseen).await?;
        let outcome = inlet
            .read(ReadInput {
                object,
                rows: found.rows,
                absent: found.absent,
                as_of: found.as_of,
                origin: Origin::Reconcile,
                republish: false,
            })
            .await?;
        deleted += outcome.deleted;
    }
    Ok(deleted)
}
