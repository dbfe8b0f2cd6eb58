//! A connection's life against an org in memory: first sync, stream, restarts, a lost position.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use chrono::TimeZone;

use crate::crm::port::{Crm, Heard, Listener, OrgIdentity, Pages, Selection, Start};
use crate::crm::salesforce::merge::SalesforceTable;
use crate::flow::board::Board;
use crate::image::memory::MemoryImages;
use crate::image::merge::{Life as ImageLife, MergeTable};
use crate::log::memory::MemoryLog;
use crate::log::port::{Delivery, From};
use crate::model::change::Change;
use crate::model::event::{Event, EventKind, Found, Page, Row, Transaction};
use crate::model::name::{ConnectionId, ObjectKey};
use crate::model::position::Position;
use crate::model::record_id::{InvalidRecordId, RecordId};
use crate::model::schema::{FieldKind, FieldSchema, ObjectSchema};
use crate::model::value::{Fields, Value};
use crate::runtime::clock::SystemClock;
use crate::runtime::shutdown::StopSignal;
use crate::state::memory::MemoryState;
use crate::state::port::HoleState;
use crate::telemetry::metrics::Metrics;

use super::super::road::Settings;
use super::*;

/// An org of one object: records, stream, and a clock that moves whenever it is looked at.
#[derive(Default)]
struct Org {
    inner: Mutex<Inner>,
    heard: Notify,
}

#[derive(Default)]
struct Inner {
    records: BTreeMap<RecordId, (bool, Fields)>,
    events: Vec<Event>,
    oldest: usize,
    seconds: i64,
}

impl Inner {
    fn now(&mut self) -> DateTime<Utc> {
        self.seconds += 2;
        Utc.timestamp_opt(1_800_000_000 + self.seconds, 0).unwrap()
    }
}

fn account() -> ObjectName {
    ObjectName::new("Account")
}

fn id(number: usize) -> RecordId {
    RecordId::stored(format!("001{number:015}"))
}

fn values(name: &str, city: Option<&str>) -> Fields {
    Fields::from([
        ("Name".into(), Value::from(name)),
        ("City".into(), city.map_or(Value::Null, Value::from)),
    ])
}

impl Org {
    fn quietly(&self, number: usize, name: &str) {
        let mut inner = self.inner.lock().unwrap();
        inner
            .records
            .insert(id(number), (true, values(name, Some("Berlin"))));
    }

    fn commit(&self, number: usize, kind: EventKind, told: Fields) {
        let mut inner = self.inner.lock().unwrap();
        let record = inner
            .records
            .entry(id(number))
            .or_insert_with(|| (true, values("", None)));
        record.0 = kind != EventKind::Delete;
        record.1.extend(told.clone());
        let committed_at = inner.now();
        let sequence = i64::try_from(inner.events.len()).unwrap() + 1;
        inner.events.push(Event {
            object: account(),
            records: vec![id(number)],
            kind,
            changed: told.keys().cloned().collect(),
            fields: told,
            committed_at,
            transaction: Transaction {
                key: format!("t{sequence}"),
                sequence: 1,
                user: None,
                client: None,
            },
            position: Position::new(sequence.to_string()),
        });
        drop(inner);
        self.heard.notify_waiters();
    }

    fn forget_events(&self) {
        let mut inner = self.inner.lock().unwrap();
        inner.oldest = inner.events.len();
    }
}

struct FakeCrm {
    org: Arc<Org>,
    id: ConnectionId,
}

struct OnePage(Option<Page>);

#[async_trait]
impl Pages for OnePage {
    async fn next(&mut self) -> Result<Option<Page>, Fault> {
        Ok(self.0.take())
    }
}

struct Tail {
    org: Arc<Org>,
    next: usize,
}

#[async_trait]
impl Listener for Tail {
    async fn next(&mut self) -> Result<Heard, Fault> {
        loop {
            let org = Arc::clone(&self.org);
            let mut woken = std::pin::pin!(org.heard.notified());
            woken.as_mut().enable();
            let events: Vec<Event> = self.org.inner.lock().unwrap().events[self.next..].to_vec();
            if let Some(last) = events.last() {
                self.next += events.len();
                let position = Some(last.position.clone());
                return Ok(Heard {
                    events,
                    position,
                    confirmed_at: None,
                });
            }
            woken.await;
        }
    }

    async fn stop(self: Box<Self>) {}
}

impl FakeCrm {
    fn page(&self) -> Page {
        let mut inner = self.org.inner.lock().unwrap();
        let as_of = inner.now();
        let rows = inner
            .records
            .iter()
            .filter(|(_, (alive, _))| *alive)
            .map(|(record, (_, fields))| Row {
                record: record.clone(),
                fields: fields.clone(),
                modified_at: Some(as_of),
            })
            .collect();
        Page {
            rows,
            as_of,
            total: None,
            resume: None,
        }
    }
}

#[async_trait]
impl Crm for FakeCrm {
    fn connection(&self) -> &ConnectionId {
        &self.id
    }

