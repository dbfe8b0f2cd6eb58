//! Rows as CSV: everything in quotes, line breaks kept, null and empty text alike.

use std::io::{self, Write};

use ::csv::{QuoteStyle, Terminator, WriterBuilder};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::job::Order;

/// A page of a job's rows under their header; no rows may mean no header either.
pub(super) fn page(
    order: &Order,
    from: usize,
    count: usize,
    empty_body: bool,
) -> io::Result<Vec<u8>> {
    if empty_body && order.results.len() == 0 {
        return Ok(Vec::new());
    }
    let terminator = match order.line_ending.1 {
        "\r\n" => Terminator::CRLF,
        _ => Terminator::Any(b'\n'),
    };
    let mut writer = WriterBuilder::new()
        .delimiter(order.delimiter.1)
        .quote_style(QuoteStyle::Always)
        .terminator(terminator)
        .from_writer(Vec::new());
    writer.write_record(order.results.headings())?;
    for row in order.results.cells(from, count) {
        writer.write_record(row)?;
    }
    writer.into_inner().map_err(|error| error.into_error())
}

pub(super) fn gzip(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}
