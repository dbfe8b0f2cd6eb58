//! A page of Bulk results: the same rows, or the same refusal, wherever the network cuts it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary::crm::salesforce::fuzz::csv;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, rest) = input;
    let mut page = b"\"Id\",\"SystemModstamp\",\"Name\",\"Amount\"\n".to_vec();
    page.extend_from_slice(rest);
    let whole = csv(&page, page.len());
    let cut = csv(&page, usize::from(piece));
    match (whole, cut) {
        (Ok(whole), Ok(cut)) => assert_eq!(whole, cut),
        (Err(whole), Err(cut)) => assert_eq!(whole.to_string(), cut.to_string()),
        (whole, cut) => panic!("whole: {whole:?}, cut: {cut:?}"),
    }
    // Without a heading of ours.
    let _ = csv(rest, usize::from(piece)).is_ok();
});
