//! A change's place in its record's order, given by ingest: term and counter, compared as text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const TERM_DIGITS: usize = 10;
const COUNTER_DIGITS: usize = 12;

/// The owner's term (10 digits) and a counter within it (12 digits); text order equals numeric order.
///
/// No CRM supplies a sortable version: commit stamps come in whole seconds and transaction keys are random
/// (Salesforce CDC Developer Guide), so ingest gives its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    term: u64,
    counter: u64,
}

/// A text that is not 22 digits.
#[derive(Debug, thiserror::Error)]
#[error("version `{0}` is not {digits} digits", digits = TERM_DIGITS + COUNTER_DIGITS)]
pub struct InvalidVersion(String);

impl Version {
    /// The largest term that fits.
    pub const MAX_TERM: u64 = 9_999_999_999;
    /// The largest counter that fits.
    pub const MAX_COUNTER: u64 = 999_999_999_999;

    /// A version; values past the digits saturate (a term would need the year 2286).
    #[must_use]
    pub const fn new(term: u64, counter: u64) -> Self {
        Self {
            term: if term > Self::MAX_TERM {
                Self::MAX_TERM
            } else {
                term
            },
            counter: if counter > Self::MAX_COUNTER {
                Self::MAX_COUNTER
            } else {
                counter
            },
        }
    }

    /// The owner's term.
    #[must_use]
    pub const fn term(self) -> u64 {
        self.term
    }

    /// The counter within the term.
    #[must_use]
    pub const fn counter(self) -> u64 {
        self.counter
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}{:012}", self.term, self.counter)
    }
}

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidVersion(text.chars().take(40).collect());
        if text.len() != TERM_DIGITS + COUNTER_DIGITS || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid());
        }
        let (term, counter) = text.split_at(TERM_DIGITS);
        Ok(Self {
            term: term.parse().map_err(|_| invalid())?,
            counter: counter.parse().map_err(|_| invalid())?,
        })
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #[test]
        fn text_order_is_version_order(a in any::<(u32, u32)>(), b in any::<(u32, u32)>()) {
            let (left, right) = (Version::new(a.0.into(), a.1.into()), Version::new(b.0.into(), b.1.into()));
            prop_assert_eq!(left.cmp(&right), left.to_string().cmp(&right.to_string()));
            prop_assert_eq!(left.to_string().parse::<Version>().unwrap(), left);
        }
    }

    #[test]
    fn refuses_other_texts() {
        for text in [
            "",
            "1",
            "17676078720000000000042",
            "176760787200000000000x",
            "-767607872000000000042",
        ] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}
