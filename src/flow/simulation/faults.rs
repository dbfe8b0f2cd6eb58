//! Faults at every seam: an error, a lost reply, a crash, slowness, a stall; drawn from the seed.

mod descriptions;
mod orders;
mod runs;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::Notify;

use crate::fault::{Fault, FaultKind};
use crate::image::merge::Image;
use crate::image::port::{Held, ImageBatch, ImageStore, Mark};
use crate::log::port::{Bounds, Entry, From, Log, Place, Reader, TopicSpec};
use crate::model::change::Change;
use crate::model::name::{ConnectionId, FieldName, ObjectKey, ObjectName};
use crate::model::record_id::RecordId;
use crate::state::port::{
    Evidence, Hinted, Hole, ObjectState, Owed, Progress, State, StoredPosition,
};

use super::rng::Rng;
use super::trace::Trace;

/// What may go wrong at a seam, each so many times in a thousand calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Odds {
    pub error: u32,
    pub lost_reply: u32,
    pub crash: u32,
    pub slow: u32,
}

/// The odds of a world, and what came of them.
pub struct Chaos {
    rng: Mutex<Rng>,
    odds: Mutex<Odds>,
    /// The term of the newest owner, for the fence.
    pub term: AtomicU64,
    /// Appends that were asked for under a term that was over.
    pub unfenced: AtomicU64,
    /// Appends that were asked for in time and done after the fence: a stalled network.
    pub zombies: AtomicU64,
    /// Streams that began anew, and so told again what had been told.
    pub broken: AtomicU64,
    /// Reads that were asked of the CRM.
    pub reads: AtomicU64,
    /// The CRM refuses every read; its stream goes on.
    pub refuses_reads: AtomicBool,
    /// The next append stalls its process before it is done.
    pub stalls_append: AtomicBool,
    /// The state is broken on purpose: it forgets what a commit owes.
    pub forgets_debts: AtomicBool,
    /// Told after each append. Not by the log's own signal, which wakes its waiters in no order.
    pub appended: Notify,
    pub trace: Trace,
}

impl Chaos {
    pub fn new(rng: Rng, trace: Trace) -> Self {
        Self {
            rng: Mutex::new(rng),
            odds: Mutex::default(),
            term: AtomicU64::new(0),
            unfenced: AtomicU64::new(0),
            zombies: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            refuses_reads: AtomicBool::new(false),
            stalls_append: AtomicBool::new(false),
            forgets_debts: AtomicBool::new(false),
            appended: Notify::new(),
            trace,
        }
    }

    pub fn set(&self, odds: Odds) {
        *self.odds.lock().unwrap() = odds;
    }

    fn is_calm(&self) -> bool {
        let odds = *self.odds.lock().unwrap();
        odds.crash == 0 && odds.lost_reply == 0
    }

    fn draw(&self) -> Mishap {
        let odds = *self.odds.lock().unwrap();
        let mut rng = self.rng.lock().unwrap();
        if rng.per_mille(odds.error) {
            Mishap::Error
        } else if rng.per_mille(odds.lost_reply) {
            Mishap::LostReply
        } else if rng.per_mille(odds.crash) {
            Mishap::Crash {
                done: rng.one_in(2),
            }
        } else if rng.per_mille(odds.slow) {
            Mishap::Slow(Duration::from_millis(rng.next() % 4000))
        } else {
            Mishap::None
        }
    }
}

enum Mishap {
    None,
    Error,
    LostReply,
    Crash { done: bool },
    Slow(Duration),
}

/// One running process: it dies or stalls at the next seam it comes to.
pub struct Process {
    pub name: &'static str,
    pub chaos: Arc<Chaos>,
    dead: AtomicBool,
    stalled: AtomicBool,
    awake: Notify,
    /// Told when a fault killed it.
    pub died: Notify,
}

impl Process {
    pub fn new(name: &'static str, chaos: Arc<Chaos>) -> Arc<Self> {
        Arc::new(Self {
            name,
            chaos,
            dead: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            awake: Notify::new(),
            died: Notify::new(),
        })
    }

