//! The command line: arguments, output, exit codes.
//!
//! Exit codes: 0 done; 1 it failed; 2 the arguments or the config are wrong; 3 it ran and found problems.

mod args;
mod auth;
mod check;
mod daemon;
mod demo;
mod demo_org;
mod dynamics;
mod error_file;
mod errors;
mod init;
mod inspect;
mod job;
mod jobs;
mod live;
mod live_replay;
mod metadata;
mod notify;
mod oob;
mod output;
mod rematch;
mod review;
mod runs;
mod salesforce;
mod sim;
mod sync;
mod topics;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use crate::fault::{Fault, FaultKind};
use crate::telemetry::logs::{self, Format};

use args::{Arguments, Command};

/// Runs the command that the arguments name.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let format = if arguments.log_json {
        Format::Json
    } else {
        Format::Text
    };
    if let Err(error) = logs::install(&arguments.log, format) {
        output::complain(&error.to_string());
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(&format!("starting the runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let json = arguments.json;
    match runtime.block_on(dispatch(arguments)) {
        Ok(code) => code,
        Err(fault) => {
            output::fault(&fault, json);
            let wrong = matches!(fault.kind(), FaultKind::Config);
            ExitCode::from(if wrong { 2 } else { 1 })
        }
    }
}

async fn dispatch(arguments: Arguments) -> Result<ExitCode, Fault> {
    let (config, json) = (arguments.config, arguments.json);
    match arguments.command {
        Command::Serve => crate::app::serve(&config).await.map(|()| ExitCode::SUCCESS),
        Command::Init(options) => init::init(&config, options, json),
        Command::Auth(options) => auth::auth(&config, &options, json).await,
        Command::Check(options) => check::check(&config, &options, json).await,
        Command::Demo(options) => demo::demo(options).await,
        Command::Rows { object, limit } => inspect::rows(&config, &object, limit, json).await,
        Command::Holes { all } => inspect::holes(&config, all, json).await,
        Command::Errors(options) => errors::errors(&config, &options, json).await,
        Command::Review(command) => review::review(&config, command, json).await,
        Command::Runs { of, limit } => runs::runs(&config, of.as_deref(), limit, json).await,
        Command::Explain {
            connection,
            object,
            record,
        } => inspect::explain(&config, &connection, &object, &record, json).await,
        Command::Jobs { daemon } => jobs::jobs(&config, daemon.url.as_deref(), json).await,
        Command::Verify(options) => verify::verify(&config, &options, json).await,
        Command::Sync(options) => sync::sync(&config, &options, json).await,
        Command::Metadata(command) => metadata::metadata(&config, &command, json).await,
        Command::Job(command) => job::job(&config, command, json).await,
        Command::Notify(command) => notify::notify(&config, &command, json).await,
        Command::Oob { of, job } => oob::oob(&config, &of, job.as_deref(), json),
        Command::Dynamics(command) => dynamics::dynamics(&config, command, json).await,
        Command::Salesforce(command) => salesforce::salesforce(&config, command, json).await,
        Command::Topics(command) => topics::topics(&config, command, json).await,
        Command::Health { url } => inspect::health(&url).await,
        Command::Sim(command) => sim::sim(command).await,
    }
}
