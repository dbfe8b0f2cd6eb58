//! Ways in for the fuzz targets under `fuzz/` that are no transport's: a page of Bulk results, and a long text's
//! difference.

use super::bulk::csv::CsvPage;
use super::row::Columns;
use super::take::Taken;
use super::text_diff::TextDiff;
use crate::fault::Fault;
use crate::model::event::Row;
use crate::model::name::FieldName;
use crate::model::schema::FieldKind;

/// The rows of a page with the columns `Id`, `SystemModstamp`, `Name` and `Amount`, in pieces of `piece` bytes.
///
/// # Errors
/// As of a page that comes from an org.
pub fn csv(page: &[u8], piece: usize) -> Result<Vec<Row>, Fault> {
    let mut columns = Columns::new(Some(FieldName::new("SystemModstamp")));
    columns.own(
        FieldName::new("Name"),
        FieldKind::Text,
        Taken::whole("Name"),
    );
    columns.own(
        FieldName::new("Amount"),
        FieldKind::Decimal,
        Taken::whole("Amount"),
    );
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