    pub fn kill(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    pub fn stall(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::SeqCst);
        self.awake.notify_waiters();
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Waits while it is stalled; for ever once it is dead.
    pub async fn alive(&self) {
        while self.stalled.load(Ordering::SeqCst) {
            self.awake.notified().await;
        }
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }

    /// Does `work` at a seam, or what the seed has in store instead.
    pub async fn pass<T>(
        &self,
        seam: &'static str,
        kind: FaultKind,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        self.alive().await;
        let mishap = self.chaos.draw();
        let told = |what: &str| {
            self.chaos
                .trace
                .say(|| format!("{}: {what} at {seam}", self.name))
        };
        let outcome = match mishap {
            Mishap::None => work.await,
            Mishap::Error => {
                told("error");
                Err(Fault::new(kind, format!("{seam}: not done")))
            }
            Mishap::LostReply => {
                let done = work.await;
                // A long call may end when the faults have.
                if self.chaos.is_calm() {
                    return done;
                }
                done?;
                told("lost reply");
                Err(Fault::new(kind, format!("{seam}: reply lost")))
            }
            Mishap::Crash { done } => {
                if done {
                    let done = work.await;
                    if self.chaos.is_calm() {
                        return done;
                    }
                }
                told(if done { "crash after" } else { "crash before" });
                self.kill();
                self.died.notify_one();
                std::future::pending().await
            }
            Mishap::Slow(wait) => {
                tokio::time::sleep(wait).await;
                self.alive().await;
                work.await
            }
        };
        self.alive().await;
        outcome
    }
}

/// A collaborator behind a seam.
pub struct Guarded<T: ?Sized> {
    pub inner: Arc<T>,
    pub process: Arc<Process>,
}

fn term_of(entry: &Entry) -> u64 {
    let change = Change::decode(entry.value.as_ref().unwrap()).unwrap();
    change.version.term()
}

const AWAY: FaultKind = FaultKind::Unavailable;
const DISK: FaultKind = FaultKind::Storage;

#[async_trait]
impl Log for Guarded<dyn Log> {
    async fn ensure(&self, topic: &TopicSpec) -> Result<String, Fault> {
        let work = self.inner.ensure(topic);
        self.process.pass("log.ensure", AWAY, work).await
    }

    async fn append(&self, entries: Vec<Entry>) -> Result<Vec<Place>, Fault> {
        let chaos = &self.process.chaos;
        self.process.alive().await;
        for entry in &entries {
            let change = Change::decode(entry.value.as_ref().unwrap()).unwrap();
            if change.version.term() < chaos.term.load(Ordering::SeqCst) {
                chaos.unfenced.fetch_add(1, Ordering::SeqCst);
                chaos
                    .trace
                    .say(|| format!("{}: UNFENCED append", self.process.name));
            }
            chaos.trace.say(|| {
                let of = change
                    .transaction
                    .as_ref()
                    .map(|of| (of.key.clone(), of.sequence));
                format!(
                    "{}: append {}/{} {:?} {} {:?} {of:?} {:?}",
                    self.process.name,
                    change.object,
                    change.id,
                    change.op,
                    change.version,
                    change.origin,
                    change.fields
                )
            });
        }
        if chaos.stalls_append.swap(false, Ordering::SeqCst) {
            chaos
                .trace
                .say(|| format!("{} stalls in an append", self.process.name));
            self.process.stall(true);
        }
        let work = async {
            let terms = entries.iter().map(term_of);
            if terms
                .min()
                .is_some_and(|term| term < chaos.term.load(Ordering::SeqCst))
            {
                chaos.zombies.fetch_add(1, Ordering::SeqCst);
            }
            let places = self.inner.append(entries).await;
            chaos.appended.notify_waiters();
            places
        };
        self.process.pass("log.append", AWAY, work).await
    }

    async fn bounds(&self, topic: &str) -> Result<BTreeMap<u32, Bounds>, Fault> {
        let work = self.inner.bounds(topic);
        self.process.pass("log.bounds", AWAY, work).await
    }

    async fn at_time(&self, topic: &str, at: DateTime<Utc>) -> Result<BTreeMap<u32, u64>, Fault> {
        self.inner.at_time(topic, at).await
    }

