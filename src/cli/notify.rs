//! `tributary notify`: whether those whom `[notify]` names are reached.

use std::path::Path;
use std::process::ExitCode;

use crate::app;
use crate::fault::Fault;

use super::args::NotifyCommand;
use super::output;

/// Sends a message to each address of a name, and prints what was answered.
pub(super) async fn notify(
    path: &Path,
    command: &NotifyCommand,
    json: bool,
) -> Result<ExitCode, Fault> {
    let NotifyCommand::Test { name } = command;
    let config = app::load(path)?;
    let tried = app::notices::test(&config, name).await?;
    if json {
        output::json(&tried);
    } else {
        for tried in &tried {
            let how = if tried.delivered {
                "taken"
            } else {
                "not delivered"
            };
            output::print(&format!("{}: {how}: {}", tried.to, tried.answer));
        }
    }
    let all = tried.iter().all(|tried| tried.delivered);
    Ok(if all {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(3)
    })
}
