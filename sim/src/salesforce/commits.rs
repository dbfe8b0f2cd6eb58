//! The commit log: what every channel of the org delivers, in commit order, for 72 hours.
//!
//! Replay ids grow by random strides, are not contiguous, and are unrelated before and after a reset (Salesforce CDC
//! Developer Guide, "Replay a Change Event Stream").

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::clock::SimClock;
use super::faults::rewrites::Rewrites;
use super::journal::{Journal, JournalError, Line};
use super::lock::lock;
use super::random::Random;

/// How long an event can be replayed.
pub const RETENTION: TimeDelta = TimeDelta::hours(72);

/// What happened to a record, by the names of the header's `changeType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ChangeType {
    Create,
    Update,
    Delete,
    Undelete,
    GapCreate,
    GapUpdate,
    GapDelete,
    GapUndelete,
    GapOverflow,
}

/// One change event before it has a replay id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeEvent {
    /// The object's API name.
    pub entity: String,
    /// 18-character ids; several when merged.
    pub record_ids: Vec<String>,
    pub change_type: ChangeType,
    /// `com/salesforce/api/rest/66.0;client=…`, or empty.
    pub change_origin: String,
    pub transaction_key: String,
    /// From 1 within its transaction; holes where objects are not captured.
    pub sequence: u32,
    /// Whole seconds.
    pub commit_timestamp: DateTime<Utc>,
    /// Past 2^53.
    pub commit_number: u64,
    /// The 18-character id of the user.
    pub commit_user: String,
    /// Changed fields of an update by their CometD names (`BillingAddress.Street`); empty otherwise.
    pub changed: Vec<String>,
    /// Field values in CometD's shape: compounds nested, dates as text.
    pub body: Map<String, Value>,
    /// The id of the schema that its object's events had when it was committed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub schema: String,
}

/// An event in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Committed {
    pub replay_id: u64,
    /// When it entered the log, on the org's clock.
    pub at: DateTime<Utc>,
    pub event: ChangeEvent,
}

/// The events after a replay id are not all there: it is too old, was never given out, or precedes a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("replay id {replay_id} is not in the stream, which begins at {earliest:?}")]
pub struct TooOld {
    pub replay_id: u64,
    pub earliest: Option<u64>,
}

/// How much of the log a cut removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// Every event before this replay id.
    Before(u64),
    All,
}

/// The one log of an org's events.
#[derive(Debug)]
pub struct CommitLog {
    state: Mutex<State>,
    newest: watch::Sender<u64>,
    clock: SimClock,
    journal: Arc<Journal>,
    /// What scripts do to events before they are logged.
    pub rewrites: Rewrites,
}

#[derive(Debug)]
struct State {
    entries: VecDeque<Arc<Committed>>,
    /// Positions between events that were given out, and when.
    marks: VecDeque<(DateTime<Utc>, u64)>,
    /// The position before the stream's first event.
    base: u64,
    /// Every event up to here is gone.
    floor: u64,
    newest: u64,
    random: Random,
}

impl CommitLog {
    pub(crate) fn new(seed: u64, clock: SimClock, journal: Arc<Journal>) -> Self {
        let mut random = Random::new(seed, "replay ids");
        let base = random.between(20_000_000, 90_000_000);
        Self {
            state: Mutex::new(State {
                entries: VecDeque::new(),
                marks: VecDeque::new(),
                base,
                floor: base,
                newest: base,
                random,
            }),
            newest: watch::Sender::new(base),
            clock,
            journal,
            rewrites: Rewrites::default(),
        }
    }

    /// Adds events in this order, each under a replay id of its own, durable in the journal on return.
    pub fn append(&self, events: Vec<ChangeEvent>) -> Result<Vec<Arc<Committed>>, JournalError> {
        self.append_with(events, |events, _| Line::Events { events })
    }

    /// Adds events by hand under given replay ids, which may repeat earlier ones: a duplicate or a shared id.
    pub fn append_at(
        &self,
        replay_id: u64,
        events: Vec<ChangeEvent>,
    ) -> Result<Vec<Arc<Committed>>, JournalError> {
        let at = self.clock.now();
        let mut state = lock(&self.state);
        let committed: Vec<_> = events
            .into_iter()
            .map(|event| {
                Arc::new(Committed {
                    replay_id,
                    at,
                    event,
                })
            })
            .collect();
        self.journal.write(&Line::Events {
            events: committed.clone(),
        })?;
        state.take(&committed);
        self.newest.send_replace(state.newest);
        Ok(committed)
    }

    /// Adds events within a journal line that holds more than them.
    pub(crate) fn append_with(
        &self,
        events: Vec<ChangeEvent>,
        line: impl FnOnce(Vec<Arc<Committed>>, DateTime<Utc>) -> Line,
    ) -> Result<Vec<Arc<Committed>>, JournalError> {
        let events = self.rewrites.apply(events);
        let at = self.clock.now();
        let mut state = lock(&self.state);
        let mut replay_id = state.newest;
        let committed: Vec<_> = events
            .into_iter()
            .map(|event| {
                if !self.rewrites.marks(&event).shared {
                    replay_id += state.random.between(1, 19);
                }
                Arc::new(Committed {
                    replay_id,
                    at,
                    event,
                })
            })
            .collect();
        self.journal.write(&line(committed.clone(), at))?;
        state.take(&committed);
        state.expire(at);
        if !committed.is_empty() {
            self.newest.send_replace(state.newest);
        }
        Ok(committed)
    }