    async fn reader(&self, topic: &str, from: From) -> Result<Box<dyn Reader>, Fault> {
        let work = self.inner.reader(topic, from);
        self.process.pass("log.reader", AWAY, work).await
    }

    async fn topics(&self) -> Result<Vec<TopicSpec>, Fault> {
        self.inner.topics().await
    }

    async fn close(&self) -> Result<(), Fault> {
        Ok(())
    }
}

#[async_trait]
impl ImageStore for Guarded<dyn ImageStore> {
    async fn get(
        &self,
        object: &ObjectKey,
        records: Vec<RecordId>,
    ) -> Result<HashMap<RecordId, Image>, Fault> {
        let work = self.inner.get(object, records);
        self.process.pass("images.get", DISK, work).await
    }

    async fn put(&self, batch: ImageBatch) -> Result<(), Fault> {
        let work = self.inner.put(batch);
        self.process.pass("images.put", DISK, work).await
    }

    async fn held(&self, object: &ObjectKey) -> Result<Held, Fault> {
        self.process
            .pass("images.held", DISK, self.inner.held(object))
            .await
    }

    async fn mark(&self, connection: &ConnectionId) -> Result<Option<Mark>, Fault> {
        let work = self.inner.mark(connection);
        self.process.pass("images.mark", DISK, work).await
    }

    async fn clear(&self, object: &ObjectKey, generation: &str) -> Result<(), Fault> {
        let work = self.inner.clear(object, generation);
        self.process.pass("images.clear", DISK, work).await
    }

    async fn scan(
        &self,
        object: &ObjectKey,
        after: Option<RecordId>,
        limit: usize,
    ) -> Result<Vec<(RecordId, Image)>, Fault> {
        let work = self.inner.scan(object, after, limit);
        self.process.pass("images.scan", DISK, work).await
    }

    async fn refer(&self, object: &ObjectKey, references: &[FieldName]) -> Result<(), Fault> {
        let work = self.inner.refer(object, references);
        self.process.pass("images.refer", DISK, work).await
    }

    async fn children(
        &self,
        object: &ObjectKey,
        reference: &FieldName,
        parent: &RecordId,
        after: Option<RecordId>,
        limit: usize,
    ) -> Result<Vec<(RecordId, Image)>, Fault> {
        let children = self.inner.children(object, reference, parent, after, limit);
        self.process.pass("images.children", DISK, children).await
    }

    async fn close(&self) -> Result<(), Fault> {
        Ok(())
    }
}

#[async_trait]
impl State for Guarded<dyn State> {
    async fn acquire(
        &self,
        connection: &ConnectionId,
        owner: &str,
        now: DateTime<Utc>,
        lease: Duration,
    ) -> Result<Option<u64>, Fault> {
        let chaos = &self.process.chaos;
        let work = async {
            let term = self.inner.acquire(connection, owner, now, lease).await?;
            if let Some(term) = term {
                chaos.term.store(term, Ordering::SeqCst);
                chaos.trace.say(|| format!("{owner}: owns term {term}"));
            }
            Ok(term)
        };
        self.process.pass("state.acquire", DISK, work).await
    }

    async fn renew(
        &self,
        connection: &ConnectionId,
        term: u64,
        now: DateTime<Utc>,
        lease: Duration,
    ) -> Result<(), Fault> {
        let work = self.inner.renew(connection, term, now, lease);
        self.process.pass("state.renew", DISK, work).await
    }

    async fn release(&self, connection: &ConnectionId, term: u64) -> Result<(), Fault> {
        let work = self.inner.release(connection, term);
        self.process.pass("state.release", DISK, work).await
    }

    async fn position(&self, connection: &ConnectionId) -> Result<Option<StoredPosition>, Fault> {
        let work = self.inner.position(connection);
        self.process.pass("state.position", DISK, work).await
    }

