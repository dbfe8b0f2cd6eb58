//! Until when an owner may publish: the log knows no term, so the clock fences it (I7).

use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};

use crate::fault::{Fault, FaultKind};
use crate::model::name::ConnectionId;

/// The end of an owner's lease, moved by its renewal and looked at before every append.
#[derive(Debug)]
pub struct Lease(Mutex<DateTime<Utc>>);

impl Lease {
    /// A lease that ends at `until`.
    #[must_use]
    pub const fn new(until: DateTime<Utc>) -> Self {
        Self(Mutex::new(until))
    }

    /// It was renewed.
    pub fn prolong(&self, until: DateTime<Utc>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *held = until.max(*held);
    }

    /// When it ends.
    #[must_use]
    pub fn until(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it still holds: another may own the connection from its end on.
    ///
    /// # Errors
    /// `Fenced` once it is over.
    pub fn check(&self, connection: &ConnectionId, now: DateTime<Utc>) -> Result<(), Fault> {
        let until = self.until();
        if now < until {
            return Ok(());
        }
        Err(Fault::new(
            FaultKind::Fenced,
            format!("the lease on connection {connection} ended at {until} and was not renewed"),
        )
        .remedy("nothing was published; the connection is taken up again when the lease is free"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_holds_until_its_end_and_is_never_shortened() {
        let at = |second| DateTime::from_timestamp(second, 0).unwrap();
        let connection = ConnectionId::new("acme");
        let lease = Lease::new(at(10));
        lease.check(&connection, at(9)).unwrap();
        let over = lease.check(&connection, at(10)).unwrap_err();
        assert_eq!(over.kind(), FaultKind::Fenced);
        lease.prolong(at(20));
        lease.prolong(at(15));
        lease.check(&connection, at(19)).unwrap();
    }
}
