//! A target that does as it is told, and what else a job under test stands on.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;

use crate::config::job::{DestinationConfig, JobConfig, MapEntry, MapSource};
use crate::config::problem::{Located, Spot};
use crate::fault::{Fault, FaultKind};
use crate::flow::board::{Board, JobPicture};
use crate::flow::job::JobRoad;
use crate::flow::road::{entry_of, topic_spec};
use crate::log::memory::MemoryLog;
use crate::log::port::{Bounds, Log, partition_of};
use crate::mapping::compile::Mapping;
use crate::mapping::plan::{Cell, JobPlan, Life};
use crate::model::change::{Change, Op, Origin, WIRE_VERSION};
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::model::policy::{OnEmptyIdentifier, OnExit};
use crate::model::record_id::RecordId;
use crate::model::stored::{StoredField, StoredObject, StoredType};
use crate::model::value::{Fields, Value};
use crate::model::version::Version;
use crate::runtime::clock::VirtualClock;
use crate::state::memory::MemoryState;
use crate::target::port::{
    Applied, Assignment, Batch, Expired, Outcome, ParkedChange, ReaderKey, Released, RowsPage,
    StoredRow, Target, Traced,
};
use crate::telemetry::metrics::Metrics;

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
}

/// What to do with the next batches, one each, before the rules below.
pub(super) enum Scripted {
    Fault(FaultKind),
    /// Not committed, and nothing rejected.
    Silence,
    /// Committed, and answered with a fault as if it were not.
    LostReply,
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
}

pub(super) struct FakeTarget {
    inner: Mutex<Inner>,
    log: Arc<dyn Log>,
    changed: watch::Sender<u64>,
}

