//! State: owners, positions, owed reads, holes, what is known of objects, their descriptions, orders to jobs, their
//! runs, what people are told of it; behind one port.

pub mod credentials;
pub mod descriptions;
pub mod memory;
pub mod notices;
pub mod orders;
pub mod port;
pub mod postgres;
pub mod runs;
pub mod seal;
pub mod sqlite;

#[cfg(test)]
mod suite;
