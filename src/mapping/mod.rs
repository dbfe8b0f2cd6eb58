//! The rules that turn an image into rows: pure, no clock, no I/O, no async.

pub mod cast;
pub mod compile;
pub mod decimal;
pub mod filter;
pub mod instant;
pub mod path;
pub mod plan;
