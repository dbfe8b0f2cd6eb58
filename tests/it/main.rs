//! The integration tests: one binary, a module per subject.

mod log;
mod wire;
