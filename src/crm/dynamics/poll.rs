//! One question for a table's changes, answered in pages.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use crate::crm::port::Selection;
use crate::fault::Fault;
use crate::http::answer::Answer;
use crate::model::event::{Event, EventKind, Row, Transaction};
use crate::model::name::ObjectName;
use crate::model::record_id::RecordId;
use crate::model::value::Fields;

use super::canary::Canaries;
use super::describe::Describer;
use super::merge::ROUNDING;
use super::place::{Link, Modified, Place, Way};
use super::plan::Plan;
use super::read::{REACH, prefer, window};
use super::rest::{Refused, Rest};
use super::row::{Item, PageAnswer};

/// Rows of a page are told as of a second after the answer's date, which is cut to whole seconds.
const SECOND: TimeDelta = TimeDelta::seconds(1);

/// A question under way.
pub struct Poll {
    plan: Arc<Plan>,
    table: ObjectName,
    before: Link,
    canaries: Canaries,
    incarnation: u32,
    next: Next,
    /// When its first page was asked for, on the CRM's clock.
    sent: Option<DateTime<Utc>>,
    /// From when on a row or a read may be newer than a death that this question tells.
    doubted_since: DateTime<Utc>,
    /// Whether any page told something.
    pub told: bool,
}

enum Next {
    Address(String),
    Link(String),
}

/// One page's worth.
pub struct Polled {
    /// What it tells.
    pub events: Vec<Event>,
    /// Where the table stands after the last page; `None` before.
    pub link: Option<Link>,
}

impl Poll {
    /// Asks for the changes of a table since `before`; `doubted_since` is what [`doubted_since`] says of it.
    ///
    /// # Errors
    /// The fault of a describe.
    pub async fn new(
        describer: &Describer,
        selection: &Selection,
        before: Link,
        incarnation: u32,
        doubted_since: DateTime<Utc>,
    ) -> Result<Self, Fault> {
        let plan = Plan::new(describer, selection).await?;
        let next = match &before.way {
            Way::Delta(link) => Next::Link(link.clone()),
            Way::Modified(since) => {
                let filter = window(&plan, since.from - REACH, None)?;
                Next::Address(format!("{}&{filter}", plan.path()))
            }
        };
        Ok(Self {
            table: selection.object.clone(),
            plan: Arc::new(plan),
            canaries: before.canaries.clone(),
            before,
            incarnation,
            next,
            sent: None,
            doubted_since,
            told: false,
        })
    }

    /// The table.
    #[must_use]
    pub const fn table(&self) -> &ObjectName {
        &self.table
    }

    /// Reads the next page.
    ///
    /// # Errors
    /// [`Refused`]; the question can be asked again from its beginning.
    pub async fn page(&mut self, rest: &Rest) -> Result<Polled, Refused> {
        let tracks = matches!(self.before.way, Way::Delta(_));
        let prefer = prefer(rest.settings().page_size, tracks);
        let answer = match &self.next {
            Next::Address(path) => rest.get(path, Some(&prefer)).await?,
            Next::Link(link) => rest.follow(link, Some(&prefer)).await?,
        };
        Ok(self.take(&answer)?)
    }

    fn take(&mut self, answer: &Answer) -> Result<Polled, Fault> {
        let began = answer.began()?;
        let told_at = answer.date().unwrap_or(began) + SECOND;
        let page = PageAnswer::parse(&self.plan, answer.body())?;
        let items = page.items(&self.plan, self.incarnation)?;
        // Of an answer of several pages another one may have the row.
        let is_whole = self.sent.is_none() && page.next.is_none();
        let sent = *self.sent.get_or_insert(began);
        self.told |= !items.is_empty();
        for item in &items {
            match item {
                Item::Row(row) => self.canaries.told(row),
                Item::Gone(record) => self.canaries.forget(record),
            }
        }
        let events = self.events(items, told_at, is_whole);
        let link = match page.next {
            Some(next) => {
                self.next = Next::Link(next);
                None
            }
            None => Some(self.after(page.delta, sent)?),
        };
        Ok(Polled { events, link })
    }

