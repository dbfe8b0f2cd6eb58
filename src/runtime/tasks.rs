//! The owner of tasks: nothing is spawned without one, and every fault or panic reaches it.

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use crate::fault::{Fault, FaultKind};
use crate::runtime::shutdown::StopSignal;

/// Owns named tasks; dropped, it aborts them.
#[derive(Debug)]
pub struct Tasks {
    stop: StopSignal,
    running: JoinSet<Result<(), Fault>>,
    names: HashMap<Id, String>,
}

/// A task that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its name.
    pub name: String,
    /// How: a panic is a fault of kind `Protocol`; an abort, one of kind `Stopping`.
    pub outcome: Result<(), Fault>,
}

/// What became of the tasks at a drain.
#[derive(Debug, Default)]
pub struct Drained {
    /// Tasks that ended in time, with their outcome.
    pub ended: Vec<Ended>,
    /// Names of the tasks that had to be cut off, sorted.
    pub cut: Vec<String>,
}

impl Tasks {
    /// An owner whose tasks hear `stop`.
    #[must_use]
    pub fn new(stop: StopSignal) -> Self {
        Self {
            stop,
            running: JoinSet::new(),
            names: HashMap::new(),
        }
    }

    /// The signal by which these tasks are stopped.
    #[must_use]
    pub const fn stop(&self) -> &StopSignal {
        &self.stop
    }

    /// Runs `task` under `name`.
    pub fn spawn<F>(&mut self, name: impl Into<String>, task: F)
    where
        F: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        let handle = self.running.spawn(task);
        self.names.insert(handle.id(), name.into());
    }

    /// How many have not been collected yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Waits for the next task to end; `None` when there are none. Cancel-safe.
    pub async fn next(&mut self) -> Option<Ended> {
        let ended = self.running.join_next_with_id().await?;
        Some(self.collect(ended))
    }

    /// Gives the stop, waits up to `grace` for the tasks to end by themselves, cuts off the rest, and tells both.
    pub async fn drain(&mut self, grace: Duration) -> Drained {
        self.stop.stop();
        let deadline = Instant::now() + grace;
        let mut drained = Drained::default();
        while let Ok(Some(ended)) = tokio::time::timeout_at(deadline, self.next()).await {
            drained.ended.push(ended);
        }
        self.running.abort_all();
        while let Some(ended) = self.running.join_next_with_id().await {
            let cut = matches!(&ended, Err(error) if error.is_cancelled());
            let ended = self.collect(ended);
            if cut {
                drained.cut.push(ended.name);
            } else {
                drained.ended.push(ended);
            }
        }
        drained.cut.sort_unstable();
        drained
    }

    fn collect(&mut self, ended: Result<(Id, Result<(), Fault>), JoinError>) -> Ended {
        let (id, outcome) = match ended {
            Ok(ended) => ended,
            Err(error) => (error.id(), Err(fault_of(error))),
        };
        let name = self.names.remove(&id).unwrap_or_default();
        let outcome = outcome.map_err(|fault| fault.context(format_args!("running task `{name}`")));
        Ended { name, outcome }
    }
}

fn fault_of(error: JoinError) -> Fault {
    match error.try_into_panic() {
        Ok(panic) => Fault::new(
            FaultKind::Protocol,
            format!("the task panicked: {}", panic_text(panic.as_ref())),
        )
        .remedy("report this as a bug, with the log around it"),
        Err(_) => Fault::new(FaultKind::Stopping, "the task was cut off"),
    }
}

/// The message of a panic, where it has one.
#[must_use]
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fault_and_a_panic_reach_the_owner() {
        let mut tasks = Tasks::new(StopSignal::new());
        tasks.spawn("faulty", async {
            Err(Fault::new(FaultKind::Corrupt, "row 3 is torn"))
        });
        tasks.spawn("wild", async { panic!("boom {}", 1) });
        let mut told = Vec::new();
        while let Some(ended) = tasks.next().await {
            told.push((ended.name, ended.outcome.unwrap_err()));
        }
        told.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(told[0].0, "faulty");
        assert_eq!(told[0].1.kind(), FaultKind::Corrupt);
        assert!(told[1].1.report().contains("boom 1"), "{}", told[1].1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_the_willing_and_cuts_the_rest() {
        let mut tasks = Tasks::new(StopSignal::new());
        let stop = tasks.stop().clone();
        tasks.spawn("willing", async move {
            stop.stopped().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(())
        });
        tasks.spawn("deaf", std::future::pending());
        let drained = tasks.drain(Duration::from_secs(5)).await;
        assert_eq!(drained.cut, ["deaf"]);
        assert_eq!(drained.ended.len(), 1);
        assert_eq!(drained.ended[0].name, "willing");
        assert!(drained.ended[0].outcome.is_ok());
        assert!(tasks.is_empty());
    }
}