impl FakeTarget {
    pub(super) fn new(log: Arc<dyn Log>) -> Self {
        Self {
            inner: Mutex::default(),
            log,
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

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

fn fault(kind: FaultKind) -> Fault {
    Fault::new(kind, "as scripted")
}

impl Inner {
    /// What would become of a batch's rows, written at once if all goes well.
    fn write(&mut self, batch: &Batch) -> Applied {
        let rows = &batch.destinations[0].rows;
        let rejected = |record: &RecordId| self.rejected.get(record).cloned();
        if rows.iter().any(|row| rejected(&row.record).is_some()) {
            let outcome = |record| rejected(record).map_or(Outcome::Unchanged, Outcome::Rejected);
            return Applied {
                committed: false,
                outcomes: vec![rows.iter().map(|row| outcome(&row.record)).collect()],
            };
        }
        let mut outcomes = Vec::new();
        for (row, image) in rows.iter().zip(&batch.destinations[0].images) {
            let held = self.names.get(&row.record).cloned();
            let parent = self.waits.get(&row.record);
            let outcome = if let Some((version, _)) = &held
                && *version > row.version
            {
                Outcome::Stale(*version)
            } else if parent.is_some_and(|parent| !self.names.contains_key(parent)) {
                let change = ParkedChange {
                    job: batch.reader.job.clone(),
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
                    Some(_) => Outcome::Updated,
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
        let letters = self
            .log
            .bounds(DEAD)
            .await
            .unwrap()
            .values()
            .map(|ends| ends.end)
            .sum();
        let result = {
            let mut inner = self.lock();
            inner.calls += 1;
            apply(&mut inner, &batch, letters)
        };
        self.tell();
        result
    }

    async fn release(&self, _: &ConnectionId, _: usize) -> Result<Released, Fault> {
        let released = {
            let mut inner = self.lock();
            inner.releases += 1;
            let ready =
                |change: &&ParkedChange| inner.names.contains_key(&inner.waits[&change.record]);
            Released {
                filled: 0,
                changes: inner.parked.values().filter(ready).cloned().collect(),
                more: !inner.parked.is_empty(),
            }
        };
        self.tell();
        Ok(released)
    }

    async fn expire(
        &self,
        _: &ConnectionId,
        _: &JobId,
        older_than: DateTime<Utc>,
    ) -> Result<Vec<Expired>, Fault> {
        let (old, waits) = {
            let mut inner = self.lock();
            let is_old = |_: &RecordId, change: &mut ParkedChange| {
                Change::decode(&change.image).unwrap().committed_at < Some(older_than)
            };
            let old: Vec<_> = inner
                .parked
                .extract_if(is_old)
                .map(|(_, change)| change)
                .collect();
            (old, inner.waits.clone())
        };
        self.tell();
        let expired = old.into_iter().map(|change| Expired {
            waited_for: format!("record {}", waits[&change.record]),
            record: change.record,
            place: change.place,
            image: Some(change.image),
        });
        Ok(expired.collect())
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

    async fn parked(&self) -> Result<Vec<(ConnectionId, JobId, u64)>, Fault> {
        let count = self.lock().parked.len() as u64;
        Ok(vec![("acme".into(), "company_sync".into(), count)])
    }

    async fn close(&self) -> Result<(), Fault> {
        Ok(())
    }
}

fn apply(inner: &mut Inner, batch: &Batch, letters: u64) -> Result<Applied, Fault> {
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
        Some(Scripted::LostReply) | None => {}
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
        });
    }
    if matches!(scripted, Some(Scripted::LostReply)) {
        return Err(fault(FaultKind::Unavailable));
    }
    Ok(applied)
}

/// Ids whose topic partition is this one.
pub(super) fn ids(partition: u32, count: usize) -> Vec<RecordId> {
    (0_u32..)
        .map(|number| RecordId::stored(format!("001{number:015}")))
        .filter(|id| partition_of(id.as_str().as_bytes(), 8) == partition)
        .take(count)
        .collect()
}

fn located<T>(value: impl Into<T>) -> Located<T> {
    Located {
        value: value.into(),
        spot: Spot {
            file: Arc::from("jobs/acme/company_sync.toml"),
            line: 1,
            key: String::new(),
        },
    }
}

/// `Name` is the company's name and identifier, `Employees` a number of its; `Hidden__c = true` is filtered out.
fn mapping() -> Mapping {
    let field = |column: &str, ty| StoredField {
        column: column.to_owned(),
        label: column.to_owned(),
        ty,
        references: None,
    };
    let company = StoredObject {
        table: "company".to_owned(),
        label: "Company".to_owned(),
        fields: vec![
            field("name", StoredType::String),
            field("employees", StoredType::Number),
        ],
    };
    let map = |column: &str, path: &str| MapEntry {
        column: located(column),
        source: MapSource::Path(located(path)),
        values: None,
        default: None,
        insert_only: false,
        keep_on_null: false,
    };
    let destination = DestinationConfig {
        object: located("Company"),
        filter: Some(located("Hidden__c != true")),
        identifiers: vec![located("name")],
        map: vec![map("name", "Name"), map("employees", "Employees")],
        derive: Vec::new(),
        on_delete: None,
        on_filter_exit: None,
        on_empty_identifier: None,
    };
    let job = JobConfig {
        connection: "acme".into(),
        id: "company_sync".into(),
        spot: located::<String>("").spot,
        name: String::new(),
        source: located("Account"),
        enabled: true,
        realtime: true,
        filter: None,
        on_delete: OnExit::Keep,
        on_filter_exit: OnExit::Keep,
        on_empty_identifier: OnEmptyIdentifier::Reject,
        parked_ttl: TimeDelta::days(30),
        destinations: vec![destination],
    };
    Mapping::compile(&job, &BTreeMap::from([("company".to_owned(), company)])).unwrap()
}

/// A job and everything around it.
pub(super) struct Stage {
    pub log: Arc<MemoryLog>,
    pub target: Arc<FakeTarget>,
    pub state: Arc<MemoryState>,
    pub road: JobRoad,
}

pub(super) async fn stage() -> Stage {
    let clock = Arc::new(VirtualClock::new(
        DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
    ));
    let log = Arc::new(MemoryLog::new(Arc::clone(&clock) as _));
    log.ensure(&topic_spec(TOPIC)).await.unwrap();
    let target = Arc::new(FakeTarget::new(Arc::clone(&log) as _));
    let state = Arc::new(MemoryState::default());
    let road = JobRoad {
        mapping: Arc::new(mapping()),
        topic: TOPIC.into(),
        log: Arc::clone(&log) as _,
        target: Arc::clone(&target) as _,
        state: Arc::clone(&state) as _,
        clock,
        metrics: Metrics::none(),
        board: Arc::new(Board::default()),
        parked_ttl: TimeDelta::hours(1),
        retry: (Duration::from_millis(100), Duration::from_secs(10)),
    };
    Stage {
        log,
        target,
        state,
        road,
    }
}

impl Stage {
    pub(super) fn picture(&self) -> JobPicture {
        let jobs = self.road.board.picture().jobs;
        jobs[&ConnectionId::new("acme")][&JobId::new("company_sync")].clone()
    }

    pub(super) fn outcome(&self, label: &str) -> u64 {
        self.picture().rows.get(label).copied().unwrap_or(0)
    }

    pub(super) async fn publish(&self, changes: &[Change]) {
        let topic = TOPIC.into();
        let entries = changes
            .iter()
            .map(|change| entry_of(&topic, change).unwrap())
            .collect();
        self.log.append(entries).await.unwrap();
    }

    /// Waits until the ledger stands at the topic's end in every partition.
    pub(super) async fn settled(&self) {
        let ends = self.log.bounds(TOPIC).await.unwrap();
        self.target
            .until("the job at the topic's end", |inner| reached(inner, &ends))
            .await;
    }

    /// Reasons and offsets of the letters.
    pub(super) async fn letters(&self) -> Vec<(String, u64)> {
        use crate::log::port::{Delivery, From};
        let ends = self.log.bounds(DEAD).await.unwrap();
        let total: u64 = ends.values().map(|ends| ends.end).sum();
        let from = From::Partitions(ends.keys().map(|partition| (*partition, 0)).collect());
        let mut reader = self.log.reader(DEAD, from).await.unwrap();
        let mut letters = Vec::new();
        while (letters.len() as u64) < total {
            let delivery = reader
                .next(100, usize::MAX, Duration::from_secs(1))
                .await
                .unwrap();
            let Delivery::Batch(records) = delivery else {
                continue;
            };
            for record in records {
                let header = |name: &str| {
                    let found = record
                        .headers
                        .iter()
                        .find(|(header, _)| header == name)
                        .unwrap();
                    String::from_utf8(found.1.clone()).unwrap()
                };
                letters.push((
                    header("tributary_reason"),
                    header("tributary_offset").parse().unwrap(),
                ));
            }
        }
        letters.sort();
        letters
    }
}

fn reached(inner: &Inner, ends: &BTreeMap<u32, Bounds>) -> bool {
    ends.iter().all(|(partition, ends)| {
        let mut offsets = inner
            .offsets
            .iter()
            .filter(|((_, own), _)| own == partition);
        ends.end == 0 || offsets.any(|(_, (next, _))| *next == ends.end)
    })
}

/// An update of a record at a version of term 7.
pub(super) fn change(id: &RecordId, counter: u64, name: &str) -> Change {
    Change {
        v: WIRE_VERSION,
        connection: "acme".into(),
        object: "Account".into(),
        id: id.clone(),
        op: Op::Update,
        version: Version::new(7, counter),
        committed_at: DateTime::from_timestamp(1_799_999_990, 0),
        origin: Origin::Stream,
        position: None,
        transaction: None,
        changed: Vec::new(),
        fields: Fields::from([
            ("Name".into(), Value::from(name)),
            ("Employees".into(), Value::from(5)),
            ("Hidden__c".into(), Value::Bool(false)),
        ]),
    }
}