    async fn identify(&self) -> Result<OrgIdentity, Fault> {
        Ok(OrgIdentity {
            org_id: "00D".into(),
            user_id: "005".into(),
            instance_url: String::new(),
        })
    }

    async fn clock(&self) -> Result<DateTime<Utc>, Fault> {
        Ok(self.org.inner.lock().unwrap().now())
    }

    async fn describe(&self, object: &ObjectName) -> Result<ObjectSchema, Fault> {
        let field = |name: &str| {
            let schema = FieldSchema {
                label: name.to_owned(),
                kind: FieldKind::Text,
                references: Vec::new(),
                relationship: None,
                calculated: false,
                compound: None,
            };
            (FieldName::new(name), schema)
        };
        Ok(ObjectSchema {
            name: object.clone(),
            label: object.to_string(),
            fields: ["Name", "City"].map(field).into(),
        })
    }

    async fn read_all(&self, _: &Selection, _: Option<&str>) -> Result<Box<dyn Pages>, Fault> {
        Ok(Box::new(OnePage(Some(self.page()))))
    }

    async fn read_window(
        &self,
        _: &Selection,
        _: DateTime<Utc>,
        _: DateTime<Utc>,
    ) -> Result<Box<dyn Pages>, Fault> {
        Ok(Box::new(OnePage(Some(self.page()))))
    }

    async fn read_ids(&self, _: &Selection, ids: &[RecordId]) -> Result<Found, Fault> {
        let page = self.page();
        let (rows, _): (Vec<Row>, Vec<Row>) = page
            .rows
            .into_iter()
            .partition(|row| ids.contains(&row.record));
        let absent = ids
            .iter()
            .filter(|id| rows.iter().all(|row| row.record != **id))
            .cloned()
            .collect();
        Ok(Found {
            rows,
            absent,
            as_of: page.as_of,
        })
    }

    async fn deleted(
        &self,
        _: &ObjectName,
        _: DateTime<Utc>,
        _: DateTime<Utc>,
    ) -> Result<Vec<RecordId>, Fault> {
        let inner = self.org.inner.lock().unwrap();
        let dead = inner.records.iter().filter(|(_, (alive, _))| !alive);
        Ok(dead.map(|(record, _)| record.clone()).collect())
    }

    async fn listen(&self, _: &[ObjectName], from: Start) -> Result<Box<dyn Listener>, Fault> {
        let inner = self.org.inner.lock().unwrap();
        let next = match from {
            Start::Now => inner.events.len(),
            Start::Earliest => inner.oldest,
            Start::After(position) => position.as_str().parse().unwrap(),
        };
        if next < inner.oldest {
            return Err(Fault::new(FaultKind::PositionLost, "replay id is too old"));
        }
        Ok(Box::new(Tail {
            org: Arc::clone(&self.org),
            next,
        }))
    }

    fn table(&self) -> &dyn MergeTable {
        &SalesforceTable
    }

    fn record_id(&self, text: &str) -> Result<RecordId, InvalidRecordId> {
        Ok(RecordId::stored(text))
    }
}

struct World {
    org: Arc<Org>,
    road: Road,
}

impl World {
    fn new() -> Self {
        let org = Arc::new(Org::default());
        let id = ConnectionId::new("acme");
        let settings = Settings {
            read_lag: Duration::ZERO,
            ..Settings::default()
        };
        let road = Road {
            crm: Arc::new(FakeCrm {
                org: Arc::clone(&org),
                id: id.clone(),
            }),
            connection: id,
            log: Arc::new(MemoryLog::new(Arc::new(SystemClock))),
            images: Arc::new(MemoryImages::default()),
            state: Arc::new(MemoryState::default()),
            clock: Arc::new(SystemClock),
            metrics: Metrics::none(),
            board: Arc::new(Board::default()),
            settings: Arc::new(settings),
        };
        Self { org, road }
    }

    fn start(&self) -> (StopSignal, tokio::task::JoinHandle<()>) {
        let stop = StopSignal::new();
        let fields = ["Name", "City"].map(FieldName::new).into();
        let selected = Selected::from([(account(), fields)]);
        let task = tokio::spawn(keep(self.road.clone(), selected, stop.clone()));
        (stop, task)
    }

    fn key(&self) -> ObjectKey {
        ObjectKey {
            connection: self.road.connection.clone(),
            object: account(),
        }
    }

    async fn images(&self) -> BTreeMap<RecordId, Fields> {
        let images = self
            .road
            .images
            .scan(&self.key(), None, 10_000)
            .await
            .unwrap();
        images
            .into_iter()
            .filter(|(_, image)| image.life == ImageLife::Live)
            .map(|(record, image)| (record, image.fields))
            .collect()
    }

    fn truth(&self) -> BTreeMap<RecordId, Fields> {
        let inner = self.org.inner.lock().unwrap();
        let alive = inner.records.iter().filter(|(_, (alive, _))| *alive);
        alive
            .map(|(record, (_, fields))| (record.clone(), fields.clone()))
            .collect()
    }

