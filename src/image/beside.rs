//! What is read of images beside the daemon that writes them.

use std::collections::HashMap;

use async_trait::async_trait;

use super::merge::Image;
use crate::fault::Fault;
use crate::model::name::ObjectKey;
use crate::model::record_id::RecordId;

/// Images that are only read. Every call sees one state of them; two calls may see two.
#[async_trait]
pub trait ImagesBeside: Send + Sync {
    /// As [`super::port::ImageStore::get`].
    async fn images(
        &self,
        object: &ObjectKey,
        records: Vec<RecordId>,
    ) -> Result<HashMap<RecordId, Image>, Fault>;

    /// As [`super::port::ImageStore::scan`].
    async fn page(
        &self,
        object: &ObjectKey,
        after: Option<RecordId>,
        limit: usize,
    ) -> Result<Vec<(RecordId, Image)>, Fault>;
}
