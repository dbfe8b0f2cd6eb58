//! The one appender: entries go to the broker in the order of the calls; after a failed delivery everything from
//! the first unacknowledged entry is published again.
//!
//! librdkafka retries by itself as long as order holds. When it gives an entry up, later ones may have landed
//! already: sending that one alone would put it behind them, and compaction would keep it. So the producer is dropped
//! and the whole suffix goes out again; readers compare versions.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::fault::{Fault, FaultKind};
use crate::log::kafka::contact::Contact;
use crate::log::kafka::fault::{is_final, of_code};
use crate::log::kafka::producer::Line;
use crate::log::kafka::settings::KafkaSettings;
use crate::log::port::{Entry, Place};
use crate::log::topic::closed;
use crate::runtime::backoff::{Attempts, Backoff};

/// Entries that are taken and not acknowledged; callers wait beyond.
const FLYING: usize = 20_000;
/// Their bytes.
const FLYING_BYTES: usize = 32 * 1024 * 1024;
/// Calls that wait for the appender.
const QUEUE: usize = 64;
/// How long nothing may be acknowledged before the log says that it waits.
const PATIENCE: Duration = Duration::from_secs(5);
/// librdkafka frees a place in its queue a moment after it told the delivery, and tells nobody.
const FULL: Duration = Duration::from_millis(2);

/// The way to the appender's task.
pub(super) struct Appender {
    calls: mpsc::Sender<Call>,
    closing: CancellationToken,
    left: watch::Receiver<Option<usize>>,
}

struct Call {
    entries: Vec<Entry>,
    done: oneshot::Sender<Result<Vec<Place>, Fault>>,
}

impl Appender {
    /// Starts the task; `last_wait` is how long a close waits for what was taken.
    pub(super) fn start(
        settings: &KafkaSettings,
        contact: &Arc<Contact>,
        last_wait: Duration,
    ) -> Result<Self, Fault> {
        let (calls, taken) = mpsc::channel(QUEUE);
        let (ended, left) = watch::channel(None);
        let closing = CancellationToken::new();
        let bell = Arc::new(Notify::new());
        let line = Line::open(settings, Arc::clone(contact), Arc::clone(&bell))?;
        let task = Task {
            settings: settings.clone(),
            contact: Arc::clone(contact),
            bell,
            line: Some(line),
            flying: VecDeque::new(),
            first: 0,
            published: 0,
            bytes: 0,
            backoff: Attempts::new(Backoff::default(), u64::from(std::process::id())),
            again_at: None,
            is_full: false,
            moved: Instant::now(),
            last_wait,
        };
        // The task ends when the last handle is gone and everything taken is acknowledged, or the last wait is over.
        let closed = closing.clone();
        tokio::spawn(async move {
            let left = task.run(taken, closed).await;
            ended.send_replace(Some(left));
        });
        Ok(Self {
            calls,
            closing,
            left,
        })
    }

