//! Appends of one step: in order, one at a time, and what a failure among them leaves.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::mpsc;

use crate::crm::port::{Crm, Heard, Listener, OrgIdentity, Pages, Selection, Start};
use crate::crm::salesforce::merge::SalesforceTable;
use crate::flow::ingest::{Beginning, End, Input, Lease, QUEUE, Redelivery};
use crate::flow::road::{ObjectRoad, Road, Settings};
use crate::image::memory::MemoryImages;
use crate::image::merge::MergeTable;
use crate::image::port::ImageStore;
use crate::log::memory::MemoryLog;
use crate::log::port::{Bounds, Delivery, Entry, From, Policy, Reader, TopicSpec};
use crate::model::event::{Event, EventKind, Found, Transaction};
use crate::model::name::{ConnectionId, FieldName, ObjectKey};
use crate::model::position::Position;
use crate::model::record_id::{InvalidRecordId, RecordId};
use crate::model::schema::ObjectSchema;
use crate::model::value::{Fields, Value};
use crate::runtime::clock::SystemClock;
use crate::runtime::shutdown::StopSignal;
use crate::state::memory::MemoryState;
use crate::state::port::{State, StoredPosition};
use crate::telemetry::metrics::Metrics;

use super::*;

/// Changes that are worth an append.
const ENOUGH: usize = 3;
const TOPIC: &str = "t";

#[tokio::test]
async fn the_first_changes_are_written_while_the_rest_is_merged() {
    let world = World::new(None).await;
    // Two are on their way when the third answer comes.
    world.ingest(&[4, 3, 2, 1]).await.unwrap();
    assert_eq!(world.log.appends(), [4, 3, 3]);
    assert_eq!(world.written().await, (1..=10).collect::<Vec<_>>());
    assert_eq!(world.position().await.as_deref(), Some("10"));
}

