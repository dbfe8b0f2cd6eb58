//! Ways in for the fuzz targets under `fuzz/`: each takes bytes as they may come off the wire.

use std::borrow::Cow;

use chrono::{DateTime, Utc};

use super::bulk::csv::CsvPage;
use super::cometd::fuzz as bayeux;
use super::decode::Objects;
use super::pubsub::fuzz as pubsub;
use super::row::Columns;
use super::text_diff::TextDiff;
use crate::fault::Fault;
use crate::model::event::Row;
use crate::model::name::FieldName;
use crate::model::schema::FieldKind;

/// The fields of bitmaps under a schema, if they fit it.
#[must_use]
pub fn bitmaps(schema: &str, bitmaps: &[&str]) -> Option<Vec<(usize, Option<usize>)>> {
    let bitmaps: Vec<Cow<'_, str>> = bitmaps.iter().map(|text| Cow::Borrowed(*text)).collect();
    pubsub::expand(schema, &bitmaps)
}

/// How many events an answer of a CometD server comes to, given the describes of objects.
#[must_use]
pub fn cometd(describes: &[&[u8]], body: &[u8], arrived: DateTime<Utc>) -> Option<usize> {
    let objects: Objects = pubsub::objects(describes)?;
    bayeux::events(&objects, body, arrived)
}

/// The rows of a page of Bulk results with the columns `Id`, `SystemModstamp`, `Name` and `Amount`, in pieces of
/// `piece` bytes.
///
/// # Errors
/// As of a page that comes from an org.
pub fn csv(page: &[u8], piece: usize) -> Result<Vec<Row>, Fault> {
    let mut columns = Columns::new(Some(FieldName::new("SystemModstamp")));
    columns.own(FieldName::new("Name"), FieldKind::Text);
    columns.own(FieldName::new("Amount"), FieldKind::Decimal);
    let mut reader = CsvPage::new();
    let mut rows = Vec::new();
    for piece in page.chunks(piece.max(1)) {
        reader.push(piece, &columns, 0, &mut rows)?;
    }
    reader.push(&[], &columns, 0, &mut rows)?;
    Ok(rows)
}

/// A long text after a difference.
#[must_use]
pub fn text_diff(old: &str, diff: &str) -> Option<String> {
    TextDiff::parse(diff)?.apply(old)
}
