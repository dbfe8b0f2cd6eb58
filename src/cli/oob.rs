//! `tributary oob`: the out-of-the-box jobs, listed, or one of them as a file would have it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use crate::config::oob::CrmKind;
use crate::config::oob::listing::{JobState, ListedJob, catalogue, of_connection};
use crate::fault::{Fault, FaultKind};

use super::output;

pub(super) fn oob(path: &Path, of: &str, job: Option<&str>, json: bool) -> Result<ExitCode, Fault> {
    let jobs = match CrmKind::from_name(of) {
        Some(kind) => catalogue(kind),
        None => {
            let environment: BTreeMap<String, String> = std::env::vars().collect();
            of_connection(path, &environment, of)?.ok_or_else(|| {
                Fault::new(FaultKind::Missing, format!("there is no connection `{of}`"))
                    .remedy("write `salesforce`, `dynamics` or the id of a connection; --config names the config")
            })?
        }
    };
    match job {
        Some(id) => one(&jobs, id, json)?,
        None if json => output::json(&jobs),
        None => list(&jobs),
    }
    Ok(ExitCode::SUCCESS)
}

fn one(jobs: &[ListedJob], id: &str, json: bool) -> Result<(), Fault> {
    let Some(job) = jobs.iter().find(|job| job.id == id) else {
        let ids: Vec<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
        return Err(Fault::new(
            FaultKind::Missing,
            format!("the catalogue has no job `{id}`"),
        )
        .remedy(format!("write one of {}", ids.join(", "))));
    };
    if json {
        output::json(job);
    } else {
        output::print(job.toml.trim_end());
    }
    Ok(())
}

fn list(jobs: &[ListedJob]) {
    let rows: Vec<Vec<String>> = jobs
        .iter()
        .map(|job| {
            let state = match job.state {
                JobState::Standard => "",
                JobState::Changed => "changed",
                JobState::Absent => "absent",
            };
            vec![
                job.id.clone(),
                job.source.clone(),
                job.to.join(", "),
                job.depends_on.join(", "),
                job.condition.clone().unwrap_or_default(),
                state.to_owned(),
            ]
        })
        .collect();
    output::table(
        &["JOB", "SOURCE", "TO", "DEPENDS ON", "ONLY WITH", ""],
        &rows,
    );
}
