//! The Pub/Sub API on the wire, by a client generated from the same contract.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod credit;
mod errors;
mod events;
mod faults;
mod harness;
mod replay;
mod schemas;
mod twice;
