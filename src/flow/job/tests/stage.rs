//! A job and everything that it stands on, in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta};

use super::fake::{DEAD, FakeTarget, Inner, TOPIC};
use crate::config::job::{Brakes, DestinationConfig, JobConfig, MapEntry, MapSource};
use crate::config::problem::{Located, Spot};
use crate::flow::board::{Board, JobPicture};
use crate::flow::job::JobRoad;
use crate::flow::road::{entry_of, topic_spec};
use crate::log::memory::MemoryLog;
use crate::log::port::{Bounds, Log, Record, partition_of};
use crate::mapping::compile::Mapping;
use crate::model::change::{Change, Op, Origin, WIRE_VERSION};
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::model::policy::{OnEmptyIdentifier, OnExit, OnMove};
use crate::model::record_id::RecordId;
use crate::model::stored::{StoredField, StoredObject, StoredType};
use crate::model::value::{Fields, Value};
use crate::model::version::Version;
use crate::runtime::clock::VirtualClock;
use crate::state::memory::MemoryState;
use crate::state::port::{ObjectState, State};
use crate::telemetry::metrics::Metrics;

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
        on_move: None,
    };
    let job = JobConfig {
        connection: "acme".into(),
        id: "company_sync".into(),
        spot: located::<String>("").spot,
        name: String::new(),
        source: located("Account"),
        enabled: true,
        realtime: true,
        realtime_fields: None,
        filter: None,
        on_delete: OnExit::Delete,
        on_filter_exit: OnExit::Keep,
        on_empty_identifier: OnEmptyIdentifier::Reject,
        on_move: OnMove::Update,
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
    let stage = stage_before_ingest().await;
    begin(&stage.state).await;
    stage
}

pub(super) async fn stage_before_ingest() -> Stage {
    let clock = Arc::new(VirtualClock::new(
        DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
    ));
    let log = Arc::new(MemoryLog::new(Arc::clone(&clock) as _));
    log.ensure(&topic_spec(TOPIC)).await.unwrap();
    let state = Arc::new(MemoryState::default());
    let target = FakeTarget::new(Arc::clone(&log) as _, Arc::clone(&state) as _);
    let target = Arc::new(target);
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
        brakes: Brakes::OFF,
        retry: (Duration::from_millis(100), Duration::from_secs(10)),
    };
    Stage {
        log,
        target,
        state,
        road,
    }
}

/// What an ingest that has begun says of the topic.
pub(super) async fn begin(state: &MemoryState) {
    let connection = ConnectionId::new("acme");
    let lease = TimeDelta::minutes(1).to_std().unwrap();
    let acquired = state.acquire(&connection, "ingest", DateTime::UNIX_EPOCH, lease);
    let term = acquired.await.unwrap().unwrap();
    let told = ObjectState {
        topic_since: Some(term),
        ..ObjectState::default()
    };
    let object = ObjectName::new("Account");
    state
        .put_object(&connection, term, &object, told)
        .await
        .unwrap();
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

    /// The term of an owner of the connection that begins now.
    pub(super) async fn term(&self) -> u64 {
        let (acme, now) = (ConnectionId::new("acme"), self.road.clock.now());
        let term = self
            .state
            .acquire(&acme, "owner", now, Duration::from_secs(30));
        term.await.unwrap().unwrap()
    }

    /// Reasons and offsets of the letters.
    pub(super) async fn letters(&self) -> Vec<(String, u64)> {
        let letters = self.dead().await.into_iter();
        let mut letters: Vec<(String, u64)> = letters
            .map(|record| {
                let offset = header(&record, "tributary_offset").parse().unwrap();
                (header(&record, "tributary_reason"), offset)
            })
            .collect();
        letters.sort();
        letters
    }

    /// The runs that the letters name.
    pub(super) async fn letter_runs(&self) -> Vec<String> {
        let letters = self.dead().await;
        letters
            .iter()
            .map(|record| header(record, "tributary_run"))
            .collect()
    }

    async fn dead(&self) -> Vec<Record> {
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
            letters.extend(records);
        }
        letters
    }
}

fn header(record: &Record, name: &str) -> String {
    let mut headers = record.headers.iter();
    let found = headers.find(|(header, _)| header == name).unwrap();
    String::from_utf8(found.1.clone()).unwrap()
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
        row: None,
        synced: None,
    }
}
