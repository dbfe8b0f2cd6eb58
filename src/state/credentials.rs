//! The port of what signing in keeps: which org a connection belongs to, and a credential, sealed.
//!
//! Contract for every engine:
//! * What a call stored is durable when it returns: a refresh token is kept before it is used for the first time.
//! * The org of a connection is written once. Who comes later is told the stored one.
//! * A credential is replaced by who saw the newest one only: each write names the revision that it replaces. No term is
//!   compared, as a person may authorise a connection at any of several daemons.
//! * A write whose reply is lost may be made again and changes nothing then.

use async_trait::async_trait;

use crate::fault::Fault;
use crate::model::name::ConnectionId;

use super::seal::Sealed;

/// A store of what signing in keeps.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// The org that a connection belongs to.
    async fn org(&self, connection: &ConnectionId) -> Result<Option<PinnedOrg>, Fault>;

    /// Stores the connection's org unless one is stored; the stored one.
    async fn pin_org(&self, connection: &ConnectionId, org: &PinnedOrg)
    -> Result<PinnedOrg, Fault>;

    /// The connection's credential.
    async fn credential(&self, connection: &ConnectionId) -> Result<Credential, Fault>;

    /// Replaces the credential of revision `after`, or removes it; whether it was still the newest one.
    async fn replace(
        &self,
        connection: &ConnectionId,
        after: u64,
        sealed: Option<Sealed>,
    ) -> Result<bool, Fault>;
}

/// The org that a connection belongs to since its first sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedOrg {
    /// The CRM's own id of it.
    pub id: String,
    /// Its address then.
    pub url: String,
}

/// A connection's credential.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credential {
    /// Goes up with each write; 0 before the first.
    pub revision: u64,
    /// The credential, if there is one.
    pub sealed: Option<Sealed>,
}

impl Credential {
    /// Whether this is what a write of `sealed` over revision `after` left.
    pub(super) fn is_left_by(&self, after: u64, sealed: Option<&Sealed>) -> bool {
        self.revision == after + 1 && self.sealed.as_ref() == sealed
    }
}
