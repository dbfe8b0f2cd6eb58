//! The memory engine of the state.

mod credentials;
mod descriptions;
mod notices;
mod orders;
mod runs;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};

use crate::fault::Fault;
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::model::record_id::RecordId;
use crate::state::credentials::{Credential, PinnedOrg};
use crate::state::descriptions::Described;
use crate::state::orders::{Standing, Wish};
use crate::state::port::{
    Evidence, Hinted, Hole, HoleState, ObjectState, Owed, Progress, State, StoredPosition, end_of,
    fenced, insufficient, no_hole,
};
use crate::state::runs::{RunHead, RunPart};

/// A record's next hint is later than its last.
const TICK: TimeDelta = TimeDelta::microseconds(1);

/// State in memory.
#[derive(Debug, Default)]
pub struct MemoryState(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    leases: HashMap<ConnectionId, Lease>,
    positions: HashMap<ConnectionId, StoredPosition>,
    owed: BTreeMap<(ConnectionId, ObjectName, RecordId), DateTime<Utc>>,
    holes: Vec<Hole>,
    objects: HashMap<(ConnectionId, ObjectName), ObjectState>,
    republish: Vec<(ConnectionId, ObjectName, RecordId)>,
    hints: BTreeMap<(ConnectionId, ObjectName, RecordId), DateTime<Utc>>,
    orders: BTreeMap<(ConnectionId, JobId), Standing>,
    /// How often each was asked for, and how many of these were done.
    syncs: BTreeMap<(ConnectionId, ObjectName), (u64, u64, Wish)>,
    descriptions: BTreeMap<(ConnectionId, ObjectName), Described>,
    refreshes: HashMap<ConnectionId, DateTime<Utc>>,
    /// Each with what its writers did.
    runs: BTreeMap<(ConnectionId, JobId, String), KeptRun>,
    marks: BTreeMap<String, (String, DateTime<Utc>)>,
    letters: BTreeMap<String, notices::Waiting>,
    orgs: HashMap<ConnectionId, PinnedOrg>,
    credentials: HashMap<ConnectionId, Credential>,
}

type KeptRun = (RunHead, BTreeMap<String, RunPart>);

#[derive(Debug, Clone)]
struct Lease {
    owner: String,
    term: u64,
    until: DateTime<Utc>,
}

impl MemoryState {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn check(&self, connection: &ConnectionId, term: u64) -> Result<(), Fault> {
        let stored = self.leases.get(connection).map_or(0, |lease| lease.term);
        if stored == term {
            Ok(())
        } else {
            Err(fenced(connection, term, stored))
        }
    }

    fn hole(&mut self, id: i64) -> Result<&mut Hole, Fault> {
        self.holes
            .iter_mut()
            .find(|hole| hole.id == id)
            .ok_or_else(|| no_hole(id))
    }
}

#[async_trait]
impl State for MemoryState {
    async fn acquire(
        &self,
        connection: &ConnectionId,
        owner: &str,
        now: DateTime<Utc>,
        lease: Duration,
    ) -> Result<Option<u64>, Fault> {
        let mut inner = self.lock();
        let held = inner.leases.get(connection);
        if held.is_some_and(|lease| lease.owner != owner && lease.until > now) {
            return Ok(None);
        }
        let term = super::port::next_term(held.map_or(0, |lease| lease.term), now);
        let lease = Lease {
            owner: owner.to_owned(),
            term,
            until: end_of(now, lease),
        };
        inner.leases.insert(connection.clone(), lease);
        Ok(Some(term))
    }

    async fn renew(
        &self,
        connection: &ConnectionId,
        term: u64,
        now: DateTime<Utc>,
        lease: Duration,
    ) -> Result<(), Fault> {
        let mut inner = self.lock();
        inner.check(connection, term)?;
        if let Some(held) = inner.leases.get_mut(connection) {
            held.until = end_of(now, lease);
        }
        Ok(())
    }

    async fn release(&self, connection: &ConnectionId, term: u64) -> Result<(), Fault> {
        let mut inner = self.lock();
        inner.check(connection, term)?;
        if let Some(lease) = inner.leases.get_mut(connection) {
            lease.until = DateTime::<Utc>::MIN_UTC;
        }
        Ok(())
    }

    async fn position(&self, connection: &ConnectionId) -> Result<Option<StoredPosition>, Fault> {
        Ok(self.lock().positions.get(connection).cloned())
    }

    async fn commit(
        &self,
        connection: &ConnectionId,
        term: u64,
        progress: Progress,
    ) -> Result<(), Fault> {
        let mut inner = self.lock();
        inner.check(connection, term)?;
        if let Some(position) = progress.position {
            inner.positions.insert(connection.clone(), position);
        }
        for settled in progress.settle {
            let key = (connection.clone(), settled.object, settled.record);
            if inner
                .owed
                .get(&key)
                .is_some_and(|stamp| *stamp <= settled.stamp)
            {
                inner.owed.remove(&key);
            }
        }
        for owed in progress.owe {
            let key = (connection.clone(), owed.object, owed.record);
            let stamp = inner.owed.entry(key).or_insert(owed.stamp);
            *stamp = (*stamp).max(owed.stamp);
        }
        inner.republish.retain(|(of, object, record)| {
            of != connection
                || !progress
                    .republished
                    .iter()
                    .any(|done| (&done.0, &done.1) == (object, record))
        });
        for met in progress.met {
            let key = (connection.clone(), met.object, met.record);
            if inner.hints.get(&key).is_some_and(|at| *at <= met.at) {
                inner.hints.remove(&key);
            }
        }
        for new in progress.open {
            let known = inner.holes.iter().any(|hole| {
                hole.connection == *connection
                    && hole.object == new.object
                    && hole.cause == new.cause
                    && hole.scope == new.scope
                    && hole.state != HoleState::Closed
            });
            if !known {
                let id = inner.holes.last().map_or(1, |hole| hole.id + 1);
                inner.holes.push(Hole {
                    id,
                    connection: connection.clone(),
                    object: new.object,
                    cause: new.cause,
                    scope: new.scope,
                    state: HoleState::Open,
                    opened_at: new.opened_at,
                    closed_at: None,
                    evidence: None,
                });
            }
        }
        Ok(())
    }