    /// Up to `limit` events after a position, oldest first; the position of an event that has just expired is still
    /// good, as nothing after it is lost.
    pub fn after(&self, replay_id: u64, limit: usize) -> Result<Vec<Arc<Committed>>, TooOld> {
        let mut state = lock(&self.state);
        state.expire(self.clock.now());
        if replay_id < state.floor || replay_id > state.newest {
            return Err(state.too_old(replay_id));
        }
        let first = state
            .entries
            .partition_point(|entry| entry.replay_id <= replay_id);
        Ok(state
            .entries
            .range(first..)
            .take(limit)
            .map(Arc::clone)
            .collect())
    }

    /// Whether a client may subscribe with this replay id: it must be that of a retained event, or the position before
    /// the first event of a stream that has lost none.
    pub fn check(&self, replay_id: u64) -> Result<(), TooOld> {
        let mut state = lock(&self.state);
        state.expire(self.clock.now());
        let retained = state
            .entries
            .binary_search_by_key(&replay_id, |entry| entry.replay_id)
            .is_ok();
        let marked = state.marks.iter().any(|(_, mark)| *mark == replay_id);
        if retained || marked || (replay_id == state.base && state.floor == state.base) {
            return Ok(());
        }
        Err(state.too_old(replay_id))
    }

    /// A position behind one that has seen every event: younger, so that it can be kept for as long as an event of
    /// this moment. A position that has not seen them all is handed back.
    pub fn refresh(&self, position: u64) -> u64 {
        let at = self.clock.now();
        let mut state = lock(&self.state);
        state.expire(at);
        if position != state.newest {
            return position;
        }
        let mark = state.newest + state.random.between(1, 19);
        if let Err(error) = self.journal.write(&Line::Mark { at, mark }) {
            // The old position stays good: nothing is promised that a restart would forget.
            tracing::error!(%error, "writing a position to the journal failed");
            return position;
        }
        state.mark(at, mark);
        mark
    }

    /// The replay id of the oldest retained event.
    pub fn earliest(&self) -> Option<u64> {
        let mut state = lock(&self.state);
        state.expire(self.clock.now());
        state.earliest()
    }

    /// The position before the oldest retained event: [`after`](Self::after) it come all of them.
    pub fn beginning(&self) -> u64 {
        let mut state = lock(&self.state);
        state.expire(self.clock.now());
        state.floor
    }

    /// The newest replay id given out; before the first event, the stream's beginning.
    #[must_use]
    pub fn newest(&self) -> u64 {
        lock(&self.state).newest
    }

    /// Tells of every append, cut and reset; the value is [`newest`](Self::newest).
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Removes events, as if they had expired.
    pub fn cut(&self, cut: Cut) -> Result<(), JournalError> {
        let mut state = lock(&self.state);
        self.journal.write(&Line::Cut { cut })?;
        state.cut(cut);
        self.newest.send_replace(state.newest);
        Ok(())
    }

    /// Begins a new stream with unrelated, lower replay ids, as after an org's migration; old ids are refused.
    pub fn reset(&self) -> Result<(), JournalError> {
        let mut state = lock(&self.state);
        let high = (state.base / 2).max(2);
        let base = state.random.between(high / 2, high);
        self.journal.write(&Line::Reset { base })?;
        state.restart(base);
        self.newest.send_replace(base);
        Ok(())
    }

    pub(crate) fn replay(&self, line: &Line) {
        let mut state = lock(&self.state);
        match line {
            Line::Born { base, .. } | Line::Reset { base } => state.restart(*base),
            Line::Events { events } | Line::Commit { events, .. } => {
                state.take(events);
                // A restarted org must not repeat the strides of its last run.
                state.random = Random::new(state.newest ^ state.random.next(), "replay ids");
            }
            Line::Cut { cut } => state.cut(*cut),
            Line::Mark { at, mark } => state.mark(*at, *mark),
        }
        self.newest.send_replace(state.newest);
    }

    /// Writes the journal's first line.
    pub(crate) fn begin(&self, at: DateTime<Utc>, org: &str) -> Result<(), JournalError> {
        let base = lock(&self.state).base;
        self.journal.write(&Line::Born {
            at,
            base,
            org: org.to_owned(),
        })
    }
}

impl State {
    /// Puts events where their replay ids belong: at the end, but for duplicates made by hand.
    fn take(&mut self, events: &[Arc<Committed>]) {
        for event in events {
            let place = self
                .entries
                .partition_point(|entry| entry.replay_id <= event.replay_id);
            self.entries.insert(place, Arc::clone(event));
            self.newest = self.newest.max(event.replay_id);
        }
    }

    fn mark(&mut self, at: DateTime<Utc>, mark: u64) {
        self.marks.push_back((at, mark));
        self.newest = self.newest.max(mark);
    }

    fn expire(&mut self, now: DateTime<Utc>) {
        let horizon = now - RETENTION;
        while self.marks.front().is_some_and(|(at, _)| *at < horizon) {
            self.marks.pop_front();
        }
        while let Some(oldest) = self.entries.front().filter(|entry| entry.at < horizon) {
            self.floor = oldest.replay_id;
            self.entries.pop_front();
        }
    }

    fn cut(&mut self, cut: Cut) {
        match cut {
            Cut::Before(id) => self.marks.retain(|(_, mark)| *mark >= id),
            Cut::All => self.marks.clear(),
        }
        while let Some(oldest) = self.entries.front() {
            if matches!(cut, Cut::Before(id) if oldest.replay_id >= id) {
                break;
            }
            self.floor = oldest.replay_id;
            self.entries.pop_front();
        }
    }

    fn restart(&mut self, base: u64) {
        self.entries.clear();
        self.marks.clear();
        (self.base, self.floor, self.newest) = (base, base, base);
    }

    fn earliest(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.replay_id)
    }

    fn too_old(&self, replay_id: u64) -> TooOld {
        TooOld {
            replay_id,
            earliest: self.earliest(),
        }
    }
}
