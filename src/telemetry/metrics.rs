//! Every metric there is: names, units and labels in one closed list, as handles on a recorder passed in.
//!
//! Labels are `connection`, `object`, `sync_job`, `cause`, `outcome`, `origin`, `state`, `queue`, `channel`: bounded by the
//! config, never a record's id. `job` and `instance` belong to Prometheus.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};

/// A metric's name, kind and help text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// The name, unit last.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
}

macro_rules! vocabulary {
    ($($(#[doc = $help:literal])+ $constant:ident = $name:literal;)+) => {
        $($(#[doc = $help])+ pub const $constant: &str = $name;)+
        /// The whole vocabulary.
        pub const VOCABULARY: &[Description] = &[
            $(Description { name: $name, help: concat!($($help),+) },)+
        ];
    };
}

vocabulary! {
    /// Events that a CRM's stream delivered, by object.
    EVENTS = "tributary_events_total";
    /// Events passed over because they were delivered before, by object.
    EVENTS_REPEATED = "tributary_events_repeated_total";
    /// Rows that reads of a CRM returned, by object.
    ROWS_READ = "tributary_rows_read_total";
    /// Changes made durable in the log, by object and origin.
    CHANGES = "tributary_changes_published_total";
    /// Rows of destinations, by job and outcome.
    ROWS_APPLIED = "tributary_rows_applied_total";
    /// Records set aside with a reason, by job.
    DEAD_LETTERS = "tributary_dead_letters_total";
    /// Calls to a CRM, by connection.
    CRM_CALLS = "tributary_crm_calls_total";
    /// Calls of a day that are left: as the org says, for all its users, or of `daily_requests`; by connection.
    CRM_CALLS_LEFT = "tributary_crm_calls_left";
    /// Seconds until a connection's calls end at the pace of the last hour; 86400 if there will be new ones before.
    CRM_CALLS_LAST = "tributary_crm_calls_last_seconds";
    /// Calls that wait for their turn, by connection and queue: repair, incremental, full_sync, verify.
    CRM_CALLS_WAITING = "tributary_crm_calls_waiting";
    /// Events that the org still delivers today, to all its subscribers, by connection.
    DELIVERIES_LEFT = "tributary_event_deliveries_left";
    /// Whole reads over REST because the Bulk API does not take the object, by connection and object.
    BULK_REFUSED = "tributary_bulk_refused_total";
    /// Changes in the log that a job has not applied yet.
    LAG_RECORDS = "tributary_lag_records";
    /// Seconds from a commit in the CRM to the commit in the store; changes of origin stream only.
    LAG_SECONDS = "tributary_lag_seconds";
    /// Holes that are not closed, by connection and cause.
    HOLES_OPEN = "tributary_holes_open";
    /// Records that the probe found changed though no event told it, by connection and object.
    MISSED_CHANGES = "tributary_missed_changes_total";
    /// Fields that jobs read and that the CRM no longer shows, by connection and object.
    LOST_FIELDS = "tributary_lost_fields";
    /// Records that wait for a read by id.
    OWED_READS = "tributary_owed_reads";
    /// References and changes that wait for a row.
    PARKED = "tributary_parked";
    /// Records that wait for a person to say which of several rows they are, by job.
    IN_REVIEW = "tributary_in_review";
    /// Hints that were pushed, by connection and outcome: queued, not_selected, or why they were refused.
    HINTS = "tributary_hints_total";
    /// Hints that were met, by connection and outcome: read, owed (read once more), delta (change tracking tells it), not_selected.
    HINTS_MET = "tributary_hints_met_total";
    /// Seconds from a hint's coming to its record's change being durable in the log, by connection.
    HINT_SECONDS = "tributary_hint_seconds";
    /// 1 for the state that a connection or an object is in, 0 for the others.
    STATE = "tributary_state";
    /// 1 while the CRM tells an object's changes or it is not known, 0 while the object is polled, by object.
    OBJECT_TOLD = "tributary_object_told";
    /// The time in the CRM up to which a connection's stream is confirmed, as unix seconds.
    CONFIRMED_AT = "tributary_confirmed_timestamp_seconds";
    /// When a table's changes were last asked for by change tracking, by object, as unix seconds: its place expires.
    DELTA_LINK_AT = "tributary_delta_link_timestamp_seconds";
    /// How long a place in a table's changes is taken, by connection, in seconds.
    DELTA_LINK_LIFE = "tributary_delta_link_life_seconds";
    /// When a job committed last, as unix seconds.
    JOB_COMMITTED_AT = "tributary_job_committed_timestamp_seconds";
    /// 1 while a job is paused and applies nothing, 0 while it is not.
    JOB_PAUSED = "tributary_job_paused";
    /// 1 while a job stands still because a brake stopped it, 0 while it does not.
    JOB_BRAKED = "tributary_job_braked";
    /// 1 while the log waits for its brokers, 0 while it does not; the embedded log never waits.
    LOG_WAITING = "tributary_log_waiting";
    /// 1 while the target is waited for (it can't be reached, it refuses the daemon, its disk is full), 0 while it is not.
    TARGET_WAITING = "tributary_target_waiting";
    /// Things waiting in a bounded queue.
    QUEUE_DEPTH = "tributary_queue_depth";
    /// 1 while messages come from a connection's service bus, 0 while they do not.
    PUSH_CONNECTED = "tributary_push_connected";
    /// Faults met and handled, by connection or job and kind.
    FAULTS = "tributary_faults_total";
    /// Notices by channel (mail, webhook) and outcome: sent, retried (not delivered, and tried again), dropped.
    NOTICES = "tributary_notices_total";
    /// Notices that wait to be delivered, of all daemons on the state.
    NOTICES_WAITING = "tributary_notices_waiting";
    /// Heartbeats by outcome: sent, failed, withheld (the daemon is not healthy).
    HEARTBEATS = "tributary_heartbeats_total";
    /// 1, labelled with the version.
    BUILD = "tributary_build_info";
}

/// The histograms: durations.
pub const HISTOGRAMS: [&str; 2] = [LAG_SECONDS, HINT_SECONDS];

/// Bucket bounds of [`HISTOGRAMS`].
pub const LAG_BUCKETS: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 3600.0, 86400.0,
];

/// Handles by name and labels, made once and kept; clones share them.
#[derive(Clone)]
pub struct Metrics {
    recorder: Arc<dyn Recorder + Send + Sync>,
    handles: Arc<Mutex<Handles>>,
}

#[derive(Default)]
struct Handles {
    counters: BTreeMap<Key, Counter>,
    gauges: BTreeMap<Key, Gauge>,
    histograms: BTreeMap<Key, Histogram>,
}

impl Metrics {
    /// Metrics on `recorder`, described by the vocabulary.
    pub fn new(recorder: Arc<dyn Recorder + Send + Sync>) -> Self {
        for description in VOCABULARY {
            let (name, help) = (description.name.into(), description.help.trim().into());
            if description.name.ends_with("_total") {
                recorder.describe_counter(name, None, help);
            } else if HISTOGRAMS.contains(&description.name) {
                recorder.describe_histogram(name, None, help);
            } else {
                recorder.describe_gauge(name, None, help);
            }
        }
        Self {
            recorder,
            handles: Arc::default(),
        }
    }

    /// Metrics that go nowhere, for tests and offline commands.
    #[must_use]
    pub fn none() -> Self {
        Self::new(Arc::new(metrics::NoopRecorder))
    }

    /// A counter of the vocabulary.
    pub fn counter(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        let key = key(name, labels);
        self.lock()
            .counters
            .entry(key.clone())
            .or_insert_with(|| self.recorder.register_counter(&key, &METADATA))
            .clone()
    }

    /// A gauge of the vocabulary.
    pub fn gauge(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        let key = key(name, labels);
        self.lock()
            .gauges
            .entry(key.clone())
            .or_insert_with(|| self.recorder.register_gauge(&key, &METADATA))
            .clone()
    }

    /// A histogram of the vocabulary.
    pub fn histogram(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Histogram {
        let key = key(name, labels);
        self.lock()
            .histograms
            .entry(key.clone())
            .or_insert_with(|| self.recorder.register_histogram(&key, &METADATA))
            .clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

static METADATA: Metadata<'static> = Metadata::new("tributary", Level::INFO, None);

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<Label> = labels
        .iter()
        .map(|(label, value)| Label::new(*label, (*value).to_owned()))
        .collect();
    Key::from_parts(name, labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        for description in VOCABULARY {
            let name = description.name;
            assert!(name.starts_with("tributary_"), "{name}");
            assert!(
                name.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
                "{name}"
            );
            assert!(
                description.help.trim().len() > 10,
                "{name} has no help text"
            );
        }
        let mut names: Vec<_> = VOCABULARY.iter().map(|entry| entry.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), VOCABULARY.len());
    }
}
