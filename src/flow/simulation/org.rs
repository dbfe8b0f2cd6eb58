//! An org: records with their whole history, transactions that take time, and the change stream they leave.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use chrono::{DateTime, TimeZone, Utc};
use tokio::sync::Notify;

use crate::model::event::{Event, EventKind, GapCause, Transaction};
use crate::model::name::{FieldName, ObjectName};
use crate::model::position::Position;
use crate::model::record_id::RecordId;
use crate::model::value::{Fields, Value};
use crate::runtime::clock::{Clock, VirtualClock};

use super::rng::Rng;

/// Fields of every object that events tell. `Hidden` is never selected, and the formula uses it.
pub const TOLD: [&str; 4] = ["Name", "City", "Stage", "Hidden"];
/// Fields that hold other records' ids; told like the others.
pub const REFERENCES: [&str; 2] = [PARENT_ID, ACCOUNT_ID];
pub const PARENT_ID: &str = "ParentId";
pub const ACCOUNT_ID: &str = "AccountId";
/// The field that only reads tell.
pub const FORMULA: &str = "F";

/// Milliseconds since the clock's zero.
pub type Ms = i64;

pub type Key = (ObjectName, RecordId);

pub struct Org {
    inner: Mutex<Inner>,
    pub moved: Notify,
    clock: VirtualClock,
}

#[derive(Default)]
pub struct Inner {
    pub records: BTreeMap<Key, Vec<Moment>>,
    pub stream: Vec<Told>,
    /// The first event that the org still holds.
    pub first: usize,
    pub open: Vec<Txn>,
    /// Deletes as the org logs them: record, stamp of the statement, commit.
    pub graves: Vec<(Key, Ms, Ms)>,
    /// The delete log reaches back to here.
    pub graves_from: Ms,
    serial: u64,
}

/// A record from one commit to the next.
#[derive(Debug, Clone)]
pub struct Moment {
    pub at: Ms,
    pub life: Being,
    pub fields: Fields,
    /// SystemModstamp: when the statement ran.
    pub stamp: Ms,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Being {
    Live,
    Binned,
    Gone,
}

pub struct Told {
    pub event: Event,
    pub at: Ms,
    pub available: Ms,
}

/// What the stream says of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    Events,
    /// Equal events merged into one with several ids.
    Merged,
    Gap,
    ObjectGap(GapCause),
}

pub struct Txn {
    key: String,
    telling: Telling,
    deeds: Vec<(Key, Deed, Ms)>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Deed {
    Create(Fields),
    Update(Fields),
    Delete,
    Undelete,
    /// Leaves no event.
    HardDelete,
}

impl Txn {
    /// The records that it holds.
    pub fn records(&self) -> Vec<Key> {
        self.deeds.iter().map(|(key, ..)| key.clone()).collect()
    }
}

/// A date of the model.
pub fn date(ms: Ms) -> DateTime<Utc> {
    Utc.timestamp_millis_opt(ms).unwrap()
}

pub fn seconds(ms: Ms) -> Ms {
    ms.div_euclid(1000) * 1000
}

pub fn formula(fields: &Fields) -> Value {
    let shown = |field: &str| fields.get(&FieldName::new(field)).map(Value::to_string);
    Value::from(format!("{:?}+{:?}", shown("Name"), shown("Hidden")).as_str())
}

impl Org {
    pub fn new(clock: VirtualClock) -> Self {
        Self {
            inner: Mutex::default(),
            moved: Notify::new(),
            clock,
        }
    }

