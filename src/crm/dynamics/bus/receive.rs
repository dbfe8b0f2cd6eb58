//! Takes messages in: read, made durable, and only then settled.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep_until};

use crate::crm::dynamics::push::Inbox;
use crate::crm::dynamics::push::hint::Hint;
use crate::fault::{Fate, Fault};
use crate::runtime::backoff::{Attempts, Backoff};
use crate::runtime::shutdown::StopSignal;

use super::link::{Link, Received};
use super::message::Held;
use super::status::{BusState, Told};

/// The waits for an inbox that can't take anything; locks are kept meanwhile.
const INBOX: Backoff = Backoff {
    first: Duration::from_millis(100),
    cap: Duration::from_secs(10),
    hint_cap: Duration::from_mins(1),
};

/// Whom messages are handed to, and who hears of it.
pub(super) struct Desk<'d> {
    /// Where hints become durable.
    inbox: &'d Inbox,
    /// Hears of what is no hint.
    told: &'d Told,
    /// The stop, which lets what is in hand be settled first.
    stop: &'d StopSignal,
    /// Whether the last message was no hint.
    complained: AtomicBool,
}

impl<'d> Desk<'d> {
    /// A desk at which nothing happened yet.
    pub const fn new(inbox: &'d Inbox, told: &'d Told, stop: &'d StopSignal) -> Self {
        Self {
            inbox,
            told,
            stop,
            complained: AtomicBool::new(false),
        }
    }
}

/// Messages in hand, each with its hint.
#[derive(Default)]
struct Batch {
    held: Vec<Held>,
    hints: Vec<Hint>,
}

/// Takes messages until the stop.
///
/// # Errors
/// The link has ended, or the inbox refuses for good. What was not settled comes again.
pub(super) async fn run(link: &mut Link, desk: &Desk<'_>) -> Result<(), Fault> {
    let mut batch = Batch::default();
    loop {
        link.allow(batch.held.len()).await?;
        while batch.held.is_empty() {
            let due = link.token_due;
            tokio::select! {
                biased;
                () = desk.stop.stopped() => return Ok(()),
                () = sleep_until(due) => link.renew_token().await?,
                received = link.next() => batch.take(link, received?, desk).await?,
            }
        }
        while batch.held.len() < link.credit() {
            // Only what is here already.
            let Some(received) = link.next().now_or_never() else {
                break;
            };
            batch.take(link, received?, desk).await?;
        }
        let mut later = Batch::default();
        if !store(link, &mut batch, &mut later, desk).await? {
            return Ok(());
        }
        link.complete(&batch.held).await?;
        if desk.complained.swap(false, Ordering::Relaxed) {
            (desk.told)(&BusState::Connected);
        }
        if desk.stop.is_stopping() {
            return Ok(());
        }
        batch = later;
    }
}

impl Batch {
    /// Keeps a message, or moves it to the dead letters if it is no hint.
    async fn take(
        &mut self,
        link: &Link,
        received: Received,
        desk: &Desk<'_>,
    ) -> Result<(), Fault> {
        match received.content {
            Ok(hint) => {
                self.hints.push(hint);
                self.held.push(received.held);
                Ok(())
            }
            Err(refusal) => {
                desk.inbox.refused(&refusal);
                let label = refusal.label();
                let fault = Fault::from(refusal).context("a message went to the dead letters");
                link.bury(&received.held, label, &fault).await?;
                desk.complained.store(true, Ordering::Relaxed);
                (desk.told)(&BusState::Unreadable(fault));
                Ok(())
            }
        }
    }

    /// When the first lock is to be renewed.
    fn renewal(&self) -> Option<Instant> {
        self.held.iter().map(|held| held.renew_at).min()
    }

    /// Renews the locks whose time has come.
    async fn renew(&mut self, link: &mut Link) -> Result<(), Fault> {
        let now = Instant::now();
        for held in self.held.iter_mut().filter(|held| held.renew_at <= now) {
            if let Some(lock) = &held.lock {
                link.renew_lock(lock).await?;
            }
            held.renew_at = Instant::now() + held.renew_every;
        }
        Ok(())
    }
}

/// Makes a batch's hints durable, however long it takes; whether it was done before the stop.
async fn store(
    link: &mut Link,
    batch: &mut Batch,
    later: &mut Batch,
    desk: &Desk<'_>,
) -> Result<bool, Fault> {
    let hints = std::mem::take(&mut batch.hints);
    let mut attempts = Attempts::new(INBOX, 0);
    loop {
        let enqueued = watched(link, batch, later, desk, desk.inbox.enqueue(&hints)).await?;
        let Err(fault) = enqueued else {
            return Ok(true);
        };
        if fault.fate() != Fate::Retry {
            return Err(fault);
        }
        tracing::warn!(
            connection = %desk.inbox.connection(), error = %fault.report(),
            "messages of the service bus wait: their hints can't be noted"
        );
        let wait = tokio::time::sleep(attempts.failed(fault.wait_hint()));
        let waited = watched(link, batch, later, desk, desk.stop.or(wait)).await?;
        if waited.is_err() {
            return Ok(false);
        }
    }
}

/// Does `work` to its end while token and locks are kept alive, and what comes meanwhile is taken so that its lock is
/// kept, too.
///
/// # Errors
/// The link has ended; `work` was done all the same.
async fn watched<T>(
    link: &mut Link,
    batch: &mut Batch,
    later: &mut Batch,
    desk: &Desk<'_>,
    work: impl Future<Output = T>,
) -> Result<T, Fault> {
    let mut work = pin!(work);
    loop {
        let due = link.token_due;
        let renewal = [batch.renewal(), later.renewal()]
            .into_iter()
            .flatten()
            .min();
        let kept = tokio::select! {
            biased;
            done = &mut work => return Ok(done),
            () = sleep_until(due) => link.renew_token().await,
            () = sleep_until(renewal.unwrap_or(due)) => renew(link, batch, later).await,
            received = link.next() => match received {
                Ok(received) => later.take(link, received, desk).await,
                Err(fault) => Err(fault),
            },
        };
        if let Err(ended) = kept {
            work.await;
            return Err(ended);
        }
    }
}

async fn renew(link: &mut Link, batch: &mut Batch, later: &mut Batch) -> Result<(), Fault> {
    batch.renew(link).await?;
    later.renew(link).await
}
