//! Where rows go: the port that every target fills, and a folder per target.

pub mod memory;
pub mod port;
pub mod postgres;
pub mod sqlite;
#[cfg(test)]
pub mod suite;
pub mod watched;
