//! A Salesforce org on one machine: OAuth, REST, SOQL and change data capture over one record store and one commit log.

mod bulk;
pub mod clock;
pub mod cometd;
pub mod commits;
mod control;
pub mod counters;
mod cursors;
mod data_control;
mod events;
pub mod faults;
#[cfg(fuzzing)]
pub mod fuzz;
mod ids;
pub mod journal;
mod load;
pub(crate) mod lock;
pub mod options;
pub mod org;
pub mod pubsub;
pub(crate) mod random;
mod related;
mod rest;
mod rules;
pub mod schema;
pub mod server;
pub mod sessions;
mod shape;
pub(crate) mod signin;
mod soql;
pub mod store;
pub mod transaction;
pub mod value;

pub use options::SimOptions;
pub use server::{Running, SimError, run, start};
