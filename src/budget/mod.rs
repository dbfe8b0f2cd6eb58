//! The budget of one connection: it grants every call to the CRM (I6). The calls are the org's, not ours.
//!
//! * A call waits for its [`Grant`] and holds it while it runs. Who waits is served by [`Priority`], then by who came
//!   first; a lower priority never stands before a higher one. Dropping a wait takes the place in the queue back.
//! * The last calls of a day (`reserve`) are for repair. Other work waits until the day's window moves: until
//!   midnight UTC where the day is counted here, until the org tells of more where the org counts.
//! * Where the CRM asks to stay away, everybody does; then one call goes first, and the others once it was answered.
//! * It knows no CRM: connectors tell what answers say.

mod day;
mod deliveries;
mod forecast;
mod pace;
mod picture;
mod priority;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Notify;

use crate::fault::{Fault, FaultKind};
use crate::model::name::ConnectionId;
use crate::runtime::clock::Clock;
use crate::telemetry::metrics::Metrics;

use day::Day;
use deliveries::Deliveries;
use pace::Pace;
use picture::Gauges;

pub use day::Usage;
pub use picture::{BudgetPicture, DeliveriesPicture};
pub use priority::Priority;

/// What a connection may spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many percent of a day's calls are kept back for repair.
    pub reserve: u8,
    /// Calls a second; a minute's worth may go at once.
    pub per_second: NonZeroU32,
    /// Calls that run at one time.
    pub at_once: NonZeroU32,
    /// Calls a day, where they are counted here.
    pub daily: Option<u32>,
    /// The longest that a call waits where the CRM asks to stay away, or where the day's calls are spent; `None`: for
    /// as long as that takes. Somebody sits before a command and waits for what it tells.
    pub patience: Option<Duration>,
}

impl Default for Limits {
    /// With these a user stays below 6000 calls in five minutes and below 25 that run at one time: what Dataverse
    /// and Salesforce allow at least.
    fn default() -> Self {
        Self {
            reserve: 10,
            per_second: NonZeroU32::MIN.saturating_add(15),
            at_once: NonZeroU32::MIN.saturating_add(9),
            daily: None,
            patience: None,
        }
    }
}

/// The budget of one connection.
pub struct Budget {
    connection: ConnectionId,
    limits: Limits,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Notified when somebody else may be served, or is to wait.
    changed: Notify,
    gauges: Gauges,
}

struct State {
    /// Who waits, the first one first.
    waiting: BTreeSet<(Priority, u64)>,
    next: u64,
    running: u32,
    pace: Pace,
    day: Day,
    /// The CRM asked to stay away.
    closed: Option<Closed>,
    /// It asked, and no call since was answered.
    ajar: bool,
    /// What the CRM says is left of its short window.
    burst: Option<u64>,
    deliveries: Deliveries,
    /// Whether work was said to wait for the day's window.
    told_held: bool,
}

/// The CRM asked to stay away.
struct Closed {
    until: DateTime<Utc>,
    /// What it said.
    why: String,
}

/// Leave for one call, held while it runs.
#[must_use = "the call is to run while it is held"]
pub struct Grant {
    budget: Arc<Budget>,
}

/// A place in the queue.
struct Place<'a> {
    budget: &'a Arc<Budget>,
    key: (Priority, u64),
}

/// What whoever waits does next.
enum Step {
    Go,
    /// Asks again after a change, or after so long.
    Wait(Option<Duration>),
    /// No call is possible for longer than this budget waits, and why.
    GiveUp(Duration, String),
}

impl Budget {
    /// The budget of a connection of which nothing is known yet.
    #[must_use]
    pub fn new(
        connection: &ConnectionId,
        limits: Limits,
        clock: Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> Arc<Self> {
        let state = State {
            waiting: BTreeSet::new(),
            next: 0,
            running: 0,
            pace: Pace::new(limits.per_second, Arc::clone(&clock)),
            day: Day::new(limits.reserve, limits.daily, clock.now()),
            closed: None,
            ajar: false,
            burst: None,
            deliveries: Deliveries::default(),
            told_held: false,
        };
        Arc::new(Self {
            connection: connection.clone(),
            limits,
            clock,
            state: Mutex::new(state),
            changed: Notify::new(),
            gauges: Gauges::new(connection, metrics),
        })
    }

    /// Waits until the running work ([`Priority::current`]) may make a call. Cancel-safe: a dropped wait spends nothing.
    ///
    /// # Errors
    /// `Throttled` where that would take longer than [`Limits::patience`].
    pub async fn grant(self: &Arc<Self>) -> Result<Grant, Fault> {
        let place = self.queue(Priority::current());
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            match place.step() {
                Step::Go => return Ok(place.granted()),
                Step::GiveUp(wait, why) => return Err(self.no_calls(wait, &why)),
                Step::Wait(None) => changed.await,
                Step::Wait(Some(time)) => {
                    tokio::select! {
                        () = changed => {}
                        () = self.clock.sleep(time) => {}
                    }
                }
            }
        }
    }

    /// A call was answered, and the answer may tell what is left of the org's day.
    pub fn answered(&self, told: Option<Usage>) {
        let now = self.clock.now();
        let mut state = self.lock();
        state.ajar = false;
        if let Some(told) = told {
            state.day.tell(told, now);
        }
        self.note_held(&mut state, now);
        drop(state);
        self.changed.notify_waiters();
    }

