//! Row ids: 128 bits in the hyphenated form.

use std::fmt;
use std::str::FromStr;

use crate::salesforce::random::Random;

/// A row id; compares and sorts by its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(u128);

/// A text is no GUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no GUID: it takes the form 8-4-4-4-12 of hexadecimal digits")]
pub struct NotAGuid(String);

impl Guid {
    /// The next of a generator, marked as random (version 4).
    pub(crate) fn draw(random: &mut Random) -> Self {
        let wide = (u128::from(random.next()) << 64) | u128::from(random.next());
        let versioned = wide & !(0xF << 76) | (0x4 << 76);
        Self(versioned & !(0x3 << 62) | (0x2 << 62))
    }

    /// The id that a seed gives to a name: the same at every start.
    pub(crate) fn named(seed: u64, name: &str) -> Self {
        Self::draw(&mut Random::new(seed, name))
    }
}

impl FromStr for Guid {
    type Err = NotAGuid;

    fn from_str(text: &str) -> Result<Self, NotAGuid> {
        let refused = || NotAGuid(text.to_owned());
        let bytes = text.as_bytes();
        if bytes.len() != 36 {
            return Err(refused());
        }
        let mut bits = 0_u128;
        for (place, byte) in bytes.iter().enumerate() {
            if matches!(place, 8 | 13 | 18 | 23) {
                if *byte != b'-' {
                    return Err(refused());
                }
                continue;
            }
            let digit = char::from(*byte).to_digit(16).ok_or_else(refused)?;
            bits = bits << 4 | u128::from(digit);
        }
        Ok(Self(bits))
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            bits >> 96,
            bits >> 80 & 0xFFFF,
            bits >> 64 & 0xFFFF,
            bits >> 48 & 0xFFFF,
            bits & 0xFFFF_FFFF_FFFF
        )
    }
}

impl serde::Serialize for Guid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Guid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_is_read_as_it_is_written() {
        let text = "11111111-2222-4333-8444-0123456789ab";
        assert_eq!(text.parse::<Guid>().unwrap().to_string(), text);
        let upper: Guid = text.to_uppercase().parse().unwrap();
        assert_eq!(upper.to_string(), text);
        for wrong in [
            "",
            "11111111222243338444000000000abc",
            &text.replace('-', "_"),
        ] {
            assert!(wrong.parse::<Guid>().is_err(), "{wrong}");
        }
        let drawn = Guid::named(1, "x").to_string();
        assert_eq!((drawn.len(), &drawn[14..15]), (36, "4"));
    }
}
