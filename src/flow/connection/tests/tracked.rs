//! An org with change tracking, as small as it can be: numbered rows, a list of what changed, a place in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Notify;

use crate::crm::dynamics::merge::DynamicsTable;
use crate::crm::port::{
    Crm, DeliverySpent, Heard, Listener, Lost, LostCause, OrgIdentity, Pages, Selection, Start,
};
use crate::fault::{Fault, FaultKind};
use crate::image::merge::MergeTable;
use crate::model::event::{Event, EventKind, Found, Page, Row, RowVersion, Transaction};
use crate::model::name::{ConnectionId, FieldName, ObjectName};
use crate::model::position::Position;
use crate::model::record_id::{InvalidRecordId, RecordId};
use crate::model::schema::{FieldKind, FieldSchema, ObjectSchema};
use crate::model::value::{Fields, Value};
use crate::runtime::clock::{Clock, VirtualClock};

const LAG: i64 = 5;

pub struct Org {
    clock: VirtualClock,
    inner: Mutex<Inner>,
    moved: Notify,
}

/// Rows by record: number and name.
type Rows = BTreeMap<String, (u64, String)>;

#[derive(Default)]
struct Inner {
    rows: Rows,
    number: u64,
    /// What changed: a record, whether it lived then.
    changes: Vec<(String, bool)>,
    /// The next question for changes is refused.
    loses: bool,
    /// Places of before this are not taken.
    first: usize,
    refuses: bool,
    whole_reads: usize,
    incarnation: u32,
    /// How far the listener is; `None` until a whole read begins it.
    place: Option<usize>,
    sent: Option<DateTime<Utc>>,
    /// What reads by id showed and when it ended; they may be behind.
    past: Vec<(DateTime<Utc>, Rows)>,
    lag: Duration,
    reads_by_id: usize,
    /// The stream tells nothing.
    is_silent: bool,
    /// No event is delivered any more today.
    is_spent: bool,
    is_poor: bool,
    /// Whole reads begin no stream: records may be read by id at any time.
    is_ungated: bool,
    looks: Vec<ObjectName>,
}

impl Inner {
    fn keep(&mut self, until: DateTime<Utc>) {
        self.past.push((until, self.rows.clone()));
    }

    /// The rows as they were some time ago.
    fn rows_behind(&self, now: DateTime<Utc>) -> &Rows {
        let seen = now - TimeDelta::from_std(self.lag).unwrap();
        let kept = self.past.iter().find(|(until, _)| *until > seen);
        kept.map_or(&self.rows, |(_, rows)| rows)
    }
}

