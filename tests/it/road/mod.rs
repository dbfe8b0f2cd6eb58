//! The whole road: a simulated org, the daemon as a process of its own, and a store that must equal the org.

mod catching_up;
mod changes;
mod data;
mod first_sync;
mod killed;
mod told;
mod world;
