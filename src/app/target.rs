//! The target at the start: made if it is there, waited for if it is not.

use std::sync::Arc;
use std::time::Duration;

use crate::fault::{Fault, FaultKind};
use crate::runtime::backoff::{Attempts, Backoff};
use crate::runtime::shutdown::StopSignal;
use crate::target::watched::Watched;

/// How long the start waits for an answer, so that a daemon whose target is there serves with its tables made.
const FIRST_LOOK: Duration = Duration::from_secs(3);
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(500),
    cap: Duration::from_secs(15),
    hint_cap: Duration::from_mins(1),
};

/// Makes the tables; `false` if the target is not there, or is none yet that takes them.
///
/// # Errors
/// `Config` or `Corrupt`: what no waiting mends, told to whoever starts the daemon.
pub(super) async fn begin(target: &Watched) -> Result<bool, Fault> {
    match tokio::time::timeout(FIRST_LOOK, target.make()).await {
        Ok(Ok(())) => Ok(true),
        Ok(Err(fault)) if matches!(fault.kind(), FaultKind::Config | FaultKind::Corrupt) => {
            Err(fault.context("making the tables of `[target]`"))
        }
        // It was noted, and is tried again.
        Ok(Err(_)) | Err(_) => Ok(false),
    }
}

/// Tries until the tables are made. An operator may mend whatever the fault is, so every one is tried again.
///
/// # Errors
/// None: `Stopping` ends it well.
pub(super) async fn keep_trying(target: Arc<Watched>, stop: StopSignal) -> Result<(), Fault> {
    let mut attempts = Attempts::new(BACKOFF, u64::from(std::process::id()));
    loop {
        let fault = match stop.or(target.make()).await {
            Ok(Ok(())) | Err(_) => return Ok(()),
            Ok(Err(fault)) => fault,
        };
        let wait = attempts.failed(fault.wait_hint());
        tracing::debug!(
            error = fault.report(),
            again_in_seconds = wait.as_secs_f64(),
            "the target is tried again"
        );
        if stop.or(tokio::time::sleep(wait)).await.is_err() {
            return Ok(());
        }
    }
}
