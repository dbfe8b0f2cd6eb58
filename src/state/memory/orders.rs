//! Orders to jobs, in memory.

use async_trait::async_trait;

use super::MemoryState;
use crate::fault::Fault;
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::state::orders::{Asked, Order, Orders, Standing, Wish};

#[async_trait]
impl Orders for MemoryState {
    async fn standing(&self, connection: &ConnectionId, job: &JobId) -> Result<Standing, Fault> {
        let key = (connection.clone(), job.clone());
        Ok(self.lock().orders.get(&key).cloned().unwrap_or_default())
    }

    async fn all_standing(&self) -> Result<Vec<(ConnectionId, JobId, Standing)>, Fault> {
        let inner = self.lock();
        let all = inner.orders.iter();
        Ok(all
            .map(|((connection, job), standing)| {
                (connection.clone(), job.clone(), standing.clone())
            })
            .collect())
    }

    async fn give(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        after: u64,
        order: Order,
    ) -> Result<bool, Fault> {
        let key = (connection.clone(), job.clone());
        let mut inner = self.lock();
        let standing = inner.orders.get(&key).cloned().unwrap_or_default();
        if standing.revision != after {
            return Ok(standing.is_left_by(after, &order));
        }
        let revision = after + 1;
        inner.orders.insert(key, Standing { revision, order });
        Ok(true)
    }

    async fn ask_sync(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        wish: Wish,
    ) -> Result<(), Fault> {
        let key = (connection.clone(), object.clone());
        let mut inner = self.lock();
        let sync = inner.syncs.entry(key).or_default();
        sync.0 += 1;
        sync.2 = wish;
        Ok(())
    }

    async fn asked_syncs(
        &self,
        connection: &ConnectionId,
    ) -> Result<Vec<(ObjectName, Asked)>, Fault> {
        let inner = self.lock();
        let asked = inner.syncs.iter();
        let asked = asked.filter(|((of, _), (asked, done, _))| of == connection && asked > done);
        Ok(asked
            .map(|((_, object), (number, _, wish))| {
                let (number, wish) = (*number, wish.clone());
                (object.clone(), Asked { number, wish })
            })
            .collect())
    }

    async fn sync_done(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        number: u64,
    ) -> Result<(), Fault> {
        let key = (connection.clone(), object.clone());
        if let Some(sync) = self.lock().syncs.get_mut(&key) {
            sync.1 = sync.1.max(number);
        }
        Ok(())
    }
}
