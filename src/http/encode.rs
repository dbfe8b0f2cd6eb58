//! Percent-encoding of a URL's query values and path parts.

use std::fmt::Write;

/// `text` as the value of a query parameter or as one part of a path (RFC 3986): everything but unreserved
/// characters is encoded; in addition `,`, `:`, `(`, `)` stay, which are legal in both and frequent in queries.
#[must_use]
pub fn percent(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() + text.len() / 2);
    for byte in text.bytes() {
        if stays(byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing into a String can't fail.
            write!(encoded, "%{byte:02X}").ok();
        }
    }
    encoded
}

/// How many bytes [`percent`] makes of `text`.
#[must_use]
pub fn percent_len(text: &str) -> usize {
    text.bytes()
        .map(|byte| if stays(byte) { 1 } else { 3 })
        .sum()
}

const fn stays(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b',' | b':' | b'(' | b')')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn decoded(text: &str) -> Vec<u8> {
        let bytes = text.as_bytes();
        let mut found = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            if bytes[at] == b'%' {
                found.push(u8::from_str_radix(&text[at + 1..at + 3], 16).unwrap());
                at += 3;
            } else {
                found.push(bytes[at]);
                at += 1;
            }
        }
        found
    }

    proptest! {
        #[test]
        fn comes_back_whole(text in any::<String>()) {
            let encoded = percent(&text);
            prop_assert!(encoded.bytes().all(|b| b == b'%' || stays(b)));
            prop_assert_eq!(percent_len(&text), encoded.len());
            prop_assert_eq!(decoded(&encoded), text.into_bytes());
        }
    }
}