    /// Appends; the future may be dropped, the entries go out all the same once they were taken.
    pub(super) async fn append(&self, entries: Vec<Entry>) -> Result<Vec<Place>, Fault> {
        let (done, answer) = oneshot::channel();
        let call = Call { entries, done };
        self.calls.send(call).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Waits for what was taken.
    ///
    /// # Errors
    /// `Unavailable` with the number of entries that were not acknowledged in time.
    pub(super) async fn close(&self) -> Result<(), Fault> {
        self.closing.cancel();
        let mut ended = self.left.clone();
        let left = ended
            .wait_for(Option::is_some)
            .await
            .map_err(|_| closed())?
            .unwrap_or_default();
        if left == 0 {
            return Ok(());
        }
        Err(Fault::new(
            FaultKind::Unavailable,
            format!("closing the log: the brokers did not acknowledge {left} entries in time"),
        )
        .remedy("they may have landed or not: their writers publish them again after a restart"))
    }
}

struct Task {
    settings: KafkaSettings,
    contact: Arc<Contact>,
    bell: Arc<Notify>,
    line: Option<Line>,
    /// Entries that are not acknowledged, oldest first; the first `published` of them are with librdkafka.
    flying: VecDeque<Flying>,
    /// The number of the oldest.
    first: usize,
    published: usize,
    bytes: usize,
    backoff: Attempts,
    /// When to open a producer again.
    again_at: Option<Instant>,
    is_full: bool,
    /// When an entry was last acknowledged, or the first of them taken.
    moved: Instant,
    last_wait: Duration,
}

struct Flying {
    entry: Entry,
    call: Arc<Ticket>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be sent.
    Queued,
    /// With librdkafka.
    Sent,
    /// Acknowledged; waits for those before it.
    Landed(Place),
    /// Given up by librdkafka.
    Failed(Code),
    /// Its call was refused before it was sent.
    Void,
}

/// A call's answer, completed entry by entry.
struct Ticket(std::sync::Mutex<Waiting>);

struct Waiting {
    places: Vec<Place>,
    entries: usize,
    done: Option<oneshot::Sender<Result<Vec<Place>, Fault>>>,
    is_refused: bool,
}

impl Ticket {
    fn new(entries: usize, done: oneshot::Sender<Result<Vec<Place>, Fault>>) -> Arc<Self> {
        Arc::new(Self(std::sync::Mutex::new(Waiting {
            places: Vec::with_capacity(entries),
            entries,
            done: Some(done),
            is_refused: false,
        })))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn landed(&self, place: Place) {
        let mut waiting = self.lock();
        waiting.places.push(place);
        if waiting.places.len() == waiting.entries
            && let Some(done) = waiting.done.take()
        {
            // A caller that went away loses its answer and nothing else.
            done.send(Ok(std::mem::take(&mut waiting.places))).ok();
        }
    }

    fn refuse(&self, fault: Fault) {
        let mut waiting = self.lock();
        waiting.is_refused = true;
        if let Some(done) = waiting.done.take() {
            done.send(Err(fault)).ok();
        }
    }

    fn is_refused(&self) -> bool {
        self.lock().is_refused
    }
}

impl Task {
    /// Runs until closed; answers with the number of entries that were not acknowledged.
    async fn run(mut self, mut calls: mpsc::Receiver<Call>, closing: CancellationToken) -> usize {
        let mut last = None;
        let mut is_drained = false;
        loop {
            self.publish().await;
            let is_over = last.is_some_and(|until| Instant::now() >= until);
            if is_over || is_drained && self.flying.is_empty() {
                break;
            }
            let has_room = self.flying.len() < FLYING && self.bytes < FLYING_BYTES;
            let bell = Arc::clone(&self.bell);
            tokio::select! {
                biased;
                () = bell.notified() => self.settle().await,
                () = closing.cancelled(), if last.is_none() => {
                    // What waits in the queue was taken, too.
                    calls.close();
                    last = Some(Instant::now() + self.last_wait);
                }
                call = calls.recv(), if has_room && !is_drained => match call {
                    Some(call) => self.take(call),
                    None => {
                        is_drained = true;
                        last = last.or_else(|| Some(Instant::now() + self.last_wait));
                    }
                },
                () = until(self.wake_at(last)) => self.look_after().await,
            }
        }
        let mut left = self.flying.len();
        for flying in self.flying.drain(..) {
            flying.call.refuse(unacknowledged());
        }
        while let Ok(call) = calls.try_recv() {
            left += call.entries.len();
            call.done.send(Err(unacknowledged())).ok();
        }
        if let Some(line) = self.line.take() {
            line.discard().await;
        }
        self.contact.unacknowledged(None);
        left
    }

    /// When to look after things if nothing else happens.
    fn wake_at(&self, last: Option<Instant>) -> Option<Instant> {
        let now = Instant::now();
        let full = self.is_full.then(|| now + FULL);
        let due = self.moved + PATIENCE;
        let due = if due > now { due } else { now + PATIENCE };
        let patience = (!self.flying.is_empty()).then_some(due);
        let times = [full, patience, self.again_at, last];
        times.into_iter().flatten().min()
    }

    fn take(&mut self, call: Call) {
        if call.entries.is_empty() {
            call.done.send(Ok(Vec::new())).ok();
            return;
        }
        if self.flying.is_empty() {
            self.moved = Instant::now();
        }
        let ticket = Ticket::new(call.entries.len(), call.done);
        for entry in call.entries {
            self.bytes += entry.size();
            self.flying.push_back(Flying {
                entry,
                call: Arc::clone(&ticket),
                state: State::Queued,
            });
        }
    }

    /// Hands over to librdkafka, in order, until its queue is full.
    async fn publish(&mut self) {
        self.is_full = false;
        while let Some(next) = self.flying.get_mut(self.published) {
            let Some(line) = &self.line else { return };
            if next.state == State::Void {
                self.published += 1;
                continue;
            }
            match line.send(self.first.wrapping_add(self.published), &next.entry) {
                Ok(()) => {
                    next.state = State::Sent;
                    self.published += 1;
                }
                Err(Code::QueueFull) => {
                    self.is_full = true;
                    break;
                }
                Err(code) if is_final(code) => {
                    let refused = self.published;
                    self.refuse(refused, code);
                }
                Err(code) => {
                    tracing::warn!(error = %code, "the producer takes nothing any more, opening another");
                    self.start_over(true).await;
                    break;
                }
            }
        }
        // Refused ones at the front have nobody to wait for.
        self.settle_front();
    }

