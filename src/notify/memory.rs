//! A carrier that keeps what it was given, and refuses as often as it is told to.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::notice::Notice;
use super::port::{Address, Carrier};
use crate::fault::{Fault, FaultKind};

/// The carrier.
#[derive(Debug, Default)]
pub struct MemoryCarrier(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    carried: Vec<(Address, String, Notice)>,
    refusals: VecDeque<FaultKind>,
}

impl MemoryCarrier {
    /// What was delivered, in its order.
    #[must_use]
    pub fn carried(&self) -> Vec<(Address, String, Notice)> {
        self.lock().carried.clone()
    }

    /// The next call fails so.
    pub fn refuse(&self, kind: FaultKind) {
        self.lock().refusals.push_back(kind);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Carrier for MemoryCarrier {
    async fn carry(&self, to: &Address, id: &str, notice: &Notice) -> Result<String, Fault> {
        let mut inner = self.lock();
        if let Some(kind) = inner.refusals.pop_front() {
            return Err(Fault::new(kind, "refused as it was told to"));
        }
        let carried = (to.clone(), id.to_owned(), notice.clone());
        inner.carried.push(carried);
        Ok("250 kept".to_owned())
    }
}
