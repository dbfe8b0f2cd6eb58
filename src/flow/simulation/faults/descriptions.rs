//! Descriptions through the seam.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{DISK, Guarded};
use crate::fault::Fault;
use crate::model::name::{ConnectionId, ObjectName};
use crate::state::descriptions::{Described, Descriptions};
use crate::state::port::State;

#[async_trait]
impl Descriptions for Guarded<dyn State> {
    async fn description(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
    ) -> Result<Option<Described>, Fault> {
        let work = self.inner.description(connection, object);
        self.process.pass("state.description", DISK, work).await
    }

    async fn described(
        &self,
        connection: &ConnectionId,
    ) -> Result<Vec<(ObjectName, DateTime<Utc>)>, Fault> {
        self.inner.described(connection).await
    }

    async fn put_description(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        described: Described,
    ) -> Result<(), Fault> {
        let work = self.inner.put_description(connection, object, described);
        self.process.pass("state.put_description", DISK, work).await
    }

    async fn ask_refresh(&self, connection: &ConnectionId, at: DateTime<Utc>) -> Result<(), Fault> {
        self.inner.ask_refresh(connection, at).await
    }

    async fn refresh_asked(
        &self,
        connection: &ConnectionId,
    ) -> Result<Option<DateTime<Utc>>, Fault> {
        self.inner.refresh_asked(connection).await
    }
}