    /// Takes down what the producer's thread said.
    async fn settle(&mut self) {
        let Some(line) = &self.line else { return };
        for (number, outcome) in line.outcomes() {
            if let Some(flying) = self.flying.get_mut(number.wrapping_sub(self.first)) {
                flying.state = match outcome {
                    Ok(place) => State::Landed(place),
                    Err(code) => State::Failed(code),
                };
            }
        }
        if let Some(code) = self.settle_front() {
            let unacknowledged = self.flying.len();
            tracing::warn!(error = %code, unacknowledged, "delivery failed, publishing again from there");
            self.start_over(!is_final(code)).await;
        }
    }

    /// Answers the calls in order, as far as everything before is done; a code if the rest must go out again.
    fn settle_front(&mut self) -> Option<Code> {
        let mut has_landed = false;
        let trouble = loop {
            let Some(front) = self.flying.front() else {
                break None;
            };
            match front.state {
                State::Queued | State::Sent => break None,
                State::Void => {}
                State::Landed(place) => {
                    front.call.landed(place);
                    has_landed = true;
                }
                // Nobody waits for it any more.
                State::Failed(_) if front.call.is_refused() => {}
                State::Failed(code) if is_final(code) => {
                    self.refuse(0, code);
                    if self.is_followed() {
                        self.pop();
                        break Some(code);
                    }
                }
                State::Failed(code) => break Some(code),
            }
            self.pop();
        };
        if has_landed {
            self.backoff.succeeded();
            self.contact.answered();
            self.contact.unacknowledged(None);
        }
        trouble
    }

    fn pop(&mut self) {
        if let Some(gone) = self.flying.pop_front() {
            self.first = self.first.wrapping_add(1);
            self.published = self.published.saturating_sub(1);
            self.bytes -= gone.entry.size();
            self.moved = Instant::now();
        }
    }

    /// Whether anything of the first entry's topic was sent after it: its order is not certain any more.
    fn is_followed(&self) -> bool {
        let mut flying = self.flying.iter();
        let Some(front) = flying.next() else {
            return false;
        };
        flying.any(|other| {
            matches!(other.state, State::Sent | State::Landed(_))
                && !other.call.is_refused()
                && other.entry.topic == front.entry.topic
        })
    }

    /// Fails the call of an entry and takes back what of it was not sent; what was, may land.
    fn refuse(&mut self, index: usize, code: Code) {
        let Some(flying) = self.flying.get(index) else {
            return;
        };
        let call = Arc::clone(&flying.call);
        let topic = &flying.entry.topic;
        call.refuse(of_code(&format!("appending to `{topic}`"), code));
        for flying in &mut self.flying {
            if Arc::ptr_eq(&flying.call, &call) && flying.state == State::Queued {
                flying.state = State::Void;
            }
        }
    }

    /// A new producer, after a while if the fault has to pass first; what is not acknowledged goes out again.
    async fn start_over(&mut self, has_to_pass: bool) {
        if let Some(line) = self.line.take() {
            line.discard().await;
        }
        for flying in &mut self.flying {
            flying.state = if flying.call.is_refused() {
                State::Void
            } else {
                State::Queued
            };
        }
        self.published = 0;
        let wait = if has_to_pass {
            self.backoff.failed(None)
        } else {
            Duration::ZERO
        };
        self.again_at = Some(Instant::now() + wait);
    }

    /// Opens a producer when it is time, and says when nothing is acknowledged for long.
    async fn look_after(&mut self) {
        let now = Instant::now();
        if self.again_at.is_some_and(|at| at <= now) {
            self.again_at = None;
            let (settings, contact) = (self.settings.clone(), Arc::clone(&self.contact));
            let bell = Arc::clone(&self.bell);
            let opened = tokio::task::spawn_blocking(move || Line::open(&settings, contact, bell));
            match opened.await {
                Ok(Ok(line)) => self.line = Some(line),
                Ok(Err(fault)) => {
                    tracing::error!(error = fault.report(), "opening a producer again");
                    self.again_at = Some(now + self.backoff.failed(None));
                }
                // The runtime is going down.
                Err(_) => self.again_at = Some(now + self.backoff.failed(None)),
            }
        }
        if !self.flying.is_empty() && now >= self.moved + PATIENCE {
            let entries = self.flying.len();
            let why = format!("{entries} entries are not acknowledged");
            self.contact.unacknowledged(Some(why));
        }
    }
}

fn unacknowledged() -> Fault {
    Fault::new(
        FaultKind::Stopping,
        "the log was closed before the brokers acknowledged the entries",
    )
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
