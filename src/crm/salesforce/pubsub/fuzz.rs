//! Ways in for the fuzz targets: schemas and bitmaps.

use std::borrow::Cow;

use super::super::decode::Objects;
use super::bitmap;
use super::decoder::Decoder;
use super::schema::EventSchema;

/// The fields of bitmaps under a schema.
pub fn expand(schema: &str, bitmaps: &[Cow<'_, str>]) -> Option<Vec<(usize, Option<usize>)>> {
    let schema = EventSchema::parse(schema).ok()?;
    bitmap::expand(&schema, bitmaps).ok()
}

/// The objects of describes.
pub fn objects(describes: &[&[u8]]) -> Option<Objects> {
    Some(Decoder::of(describes, &[]).ok()?.objects)
}
