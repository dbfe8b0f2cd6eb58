//! The port of descriptions: what a CRM said of its objects, kept so that a restart need not ask.
//!
//! Contract for every engine:
//! * What a call stored is durable when it returns, and every daemon on the state reads it from then on.
//! * A description replaces the one before. No term is compared: it is what the CRM said, whoever asked.
//! * A refresh that is asked for is met by descriptions that were read later; nobody takes it back.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::fault::Fault;
use crate::model::name::{ConnectionId, ObjectName};

/// A store of descriptions.
#[async_trait]
pub trait Descriptions: Send + Sync {
    /// What the CRM said of an object.
    async fn description(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
    ) -> Result<Option<Described>, Fault>;

    /// Which objects were described, and when, by name.
    async fn described(
        &self,
        connection: &ConnectionId,
    ) -> Result<Vec<(ObjectName, DateTime<Utc>)>, Fault>;

    /// Stores what the CRM said.
    async fn put_description(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        described: Described,
    ) -> Result<(), Fault>;

    /// Asks the connection's owner to have everything described anew.
    async fn ask_refresh(&self, connection: &ConnectionId, at: DateTime<Utc>) -> Result<(), Fault>;

    /// When that was asked for last.
    async fn refresh_asked(
        &self,
        connection: &ConnectionId,
    ) -> Result<Option<DateTime<Utc>>, Fault>;
}

/// A description; only its connector reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// What was said.
    pub body: String,
    /// When it was read, by our own clock.
    pub read_at: DateTime<Utc>,
}