#[tokio::test]
async fn a_small_step_is_one_append() {
    let world = World::new(None).await;
    world.ingest(&[1, 1]).await.unwrap();
    assert_eq!(world.log.appends(), [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_never_overtake_each_other() {
    let world = World::new(None).await;
    world.ingest(&[3; 200]).await.unwrap();
    assert!(!world.log.overtook.load(Ordering::SeqCst));
    assert_eq!(world.written().await, (1..=600).collect::<Vec<_>>());
}

#[tokio::test]
async fn nothing_lies_behind_an_append_that_failed() {
    for (fails, written) in [(0, 0), (1, 4), (2, 7)] {
        let world = World::new(Some(fails)).await;
        let fault = world.ingest(&[4, 3, 3]).await.unwrap_err();
        assert_eq!(fault.to_string(), "the broker is away");
        assert_eq!(world.written().await, (1..=written).collect::<Vec<_>>());
        assert_eq!(world.position().await, None, "the stream repeats it all");
        let held = world.images.held(&key()).await.unwrap();
        assert!(held.offsets.is_empty(), "the topic is read back");
    }
}

#[tokio::test]
async fn a_step_that_fails_waits_for_its_append() {
    let world = World::new(None).await;
    let mut gathered = Gathered::default();
    let mut ingest = world.begun().await;
    ingest.hear(heard(1, 3), &mut gathered);
    let mut publishing = Publishing::default();
    let early = ingest.publish_early(&mut gathered, &mut publishing).await;
    early.unwrap();
    assert_eq!(world.written().await.len(), 0, "it is under way");
    publishing.settle().await.unwrap();
    assert_eq!(world.written().await.len(), 3);
}

#[tokio::test]
async fn who_no_longer_owns_the_connection_writes_no_part_of_a_step() {
    let world = World::new(None).await;
    let mut ingest = world.begun().await;
    ingest.lease = Arc::new(Lease::new(End::after(Utc::now(), Duration::ZERO)));
    let fault = ingest
        .step(vec![Input::Heard(heard(1, 4))])
        .await
        .unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fenced);
    assert!(world.log.appends().is_empty());
}

struct World {
    log: Arc<Watched>,
    images: Arc<MemoryImages>,
    state: Arc<MemoryState>,
}

fn key() -> ObjectKey {
    ObjectKey {
        connection: "acme".into(),
        object: "Account".into(),
    }
}

/// An answer of the stream: records are created, one an event, numbered from `first` on.
fn heard(first: usize, count: usize) -> Heard {
    let event = |number: usize| Event {
        object: "Account".into(),
        records: vec![RecordId::stored(number.to_string())],
        kind: EventKind::Create,
        fields: Fields::from([("Name".into(), Value::from("n"))]),
        changed: Vec::new(),
        committed_at: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
        transaction: Transaction {
            key: number.to_string(),
            sequence: 1,
            user: None,
            client: None,
        },
        position: Position::new(number.to_string()),
    };
    let events: Vec<Event> = (first..first + count).map(event).collect();
    Heard {
        position: events.last().map(|event| event.position.clone()),
        events,
        confirmed_at: None,
        lost: Vec::new(),
    }
}

impl World {
    async fn new(fails: Option<usize>) -> Self {
        let log = Watched {
            inner: MemoryLog::new(Arc::new(SystemClock)),
            appends: Mutex::default(),
            fails,
            running: AtomicUsize::new(0),
            overtook: AtomicBool::new(false),
        };
        let spec = TopicSpec {
            name: TOPIC.to_owned(),
            // One, so that the order of all can be seen.
            partitions: 1,
            policy: Policy::Delete {
                retention: Duration::from_hours(1),
            },
        };
        log.ensure(&spec).await.unwrap();
        Self {
            log: Arc::new(log),
            images: Arc::default(),
            state: Arc::default(),
        }
    }

    async fn begun(&self) -> Ingest {
        let settings = Settings {
            changes_an_append: ENOUGH,
            ..Settings::default()
        };
        let now = Utc::now();
        let connection = ConnectionId::new("acme");
        let acquired = self.state.acquire(&connection, "me", now, settings.lease);
        let term = acquired.await.unwrap().unwrap();
        let beginning = Beginning {
            term,
            lease: Arc::new(Lease::new(End::after(now, settings.lease))),
            stored: StoredPosition {
                position: None,
                confirmed_at: DateTime::UNIX_EPOCH,
            },
            covered: BTreeMap::new(),
            deaths_known: BTreeMap::new(),
            redelivery: Redelivery::none(),
            moved: Vec::new(),
            ends: BTreeMap::new(),
            owed: Arc::default(),
        };
        let road = Road {
            connection: "acme".into(),
            crm: Arc::new(Unasked("acme".into())),
            log: Arc::clone(&self.log) as _,
            images: Arc::clone(&self.images) as _,
            state: Arc::clone(&self.state) as _,
            clock: Arc::new(SystemClock),
            metrics: Metrics::none(),
            board: Arc::default(),
            hinted: Arc::default(),
            settings: Arc::new(settings),
        };
        let object = ObjectRoad {
            key: key(),
            topic: TOPIC.into(),
            selection: Selection {
                object: key().object,
                fields: vec!["Name".into()],
            },
            carried: BTreeSet::from([FieldName::new("Name")]),
            late: BTreeSet::new(),
            joins: Vec::new(),
            followers: Vec::new(),
            editions: BTreeMap::new(),
        };
        let objects = BTreeMap::from([(key().object, object)]);
        Ingest::new(road, Arc::new(objects), beginning)
    }

    /// Has the stream answer with so many events each, which wait together.
    async fn ingest(&self, answers: &[usize]) -> Result<(), Fault> {
        let mut ingest = self.begun().await;
        let mut next = 1;
        let mut inputs = Vec::new();
        for count in answers {
            inputs.push(Input::Heard(heard(next, *count)));
            next += count;
        }
        ingest.step(inputs).await
    }

    /// The records of the topic, in order.
    async fn written(&self) -> Vec<usize> {
        let end = self.log.bounds(TOPIC).await.unwrap()[&0].end;
        let mut reader = self
            .log
            .reader(TOPIC, From::Partitions([(0, 0)].into()))
            .await
            .unwrap();
        let mut found = Vec::new();
        while (found.len() as u64) < end {
            let next = reader.next(1000, usize::MAX, Duration::from_secs(5));
            let Delivery::Batch(records) = next.await.unwrap() else {
                continue;
            };
            for record in records {
                found.push(std::str::from_utf8(&record.key).unwrap().parse().unwrap());
            }
        }
        found
    }

    async fn position(&self) -> Option<String> {
        let stored = self.state.position(&"acme".into()).await.unwrap();
        Some(stored?.position?.as_str().to_owned())
    }
}

/// A log that says how it was appended to, and fails one append.
struct Watched {
    inner: MemoryLog,
    appends: Mutex<Vec<usize>>,
    fails: Option<usize>,
    running: AtomicUsize,
    overtook: AtomicBool,
}

impl Watched {
    fn appends(&self) -> Vec<usize> {
        self.appends.lock().unwrap().clone()
    }
}

#[async_trait]
impl Log for Watched {
    async fn ensure(&self, spec: &TopicSpec) -> Result<String, Fault> {
        self.inner.ensure(spec).await
    }

    async fn append(&self, entries: Vec<Entry>) -> Result<Vec<Place>, Fault> {
        if self.running.fetch_add(1, Ordering::SeqCst) > 0 {
            self.overtook.store(true, Ordering::SeqCst);
        }
        let number = {
            let mut appends = self.appends.lock().unwrap();
            appends.push(entries.len());
            appends.len() - 1
        };
        // Whoever would append beside it gets the chance to.
        tokio::task::yield_now().await;
        let appended = if self.fails == Some(number) {
            Err(Fault::new(FaultKind::Unavailable, "the broker is away"))
        } else {
            self.inner.append(entries).await
        };
        self.running.fetch_sub(1, Ordering::SeqCst);
        appended
    }

    async fn bounds(&self, topic: &str) -> Result<BTreeMap<u32, Bounds>, Fault> {
        self.inner.bounds(topic).await
    }

    async fn at_time(&self, topic: &str, at: DateTime<Utc>) -> Result<BTreeMap<u32, u64>, Fault> {
        self.inner.at_time(topic, at).await
    }

    async fn reader(&self, topic: &str, from: From) -> Result<Box<dyn Reader>, Fault> {
        self.inner.reader(topic, from).await
    }

    async fn topics(&self) -> Result<Vec<TopicSpec>, Fault> {
        self.inner.topics().await
    }

    async fn close(&self) -> Result<(), Fault> {
        self.inner.close().await
    }
}

/// An org that ingest has nothing to ask.
struct Unasked(ConnectionId);

fn unasked<T>() -> Result<T, Fault> {
    Err(Fault::new(
        FaultKind::Protocol,
        "ingest asks the org nothing",
    ))
}

#[async_trait]
impl Crm for Unasked {
    fn connection(&self) -> &ConnectionId {
        &self.0
    }

    async fn identify(&self) -> Result<OrgIdentity, Fault> {
        unasked()
    }

    async fn clock(&self) -> Result<DateTime<Utc>, Fault> {
        unasked()
    }

    async fn describe(&self, _: &ObjectName) -> Result<ObjectSchema, Fault> {
        unasked()
    }

    async fn read_all(&self, _: &Selection, _: Option<&str>) -> Result<Box<dyn Pages>, Fault> {
        unasked()
    }

    async fn read_window(
        &self,
        _: &Selection,
        _: DateTime<Utc>,
        _: DateTime<Utc>,
    ) -> Result<Box<dyn Pages>, Fault> {
        unasked()
    }

    async fn read_ids(&self, _: &Selection, _: &[RecordId]) -> Result<Found, Fault> {
        unasked()
    }

    async fn deleted(
        &self,
        _: &ObjectName,
        _: DateTime<Utc>,
        _: DateTime<Utc>,
    ) -> Result<Vec<RecordId>, Fault> {
        unasked()
    }

    async fn listen(&self, _: &[Selection], _: Start) -> Result<Box<dyn Listener>, Fault> {
        unasked()
    }

    fn table(&self) -> &dyn MergeTable {
        &SalesforceTable
    }

    fn record_id(&self, text: &str) -> Result<RecordId, InvalidRecordId> {
        Ok(RecordId::stored(text))
    }
}

#[tokio::test]
async fn ingest_runs_dry() {
    let world = World::new(None).await;
    let (inlet, inputs) = mpsc::channel(QUEUE);
    for (first, count) in [(1, 5), (6, 5)] {
        inlet.send(Input::Heard(heard(first, count))).await.unwrap();
    }
    drop(inlet);
    let ingest = world.begun().await;
    ingest.run(inputs, StopSignal::new()).await.unwrap();
    assert_eq!(world.written().await, (1..=10).collect::<Vec<_>>());
}
