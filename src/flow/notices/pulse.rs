//! The pulse: whether the daemon is healthy, and a call now and then for as long as it is, so that silence wakes somebody.

use std::sync::Arc;
use std::time::Duration;

use crate::fault::FaultKind;
use crate::flow::board::{Board, Life, PausePicture};
use crate::flow::connection::lost;
use crate::log::port::Log;
use crate::notify::notice::{Event, Notice};
use crate::notify::port::{Address, Carrier};
use crate::runtime::clock::Clock;
use crate::runtime::shutdown::StopSignal;
use crate::state::port::State;
use crate::target::watched::Watched;
use crate::telemetry::metrics::{self, Metrics};

/// The longest that the state may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the daemon stands on, and what it says of itself.
#[derive(Clone)]
pub struct Pulse {
    /// What every running part last said of itself.
    pub board: Arc<Board>,
    /// Asked on each beat.
    pub state: Arc<dyn State>,
    /// Says whether it waits.
    pub log: Arc<dyn Log>,
    /// Likewise.
    pub target: Arc<Watched>,
    /// The date.
    pub clock: Arc<dyn Clock>,
    /// The metrics.
    pub metrics: Metrics,
    /// Who is called.
    pub carrier: Arc<dyn Carrier>,
}

impl Pulse {
    /// Calls the webhook of `name` each time that so much has gone by and the daemon is healthy.
    pub async fn beat(self, name: String, every: Duration, stop: StopSignal) {
        let to = Address::Webhook(name);
        while stop.or(tokio::time::sleep(every)).await.is_ok() {
            if stop.or(self.once(&to)).await.is_err() {
                return;
            }
        }
    }

    async fn once(&self, to: &Address) {
        let outcome = match self.ill().await {
            Some(what) => {
                tracing::warn!(
                    to = to.shown(),
                    what,
                    "no heartbeat: the daemon is not healthy"
                );
                "withheld"
            }
            None => {
                let now = self.clock.now();
                let notice = Notice::new(Event::Heartbeat, "success", "healthy", now);
                let id = format!("heartbeat {}", now.timestamp_millis());
                match self.carrier.carry(to, &id, &notice).await {
                    Ok(_) => "sent",
                    Err(fault) => {
                        tracing::warn!(
                            to = to.shown(),
                            error = fault.report(),
                            "heartbeat not delivered"
                        );
                        "failed"
                    }
                }
            }
        };
        let labels = [("outcome", outcome)];
        self.metrics
            .counter(metrics::HEARTBEATS, &labels)
            .increment(1);
    }

    /// What is wrong; `None` if the daemon is healthy: its state, log and target answer, every connection streams or is
    /// another daemon's, and every job applies what comes, or was paused by a person.
    pub async fn ill(&self) -> Option<String> {
        if self.log.waiting().is_some() {
            return Some("the log waits for its brokers".to_owned());
        }
        if self.target.waiting().is_some() {
            return Some("the target is waited for".to_owned());
        }
        match tokio::time::timeout(PATIENCE, self.state.holes(None, false)).await {
            Ok(Ok(_)) => {}
            Ok(Err(fault)) if fault.kind() == FaultKind::Stopping => {
                return Some("the daemon is stopping".to_owned());
            }
            _ => return Some("the state does not answer".to_owned()),
        }
        ill_parts(&self.board)
    }
}

/// The first connection or job that does not do its work.
fn ill_parts(board: &Board) -> Option<String> {
    let picture = board.picture();
    for (connection, shown) in &picture.connections {
        let works = matches!(
            shown.state,
            Life::Streaming | Life::Snapshotting | Life::Repairing | Life::Standby
        );
        if !works {
            return Some(format!(
                "connection {connection} is {}",
                shown.state.label()
            ));
        }
    }
    for (connection, jobs) in &picture.jobs {
        for (job, shown) in jobs {
            let by_itself =
                |paused: &PausePicture| paused.brake || paused.by.as_deref() == Some(lost::BY);
            let by_person = shown
                .paused
                .as_ref()
                .is_some_and(|paused| !by_itself(paused));
            let works = shown.state == Life::Streaming || shown.state == Life::Paused && by_person;
            if !works {
                return Some(format!("job {connection}/{job} is {}", shown.state.label()));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::{ConnectionId, JobId};

    #[test]
    fn silence_is_for_what_nobody_wanted() {
        let (acme, job) = (ConnectionId::new("acme"), JobId::new("users"));
        let board = Board::default();
        let at = |connection: Life, life: Life, brake: Option<bool>| {
            board.connection(&acme, |entry| entry.state = connection);
            board.job(&acme, &job, |entry| {
                entry.state = life;
                entry.paused = brake.map(|brake| PausePicture {
                    reason: None,
                    by: None,
                    since: None,
                    brake,
                });
            });
            ill_parts(&board)
        };
        for connection in [Life::Streaming, Life::Snapshotting, Life::Standby] {
            assert_eq!(at(connection, Life::Streaming, None), None);
        }
        assert_eq!(at(Life::Streaming, Life::Paused, Some(false)), None);
        for (connection, life, brake) in [
            (Life::Revoked, Life::Streaming, None),
            (Life::Retrying, Life::Streaming, None),
            (Life::Streaming, Life::Failed, None),
            (Life::Streaming, Life::Retrying, None),
            (Life::Streaming, Life::Paused, Some(true)),
        ] {
            let told = at(connection, life, brake).unwrap();
            assert!(told.contains("acme"), "{told}");
        }
    }
}