impl Org {
    pub fn new(clock: VirtualClock) -> Self {
        Self {
            clock,
            inner: Mutex::default(),
            moved: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn put(&self, record: &str, name: &str) {
        self.put_untold(record, name);
        self.tell(record);
    }

    pub fn put_untold(&self, record: &str, name: &str) {
        let mut inner = self.lock();
        inner.keep(self.clock.now());
        inner.number += 1;
        let row = (inner.number, name.to_owned());
        inner.rows.insert(record.to_owned(), row);
    }

    pub fn delete(&self, record: &str) {
        self.delete_untold(record);
        self.tell(record);
    }

    pub fn delete_untold(&self, record: &str) {
        let mut inner = self.lock();
        inner.keep(self.clock.now());
        inner.rows.remove(record);
    }

    /// Reads by id are so far behind from now on.
    pub fn lag(&self, lag: Duration) {
        self.lock().lag = lag;
    }

    pub fn reads_by_id(&self) -> usize {
        self.lock().reads_by_id
    }

    pub fn ungate(&self) {
        self.lock().is_ungated = true;
    }

    pub fn spend_deliveries(&self, is_spent: bool) {
        self.lock().is_spent = is_spent;
    }

    pub fn silence(&self) {
        self.lock().is_silent = true;
    }

    pub fn speak(&self) {
        self.lock().is_silent = false;
        self.moved.notify_one();
    }

    pub fn afford_hints(&self, affords: bool) {
        self.lock().is_poor = !affords;
    }

    /// Objects that the stream was asked to look at.
    pub fn looks(&self) -> Vec<ObjectName> {
        self.lock().looks.clone()
    }

    pub fn tell(&self, record: &str) {
        let mut inner = self.lock();
        let lives = inner.rows.contains_key(record);
        inner.changes.push((record.to_owned(), lives));
        drop(inner);
        self.moved.notify_one();
    }

    pub fn lose(&self) {
        self.lock().loses = true;
        self.moved.notify_one();
    }

    pub fn forget_places(&self) {
        let mut inner = self.lock();
        inner.first = inner.changes.len() + 1;
        let marker = ("nobody".to_owned(), false);
        inner.changes.push(marker);
    }

    pub fn refuse_reads(&self, refuses: bool) {
        self.lock().refuses = refuses;
    }

    pub fn whole_reads(&self) -> usize {
        self.lock().whole_reads
    }

    pub fn backup(&self) -> (Rows, u64) {
        let inner = self.lock();
        (inner.rows.clone(), inner.number)
    }

    pub fn restore(&self, (rows, number): (Rows, u64)) {
        let mut inner = self.lock();
        (inner.rows, inner.number) = (rows, number);
    }

    pub fn names(&self) -> BTreeMap<String, String> {
        let inner = self.lock();
        let names = inner
            .rows
            .iter()
            .map(|(id, (_, name))| (id.clone(), name.clone()));
        names.collect()
    }
}

pub struct Tracked {
    org: Arc<Org>,
    connection: ConnectionId,
    table: DynamicsTable,
}

impl Tracked {
    pub fn new(org: Arc<Org>) -> Self {
        Self {
            org,
            connection: ConnectionId::new("contoso"),
            table: DynamicsTable::new(TimeDelta::seconds(LAG)),
        }
    }

    pub fn incarnation(position: &Position) -> u32 {
        read(position).0
    }

    fn as_of(&self) -> DateTime<Utc> {
        self.org.clock.now() - TimeDelta::seconds(LAG)
    }

    fn row(inner: &Inner, record: &str) -> Option<Row> {
        Self::row_of(inner, &inner.rows, record)
    }

    fn row_of(inner: &Inner, rows: &Rows, record: &str) -> Option<Row> {
        let (number, name) = rows.get(record)?;
        Some(Row {
            record: RecordId::stored(record),
            fields: fields(name),
            modified_at: None,
            version: Some(RowVersion {
                incarnation: inner.incarnation,
                number: *number,
            }),
        })
    }
}

fn fields(name: &str) -> Fields {
    [(FieldName::new("name"), Value::from(name))].into()
}

/// Incarnation and place.
fn read(position: &Position) -> (u32, Option<usize>) {
    let (incarnation, place) = position.as_str().split_once(':').unwrap();
    (incarnation.parse().unwrap(), place.parse().ok())
}

fn written(inner: &Inner) -> Position {
    let place = inner
        .place
        .map_or("-".to_owned(), |place| place.to_string());
    Position::new(format!("{}:{place}", inner.incarnation))
}

struct Whole {
    org: Arc<Org>,
    page: Option<Page>,
    begins: usize,
}

#[async_trait]
impl Pages for Whole {
    async fn next(&mut self) -> Result<Option<Page>, Fault> {
        let page = self.page.take();
        if page.is_none() {
            let begins = self.begins;
            self.org.lock().place.get_or_insert(begins);
            self.org.moved.notify_one();
        }
        Ok(page)
    }
}

#[async_trait]
impl Crm for Tracked {
    fn connection(&self) -> &ConnectionId {
        &self.connection
    }

    async fn identify(&self) -> Result<OrgIdentity, Fault> {
        Ok(OrgIdentity {
            org_id: "org".to_owned(),
            user_id: "user".to_owned(),
            instance_url: String::new(),
        })
    }

    async fn clock(&self) -> Result<DateTime<Utc>, Fault> {
        Ok(self.as_of())
    }

    async fn describe(&self, object: &ObjectName) -> Result<ObjectSchema, Fault> {
        let field = |kind| FieldSchema {
            label: String::new(),
            kind,
            references: Vec::new(),
            relationship: None,
            calculated: false,
            compound: None,
            edition: None,
        };
        let fields = [("Id", FieldKind::Id), ("name", FieldKind::Text)];
        Ok(ObjectSchema {
            name: object.clone(),
            label: String::new(),
            fields: fields
                .map(|(name, kind)| (FieldName::new(name), field(kind)))
                .into(),
        })
    }

    async fn read_all(
        &self,
        _selection: &Selection,
        _resume: Option<&str>,
    ) -> Result<Box<dyn Pages>, Fault> {
        let mut inner = self.org.lock();
        if inner.refuses {
            return Err(Fault::new(FaultKind::Unavailable, "no reads now"));
        }
        inner.whole_reads += 1;
        let ids: Vec<String> = inner.rows.keys().cloned().collect();
        let rows = ids.iter().filter_map(|id| Self::row(&inner, id)).collect();
        let page = Page {
            rows,
            as_of: self.as_of(),
            total: None,
            resume: None,
        };
        Ok(Box::new(Whole {
            org: Arc::clone(&self.org),
            page: Some(page),
            begins: inner.changes.len(),
        }))
    }

    async fn read_window(
        &self,
        selection: &Selection,
        _from: DateTime<Utc>,
        _to: DateTime<Utc>,
    ) -> Result<Box<dyn Pages>, Fault> {
        self.read_all(selection, None).await
    }

    async fn read_ids(&self, _selection: &Selection, ids: &[RecordId]) -> Result<Found, Fault> {
        let mut inner = self.org.lock();
        inner.reads_by_id += 1;
        let rows = inner.rows_behind(self.org.clock.now());
        let mut found = Found {
            rows: Vec::new(),
            absent: Vec::new(),
            as_of: self.as_of(),
        };
        for id in ids {
            match Self::row_of(&inner, rows, id.as_str()) {
                Some(row) => found.rows.push(row),
                None => found.absent.push(id.clone()),
            }
        }
        Ok(found)
    }

    async fn deleted(
        &self,
        _object: &ObjectName,
        _from: DateTime<Utc>,
        _to: DateTime<Utc>,
    ) -> Result<Vec<RecordId>, Fault> {
        Err(Fault::new(FaultKind::PositionLost, "no list of deletes"))
    }

    async fn listen(
        &self,
        selections: &[Selection],
        from: Start,
    ) -> Result<Box<dyn Listener>, Fault> {
        let mut inner = self.org.lock();
        (inner.incarnation, inner.place) = match &from {
            Start::Now | Start::Earliest => (0, None),
            Start::After(position) => read(position),
        };
        let first = inner.first;
        inner.place = inner.place.filter(|place| *place >= first);
        Ok(Box::new(Changes {
            org: Arc::clone(&self.org),
            object: selections[0].object.clone(),
            begun: false,
        }))
    }

    fn goes_on(&self, position: &Position, _selection: &Selection) -> bool {
        let first = self.org.lock().first;
        read(position).1.is_some_and(|place| place >= first)
    }

    fn after_restore(&self, position: Option<&Position>) -> Option<Position> {
        let incarnation = position.map_or(0, |position| read(position).0);
        Some(Position::new(format!("{}:-", incarnation + 1)))
    }

    fn whole_reads_begin_streams(&self) -> bool {
        !self.org.lock().is_ungated
    }

    fn takes_hints(&self) -> bool {
        true
    }

    fn affords_hints(&self) -> bool {
        !self.org.lock().is_poor
    }

    fn look(&self, object: &ObjectName) {
        self.org.lock().looks.push(object.clone());
    }

    fn table(&self) -> &dyn MergeTable {
        &self.table
    }

    fn record_id(&self, text: &str) -> Result<RecordId, InvalidRecordId> {
        Ok(RecordId::stored(text))
    }
}

struct Changes {
    org: Arc<Org>,
    object: ObjectName,
    begun: bool,
}

impl Changes {
    fn lost(&self, inner: &mut Inner) -> Heard {
        inner.loses = false;
        inner.place = None;
        Heard {
            position: Some(written(inner)),
            lost: vec![Lost {
                object: self.object.clone(),
                cause: LostCause::Expired,
                to: self.org.clock.now() + TimeDelta::seconds(1),
            }],
            ..Heard::default()
        }
    }

    fn told(&self, inner: &mut Inner, place: usize) -> Heard {
        let now = self.org.clock.now();
        let since = inner.sent.replace(now).unwrap_or(now);
        let told: BTreeSet<String> = inner.changes[place..].iter().map(|c| c.0.clone()).collect();
        let mut events = Vec::new();
        for record in told {
            let row = Tracked::row(inner, &record);
            let (kind, number) = match &row {
                Some(row) => {
                    let version = row.version.unwrap();
                    let kind = EventKind::Row {
                        version,
                        modified_at: None,
                        late: false,
                    };
                    (kind, version.number)
                }
                None => {
                    let kind = EventKind::Tombstone {
                        since,
                        beside_row: false,
                    };
                    (kind, 0)
                }
            };
            events.push(Event {
                object: self.object.clone(),
                records: vec![RecordId::stored(&record)],
                kind,
                fields: row.map(|row| row.fields).unwrap_or_default(),
                changed: Vec::new(),
                committed_at: now,
                transaction: Transaction {
                    key: format!("{}/{}", inner.incarnation, now.timestamp_millis()),
                    sequence: i64::try_from(number).unwrap(),
                    user: None,
                    client: None,
                },
                position: Position::new(format!("event:{number}")),
            });
        }
        inner.place = Some(inner.changes.len());
        Heard {
            events,
            position: Some(written(inner)),
            confirmed_at: Some(now - TimeDelta::seconds(LAG)),
            lost: Vec::new(),
        }
    }
}

#[async_trait]
impl Listener for Changes {
    async fn next(&mut self) -> Result<Heard, Fault> {
        loop {
            if self.begun {
                tokio::select! {
                    () = self.org.moved.notified() => {}
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
            }
            {
                let mut inner = self.org.lock();
                if inner.is_spent {
                    return Err(Fault::new(FaultKind::Throttled, "nothing is delivered")
                        .retry_after(Duration::from_hours(1))
                        .source(DeliverySpent));
                }
                if !std::mem::replace(&mut self.begun, true) {
                    return Ok(Heard {
                        position: Some(written(&inner)),
                        ..Heard::default()
                    });
                }
                match inner.place {
                    _ if inner.is_silent => {}
                    Some(_) if inner.loses => return Ok(self.lost(&mut inner)),
                    Some(place) => return Ok(self.told(&mut inner, place)),
                    None => {}
                }
            }
        }
    }

    async fn stop(self: Box<Self>) {}
}
