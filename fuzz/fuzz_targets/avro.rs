//! A Pub/Sub event's datum: whatever its bytes, it becomes events of known objects or a gap, never nothing.
#![no_main]

use std::sync::LazyLock;

use chrono::DateTime;
use libfuzzer_sys::fuzz_target;
use tributary::crm::salesforce::pubsub::decoder::Decoder;
use tributary::model::position::Position;
use tributary_fuzz::{describe, schema};

static DECODER: LazyLock<Decoder> = LazyLock::new(|| {
    Decoder::of(&[describe().as_bytes()], &[("known", &schema())]).expect("describe and schema are right")
});

fuzz_target!(|datum: &[u8]| {
    let position = Position::new("pubsub:AAAAAAAAAAEAAA");
    DECODER.decode(Some(("known", datum)), &position, DateTime::UNIX_EPOCH);
    // An event that can't be read may be of any object.
    let unknown = DECODER.decode(Some(("unknown", datum)), &position, DateTime::UNIX_EPOCH);
    assert!(!unknown.events.is_empty());
});
