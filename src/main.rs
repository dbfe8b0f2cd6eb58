//! The `tributary` binary: runs the command line and sets the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    tributary::cli::run()
}
