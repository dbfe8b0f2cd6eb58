//! The org as a CRM's port: reads that are true of an instant within the lag, and the change stream.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::crm::port::{Crm, Heard, Listener, OrgIdentity, Pages, Selection, Start};
use crate::fault::{Fault, FaultKind};
use crate::image::merge::MergeTable;
use crate::model::event::{Event, Found, Page, Row};
use crate::model::name::{ConnectionId, FieldName, ObjectName};
use crate::model::position::Position;
use crate::model::record_id::{InvalidRecordId, RecordId};
use crate::model::schema::{FieldKind, FieldSchema, ObjectSchema};

use super::faults::{Chaos, Process};
use super::org::{Being, FORMULA, Inner, Moment, Ms, Org, REFERENCES, TOLD, date, seconds};
use super::rng::Rng;

/// A read shows a state at most this much older than its start.
pub const LAG: Ms = 5000;
const PAGE: usize = 3;

pub struct SimCrm {
    pub org: Arc<Org>,
    pub id: ConnectionId,
    pub process: Arc<Process>,
    pub chaos: Arc<Chaos>,
    pub table: &'static dyn MergeTable,
    pub rng: Mutex<Rng>,
    /// Events out of a thousand that are delivered twice.
    pub twice: u32,
}

impl SimCrm {
    fn rng(&self) -> Rng {
        self.rng.lock().unwrap().fork()
    }

    /// A at a read's start: the answer's date in whole seconds, less round trip and lag.
    fn as_of(&self, rng: &mut Rng) -> DateTime<Utc> {
        let now = self.org.now();
        let told = if rng.one_in(2) { seconds(now) } else { now };
        date(told - LAG - rng.between(0, 20))
    }

    /// What a read that starts now shows: the state of then, of the lag ago, or between.
    fn seen(&self, rng: &mut Rng) -> Ms {
        let now = self.org.now();
        match rng.below(3) {
            0 => now,
            1 => now - LAG,
            _ => now - rng.between(0, LAG),
        }
    }

    async fn call<T>(
        &self,
        seam: &'static str,
        rng: &mut Rng,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        self.chaos.reads.fetch_add(1, Ordering::SeqCst);
        if self.chaos.refuses_reads.load(Ordering::SeqCst) {
            return Err(Fault::new(
                FaultKind::Throttled,
                "the request limit is exceeded",
            ));
        }
        let (there, back) = (rng.next() % 300, rng.next() % 1200);
        let work = async {
            tokio::time::sleep(Duration::from_millis(there)).await;
            let answer = work.await;
            tokio::time::sleep(Duration::from_millis(back)).await;
            answer
        };
        self.process.pass(seam, FaultKind::Unavailable, work).await
    }

    fn row(
        inner: &Inner,
        selection: &Selection,
        record: &RecordId,
        moment: &Moment,
        seen: Ms,
    ) -> Row {
        let mut fields = moment.shown();
        fields.retain(|field, _| selection.fields.contains(field));
        for path in &selection.fields {
            if path.as_str().contains('.') {
                let value = inner.reached(moment, path.as_str(), seen);
                fields.insert(path.clone(), value);
            }
        }
        Row {
            record: record.clone(),
            fields,
            modified_at: Some(date(seconds(moment.stamp))),
            version: None,
        }
    }

    fn pages(
        &self,
        selection: &Selection,
        window: Option<(Ms, Ms)>,
        after: Option<RecordId>,
    ) -> SimPages {
        let mut rng = self.rng();
        let (as_of, seen) = (self.as_of(&mut rng), self.seen(&mut rng));
        let held = rng.one_in(2);
        let inner = self.org.lock();
        let of = inner.records.keys().filter(|key| key.0 == selection.object);
        let ids: Vec<RecordId> = of
            .filter(|key| after.as_ref().is_none_or(|after| key.1 > *after))
            .filter(|key| {
                inner.moment(key, seen).is_some_and(|moment| {
                    let stamp = seconds(moment.stamp);
                    let inside = window.is_none_or(|(from, to)| stamp >= from && stamp < to);
                    moment.life == Being::Live && inside
                })
            })
            .map(|key| key.1.clone())
            .collect();
        drop(inner);
        self.chaos.trace.say(|| {
            format!(
                "{}: read {} {window:?} after {after:?} as of {as_of}, seen {seen}: {ids:?}",
                self.process.name, selection.object
            )
        });
        SimPages {
            crm: self.clone(),
            selection: selection.clone(),
            as_of,
            seen,
            held,
            ids,
            next: 0,
            total: after.is_none(),
            resumes: window.is_none(),
            rng,
        }
    }
}

