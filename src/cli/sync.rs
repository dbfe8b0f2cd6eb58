//! `tributary sync`: asks the connection's owner for full syncs, and shows how far they are.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::app;
use crate::fault::Fault;
use crate::http::encode::percent;
use crate::http::request::Method;
use crate::model::name::{ConnectionId, ObjectName};

use super::args::SyncOptions;
use super::daemon::Daemon;
use super::{jobs, output};

/// How often the daemon is asked how far it is.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Deserialize, Serialize)]
struct Syncs {
    objects: Vec<Sync>,
    fault: Option<Json>,
}

#[derive(Deserialize, Serialize)]
struct Sync {
    object: String,
    asked: Option<u64>,
    limit: Option<u64>,
    sampled: bool,
    rows: Option<u64>,
    rows_total: Option<u64>,
    synced_at: Option<String>,
}

pub(super) async fn sync(
    path: &Path,
    options: &SyncOptions,
    as_json: bool,
) -> Result<ExitCode, Fault> {
    let daemon = Daemon::at(path, options.daemon.url.as_deref())?;
    if options.limit.is_some() && options.daemon.url.is_none() && !daemon.is_alive().await {
        return ask_alone(path, options, as_json).await;
    }
    let at = format!("/api/v1/connections/{}/syncs", percent(&options.connection));
    let body = json!({ "object": options.object, "by": jobs::who(), "limit": options.limit });
    let mut syncs: Syncs = daemon.post(&at, &body).await?;
    let ours: BTreeMap<String, u64> = syncs
        .objects
        .iter()
        .map(|sync| (sync.object.clone(), sync.asked.unwrap_or_default()))
        .collect();
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    loop {
        syncs.objects.retain(|sync| ours.contains_key(&sync.object));
        let left: Vec<&Sync> = syncs
            .objects
            .iter()
            .filter(|sync| sync.asked.is_some_and(|asked| asked <= ours[&sync.object]))
            .filter(|sync| !sync.sampled)
            .collect();
        if options.no_wait || left.is_empty() {
            break;
        }
        bar.set_message(told(&left, syncs.fault.as_ref()));
        bar.tick();
        tokio::time::sleep(LOOK).await;
        syncs = daemon.call(Method::Get, &at).await?;
    }
    bar.finish_and_clear();
    if as_json {
        output::json(&syncs);
        return Ok(ExitCode::SUCCESS);
    }
    for sync in &syncs.objects {
        output::print(&match &sync.synced_at {
            _ if sync.sampled => format!(
                "{}: up to {} records are read; `tributary sync {} {}` reads all",
                sync.object,
                sync.limit.unwrap_or_default(),
                options.connection,
                sync.object
            ),
            Some(at) if !options.no_wait => format!("{}: synced at {at}", sync.object),
            _ => format!("{}: a full sync is asked for", sync.object),
        });
    }
    Ok(ExitCode::SUCCESS)
}

/// Leaves the wish in the state for the daemon that starts next.
async fn ask_alone(path: &Path, options: &SyncOptions, as_json: bool) -> Result<ExitCode, Fault> {
    let config = app::load(path)?;
    let (control, state) = app::state::control_alone(&config).await?;
    let object = options.object.as_ref().map(ObjectName::new);
    let connection = ConnectionId::new(&options.connection);
    let asked = control
        .sync(&connection, object.as_ref(), jobs::who(), options.limit)
        .await;
    state.close().await?;
    let objects: Vec<String> = asked?.into_iter().map(|of| of.object.to_string()).collect();
    if as_json {
        output::json(&json!({ "objects": objects, "limit": options.limit, "kept": true }));
    } else {
        output::print(&format!(
            "{}: kept for the daemon's start: up to {} records of each",
            objects.join(", "),
            options.limit.unwrap_or_default()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// What is waited for, on one line.
fn told(left: &[&Sync], fault: Option<&Json>) -> String {
    let parts: Vec<String> = left
        .iter()
        .map(|sync| match (sync.rows, sync.rows_total) {
            (Some(rows), Some(total)) => format!("{}: {rows} of {total} rows", sync.object),
            (Some(rows), None) => format!("{}: {rows} rows", sync.object),
            (None, _) => format!("{}: waiting", sync.object),
        })
        .collect();
    let text = fault.and_then(|fault| fault["text"].as_str());
    let trouble = text.map(|text| format!(" – {text}")).unwrap_or_default();
    format!("{}{trouble}", parts.join(", "))
}
