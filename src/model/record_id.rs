//! A record's id, normalised: 18-character Salesforce ids, lower-case GUIDs.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A record's id in its one spelling, so that one record has one key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordId(Arc<str>);

/// An id that is neither a Salesforce id nor a GUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecordId {
    /// Not 15 or 18 letters and digits.
    #[error("`{0}` is not a Salesforce id: 15 or 18 letters and digits are")]
    Salesforce(String),
    /// The three checksum characters of an 18-character id don't fit the first fifteen.
    #[error("Salesforce id `{0}` has a wrong checksum: its case was changed on the way")]
    Checksum(String),
    /// Not 36 hexadecimal digits and dashes.
    #[error("`{0}` is not a GUID")]
    Guid(String),
}

impl RecordId {
    /// A Salesforce id of 15 or 18 characters, given its checksum or checked against it.
    ///
    /// The checksum: for each group of five characters, bit *k* is set if character *k* is A–Z; the
    /// value indexes `A…Z0…5` (Salesforce Object Reference, "ID Field Type").
    ///
    /// # Errors
    /// [`InvalidRecordId`] for any other length, character or checksum.
    pub fn salesforce(text: &str) -> Result<Self, InvalidRecordId> {
        let bytes = text.as_bytes();
        let well_formed =
            matches!(bytes.len(), 15 | 18) && bytes.iter().all(u8::is_ascii_alphanumeric);
        if !well_formed {
            return Err(InvalidRecordId::Salesforce(shown(text)));
        }
        let mut id = String::with_capacity(18);
        id.push_str(&text[..15]);
        for group in bytes[..15].chunks(5) {
            id.push(checksum(group));
        }
        // The suffix is case-blind, the first fifteen characters are not.
        if bytes.len() == 18 && !id[15..].eq_ignore_ascii_case(&text[15..]) {
            return Err(InvalidRecordId::Checksum(shown(text)));
        }
        Ok(Self(id.into()))
    }

    /// A GUID, put into lower case.
    ///
    /// # Errors
    /// [`InvalidRecordId::Guid`] for anything else.
    pub fn guid(text: &str) -> Result<Self, InvalidRecordId> {
        match uuid::Uuid::try_parse(text) {
            Ok(guid) => Ok(Self(guid.hyphenated().to_string().into())),
            Err(_) => Err(InvalidRecordId::Guid(shown(text))),
        }
    }

    /// An id that is already in its one spelling: read back from a topic, an image or a ledger.
    pub fn stored(text: impl AsRef<str>) -> Self {
        Self(Arc::from(text.as_ref()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn checksum(group: &[u8]) -> char {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";
    let index = group.iter().enumerate().fold(0_usize, |bits, (k, byte)| {
        bits | (usize::from(byte.is_ascii_uppercase()) << k)
    });
    char::from(ALPHABET[index & 31])
}

fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifteen_becomes_eighteen() {
        // An id printed in Salesforce's own documentation.
        assert_eq!(
            RecordId::salesforce("001A0000006Vm9u").unwrap().as_str(),
            "001A0000006Vm9uIAC"
        );
        assert_eq!(
            RecordId::salesforce("001A0000006Vm9uiac").unwrap().as_str(),
            "001A0000006Vm9uIAC"
        );
    }

    #[test]
    fn refuses_changed_case_and_nonsense() {
        assert!(matches!(
            RecordId::salesforce("001a0000006Vm9uIAC"),
            Err(InvalidRecordId::Checksum(_))
        ));
        for text in [
            "",
            "001",
            "001A0000006Vm9u!",
            "001A0000006Vm9uIACx",
            "ÄÖÜÄÖÜÄ",
        ] {
            assert!(RecordId::salesforce(text).is_err(), "{text}");
        }
    }

    #[test]
    fn guids_are_lower_case() {
        let id = RecordId::guid("{A1B2C3D4-0000-1111-2222-333344445555}").unwrap();
        assert_eq!(id.as_str(), "a1b2c3d4-0000-1111-2222-333344445555");
    }
}
