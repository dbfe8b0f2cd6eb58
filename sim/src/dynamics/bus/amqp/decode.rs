//! Bytes to values; whatever is not as the specification says is refused.

use super::value::Value;

/// How deep values may lie in each other.
const DEEPEST: usize = 32;

/// Bytes are no AMQP value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no AMQP value: {0}")]
pub(in super::super) struct Malformed(pub &'static str);

/// Takes a value off the front.
pub(in super::super) fn decode(bytes: &mut &[u8]) -> Result<Value, Malformed> {
    value(bytes, DEEPEST)
}

fn value(bytes: &mut &[u8], depth: usize) -> Result<Value, Malformed> {
    let deeper = depth.checked_sub(1).ok_or(Malformed("nested too deep"))?;
    match take::<1>(bytes)?[0] {
        0x00 => {
            let descriptor = value(bytes, deeper)?;
            let inner = value(bytes, deeper)?;
            Ok(Value::Described(Box::new(descriptor), Box::new(inner)))
        }
        code => constructed(code, bytes, deeper),
    }
}

/// The value after its constructor.
fn constructed(code: u8, bytes: &mut &[u8], depth: usize) -> Result<Value, Malformed> {
    Ok(match code {
        0x40 => Value::Null,
        0x41 => Value::Bool(true),
        0x42 => Value::Bool(false),
        0x56 => match take::<1>(bytes)?[0] {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            _ => return Err(Malformed("a boolean is 0 or 1")),
        },
        0x50 => Value::Ubyte(take::<1>(bytes)?[0]),
        0x60 => Value::Ushort(u16::from_be_bytes(take(bytes)?)),
        0x43 => Value::Uint(0),
        0x52 => Value::Uint(u32::from(take::<1>(bytes)?[0])),
        0x70 => Value::Uint(u32::from_be_bytes(take(bytes)?)),
        0x44 => Value::Ulong(0),
        0x53 => Value::Ulong(u64::from(take::<1>(bytes)?[0])),
        0x80 => Value::Ulong(u64::from_be_bytes(take(bytes)?)),
        0x51 => Value::Byte(i8::from_be_bytes(take(bytes)?)),
        0x61 => Value::Short(i16::from_be_bytes(take(bytes)?)),
        0x54 => Value::Int(i32::from(i8::from_be_bytes(take(bytes)?))),
        0x71 => Value::Int(i32::from_be_bytes(take(bytes)?)),
        0x55 => Value::Long(i64::from(i8::from_be_bytes(take(bytes)?))),
        0x81 => Value::Long(i64::from_be_bytes(take(bytes)?)),
        0x72 => Value::Float(f32::from_be_bytes(take(bytes)?)),
        0x82 => Value::Double(f64::from_be_bytes(take(bytes)?)),
        0x73 => Value::Char(u32::from_be_bytes(take(bytes)?)),
        0x83 => Value::Timestamp(i64::from_be_bytes(take(bytes)?)),
        0x98 => Value::Uuid(u128::from_be_bytes(take(bytes)?)),
        0xA0 | 0xB0 => Value::Binary(sized(bytes, code)?.to_vec()),
        0xA1 | 0xB1 => Value::Text(utf8(sized(bytes, code)?)?),
        0xA3 | 0xB3 => Value::Symbol(ascii(sized(bytes, code)?)?),
        0x45 => Value::List(Vec::new()),
        0xC0 | 0xD0 => Value::List(items(bytes, code, depth)?),
        0xC1 | 0xD1 => map(items(bytes, code, depth)?)?,
        0xE0 | 0xF0 => array(sized(bytes, code)?, code, depth)?,
        0x74 | 0x84 | 0x94 => return Err(Malformed("decimals are not spoken here")),
        _ => return Err(Malformed("an unknown constructor")),
    })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (head, rest) = bytes
        .split_first_chunk::<N>()
        .ok_or(Malformed("it ends too early"))?;
    *bytes = rest;
    Ok(*head)
}

fn run<'b>(bytes: &mut &'b [u8], length: usize) -> Result<&'b [u8], Malformed> {
    let (head, rest) = bytes
        .split_at_checked(length)
        .ok_or(Malformed("it ends too early"))?;
    *bytes = rest;
    Ok(head)
}

/// A length or a count: one byte in the short constructors, four in the others.
fn length(bytes: &mut &[u8], code: u8) -> Result<usize, Malformed> {
    match code & 0xF0 {
        0xA0 | 0xC0 | 0xE0 => Ok(usize::from(take::<1>(bytes)?[0])),
        _ => Ok(u32::from_be_bytes(take(bytes)?) as usize),
    }
}

