//! A Dynamics 365 organization on one machine: sign-in, Web API, change tracking, webhooks and a service bus over one row store.

mod bus;
pub mod cell;
mod control;
pub mod counters;
pub mod decimal;
mod entra;
pub mod error;
mod faults;
pub mod guid;
pub mod journal;
mod load;
pub mod node;
mod odata;
pub mod options;
pub mod org;
pub mod outbox;
pub mod schema;
mod seed;
pub mod server;
pub mod store;
pub mod throttle;
pub mod transaction;
mod web;
mod webhooks;

pub use options::SimOptions;
pub use server::{Running, SimError, run, start};
