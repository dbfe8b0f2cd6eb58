//! `tributary check`: the config and its mapping tests, offline, every mistake at once; with `--live` also what the
//! daemon will stand on.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use crate::app;
use crate::config::Config;
use crate::config::problem::Problems;
use crate::fault::Fault;
use crate::flow::trial;

use super::args::CheckOptions;
use super::{live, output};

pub(super) async fn check(
    path: &Path,
    options: &CheckOptions,
    json: bool,
) -> Result<ExitCode, Fault> {
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    let checked = Config::load(path, &environment).and_then(|config| {
        let mappings = app::compile(&config)?;
        Ok((config, mappings))
    });
    let (config, mappings) = match checked {
        Ok(checked) => checked,
        Err(problems) => {
            if json {
                output::json(&serde_json::json!({ "ok": false, "problems": problems.as_slice() }));
            } else {
                output::print(&problems.to_string());
            }
            return Ok(ExitCode::from(2));
        }
    };
    let trials = trial::run(&config, &mappings).await?;
    let held = trials.failures.is_empty();
    let looked = match &options.live {
        Some(only) => Some(app::live::look(&config, only.as_deref()).await?),
        None => None,
    };
    let stands = looked.as_ref().is_none_or(|looked| !looked.is_broken());
    let code = if held && stands {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(3)
    };
    if json {
        let jobs: Vec<_> = mappings
            .iter()
            .map(|mapping| {
                let plan = mapping.plan();
                serde_json::json!({
                    "connection": plan.connection, "job": plan.job, "source": plan.source, "fields": plan.fields,
                    "destinations": plan.destinations.iter().map(|to| &to.label).collect::<Vec<_>>(),
                })
            })
            .collect();
        output::json(&serde_json::json!({
            "ok": held && stands, "jobs": jobs, "notes": config.notes,
            "tests": { "run": trials.run, "failures": trials.failures }, "live": looked,
        }));
        return Ok(code);
    }
    let rows: Vec<Vec<String>> = mappings
        .iter()
        .map(|mapping| {
            let plan = mapping.plan();
            let to: Vec<&str> = plan
                .destinations
                .iter()
                .map(|to| to.label.as_str())
                .collect();
            vec![
                plan.connection.to_string(),
                plan.job.to_string(),
                plan.source.to_string(),
                to.join(", "),
                plan.fields.len().to_string(),
            ]
        })
        .collect();
    output::table(&["CONNECTION", "JOB", "SOURCE", "TO", "FIELDS"], &rows);
    for note in &config.notes {
        output::print(&format!("note: {note}"));
    }
    if held {
        output::print(&format!(
            "the config is right: {} connections, {} jobs, {} mapping tests",
            config.connections.len(),
            mappings.len(),
            trials.run
        ));
    } else {
        let failures = Problems::new(trials.failures);
        output::print(&format!("mapping tests:\n{failures}"));
    }
    if let Some(looked) = &looked {
        live::print(looked);
    }
    Ok(code)
}
