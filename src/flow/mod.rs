//! The engines of the road: listen, merge, publish, read, repair, apply.

pub mod board;
pub mod catch_up;
pub mod connection;
pub mod difference;
pub mod full_sync;
pub mod gate;
pub mod ingest;
pub mod job;
pub mod joins;
pub mod listen;
pub mod notices;
pub mod repair;
pub mod road;
#[cfg(test)]
mod simulation;
pub mod trial;
pub mod verify;
