//! The whole road: a simulated org, the daemon as a process of its own, and a store that must equal the org.

mod asked;
mod authorised;
mod both;
mod budget;
mod bulk;
mod catching_up;
mod changes;
mod consented;
pub mod daemon;
mod data;
pub mod dataverse;
mod first_sync;
mod jobs;
mod killed;
mod limited;
mod metadata;
mod parents;
mod paused;
mod rematched;
mod replayed;
mod reviewed;
mod store;
mod store_away;
mod storm;
mod told;
mod two;
mod world;
