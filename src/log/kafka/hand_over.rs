//! What a consumer's thread and its reader share: turns of the group, partitions, records that wait for delivery.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::fault::{Fault, FaultKind};
use crate::log::polling::Limit;
use crate::log::port::{Delivery, Record};
use crate::log::topic::closed;

/// Records of a partition that wait for the reader at most.
pub(super) const ROOM: usize = 500;
/// Their bytes; one record may exceed it.
pub(super) const ROOM_BYTES: usize = 1024 * 1024;

/// The shared state, and the reader's bell.
#[derive(Default)]
pub(super) struct HandOver {
    state: Mutex<State>,
    pub bell: Notify,
}

#[derive(Default)]
pub(super) struct State {
    /// Assignments and revocations that the reader has not been told.
    turns: VecDeque<Turn>,
    seats: BTreeMap<u32, Seat>,
    /// The partition that the last batch was of; the next one has the turn.
    last: u32,
    /// A fault of the group or the client, told once.
    fault: Option<Fault>,
    /// The topic is another than the one that the reader was opened on.
    made_again: Option<String>,
    /// The thread has ended.
    ended: bool,
    starts: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Assigned(u32),
    Revoked(u32),
}

/// A partition that is the reader's own, or still is.
struct Seat {
    hold: Hold,
    /// The number of its last start; what was read for an earlier one is dropped.
    start: u64,
    records: VecDeque<Record>,
    bytes: usize,
    /// Whether the thread stopped taking records down for want of room.
    is_full: bool,
    /// Why nothing more comes until it is started again.
    stuck: Option<(FaultKind, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// Assigned and not started.
    Waiting,
    /// Delivering.
    Started,
    /// To be released.
    Revoked,
}

/// What became of a revocation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Revoked {
    /// The reader has to release it.
    Told,
    /// The reader never knew of it.
    Unknown,
}

/// What a look for records found.
pub(super) enum Looked {
    /// Something to deliver, and whether the thread may take more down.
    Found(Delivery, bool),
    /// Nothing yet.
    Nothing,
}

impl HandOver {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is made in one go; none can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reader's next delivery, if there is one.
    pub(super) fn look(&self, limit: Limit) -> Result<Looked, Fault> {
        let mut state = self.lock();
        if let Some(turn) = state.turns.pop_front() {
            let delivery = match turn {
                Turn::Assigned(partition) => Delivery::Assigned(partition),
                Turn::Revoked(partition) => Delivery::Revoked(partition),
            };
            return Ok(Looked::Found(delivery, false));
        }
        if let Some(fault) = state.fault.take() {
            return Err(fault);
        }
        state.check_made_again()?;
        let stuck = state.seats.values().find_map(|seat| seat.stuck.clone());
        if let Some((kind, text)) = stuck {
            return Err(Fault::new(kind, text));
        }
        if let Some((batch, has_room)) = state.batch(limit) {
            return Ok(Looked::Found(Delivery::Batch(batch), has_room));
        }
        if state.ended {
            return Err(closed());
        }
        Ok(Looked::Nothing)
    }

    /// Marks the topic as another one; nothing is delivered any more.
    pub(super) fn make_again(&self, why: String) {
        let mut state = self.lock();
        state.made_again.get_or_insert(why);
        for seat in state.seats.values_mut() {
            seat.clear();
        }
        drop(state);
        self.bell.notify_one();
    }

    /// The thread is gone.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.bell.notify_one();
    }
}

impl State {
    /// A partition is the reader's own now.
    pub(super) fn assigned(&mut self, partition: u32) {
        self.seats.insert(partition, Seat::new(Hold::Waiting, 0));
        self.turns.push_back(Turn::Assigned(partition));
    }

    /// A partition goes elsewhere: nothing of it is delivered any more.
    pub(super) fn revoked(&mut self, partition: u32) -> Revoked {
        let before = self.turns.len();
        self.turns.retain(|turn| *turn != Turn::Assigned(partition));
        let was_told = self.turns.len() == before;
        let Some(seat) = self.seats.get_mut(&partition).filter(|_| was_told) else {
            self.seats.remove(&partition);
            return Revoked::Unknown;
        };
        seat.clear();
        seat.stuck = None;
        if seat.hold != Hold::Revoked {
            seat.hold = Hold::Revoked;
            self.turns.push_back(Turn::Revoked(partition));
        }
        Revoked::Told
    }

    /// Whether the reader may start a partition.
    pub(super) fn may_start(&self, partition: u32) -> bool {
        self.seats
            .get(&partition)
            .is_some_and(|seat| seat.hold != Hold::Revoked)
    }