    async fn owed(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        limit: usize,
    ) -> Result<Vec<Owed>, Fault> {
        let inner = self.lock();
        let mut owed: Vec<Owed> = inner
            .owed
            .iter()
            .filter(|((of, name, _), _)| of == connection && name == object)
            .map(|((_, object, record), stamp)| Owed {
                object: object.clone(),
                record: record.clone(),
                stamp: *stamp,
            })
            .collect();
        owed.sort_by_key(|owed| owed.stamp);
        owed.truncate(limit);
        Ok(owed)
    }

    async fn owed_counts(
        &self,
        connection: &ConnectionId,
    ) -> Result<Vec<(ObjectName, u64)>, Fault> {
        let inner = self.lock();
        let mut counts: BTreeMap<ObjectName, u64> = BTreeMap::new();
        for (of, object, _) in inner.owed.keys() {
            if of == connection {
                *counts.entry(object.clone()).or_default() += 1;
            }
        }
        Ok(counts.into_iter().collect())
    }

    async fn holes(
        &self,
        connection: Option<&ConnectionId>,
        all: bool,
    ) -> Result<Vec<Hole>, Fault> {
        let inner = self.lock();
        Ok(inner
            .holes
            .iter()
            .rev()
            .filter(|hole| connection.is_none_or(|of| hole.connection == *of))
            .filter(|hole| all || hole.state != HoleState::Closed)
            .cloned()
            .collect())
    }

    async fn repairing(
        &self,
        connection: &ConnectionId,
        term: u64,
        hole: i64,
    ) -> Result<(), Fault> {
        let mut inner = self.lock();
        inner.check(connection, term)?;
        inner.hole(hole)?.state = HoleState::Repairing;
        Ok(())
    }

    async fn close_hole(
        &self,
        connection: &ConnectionId,
        term: u64,
        hole: i64,
        evidence: Evidence,
        now: DateTime<Utc>,
    ) -> Result<(), Fault> {
        let mut inner = self.lock();
        inner.check(connection, term)?;
        let found = inner.hole(hole)?;
        if evidence.as_of <= found.scope.end() {
            return Err(insufficient(hole, evidence.as_of, found.scope.end()));
        }
        found.state = HoleState::Closed;
        found.closed_at = Some(now);
        found.evidence = Some(evidence);
        Ok(())
    }

    async fn object(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
    ) -> Result<ObjectState, Fault> {
        let key = (connection.clone(), object.clone());
        Ok(self.lock().objects.get(&key).cloned().unwrap_or_default())
    }

    async fn objects(
        &self,
        connection: &ConnectionId,
    ) -> Result<Vec<(ObjectName, ObjectState)>, Fault> {
        let inner = self.lock();
        let mut objects: Vec<_> = inner
            .objects
            .iter()
            .filter(|((of, _), _)| of == connection)
            .map(|((_, object), state)| (object.clone(), state.clone()))
            .collect();
        objects.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(objects)
    }

    async fn put_object(
        &self,
        connection: &ConnectionId,
        term: u64,
        object: &ObjectName,
        state: ObjectState,
    ) -> Result<(), Fault> {
        let mut inner = self.lock();
        inner.check(connection, term)?;
        inner
            .objects
            .insert((connection.clone(), object.clone()), state);
        Ok(())
    }

    async fn request_republish(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        record: &RecordId,
    ) -> Result<(), Fault> {
        let request = (connection.clone(), object.clone(), record.clone());
        let mut inner = self.lock();
        if !inner.republish.contains(&request) {
            inner.republish.push(request);
        }
        Ok(())
    }

    async fn to_republish(
        &self,
        connection: &ConnectionId,
        limit: usize,
    ) -> Result<Vec<(ObjectName, RecordId)>, Fault> {
        let inner = self.lock();
        let of = inner.republish.iter().filter(|(of, ..)| of == connection);
        Ok(of
            .take(limit)
            .map(|(_, object, record)| (object.clone(), record.clone()))
            .collect())
    }

    async fn hint(&self, connection: &ConnectionId, hints: Vec<Hinted>) -> Result<(), Fault> {
        let mut inner = self.lock();
        for hint in hints {
            let key = (connection.clone(), hint.object, hint.record);
            let after = inner.hints.get(&key).map(|at| *at + TICK);
            inner
                .hints
                .insert(key, hint.at.max(after.unwrap_or(hint.at)));
        }
        Ok(())
    }

    async fn hints(&self, connection: &ConnectionId, limit: usize) -> Result<Vec<Hinted>, Fault> {
        let inner = self.lock();
        let of = inner.hints.iter().filter(|((of, ..), _)| of == connection);
        let mut hints: Vec<Hinted> = of
            .map(|((_, object, record), at)| Hinted {
                object: object.clone(),
                record: record.clone(),
                at: *at,
            })
            .collect();
        hints.sort_by_key(|hint| hint.at);
        hints.truncate(limit);
        Ok(hints)
    }

    async fn close(&self) -> Result<(), Fault> {
        Ok(())
    }
}
