//! Bitmaps of fields: which field a bit stands for (Pub/Sub API Developer Guide, "Event Deserialization
//! Considerations").
//!
//! `0x…` is one number, whose lowest bit is the schema's first field, the header. `4-0x…` are bits of the parts of the
//! compound field 4; its own bit in the first number is not set unless the whole of it changed.

use std::borrow::Cow;

use super::schema::EventSchema;

/// A bitmap that does not fit the schema of its event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the bitmap `{0}` does not fit its schema")]
pub struct Misfit(String);

/// The fields of some bitmaps, each as the index of a field, and of a part if only that is meant.
///
/// # Errors
/// [`Misfit`].
pub fn expand(
    schema: &EventSchema,
    bitmaps: &[Cow<'_, str>],
) -> Result<Vec<(usize, Option<usize>)>, Misfit> {
    let mut found = Vec::new();
    for bitmap in bitmaps {
        let misfit = || Misfit(bitmap.chars().take(80).collect());
        match bitmap.split_once('-') {
            None => {
                let bits = bits(bitmap).ok_or_else(misfit)?;
                for bit in bits {
                    // The header is no field that changes.
                    if bit == 0 || bit >= schema.fields.len() {
                        return Err(misfit());
                    }
                    found.push((bit, None));
                }
            }
            Some((field, bitmap)) => {
                let index: usize = field.parse().map_err(|_| misfit())?;
                let field = schema.fields.get(index).filter(|_| index > 0);
                let field = field.ok_or_else(misfit)?;
                for bit in bits(bitmap).ok_or_else(misfit)? {
                    if bit >= field.parts.len() {
                        return Err(misfit());
                    }
                    found.push((index, Some(bit)));
                }
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// The bits that are set, however many digits there are.
fn bits(bitmap: &str) -> Option<Vec<usize>> {
    let digits = bitmap
        .strip_prefix("0x")
        .or_else(|| bitmap.strip_prefix("0X"))?;
    let mut found = Vec::new();
    for (place, digit) in digits.bytes().rev().enumerate() {
        let digit = char::from(digit).to_digit(16)?;
        for bit in 0..4 {
            if digit & (1 << bit) != 0 {
                found.push(place * 4 + bit);
            }
        }
    }
    Some(found)
}
