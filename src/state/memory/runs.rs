//! Runs, in memory.

use std::cmp::Reverse;

use async_trait::async_trait;

use super::MemoryState;
use crate::fault::Fault;
use crate::model::name::{ConnectionId, JobId};
use crate::state::runs::{Run, RunHead, RunPart, Runs, RunsWanted};

#[async_trait]
impl Runs for MemoryState {
    async fn note_run(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        head: RunHead,
        writer: &str,
        part: RunPart,
    ) -> Result<(), Fault> {
        let key = (connection.clone(), job.clone(), head.id.clone());
        let mut inner = self.lock();
        let (held, parts) = inner
            .runs
            .entry(key)
            .or_insert_with(|| (head.clone(), Default::default()));
        if head.is_closed() {
            *held = head;
        }
        parts.insert(writer.to_owned(), part);
        Ok(())
    }

    async fn runs(&self, wanted: RunsWanted) -> Result<Vec<Run>, Fault> {
        let inner = self.lock();
        let wants = |connection: &ConnectionId, job: &JobId| {
            wanted.connection.as_ref().is_none_or(|of| of == connection)
                && wanted.job.as_ref().is_none_or(|of| of == job)
        };
        let found = inner.runs.iter();
        let mut runs: Vec<Run> = found
            .filter(|((connection, job, _), _)| wants(connection, job))
            .map(|((connection, job, _), (head, parts))| {
                let mut done = RunPart::default();
                parts.values().for_each(|part| done.add(part));
                Run {
                    connection: connection.clone(),
                    job: job.clone(),
                    head: head.clone(),
                    done,
                }
            })
            .collect();
        runs.sort_by_key(|run| Reverse((run.head.began, run.head.id.clone())));
        runs.truncate(wanted.limit);
        Ok(runs)
    }

    async fn forget_runs(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        keep: usize,
    ) -> Result<(), Fault> {
        let wanted = RunsWanted {
            connection: Some(connection.clone()),
            job: Some(job.clone()),
            limit: usize::MAX,
        };
        let old = self.runs(wanted).await?.into_iter().skip(keep);
        let mut inner = self.lock();
        for run in old {
            inner.runs.remove(&(run.connection, run.job, run.head.id));
        }
        Ok(())
    }
}
