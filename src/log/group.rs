//! Groups of readers within one process: who has which partition, and who is to get it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// All groups of a log. Partitions are spread evenly over a group's members and move only as far as they must.
#[derive(Debug, Default)]
pub struct Groups {
    groups: Mutex<HashMap<Name, Group>>,
    changed: watch::Sender<u64>,
}

type Name = (Arc<str>, String);

#[derive(Debug, Default)]
struct Group {
    /// In the order of joining.
    members: Vec<u64>,
    joined: u64,
    seats: Vec<Seat>,
}

/// A partition's owner, and the member that should be.
#[derive(Debug, Clone, Copy, Default)]
struct Seat {
    owner: Option<u64>,
    wanted: Option<u64>,
}

/// A member of a group; leaves when dropped.
#[derive(Debug)]
pub struct Member {
    groups: Arc<Groups>,
    name: Name,
    id: u64,
    changed: watch::Receiver<u64>,
}

/// What a member has to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// A partition is its own now.
    Assigned(u32),
    /// A partition is wanted elsewhere; it stays its own until released.
    Revoked(u32),
}

impl Groups {
    /// Joins the group of `topic`, which has `partitions`.
    pub fn join(self: &Arc<Self>, topic: Arc<str>, group: String, partitions: u32) -> Member {
        let name = (topic, group);
        let mut groups = self.lock();
        let found = groups.entry(name.clone()).or_default();
        found.seats.resize(partitions as usize, Seat::default());
        found.joined += 1;
        let id = found.joined;
        found.members.push(id);
        found.spread();
        drop(groups);
        let changed = self.changed.subscribe();
        self.changed.send_modify(|count| *count += 1);
        Member {
            groups: Arc::clone(self),
            name,
            id,
            changed,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Group>> {
        // Every change below is made in one go; none can panic half-way.
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    /// What the member has to be told next; a revocation only if `is_told` does not know of it.
    pub fn turn(&self, is_told: impl Fn(u32) -> bool) -> Option<Turn> {
        let mut groups = self.groups.lock();
        let group = groups.get_mut(&self.name)?;
        let me = Some(self.id);
        let seats = || (0..).zip(group.seats.iter());
        let lost = seats().find(|(partition, seat)| {
            seat.owner == me && seat.wanted != me && !is_told(*partition)
        });
        if let Some((partition, _)) = lost {
            return Some(Turn::Revoked(partition));
        }
        let (partition, seat) = (0..)
            .zip(group.seats.iter_mut())
            .find(|(_, seat)| seat.owner.is_none() && seat.wanted == me)?;
        seat.owner = me;
        Some(Turn::Assigned(partition))
    }

    /// Gives a partition up, so that another member can be told that it is its own.
    pub fn release(&self, partition: u32) {
        let mut groups = self.groups.lock();
        if let Some(group) = groups.get_mut(&self.name)
            && let Some(seat) = group.seats.get_mut(partition as usize)
            && seat.owner == Some(self.id)
        {
            seat.owner = None;
        }
        drop(groups);
        self.groups.changed.send_modify(|count| *count += 1);
    }

    /// Changes of any group are seen from here on.
    pub fn changes(&mut self) -> &mut watch::Receiver<u64> {
        &mut self.changed
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut groups = self.groups.lock();
        if let Some(group) = groups.get_mut(&self.name) {
            group.members.retain(|member| *member != self.id);
            for seat in &mut group.seats {
                if seat.owner == Some(self.id) {
                    seat.owner = None;
                }
            }
            group.spread();
            if group.members.is_empty() {
                groups.remove(&self.name);
            }
        }
        drop(groups);
        self.groups.changed.send_modify(|count| *count += 1);
    }
}

impl Group {
    /// Decides who should have what: nobody keeps more than a fair share, nobody loses within it.
    fn spread(&mut self) {
        let count = self.members.len();
        if count == 0 {
            return;
        }
        let (share, over) = (self.seats.len() / count, self.seats.len() % count);
        let mut room: HashMap<u64, usize> = (0..)
            .zip(&self.members)
            .map(|(at, member)| (*member, share + usize::from(at < over)))
            .collect();
        for seat in &mut self.seats {
            seat.wanted = seat
                .wanted
                .filter(|member| room.get_mut(member).is_some_and(take));
        }
        let mut members = self.members.iter();
        let mut next = members.next();
        for seat in self.seats.iter_mut().filter(|seat| seat.wanted.is_none()) {
            while let Some(member) = next {
                if room.get_mut(member).is_some_and(take) {
                    seat.wanted = Some(*member);
                    break;
                }
                next = members.next();
            }
        }
    }
}

fn take(room: &mut usize) -> bool {
    let left = *room > 0;
    *room = room.saturating_sub(1);
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tells the member everything; returns what it was given and what it has to give up.
    fn told(member: &Member) -> (Vec<u32>, Vec<u32>) {
        let (mut given, mut lost) = (Vec::new(), Vec::new());
        while let Some(turn) = member.turn(|partition| lost.contains(&partition)) {
            match turn {
                Turn::Assigned(partition) => given.push(partition),
                Turn::Revoked(partition) => lost.push(partition),
            }
        }
        (given, lost)
    }

    #[test]
    fn partitions_move_only_as_far_as_they_must() {
        let groups = Arc::new(Groups::default());
        let join = |topic: &str| groups.join(Arc::from(topic), "job".to_owned(), 8);
        let (first, other) = (join("a"), join("b"));
        assert_eq!(told(&first).0.len(), 8);
        assert_eq!(told(&other).0.len(), 8);
        let second = join("a");
        assert_eq!(told(&second), (vec![], vec![]), "nothing is free yet");
        let (given, lost) = told(&first);
        assert!(given.is_empty());
        assert_eq!(lost.len(), 4);
        first.release(lost[0]);
        assert_eq!(told(&second).0, [lost[0]]);
        for partition in &lost[1..] {
            first.release(*partition);
        }
        assert_eq!(told(&second).0, lost[1..]);
        drop(first);
        assert_eq!(told(&second).0.len(), 4);
        assert_eq!(told(&other), (vec![], vec![]));
    }

    #[test]
    fn more_members_than_partitions_leave_some_idle() {
        let groups = Arc::new(Groups::default());
        let members: Vec<_> = (0..5)
            .map(|_| groups.join(Arc::from("a"), "job".to_owned(), 2))
            .collect();
        let given: Vec<_> = members.iter().map(|member| told(member).0.len()).collect();
        assert_eq!(given, [1, 1, 0, 0, 0]);
    }
}
