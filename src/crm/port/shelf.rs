//! What a CRM said of its objects: held in memory, and in the state for seven days, so that a restart need not ask.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::fault::Fault;
use crate::model::name::{ConnectionId, ObjectName};
use crate::runtime::clock::{Clock, SystemClock};
use crate::state::descriptions::{Described, Descriptions};
use crate::state::memory::MemoryState;

/// How long a description is taken for true while nothing contradicts it.
pub const KEPT: TimeDelta = TimeDelta::days(7);

/// A connection's part of the stored descriptions.
pub struct Shelf {
    connection: ConnectionId,
    store: Arc<dyn Descriptions>,
    clock: Arc<dyn Clock>,
}

/// Descriptions of one kind of CRM, by object.
pub struct Known<D> {
    shelf: Arc<Shelf>,
    held: Mutex<Held<D>>,
}

struct Held<D> {
    objects: HashMap<ObjectName, (Arc<D>, DateTime<Utc>)>,
    /// Objects whose stored description proved wrong.
    stale: HashSet<ObjectName>,
}

impl Shelf {
    /// The descriptions of `connection` in `store`.
    pub fn new(
        connection: ConnectionId,
        store: Arc<dyn Descriptions>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            connection,
            store,
            clock,
        })
    }

    /// Descriptions that end with the process: for commands and tests.
    #[must_use]
    pub fn in_memory(connection: ConnectionId) -> Arc<Self> {
        let store = Arc::new(MemoryState::default());
        Self::new(connection, store, Arc::new(SystemClock))
    }

    /// A description that can be read and is not too old. A state that can't be read is no reason not to ask the CRM.
    async fn get<D: DeserializeOwned>(&self, object: &ObjectName) -> Option<(D, DateTime<Utc>)> {
        let stored = match self.store.description(&self.connection, object).await {
            Ok(stored) => stored?,
            Err(fault) => {
                tracing::warn!(
                    connection = %self.connection, %object, error = %fault,
                    "a stored description can't be read: the CRM is asked"
                );
                return None;
            }
        };
        if !self.is_fresh(stored.read_at) {
            return None;
        }
        // One that another build wrote is read anew.
        let description = serde_json::from_str(&stored.body).ok()?;
        Some((description, stored.read_at))
    }

    async fn put<D: Serialize>(
        &self,
        object: &ObjectName,
        description: &D,
        read_at: DateTime<Utc>,
    ) {
        let Ok(body) = serde_json::to_string(description) else {
            return;
        };
        let described = Described { body, read_at };
        let put = self
            .store
            .put_description(&self.connection, object, described);
        if let Err(fault) = put.await {
            tracing::warn!(
                connection = %self.connection, %object, error = %fault,
                "a description is not stored: it is read again after a restart"
            );
        }
    }

    fn is_fresh(&self, read_at: DateTime<Utc>) -> bool {
        self.clock.now() - read_at < KEPT
    }
}

impl<D: Serialize + DeserializeOwned> Known<D> {
    /// Descriptions on `shelf`.
    #[must_use]
    pub fn new(shelf: Arc<Shelf>) -> Self {
        Self {
            shelf,
            held: Mutex::new(Held {
                objects: HashMap::new(),
                stale: HashSet::new(),
            }),
        }
    }

    /// The description, by `read` if none is known that can be taken for true.
    ///
    /// # Errors
    /// That of `read`.
    pub fn get(
        &self,
        object: &ObjectName,
        read: impl Future<Output = Result<D, Fault>>,
    ) -> impl Future<Output = Result<Arc<D>, Fault>> {
        self.younger(object, KEPT, read)
    }

    /// The description, by `read` if the known one is not younger than `age`, of seven days at most.
    ///
    /// # Errors
    /// That of `read`.
    pub async fn younger(
        &self,
        object: &ObjectName,
        age: TimeDelta,
        read: impl Future<Output = Result<D, Fault>>,
    ) -> Result<Arc<D>, Fault> {
        let since = self.shelf.clock.now() - age.min(KEPT);
        let (held, is_stale) = {
            let held = self.lock();
            (
                held.objects.get(object).cloned(),
                held.stale.contains(object),
            )
        };
        if let Some((known, read_at)) = held
            && read_at > since
        {
            return Ok(known);
        }
        if !is_stale
            && let Some((stored, read_at)) = self.shelf.get(object).await
            && read_at > since
        {
            let known = Arc::new(stored);
            let entry = (Arc::clone(&known), read_at);
            self.lock().objects.insert(object.clone(), entry);
            return Ok(known);
        }
        self.renew(object, read).await
    }

