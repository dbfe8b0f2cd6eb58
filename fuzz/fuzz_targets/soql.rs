//! A query to the simulated org: printed and read again it is the same query, and finds the same rows or the same
//! code that an org refuses it with.
#![no_main]

use std::sync::LazyLock;

use chrono::DateTime;
use libfuzzer_sys::fuzz_target;
use tributary_sim::salesforce::fuzz::{Org, org, printed, rows};

static ORG: LazyLock<Org> = LazyLock::new(org);

fuzz_target!(|query: &str| {
    let run = |query: &str| rows(&ORG, query, DateTime::UNIX_EPOCH);
    let found = run(query);
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
    assert_eq!(run(&again), found, "{again}");
});
