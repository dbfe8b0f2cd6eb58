//! The body of a CometD answer.
#![no_main]

use std::sync::LazyLock;

use chrono::DateTime;
use libfuzzer_sys::fuzz_target;
use tributary::crm::salesforce::fuzz::cometd;
use tributary_fuzz::describe;

static DESCRIBE: LazyLock<String> = LazyLock::new(describe);

fuzz_target!(|body: &[u8]| {
    cometd(&[DESCRIBE.as_bytes()], body, DateTime::UNIX_EPOCH);
});
