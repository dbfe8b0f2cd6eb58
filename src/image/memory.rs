//! The memory engine of the image store.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::fault::Fault;
use crate::image::merge::Image;
use crate::image::port::{Held, ImageBatch, ImageStore, Mark};
use crate::model::name::{ConnectionId, FieldName, ObjectKey};
use crate::model::record_id::RecordId;
use crate::model::value::Value;

/// Images in memory.
#[derive(Debug, Default)]
pub struct MemoryImages(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    images: HashMap<ObjectKey, BTreeMap<RecordId, Image>>,
    held: HashMap<ObjectKey, Held>,
    marks: HashMap<ConnectionId, Mark>,
}

impl MemoryImages {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ImageStore for MemoryImages {
    async fn get(
        &self,
        object: &ObjectKey,
        records: Vec<RecordId>,
    ) -> Result<HashMap<RecordId, Image>, Fault> {
        let inner = self.lock();
        let Some(images) = inner.images.get(object) else {
            return Ok(HashMap::new());
        };
        Ok(records
            .into_iter()
            .filter_map(|record| images.get(&record).cloned().map(|image| (record, image)))
            .collect())
    }

    async fn put(&self, batch: ImageBatch) -> Result<(), Fault> {
        let mut inner = self.lock();
        for (object, images) in batch.images {
            inner.images.entry(object).or_default().extend(images);
        }
        for (object, partition, offset) in batch.offsets {
            inner
                .held
                .entry(object)
                .or_default()
                .offsets
                .insert(partition, offset);
        }
        if let Some((connection, mark)) = batch.mark {
            inner.marks.insert(connection, mark);
        }
        Ok(())
    }

    async fn held(&self, object: &ObjectKey) -> Result<Held, Fault> {
        Ok(self.lock().held.get(object).cloned().unwrap_or_default())
    }

    async fn mark(&self, connection: &ConnectionId) -> Result<Option<Mark>, Fault> {
        Ok(self.lock().marks.get(connection).cloned())
    }

    async fn clear(&self, object: &ObjectKey, generation: &str) -> Result<(), Fault> {
        let mut inner = self.lock();
        inner.images.remove(object);
        let held = Held {
            generation: Some(generation.to_owned()),
            offsets: BTreeMap::new(),
        };
        inner.held.insert(object.clone(), held);
        Ok(())
    }

    async fn scan(
        &self,
        object: &ObjectKey,
        after: Option<RecordId>,
        limit: usize,
    ) -> Result<Vec<(RecordId, Image)>, Fault> {
        let inner = self.lock();
        let Some(images) = inner.images.get(object) else {
            return Ok(Vec::new());
        };
        Ok(images
            .iter()
            .filter(|(record, _)| after.as_ref().is_none_or(|after| *record > after))
            .take(limit)
            .map(|(record, image)| (record.clone(), image.clone()))
            .collect())
    }

    async fn refer(&self, _: &ObjectKey, _: &[FieldName]) -> Result<(), Fault> {
        Ok(())
    }

    async fn children(
        &self,
        object: &ObjectKey,
        reference: &FieldName,
        parent: &RecordId,
        after: Option<RecordId>,
        limit: usize,
    ) -> Result<Vec<(RecordId, Image)>, Fault> {
        let inner = self.lock();
        let Some(images) = inner.images.get(object) else {
            return Ok(Vec::new());
        };
        let refers = |image: &Image| {
            let id = image.fields.get(reference).and_then(Value::as_text);
            id == Some(parent.as_str())
        };
        Ok(images
            .iter()
            .filter(|(record, image)| {
                after.as_ref().is_none_or(|after| *record > after) && refers(image)
            })
            .take(limit)
            .map(|(record, image)| (record.clone(), image.clone()))
            .collect())
    }

    async fn close(&self) -> Result<(), Fault> {
        Ok(())
    }
}