    /// The description by `read`, which replaces the known one; that one stays if the read fails.
    ///
    /// # Errors
    /// That of `read`.
    pub async fn renew(
        &self,
        object: &ObjectName,
        read: impl Future<Output = Result<D, Fault>>,
    ) -> Result<Arc<D>, Fault> {
        // Whoever asks for one that is newer than now must not get this.
        let read_at = self.shelf.clock.now();
        let known = Arc::new(read.await?);
        self.shelf.put(object, &*known, read_at).await;
        let mut held = self.lock();
        held.stale.remove(object);
        held.objects
            .insert(object.clone(), (Arc::clone(&known), read_at));
        Ok(known)
    }

    /// Forgets a description that proved wrong, the stored one too.
    pub fn forget(&self, object: &ObjectName) {
        let mut held = self.lock();
        held.objects.remove(object);
        held.stale.insert(object.clone());
    }

    /// The description, if this process knows it, however old.
    #[must_use]
    pub fn known(&self, object: &ObjectName) -> Option<Arc<D>> {
        let held = self.lock();
        held.objects.get(object).map(|(known, _)| Arc::clone(known))
    }

    fn lock(&self) -> MutexGuard<'_, Held<D>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use crate::fault::FaultKind;
    use crate::runtime::clock::ManualClock;

    use super::*;

    struct Bench {
        store: Arc<MemoryState>,
        clock: Arc<ManualClock>,
        reads: AtomicU32,
    }

    impl Bench {
        fn new() -> Self {
            let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
            Self {
                store: Arc::default(),
                clock: Arc::new(ManualClock::new(now)),
                reads: AtomicU32::new(0),
            }
        }

        /// As another process has it.
        fn known(&self) -> Known<String> {
            let (store, clock) = (Arc::clone(&self.store), Arc::clone(&self.clock));
            Known::new(Shelf::new("acme".into(), store, clock))
        }

        fn read(&self) -> impl Future<Output = Result<String, Fault>> {
            futures_util::future::lazy(|_| {
                let number = self.reads.fetch_add(1, Ordering::SeqCst) + 1;
                Ok(format!("read {number}"))
            })
        }

        async fn of(&self, known: &Known<String>) -> String {
            let known = known.get(&"Account".into(), self.read()).await;
            known.unwrap().to_string()
        }
    }

    #[tokio::test]
    async fn a_description_outlives_the_process_and_seven_days_end_it() {
        let bench = Bench::new();
        assert_eq!(bench.of(&bench.known()).await, "read 1");
        bench.clock.advance(Duration::from_hours(6 * 24 + 23));
        let known = bench.known();
        assert_eq!(bench.of(&known).await, "read 1");
        bench.clock.advance(Duration::from_hours(1));
        assert_eq!(bench.of(&known).await, "read 2", "also in one process");
        assert_eq!(bench.of(&bench.known()).await, "read 2");
    }

    #[tokio::test]
    async fn who_asks_for_a_young_one_gets_no_older_one() {
        let bench = Bench::new();
        let age = TimeDelta::minutes(10);
        let (known, account) = (bench.known(), ObjectName::new("Account"));
        bench.of(&known).await;
        for (minutes, expected) in [(9, "read 1"), (1, "read 2"), (9, "read 2")] {
            bench.clock.advance(Duration::from_mins(minutes));
            let young = known.younger(&account, age, bench.read());
            assert_eq!(*young.await.unwrap(), expected);
        }
        bench.clock.advance(Duration::from_hours(1));
        let another = bench.known();
        assert_eq!(bench.of(&another).await, "read 2", "old enough for others");
        let young = another.younger(&account, age, bench.read());
        assert_eq!(*young.await.unwrap(), "read 3");
    }

    #[tokio::test]
    async fn what_proved_wrong_is_read_again_and_a_failed_read_changes_nothing() {
        let bench = Bench::new();
        let known = bench.known();
        bench.of(&known).await;
        known.forget(&"Account".into());
        assert_eq!(bench.of(&known).await, "read 2");
        let failed = async { Err(Fault::new(FaultKind::Unavailable, "away")) };
        known.renew(&"Account".into(), failed).await.unwrap_err();
        assert_eq!(bench.of(&known).await, "read 2");
        known.renew(&"Account".into(), bench.read()).await.unwrap();
        assert_eq!(bench.of(&bench.known()).await, "read 3");
    }

    #[tokio::test]
    async fn what_another_build_wrote_is_read_anew() {
        let bench = Bench::new();
        let described = Described {
            body: "{\"v\": 9}".to_owned(),
            read_at: bench.clock.now(),
        };
        let (connection, object) = ("acme".into(), "Account".into());
        let put = bench.store.put_description(&connection, &object, described);
        put.await.unwrap();
        assert_eq!(bench.of(&bench.known()).await, "read 1");
    }
}
