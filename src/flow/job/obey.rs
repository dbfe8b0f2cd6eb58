//! Orders: a job that is told to pause leaves its group and applies nothing until it is told to go on.

use std::time::Duration;

use crate::fault::Fault;
use crate::runtime::shutdown::StopSignal;
use crate::state::orders::Order;
use crate::telemetry::metrics;

use super::JobRoad;
use crate::flow::board::{Life, PausePicture};

/// How often a job looks for its order: what it takes to be obeyed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl JobRoad {
    /// The order that stands for this job.
    pub(super) async fn order(&self) -> Result<Order, Fault> {
        let plan = self.mapping.plan();
        let standing = self.state.standing(&plan.connection, &plan.job).await?;
        Ok(standing.order)
    }

    /// Waits until the job is told to pause. A state that does not answer tells nothing new.
    pub(super) async fn told_to_pause(&self) -> Order {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match self.order().await {
                Ok(order) if order.paused => return order,
                Ok(_) => {}
                Err(fault) => self.note_unheard(&fault),
            }
        }
    }

    /// Waits until the job is told to go on; whether it was before the stop signal. Whoever can't read the order stays
    /// paused.
    pub(super) async fn told_to_go_on(&self, mut order: Order, stop: &StopSignal) -> bool {
        let plan = self.mapping.plan();
        tracing::info!(
            connection = %plan.connection, job = %plan.job,
            reason = order.reason.as_deref().unwrap_or_default(),
            by = order.by.as_deref().unwrap_or_default(), "job paused"
        );
        loop {
            self.show_pause(Some(PausePicture::of(order)));
            order = loop {
                let waited = stop.or(tokio::time::sleep(LOOK_EVERY)).await;
                if waited.is_err() {
                    return false;
                }
                match self.order().await {
                    Ok(order) => break order,
                    Err(fault) => self.note_unheard(&fault),
                }
            };
            if !order.paused {
                break;
            }
        }
        tracing::info!(connection = %plan.connection, job = %plan.job, "job goes on");
        self.show_pause(None);
        true
    }

    /// Shows what the job was told.
    pub(super) fn show_pause(&self, pause: Option<PausePicture>) {
        let plan = self.mapping.plan();
        self.metrics
            .gauge(metrics::JOB_PAUSED, &self.labels())
            .set(if pause.is_some() { 1.0 } else { 0.0 });
        let braked = pause.as_ref().is_some_and(|pause| pause.brake);
        self.metrics
            .gauge(metrics::JOB_BRAKED, &self.labels())
            .set(if braked { 1.0 } else { 0.0 });
        self.board.job(&plan.connection, &plan.job, |entry| {
            entry.state = if pause.is_some() {
                Life::Paused
            } else {
                Life::Starting
            };
            entry.paused = pause;
        });
    }

    pub(super) fn note_unheard(&self, fault: &Fault) {
        let plan = self.mapping.plan();
        tracing::debug!(
            connection = %plan.connection, job = %plan.job, error = fault.report(),
            "orders can't be read, the job does as it was told before"
        );
    }
}
