//! A query to the simulated org: rows, or one of the codes that an org answers with.
#![no_main]

use std::cell::LazyCell;

use chrono::DateTime;
use libfuzzer_sys::fuzz_target;
use tributary_sim::salesforce::fuzz::{org, soql};
use tributary_sim::salesforce::store::Store;

thread_local! {
    static ORG: LazyCell<Store> = LazyCell::new(org);
}

fuzz_target!(|query: &str| {
    ORG.with(|org| match soql(org, query, DateTime::UNIX_EPOCH) {
        Ok(rows) => assert!(rows <= 4),
        Err(code) => assert!(code.chars().all(|c| c.is_ascii_uppercase() || c == '_'), "{code}"),
    });
});
