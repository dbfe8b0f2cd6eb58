//! The change stream over CometD: a long-poll client of Salesforce's Streaming API.

mod body;
mod decode;
mod errors;
mod listener;
mod messages;
mod place;
mod reply;
mod stream;
mod wire;

pub use listener::{Desk, listen};
