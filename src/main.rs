//! The `tributary` binary: parses arguments, runs, and sets the exit code.

/// Changes are made of many small texts that one thread makes and another drops.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    tributary::cli::run()
}
