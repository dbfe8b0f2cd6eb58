//! One token for all who need one: one sign-in at a time, and whoever waited for it shares its outcome.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

use crate::fault::{Fault, FaultKind};

/// Keeps the newest token.
pub struct OneToken<T> {
    attempts: AtomicU64,
    held: Mutex<Held<T>>,
}

struct Held<T> {
    token: Option<Arc<T>>,
    /// What the last attempt failed of, for those who waited for it.
    failed: Option<Failure>,
}

struct Failure {
    attempt: u64,
    kind: FaultKind,
    text: String,
    remedy: Option<String>,
    wait: Option<Duration>,
}

impl<T> Default for OneToken<T> {
    fn default() -> Self {
        Self {
            attempts: AtomicU64::new(0),
            held: Mutex::new(Held {
                token: None,
                failed: None,
            }),
        }
    }
}

impl<T> OneToken<T> {
    /// Drops the held token.
    pub async fn forget(&self) {
        self.held.lock().await.token = None;
    }

    /// The held token if it is usable, else that of a sign-in.
    ///
    /// # Errors
    /// The sign-in's fault, also for those who waited for it.
    pub async fn get(
        &self,
        is_usable: impl Fn(&Arc<T>) -> bool + Send,
        sign_in: impl Future<Output = Result<T, Fault>> + Send,
    ) -> Result<Arc<T>, Fault> {
        let seen = self.attempts.load(Ordering::Acquire);
        let mut held = self.held.lock().await;
        if let Some(token) = held.token.as_ref().filter(|token| is_usable(token)) {
            return Ok(Arc::clone(token));
        }
        // An attempt that ended while we waited for it has answered for us too.
        if let Some(failure) = &held.failed
            && failure.attempt > seen
        {
            return Err(failure.again());
        }
        held.token = None;
        let signed_in = sign_in.await;
        let attempt = self.attempts.fetch_add(1, Ordering::AcqRel) + 1;
        match signed_in {
            Ok(token) => {
                let token = Arc::new(token);
                held.token = Some(Arc::clone(&token));
                held.failed = None;
                Ok(token)
            }
            Err(fault) => {
                held.failed = Some(Failure::of(&fault, attempt));
                Err(fault)
            }
        }
    }
}

impl Failure {
    fn of(fault: &Fault, attempt: u64) -> Self {
        Self {
            attempt,
            kind: fault.kind(),
            // The whole chain of causes, as a copy has none; the remedy is kept apart.
            text: match fault.remedy_text() {
                Some(remedy) => fault
                    .report()
                    .trim_end_matches(&format!(" (remedy: {remedy})"))
                    .to_owned(),
                None => fault.report(),
            },
            remedy: fault.remedy_text().map(str::to_owned),
            wait: fault.wait_hint(),
        }
    }

    fn again(&self) -> Fault {
        let mut fault = Fault::new(self.kind, self.text.clone());
        if let Some(remedy) = &self.remedy {
            fault = fault.remedy(remedy.clone());
        }
        match self.wait {
            Some(wait) => fault.retry_after(wait),
            None => fault,
        }
    }
}
