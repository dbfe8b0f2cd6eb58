//! State: owners, positions, owed reads, holes, what is known of objects, their descriptions, orders to jobs; behind
//! one port.

pub mod credentials;
pub mod descriptions;
pub mod memory;
pub mod orders;
pub mod port;
pub mod postgres;
pub mod seal;
pub mod sqlite;

#[cfg(test)]
mod suite;
