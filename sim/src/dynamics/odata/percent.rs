//! Percent-encoding of URL parts.

/// The text behind percent-escapes, plus signs being spaces; escapes that are none stay.
pub(crate) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut place = 0;
    while let Some(byte) = bytes.get(place) {
        let escaped = (*byte == b'%')
            .then(|| bytes.get(place + 1..place + 3))
            .flatten();
        let value = escaped
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match value {
            Some(value) => {
                out.push(value);
                place += 3;
            }
            None => {
                out.push(if *byte == b'+' { b' ' } else { *byte });
                place += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A text as the value of a query option, in lower-case escapes as .NET writes them.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02x}")),
        }
    }
    out
}

/// Like [`encode`], but leaves what may stand in a query as it is.
pub(crate) fn encode_option(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => out.push(char::from(byte)),
            b'-' | b'_' | b'.' | b'~' | b'$' | b',' | b'(' | b')' | b'=' | b'/' | b';' | b':'
            | b'@' | b'\'' | b'!' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02x}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let text = "919058!01/05/2026 10:21:20 <é&+%>";
        assert_eq!(decode(&encode(text)), text);
        assert_eq!(decode(&encode_option(text)), text);
        assert_eq!(encode("1!0/5 x:"), "1%210%2f5%20x%3a");
        assert_eq!(decode("100%zz+1"), "100%zz 1");
    }
}
