//! The post: takes letters from the state and has them carried, again and again until they are delivered or too old.
//! Whoever writes letters never waits for it.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use tokio::sync::Notify;

use super::notice::Sealed;
use super::port::{Address, Carrier, PATIENCE};
use crate::fault::{Fault, FaultKind};
use crate::runtime::backoff::Backoff;
use crate::runtime::clock::Clock;
use crate::runtime::shutdown::StopSignal;
use crate::state::notices::{Notices, Taken};
use crate::telemetry::metrics::{self, Metrics};

/// How many letters are on their way at once.
const AT_ONCE: usize = 8;
/// How long a letter is its taker's: longer than a call may take.
const HELD: Duration = Duration::from_secs(2 * PATIENCE.as_secs());
/// How often it is looked for letters that are due again, or that another daemon left.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A letter that is older is given up.
const TOO_OLD: TimeDelta = TimeDelta::days(1);
/// The waits after failures.
const WAITS: Backoff = Backoff {
    first: Duration::from_secs(5),
    cap: Duration::from_mins(15),
    hint_cap: Duration::from_hours(1),
};

/// The post.
pub struct Post {
    /// Where letters wait.
    pub notices: Arc<dyn Notices>,
    /// Who takes them.
    pub carrier: Arc<dyn Carrier>,
    /// The date.
    pub clock: Arc<dyn Clock>,
    /// The metrics.
    pub metrics: Metrics,
    /// Rung when letters were written.
    pub bell: Arc<Notify>,
}

