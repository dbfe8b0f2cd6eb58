//! The change stream over CometD: a long-poll client of Salesforce's Streaming API.

mod errors;
#[cfg(fuzzing)]
pub mod fuzz;
mod listener;
mod messages;
pub(super) mod payload;
mod reply;
mod stream;
mod wire;

pub use listener::listen;