    /// Begins a partition; answers with the number of the start, if it still is the reader's.
    pub(super) fn start(&mut self, partition: u32) -> Option<u64> {
        if !self.may_start(partition) {
            return None;
        }
        Some(self.seat(partition))
    }

    /// A partition that no group has to give.
    pub(super) fn seat(&mut self, partition: u32) -> u64 {
        self.starts += 1;
        let seat = Seat::new(Hold::Started, self.starts);
        self.seats.insert(partition, seat);
        self.starts
    }

    /// Gives a revoked partition up; whether it was one.
    pub(super) fn release(&mut self, partition: u32) -> bool {
        let is_revoked = |seat: &Seat| seat.hold == Hold::Revoked;
        if !self.seats.get(&partition).is_some_and(is_revoked) {
            return false;
        }
        self.turns.retain(|turn| *turn != Turn::Revoked(partition));
        self.seats.remove(&partition);
        true
    }

    pub(super) fn check_made_again(&self) -> Result<(), Fault> {
        match &self.made_again {
            Some(why) => Err(Fault::new(FaultKind::PositionLost, why.clone())),
            None => Ok(()),
        }
    }

    /// How many records and bytes the partition has room for; none while nobody waits for records of this start.
    pub(super) fn room(&mut self, partition: u32, start: u64) -> Option<Limit> {
        let has_ended = self.made_again.is_some();
        let seat = self.current(partition, start)?;
        if has_ended || seat.stuck.is_some() {
            return None;
        }
        if seat.records.len() >= ROOM || seat.bytes >= ROOM_BYTES {
            seat.is_full = true;
            return None;
        }
        Some(Limit {
            records: ROOM - seat.records.len(),
            bytes: ROOM_BYTES - seat.bytes,
        })
    }

    /// Lays records down for the reader.
    pub(super) fn deposit(&mut self, partition: u32, start: u64, records: Vec<Record>) {
        if let Some(seat) = self.current(partition, start) {
            seat.bytes += records.iter().map(Record::size).sum::<usize>();
            seat.records.extend(records);
        }
    }

    /// The partition can't be read any further.
    pub(super) fn stick(&mut self, partition: u32, start: u64, fault: &Fault) {
        if let Some(seat) = self.current(partition, start) {
            seat.stuck = Some((fault.kind(), fault.report()));
        }
    }

    /// Something befell the client as a whole.
    pub(super) fn fail(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    fn current(&mut self, partition: u32, start: u64) -> Option<&mut Seat> {
        self.seats
            .get_mut(&partition)
            .filter(|seat| seat.hold == Hold::Started && seat.start == start)
    }

    /// A batch of the first partition in turn that has one, and whether that made room.
    fn batch(&mut self, limit: Limit) -> Option<(Vec<Record>, bool)> {
        let last = self.last;
        let in_turn = |partition: &u32| *partition > last;
        let has_records = |(_, seat): &(&u32, &Seat)| !seat.records.is_empty();
        let mut waiting = self.seats.iter().filter(has_records).map(|(p, _)| *p);
        let first = waiting.clone().find(in_turn);
        let partition = first.or_else(|| waiting.next())?;
        let seat = self.seats.get_mut(&partition)?;
        let mut batch = Vec::with_capacity(seat.records.len().min(limit.records));
        let mut bytes = 0;
        while let Some(size) = seat.records.front().map(Record::size) {
            if !limit.admits(batch.len(), bytes, size) {
                break;
            }
            bytes += size;
            batch.extend(seat.records.pop_front());
        }
        seat.bytes -= bytes;
        let has_room =
            seat.is_full && seat.records.len() <= ROOM / 2 && seat.bytes <= ROOM_BYTES / 2;
        if has_room {
            seat.is_full = false;
        }
        self.last = partition;
        Some((batch, has_room))
    }
}

impl Seat {
    const fn new(hold: Hold, start: u64) -> Self {
        Self {
            hold,
            start,
            records: VecDeque::new(),
            bytes: 0,
            is_full: false,
            stuck: None,
        }
    }

