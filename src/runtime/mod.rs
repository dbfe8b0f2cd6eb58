//! Shared plumbing of running code: the clock, backoff, owned tasks.

pub mod backoff;
pub mod clock;
pub mod tasks;
