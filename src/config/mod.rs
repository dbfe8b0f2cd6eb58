//! The config: typed sections, read from files that are the truth.

pub mod job;
pub mod problem;
