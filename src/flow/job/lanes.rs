//! Batches under way: one per partition, several side by side; what one more delivery holds is made ready meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::Owner;
use super::batch::Work;
use super::commit::Seat;
use crate::fault::Fault;

/// A batch that came to its end.
pub(super) struct Landed {
    pub seat: Seat,
    pub work: Work,
    pub result: Result<(), Fault>,
}

/// What is under way.
pub(super) struct Lanes {
    most: usize,
    under_way: FuturesUnordered<BoxFuture<'static, Landed>>,
    /// The partitions of [`Lanes::under_way`].
    busy: BTreeMap<u32, Seat>,
    /// Mapped already, of one partition; their turns come when that and a lane are free.
    held: VecDeque<(Seat, Work)>,
}

impl Lanes {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            under_way: FuturesUnordered::new(),
            busy: BTreeMap::new(),
            held: VecDeque::new(),
        }
    }

    /// Whether more may be read: nothing is held beyond what the lanes and one delivery take.
    pub(super) fn admits(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn is_busy(&self, partition: u32) -> bool {
        self.busy.contains_key(&partition)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// The offset at which a partition will be once all that is under way has landed.
    pub(super) fn end_of(&self, partition: u32) -> Option<u64> {
        let held = self.held.back().map(|(seat, _)| seat);
        let held = held.filter(|seat| seat.partition == partition);
        held.or_else(|| self.busy.get(&partition))
            .map(|seat| seat.next)
    }

    /// Takes a batch: starts it, or holds it until its turn comes. What is held is of the same partition.
    pub(super) fn put(&mut self, owner: &Arc<Owner>, seat: Seat, work: Work) {
        self.held.push_back((seat, work));
        self.start_held(owner);
    }

    /// The next batch that comes to its end; waits for ever if none is under way. Cancel-safe.
    pub(super) async fn landed(&mut self, owner: &Arc<Owner>) -> Landed {
        let Some(landed) = self.under_way.next().await else {
            return std::future::pending().await;
        };
        self.busy.remove(&landed.seat.partition);
        if landed.result.is_ok() {
            self.start_held(owner);
        }
        landed
    }

    fn start_held(&mut self, owner: &Arc<Owner>) {
        if self.under_way.len() == self.most {
            return;
        }
        let busy = &self.busy;
        let is_free = |(seat, _): &(Seat, Work)| !busy.contains_key(&seat.partition);
        if !self.held.front().is_some_and(is_free) {
            return;
        }
        let Some((seat, mut work)) = self.held.pop_front() else {
            return;
        };
        self.busy.insert(seat.partition, seat);
        let owner = Arc::clone(owner);
        self.under_way.push(Box::pin(async move {
            let result = owner.commit(seat, &mut work).await;
            Landed { seat, work, result }
        }));
    }

    /// Drops what has not begun, and waits for what has: no batch is left in the middle. What came to its end.
    pub(super) async fn drain(&mut self) -> Vec<Landed> {
        self.held.clear();
        let mut all = Vec::new();
        while let Some(landed) = self.under_way.next().await {
            all.push(landed);
        }
        self.busy.clear();
        all
    }
}
