//! An org by script: records that are read once, and a stream that tells each change at its scheduled time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;
use tributary::crm::port::{Crm, Heard, Listener, OrgIdentity, Pages, Selection, Start};
use tributary::crm::salesforce::merge::SalesforceTable;
use tributary::fault::Fault;
use tributary::image::merge::MergeTable;
use tributary::model::event::{Event, EventKind, Found, Page, Row, Transaction};
use tributary::model::name::{ConnectionId, FieldName, ObjectName};
use tributary::model::position::Position;
use tributary::model::record_id::{InvalidRecordId, RecordId};
use tributary::model::schema::{FieldKind, FieldSchema, ObjectSchema};
use tributary::model::value::{Fields, Value};

use super::load::{self, Parents};

/// Rows of a page.
const PAGE: usize = 2000;
/// What one answer of the stream tells at most, however late it is.
const TOLD_AT_ONCE: usize = 500;

/// What the stream tells: change `n` is due `n` times `every` after the beginning, of record `n % records`.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    pub records: usize,
    pub changes: usize,
    pub every: Duration,
}

/// When the first change is due, on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Beginning {
    pub at: Instant,
    date: DateTime<Utc>,
}

impl Beginning {
    pub fn soon() -> Self {
        let ahead = Duration::from_millis(100);
        Self {
            at: Instant::now() + ahead,
            date: Utc::now() + TimeDelta::from_std(ahead).unwrap_or_default(),
        }
    }
}

/// The org; its stream is silent until [`ScriptedOrg::begin`].
pub struct ScriptedOrg {
    connection: ConnectionId,
    schedule: Schedule,
    begins: watch::Sender<Option<Beginning>>,
}

impl ScriptedOrg {
    pub fn new(schedule: Schedule) -> Self {
        Self {
            connection: ConnectionId::new("acme"),
            schedule,
            begins: watch::Sender::new(None),
        }
    }

    pub fn begin(&self, beginning: Beginning) {
        self.begins.send_replace(Some(beginning));
    }

    fn row(number: usize) -> Row {
        Row {
            record: load::record(number),
            fields: load::fields(number, 0, Parents::None),
            modified_at: None,
            version: None,
        }
    }
}

#[async_trait]
impl Crm for ScriptedOrg {
    fn connection(&self) -> &ConnectionId {
        &self.connection
    }

    async fn identify(&self) -> Result<OrgIdentity, Fault> {
        Ok(OrgIdentity {
            org_id: "00D000000000001EAA".to_owned(),
            user_id: "005000000000001AAA".to_owned(),
            instance_url: String::new(),
        })
    }

    async fn clock(&self) -> Result<DateTime<Utc>, Fault> {
        Ok(Utc::now())
    }

    async fn describe(&self, object: &ObjectName) -> Result<ObjectSchema, Fault> {
        let field = |place| {
            let schema = FieldSchema {
                label: format!("Field {place}"),
                kind: FieldKind::Text,
                references: Vec::new(),
                relationship: None,
                calculated: false,
                compound: None,
                edition: None,
            };
            (FieldName::new(format!("Field_{place}__c")), schema)
        };
        Ok(ObjectSchema {
            name: object.clone(),
            label: object.to_string(),
            fields: (0..load::COLUMNS).map(field).collect::<BTreeMap<_, _>>(),
        })
    }

    async fn read_all(
        &self,
        _selection: &Selection,
        resume: Option<&str>,
    ) -> Result<Box<dyn Pages>, Fault> {
        Ok(Box::new(ScriptedPages {
            next: resume.map_or(0, |place| place.parse().unwrap()),
            records: self.schedule.records,
            as_of: Utc::now(),
        }))
    }

    /// Nothing changed but what the stream tells.
    async fn read_window(
        &self,
        _selection: &Selection,
        _from: DateTime<Utc>,
        _to: DateTime<Utc>,
    ) -> Result<Box<dyn Pages>, Fault> {
        Ok(Box::new(ScriptedPages {
            next: 0,
            records: 0,
            as_of: Utc::now(),
        }))
    }