    /// The topic's changes in order.
    async fn topic(&self) -> Vec<Change> {
        let topic = "tributary.acme.Account";
        let bounds = self.road.log.bounds(topic).await.unwrap();
        let from = bounds
            .iter()
            .map(|(number, bounds)| (*number, bounds.start))
            .collect();
        let mut reader = self
            .road
            .log
            .reader(topic, From::Partitions(from))
            .await
            .unwrap();
        let mut changes = Vec::new();
        while let Delivery::Batch(records) = reader
            .next(1000, usize::MAX, Duration::from_millis(1))
            .await
            .unwrap()
        {
            let values = records.iter().filter_map(|record| record.value.as_ref());
            changes.extend(values.map(|value| Change::decode(value).unwrap()));
        }
        changes
    }

    async fn settle(&self) {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            let synced = self
                .road
                .state
                .object(&self.road.connection, &account())
                .await
                .unwrap();
            let open = self.road.state.holes(None, false).await.unwrap();
            let images = self.images().await;
            if synced.synced_at.is_some() && open.is_empty() && images == self.truth() {
                break;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "not settled: open holes {open:?}, images {images:?}, board {:?}",
                self.road.board.picture()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut last: BTreeMap<RecordId, Change> = BTreeMap::new();
        for change in self.topic().await {
            let older = last
                .get(&change.id)
                .is_none_or(|held| held.version < change.version);
            assert!(older, "versions of {} do not rise", change.id);
            last.insert(change.id.clone(), change);
        }
        let alive = last.into_iter().filter(|(_, change)| change.is_alive());
        let told: BTreeMap<_, _> = alive
            .map(|(record, change)| (record, change.fields))
            .collect();
        assert_eq!(
            told,
            self.truth(),
            "the topic's last values are the org's records"
        );
    }
}

fn name(name: &str) -> Fields {
    Fields::from([("Name".into(), Value::from(name))])
}

#[tokio::test]
async fn first_sync_then_every_kind_of_change() {
    let world = World::new();
    (0..50).for_each(|number| world.org.quietly(number, &format!("account {number}")));
    let (stop, task) = world.start();
    world.settle().await;
    let before = world.topic().await.len();
    assert_eq!(before, 50);
    world.org.commit(100, EventKind::Create, name("new"));
    world.org.commit(
        3,
        EventKind::Update,
        Fields::from([("City".into(), Value::Null)]),
    );
    world.org.commit(4, EventKind::Delete, Fields::new());
    world.settle().await;
    world
        .org
        .commit(4, EventKind::Undelete, values("account 4", Some("Berlin")));
    world.settle().await;
    assert_eq!(world.topic().await.len(), before + 4, "one change each");
    stop.stop();
    task.await.unwrap();
}

#[tokio::test]
async fn a_restart_goes_on_where_it_stopped() {
    let world = World::new();
    (0..10).for_each(|number| world.org.quietly(number, "old"));
    let (stop, task) = world.start();
    world.settle().await;
    world.org.commit(1, EventKind::Update, name("seen"));
    world.settle().await;
    stop.stop();
    task.await.unwrap();
    let before = world.topic().await.len();
    for number in 0..10 {
        world
            .org
            .commit(number, EventKind::Update, name("while away"));
    }
    let (stop, task) = world.start();
    world.settle().await;
    assert_eq!(world.topic().await.len(), before + 10, "each change once");
    assert!(world.road.state.holes(None, true).await.unwrap().is_empty());
    stop.stop();
    task.await.unwrap();
}

#[tokio::test]
async fn a_lost_position_opens_a_hole_and_a_read_closes_it() {
    let world = World::new();
    (0..10).for_each(|number| world.org.quietly(number, "old"));
    let (stop, task) = world.start();
    world.settle().await;
    world.org.commit(1, EventKind::Update, name("seen"));
    world.settle().await;
    stop.stop();
    task.await.unwrap();
    world.org.commit(2, EventKind::Update, name("missed"));
    world.org.commit(3, EventKind::Delete, Fields::new());
    world.org.commit(200, EventKind::Create, name("missed too"));
    world.org.forget_events();
    let (stop, task) = world.start();
    world.settle().await;
    let holes = world.road.state.holes(None, true).await.unwrap();
    assert_eq!(holes.len(), 1);
    assert_eq!(
        (holes[0].cause, holes[0].state),
        (HoleCause::ExpiredPosition, HoleState::Closed)
    );
    assert_eq!(holes[0].evidence.as_ref().unwrap().deleted, 1);
    stop.stop();
    task.await.unwrap();
}

#[tokio::test]
async fn lost_images_are_rebuilt_from_the_topic_without_a_read() {
    let mut world = World::new();
    (0..10).for_each(|number| world.org.quietly(number, "old"));
    let (stop, task) = world.start();
    world.settle().await;
    world.org.commit(1, EventKind::Update, name("streamed"));
    world.settle().await;
    stop.stop();
    task.await.unwrap();
    let before = world.topic().await.len();
    world.road.images = Arc::new(MemoryImages::default());
    let (stop, task) = world.start();
    world.settle().await;
    assert_eq!(
        world.topic().await.len(),
        before,
        "nothing is published again"
    );
    stop.stop();
    task.await.unwrap();
}
