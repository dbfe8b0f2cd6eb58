//! Mapping tests: the `[[test]]` tables of jobs, run on a target in memory, or on any that is empty.
//!
//! Every record is a change of its own, in the order of the test's `given`, and goes through all jobs of the connection
//! that read its object: what a look-up finds is what those jobs stored. `"other/Object"` is one of another connection.
//! Fields that a test leaves out are null.

mod compare;
#[cfg(test)]
mod golden;
mod stage;

use std::sync::Arc;

use chrono::{DateTime, TimeZone, Utc};

use crate::config::Config;
use crate::config::job::{JobConfig, MappingTest};
use crate::config::problem::Problem;
use crate::fault::Fault;
use crate::mapping::compile::Mapping;
use crate::target::memory::MemoryTarget;
use crate::target::port::Target;

use stage::Stage;

/// What a run of all tests of a config found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trials {
    /// Tests that were run.
    pub run: usize,
    /// What did not come out as expected, with the test's place.
    pub failures: Vec<Problem>,
}

/// Runs every test of every job that is enabled; `mappings` are those jobs.
///
/// # Errors
/// A fault of the target in memory, which a compiled job does not meet.
pub async fn run(config: &Config, mappings: &[Arc<Mapping>]) -> Result<Trials, Fault> {
    run_on(config, mappings, async || {
        Ok(Arc::new(MemoryTarget::new()) as _)
    })
    .await
}

/// As [`run`], on what `empty` yields: for each test a target without a row.
///
/// # Errors
/// A fault of a target.
async fn run_on(
    config: &Config,
    mappings: &[Arc<Mapping>],
    empty: impl AsyncFn() -> Result<Arc<dyn Target>, Fault>,
) -> Result<Trials, Fault> {
    let mut trials = Trials::default();
    for job in config.jobs.iter().filter(|job| job.enabled) {
        let key = (job.connection.clone(), job.id.clone());
        let tests = config.routines.get(&key).map(|routine| &routine.tests);
        for test in tests.into_iter().flatten() {
            trials.run += 1;
            trials
                .failures
                .extend(one(config, mappings, empty().await?, job, test).await?);
        }
    }
    Ok(trials)
}

/// A Monday: where `now` stands unless a test says otherwise.
fn default_now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 1, 5, 10, 0, 0)
        .single()
        .unwrap_or_default()
}

async fn one(
    config: &Config,
    mappings: &[Arc<Mapping>],
    target: Arc<dyn Target>,
    job: &JobConfig,
    test: &MappingTest,
) -> Result<Vec<Problem>, Fault> {
    let now = test.now.unwrap_or_else(default_now);
    let given = test.given.iter();
    let others = given.filter_map(|(object, _)| stage::elsewhere(&object.value));
    let others = others.map(|(connection, _)| connection).collect();
    let mut stage = Stage::open(config, mappings, target, &job.connection, &others, now).await?;
    let mut failures = Vec::new();
    for (object, records) in &test.given {
        for record in records {
            let told = stage.play(&object.value, record).await?;
            failures.extend(
                told.into_iter()
                    .map(|(what, remedy)| Problem::new(&object.spot, what, remedy)),
            );
        }
    }
    stage.settle().await?;
    let refused = stage.refused().await?;
    failures.extend(compare::errors(test, &refused));
    for (label, rows) in &test.expect {
        failures.extend(compare::rows(config, stage.target(), label, rows).await?);
    }
    stage.close().await?;
    Ok(failures)
}

#[cfg(test)]
mod tests;