    /// The CRM asks to stay away for so long, by this refusal.
    pub fn close(&self, wait: Duration, refusal: &Fault) {
        let now = self.clock.now();
        let until = TimeDelta::from_std(wait)
            .ok()
            .and_then(|wait| now.checked_add_signed(wait))
            .unwrap_or(DateTime::<Utc>::MAX_UTC);
        let mut state = self.lock();
        if state
            .closed
            .as_ref()
            .is_none_or(|closed| closed.until <= until)
        {
            let why = refusal.report();
            state.closed = Some(Closed { until, why });
        }
        state.ajar = true;
        drop(state);
        self.changed.notify_waiters();
    }

    /// The CRM told what is left of its short window. It is shown and nothing follows from it: each of a CRM's servers
    /// has a window of its own (Power Apps developer guide, "Service protection API limits").
    pub fn burst_left(&self, left: u64) {
        self.lock().burst = Some(left);
    }

    /// So many events were delivered.
    pub fn delivered(&self, events: u64) {
        self.lock().deliveries.add(self.clock.now(), events);
    }

    /// The org told how many events it delivers today, to all its subscribers.
    pub fn deliveries(&self, told: Usage) {
        self.lock().deliveries.told = Some(told);
    }

    /// Calls since midnight UTC, and how many a day has where they are counted here.
    #[must_use]
    pub fn spent(&self) -> (u32, Option<u32>) {
        let spent = self.lock().day.spent(self.clock.now());
        (spent, self.limits.daily)
    }

    /// Whether work of this priority waits until the day's window moves.
    #[must_use]
    pub fn holds(&self, priority: Priority) -> bool {
        let now = self.clock.now();
        self.lock().day.check(priority, now).is_err()
    }

    /// Waits until work of this priority has to wait for the day's window: time to leave room for other work.
    pub async fn held(&self, priority: Priority) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.holds(priority) {
                return;
            }
            changed.await;
        }
    }

    fn wait_or_give_up(&self, wait: Duration, why: &str) -> Step {
        if self.limits.patience.is_some_and(|longest| wait > longest) {
            return Step::GiveUp(wait, why.to_owned());
        }
        Step::Wait(Some(wait))
    }

    fn no_calls(&self, wait: Duration, why: &str) -> Fault {
        let (connection, seconds) = (&self.connection, wait.as_secs());
        let what =
            format!("the org of connection {connection} takes no call for {seconds} s: {why}");
        Fault::new(FaultKind::Throttled, what).retry_after(wait)
    }

    fn queue(self: &Arc<Self>, priority: Priority) -> Place<'_> {
        let mut state = self.lock();
        let key = (priority, state.next);
        state.next += 1;
        state.waiting.insert(key);
        Place { budget: self, key }
    }

    /// Says once that work begins or ends to wait for the day's window.
    fn note_held(&self, state: &mut State, now: DateTime<Utc>) {
        let holds = state.day.check(Priority::FullSync, now).is_err();
        if std::mem::replace(&mut state.told_held, holds) == holds {
            return;
        }
        let usage = state.day.usage(now);
        let left = usage.map(|usage| usage.left);
        if holds {
            tracing::warn!(
                connection = %self.connection, left, limit = usage.map(|usage| usage.limit),
                reserve = usage.map(|usage| state.day.reserve(usage.limit)),
                "the day's calls are spent but for the reserve: full syncs wait, repair goes on"
            );
        } else {
            tracing::info!(connection = %self.connection, left, "there are calls again: full syncs go on");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place<'_> {
    /// Takes leave if it is this one's turn.
    fn step(&self) -> Step {
        let budget = self.budget;
        let (priority, now) = (self.key.0, budget.clock.now());
        let mut state = budget.lock();
        if state.waiting.first() != Some(&self.key) {
            return Step::Wait(None);
        }
        if let Some(closed) = &state.closed
            && let Ok(left) = (closed.until - now).to_std()
            && !left.is_zero()
        {
            return budget.wait_or_give_up(left, &closed.why);
        }
        state.closed = None;
        if let Err(wait) = state.day.check(priority, now) {
            budget.note_held(&mut state, now);
            return budget.wait_or_give_up(wait, "its day's calls are spent but for the reserve");
        }
        // One place is always free for repair, however long other calls run.
        let at_once = budget.limits.at_once.get();
        let places = match priority {
            _ if state.ajar => 1,
            Priority::Repair => at_once,
            _ => at_once.saturating_sub(1).max(1),
        };
        if state.running >= places {
            return Step::Wait(None);
        }
        if let Err(wait) = state.pace.take() {
            return Step::Wait(Some(wait));
        }
        state.running += 1;
        state.day.spend(now);
        budget.note_held(&mut state, now);
        Step::Go
    }

    /// The place becomes the grant.
    fn granted(self) -> Grant {
        Grant {
            budget: Arc::clone(self.budget),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.budget.lock().waiting.remove(&self.key);
        self.budget.changed.notify_waiters();
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        state.running = state.running.saturating_sub(1);
        drop(state);
        self.budget.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
