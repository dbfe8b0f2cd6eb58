//! What signing in keeps, in memory.

use async_trait::async_trait;

use super::MemoryState;
use crate::fault::Fault;
use crate::model::name::ConnectionId;
use crate::state::credentials::{Credential, Credentials, PinnedOrg};
use crate::state::seal::Sealed;

#[async_trait]
impl Credentials for MemoryState {
    async fn org(&self, connection: &ConnectionId) -> Result<Option<PinnedOrg>, Fault> {
        Ok(self.lock().orgs.get(connection).cloned())
    }

    async fn pin_org(
        &self,
        connection: &ConnectionId,
        org: &PinnedOrg,
    ) -> Result<PinnedOrg, Fault> {
        let mut inner = self.lock();
        let stored = inner.orgs.entry(connection.clone());
        Ok(stored.or_insert_with(|| org.clone()).clone())
    }

    async fn credential(&self, connection: &ConnectionId) -> Result<Credential, Fault> {
        Ok(self
            .lock()
            .credentials
            .get(connection)
            .cloned()
            .unwrap_or_default())
    }

    async fn replace(
        &self,
        connection: &ConnectionId,
        after: u64,
        sealed: Option<Sealed>,
    ) -> Result<bool, Fault> {
        let mut inner = self.lock();
        let stored = inner.credentials.entry(connection.clone()).or_default();
        if stored.revision != after {
            return Ok(stored.is_left_by(after, sealed.as_ref()));
        }
        *stored = Credential {
            revision: after + 1,
            sealed,
        };
        Ok(true)
    }
}
