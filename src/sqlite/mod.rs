//! SQLite as everybody here uses it: durable settings, one writer thread with group commit, read-only readers.

pub mod database;
pub mod error;
pub mod lock;
pub mod readers;
pub mod writer;

#[cfg(test)]
mod tests;
