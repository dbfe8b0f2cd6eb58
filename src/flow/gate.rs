//! When records may be read by id, where a whole read begins an object's stream.
//!
//! Such a stream tells what happens after the whole read was sent, and nothing of before. A read by id may be behind by
//! the lag: sent soon after, it can show a record alive that the whole read rightly did not have, and whose death
//! nobody tells. So reads by id keep the lag's distance to the sending of a whole read.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::name::ObjectName;

/// Reads are told apart by whole seconds of the CRM's clock.
const SECOND: Duration = Duration::from_millis(1100);

/// The gate of one connection's life.
#[derive(Debug)]
pub struct Gate {
    /// How far a read may be behind; `None` where whole reads begin no stream.
    lag: Option<Duration>,
    /// When this life began: the one before may have read just then.
    began: Instant,
    objects: Mutex<BTreeMap<ObjectName, Entry>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Entry {
    /// When records were last read by id.
    read: Option<Instant>,
    whole: Whole,
}

#[derive(Debug, Default, Clone, Copy)]
enum Whole {
    #[default]
    None,
    /// It is being sent.
    Opening,
    /// Its first page came.
    Open(Instant),
}

impl Gate {
    /// The gate where reads may be so far behind; `None`: always open.
    #[must_use]
    pub fn new(lag: Option<Duration>) -> Self {
        Self {
            lag,
            began: Instant::now(),
            objects: Mutex::default(),
        }
    }

    /// Takes leave to read records by id now; else how long until it is worth asking again.
    pub fn pass(&self, object: &ObjectName) -> Result<(), Duration> {
        let Some(lag) = self.lag else {
            return Ok(());
        };
        let now = Instant::now();
        let mut objects = self.lock();
        let entry = objects.entry(object.clone()).or_default();
        let open = match entry.whole {
            Whole::None => self.began + lag,
            Whole::Open(at) => at + lag,
            Whole::Opening => now + SECOND,
        };
        if now < open {
            return Err(open - now);
        }
        entry.read = Some(now);
        Ok(())
    }

    /// Waits until records may be read by id.
    pub async fn passed(&self, object: &ObjectName) {
        while let Err(wait) = self.pass(object) {
            tokio::time::sleep(wait).await;
        }
    }

    /// A whole read is about to be sent: no read by id is until what is returned is dropped (it was sent, or could not
    /// be), and the last is of an earlier second. That may be one of the life before, of the moment when this one began.
    pub async fn close<'a>(&'a self, object: &'a ObjectName) -> Closed<'a> {
        let closed = Closed { gate: self, object };
        if self.lag.is_none() {
            return closed;
        }
        let read = {
            let mut objects = self.lock();
            let entry = objects.entry(object.clone()).or_default();
            entry.whole = Whole::Opening;
            entry.read.unwrap_or(self.began)
        };
        tokio::time::sleep_until(read + SECOND).await;
        closed
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectName, Entry>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The gate before one object, closed; whoever drops it opens it, also whoever gives the read up.
#[derive(Debug)]
#[must_use = "dropped, it is open"]
pub struct Closed<'a> {
    gate: &'a Gate,
    object: &'a ObjectName,
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        let mut objects = self.gate.lock();
        objects.entry(self.object.clone()).or_default().whole = Whole::Open(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn reads_by_id_keep_their_distance_to_whole_reads_of_their_object() {
        let (one, other) = (ObjectName::new("account"), ObjectName::new("contact"));
        let gate = Gate::new(Some(LAG));
        assert_eq!(gate.pass(&one), Err(LAG), "the life before may have read");
        tokio::time::advance(LAG).await;
        assert_eq!(gate.pass(&one), Ok(()));
        let began = Instant::now();
        let closed = gate.close(&one).await;
        assert!(began.elapsed() >= SECOND);
        assert!(gate.pass(&one).is_err());
        assert_eq!(gate.pass(&other), Ok(()));
        tokio::time::advance(LAG * 2).await;
        drop(closed);
        assert_eq!(gate.pass(&one), Err(LAG));
        tokio::time::advance(LAG).await;
        assert_eq!(gate.pass(&one), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_read_is_of_a_later_second_than_the_reads_of_the_life_before() {
        let object = ObjectName::new("account");
        let (gate, began) = (Gate::new(Some(LAG)), Instant::now());
        drop(gate.close(&object).await);
        assert!(began.elapsed() >= SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn where_whole_reads_begin_nothing_the_gate_is_open() {
        let (gate, object) = (Gate::new(None), ObjectName::new("Account"));
        let _closed = gate.close(&object).await;
        assert_eq!(gate.pass(&object), Ok(()));
    }
}
