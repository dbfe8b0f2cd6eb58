//! What the benches share: a server of their own, a load, the daemon's road from topic to store, and its opponents.
//!
//! Figures are ratios of arms that run in turn, pair by pair, in one process; their median counts. What other
//! processes used of the machine meanwhile is told with every figure: past a tenth it is worth little.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

/// The daemon's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod broker;
pub mod capped;
pub mod first_sync;
pub mod load;
pub mod machine;
pub mod opponent;
pub mod org;
pub mod records;
pub mod report;
pub mod road;
pub mod server;
pub mod sink;
pub mod sqlite;
