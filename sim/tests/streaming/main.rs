//! The streaming surface, its faults and the control API on the wire.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod control;
mod errors;
mod events;
mod faults;
mod harness;
mod requests;
mod sessions;
