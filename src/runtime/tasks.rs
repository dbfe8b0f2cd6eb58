//! Owned tasks: none is spawned bare, the first to end ends its siblings, every stop has a deadline.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::fault::{Fault, FaultKind};

/// A family of tasks that live and end together.
#[derive(Debug)]
pub struct Family {
    stop: CancellationToken,
    tasks: JoinSet<(&'static str, Result<(), Fault>)>,
}

impl Family {
    /// A family that ends when `parent` is cancelled.
    #[must_use]
    pub fn new(parent: &CancellationToken) -> Self {
        Self {
            stop: parent.child_token(),
            tasks: JoinSet::new(),
        }
    }

    /// The signal that its tasks look at.
    #[must_use]
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a task. It ends by itself soon after the stop signal.
    pub fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), Fault>> + Send + 'static,
    ) {
        self.tasks.spawn(async move { (name, task.await) });
    }

    /// Waits for the first task to end with a fault, or for all to end; then stops the others and waits for
    /// them up to `grace`. What is not done by then is cut.
    ///
    /// # Errors
    /// The first fault, with the task's name.
    pub async fn join(mut self, grace: Duration) -> Result<(), Fault> {
        let mut first = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(fault) = outcome(ended) {
                first = Err(fault);
                break;
            }
        }
        self.stop.cancel();
        let drained = tokio::time::timeout(grace, async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(fault) = outcome(ended) {
                    tracing::debug!(error = %fault, "task ended while stopping");
                }
            }
        });
        if drained.await.is_err() {
            tracing::warn!(
                cut = self.tasks.len(),
                "tasks did not end within the grace period"
            );
            self.tasks.shutdown().await;
        }
        first
    }
}

fn outcome(
    ended: Result<(&'static str, Result<(), Fault>), tokio::task::JoinError>,
) -> Result<(), Fault> {
    match ended {
        Ok((_, Ok(()))) => Ok(()),
        Ok((_, Err(fault))) if fault.kind() == FaultKind::Stopping => Ok(()),
        Ok((name, Err(fault))) => Err(fault.context(name)),
        Err(panic) => Err(Fault::new(FaultKind::Corrupt, "a task panicked").source(panic)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_fault_stops_the_others() {
        let root = CancellationToken::new();
        let mut family = Family::new(&root);
        let stop = family.stop();
        family.spawn("patient", async move {
            stop.cancelled().await;
            Ok(())
        });
        family.spawn("failing", async {
            Err(Fault::new(FaultKind::Config, "no such thing"))
        });
        let fault = family.join(Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(fault.to_string(), "failing: no such thing");
        assert!(!root.is_cancelled());
    }

    #[tokio::test]
    async fn a_panic_is_a_fault() {
        let mut family = Family::new(&CancellationToken::new());
        family.spawn("broken", async { panic!("oh no") });
        assert!(family.join(Duration::from_secs(5)).await.is_err());
    }
}
