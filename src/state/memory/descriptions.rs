//! Descriptions, in memory.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::MemoryState;
use crate::fault::Fault;
use crate::model::name::{ConnectionId, ObjectName};
use crate::state::descriptions::{Described, Descriptions};

#[async_trait]
impl Descriptions for MemoryState {
    async fn description(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
    ) -> Result<Option<Described>, Fault> {
        let key = (connection.clone(), object.clone());
        Ok(self.lock().descriptions.get(&key).cloned())
    }

    async fn described(
        &self,
        connection: &ConnectionId,
    ) -> Result<Vec<(ObjectName, DateTime<Utc>)>, Fault> {
        let inner = self.lock();
        let mine = inner.descriptions.iter();
        let mine = mine.filter(|((of, _), _)| of == connection);
        Ok(mine
            .map(|((_, object), described)| (object.clone(), described.read_at))
            .collect())
    }

    async fn put_description(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        described: Described,
    ) -> Result<(), Fault> {
        let key = (connection.clone(), object.clone());
        self.lock().descriptions.insert(key, described);
        Ok(())
    }

    async fn ask_refresh(&self, connection: &ConnectionId, at: DateTime<Utc>) -> Result<(), Fault> {
        self.lock().refreshes.insert(connection.clone(), at);
        Ok(())
    }

    async fn refresh_asked(
        &self,
        connection: &ConnectionId,
    ) -> Result<Option<DateTime<Utc>>, Fault> {
        Ok(self.lock().refreshes.get(connection).copied())
    }
}
