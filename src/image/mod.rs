//! Images: every record's selected fields, whole, with what a merge must know of them.

pub mod beside;
pub mod memory;
pub mod merge;
pub mod port;
pub mod sqlite;

#[cfg(test)]
mod suite;