impl Post {
    /// Delivers until the stop signal. A letter that is under way then is due again after two minutes, for whoever is
    /// there.
    pub async fn deliver(self, stop: StopSignal) {
        let mut silent = false;
        loop {
            let round = stop.or(self.round()).await;
            match round {
                Err(_) => return,
                Ok(Ok(0)) => silent = false,
                Ok(Ok(_)) => continue,
                Ok(Err(fault)) => {
                    if !std::mem::replace(&mut silent, true) {
                        tracing::warn!(
                            error = fault.report(),
                            "letters can't be taken from the state"
                        );
                    }
                }
            }
            let waited = async {
                tokio::select! {
                    () = self.bell.notified() => {}
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
            };
            if stop.or(waited).await.is_err() {
                return;
            }
        }
    }

    /// Takes what is due, and has it carried; how many letters that were.
    pub(super) async fn round(&self) -> Result<usize, Fault> {
        let now = self.clock.now();
        let taken = self.notices.take_letters(now, later(now, HELD), AT_ONCE);
        let taken = taken.await?;
        let carried = join_all(taken.iter().map(|taken| self.carry(taken))).await;
        let waiting = self.notices.letters().await?;
        let gauge = self.metrics.gauge(metrics::NOTICES_WAITING, &[]);
        gauge.set(waiting as f64);
        carried.into_iter().collect::<Result<Vec<()>, Fault>>()?;
        Ok(taken.len())
    }

    async fn carry(&self, taken: &Taken) -> Result<(), Fault> {
        let id = taken.letter.id.as_str();
        let Ok(Sealed { to, notice }) = serde_json::from_str(&taken.letter.body) else {
            tracing::error!(letter = id, "a letter can't be read, it is given up");
            return self.notices.remove_letter(id).await;
        };
        match self.carrier.carry(&to, id, &notice).await {
            Ok(answer) => {
                tracing::info!(
                    to = to.shown(),
                    title = notice.title,
                    answer,
                    "notice delivered"
                );
                self.count(&to, "sent");
                self.notices.remove_letter(id).await
            }
            Err(fault) => self.failed(taken, &to, &fault).await,
        }
    }

    async fn failed(&self, taken: &Taken, to: &Address, fault: &Fault) -> Result<(), Fault> {
        let (id, now) = (taken.letter.id.as_str(), self.clock.now());
        // What the config no longer has comes back with another config alone.
        let is_over = now - taken.written > TOO_OLD || fault.kind() == FaultKind::Missing;
        let (to_shown, error) = (to.shown(), fault.report());
        if is_over {
            tracing::error!(to = to_shown, letter = id, error, "notice given up");
            self.count(to, "dropped");
            return self.notices.remove_letter(id).await;
        }
        let seed = u64::from(now.timestamp_subsec_nanos());
        let wait = WAITS.next(taken.tries.saturating_sub(1), seed, fault.wait_hint());
        tracing::warn!(
            to = to_shown,
            letter = id,
            kind = fault.kind().label(),
            error,
            again_in_seconds = wait.as_secs_f64(),
            "notice not delivered"
        );
        self.count(to, "retried");
        self.notices.put_off(id, later(now, wait)).await
    }

    fn count(&self, to: &Address, outcome: &str) {
        count(&self.metrics, to, outcome, 1);
    }
}

/// Counts notices by what became of them.
pub fn count(metrics: &Metrics, to: &Address, outcome: &str, count: u64) {
    let labels = [("channel", to.channel()), ("outcome", outcome)];
    metrics.counter(metrics::NOTICES, &labels).increment(count);
}

fn later(now: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    now + TimeDelta::from_std(by).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::memory::MemoryCarrier;
    use crate::notify::notice::{Event, Notice};
    use crate::runtime::clock::ManualClock;
    use crate::state::memory::MemoryState;
    use crate::state::notices::Step;
    use crate::telemetry::exposition::Exposition;

    struct Stage {
        post: Post,
        carrier: Arc<MemoryCarrier>,
        clock: Arc<ManualClock>,
        exposition: Exposition,
    }

    fn ann() -> Address {
        Address::Mail("ann@acme.example".to_owned())
    }

    async fn stage() -> Stage {
        let notices: Arc<dyn Notices> = Arc::new(MemoryState::default());
        let carrier = Arc::new(MemoryCarrier::default());
        let clock = Arc::new(ManualClock::new(DateTime::UNIX_EPOCH));
        let exposition = Exposition::new().unwrap();
        let notice = Notice::new(Event::Test, "success", "hello", clock.now());
        let step = Step {
            before: None,
            after: "told".to_owned(),
            letters: vec![notice.letter("test", &ann()).unwrap()],
            at: clock.now(),
        };
        notices.move_mark("test", step).await.unwrap();
        Stage {
            post: Post {
                notices,
                carrier: Arc::clone(&carrier) as _,
                clock: Arc::clone(&clock) as _,
                metrics: exposition.metrics().clone(),
                bell: Arc::default(),
            },
            carrier,
            clock,
            exposition,
        }
    }

    impl Stage {
        fn counted(&self, outcome: &str) -> bool {
            let line =
                format!("tributary_notices_total{{channel=\"mail\",outcome=\"{outcome}\"}} 1");
            self.exposition.render().contains(&line)
        }
    }

    #[tokio::test]
    async fn what_fails_is_tried_again_and_delivered_once() {
        let stage = stage().await;
        stage.carrier.refuse(FaultKind::Credentials);
        assert_eq!(stage.post.round().await.unwrap(), 1);
        assert!(stage.counted("retried"), "{}", stage.exposition.render());
        assert_eq!(stage.post.round().await.unwrap(), 0, "not before its time");
        stage.clock.advance(WAITS.first);
        assert_eq!(stage.post.round().await.unwrap(), 1);
        let carried = stage.carrier.carried();
        assert_eq!(carried.len(), 1);
        assert_eq!(carried[0].0, ann());
        assert_eq!(carried[0].1, "test > ann@acme.example");
        assert!(stage.counted("sent"));
        stage.clock.advance(HELD * 2);
        assert_eq!(stage.post.round().await.unwrap(), 0);
    }

    #[tokio::test]
    async fn what_is_too_old_or_for_nobody_is_given_up_and_counted() {
        let late = stage().await;
        late.clock.advance(Duration::from_hours(25));
        late.carrier.refuse(FaultKind::Unavailable);
        assert_eq!(late.post.round().await.unwrap(), 1);
        let gone = stage().await;
        gone.carrier.refuse(FaultKind::Missing);
        assert_eq!(gone.post.round().await.unwrap(), 1);
        for stage in [late, gone] {
            assert_eq!(stage.post.notices.letters().await.unwrap(), 0);
            assert!(stage.counted("dropped"), "{}", stage.exposition.render());
        }
    }
}