impl Clone for SimCrm {
    fn clone(&self) -> Self {
        Self {
            org: Arc::clone(&self.org),
            id: self.id.clone(),
            process: Arc::clone(&self.process),
            chaos: Arc::clone(&self.chaos),
            table: self.table,
            rng: Mutex::new(self.rng()),
            twice: self.twice,
        }
    }
}

struct SimPages {
    crm: SimCrm,
    selection: Selection,
    as_of: DateTime<Utc>,
    seen: Ms,
    /// The CRM holds the whole result as of `seen`; else each page shows what is there when it is read.
    held: bool,
    ids: Vec<RecordId>,
    next: usize,
    total: bool,
    resumes: bool,
    rng: Rng,
}

#[async_trait]
impl Pages for SimPages {
    async fn next(&mut self) -> Result<Option<Page>, Fault> {
        if self.next > self.ids.len() || (self.next == self.ids.len() && self.next > 0) {
            return Ok(None);
        }
        let mut rng = self.rng.fork();
        let page = async {
            let seen = if self.held {
                self.seen
            } else {
                self.crm.seen(&mut self.rng).max(self.seen)
            };
            let inner = self.crm.org.lock();
            let to = (self.next + PAGE).min(self.ids.len());
            let mut rows = Vec::new();
            for record in &self.ids[self.next..to] {
                let key = (self.selection.object.clone(), record.clone());
                let moment = inner.moment(&key, seen);
                let live = moment.filter(|moment| moment.life == Being::Live);
                rows.extend(
                    live.map(|moment| SimCrm::row(&inner, &self.selection, record, moment, seen)),
                );
            }
            drop(inner);
            let last = to == self.ids.len();
            self.next = if last { self.ids.len().max(1) } else { to };
            Ok(Some(Page {
                rows,
                as_of: self.as_of,
                total: (self.held && self.total).then_some(self.ids.len() as u64),
                resume: (!last && self.resumes).then(|| self.ids[to - 1].as_str().to_owned()),
            }))
        };
        let crm = self.crm.clone();
        crm.call("crm.page", &mut rng, page).await
    }
}

#[async_trait]
impl Crm for SimCrm {
    fn connection(&self) -> &ConnectionId {
        &self.id
    }

    async fn identify(&self) -> Result<OrgIdentity, Fault> {
        let identity = OrgIdentity {
            org_id: "00D".into(),
            user_id: "005".into(),
            instance_url: String::new(),
        };
        let work = std::future::ready(Ok(identity));
        self.process
            .pass("crm.identify", FaultKind::Unavailable, work)
            .await
    }

    async fn clock(&self) -> Result<DateTime<Utc>, Fault> {
        let mut rng = self.rng();
        let work = async { Ok(self.as_of(&mut rng)) };
        self.process
            .pass("crm.clock", FaultKind::Unavailable, work)
            .await
    }

    async fn describe(&self, object: &ObjectName) -> Result<ObjectSchema, Fault> {
        let field = |name: &str| {
            // Accounts alone are parents here.
            let step = name.strip_suffix("Id");
            let schema = FieldSchema {
                label: name.to_owned(),
                kind: step.map_or(FieldKind::Text, |_| FieldKind::Reference),
                references: step
                    .map(|_| ObjectName::new("Account"))
                    .into_iter()
                    .collect(),
                relationship: step.map(str::to_owned),
                calculated: name == FORMULA,
                compound: None,
                edition: None,
            };
            (FieldName::new(name), schema)
        };
        let fields = TOLD
            .iter()
            .chain(&REFERENCES)
            .chain([&FORMULA])
            .map(|name| field(name))
            .collect();
        let schema = ObjectSchema {
            name: object.clone(),
            label: object.to_string(),
            fields,
        };
        let work = std::future::ready(Ok(schema));
        self.process
            .pass("crm.describe", FaultKind::Unavailable, work)
            .await
    }

