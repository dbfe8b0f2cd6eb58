//! The `tributary` binary: parses arguments, runs, and sets the exit code.

fn main() -> std::process::ExitCode {
    tributary::cli::run()
}