    pub fn now(&self) -> Ms {
        self.clock.now().timestamp_millis()
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Begins a transaction and runs its first statements; `None` if a record is locked or not there for it.
    pub fn begin(&self, telling: Telling, deeds: &[(Key, Deed)]) -> Option<usize> {
        let now = self.now();
        let mut inner = self.lock();
        inner.serial += 1;
        let key = format!("t{}", inner.serial);
        inner.open.push(Txn {
            key,
            telling,
            deeds: Vec::new(),
        });
        let number = inner.open.len() - 1;
        for (record, deed) in deeds {
            inner.statement(number, record, deed, now);
        }
        if inner.open[number].deeds.is_empty() {
            inner.open.pop();
            return None;
        }
        Some(number)
    }

    /// One more statement of an open transaction.
    pub fn statement(&self, number: usize, record: &Key, deed: &Deed) -> bool {
        let now = self.now();
        self.lock().statement(number, record, deed, now)
    }

    /// Commits an open transaction; its events become available after `delay`.
    pub fn commit(&self, number: usize, delay: Ms) -> String {
        let now = self.now();
        let mut inner = self.lock();
        let txn = inner.open.remove(number);
        let shown = inner.commit(txn, now, delay);
        drop(inner);
        self.moved.notify_waiters();
        shown
    }

    /// Begins and commits at once.
    pub fn at_once(&self, telling: Telling, deeds: &[(Key, Deed)], delay: Ms) -> Option<String> {
        let number = self.begin(telling, deeds)?;
        Some(self.commit(number, delay))
    }

    /// A value that there was not before.
    pub fn fresh(&self, rng: &mut Rng) -> Value {
        if rng.one_in(4) {
            return Value::Null;
        }
        let mut inner = self.lock();
        inner.serial += 1;
        Value::from(format!("v{}", inner.serial).as_str())
    }

    /// The live records of an object, whole, as they are now.
    pub fn truth(&self, object: &ObjectName) -> BTreeMap<RecordId, Fields> {
        let inner = self.lock();
        let of = inner.records.iter().filter(|((of, _), _)| of == object);
        of.filter_map(|((_, record), moments)| {
            let last = moments.last().filter(|last| last.life == Being::Live)?;
            Some((record.clone(), last.shown()))
        })
        .collect()
    }

    /// The live records of an object as they are now, by what is selected of them and of their parents.
    pub fn selected(
        &self,
        object: &ObjectName,
        selected: &BTreeSet<FieldName>,
    ) -> BTreeMap<RecordId, Fields> {
        let inner = self.lock();
        let of = inner.records.iter().filter(|((of, _), _)| of == object);
        of.filter_map(|((_, record), moments)| {
            let last = moments.last().filter(|last| last.life == Being::Live)?;
            let reached = |field: &FieldName| {
                let value = inner.reached(last, field.as_str(), Ms::MAX);
                (field.clone(), value)
            };
            Some((record.clone(), selected.iter().map(reached).collect()))
        })
        .collect()
    }
}

impl Moment {
    /// What a read shows of it.
    pub fn shown(&self) -> Fields {
        let mut fields = self.fields.clone();
        fields.insert(FieldName::new(FORMULA), formula(&self.fields));
        fields
    }
}

impl Inner {
    /// What a read shows at the end of a path: empty where a parent is not there.
    pub fn reached(&self, moment: &Moment, path: &str, seen: Ms) -> Value {
        let Some((step, rest)) = path.split_once('.') else {
            let found = moment.shown().remove(path);
            return found.unwrap_or(Value::Null);
        };
        let reference = REFERENCES.iter().find(|name| name.starts_with(step));
        let id = reference.and_then(|name| moment.fields.get(*name)?.as_text());
        let parent = id.map(|id| (ObjectName::new("Account"), RecordId::stored(id)));
        parent
            .and_then(|key| self.moment(&key, seen))
            .filter(|parent| parent.life == Being::Live)
            .map_or(Value::Null, |parent| self.reached(parent, rest, seen))
    }

    /// A record as of an instant.
    pub fn moment(&self, key: &Key, seen: Ms) -> Option<&Moment> {
        let moments = self.records.get(key)?;
        moments.iter().rev().find(|moment| moment.at <= seen)
    }

    pub fn is_locked(&self, key: &Key) -> bool {
        let mut open = self.open.iter().flat_map(|txn| &txn.deeds);
        open.any(|(locked, ..)| locked == key)
    }

    /// When the oldest open transaction began.
    pub fn open_since(&self) -> Option<Ms> {
        let stamps = self.open.iter().flat_map(|txn| &txn.deeds);
        stamps.map(|(.., stamp)| *stamp).min()
    }

    fn statement(&mut self, number: usize, key: &Key, deed: &Deed, now: Ms) -> bool {
        let own = self.open[number].deeds.iter().find(|(own, ..)| own == key);
        let fits = match own {
            // Within one transaction only updates follow, on what it created, updated or brought back.
            Some((_, first, _)) => {
                matches!(deed, Deed::Update(_))
                    && matches!(first, Deed::Create(_) | Deed::Update(_) | Deed::Undelete)
            }
            None if self.is_locked(key) => false,
            None => {
                let life = self.moment(key, now).map(|moment| moment.life);
                match deed {
                    Deed::Create(_) => life.is_none(),
                    Deed::Update(_) | Deed::Delete => life == Some(Being::Live),
                    Deed::Undelete => life == Some(Being::Binned),
                    Deed::HardDelete => matches!(life, Some(Being::Live | Being::Binned)),
                }
            }
        };
        if fits {
            self.open[number]
                .deeds
                .push((key.clone(), deed.clone(), now));
        }
        fits
    }

