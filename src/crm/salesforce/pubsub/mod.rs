//! The change stream over gRPC: a client of Salesforce's Pub/Sub API.

#[rustfmt::skip]
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction)]
mod eventbus;
#[cfg(test)]
mod generated;

use crate::crm::port::{Listener, Start};
use crate::fault::{Fault, FaultKind};
use crate::model::name::ObjectName;

use super::desk::Desk;

/// Pub/Sub of one connection.
#[derive(Default)]
pub struct PubSub {}

impl PubSub {
    /// Opens the stream of `objects`.
    pub async fn listen(
        &self,
        _desk: Desk<'_>,
        _objects: &[ObjectName],
        _from: Start,
    ) -> Result<Box<dyn Listener>, Fault> {
        Err(Fault::new(FaultKind::Config, "x"))
    }
}
