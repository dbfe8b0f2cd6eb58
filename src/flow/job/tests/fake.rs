//! A target that does as it is told, and what else a job under test stands on.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::watch;

use crate::fault::{Fault, FaultKind};
use crate::log::port::Log;
use crate::mapping::plan::{Cell, JobPlan, Life, MappedRow};
use crate::model::change::Change;
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::model::record_id::RecordId;
use crate::model::stored::StoredObject;
use crate::model::version::Version;
use crate::state::port::State;
use crate::target::port::review::{Binding, Decided, InReview, Review, Reviews, Which};
use crate::target::port::sweep::{SweepKey, Sweeps, Unmet};
use crate::target::port::{
    Applied, Assignment, Batch, Expired, Outcome, ParkedChange, ParkedKey, ReaderKey, Released,
    RowsPage, StoredRow, Target, Traced,
};

pub(super) const TOPIC: &str = "tributary.acme.Account";
pub(super) const DEAD: &str = "tributary.acme.Account.dead";

/// What a committed batch was.
#[derive(Debug, Clone)]
pub(super) struct Commit {
    pub partition: u32,
    pub epoch: u64,
    pub expect: u64,
    pub next: u64,
    pub records: Vec<RecordId>,
    /// Letters that were durable when it was committed.
    pub letters: u64,
    /// Records that were asked for again by then.
    pub requests: usize,
}

/// What to do with the next batches, one each, before the rules below.
pub(super) enum Scripted {
    Fault(FaultKind),
    /// Not committed, and nothing rejected.
    Silence,
    /// Committed, and answered with a fault as if it were not.
    LostReply,
    /// As the rules say.
    Heard,
}

#[derive(Default)]
pub(super) struct Inner {
    pub prepared: usize,
    pub offsets: HashMap<(ReaderKey, u32), (u64, u64)>,
    pub names: BTreeMap<RecordId, (Version, Option<Cell>)>,
    pub commits: Vec<Commit>,
    pub calls: usize,
    pub script: VecDeque<Scripted>,
    /// A fault of this kind, until it is taken away.
    pub down: Option<FaultKind>,
    /// Batches that hold all of these are refused whole.
    pub poison: Vec<HashSet<RecordId>>,
    pub rejected: HashMap<RecordId, String>,
    /// Child and the parent it waits for.
    pub waits: HashMap<RecordId, RecordId>,
    pub parked: HashMap<RecordId, ParkedChange>,
    pub releases: usize,
    /// A release returns this many, if it is set.
    pub release_limit: Option<usize>,
    /// What waits for a person.
    pub in_review: InReview,
    /// The rows of the batches that were offered.
    pub offered: Vec<Arc<Vec<MappedRow>>>,
    /// What was forgotten, and the letters that were durable then.
    pub forgotten: Vec<(ParkedKey, u64)>,
    /// Nothing is forgotten, until it is taken away; and how often that was told.
    pub clings: Option<FaultKind>,
    pub clung: usize,
    /// Batches wait before they are looked at, until they are let go; and how many waited.
    pub holds: bool,
    pub held: usize,
    /// Who held a row when a replay began, and was not met since.
    pub unmet: BTreeMap<RecordId, Version>,
}

pub(super) struct FakeTarget {
    inner: Mutex<Inner>,
    log: Arc<dyn Log>,
    state: Arc<dyn State>,
    changed: watch::Sender<u64>,
}