    fn commit(&mut self, txn: Txn, now: Ms, delay: Ms) -> String {
        let mut events: Vec<(ObjectName, Vec<RecordId>, EventKind, Fields)> = Vec::new();
        let mut silent = BTreeSet::new();
        let mut done = BTreeSet::new();
        for (key, first, _) in &txn.deeds {
            if !done.insert(key.clone()) {
                continue;
            }
            let own: Vec<(&Deed, Ms)> = txn
                .deeds
                .iter()
                .filter(|(of, ..)| of == key)
                .map(|(_, deed, stamp)| (deed, *stamp))
                .collect();
            let moment = self.after(key, &own, now);
            let told = match first {
                Deed::HardDelete => {
                    self.records.entry(key.clone()).or_default().push(moment);
                    continue;
                }
                Deed::Create(_) | Deed::Undelete => {
                    let mut told = moment.fields.clone();
                    told.retain(|_, value| !value.is_null());
                    told
                }
                Deed::Update(_) => own
                    .iter()
                    .filter_map(|(deed, _)| match deed {
                        Deed::Update(told) => Some(told.clone()),
                        _ => None,
                    })
                    .flatten()
                    .collect(),
                Deed::Delete => Fields::new(),
            };
            self.records.entry(key.clone()).or_default().push(moment);
            let kind = match (txn.telling, first) {
                (Telling::Gap, _) => EventKind::Gap,
                (Telling::ObjectGap(cause), _) => {
                    if silent.insert(key.0.clone()) {
                        let kind = EventKind::ObjectGap(cause);
                        events.push((key.0.clone(), Vec::new(), kind, Fields::new()));
                    }
                    continue;
                }
                (_, Deed::Create(_)) => EventKind::Create,
                (_, Deed::Update(_)) => EventKind::Update,
                (_, Deed::Delete | Deed::HardDelete) => EventKind::Delete,
                (_, Deed::Undelete) => EventKind::Undelete,
            };
            let told = if kind == EventKind::Gap {
                Fields::new()
            } else {
                told
            };
            match events.last_mut() {
                Some((object, records, like, fields))
                    if matches!(txn.telling, Telling::Merged | Telling::Gap)
                        && (&*object, &*like, &*fields) == (&key.0, &kind, &told) =>
                {
                    records.push(key.1.clone());
                }
                _ => events.push((key.0.clone(), vec![key.1.clone()], kind, told)),
            }
        }
        let from = self.stream.len();
        for (sequence, event) in (1..).zip(events) {
            self.tell(&txn.key, sequence, event, now, delay);
        }
        format!(
            "commit {} {:?} {:?} → events {from}..{}",
            txn.key,
            txn.telling,
            txn.deeds,
            self.stream.len()
        )
    }

    fn after(&mut self, key: &Key, own: &[(&Deed, Ms)], now: Ms) -> Moment {
        let before = self.records.get(key).and_then(|moments| moments.last());
        let mut moment = before.cloned().unwrap_or_else(|| Moment {
            at: now,
            life: Being::Live,
            fields: TOLD
                .iter()
                .chain(&REFERENCES)
                .map(|field| (FieldName::new(*field), Value::Null))
                .collect(),
            stamp: now,
        });
        moment.at = now;
        for (deed, stamp) in own {
            moment.stamp = *stamp;
            match deed {
                Deed::Create(told) | Deed::Update(told) => moment.fields.extend(told.clone()),
                Deed::Undelete => moment.life = Being::Live,
                Deed::Delete | Deed::HardDelete => {
                    self.graves.push((key.clone(), *stamp, now));
                    let gone = matches!(deed, Deed::HardDelete);
                    moment.life = if gone { Being::Gone } else { Being::Binned };
                }
            }
        }
        moment
    }

    fn tell(
        &mut self,
        key: &str,
        sequence: i64,
        (object, records, kind, fields): (ObjectName, Vec<RecordId>, EventKind, Fields),
        now: Ms,
        delay: Ms,
    ) {
        let available = self
            .stream
            .last()
            .map_or(0, |last| last.available)
            .max(now + delay);
        let event = Event {
            object,
            records,
            kind,
            changed: fields.keys().cloned().collect(),
            fields,
            committed_at: date(seconds(now)),
            transaction: Transaction {
                key: key.to_owned(),
                sequence,
                user: None,
                client: None,
            },
            position: Position::new(format!("p:{}", self.stream.len() + 1)),
        };
        self.stream.push(Told {
            event,
            at: now,
            available,
        });
    }
}