fn sized<'b>(bytes: &mut &'b [u8], code: u8) -> Result<&'b [u8], Malformed> {
    let length = length(bytes, code)?;
    run(bytes, length)
}

fn utf8(bytes: &[u8]) -> Result<String, Malformed> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Malformed("a string that is no UTF-8"))
}

fn ascii(bytes: &[u8]) -> Result<String, Malformed> {
    if !bytes.is_ascii() {
        return Err(Malformed("a symbol that is not ASCII"));
    }
    utf8(bytes)
}

fn items(bytes: &mut &[u8], code: u8, depth: usize) -> Result<Vec<Value>, Malformed> {
    let mut body = sized(bytes, code)?;
    let count = length(&mut body, code)?;
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(value(&mut body, depth)?);
    }
    if !body.is_empty() {
        return Err(Malformed("a list longer than its count"));
    }
    Ok(items)
}

fn map(items: Vec<Value>) -> Result<Value, Malformed> {
    if items.len() % 2 == 1 {
        return Err(Malformed("a map with a key that has no value"));
    }
    let mut entries = Vec::new();
    let mut items = items.into_iter();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        entries.push((key, value));
    }
    Ok(Value::Map(entries))
}

fn array(mut body: &[u8], code: u8, depth: usize) -> Result<Value, Malformed> {
    let count = length(&mut body, code)?;
    let mut descriptors = Vec::new();
    let mut constructor = take::<1>(&mut body)?[0];
    while constructor == 0x00 {
        descriptors.push(value(&mut body, depth)?);
        constructor = take::<1>(&mut body)?[0];
        if descriptors.len() > depth {
            return Err(Malformed("nested too deep"));
        }
    }
    let mut items = Vec::new();
    for _ in 0..count {
        let item = constructed(constructor, &mut body, depth)?;
        let described = descriptors.iter().rev().fold(item, |inner, descriptor| {
            Value::Described(Box::new(descriptor.clone()), Box::new(inner))
        });
        items.push(described);
        if items.len() > 65_536 {
            return Err(Malformed("an array of too many items"));
        }
    }
    Ok(Value::Array(items))
}

#[cfg(test)]
mod tests {
    use super::super::encode::encode;
    use super::*;

    fn round(value: &Value) {
        let mut bytes = Vec::new();
        encode(value, &mut bytes);
        let mut rest = bytes.as_slice();
        assert_eq!(&decode(&mut rest).unwrap(), value);
        assert!(rest.is_empty());
    }

    #[test]
    fn values_are_read_as_they_are_written() {
        let long = "x".repeat(300);
        for value in [
            Value::Null,
            Value::Bool(false),
            Value::Ubyte(200),
            Value::Ushort(60_000),
            Value::Uint(0),
            Value::Uint(7),
            Value::Uint(70_000),
            Value::Ulong(0x24),
            Value::Ulong(u64::MAX),
            Value::Byte(-5),
            Value::Short(-300),
            Value::Int(-70_000),
            Value::Long(i64::MIN),
            Value::Double(1.5),
            Value::Float(-2.5),
            Value::Char(0x1F600),
            Value::Timestamp(1_767_607_872_000),
            Value::Uuid(42),
            Value::Binary(vec![1; 256]),
            Value::text("ü"),
            Value::text(&*long),
            Value::symbol("amqp:accepted:list"),
            Value::List(vec![]),
            Value::List(vec![Value::text(&*long), Value::Null]),
            Value::Map(vec![(
                Value::symbol("k"),
                Value::List(vec![Value::Uint(1)]),
            )]),
            Value::Array(vec![Value::symbol("PLAIN"), Value::symbol("ANONYMOUS")]),
            Value::Array(vec![Value::Timestamp(1), Value::Timestamp(2)]),
            Value::Array(vec![Value::Uuid(1)]),
            Value::composite(0x24, vec![]),
        ] {
            round(&value);
        }
    }

    #[test]
    fn what_is_cut_or_contradicts_itself_is_refused() {
        let whole = {
            let mut bytes = Vec::new();
            let entries = vec![(Value::text("key"), Value::Uint(70_000))];
            encode(&Value::Map(entries), &mut bytes);
            bytes
        };
        for end in 0..whole.len() {
            assert!(decode(&mut &whole[..end]).is_err(), "{end}");
        }
        for wrong in [
            &[0x3F][..],
            &[0x56, 2],
            &[0xA1, 1, 0xFF],
            &[0xA3, 1, 0xC3],
            &[0xC0, 2, 0, 0x40],
            &[0xC1, 2, 1, 0x40],
        ] {
            assert!(decode(&mut &*wrong).is_err(), "{wrong:?}");
        }
        let deep = [0xC0, 3, 1].repeat(40);
        assert!(decode(&mut deep.as_slice()).is_err());
    }
}
