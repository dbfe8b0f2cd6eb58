//! Runs through the seam.

use async_trait::async_trait;

use super::{DISK, Guarded};
use crate::fault::Fault;
use crate::model::name::{ConnectionId, JobId};
use crate::state::port::State;
use crate::state::runs::{Run, RunHead, RunPart, Runs, RunsWanted};

#[async_trait]
impl Runs for Guarded<dyn State> {
    async fn note_run(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        head: RunHead,
        writer: &str,
        part: RunPart,
    ) -> Result<(), Fault> {
        let work = self.inner.note_run(connection, job, head, writer, part);
        self.process.pass("state.note_run", DISK, work).await
    }

    async fn runs(&self, wanted: RunsWanted) -> Result<Vec<Run>, Fault> {
        self.inner.runs(wanted).await
    }

    async fn forget_runs(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        keep: usize,
    ) -> Result<(), Fault> {
        let work = self.inner.forget_runs(connection, job, keep);
        self.process.pass("state.forget_runs", DISK, work).await
    }
}
