//! The image store's port: a cache of a prefix of the topics, which are the truth.
//!
//! Contract for every engine:
//! * [`ImageStore::put`] is one transaction: images, the offsets up to which they hold, and the newest event of
//!   the stream that they hold. After a crash all of it is there or none.
//! * [`ImageStore::children`] is asked by fields alone that [`ImageStore::refer`] named, and finds images that were
//!   stored before, too.
//! * What is lost can be rebuilt from the topic; nothing here is the only copy of anything.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::fault::Fault;
use crate::image::merge::Image;
use crate::model::name::{ConnectionId, FieldName, ObjectKey};
use crate::model::position::Position;
use crate::model::record_id::RecordId;

/// A store of images.
#[async_trait]
pub trait ImageStore: Send + Sync {
    /// The images of the given records that there are.
    async fn get(
        &self,
        object: &ObjectKey,
        records: Vec<RecordId>,
    ) -> Result<HashMap<RecordId, Image>, Fault>;

    /// Stores images with the offsets and the event up to which they hold, in one transaction.
    async fn put(&self, batch: ImageBatch) -> Result<(), Fault>;

    /// How far the images of an object hold.
    async fn held(&self, object: &ObjectKey) -> Result<Held, Fault>;

    /// The newest event of a connection's stream that its images hold.
    async fn mark(&self, connection: &ConnectionId) -> Result<Option<Mark>, Fault>;

    /// Forgets an object's images and offsets, for a rebuild on another generation of its topic.
    async fn clear(&self, object: &ObjectKey, generation: &str) -> Result<(), Fault>;

    /// Images in the order of their ids, after `after`.
    async fn scan(
        &self,
        object: &ObjectKey,
        after: Option<RecordId>,
        limit: usize,
    ) -> Result<Vec<(RecordId, Image)>, Fault>;

    /// The fields, and no others, by which an object's images are found as children from here on. Survives a restart.
    async fn refer(&self, object: &ObjectKey, references: &[FieldName]) -> Result<(), Fault>;

    /// Images, dead ones too, whose field `reference` is the id `parent`; in the order of their ids, after `after`.
    async fn children(
        &self,
        object: &ObjectKey,
        reference: &FieldName,
        parent: &RecordId,
        after: Option<RecordId>,
        limit: usize,
    ) -> Result<Vec<(RecordId, Image)>, Fault>;

    /// Finishes what was taken, and closes.
    async fn close(&self) -> Result<(), Fault>;
}

/// One transaction's worth.
#[derive(Debug, Clone, Default)]
pub struct ImageBatch {
    /// Images per object.
    pub images: Vec<(ObjectKey, Vec<(RecordId, Image)>)>,
    /// The next offset per object and partition.
    pub offsets: Vec<(ObjectKey, u32, u64)>,
    /// The newest event that they hold, of a connection's stream.
    pub mark: Option<(ConnectionId, Mark)>,
}

/// An event of a stream, by its place and its commit stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Where the stream stands after it.
    pub position: Position,
    /// Its commit stamp.
    pub committed_at: DateTime<Utc>,
}

/// How far an object's images hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// The topic's generation they were made from; `None` before the first [`ImageStore::clear`].
    pub generation: Option<String>,
    /// The next offset per partition.
    pub offsets: BTreeMap<u32, u64>,
}
