//! Orders through the seam.

use async_trait::async_trait;

use super::{DISK, Guarded};
use crate::fault::Fault;
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::state::orders::{Asked, Order, Orders, Standing, Wish};
use crate::state::port::State;

#[async_trait]
impl Orders for Guarded<dyn State> {
    async fn standing(&self, connection: &ConnectionId, job: &JobId) -> Result<Standing, Fault> {
        let work = self.inner.standing(connection, job);
        self.process.pass("state.standing", DISK, work).await
    }

    async fn all_standing(&self) -> Result<Vec<(ConnectionId, JobId, Standing)>, Fault> {
        self.inner.all_standing().await
    }

    async fn give(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        after: u64,
        order: Order,
    ) -> Result<bool, Fault> {
        let work = self.inner.give(connection, job, after, order);
        self.process.pass("state.give", DISK, work).await
    }

    async fn ask_sync(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        wish: Wish,
    ) -> Result<(), Fault> {
        self.inner.ask_sync(connection, object, wish).await
    }

    async fn asked_syncs(
        &self,
        connection: &ConnectionId,
    ) -> Result<Vec<(ObjectName, Asked)>, Fault> {
        let work = self.inner.asked_syncs(connection);
        self.process.pass("state.asked_syncs", DISK, work).await
    }

    async fn sync_done(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        number: u64,
    ) -> Result<(), Fault> {
        let work = self.inner.sync_done(connection, object, number);
        self.process.pass("state.sync_done", DISK, work).await
    }
}
