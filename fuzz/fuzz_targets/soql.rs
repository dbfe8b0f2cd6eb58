//! A query to the simulated org: printed and read again it is the same query, and finds the same rows or the same
//! code that an org refuses it with.
#![no_main]

use chrono::DateTime;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tributary_sim::salesforce::fuzz::{org, printed, rows};
use tributary_sim::salesforce::store::Store;

thread_local! {
    static ORG: Store = org();
}

fuzz_target!(|query: &str| {
    let found = ORG.with(|org| run(org, query));
    if let Err(code) = &found {
        assert!(
            code.chars().all(|c| c.is_ascii_uppercase() || c == '_'),
            "{code}"
        );
    }
    let Some(again) = printed(query) else {
        assert!(found.is_err());
        return;
    };
    assert_eq!(printed(&again).as_ref(), Some(&again));
    assert_eq!(ORG.with(|org| run(org, &again)), found, "{again}");
});

fn run(org: &Store, query: &str) -> Result<Vec<Value>, &'static str> {
    rows(org, query, DateTime::UNIX_EPOCH)
}
