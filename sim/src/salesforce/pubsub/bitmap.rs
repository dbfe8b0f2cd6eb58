//! Bitmap fields: which fields of a schema an update changed, nulled or told by a diff.
//!
//! Source: Salesforce Developers, "Pub/Sub API", "Event Deserialization Considerations". The first element is a number of
//! whole bytes, the highest first, whose bit *i* is field *i* of the schema (0 is the header); `P-0x…` is the same of
//! the parts of compound field *P*. The first element is absent when only parts changed.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::schema::EventSchema;

/// The elements that stand for these fields, by their event names (`Industry`, `BillingAddress.Street`).
pub(super) fn elements<'a>(
    schema: &EventSchema,
    names: impl Iterator<Item = &'a str>,
) -> Vec<String> {
    let mut fields = Bits::default();
    let mut parts: BTreeMap<usize, Bits> = BTreeMap::new();
    for name in names {
        match schema.bits(name) {
            Some((field, Some(part))) => parts.entry(field).or_default().set(part),
            Some((field, None)) => fields.set(field),
            None => {}
        }
    }
    let whole = (!fields.is_empty()).then(|| fields.hex());
    let parts = parts
        .into_iter()
        .map(|(field, parts)| format!("{field}-{}", parts.hex()));
    whole.into_iter().chain(parts).collect()
}

/// Bits of any number, the lowest byte first.
#[derive(Default)]
struct Bits(Vec<u8>);

impl Bits {
    fn set(&mut self, bit: usize) {
        let byte = bit / 8;
        if self.0.len() <= byte {
            self.0.resize(byte + 1, 0);
        }
        self.0[byte] |= 1 << (bit % 8);
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn hex(&self) -> String {
        let mut hex = String::with_capacity(2 + self.0.len() * 2);
        hex.push_str("0x");
        for byte in self.0.iter().rev() {
            // Writing to a string can't fail.
            if write!(hex, "{byte:02X}").is_err() {
                break;
            }
        }
        hex
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_whole_bytes_of_upper_case_hex() {
        let hex = |bits: &[usize]| {
            let mut all = Bits::default();
            bits.iter().for_each(|bit| all.set(*bit));
            all.hex()
        };
        assert_eq!(hex(&[22]), "0x400000");
        assert_eq!(hex(&[22, 7]), "0x400080");
        assert_eq!(hex(&[22, 11]), "0x400800");
        assert_eq!(hex(&[7, 13]), "0x2080");
        assert_eq!(hex(&[3, 2, 1, 0]), "0x0F");
        assert_eq!(hex(&[82]), "0x0400000000000000000000");
    }
}
