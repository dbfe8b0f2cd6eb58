//! Asks the identifiers of records that have rows already, a page of the job's topic at a time.

use std::collections::BTreeMap;

use crate::fault::{Fault, FaultKind};
use crate::flow::job::JobRoad;
use crate::flow::job::rematch::{self, Looked, Page};
use crate::log::port::Bounds;
use crate::model::name::{ConnectionId, JobId};

use super::Control;

impl Control {
    /// The bounds of a job's topic.
    ///
    /// # Errors
    /// `Missing` for a job that this daemon does not run; a fault of the log.
    pub async fn to_rematch(
        &self,
        connection: &ConnectionId,
        job: &JobId,
    ) -> Result<BTreeMap<u32, Bounds>, Fault> {
        rematch::bounds(self.road(connection, job)?).await
    }

    /// Looks at a page, and has its records moved unless it is a dry run.
    ///
    /// # Errors
    /// As [`Control::to_rematch`]; a fault of the target or the state.
    pub async fn rematch(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        page: Page,
        is_dry: bool,
        by: Option<&str>,
    ) -> Result<Looked, Fault> {
        let road = self.road(connection, job)?;
        let looked = rematch::look(road, page).await?;
        if !is_dry && !looked.moves.is_empty() {
            rematch::carry_out(road, &looked.moves, by).await?;
            tracing::info!(
                %connection, %job, records = looked.moves.len(), by = by.unwrap_or_default(),
                "identifiers of records are asked again"
            );
        }
        Ok(looked)
    }

    fn road(&self, connection: &ConnectionId, job: &JobId) -> Result<&JobRoad, Fault> {
        self.known(connection, job)?;
        let mut roads = self.roads.iter();
        let found = roads.find(|road| {
            let plan = road.mapping.plan();
            plan.connection == *connection && plan.job == *job
        });
        found.ok_or_else(|| {
            let what = format!("job {connection}/{job} is not enabled");
            Fault::new(FaultKind::Missing, what)
                .remedy("set `enabled = true`, and start the daemon again")
        })
    }
}
