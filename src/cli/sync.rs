//! `tributary sync`: asks the connection's owner for full syncs, and shows how far they are.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::fault::Fault;
use crate::http::encode::percent;
use crate::http::request::Method;

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
    let at = format!("/api/v1/connections/{}/syncs", percent(&options.connection));
    let body = json!({ "object": options.object, "by": jobs::who() });
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
            Some(at) if !options.no_wait => format!("{}: synced at {at}", sync.object),
            _ => format!("{}: a full sync is asked for", sync.object),
        });
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
