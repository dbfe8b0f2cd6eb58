//! The inbox: where hints become durable, whoever brought them.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::fault::Fault;
use crate::model::name::{ConnectionId, ObjectName};
use crate::runtime::clock::Clock;
use crate::state::port::{Hinted, State};
use crate::telemetry::metrics::{self, Metrics};

use super::hint::{Hint, Refusal};

/// One connection's hints on their way into the state. It needs no owner: a daemon that stands by takes hints, too.
#[derive(Clone)]
pub struct Inbox {
    connection: ConnectionId,
    tables: Arc<BTreeSet<ObjectName>>,
    state: Arc<dyn State>,
    arrived: Arc<Notify>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

impl Inbox {
    /// The inbox of a connection whose jobs select `tables`. `arrived` wakes whoever resolves hints.
    #[must_use]
    pub fn new(
        connection: ConnectionId,
        tables: BTreeSet<ObjectName>,
        state: Arc<dyn State>,
        arrived: Arc<Notify>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        let inbox = Self {
            connection,
            tables: Arc::new(tables),
            state,
            arrived,
            clock,
            metrics,
        };
        // The series is there before the first hint: one that never comes is an alarm.
        inbox.add("queued", 0);
        inbox
    }

    /// The connection.
    #[must_use]
    pub const fn connection(&self) -> &ConnectionId {
        &self.connection
    }

    /// Makes hints durable, all or none: when it returns `Ok`, each record is read by id, whatever happens next.
    /// Several of one record are one. What no job selects is dropped and counted.
    ///
    /// # Errors
    /// As the state says; then nothing is promised, and the sender has to keep or repeat the hints.
    pub async fn enqueue(&self, hints: &[Hint]) -> Result<(), Fault> {
        let at = self.clock.now();
        let selected = hints
            .iter()
            .filter(|hint| self.tables.contains(&hint.table));
        let noted: Vec<Hinted> = selected
            .map(|hint| Hinted {
                object: hint.table.clone(),
                record: hint.record.clone(),
                at,
            })
            .collect();
        let queued = noted.len();
        if queued > 0 {
            self.state
                .hint(&self.connection, noted)
                .await
                .map_err(|fault| fault.context("noting what was pushed"))?;
            self.arrived.notify_one();
        }
        self.count("queued", queued);
        self.count("not_selected", hints.len() - queued);
        Ok(())
    }

    /// Counts a message that is no hint.
    pub fn refused(&self, refusal: &Refusal) {
        self.count(refusal.label(), 1);
    }

    /// Counts messages by what became of them; labels are of closed lists.
    pub fn count(&self, outcome: &'static str, by: usize) {
        if by > 0 {
            self.add(outcome, by as u64);
        }
    }

    fn add(&self, outcome: &'static str, by: u64) {
        let labels = [
            ("connection", self.connection.as_str()),
            ("outcome", outcome),
        ];
        let counter = self.metrics.counter(metrics::HINTS, &labels);
        counter.increment(by);
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use crate::model::record_id::RecordId;
    use crate::runtime::clock::ManualClock;
    use crate::state::memory::MemoryState;

    use super::*;

    fn hint(table: &str, record: &str) -> Hint {
        Hint {
            table: table.into(),
            record: RecordId::stored(record),
            message: "Update".to_owned(),
            correlation: None,
            is_cut: false,
        }
    }

    #[tokio::test]
    async fn what_was_taken_is_in_the_state_once_a_record_and_only_what_is_selected() {
        let state: Arc<dyn State> = Arc::new(MemoryState::default());
        let arrived = Arc::new(Notify::new());
        let inbox = Inbox::new(
            "contoso".into(),
            ["account".into()].into(),
            Arc::clone(&state),
            Arc::clone(&arrived),
            Arc::new(ManualClock::new(DateTime::UNIX_EPOCH)),
            Metrics::none(),
        );
        let hints = [
            hint("account", "a"),
            hint("lead", "l"),
            hint("account", "b"),
            hint("account", "a"),
        ];
        inbox.enqueue(&hints).await.unwrap();
        arrived.notified().await;
        let noted = state.hints(inbox.connection(), 10).await.unwrap();
        let mut records: Vec<&str> = noted.iter().map(|hint| hint.record.as_str()).collect();
        records.sort_unstable();
        assert_eq!(records, ["a", "b"]);
        inbox.enqueue(&[hint("lead", "l")]).await.unwrap();
        assert_eq!(state.hints(inbox.connection(), 10).await.unwrap().len(), 2);
    }
}
