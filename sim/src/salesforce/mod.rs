//! A Salesforce org on one machine: OAuth, REST, SOQL and change data capture over one record store and one commit log.

pub mod clock;
pub mod commits;
pub mod counters;
mod ids;
pub mod journal;
mod lock;
pub mod options;
pub mod org;
mod random;
pub mod server;
pub mod sessions;

pub use options::SimOptions;
pub use server::{Running, SimError, run, start};
