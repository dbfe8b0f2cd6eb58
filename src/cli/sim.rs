//! `tributary sim`: serves a simulated CRM until it is interrupted.

use std::process::ExitCode;

use crate::fault::{Fault, FaultKind};

use super::args::SimCommand;

pub(super) async fn sim(command: SimCommand) -> Result<ExitCode, Fault> {
    match command {
        SimCommand::Dynamics(options) => tributary_sim::dynamics::run(*options)
            .await
            .map_err(|error| failed("running the Dynamics 365 simulator").source(error)),
        SimCommand::Salesforce(options) => tributary_sim::salesforce::run(*options)
            .await
            .map_err(|error| failed("running the Salesforce simulator").source(error)),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn failed(doing: &'static str) -> Fault {
    Fault::new(FaultKind::Config, doing)
}