    fn events(&self, items: Vec<Item>, told_at: DateTime<Utc>, is_whole: bool) -> Vec<Event> {
        let rows: HashSet<RecordId> = items
            .iter()
            .filter_map(|item| match item {
                Item::Row(row) => Some(row.record.clone()),
                Item::Gone(_) => None,
            })
            .collect();
        let event = |item| match item {
            Item::Row(row) => self.row(row, told_at),
            Item::Gone(record) => {
                let beside_row = !is_whole || rows.contains(&record);
                self.tombstone(record, told_at, beside_row)
            }
        };
        items.into_iter().map(event).collect()
    }

    fn row(&self, row: Row, told_at: DateTime<Utc>) -> Event {
        let Some(version) = row.version else {
            // Without a number nothing says how new it is: a read decides.
            return self.event(row.record, EventKind::Gap, Fields::new(), told_at, 0);
        };
        let kind = EventKind::Row {
            version,
            modified_at: row.modified_at,
            late: is_late(row.modified_at, self.before.sent),
        };
        self.event(row.record, kind, row.fields, told_at, version.number)
    }

    fn tombstone(&self, record: RecordId, told_at: DateTime<Utc>, beside_row: bool) -> Event {
        let kind = EventKind::Tombstone {
            since: self.doubted_since,
            beside_row,
        };
        self.event(record, kind, Fields::new(), told_at, 0)
    }

    fn event(
        &self,
        record: RecordId,
        kind: EventKind,
        fields: Fields,
        told_at: DateTime<Utc>,
        number: u64,
    ) -> Event {
        // A row's number tells it from others; what has none is told anew by each question.
        let key = match kind {
            EventKind::Row { .. } => format!("row/{}", self.incarnation),
            _ => format!("{}/{}", self.incarnation, told_at.timestamp()),
        };
        Event {
            object: self.table.clone(),
            records: vec![record],
            kind,
            changed: Vec::new(),
            fields,
            committed_at: told_at,
            transaction: Transaction {
                key,
                sequence: i64::try_from(number).unwrap_or(i64::MAX),
                user: None,
                client: None,
            },
            position: Place::of_event(&self.table, self.incarnation, number),
        }
    }

    fn after(&self, delta: Option<String>, sent: DateTime<Utc>) -> Result<Link, Fault> {
        let way = match (&self.before.way, delta) {
            (Way::Delta(_), Some(delta)) => Way::Delta(delta),
            (Way::Delta(_), None) => {
                let what = format!("the changes of {} end without a delta link", self.table);
                return Err(Fault::new(crate::fault::FaultKind::Protocol, what));
            }
            (Way::Modified(before), _) => Way::Modified(Modified {
                from: sent,
                compared: before.compared,
            }),
        };
        Ok(Link {
            fields: self.before.fields.clone(),
            way,
            sent,
            canaries: self.canaries.clone(),
        })
    }
}

/// From when on what was seen of a record may be newer than a death that the next question tells, where the question
/// before it was sent at `before` and the first one of this process' life at `first`, on the CRM's clock.
///
/// Each question may show deaths up to `lag` late. What was seen before this life and changed no value is in no topic:
/// until every death of before is surely told, any row may be newer than one that is told.
#[must_use]
pub fn doubted_since(
    before: DateTime<Utc>,
    first: Option<DateTime<Utc>>,
    lag: TimeDelta,
) -> DateTime<Utc> {
    let told_to = before - lag;
    match first {
        Some(first) if first + ROUNDING < told_to => told_to,
        _ => DateTime::<Utc>::MIN_UTC,
    }
}

/// Whether a row that was changed at `modified` may be of before the question that was sent at `before`.
#[must_use]
pub fn is_late(modified: Option<DateTime<Utc>>, before: DateTime<Utc>) -> bool {
    modified.is_none_or(|modified| modified <= before + ROUNDING)
}
