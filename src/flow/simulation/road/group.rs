//! A job's group as a broker keeps it: partitions are asked back, or taken from a member that does not answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::fault::{Fault, FaultKind};
use crate::flow::road::PARTITIONS;
use crate::flow::simulation::faults::Process;
use crate::flow::simulation::rng::Rng;
use crate::flow::simulation::trace::Trace;
use crate::log::memory::MemoryLog;
use crate::log::port::{Delivery, From, Log, Reader};

/// How long a member that lost a partition without being asked goes on without knowing.
const UNAWARE: i64 = 20_000;

pub struct Groups {
    inner: Mutex<Inner>,
    changed: Notify,
    trace: Trace,
}

struct Inner {
    rng: Rng,
    groups: BTreeMap<String, Group>,
    joined: u64,
    /// Moves out of a thousand that do not ask.
    forced: u32,
}

#[derive(Default)]
struct Group {
    members: BTreeMap<u64, &'static str>,
    seats: BTreeMap<u32, Seat>,
    /// When a member learns that a partition was taken from it.
    taken: BTreeMap<(u64, u32), Instant>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seat {
    owner: Option<u64>,
    wanted: Option<u64>,
}

impl Groups {
    pub fn new(rng: Rng, forced: u32, trace: Trace) -> Self {
        Self {
            inner: Mutex::new(Inner {
                rng,
                groups: BTreeMap::new(),
                joined: 0,
                forced,
            }),
            changed: Notify::new(),
            trace,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn told(&self) {
        self.changed.notify_waiters();
    }

    /// A member of its own share.
    fn join(&self, group: &str, process: &'static str) -> u64 {
        let mut inner = self.lock();
        inner.joined += 1;
        let id = inner.joined;
        let (mut rng, forced) = (inner.rng.fork(), inner.forced);
        let group = inner.groups.entry(group.to_owned()).or_default();
        group.members.insert(id, process);
        for partition in 0..PARTITIONS {
            let seat = group.seats.entry(partition).or_default();
            if seat.owner.is_none() {
                seat.owner = Some(id);
            } else if rng.below(group.members.len()) == 0 {
                group.give(partition, id, rng.per_mille(forced), &mut rng);
            }
        }
        drop(inner);
        self.told();
        id
    }

    fn leave(&self, group: &str, id: u64) {
        let mut inner = self.lock();
        let mut rng = inner.rng.fork();
        if let Some(group) = inner.groups.get_mut(group) {
            group.members.remove(&id);
            group.taken.retain(|(member, _), _| *member != id);
            let others: Vec<u64> = group.members.keys().copied().collect();
            for seat in group.seats.values_mut() {
                seat.wanted = seat.wanted.filter(|wanted| *wanted != id);
                if seat.owner == Some(id) {
                    seat.owner = seat.wanted.take().or(rng.pick(&others).copied());
                }
            }
        }
        drop(inner);
        self.told();
    }

    fn release(&self, group: &str, id: u64, partition: u32) {
        let mut inner = self.lock();
        let mut rng = inner.rng.fork();
        if let Some(group) = inner.groups.get_mut(group) {
            group.taken.remove(&(id, partition));
            let others: Vec<u64> = group.members.keys().copied().collect();
            if let Some(seat) = group.seats.get_mut(&partition)
                && seat.owner == Some(id)
            {
                seat.owner = seat.wanted.take().or(rng.pick(&others).copied());
            }
        }
        drop(inner);
        self.told();
    }

    /// A process did not answer: all that is its members' goes to others.
    pub fn expel(&self, process: &str) {
        let mut inner = self.lock();
        let mut rng = inner.rng.fork();
        for group in inner.groups.values_mut() {
            let (late, others): (Vec<_>, Vec<_>) = group
                .members
                .iter()
                .map(|(id, of)| (*id, *of))
                .partition(|(_, of)| *of == process);
            let seats: Vec<(u32, Seat)> =
                group.seats.iter().map(|(at, seat)| (*at, *seat)).collect();
            for (partition, seat) in seats {
                if late.iter().any(|(id, _)| seat.owner == Some(*id))
                    && let Some((to, _)) = rng.pick(&others)
                {
                    group.give(partition, *to, true, &mut rng);
                }
            }
        }
        drop(inner);
        self.trace.say(|| format!("groups: {process} is expelled"));
        self.told();
    }

    /// Moves some partitions from member to member.
    pub fn shake(&self) {
        let mut inner = self.lock();
        let (mut rng, forced) = (inner.rng.fork(), inner.forced);
        for (name, group) in &mut inner.groups {
            let members: Vec<u64> = group.members.keys().copied().collect();
            for _ in 0..rng.below(4) {
                let partition = u32::try_from(rng.below(PARTITIONS as usize)).unwrap();
                let forced = rng.per_mille(forced);
                if let Some(to) = rng.pick(&members) {
                    self.trace
                        .say(|| format!("groups: {name} {partition} to {to}, forced: {forced}"));
                    group.give(partition, *to, forced, &mut rng);
                }
            }
        }
        drop(inner);
        self.told();
    }
}

impl Group {
    fn give(&mut self, partition: u32, to: u64, forced: bool, rng: &mut Rng) {
        let Some(seat) = self.seats.get_mut(&partition) else {
            return;
        };
        let Some(owner) = seat.owner.filter(|owner| *owner != to) else {
            return;
        };
        if forced {
            let unaware = Duration::from_millis(rng.between(0, UNAWARE).unsigned_abs());
            self.taken
                .insert((owner, partition), Instant::now() + unaware);
            *seat = Seat {
                owner: Some(to),
                wanted: None,
            };
        } else {
            seat.wanted = Some(to);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// Assigned, not started.
    Waiting,
    At(u64),
    /// Told to give it up.
    Revoked,
}

/// How a reader delivers.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Records of a batch, at most.
    pub most: usize,
    /// Batches out of a thousand that begin before where they should.
    pub repeats: u32,
}

/// A member that reads.
pub struct SimReader {
    pub log: Arc<MemoryLog>,
    pub topic: String,
    pub group: String,
    pub groups: Arc<Groups>,
    pub process: Arc<Process>,
    pub manner: Manner,
    rng: Rng,
    id: u64,
    held: BTreeMap<u32, Hold>,
    /// Reads what is held, as long as that does not change.
    inner: Option<Box<dyn Reader>>,
}

impl SimReader {
    pub fn join(
        log: &Arc<MemoryLog>,
        topic: &str,
        group: &str,
        groups: &Arc<Groups>,
        process: &Arc<Process>,
        manner: Manner,
    ) -> Self {
        let id = groups.join(group, process.name);
        let rng = groups.lock().rng.fork();
        Self {
            log: Arc::clone(log),
            topic: topic.to_owned(),
            group: group.to_owned(),
            groups: Arc::clone(groups),
            process: Arc::clone(process),
            manner,
            rng,
            id,
            held: BTreeMap::new(),
            inner: None,
        }
    }

    /// What the group has to say, or when it will.
    fn turn(&mut self) -> Result<Delivery, Option<Instant>> {
        let mut inner = self.groups.lock();
        let Some(group) = inner.groups.get_mut(&self.group) else {
            return Err(None);
        };
        let mut later: Option<Instant> = None;
        for (partition, seat) in &group.seats {
            let (mine, held) = (seat.owner == Some(self.id), self.held.get(partition));
            match held {
                None if mine => {
                    group.taken.remove(&(self.id, *partition));
                    self.held.insert(*partition, Hold::Waiting);
                    return Ok(Delivery::Assigned(*partition));
                }
                None | Some(Hold::Revoked) => {}
                Some(_) if mine && seat.wanted.is_none_or(|to| to == self.id) => {}
                Some(_) => {
                    let at = group.taken.get(&(self.id, *partition)).copied();
                    match at.filter(|at| !mine && *at > Instant::now()) {
                        Some(at) => later = Some(later.map_or(at, |later| later.min(at))),
                        None => {
                            self.held.insert(*partition, Hold::Revoked);
                            self.inner = None;
                            return Ok(Delivery::Revoked(*partition));
                        }
                    }
                }
            }
        }
        Err(later)
    }

    /// Opens what is held, now and then a little before where it was left.
    async fn open(&mut self) -> Result<(), Fault> {
        let mut from = BTreeMap::new();
        for (partition, hold) in &self.held {
            if let Hold::At(offset) = hold {
                let back = if self.rng.per_mille(self.manner.repeats) {
                    self.rng.below(4) as u64
                } else {
                    0
                };
                from.insert(*partition, offset.saturating_sub(back));
            }
        }
        if !from.is_empty() {
            self.inner = Some(self.log.reader(&self.topic, From::Partitions(from)).await?);
        }
        Ok(())
    }
}

#[async_trait]
impl Reader for SimReader {
    async fn next(
        &mut self,
        max_records: usize,
        max_bytes: usize,
        wait: Duration,
    ) -> Result<Delivery, Fault> {
        let deadline = Instant::now() + wait;
        let process = Arc::clone(&self.process);
        let at_most = max_records.min(1 + self.rng.below(self.manner.most));
        loop {
            process.alive().await;
            let chaos = Arc::clone(&process.chaos);
            let groups = Arc::clone(&self.groups);
            let mut moved = std::pin::pin!(groups.changed.notified());
            let mut appended = std::pin::pin!(chaos.appended.notified());
            moved.as_mut().enable();
            appended.as_mut().enable();
            let later = match self.turn() {
                Ok(turn) => {
                    let turn = std::future::ready(Ok(turn));
                    return process
                        .pass("reader.turn", FaultKind::Unavailable, turn)
                        .await;
                }
                Err(later) => later,
            };
            if self.inner.is_none() {
                self.open().await?;
            }
            let read = match &mut self.inner {
                Some(inner) => inner.next(at_most, max_bytes, Duration::ZERO).await?,
                None => Delivery::Idle,
            };
            let Delivery::Batch(records) = read else {
                let until = later.map_or(deadline, |later| later.min(deadline));
                tokio::select! {
                    biased;
                    () = moved => {}
                    () = appended => {}
                    () = tokio::time::sleep_until(until) => {
                        if Instant::now() >= deadline {
                            return Ok(Delivery::Idle);
                        }
                    }
                }
                continue;
            };
            if let Some(last) = records.last() {
                self.held.insert(last.partition, Hold::At(last.offset + 1));
            }
            if self.rng.per_mille(self.manner.repeats) {
                self.inner = None;
            }
            let batch = std::future::ready(Ok(Delivery::Batch(records)));
            return process
                .pass("reader.batch", FaultKind::Unavailable, batch)
                .await;
        }
    }

    async fn start(&mut self, partition: u32, offset: u64) -> Result<(), Fault> {
        self.process.alive().await;
        if !matches!(self.held.get(&partition), Some(Hold::Waiting | Hold::At(_))) {
            return Err(Fault::new(FaultKind::Fenced, "partition is not assigned"));
        }
        let bounds = self.log.bounds(&self.topic).await?;
        if offset < bounds[&partition].start || offset > bounds[&partition].end {
            return Err(Fault::new(
                FaultKind::PositionLost,
                format!("offset {offset} of partition {partition} is out of {bounds:?}"),
            ));
        }
        self.held.insert(partition, Hold::At(offset));
        self.inner = None;
        Ok(())
    }

    async fn release(&mut self, partition: u32) -> Result<(), Fault> {
        self.process.alive().await;
        if self.held.get(&partition) != Some(&Hold::Revoked) {
            return Err(Fault::new(FaultKind::Protocol, "partition was not revoked"));
        }
        self.held.remove(&partition);
        self.groups.release(&self.group, self.id, partition);
        Ok(())
    }
}

impl Drop for SimReader {
    fn drop(&mut self) {
        self.groups.leave(&self.group, self.id);
    }
}
