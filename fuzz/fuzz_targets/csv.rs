//! A page of Bulk results: the rows that the `csv` crate reads, wherever the network cuts it, and again when they are
//! written anew.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary::crm::salesforce::fuzz::csv as page_rows;
use tributary::model::record_id::RecordId;

const HEADING: &[u8] = b"\"Id\",\"SystemModstamp\",\"Name\",\"Amount\"\n";

fuzz_target!(|input: &[u8]| {
    let Some((piece, rest)) = input.split_first() else {
        return;
    };
    let page = [HEADING, rest].concat();
    let whole = page_rows(&page, page.len());
    match (&whole, page_rows(&page, usize::from(*piece))) {
        (Ok(whole), Ok(cut)) => assert_eq!(*whole, cut),
        (Err(whole), Err(cut)) => assert_eq!(whole.to_string(), cut.to_string()),
        (whole, cut) => panic!("whole: {whole:?}, cut: {cut:?}"),
    }
    let told = naive(&page);
    assert_eq!(whole.is_ok(), told.is_some(), "{whole:?}, {told:?}");
    if let (Ok(rows), Some(told)) = (whole, told) {
        assert_eq!(rows.len(), told.len());
        for (row, [id, _, name, amount]) in rows.iter().zip(&told) {
            assert_eq!(RecordId::salesforce(id).unwrap(), row.record);
            // Empty text is null.
            assert_eq!(row.fields["Name"].as_text().unwrap_or_default(), name);
            assert_eq!(row.fields["Amount"].is_null(), amount.is_empty());
        }
        assert_eq!(
            page_rows(&written(&told), usize::from(*piece)).unwrap(),
            rows
        );
    }
    // Under a heading that is none of ours it may refuse, and no more.
    let _ = page_rows(rest, usize::from(*piece)).is_ok();
});

/// The records below the heading, if each has its four cells and an id.
fn naive(page: &[u8]) -> Option<Vec<[String; 4]>> {
    let reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(page);
    let mut records = reader.into_records();
    records.next()?.ok()?;
    let cells = |record: csv::Result<csv::StringRecord>| {
        let cells: Vec<String> = record.ok()?.iter().map(str::to_owned).collect();
        let cells: [String; 4] = cells.try_into().ok()?;
        RecordId::salesforce(&cells[0]).is_ok().then_some(cells)
    };
    records.map(cells).collect()
}

/// The page that an org would make of them.
fn written(records: &[[String; 4]]) -> Vec<u8> {
    let mut page = HEADING.to_vec();
    for record in records {
        let cells = record
            .each_ref()
            .map(|cell| format!("\"{}\"", cell.replace('"', "\"\"")));
        page.extend_from_slice(cells.join(",").as_bytes());
        page.push(b'\n');
    }
    page
}