    async fn commit(
        &self,
        connection: &ConnectionId,
        term: u64,
        mut progress: Progress,
    ) -> Result<(), Fault> {
        if self.process.chaos.forgets_debts.load(Ordering::SeqCst) {
            progress.owe.clear();
        }
        self.process.chaos.trace.say(|| {
            let position = progress
                .position
                .as_ref()
                .map(|stored| stored.position.clone());
            let owe: Vec<_> = progress
                .owe
                .iter()
                .map(|owed| (&owed.record, owed.stamp))
                .collect();
            let settle: Vec<_> = progress
                .settle
                .iter()
                .map(|done| (&done.record, done.stamp))
                .collect();
            let open: Vec<_> = progress
                .open
                .iter()
                .map(|hole| (hole.cause, &hole.scope))
                .collect();
            format!(
                "{}: commit {position:?} owe {owe:?} settle {settle:?} open {open:?}",
                self.process.name
            )
        });
        let work = self.inner.commit(connection, term, progress);
        self.process.pass("state.commit", DISK, work).await
    }

    async fn owed(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        limit: usize,
    ) -> Result<Vec<Owed>, Fault> {
        let work = self.inner.owed(connection, object, limit);
        self.process.pass("state.owed", DISK, work).await
    }

    async fn owed_counts(
        &self,
        connection: &ConnectionId,
    ) -> Result<Vec<(ObjectName, u64)>, Fault> {
        self.inner.owed_counts(connection).await
    }

    async fn holes(
        &self,
        connection: Option<&ConnectionId>,
        all: bool,
    ) -> Result<Vec<Hole>, Fault> {
        let work = self.inner.holes(connection, all);
        self.process.pass("state.holes", DISK, work).await
    }

    async fn repairing(
        &self,
        connection: &ConnectionId,
        term: u64,
        hole: i64,
    ) -> Result<(), Fault> {
        let work = self.inner.repairing(connection, term, hole);
        self.process.pass("state.repairing", DISK, work).await
    }

    async fn close_hole(
        &self,
        connection: &ConnectionId,
        term: u64,
        hole: i64,
        evidence: Evidence,
        now: DateTime<Utc>,
    ) -> Result<(), Fault> {
        let chaos = &self.process.chaos;
        chaos
            .trace
            .say(|| format!("{}: close hole {hole} by {evidence:?}", self.process.name));
        let work = self.inner.close_hole(connection, term, hole, evidence, now);
        self.process.pass("state.close_hole", DISK, work).await
    }

    async fn object(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
    ) -> Result<ObjectState, Fault> {
        let work = self.inner.object(connection, object);
        self.process.pass("state.object", DISK, work).await
    }

    async fn objects(
        &self,
        connection: &ConnectionId,
    ) -> Result<Vec<(ObjectName, ObjectState)>, Fault> {
        let work = self.inner.objects(connection);
        self.process.pass("state.objects", DISK, work).await
    }

    async fn put_object(
        &self,
        connection: &ConnectionId,
        term: u64,
        object: &ObjectName,
        state: ObjectState,
    ) -> Result<(), Fault> {
        let work = self.inner.put_object(connection, term, object, state);
        self.process.pass("state.put_object", DISK, work).await
    }

    async fn request_republish(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        record: &RecordId,
    ) -> Result<(), Fault> {
        let work = self.inner.request_republish(connection, object, record);
        self.process
            .pass("state.request_republish", DISK, work)
            .await
    }

    async fn to_republish(
        &self,
        connection: &ConnectionId,
        limit: usize,
    ) -> Result<Vec<(ObjectName, RecordId)>, Fault> {
        let work = self.inner.to_republish(connection, limit);
        self.process.pass("state.to_republish", DISK, work).await
    }

    async fn hint(&self, connection: &ConnectionId, hints: Vec<Hinted>) -> Result<(), Fault> {
        let work = self.inner.hint(connection, hints);
        self.process.pass("state.hint", DISK, work).await
    }

    async fn hints(&self, connection: &ConnectionId, limit: usize) -> Result<Vec<Hinted>, Fault> {
        let work = self.inner.hints(connection, limit);
        self.process.pass("state.hints", DISK, work).await
    }

    async fn close(&self) -> Result<(), Fault> {
        Ok(())
    }
}
