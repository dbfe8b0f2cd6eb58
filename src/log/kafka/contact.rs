//! Whether the brokers answer: told in one log line per change, by a gauge, and to whoever asks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use metrics::Gauge;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tokio::sync::Notify;

use crate::model::waiting::Waiting;
use crate::runtime::clock::{Clock, SystemClock};
use crate::telemetry::metrics::{LOG_WAITING, Metrics};

/// What all clients of a log know of their brokers.
pub(super) struct Contact {
    state: Mutex<State>,
    gauge: Gauge,
    /// Wakes whoever looks whether the brokers are back.
    pub away: Notify,
}

#[derive(Default)]
struct State {
    /// Why a client reaches none of them; cleared by any answer.
    unreachable: Option<String>,
    /// Why an append waits for its acknowledgement; cleared by the next one.
    unacknowledged: Option<String>,
    /// What a client said last: the reason behind "all are down".
    last: Option<String>,
    since: Option<DateTime<Utc>>,
}

impl State {
    fn waiting(&self) -> Option<&String> {
        self.unacknowledged.as_ref().or(self.unreachable.as_ref())
    }
}

impl Contact {
    pub(super) fn new(metrics: &Metrics) -> Arc<Self> {
        Self::with(metrics.gauge(LOG_WAITING, &[]))
    }

    fn with(gauge: Gauge) -> Arc<Self> {
        gauge.set(0.0);
        Arc::new(Self {
            state: Mutex::default(),
            gauge,
            away: Notify::new(),
        })
    }

    /// Why the log waits for its brokers; `None` while it does not.
    pub(super) fn waiting(&self) -> Option<Waiting> {
        let state = self.lock();
        Some(Waiting {
            cause: state.waiting()?.clone(),
            since: state.since?,
        })
    }

    /// Whether no client reaches a broker, as far as is known.
    pub(super) fn is_away(&self) -> bool {
        self.lock().unreachable.is_some()
    }

    /// A client met a fault of its own, not of a call.
    pub(super) fn met(&self, error: &KafkaError, reason: &str) {
        tracing::debug!(error = %error, reason, "the Kafka client met a fault");
        match error.rdkafka_error_code() {
            Some(Code::AllBrokersDown) => {
                let last = self.lock().last.clone();
                self.unreachable(last.unwrap_or_else(|| reason.to_owned()));
            }
            _ => self.lock().last = Some(reason.to_owned()),
        }
    }

    /// No broker is reached.
    pub(super) fn unreachable(&self, why: String) {
        self.change(|state| state.unreachable = Some(why));
        self.away.notify_one();
    }

    /// A broker answered.
    pub(super) fn answered(&self) {
        if self.is_away() {
            self.change(|state| state.unreachable = None);
        }
    }

    /// Appends wait for longer than they should, or do so no more.
    pub(super) fn unacknowledged(&self, why: Option<String>) {
        if why.is_some() || self.lock().unacknowledged.is_some() {
            self.change(|state| state.unacknowledged = why);
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        match (state.waiting().cloned(), state.since) {
            (Some(why), None) => {
                state.since = Some(SystemClock.now());
                self.gauge.set(1.0);
                tracing::warn!(reason = why, "waiting for the Kafka brokers");
            }
            (None, Some(since)) => {
                state.since = None;
                self.gauge.set(0.0);
                let seconds = (SystemClock.now() - since).num_seconds();
                tracing::info!(waited_seconds = seconds, "the Kafka brokers answer again");
            }
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is made in one go.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The context of clients that need nothing else.
pub(super) struct Listening(pub Arc<Contact>);

impl ClientContext for Listening {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.met(&error, reason);
    }
}

impl rdkafka::consumer::ConsumerContext for Listening {}

/// Passes librdkafka's own lines on. Broken connections are [`Contact`]'s to tell, once and not at each attempt.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, text: &str) {
    let is_connection = matches!(facility, "FAIL" | "ERROR" | "CONFWARN" | "MAXPOLL");
    match level {
        _ if is_connection => tracing::debug!(facility, text, "librdkafka"),
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => tracing::warn!(facility, text, "librdkafka"),
        _ => tracing::debug!(facility, text, "librdkafka"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_wait_is_told_until_both_reasons_have_gone() {
        let shown = Arc::new(AtomicU64::new(0));
        let contact = Contact::with(Gauge::from_arc(Arc::clone(&shown)));
        let gauge = || f64::from_bits(shown.load(Ordering::Relaxed));
        let down = KafkaError::Global(Code::AllBrokersDown);
        let refused = KafkaError::Global(Code::BrokerTransportFailure);
        contact.met(&refused, "b:9092: connection refused");
        assert_eq!((contact.waiting(), gauge()), (None, 0.0), "one of several");
        contact.met(&down, "1/1 brokers are down");
        let first = contact.waiting().unwrap();
        let told = (first.cause.as_str(), gauge());
        assert_eq!(told, ("b:9092: connection refused", 1.0));
        contact.unacknowledged(Some("3 entries are not acknowledged".to_owned()));
        contact.answered();
        assert!(!contact.is_away());
        assert_eq!(gauge(), 1.0, "nothing was acknowledged yet");
        let still = contact.waiting().unwrap();
        assert!(still.cause.contains("3 entries"));
        assert_eq!(still.since, first.since, "it is one wait");
        contact.unacknowledged(None);
        assert_eq!((contact.waiting(), gauge()), (None, 0.0));
    }
}
