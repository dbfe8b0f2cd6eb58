//! Telemetry: the closed vocabulary of metrics, and how logs are set up.

pub mod logs;
pub mod metrics;
