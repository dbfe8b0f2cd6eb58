//! The Bulk API 2.0's query jobs: created, processed in the org's time, read page by page as CSV.
//!
//! Source: Bulk API 2.0 and Bulk API Developer Guide, "Query".

mod csv;
mod http;
mod job;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::ids;
use super::lock::lock;
use super::random::{BASE62, Random};
pub(super) use http::routes;
use job::{Job, Order};

/// Jobs in 24 hours.
const MOST_JOBS: usize = 10_000;
/// A job's results are kept for so long.
const KEPT: TimeDelta = TimeDelta::days(7);
/// Objects that the Bulk API does not know.
const UNSUPPORTED: [&str; 7] = [
    "Attachment",
    "CaseStatus",
    "TaskStatus",
    "RecentlyViewed",
    "ContractStatus",
    "TaskPriority",
    "AcceptedEventRelation",
];

/// The org's query jobs.
#[derive(Debug)]
pub(crate) struct Bulk {
    state: Mutex<State>,
    /// Records of a page, if the client asks for no fewer.
    page: usize,
}

#[derive(Debug)]
struct State {
    jobs: BTreeMap<String, Arc<Job>>,
    random: Random,
    settings: Settings,
}

/// What scripts change.
#[derive(Debug, Clone, Default)]
struct Settings {
    delay: TimeDelta,
    /// Errors of the next jobs, in order.
    failures: Vec<String>,
    refused: BTreeSet<String>,
    compression: Compression,
    empty_body: bool,
}

/// When results are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Compression {
    #[default]
    Asked,
    Always,
    Never,
}

impl Bulk {
    pub fn new(seed: u64, page: usize) -> Self {
        Self {
            state: Mutex::new(State {
                jobs: BTreeMap::new(),
                random: Random::new(seed, "jobs"),
                settings: Settings::default(),
            }),
            page: page.max(1),
        }
    }

    /// How long jobs that are created from here on take.
    pub fn delay(&self, seconds: u32) {
        lock(&self.state).settings.delay = TimeDelta::seconds(seconds.into());
    }

    /// The next job fails with this message.
    pub fn fail_next(&self, message: String) {
        lock(&self.state).settings.failures.push(message);
    }

    /// An object is not supported, from here on.
    pub fn refuse(&self, object: String) {
        lock(&self.state).settings.refused.insert(object);
    }

    /// When results are compressed, from here on.
    pub fn compress(&self, compression: Compression) {
        lock(&self.state).settings.compression = compression;
    }

    /// Results without rows have no header row either.
    pub fn empty_bodies(&self) {
        lock(&self.state).settings.empty_body = true;
    }

    /// Every job is gone.
    pub fn forget(&self) {
        lock(&self.state).jobs.clear();
    }

    /// Undoes what scripts have set; jobs keep what they were created with.
    pub fn relax(&self) {
        lock(&self.state).settings = Settings::default();
    }

    /// Jobs created in the last 24 hours, and how many may be.
    pub fn usage(&self, now: DateTime<Utc>) -> (u64, u64) {
        let state = lock(&self.state);
        let day = state.jobs.values().filter(|job| job.is_of_day(now));
        (day.count() as u64, MOST_JOBS as u64)
    }

    fn is_unsupported(&self, object: &str) -> bool {
        let same = |known: &str| known.eq_ignore_ascii_case(object);
        UNSUPPORTED.into_iter().any(same)
            || lock(&self.state)
                .settings
                .refused
                .iter()
                .any(|known| same(known))
    }

    /// Enters a job; `None` if the day's are used up.
    fn create(&self, order: Order, now: DateTime<Utc>) -> Option<Arc<Job>> {
        let mut state = lock(&self.state);
        state.jobs.retain(|_, job| now - job.created < KEPT);
        let day = state.jobs.values().filter(|job| job.is_of_day(now));
        if day.count() >= MOST_JOBS {
            return None;
        }
        let id = ids::with_checksum(&format!("750{}", state.random.text(BASE62, 12)));
        let failure = if state.settings.failures.is_empty() {
            None
        } else {
            Some(state.settings.failures.remove(0))
        };
        let job = Arc::new(Job::new(
            id.clone(),
            order,
            now,
            state.settings.delay,
            failure,
        ));
        state.jobs.insert(id, Arc::clone(&job));
        Some(job)
    }

    fn find(&self, id: &str, now: DateTime<Utc>) -> Option<Arc<Job>> {
        let id = ids::normalise(id)?;
        let job = lock(&self.state).jobs.get(&id).cloned()?;
        (now - job.created < KEPT).then_some(job)
    }

    fn remove(&self, id: &str) {
        lock(&self.state).jobs.remove(id);
    }

    /// Every job, newest first.
    fn all(&self) -> Vec<Arc<Job>> {
        let mut jobs: Vec<_> = lock(&self.state).jobs.values().cloned().collect();
        jobs.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        jobs
    }

    fn compression(&self) -> Compression {
        lock(&self.state).settings.compression
    }

    fn has_empty_bodies(&self) -> bool {
        lock(&self.state).settings.empty_body
    }
}
