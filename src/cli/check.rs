//! `tributary check`: the config, offline; every mistake at once.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use crate::app;
use crate::config::Config;
use crate::fault::Fault;

use super::output;

pub(super) fn check(path: &Path, json: bool) -> Result<ExitCode, Fault> {
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
        output::json(&serde_json::json!({ "ok": true, "jobs": jobs, "notes": config.notes }));
        return Ok(ExitCode::SUCCESS);
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
    output::print(&format!(
        "the config is right: {} connections, {} jobs",
        config.connections.len(),
        mappings.len()
    ));
    Ok(ExitCode::SUCCESS)
}
