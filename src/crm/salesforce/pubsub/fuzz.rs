//! Ways in for the fuzz targets under `fuzz/`: bitmaps and bare data.

pub use super::super::decode::cell::{Cell, Cells};
pub use super::bitmap::expand;
use super::datum::{Datum, Malformed};
pub use super::schema::EventSchema;

/// A datum's values as far as they can be read, and why they end there.
///
/// # Errors
/// [`Malformed`], beside the values before.
pub fn cells<'a>(
    schema: &'a EventSchema,
    bytes: &'a [u8],
) -> (Vec<Cell<'a>>, Result<(), Malformed>) {
    let mut datum = Datum::new(schema, bytes);
    let mut cells = Vec::new();
    for field in &schema.fields {
        match datum.cell(field.node) {
            Ok(cell) => cells.push(cell),
            Err(malformed) => return (cells, Err(malformed)),
        }
    }
    (cells, datum.end())
}
