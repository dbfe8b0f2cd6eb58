//! The rules that turn an image into rows: pure, no clock, no I/O, no async.

pub mod plan;
