//! The whole road: a simulated org, the daemon as a process of its own, and a store that must equal the org.

mod asked;
mod authorised;
mod bulk;
mod catching_up;
mod changes;
pub mod daemon;
mod data;
mod first_sync;
mod jobs;
mod killed;
mod paused;
mod rematched;
mod replayed;
mod reviewed;
mod store;
mod store_away;
mod told;
mod two;
mod world;
