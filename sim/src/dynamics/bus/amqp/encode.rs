//! Values to bytes, in their shortest form where a client may expect it.

use super::value::Value;

/// Appends a value.
pub(in super::super) fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(0x40),
        Value::Bool(true) => out.push(0x41),
        Value::Bool(false) => out.push(0x42),
        Value::Ubyte(number) => out.extend([0x50, *number]),
        Value::Ushort(number) => fixed(out, 0x60, &number.to_be_bytes()),
        Value::Uint(0) => out.push(0x43),
        Value::Uint(number) => match u8::try_from(*number) {
            Ok(small) => out.extend([0x52, small]),
            Err(_) => fixed(out, 0x70, &number.to_be_bytes()),
        },
        Value::Ulong(0) => out.push(0x44),
        Value::Ulong(number) => match u8::try_from(*number) {
            Ok(small) => out.extend([0x53, small]),
            Err(_) => fixed(out, 0x80, &number.to_be_bytes()),
        },
        Value::Byte(number) => fixed(out, 0x51, &number.to_be_bytes()),
        Value::Short(number) => fixed(out, 0x61, &number.to_be_bytes()),
        Value::Int(number) => fixed(out, 0x71, &number.to_be_bytes()),
        Value::Long(number) => fixed(out, 0x81, &number.to_be_bytes()),
        Value::Float(number) => fixed(out, 0x72, &number.to_be_bytes()),
        Value::Double(number) => fixed(out, 0x82, &number.to_be_bytes()),
        Value::Char(code) => fixed(out, 0x73, &code.to_be_bytes()),
        Value::Timestamp(time) => fixed(out, 0x83, &time.to_be_bytes()),
        Value::Uuid(id) => fixed(out, 0x98, &id.to_be_bytes()),
        Value::Binary(bytes) => sized(out, 0xA0, bytes),
        Value::Text(text) => sized(out, 0xA1, text.as_bytes()),
        Value::Symbol(text) => sized(out, 0xA3, text.as_bytes()),
        Value::List(items) if items.is_empty() => out.push(0x45),
        Value::List(items) => {
            let mut body = Vec::new();
            items.iter().for_each(|item| encode(item, &mut body));
            counted(out, 0xC0, items.len(), &body);
        }
        Value::Map(entries) => {
            let mut body = Vec::new();
            for (key, value) in entries {
                encode(key, &mut body);
                encode(value, &mut body);
            }
            counted(out, 0xC1, entries.len() * 2, &body);
        }
        Value::Array(items) => array(out, items),
        Value::Described(descriptor, inner) => {
            out.push(0x00);
            encode(descriptor, out);
            encode(inner, out);
        }
    }
}

fn fixed(out: &mut Vec<u8>, code: u8, bytes: &[u8]) {
    out.push(code);
    out.extend_from_slice(bytes);
}

/// Four bytes of a length or a count: nothing here is longer.
fn wide(number: usize) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes()
}

fn sized(out: &mut Vec<u8>, code: u8, bytes: &[u8]) {
    match u8::try_from(bytes.len()) {
        Ok(length) => out.extend([code, length]),
        Err(_) => fixed(out, code + 0x10, &wide(bytes.len())),
    }
    out.extend_from_slice(bytes);
}

fn counted(out: &mut Vec<u8>, code: u8, count: usize, body: &[u8]) {
    match (u8::try_from(count), u8::try_from(body.len() + 1)) {
        (Ok(count), Ok(size)) => out.extend([code, size, count]),
        _ => {
            fixed(out, code + 0x10, &wide(body.len() + 4));
            out.extend_from_slice(&wide(count));
        }
    }
    out.extend_from_slice(body);
}

/// An array of symbols, times or ids; its items share one constructor.
fn array(out: &mut Vec<u8>, items: &[Value]) {
    let (code, body): (u8, Vec<u8>) = match items.first() {
        Some(Value::Timestamp(_)) => (0x83, times(items)),
        Some(Value::Uuid(_)) => (0x98, ids(items)),
        _ => (0xB3, words(items)),
    };
    fixed(out, 0xF0, &wide(body.len() + 5));
    out.extend_from_slice(&wide(items.len()));
    out.push(code);
    out.extend(body);
}

fn times(items: &[Value]) -> Vec<u8> {
    let time = |item: &Value| match item {
        Value::Timestamp(time) => time.to_be_bytes(),
        _ => [0; 8],
    };
    items.iter().flat_map(time).collect()
}

fn ids(items: &[Value]) -> Vec<u8> {
    let id = |item: &Value| match item {
        Value::Uuid(id) => id.to_be_bytes(),
        _ => [0; 16],
    };
    items.iter().flat_map(id).collect()
}

fn words(items: &[Value]) -> Vec<u8> {
    let mut body = Vec::new();
    for text in items.iter().filter_map(Value::word) {
        body.extend_from_slice(&wide(text.len()));
        body.extend_from_slice(text.as_bytes());
    }
    body
}
