//! `tributary salesforce capture`: which objects an org tells changes of, and which it should.

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use crate::app;
use crate::app::capture::OfConnection;
use crate::fault::Fault;
use crate::model::name::ObjectName;

use super::args::SalesforceCommand;
use super::output;

pub(super) async fn salesforce(
    path: &Path,
    command: SalesforceCommand,
    json: bool,
) -> Result<ExitCode, Fault> {
    let SalesforceCommand::Capture {
        connection,
        add,
        remove,
    } = command;
    let of = app::capture::open(&app::load(path)?, &connection)?;
    let mut changed = Vec::new();
    for object in add.iter().map(ObjectName::new) {
        let was_new = of.capture.add(&object).await?;
        changed.push(done(
            &object,
            was_new,
            "selected",
            "is selected already",
            json,
        ));
    }
    for object in remove.iter().map(ObjectName::new) {
        let was_there = of.capture.remove(&object).await?;
        changed.push(done(
            &object,
            was_there,
            "released",
            "is not selected",
            json,
        ));
    }
    let rows = listed(&of).await?;
    if json {
        output::json(&serde_json::json!({ "changed": changed, "objects": rows }));
        return Ok(ExitCode::SUCCESS);
    }
    let cells: Vec<Vec<String>> = rows.iter().map(Row::cells).collect();
    output::table(&["OBJECT", "CHANGES", "CHANNELS", "JOBS"], &cells);
    if rows.iter().any(|row| row.wanted && !row.told) {
        output::print(&format!(
            "what jobs select and no event tells is polled: tributary salesforce capture {connection} --add OBJECT"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// An object that is captured, or that jobs select.
#[derive(Serialize)]
struct Row {
    object: String,
    told: bool,
    channels: Vec<String>,
    wanted: bool,
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let told = if self.told { "told" } else { "not selected" };
        let wanted = if self.wanted { "yes" } else { "none" };
        vec![
            self.object.clone(),
            told.to_owned(),
            self.channels.join(", "),
            wanted.to_owned(),
        ]
    }
}

async fn listed(of: &OfConnection) -> Result<Vec<Row>, Fault> {
    let is_wanted = |object: &str| of.wanted.iter().any(|wanted| wanted.as_str() == object);
    let captured = of.capture.list().await?;
    let mut rows: Vec<Row> = captured
        .into_iter()
        .map(|captured| Row {
            wanted: is_wanted(&captured.object),
            object: captured.object,
            told: captured.told,
            channels: captured.channels,
        })
        .collect();
    for object in &of.wanted {
        if !rows.iter().any(|row| row.object == object.as_str()) {
            rows.push(Row {
                object: object.to_string(),
                told: false,
                channels: Vec::new(),
                wanted: true,
            });
        }
    }
    rows.sort_by(|one, other| one.object.cmp(&other.object));
    Ok(rows)
}

#[derive(Serialize)]
struct Change {
    object: String,
    changed: bool,
}

fn done(object: &ObjectName, changed: bool, yes: &str, no: &str, json: bool) -> Change {
    if !json {
        output::print(&format!("{object} {}", if changed { yes } else { no }));
    }
    Change {
        object: object.to_string(),
        changed,
    }
}
