//! The log: one topic per object, behind one port.

pub mod embedded;
pub mod group;
pub mod kafka;
pub mod memory;
pub mod polling;
pub mod port;
pub mod topic;
pub mod transfer;

#[cfg(test)]
mod suite;
