//! The links of a connection's tables, shared by the reads that begin them and the listener that follows them.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use tokio::sync::Notify;

use crate::model::name::ObjectName;
use crate::model::position::Position;
use crate::model::record_id::RecordId;

use super::place::{Link, Place};

/// Where the connection stands in this life.
#[derive(Default)]
pub struct Links {
    place: Mutex<Place>,
    moved: Notify,
    /// Tables of which something is said to have happened.
    hastened: Mutex<BTreeSet<ObjectName>>,
    haste: Notify,
}

impl Links {
    /// Begins anew from a stored place.
    pub fn reset(&self, place: Place) {
        *self.lock() = place;
        self.moved.notify_one();
    }

    /// How often the org was found restored.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.lock().incarnation
    }

    /// A table's link.
    #[must_use]
    pub fn get(&self, table: &ObjectName) -> Option<Link> {
        self.lock().tables.get(table).cloned()
    }

    /// Whether a table's changes are followed with this selection.
    #[must_use]
    pub fn follows(&self, table: &ObjectName, fields: &str) -> bool {
        self.lock()
            .tables
            .get(table)
            .is_some_and(|link| link.fields == fields)
    }

    /// A full read, all of whose pages are durable, began a table's changes. A table that is followed keeps its link,
    /// which tells more.
    pub fn begin(&self, table: ObjectName, link: Link) {
        self.lock().tables.entry(table).or_insert(link);
        self.moved.notify_one();
    }

    /// A table's next link.
    pub fn advance(&self, table: &ObjectName, link: Link) {
        self.lock().tables.insert(table.clone(), link);
    }

    /// A table's link is no longer taken.
    pub fn lose(&self, table: &ObjectName) {
        self.lock().tables.remove(table);
    }

    /// Records that are no canaries of a table any more.
    pub fn forget(&self, table: &ObjectName, records: &[RecordId]) {
        if let Some(link) = self.lock().tables.get_mut(table) {
            for record in records {
                link.canaries.forget(record);
            }
        }
    }

    /// The position to store.
    #[must_use]
    pub fn position(&self) -> Position {
        self.lock().position()
    }

    /// CRM time before which every followed table was asked; `None` if none is followed.
    #[must_use]
    pub fn asked_since(&self) -> Option<DateTime<Utc>> {
        self.lock().tables.values().map(|link| link.sent).min()
    }

    /// Waits until a table is begun. Cancel-safe.
    pub async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Something is said to have happened in a table: it is to be asked as soon as it may.
    pub fn hasten(&self, table: &ObjectName) {
        let mut hastened = self.hastened.lock().unwrap_or_else(PoisonError::into_inner);
        hastened.insert(table.clone());
        self.haste.notify_one();
    }

    /// Waits until tables are hastened. Cancel-safe.
    pub async fn hastened(&self) {
        self.haste.notified().await;
    }

    /// The tables that were hastened since the last call.
    #[must_use]
    pub fn take_hastened(&self) -> BTreeSet<ObjectName> {
        std::mem::take(&mut *self.hastened.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
