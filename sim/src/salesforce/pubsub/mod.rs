//! The Pub/Sub API: the org's change events over gRPC, from the one commit log.
//!
//! Sources: Salesforce Developers, "Pub/Sub API" (RPC methods, flow control, error codes, event durability).
//!
//! - Every call carries `accesstoken`, `instanceurl` and `tenantid`; the token must live as long as its stream does.
//! - A subscription is a position and a credit: at most 100 events are outstanding. With credit and without events an
//!   empty answer comes within 270 s and carries a fresh position; without credit the stream ends after 60 s.
//! - An event is written by the schema its object had when it was committed, and names that schema.
//! - Publishing is refused: the only topics are those of change events. Managed subscriptions are not offered.

mod access;
mod bitmap;
mod bus;
mod payload;
mod position;
mod refusal;
mod registry;
mod schema;
mod serve;
mod service;
mod stream;
mod wire;

/// The messages and the service, generated from `proto/pubsub_api.proto`.
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::large_futures,
    missing_docs,
    reason = "generated"
)]
pub mod eventbus {
    include!("eventbus.v1.rs");
}

pub use bus::{Bus, StreamState};
pub(crate) use registry::Schemas;
pub(super) use serve::{Served, serve};