    async fn read_ids(&self, _selection: &Selection, ids: &[RecordId]) -> Result<Found, Fault> {
        panic!(
            "nothing should be owed, and {} records are read by id",
            ids.len()
        );
    }

    async fn deleted(
        &self,
        _object: &ObjectName,
        _from: DateTime<Utc>,
        _to: DateTime<Utc>,
    ) -> Result<Vec<RecordId>, Fault> {
        Ok(Vec::new())
    }

    async fn listen(
        &self,
        selections: &[Selection],
        from: Start,
    ) -> Result<Box<dyn Listener>, Fault> {
        assert_eq!(from, Start::Now, "the connection was begun anew");
        Ok(Box::new(ScriptedListener {
            object: selections[0].object.clone(),
            schedule: self.schedule,
            begins: self.begins.subscribe(),
            next: 0,
        }))
    }

    fn table(&self) -> &dyn MergeTable {
        &SalesforceTable
    }

    fn record_id(&self, text: &str) -> Result<RecordId, InvalidRecordId> {
        Ok(RecordId::stored(text))
    }
}

struct ScriptedPages {
    next: usize,
    records: usize,
    as_of: DateTime<Utc>,
}

#[async_trait]
impl Pages for ScriptedPages {
    async fn next(&mut self) -> Result<Option<Page>, Fault> {
        if self.next >= self.records {
            return Ok(None);
        }
        let to = (self.next + PAGE).min(self.records);
        let rows = (self.next..to).map(ScriptedOrg::row).collect();
        self.next = to;
        Ok(Some(Page {
            rows,
            as_of: self.as_of,
            total: Some(self.records as u64),
            resume: (to < self.records).then(|| to.to_string()),
        }))
    }
}

struct ScriptedListener {
    object: ObjectName,
    schedule: Schedule,
    begins: watch::Receiver<Option<Beginning>>,
    next: usize,
}

impl ScriptedListener {
    fn event(&self, number: usize, beginning: Beginning) -> Event {
        let due = self.schedule.every * u32::try_from(number).unwrap();
        let fields: Fields = [
            (
                "Field_1__c",
                Value::text(format!("Told by change {number}")),
            ),
            (NUMBERED, Value::number(&number.to_string()).unwrap()),
        ]
        .into_iter()
        .map(|(name, value)| (FieldName::new(name), value))
        .collect();
        Event {
            object: self.object.clone(),
            records: vec![load::record(number % self.schedule.records)],
            kind: EventKind::Update,
            changed: fields.keys().cloned().collect(),
            fields,
            committed_at: beginning.date + TimeDelta::from_std(due).unwrap_or_default(),
            transaction: Transaction {
                key: format!("000a0000-0000-0000-0000-{number:012}"),
                sequence: 1,
                user: Some("005000000000001AAA".to_owned()),
                client: None,
            },
            position: Position::new(format!("bench:{number}")),
        }
    }
}

/// The field that holds a change's number, and the column that it is mapped to.
pub const NUMBERED: &str = "Field_14__c";
pub const NUMBERED_COLUMN: &str = "column_14";

#[async_trait]
impl Listener for ScriptedListener {
    async fn next(&mut self) -> Result<Heard, Fault> {
        let beginning = self
            .begins
            .wait_for(Option::is_some)
            .await
            .unwrap()
            .unwrap();
        if self.next == self.schedule.changes {
            return std::future::pending().await;
        }
        let due = beginning.at + self.schedule.every * u32::try_from(self.next).unwrap();
        tokio::time::sleep_until(due.into()).await;
        let since = Instant::now().saturating_duration_since(beginning.at);
        let there = (since.as_nanos() / self.schedule.every.as_nanos()) as usize + 1;
        let to = there
            .clamp(self.next + 1, self.next + TOLD_AT_ONCE)
            .min(self.schedule.changes);
        let events: Vec<Event> = (self.next..to)
            .map(|number| self.event(number, beginning))
            .collect();
        self.next = to;
        Ok(Heard {
            position: events.last().map(|event| event.position.clone()),
            events,
            confirmed_at: None,
            lost: Vec::new(),
        })
    }

    async fn stop(self: Box<Self>) {}
}
