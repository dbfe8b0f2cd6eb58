//! The CRM's clock, which keep-alives do not tell: looked at rarely, and counted on by our own.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use crate::fault::Fault;

use super::super::rest::Rest;

/// How long two clocks are taken to go alike: they part by some milliseconds a minute at most.
const GOOD_FOR: Duration = Duration::from_mins(15);

/// A lower bound of the CRM's time.
pub struct CrmClock {
    rest: Arc<Rest>,
    seen: Option<(Instant, DateTime<Utc>)>,
}

impl CrmClock {
    /// A clock that nobody has looked at.
    #[must_use]
    pub const fn new(rest: Arc<Rest>) -> Self {
        Self { rest, seen: None }
    }

    /// The CRM's time at an instant of ours, or earlier; `None` while it is not known.
    #[must_use]
    pub fn at(&self, when: Instant) -> Option<DateTime<Utc>> {
        let (ours, theirs) = self.seen?;
        let since = TimeDelta::from_std(when.saturating_duration_since(ours)).ok()?;
        let before = TimeDelta::from_std(ours.saturating_duration_since(when)).ok()?;
        Some(theirs + since - before)
    }

    /// Looks at it again if that was long ago; the call counts against no limit.
    pub async fn look(&mut self) {
        if self.seen.is_some_and(|(ours, _)| ours.elapsed() < GOOD_FOR) {
            return;
        }
        self.seen = match self.ask().await {
            Ok(theirs) => Some((Instant::now(), theirs)),
            Err(fault) => {
                tracing::debug!(error = %fault, "the CRM's clock can't be looked at");
                None
            }
        };
    }

    async fn ask(&self) -> Result<DateTime<Utc>, Fault> {
        let answer = self.rest.versions().await?;
        answer.began()
    }
}