    async fn read_all(
        &self,
        selection: &Selection,
        resume: Option<&str>,
    ) -> Result<Box<dyn Pages>, Fault> {
        let mut rng = self.rng();
        if resume.is_some() && rng.one_in(5) {
            return Err(Fault::new(
                FaultKind::PositionLost,
                "the read can't be resumed",
            ));
        }
        let work = async { Ok(self.pages(selection, None, resume.map(RecordId::stored))) };
        Ok(Box::new(self.call("crm.read_all", &mut rng, work).await?))
    }

    async fn read_window(
        &self,
        selection: &Selection,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Box<dyn Pages>, Fault> {
        let mut rng = self.rng();
        let window = Some((from.timestamp_millis(), to.timestamp_millis()));
        let work = async { Ok(self.pages(selection, window, None)) };
        Ok(Box::new(
            self.call("crm.read_window", &mut rng, work).await?,
        ))
    }

    async fn read_ids(&self, selection: &Selection, ids: &[RecordId]) -> Result<Found, Fault> {
        let mut rng = self.rng();
        let mut inside = self.rng();
        let work = async {
            let (as_of, seen) = (self.as_of(&mut inside), self.seen(&mut inside));
            let inner = self.org.lock();
            let (mut rows, mut absent) = (Vec::new(), Vec::new());
            for record in ids {
                let key = (selection.object.clone(), record.clone());
                match inner.moment(&key, seen) {
                    Some(moment) if moment.life == Being::Live => {
                        rows.push(Self::row(&inner, selection, record, moment, seen));
                    }
                    _ => absent.push(record.clone()),
                }
            }
            drop(inner);
            self.chaos.trace.say(|| {
                format!(
                    "{}: read by id {ids:?} as of {as_of}, seen {seen}, absent {absent:?}",
                    self.process.name
                )
            });
            Ok(Found {
                rows,
                absent,
                as_of,
            })
        };
        self.call("crm.read_ids", &mut rng, work).await
    }

    async fn deleted(
        &self,
        object: &ObjectName,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Vec<RecordId>, Fault> {
        let mut rng = self.rng();
        let mut inside = self.rng();
        let work = async {
            let seen = self.seen(&mut inside);
            let inner = self.org.lock();
            if from.timestamp_millis() < inner.graves_from {
                return Err(Fault::new(
                    FaultKind::PositionLost,
                    "the delete log is too short",
                ));
            }
            let found: BTreeSet<RecordId> = inner
                .graves
                .iter()
                .filter(|(key, stamp, at)| {
                    let inside =
                        *stamp >= from.timestamp_millis() && *stamp < to.timestamp_millis();
                    key.0 == *object && *at <= seen && inside
                })
                .map(|(key, ..)| key.1.clone())
                .collect();
            Ok(found.into_iter().collect())
        };
        self.call("crm.deleted", &mut rng, work).await
    }

    async fn listen(
        &self,
        selections: &[Selection],
        from: Start,
    ) -> Result<Box<dyn Listener>, Fault> {
        let work = async {
            let now = self.org.now();
            let inner = self.org.lock();
            let next = match &from {
                Start::Now => inner
                    .stream
                    .iter()
                    .filter(|told| told.available <= now)
                    .count(),
                Start::Earliest => {
                    self.chaos.broken.fetch_add(1, Ordering::SeqCst);
                    inner.first
                }
                Start::After(position) => index(position),
            };
            if next < inner.first {
                return Err(Fault::new(FaultKind::PositionLost, "replay id is too old"));
            }
            Ok(next)
        };
        let work = self
            .process
            .pass("crm.listen", FaultKind::Unavailable, work);
        let next = work.await?;
        self.chaos
            .trace
            .say(|| format!("{}: listening from event {next}", self.process.name));
        Ok(Box::new(SimListener {
            crm: self.clone(),
            objects: selections.iter().map(|of| of.object.clone()).collect(),
            begin: next,
            next,
        }))
    }

    fn takes_hints(&self) -> bool {
        true
    }

    fn table(&self) -> &dyn MergeTable {
        self.table
    }

    fn record_id(&self, text: &str) -> Result<RecordId, InvalidRecordId> {
        Ok(RecordId::stored(text))
    }
}

/// How many events a position has behind it.
pub fn index(position: &Position) -> usize {
    let text = position.as_str();
    text.split(':').nth(1).unwrap().parse().unwrap()
}

struct SimListener {
    crm: SimCrm,
    objects: BTreeSet<ObjectName>,
    /// Nothing before was delivered on this stream.
    begin: usize,
    next: usize,
}

impl SimListener {
    /// Events that are there, some of them twice; none if nothing is there.
    fn batch(&mut self, rng: &mut Rng) -> Option<Heard> {
        let now = self.crm.org.now();
        let inner = self.crm.org.lock();
        let there = inner
            .stream
            .iter()
            .take_while(|told| told.available <= now)
            .count();
        if there <= self.next {
            return None;
        }
        let mut from = self.next;
        if rng.per_mille(self.crm.twice) {
            // The stream goes back a little and comes again.
            from = from
                .saturating_sub(rng.below(4))
                .max(self.begin)
                .max(inner.first);
        }
        let to = (self.next + 1 + rng.below(5)).min(there);
        let mut events: Vec<Event> = Vec::new();
        for told in &inner.stream[from..to] {
            if self.objects.contains(&told.event.object) {
                events.push(told.event.clone());
            }
        }
        if rng.per_mille(self.crm.twice) && !events.is_empty() {
            // One event once more, out of its place.
            let again = to
                .saturating_sub(1 + rng.below(4))
                .max(self.begin)
                .max(inner.first);
            let again = &inner.stream[again].event;
            if self.objects.contains(&again.object) {
                events.push(again.clone());
            }
        }
        self.next = to;
        let position = Some(inner.stream[to - 1].event.position.clone());
        Some(Heard {
            events,
            position,
            confirmed_at: None,
            lost: Vec::new(),
        })
    }

    fn keep_alive(&self, rng: &mut Rng) -> Heard {
        let now = self.crm.org.now();
        let inner = self.crm.org.lock();
        let next = inner.stream.get(self.next);
        Heard {
            events: Vec::new(),
            position: Some(Position::new(format!("p:{}:k{now}", self.next))),
            confirmed_at: rng
                .one_in(2)
                .then(|| date(next.map_or(now, |told| told.at - 1))),
            lost: Vec::new(),
        }
    }
}

#[async_trait]
impl Listener for SimListener {
    async fn next(&mut self) -> Result<Heard, Fault> {
        let mut rng = self.crm.rng();
        let process = Arc::clone(&self.crm.process);
        let quiet = Duration::from_millis(1000 + rng.next() % 20_000);
        let work = async {
            let until = tokio::time::Instant::now() + quiet;
            loop {
                let org = Arc::clone(&self.crm.org);
                let mut moved = std::pin::pin!(org.moved.notified());
                moved.as_mut().enable();
                if self.next < self.crm.org.lock().first {
                    return Err(Fault::new(FaultKind::PositionLost, "events are gone"));
                }
                if let Some(heard) = self.batch(&mut rng) {
                    return Ok(heard);
                }
                let due = {
                    let inner = self.crm.org.lock();
                    inner.stream.get(self.next).map(|told| told.available)
                };
                let wait = due.map_or(Duration::from_secs(600), |due| {
                    let wait = (due - self.crm.org.now()).max(1);
                    Duration::from_millis(wait.unsigned_abs())
                });
                tokio::select! {
                    biased;
                    () = &mut moved => {}
                    () = tokio::time::sleep(wait) => {}
                    () = tokio::time::sleep_until(until) => return Ok(self.keep_alive(&mut rng)),
                }
            }
        };
        process.pass("crm.next", FaultKind::Unavailable, work).await
    }

    async fn stop(self: Box<Self>) {}
}
