//! `tributary dynamics webhook`: has an environment push its changes, or no longer.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use crate::app;
use crate::app::webhook::{Webhook, open};
use crate::fault::Fault;

use super::args::{DynamicsCommand, WebhookCommand};
use super::output;

pub(super) async fn dynamics(
    path: &Path,
    command: DynamicsCommand,
    as_json: bool,
) -> Result<ExitCode, Fault> {
    let DynamicsCommand::Webhook(command) = command;
    let config = app::load(path)?;
    let of = match &command {
        WebhookCommand::Add { connection, .. }
        | WebhookCommand::Remove { connection }
        | WebhookCommand::List { connection } => connection.as_str(),
    };
    let webhook = open(&config, of)?;
    match &command {
        WebhookCommand::Add { url, .. } => add(&webhook, url.as_deref(), as_json).await,
        WebhookCommand::Remove { .. } => remove(&webhook, as_json).await,
        WebhookCommand::List { .. } => list(&webhook, as_json).await,
    }
}

async fn add(webhook: &Webhook, url: Option<&str>, as_json: bool) -> Result<ExitCode, Fault> {
    let (url, done) = webhook.add(url).await?;
    if as_json {
        output::json(&json!({ "url": url, "done": done }));
    } else {
        output::print(&format!(
            "{url} is called for the changes of {}",
            webhook.tables().join(", ")
        ));
        output::print(&format!(
            "{} rows created, {} updated, {} deleted; the secret is set",
            done.created, done.updated, done.deleted
        ));
    }
    Ok(ExitCode::SUCCESS)
}

async fn remove(webhook: &Webhook, as_json: bool) -> Result<ExitCode, Fault> {
    let done = webhook.registrar().remove().await?;
    if as_json {
        output::json(&json!({ "done": done }));
    } else if done.deleted == 0 {
        output::print("there was no webhook");
    } else {
        output::print(&format!(
            "{} rows deleted; changes are found by asking from now on",
            done.deleted
        ));
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(webhook: &Webhook, as_json: bool) -> Result<ExitCode, Fault> {
    let registered = webhook.registrar().list().await?;
    if as_json {
        output::json(&json!({ "webhook": registered }));
        return Ok(ExitCode::SUCCESS);
    }
    let Some(registered) = registered else {
        output::print("no webhook is registered; `tributary dynamics webhook add` does it");
        return Ok(ExitCode::SUCCESS);
    };
    output::print(&format!(
        "{}: {} (auth {})",
        registered.name, registered.url, registered.auth
    ));
    let rows: Vec<Vec<String>> = registered
        .steps
        .iter()
        .map(|step| {
            let state = if step.enabled { "enabled" } else { "disabled" };
            vec![
                step.table.clone(),
                step.message.clone(),
                state.to_owned(),
                step.columns.join(", "),
            ]
        })
        .collect();
    output::table(&["TABLE", "MESSAGE", "STATE", "COLUMNS"], &rows);
    Ok(ExitCode::SUCCESS)
}