impl FakeTarget {
    pub(super) fn new(log: Arc<dyn Log>, state: Arc<dyn State>) -> Self {
        Self {
            inner: Mutex::default(),
            log,
            state,
            changed: watch::Sender::new(0),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Waits until something holds of the target; on paused time, so that a wait for ever ends at once.
    pub(super) async fn until(&self, what: &str, holds: impl Fn(&Inner) -> bool) {
        let mut changed = self.changed.subscribe();
        let wait = changed.wait_for(|_| holds(&self.lock()));
        let waited = tokio::time::timeout(Duration::from_hours(4), wait).await;
        assert!(waited.is_ok(), "never: {what}");
    }

    /// Lets the batches go that are held.
    pub(super) fn let_go(&self) {
        self.lock().holds = false;
        self.tell();
    }

    async fn hold(&self) {
        if !self.lock().holds {
            return;
        }
        self.lock().held += 1;
        self.tell();
        let mut changed = self.changed.subscribe();
        let let_go = changed.wait_for(|_| !self.lock().holds).await;
        let_go.unwrap();
    }

    async fn letters(&self) -> u64 {
        let bounds = self.log.bounds(DEAD).await.unwrap();
        bounds.values().map(|ends| ends.end).sum()
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

fn fault(kind: FaultKind) -> Fault {
    Fault::new(kind, "as scripted")
}

impl Inner {
    fn forget(&mut self, parked: &[ParkedKey], letters: u64) -> Result<u64, Fault> {
        if let Some(kind) = self.clings {
            self.clung += 1;
            return Err(fault(kind));
        }
        let mut gone = 0;
        for key in parked {
            let held = self.parked.get(&key.record);
            if held.is_some_and(|held| held.key() == *key) {
                self.parked.remove(&key.record);
                self.forgotten.push((key.clone(), letters));
                gone += 1;
            }
        }
        Ok(gone)
    }

    /// What a row that is there comes to.
    fn changes(&self, row: &MappedRow, batch: &Batch) -> Outcome {
        let (Some((_, held)), now) = (self.names.get(&row.record), &row.cells[0]) else {
            return Outcome::Unchanged;
        };
        let is_empty = |name: &Option<Cell>| name.as_ref().is_none_or(|name| *name == Cell::Null);
        match held == now {
            true => Outcome::Unchanged,
            false if batch.asks_for_emptied() && is_empty(now) && !is_empty(held) => {
                Outcome::Emptied
            }
            false => Outcome::Updated,
        }
    }

    /// What would become of a batch's rows, written at once if all goes well.
    fn write(&mut self, batch: &Batch) -> Applied {
        let rows = &batch.destinations[0].rows;
        let first_look = |row: &MappedRow| match self.names.get(&row.record) {
            Some((held, _)) if *held > row.version => Outcome::Stale(*held),
            _ => match self.rejected.get(&row.record) {
                Some(reason) => Outcome::Rejected(reason.clone()),
                None if row.life == Life::Deleted => Outcome::Deleted,
                None => self.changes(row, batch),
            },
        };
        let outcomes = vec![rows.iter().map(first_look).collect()];
        if !batch.may_commit(&outcomes) {
            return Applied {
                committed: false,
                outcomes,
            };
        }
        let mut outcomes = Vec::new();
        for (row, image) in rows.iter().zip(batch.destinations[0].images.iter()) {
            let held = self.names.get(&row.record).cloned();
            let parent = self.waits.get(&row.record);
            let outcome = if let Some((version, _)) = &held
                && *version > row.version
            {
                Outcome::Stale(*version)
            } else if parent.is_some_and(|parent| !self.names.contains_key(parent)) {
                let change = ParkedChange {
                    record: row.record.clone(),
                    version: row.version,
                    place: row.place,
                    image: image.clone(),
                };
                self.parked.insert(row.record.clone(), change);
                Outcome::Parked
            } else {
                self.parked.remove(&row.record);
                let name = row.cells[0].clone().filter(|_| row.life == Life::Present);
                let now = (row.version, name);
                let outcome = match &held {
                    _ if row.life == Life::Deleted => Outcome::Deleted,
                    _ if row.life == Life::Filtered => Outcome::Ignored,
                    None => Outcome::Inserted,
                    Some((_, name)) if *name == now.1 => Outcome::Unchanged,
                    Some(_) => self.changes(row, batch),
                };
                self.names.insert(row.record.clone(), now);
                outcome
            };
            outcomes.push(outcome);
        }
        Applied {
            committed: true,
            outcomes: vec![outcomes],
        }
    }
}

#[async_trait]
impl Target for FakeTarget {
    async fn ensure(&self, _: &[StoredObject]) -> Result<(), Fault> {
        Ok(())
    }

    async fn prepare(&self, _: &JobPlan) -> Result<(), Fault> {
        self.lock().prepared += 1;
        Ok(())
    }

    async fn assign(&self, reader: &ReaderKey, partition: u32) -> Result<Assignment, Fault> {
        let assignment = {
            let mut inner = self.lock();
            let place = (reader.clone(), partition);
            let (next, epoch) = inner.offsets.entry(place).or_default();
            *epoch += 1;
            Assignment {
                next: *next,
                epoch: *epoch,
            }
        };
        self.tell();
        Ok(assignment)
    }

    async fn apply(&self, batch: Batch) -> Result<Applied, Fault> {
        self.hold().await;
        let letters = self.letters().await;
        let connection = &batch.reader.connection;
        let requests = self.state.to_republish(connection, usize::MAX).await?;
        let result = {
            let mut inner = self.lock();
            inner.calls += 1;
            let rows = &batch.destinations[0].rows;
            inner.offered.push(Arc::clone(rows));
            apply(&mut inner, &batch, letters, requests.len())
        };
        self.tell();
        result
    }

    async fn release(
        &self,
        _: &ConnectionId,
        _: &JobId,
        partitions: &[u32],
        limit: usize,
    ) -> Result<Released, Fault> {
        let released = {
            let mut inner = self.lock();
            inner.releases += 1;
            let ready = |change: &&ParkedChange| {
                partitions.contains(&change.place.0)
                    && inner.names.contains_key(&inner.waits[&change.record])
            };
            let limit = inner.release_limit.unwrap_or(limit);
            let ready = inner.parked.values().filter(ready);
            Released {
                filled: 0,
                changes: ready.take(limit).cloned().collect(),
                more: !inner.parked.is_empty(),
            }
        };
        self.tell();
        Ok(released)
    }

    async fn expired(
        &self,
        _: &ConnectionId,
        _: &JobId,
        partitions: &[u32],
        older_than: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<Expired>, Fault> {
        let inner = self.lock();
        let since = |change: &ParkedChange| Change::decode(&change.image).unwrap().committed_at;
        let is_old = |change: &&ParkedChange| {
            partitions.contains(&change.place.0) && since(change) < Some(older_than)
        };
        let mut old: Vec<&ParkedChange> = inner.parked.values().filter(is_old).collect();
        old.sort_by_key(|change| (since(change), change.record.clone()));
        let expired = old.into_iter().take(limit).map(|change| Expired {
            key: change.key(),
            waited_for: format!("record {}", inner.waits[&change.record]),
            image: Some(change.image.clone()),
        });
        Ok(expired.collect())
    }

    async fn forget(
        &self,
        _: &ConnectionId,
        _: &JobId,
        parked: &[ParkedKey],
    ) -> Result<u64, Fault> {
        let letters = self.letters().await;
        let result = {
            let mut inner = self.lock();
            inner.forget(parked, letters)
        };
        self.tell();
        result
    }

    async fn rows(&self, _: &str, _: RowsPage) -> Result<Vec<StoredRow>, Fault> {
        Ok(Vec::new())
    }

    async fn trace(
        &self,
        _: &ConnectionId,
        _: &ObjectName,
        _: &RecordId,
    ) -> Result<Vec<Traced>, Fault> {
        Ok(Vec::new())
    }

    async fn held(&self, _: &ConnectionId, _: &ObjectName, _: &str) -> Result<u64, Fault> {
        let inner = self.lock();
        let held = inner.names.values().filter(|(_, name)| name.is_some());
        Ok(held.count() as u64)
    }

    async fn parked(&self) -> Result<Vec<(ConnectionId, JobId, u64)>, Fault> {
        let count = self.lock().parked.len() as u64;
        Ok(vec![("acme".into(), "company_sync".into(), count)])
    }

    async fn close(&self) -> Result<(), Fault> {
        Ok(())
    }
}

#[async_trait]
impl Reviews for FakeTarget {
    async fn reviews(&self, _: &Which) -> Result<Vec<Review>, Fault> {
        Ok(Vec::new())
    }

    async fn bindings(&self) -> Result<Vec<Binding>, Fault> {
        Ok(Vec::new())
    }

    async fn in_review(&self, _: &ConnectionId, _: &JobId) -> Result<InReview, Fault> {
        Ok(self.lock().in_review)
    }

    async fn decide(&self, _: &Binding) -> Result<Decided, Fault> {
        Err(fault(FaultKind::Missing))
    }
}

#[async_trait]
impl Sweeps for FakeTarget {
    async fn begin_replay(&self, _: &SweepKey, _: &[String]) -> Result<u64, Fault> {
        let mut inner = self.lock();
        let held = inner.names.iter().filter(|(_, (_, name))| name.is_some());
        let held = held.map(|(record, (version, _))| (record.clone(), *version));
        inner.unmet = held.collect();
        Ok(inner.unmet.len() as u64)
    }

    async fn met(&self, _: &SweepKey, records: &[RecordId]) -> Result<(), Fault> {
        self.lock()
            .unmet
            .retain(|record, _| !records.contains(record));
        self.tell();
        Ok(())
    }

    async fn unmet(&self, _: &SweepKey, limit: usize) -> Result<Vec<Unmet>, Fault> {
        let inner = self.lock();
        let unmet = inner.unmet.iter().take(limit);
        let unmet = unmet.map(|(record, version)| Unmet {
            record: record.clone(),
            table: "company".to_owned(),
            version: *version,
        });
        Ok(unmet.collect())
    }

    async fn swept(&self, _: &SweepKey, swept: &[Unmet]) -> Result<(), Fault> {
        let mut inner = self.lock();
        for one in swept {
            inner.unmet.remove(&one.record);
        }
        Ok(())
    }

    async fn end_replay(&self, of: &SweepKey) -> Result<(), Fault> {
        let mut inner = self.lock();
        inner.unmet.clear();
        inner
            .offsets
            .retain(|(held, _), _| held.reader != of.reader());
        Ok(())
    }
}

fn apply(
    inner: &mut Inner,
    batch: &Batch,
    letters: u64,
    requests: usize,
) -> Result<Applied, Fault> {
    if let Some(kind) = inner.down {
        return Err(fault(kind));
    }
    let scripted = inner.script.pop_front();
    match scripted {
        Some(Scripted::Fault(kind)) => return Err(fault(kind)),
        Some(Scripted::Silence) => {
            let rows = &batch.destinations[0].rows;
            return Ok(Applied {
                committed: false,
                outcomes: vec![vec![Outcome::Unchanged; rows.len()]],
            });
        }
        Some(Scripted::LostReply | Scripted::Heard) | None => {}
    }
    let place = (batch.reader.clone(), batch.partition);
    if inner.offsets.get(&place) != Some(&(batch.expect, batch.epoch)) {
        return Err(fault(FaultKind::Fenced));
    }
    let records: Vec<RecordId> = batch.destinations[0]
        .rows
        .iter()
        .map(|row| row.record.clone())
        .collect();
    if inner
        .poison
        .iter()
        .any(|together| together.iter().all(|record| records.contains(record)))
    {
        return Err(fault(FaultKind::Record));
    }
    let applied = inner.write(batch);
    if applied.committed {
        inner.offsets.insert(place, (batch.next, batch.epoch));
        inner.commits.push(Commit {
            partition: batch.partition,
            epoch: batch.epoch,
            expect: batch.expect,
            next: batch.next,
            records,
            letters,
            requests,
        });
    }
    if matches!(scripted, Some(Scripted::LostReply)) {
        return Err(fault(FaultKind::Unavailable));
    }
    Ok(applied)
}
