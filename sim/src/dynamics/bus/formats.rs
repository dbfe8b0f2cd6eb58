//! The bodies that an endpoint's `messageformat` asks for: JSON as it is, or the same tree as XML, in text or .NET binary.
//!
//! Source: [MC-NBFX] .NET Binary Format: XML Data Structure.

use serde_json::Value;

const NAMESPACE: &str = "http://schemas.microsoft.com/xrm/2011/Contracts";
const ROOT: &str = "RemoteExecutionContext";

/// The body's bytes in the format of a content type.
pub(super) fn encode(content_type: &str, json: &str) -> Vec<u8> {
    if content_type == "application/json" {
        return json.as_bytes().to_vec();
    }
    // The pipeline's own JSON can be read.
    let tree: Value = serde_json::from_str(json).unwrap_or_default();
    let mut xml: Box<dyn Xml> = match content_type {
        "application/xml" => Box::new(Text(String::new())),
        _ => Box::new(Binary(Vec::new())),
    };
    xml.open(ROOT, Some(NAMESPACE));
    fill(xml.as_mut(), &tree);
    xml.close(ROOT);
    xml.bytes()
}

/// What elements and texts are written to.
trait Xml {
    fn open(&mut self, name: &str, namespace: Option<&str>);
    fn text(&mut self, text: &str);
    fn close(&mut self, name: &str);
    fn bytes(&self) -> Vec<u8>;
}

fn fill(xml: &mut dyn Xml, value: &Value) {
    match value {
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) => xml.text(&value.to_string()),
        Value::String(text) => xml.text(text),
        Value::Array(items) => {
            for item in items {
                xml.open("Item", None);
                fill(xml, item);
                xml.close("Item");
            }
        }
        Value::Object(members) => {
            for (name, member) in members.iter().filter(|(name, _)| *name != "__type") {
                xml.open(name, None);
                fill(xml, member);
                xml.close(name);
            }
        }
    }
}

struct Text(String);

impl Xml for Text {
    fn open(&mut self, name: &str, namespace: Option<&str>) {
        let namespace = namespace.map_or_else(String::new, |url| format!(" xmlns=\"{url}\""));
        self.0.push_str(&format!("<{name}{namespace}>"));
    }

    fn text(&mut self, text: &str) {
        let escaped = text
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        self.0.push_str(&escaped);
    }

    fn close(&mut self, name: &str) {
        self.0.push_str(&format!("</{name}>"));
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.as_bytes().to_vec()
    }
}

struct Binary(Vec<u8>);

impl Binary {
    /// A length in seven bits a byte, and the text.
    fn string(&mut self, text: &str) {
        let mut length = text.len();
        while length >= 0x80 {
            self.0.push((length & 0x7F) as u8 | 0x80);
            length >>= 7;
        }
        self.0.push(length as u8);
        self.0.extend_from_slice(text.as_bytes());
    }
}

impl Xml for Binary {
    fn open(&mut self, name: &str, namespace: Option<&str>) {
        self.0.push(0x40);
        self.string(name);
        if let Some(url) = namespace {
            self.0.push(0x08);
            self.string(url);
        }
    }

    fn text(&mut self, text: &str) {
        // Chars32Text: the length in four bytes, low ones first.
        self.0.push(0x9C);
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        self.0.extend(length.to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn close(&mut self, _: &str) {
        self.0.push(0x01);
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"MessageName":"Update","Depth":1,"InputParameters":[{"__type":"x","key":"a<b"}],"RequestId":null}"#;

    #[test]
    fn json_is_as_it_is_and_others_are_not() {
        assert_eq!(encode("application/json", JSON), JSON.as_bytes());
        let xml = String::from_utf8(encode("application/xml", JSON)).unwrap();
        assert!(xml.starts_with("<RemoteExecutionContext xmlns="), "{xml}");
        assert!(xml.contains("<MessageName>Update</MessageName>"), "{xml}");
        assert!(xml.contains("<Item><key>a&lt;b</key></Item>"), "{xml}");
        let binary = encode("application/msbin1", JSON);
        assert_eq!(&binary[..2], [0x40, 22]);
        assert_eq!(binary.last(), Some(&0x01));
    }
}
