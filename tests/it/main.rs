//! The integration tests: one binary, a module per subject.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, also in its helpers"
)]

mod config;
mod dashboards;
mod dice;
mod dynamics;
mod filters;
mod hooks;
mod init;
mod live;
mod log;
mod oob;
mod postgres;
mod road;
mod salesforce;
mod sign_in;
mod sim;
mod smtp;
mod wire;
