//! What is read of a store beside the daemon that writes it: rows, and who holds them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use uuid::Uuid;

use crate::fault::Fault;
use crate::model::name::{ConnectionId, ObjectKey, ObjectName};
use crate::model::record_id::RecordId;
use crate::model::version::Version;
use crate::target::port::review::{Binding, Review, Which};
use crate::target::port::{RowsPage, StoredRow, Traced};

/// A store that is only read. Every call sees one state of it; two calls may see two.
#[async_trait]
pub trait StoreBeside: Send + Sync {
    /// Whether the target was made, so that there are rows and a ledger to read. `Permission` if it was not and may not
    /// be by this user.
    async fn is_made(&self) -> Result<bool, Fault>;

    /// As [`crate::target::port::Target::rows`].
    async fn rows(&self, table: &str, page: RowsPage) -> Result<Vec<StoredRow>, Fault>;

    /// As [`crate::target::port::Target::trace`].
    async fn trace(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        record: &RecordId,
    ) -> Result<Vec<Traced>, Fault>;

    /// As [`crate::target::port::review::Reviews::reviews`].
    async fn reviews(&self, which: &Which) -> Result<Vec<Review>, Fault>;

    /// As [`crate::target::port::review::Reviews::bindings`].
    async fn bindings(&self) -> Result<Vec<Binding>, Fault>;

    /// What the records of an object are to a table, by record id byte for byte, from behind `after`; at most
    /// `limit`.
    async fn held(
        &self,
        key: &ObjectKey,
        table: &str,
        after: Option<&RecordId>,
        limit: usize,
    ) -> Result<Vec<HeldRow>, Fault>;

    /// The newest version that any record of an object has, in any table.
    async fn newest(&self, key: &ObjectKey) -> Result<Option<Version>, Fault>;

    /// The records that hold rows of a table, per GSID, in order. A row that nobody holds is absent.
    async fn holders(
        &self,
        table: &str,
        gsids: &[Uuid],
    ) -> Result<BTreeMap<Uuid, Vec<Holder>>, Fault>;
}

/// A record's entry in the crosswalk, with its row.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldRow {
    /// The record.
    pub record: RecordId,
    /// The version applied last.
    pub version: Version,
    /// The row; `None` once it is deleted, and if it was never stored.
    pub row: Option<StoredRow>,
}

/// Who holds a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The connection.
    pub connection: ConnectionId,
    /// The source object.
    pub object: ObjectName,
    /// The record.
    pub record: RecordId,
}
