//! The body of a CometD answer: the same events however its JSON is spelled, and none passed over.
#![no_main]

use std::io::{self, Write};
use std::sync::LazyLock;

use chrono::DateTime;
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};
use tributary::crm::salesforce::cometd::fuzz::{self, Objects};
use tributary::model::event::Event;
use tributary_fuzz::{OBJECT, describe};

static OBJECTS: LazyLock<Objects> = LazyLock::new(|| fuzz::objects(describe().as_bytes()).unwrap());

fuzz_target!(|body: &[u8]| {
    events(body);
    // One spelling first: a name that is there twice, digits that no double has.
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return;
    };
    let told = events(&serde_json::to_vec(&value).unwrap());
    assert_eq!(told, events(&serde_json::to_vec_pretty(&value).unwrap()));
    assert_eq!(told, events(&escaped(&value)));
    let Value::Array(messages) = value else {
        return;
    };
    let told = told.expect("an array holds messages");
    assert!(told.iter().all(|event| event.object.as_str() == OBJECT));
    assert!(
        told.len()
            >= messages
                .iter()
                .filter(|message| may_be_ours(message))
                .count()
    );
});

fn events(body: &[u8]) -> Option<Vec<Event>> {
    fuzz::events(&OBJECTS, body, DateTime::UNIX_EPOCH)
}

/// Whether a message is no answer, and not known to be of another object.
fn may_be_ours(message: &Value) -> bool {
    let is_answer = message["channel"]
        .as_str()
        .is_some_and(|channel| channel.starts_with("/meta/"));
    let entity = message["data"]["payload"]["ChangeEventHeader"]["entityName"].as_str();
    !is_answer && entity.is_none_or(|entity| entity.eq_ignore_ascii_case(OBJECT))
}

/// JSON with each character of a text or a name escaped.
fn escaped(value: &Value) -> Vec<u8> {
    struct Escaped;
    impl Formatter for Escaped {
        fn write_string_fragment<W: ?Sized + Write>(
            &mut self,
            writer: &mut W,
            fragment: &str,
        ) -> io::Result<()> {
            fragment
                .encode_utf16()
                .try_for_each(|unit| write!(writer, "\\u{unit:04x}"))
        }
    }
    let mut json = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut json, Escaped))
        .unwrap();
    json
}
