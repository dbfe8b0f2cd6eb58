//! `stream_silence`: how long a stream may say nothing.

use std::time::Duration;

use tributary::config::problem::Problems;

use super::{SINGLE, load_single};

#[test]
fn a_stream_is_silent_once_its_keep_alives_are_overdue() {
    let with = |keys: &str| {
        let org = "org = \"https://acme.my.salesforce.com\"";
        let text = SINGLE.replace(org, &format!("{org}\n{keys}"));
        let config = load_single(&text, &[])?;
        let acme = config.connections["acme"].salesforce().unwrap();
        Ok::<_, Problems>(acme.stream_silence)
    };
    assert_eq!(with("").unwrap(), None);
    for (keys, seconds) in [
        ("stream_silence = \"10m\"", 600),
        ("transport = \"cometd\"\nstream_silence = \"3m\"", 180),
        ("plain_text = true\nstream_silence = \"2s\"", 2),
    ] {
        let silence = Duration::from_secs(seconds);
        assert_eq!(with(keys).unwrap(), Some(silence), "{keys}");
    }
    for keys in [
        "stream_silence = \"3m\"",
        "transport = \"cometd\"\nstream_silence = \"2m\"",
        "plain_text = true\nstream_silence = \"2h\"",
    ] {
        let problems = with(keys).unwrap_err().to_string();
        assert!(problems.contains("out of range"), "{problems}");
    }
}
