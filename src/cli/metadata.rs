//! `tributary metadata`: how old the descriptions of a connection's objects are, and having them read anew.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::fault::Fault;
use crate::http::encode::percent;
use crate::http::request::Method;

use super::args::MetadataCommand;
use super::daemon::Daemon;
use super::output;

/// How often the daemon is asked how far it is.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Deserialize, Serialize)]
struct Metadata {
    objects: Vec<Object>,
    asked_at: Option<DateTime<Utc>>,
}

#[derive(Deserialize, Serialize)]
struct Object {
    object: String,
    described_at: Option<DateTime<Utc>>,
    lost_fields: Vec<String>,
}

pub(super) async fn metadata(
    path: &Path,
    command: &MetadataCommand,
    as_json: bool,
) -> Result<ExitCode, Fault> {
    let (MetadataCommand::List { connection, daemon }
    | MetadataCommand::Refresh {
        connection, daemon, ..
    }) = command;
    let daemon = Daemon::at(path, daemon.url.as_deref())?;
    let at = format!("/api/v1/connections/{}/metadata", percent(connection));
    let told = match command {
        MetadataCommand::List { .. } => daemon.call(Method::Get, &at).await?,
        MetadataCommand::Refresh { no_wait, .. } => refresh(&daemon, &at, *no_wait).await?,
    };
    if as_json {
        output::json(&told);
    } else {
        told.objects.iter().for_each(show);
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks, and waits until every object was described since.
async fn refresh(daemon: &Daemon, at: &str, no_wait: bool) -> Result<Metadata, Fault> {
    let mut told: Metadata = daemon.post(&format!("{at}/refresh"), &json!({})).await?;
    let asked = told.asked_at;
    let waits = |told: &Metadata| {
        let mut objects = told.objects.iter();
        objects.any(|object| object.described_at <= asked)
    };
    while !no_wait && waits(&told) {
        tokio::time::sleep(LOOK).await;
        told = daemon.call(Method::Get, at).await?;
    }
    Ok(told)
}

fn show(object: &Object) {
    let described = object.described_at.map_or_else(
        || "not described yet".to_owned(),
        |at| format!("described at {}", at.to_rfc3339()),
    );
    let lost = if object.lost_fields.is_empty() {
        String::new()
    } else {
        format!(", lost: {}", object.lost_fields.join(", "))
    };
    output::print(&format!("{}: {described}{lost}", object.object));
}
