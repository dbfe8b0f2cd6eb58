//! Until when an owner may publish: the log knows no term, so the clock fences it (I7).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use crate::fault::{Fault, FaultKind};
use crate::model::name::ConnectionId;

/// The end of an owner's lease, moved by its renewal and looked at before every append.
#[derive(Debug)]
pub struct Lease(Mutex<End>);

/// When a lease ends, by two clocks: the date may be set back while the lease runs, and the other one may stand
/// still while the machine sleeps. Whichever says so first is believed.
#[derive(Debug, Clone, Copy)]
pub struct End {
    date: DateTime<Utc>,
    instant: Instant,
}

impl End {
    /// The end of a lease of that length, taken before the lease is asked for.
    #[must_use]
    pub fn after(now: DateTime<Utc>, lease: Duration) -> Self {
        Self {
            date: now + TimeDelta::from_std(lease).unwrap_or_default(),
            instant: Instant::now() + lease,
        }
    }

    fn is_over(self, now: DateTime<Utc>) -> bool {
        now >= self.date || Instant::now() >= self.instant
    }
}

impl Lease {
    /// A lease that was granted.
    #[must_use]
    pub const fn new(end: End) -> Self {
        Self(Mutex::new(end))
    }

    /// It was renewed.
    pub fn prolong(&self, end: End) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The date may have been set back since; the renewal was granted all the same.
        if end.instant > held.instant {
            *held = end;
        }
    }

    /// Whether it still holds: another may own the connection from its end on.
    ///
    /// # Errors
    /// `Fenced` once it is over.
    pub fn check(&self, connection: &ConnectionId, now: DateTime<Utc>) -> Result<(), Fault> {
        let end = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !end.is_over(now) {
            return Ok(());
        }
        let until = end.date;
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

    const TEN: Duration = Duration::from_secs(10);

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    fn kind(lease: &Lease, now: DateTime<Utc>) -> Option<FaultKind> {
        let checked = lease.check(&ConnectionId::new("acme"), now);
        checked.err().map(|fault| fault.kind())
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_holds_until_its_end_and_is_never_shortened() {
        let lease = Lease::new(End::after(at(0), TEN));
        assert_eq!(kind(&lease, at(9)), None);
        assert_eq!(kind(&lease, at(10)), Some(FaultKind::Fenced));
        lease.prolong(End::after(at(10), TEN + TEN));
        lease.prolong(End::after(at(10), TEN));
        assert_eq!(kind(&lease, at(29)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_date_that_is_set_back_prolongs_nothing() {
        let lease = Lease::new(End::after(at(1_000), TEN));
        tokio::time::advance(TEN - Duration::from_secs(1)).await;
        assert_eq!(kind(&lease, at(9)), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(kind(&lease, at(10)), Some(FaultKind::Fenced));
        lease.prolong(End::after(at(10), TEN));
        assert_eq!(kind(&lease, at(11)), None);
    }
}
