//! What a job tells the metrics and the board.

use crate::fault::Fault;
use crate::telemetry::metrics;

use super::batch::Work;
use super::{Job, JobRoad, Life, Owner};
use crate::flow::board::FaultPicture;

impl Owner {
    /// What a committed batch did, and how late.
    pub(super) fn show_commit(&self, work: &Work) {
        let now = self.road.clock.now();
        let plan = self.road.mapping.plan();
        let labels = self.road.labels();
        self.tally.add(&self.road, work);
        for (outcome, count) in &work.counts {
            let labels = [labels[0], labels[1], ("outcome", *outcome)];
            self.road
                .metrics
                .counter(metrics::ROWS_APPLIED, &labels)
                .increment(*count);
        }
        let histogram = self.road.metrics.histogram(metrics::LAG_SECONDS, &labels);
        let mut newest = None;
        for committed_at in &work.streamed {
            let lag = (now - *committed_at).as_seconds_f64().max(0.0);
            histogram.record(lag);
            newest = Some(lag);
        }
        self.road
            .metrics
            .gauge(metrics::JOB_COMMITTED_AT, &labels)
            .set(now.timestamp() as f64);
        self.road.board.job(&plan.connection, &plan.job, |entry| {
            entry.state = Life::Streaming;
            entry.fault = None;
            entry.committed_at = Some(now);
            entry.lag_seconds = newest.or(entry.lag_seconds);
            for (outcome, count) in &work.counts {
                *entry.rows.entry(outcome).or_default() += count;
            }
        });
    }

    /// How much waits for rows.
    pub(super) async fn show_parked(&self) -> Result<(), Fault> {
        let plan = self.road.mapping.plan();
        let parked = self.road.target.parked().await?;
        let ours = parked
            .iter()
            .filter(|(connection, job, _)| *connection == plan.connection && *job == plan.job);
        let count: u64 = ours.map(|(_, _, count)| count).sum();
        self.road
            .metrics
            .gauge(metrics::PARKED, &self.road.labels())
            .set(count as f64);
        Ok(())
    }

    /// How much waits for a person; whether any of it is decided.
    pub(super) async fn show_reviews(&self) -> Result<bool, Fault> {
        let plan = self.road.mapping.plan();
        let target = &self.road.target;
        let review = target.in_review(&plan.connection, &plan.job).await?;
        self.road
            .metrics
            .gauge(metrics::IN_REVIEW, &self.road.labels())
            .set(review.waiting as f64);
        self.road.board.job(&plan.connection, &plan.job, |entry| {
            entry.in_review = review.waiting;
        });
        Ok(review.decided > 0)
    }
}

impl Job {
    /// How many offsets lie between the job and the topic's end.
    pub(super) async fn show_lag(&mut self) -> Result<(), Fault> {
        let bounds = self.owner.road.log.bounds(&self.owner.road.topic).await?;
        let behind = |(partition, owned): (&u32, &super::Owned)| {
            let ends = bounds.get(partition)?;
            Some(ends.end.saturating_sub(owned.next))
        };
        let lag: u64 = self.owned.iter().filter_map(behind).sum();
        let plan = self.owner.road.mapping.plan();
        self.owner
            .road
            .metrics
            .gauge(metrics::LAG_RECORDS, &self.owner.road.labels())
            .set(lag as f64);
        self.owner
            .road
            .board
            .job(&plan.connection, &plan.job, |entry| entry.lag_records = lag);
        Ok(())
    }
}

impl JobRoad {
    pub(super) fn labels(&self) -> [(&'static str, &str); 2] {
        let plan = self.mapping.plan();
        [
            ("connection", plan.connection.as_str()),
            ("sync_job", plan.job.as_str()),
        ]
    }

    pub(super) fn show_life(&self, life: Life) {
        let plan = self.mapping.plan();
        self.board
            .job(&plan.connection, &plan.job, |entry| entry.state = life);
    }

    /// The job has its partitions and nothing is wrong.
    pub(super) fn show_streaming(&self) {
        self.show_life(Life::Streaming);
    }

    pub(super) fn show_fault(&self, fault: &Fault, life: Life) {
        let plan = self.mapping.plan();
        let picture = FaultPicture::of(fault, self.clock.now());
        let labels = self.labels();
        let labels = [labels[0], labels[1], ("kind", picture.kind)];
        self.metrics.counter(metrics::FAULTS, &labels).increment(1);
        self.board.job(&plan.connection, &plan.job, |entry| {
            entry.state = life;
            entry.fault = Some(picture);
        });
    }
}