    fn clear(&mut self) {
        self.records = VecDeque::new();
        self.bytes = 0;
    }
}

/// Ends the hand-over when its thread ends, however that came.
pub(super) struct EndGuard(pub Arc<HandOver>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chrono::DateTime;

    use super::*;

    const ALL: Limit = Limit {
        records: usize::MAX,
        bytes: usize::MAX,
    };

    fn records(partition: u32, offsets: std::ops::Range<u64>, bytes: usize) -> Vec<Record> {
        let record = |offset| Record {
            partition,
            offset,
            at: DateTime::UNIX_EPOCH,
            key: Bytes::new(),
            value: Some(vec![0; bytes].into()),
            headers: Vec::new(),
        };
        offsets.map(record).collect()
    }

    fn found(shared: &HandOver) -> Option<Delivery> {
        match shared.look(ALL).unwrap() {
            Looked::Found(delivery, _) => Some(delivery),
            Looked::Nothing => None,
        }
    }

    #[test]
    fn what_was_read_for_an_earlier_start_is_dropped() {
        let shared = HandOver::default();
        let first = shared.lock().seat(0);
        shared.lock().deposit(0, first, records(0, 0..3, 1));
        let second = shared.lock().seat(0);
        shared.lock().deposit(0, first, records(0, 3..6, 1));
        assert_eq!(found(&shared), None);
        shared.lock().deposit(0, second, records(0, 9..10, 1));
        assert_eq!(found(&shared), Some(Delivery::Batch(records(0, 9..10, 1))));
    }

    #[test]
    fn a_revocation_comes_first_and_takes_the_records() {
        let shared = HandOver::default();
        shared.lock().assigned(0);
        assert_eq!(found(&shared), Some(Delivery::Assigned(0)));
        let start = shared.lock().start(0).unwrap();
        shared.lock().deposit(0, start, records(0, 0..3, 1));
        assert_eq!(shared.lock().revoked(0), Revoked::Told);
        assert_eq!(shared.lock().revoked(0), Revoked::Told, "told once");
        assert_eq!(found(&shared), Some(Delivery::Revoked(0)));
        shared.lock().deposit(0, start, records(0, 3..6, 1));
        assert_eq!(found(&shared), None);
        assert!(!shared.lock().may_start(0));
        assert!(shared.lock().release(0));
        assert!(!shared.lock().release(0));
    }

    #[test]
    fn an_assignment_that_was_never_told_goes_silently() {
        let shared = HandOver::default();
        shared.lock().assigned(0);
        shared.lock().assigned(1);
        assert_eq!(shared.lock().revoked(0), Revoked::Unknown);
        assert_eq!(found(&shared), Some(Delivery::Assigned(1)));
        assert_eq!(found(&shared), None);
        assert!(!shared.lock().may_start(0));
    }

    #[test]
    fn a_seat_that_is_full_takes_nothing_until_half_is_read() {
        let shared = HandOver::default();
        let start = shared.lock().seat(0);
        assert_eq!(shared.lock().room(0, start).unwrap().records, ROOM);
        shared.lock().deposit(0, start, records(0, 0..500, 1));
        assert!(shared.lock().room(0, start).is_none());
        let take = |records| {
            let bytes = usize::MAX;
            match shared.look(Limit { records, bytes }).unwrap() {
                Looked::Found(_, has_room) => has_room,
                Looked::Nothing => panic!("records were due"),
            }
        };
        assert!(!take(249));
        assert!(take(1), "the thread is called");
        assert!(!take(1), "once");
        shared
            .lock()
            .deposit(0, start, records(0, 500..501, ROOM_BYTES));
        assert!(shared.lock().room(0, start).is_none(), "by bytes as well");
    }

    #[test]
    fn what_is_lost_stays_lost_until_it_is_started_elsewhere() {
        let shared = HandOver::default();
        let start = shared.lock().seat(0);
        let gone = Fault::new(FaultKind::PositionLost, "gone");
        shared.lock().stick(0, start, &gone);
        for _ in 0..3 {
            let lost = shared.look(ALL).err().unwrap();
            assert_eq!(lost.kind(), FaultKind::PositionLost);
        }
        shared.lock().seat(0);
        assert_eq!(found(&shared), None);
        shared.make_again("another".to_owned());
        shared.lock().seat(0);
        let lost = shared.look(ALL).err().unwrap();
        assert_eq!(lost.kind(), FaultKind::PositionLost, "no start helps");
    }

    #[test]
    fn a_thread_that_ended_is_told_after_what_it_left() {
        let shared = Arc::new(HandOver::default());
        let start = shared.lock().seat(0);
        shared.lock().deposit(0, start, records(0, 0..1, 1));
        drop(EndGuard(Arc::clone(&shared)));
        assert!(matches!(found(&shared), Some(Delivery::Batch(_))));
        let told = shared.look(ALL).err().unwrap();
        assert_eq!(told.kind(), FaultKind::Stopping);
    }
}
