//! The stop signal: a tree of tokens, so that a connection, a job or the whole daemon can be told to stop.

use std::future::Future;

use tokio_util::sync::CancellationToken;

use crate::fault::{Fault, FaultKind};

/// A stop signal that can be given and heard; clones are the same signal, children hear their parents.
#[derive(Debug, Clone, Default)]
pub struct StopSignal {
    token: CancellationToken,
}

impl StopSignal {
    /// The root of a tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A signal that stops with this one, and can be stopped alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            token: self.token.child_token(),
        }
    }

    /// Tells this signal's holders and its children to stop; never undone.
    pub fn stop(&self) {
        self.token.cancel();
    }

    /// Whether the stop was given.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits for the stop. Cancel-safe.
    pub async fn stopped(&self) {
        self.token.cancelled().await;
    }

    /// Waits for `work` or for the stop, which drops it: only for work that is cancel-safe, never around a
    /// target's batch.
    ///
    /// # Errors
    /// `Stopping` if the stop came first.
    pub async fn or<T>(&self, work: impl Future<Output = T>) -> Result<T, Fault> {
        tokio::select! {
            biased;
            () = self.token.cancelled() => Err(self.fault()),
            done = work => Ok(done),
        }
    }

    /// `Stopping` if the stop was given: to be looked at between two batches.
    ///
    /// # Errors
    /// `Stopping`.
    pub fn check(&self) -> Result<(), Fault> {
        if self.is_stopping() {
            Err(self.fault())
        } else {
            Ok(())
        }
    }

    fn fault(&self) -> Fault {
        Fault::new(FaultKind::Stopping, "the daemon is stopping")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_goes_down_the_tree_and_not_up() {
        let root = StopSignal::new();
        let (left, right) = (root.child(), root.child());
        left.stop();
        assert!(left.is_stopping() && !right.is_stopping() && !root.is_stopping());
        root.stop();
        right.stopped().await;
        assert_eq!(right.check().unwrap_err().kind(), FaultKind::Stopping);
    }

    #[tokio::test]
    async fn a_stop_ends_the_wait() {
        let stop = StopSignal::new();
        assert_eq!(stop.or(async { 7 }).await.unwrap(), 7);
        stop.stop();
        let cut = stop.or(std::future::pending::<()>()).await;
        assert_eq!(cut.unwrap_err().kind(), FaultKind::Stopping);
    }
}
