//! The difference of a long text: it yields the text whose hash it carries, or nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary::crm::salesforce::fuzz::text_diff;

fuzz_target!(|input: (&str, &str)| {
    let (old, diff) = input;
    text_diff(old, diff);
    let headed = format!("--- \n+++ {}{diff}", "0".repeat(64));
    // Nobody has met a text of this hash.
    assert_eq!(text_diff(old, &headed), None);
});
