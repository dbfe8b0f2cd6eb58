//! Telemetry: the closed vocabulary of metrics, what Prometheus reads of it, and how logs are set up.

pub mod exposition;
pub mod logs;
pub mod metrics;
