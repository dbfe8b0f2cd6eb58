//! A job's results as they come: pieces of CSV in, rows out; a record may end in any piece.

use csv_core::ReadRecordResult;

use crate::fault::{Fault, FaultKind};
use crate::model::event::Row;

use super::super::row::{Bound, Columns};

/// Reads one page of results, whose first record is the heading.
pub struct CsvPage {
    reader: csv_core::Reader,
    columns: Option<Bound>,
    cells: Vec<u8>,
    ends: Vec<usize>,
    /// How much of `cells` and of `ends` the record in hand has filled.
    filled: (usize, usize),
    /// Rows told, those passed over included.
    pub rows: u64,
}

impl CsvPage {
    /// A page of which nothing has come yet.
    pub fn new() -> Self {
        Self {
            reader: csv_core::Reader::new(),
            columns: None,
            cells: vec![0; 16 * 1024],
            ends: vec![0; 64],
            filled: (0, 0),
            rows: 0,
        }
    }

    /// Reads a piece; rows after the `skip`th are added to `rows`. An empty piece is the end.
    ///
    /// # Errors
    /// `Protocol` for a heading that lacks a column, a record of another length, or one that is no UTF-8.
    pub fn push(
        &mut self,
        mut piece: &[u8],
        columns: &Columns,
        skip: u64,
        rows: &mut Vec<Row>,
    ) -> Result<(), Fault> {
        let is_end = piece.is_empty();
        loop {
            let (cells, ends) = self.filled;
            let (result, read, wrote, ended) =
                self.reader
                    .read_record(piece, &mut self.cells[cells..], &mut self.ends[ends..]);
            piece = &piece[read..];
            self.filled = (cells + wrote, ends + ended);
            match result {
                ReadRecordResult::InputEmpty if is_end => {}
                ReadRecordResult::InputEmpty | ReadRecordResult::End => return Ok(()),
                ReadRecordResult::OutputFull => self.cells.resize(self.cells.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record => {
                    self.record(columns, skip, rows)?;
                    self.filled = (0, 0);
                }
            }
        }
    }

    fn record(&mut self, columns: &Columns, skip: u64, rows: &mut Vec<Row>) -> Result<(), Fault> {
        let cells = std::str::from_utf8(&self.cells[..self.filled.0])
            .map_err(|error| unreadable("are no UTF-8").source(error))?;
        let ends = &self.ends[..self.filled.1];
        // Two broken halves may look like one character.
        if !ends.iter().all(|end| cells.is_char_boundary(*end)) {
            return Err(unreadable("are no UTF-8"));
        }
        let cell = |number: usize| {
            let begin = number.checked_sub(1).map_or(0, |before| ends[before]);
            cells.get(begin..ends[number]).unwrap_or_default()
        };
        let Some(bound) = &self.columns else {
            let heading: Vec<&str> = (0..ends.len()).map(cell).collect();
            self.columns = Some(columns.bind(&heading)?);
            return Ok(());
        };
        if ends.len() != bound.width() {
            return Err(unreadable(&format!(
                "have a record of {} values under {} columns",
                ends.len(),
                bound.width()
            )));
        }
        self.rows += 1;
        if self.rows > skip {
            rows.push(bound.row(cell)?);
        }
        Ok(())
    }
}

fn unreadable(what: &str) -> Fault {
    Fault::new(FaultKind::Protocol, format!("a job's results {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use crate::http::raw_row::RawRow;
    use crate::model::schema::FieldKind;

    use super::super::super::take::Taken;
    use super::*;

    fn columns() -> Columns {
        let mut columns = Columns::new(Some("SystemModstamp".into()));
        columns.own("Name".into(), FieldKind::Text, Taken::whole("Name"));
        columns.own("Amount".into(), FieldKind::Decimal, Taken::whole("Amount"));
        columns.own("IsWon".into(), FieldKind::Boolean, Taken::whole("IsWon"));
        columns.own(
            "CloseDate".into(),
            FieldKind::Date,
            Taken::whole("CloseDate"),
        );
        columns.own(
            "OwnerId".into(),
            FieldKind::Reference,
            Taken::whole("OwnerId"),
        );
        columns.nested(
            "Owner.Email".into(),
            FieldKind::Text,
            Taken::whole("Owner.Email"),
        );
        columns
    }

    const HEADING: &str = "\"Id\",\"SystemModstamp\",\"Name\",\"Amount\",\"IsWon\",\"CloseDate\",\"OwnerId\",\"Owner.Email\"\n";

    fn read(text: &str, piece: usize, skip: u64) -> Result<Vec<Row>, Fault> {
        let (mut page, mut rows) = (CsvPage::new(), Vec::new());
        for piece in text.as_bytes().chunks(piece) {
            page.push(piece, &columns(), skip, &mut rows)?;
        }
        page.push(&[], &columns(), skip, &mut rows)?;
        Ok(rows)
    }

    #[test]
    fn no_rows_have_a_heading_or_nothing() {
        for text in ["", HEADING, HEADING.trim_end()] {
            assert!(read(text, 7, 0).unwrap().is_empty(), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_page_of_this_selection_is_refused() {
        let short = format!("{HEADING}\"001A00000000001\",\"\"\n");
        for text in [
            "\"Id\",\"Name\"\n",
            "Records not found for this query\n",
            &short,
        ] {
            let fault = read(text, 5, 0).unwrap_err();
            assert_eq!(fault.kind(), FaultKind::Protocol, "{text}");
        }
        for broken in [&b"\xff,,,,,,"[..], b"\xc3,\xa9,,,,,"] {
            let (mut page, mut rows) = (CsvPage::new(), Vec::new());
            let id = &b"001A00000000001,"[..];
            let broken = [HEADING.as_bytes(), id, broken, b"\n"].concat();
            let fault = page.push(&broken, &columns(), 0, &mut rows).unwrap_err();
            assert_eq!(fault.kind(), FaultKind::Protocol, "{broken:?}");
        }
    }

    #[test]
    fn the_last_line_may_lack_its_end_and_lines_may_end_in_two() {
        let row = "\"001A00000000001\",\"2024-04-09T20:26:27.000Z\",\"A\r\nB\",\"1.50\",\"true\",\"2024-04-09\",\"\",\"\"";
        for text in [format!("{HEADING}{row}"), format!("{HEADING}{row}\r\n")] {
            for piece in [1, 3, 1000] {
                let rows = read(&text, piece, 0).unwrap();
                assert_eq!(rows.len(), 1);
                assert_eq!(rows[0].fields["Name"].as_text(), Some("A\r\nB"));
                assert!(rows[0].fields["OwnerId"].is_null());
                assert!(rows[0].fields["Owner.Email"].is_null());
            }
        }
    }

    fn quoted(text: &str) -> String {
        format!("\"{}\"", text.replace('"', "\"\""))
    }

    proptest! {
        /// The same records by REST and as CSV, cut anywhere, are equal rows.
        #[test]
        fn csv_and_json_of_a_record_are_equal_rows(
            names in proptest::collection::vec(
                proptest::option::of(proptest::prelude::prop_oneof![
                    any::<String>(), "[\",\r\n\\\\ a😀]{0,40}", proptest::prelude::Just("x\"\n,".repeat(25_000)),
                ]), 1..8),
            cents in any::<i64>(), won in any::<bool>(), day in 0_u16..20_000, piece in 1_usize..200, skip in 0_usize..8,
        ) {
            let mut csv = HEADING.to_owned();
            let mut json = Vec::new();
            let day = (chrono::NaiveDate::default() + chrono::Days::new(day.into())).to_string();
            let amount = format!("{}.{:02}", cents / 100, (cents % 100).abs());
            for (number, name) in names.iter().enumerate() {
                let id = format!("001A{number:011}");
                let owner = name.as_ref().map(|_| "005A00000000001");
                csv.push_str(&format!(
                    "\"{id}\",\"2024-04-09T20:26:27.000Z\",{},{},\"{won}\",\"{day}\",\"{}\",{}\n",
                    quoted(name.as_deref().unwrap_or_default()), quoted(&amount), owner.unwrap_or_default(),
                    quoted(name.as_deref().unwrap_or_default()),
                ));
                json.push(format!(
                    r#"{{"Id":"{id}","SystemModstamp":"2024-04-09T20:26:27.000+0000","Name":{},"Amount":{amount},"IsWon":{won},"CloseDate":"{day}","OwnerId":{},"Owner":{}}}"#,
                    serde_json::json!(name), serde_json::json!(owner),
                    serde_json::json!(name.as_ref().map(|name| serde_json::json!({"Email": name}))),
                ));
            }
            let expected: Vec<Row> = json.iter().skip(skip).map(|json| {
                let raw: RawRow<'_> = serde_json::from_str(json).unwrap();
                columns().row(&raw).unwrap()
            }).collect();
            prop_assert_eq!(read(&csv, piece, skip as u64).unwrap(), expected);
        }
    }
}
