//! Bitmaps of fields: all that is told lies in the schema, in order and once.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tributary::crm::salesforce::fuzz::bitmaps;
use tributary_fuzz::schema;

static SCHEMA: LazyLock<String> = LazyLock::new(schema);

fuzz_target!(|text: &str| {
    let texts: Vec<&str> = text.lines().take(8).collect();
    let Some(found) = bitmaps(&SCHEMA, &texts) else {
        return;
    };
    assert!(found.is_sorted_by(|a, b| a < b));
    for (field, part) in found {
        assert!((1..11).contains(&field));
        assert!(part.is_none_or(|part| field == 1 && part < 3));
    }
});
